"""Our tiles under other people's eyes: tessera's `fsck` accepts them, and finds what is altered.

The binary is the one that CLEARING_FSCK names, or a `fsck` on the PATH that is tessera's: most
systems have another of that name. `go install github.com/transparency-dev/tessera/cmd/fsck@latest`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clearing.log.checkpoint import Checkpoint
from clearing.log.merkle import HashedLeaves
from clearing.log.note import Note, sign
from clearing.log.tiles import CHECKPOINT_PATH, export
from tests.clearing.log.support import log_signer, naive_leaf, naive_root, witness_signer

pytestmark = pytest.mark.slow

HOW_TO_INSTALL = (
    "tessera's fsck is missing: go install github.com/transparency-dev/tessera/cmd/fsck@latest "
    "and set CLEARING_FSCK to the binary"
)
TIMEOUT_S = 60
LOG = log_signer()


def is_tessera(binary: Path) -> bool:
    if not binary.is_file() or not os.access(binary, os.X_OK):
        return False
    result = subprocess.run([binary, "--help"], capture_output=True, timeout=TIMEOUT_S, check=False)
    return b"storage_url" in result.stdout + result.stderr


@pytest.fixture(scope="module")
def fsck() -> Path:
    named = os.environ.get("CLEARING_FSCK")
    if named:
        assert is_tessera(Path(named)), f"CLEARING_FSCK={named} is not tessera's fsck"
        return Path(named)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for binary in [Path(folder) / "fsck" for folder in folders if folder]:
        if is_tessera(binary):
            return binary
    if os.environ.get("CI") == "true":
        pytest.fail(HOW_TO_INSTALL)
    pytest.skip(HOW_TO_INSTALL)


class Entries:
    """An `EntryReader` whose leaves say their number."""

    def entries(self, first: int, count: int) -> list[bytes]:
        return [str(number).encode() for number in range(first, first + count)]


def write_log(directory: Path, size: int) -> None:
    leaves = [naive_leaf(number) for number in range(size)]
    for path, data in export(0, size, HashedLeaves(leaves), Entries()):
        target = directory / "log" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    text = Checkpoint(LOG.key.name, size, naive_root(leaves)).text
    note = Note(text, (sign(text, LOG), sign(text, witness_signer(), 1700000000)))
    (directory / "log").mkdir(exist_ok=True)
    (directory / "log" / CHECKPOINT_PATH).write_bytes(note.encode())
    (directory / "log.vkey").write_text(LOG.key.vkey, "utf-8")


def check(fsck: Path, directory: Path) -> str:
    """Run fsck and return what it says.

    It exits 0 whatever it finds, so its words count; with fewer workers than bad tiles it hangs.
    """
    command = [fsck, f"--storage_url=file://{directory}/log/", f"--public_key={directory}/log.vkey"]
    command += ["--ui=false", "-N=64"]
    result = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, text=True)
    return result.stdout + result.stderr


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700, 65_536, 65_793])
def test_stock_fsck_accepts_our_tiles(fsck, tmp_path, size):
    write_log(tmp_path, size)
    said = check(fsck, tmp_path)
    assert f"Successfully fsck'd log with size {size}" in said, said


@pytest.mark.parametrize(
    "path",
    ["checkpoint", "tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/001"],
)
@pytest.mark.parametrize("missing", [False, True], ids=["altered", "missing"])
def test_stock_fsck_finds_what_is_altered_or_missing(fsck, tmp_path, path, missing):
    write_log(tmp_path, 700)
    target = tmp_path / "log" / path
    if missing:
        target.unlink()
    else:
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
    said = check(fsck, tmp_path)
    assert "Successfully" not in said
    assert "fsck failed" in said or "failed" in said.lower(), said
