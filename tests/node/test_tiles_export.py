"""The exported tree is C2SP tlog-tiles, grows by new files only, and never mixes histories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.ledger import BlockResult
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import SignatureType
from clearing.log.note import Note, sign
from clearing.log.tiles import decode_bundle
from node.errors import SetupError
from node.store import Store
from node.tiles_export import TilesExport, export_tiles
from tests.clearing.log.support import SeedSigner, log_signer, naive_root
from tests.ledger_kit import P01, P02, Net, item
from tests.node.store.store_kit import fill

LOG = log_signer()
STRANGER = SeedSigner("ledger.example/clearing", SignatureType.ED25519, bytes(32))


@pytest.fixture(scope="module")
def results() -> tuple[BlockResult, ...]:
    """A log of more than two full tiles."""
    net = Net()
    while net.state.log_size < 600:
        net.block(*[net.submission(P01, item(P01, P02, 1)) for _ in range(100)])
    return tuple(net.results)


@pytest.fixture(scope="module")
def store(
    results: tuple[BlockResult, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    with fill(tmp_path_factory.mktemp("tiles") / "s", results) as filled:
        yield filled


def note_of(size: int, root: bytes, signer: SeedSigner = LOG) -> bytes:
    text = Checkpoint(LOG.key.name, size, root).text
    return Note(text, (sign(text, signer),)).encode()


def export(store: Store, directory: Path, size: int) -> TilesExport:
    with store.snapshot() as view:
        return export_tiles(directory, note_of(size, view.root(size)), LOG.key, view, view)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def rederived_root(directory: Path, size: int) -> bytes:
    """Read every leaf of the tree of files and compute the root with the definition."""
    hashes = []
    for index in range((size + 255) // 256):
        width = min(256, size - 256 * index)
        suffix = "" if width == 256 else f".p/{width}"
        bundle = (directory / f"tile/entries/{index:03d}{suffix}").read_bytes()
        leaves = [hashlib.sha256(b"\0" + leaf).digest() for leaf in decode_bundle(bundle, width)]
        assert (directory / f"tile/0/{index:03d}{suffix}").read_bytes() == b"".join(leaves)
        hashes += leaves
    return naive_root(hashes)


def test_the_tree_holds_every_leaf_and_leads_to_its_checkpoint(
    store: Store, tmp_path: Path
) -> None:
    assert store.tip is not None
    size, root = store.tip.log_size, store.tip.log_root
    done = export(store, tmp_path / "t", size)
    assert rederived_root(tmp_path / "t", size) == root
    written = files(tmp_path / "t")
    assert written["checkpoint"] == note_of(size, root)
    assert written["clearing.vkey"] == f"{LOG.key.vkey}\n".encode()
    assert done == TilesExport(0, size, len(written), tmp_path / "t" / "clearing.vkey")
    assert f"tile/1/000.p/{size // 256}" in written


@pytest.mark.parametrize("steps", [(1, 2, 255), (256, 257), (255, 512, 513), (600, 600)])
def test_growing_step_by_step_adds_files_and_changes_none(
    store: Store, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    before: dict[str, bytes] = {}
    for size in steps:
        export(store, tmp_path / "t", size)
        now = files(tmp_path / "t")
        kept = {path: data for path, data in before.items() if path != "checkpoint"}
        assert {path: now[path] for path in kept} == kept
        before = now
    export(store, tmp_path / "at-once", steps[-1])
    at_once = files(tmp_path / "at-once")
    assert {path: before[path] for path in at_once} == at_once


def test_an_export_that_was_cut_off_is_completed(store: Store, tmp_path: Path) -> None:
    """Without its checkpoint a tree promises nothing; whatever lies there is written again."""
    export(store, tmp_path / "t", 300)
    good = files(tmp_path / "t")
    (tmp_path / "t" / "checkpoint").unlink()
    (tmp_path / "t" / "tile/0/000").write_bytes(b"torn")
    (tmp_path / "t" / "tile/.001.new").write_bytes(b"left behind")
    export(store, tmp_path / "t", 300)
    assert {path: data for path, data in files(tmp_path / "t").items() if "new" not in path} == good


def test_a_note_that_is_not_the_logs_is_refused_and_nothing_is_written(
    store: Store, tmp_path: Path
) -> None:
    with store.snapshot() as view:
        root = view.root(300)
        for note, error, why in (
            (note_of(300, root, STRANGER), VerificationError, "no signature of a known key"),
            (note_of(300, bytes(32)), VerificationError, "does not lead"),
            (note_of(5000, root), VerificationError, "no node"),
            (b"no note", DecodeError, "note"),
        ):
            with pytest.raises(error, match=why):
                export_tiles(tmp_path / "t", note, LOG.key, view, view)
    assert not (tmp_path / "t").exists()


def test_another_log_a_larger_tree_and_a_fork_are_left_alone(
    store: Store, results: tuple[BlockResult, ...], tmp_path: Path
) -> None:
    export(store, tmp_path / "t", 300)
    before = files(tmp_path / "t")
    with pytest.raises(SetupError, match="covers 300 leaves already"):
        export(store, tmp_path / "t", 299)
    (tmp_path / "t" / "checkpoint").write_bytes(note_of(300, bytes(32)))
    with pytest.raises(SetupError, match="another history"):
        export(store, tmp_path / "t", 400)
    (tmp_path / "t" / "checkpoint").write_bytes(note_of(300, bytes(32), STRANGER))
    with pytest.raises(SetupError, match="not this log's checkpoint"):
        export(store, tmp_path / "t", 400)
    (tmp_path / "t" / "checkpoint").write_bytes(before["checkpoint"])
    assert files(tmp_path / "t") == before


def test_a_directory_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a file")
    with pytest.raises(SetupError, match="cannot write"):
        export(store, tmp_path / "t", 300)
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "tile").write_bytes(b"a file")
    with pytest.raises(SetupError, match="tile"):
        export(store, tmp_path / "u", 300)


def test_progress_counts_to_the_number_of_files(store: Store, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with store.snapshot() as view:
        note = note_of(600, view.root(600))
        export_tiles(
            tmp_path / "t",
            note,
            LOG.key,
            view,
            view,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
