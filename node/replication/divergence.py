"""The report that a replica leaves when it does not agree with its leader.

Lives here: Divergence, the signed report, its file. May not live here: finding a divergence
(replica.py).

The report is a signed note: the text of a checkpoint of the replica's own head under an origin of
its own (`<log origin>/divergence/<node>`), whose further lines say what was received, cosigned by
the replica. So it verifies with stock tools and the key that the policy lists, and nobody takes it
for a checkpoint of the log.

    <log origin>/divergence/<node>
    <leaves in the replica's log>
    <its root>
    height <height of the block refused>
    leaf <log index of the first leaf that differs>
    computed <hash of the replica's leaf, or ->
    received <hash of the leader's leaf, or ->
    why <one sentence>
    note <the leader's note over the block, in base64>
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearing.errors import ClearingError, DecodeError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note, sign
from clearing.log.text import decode_base64, decode_decimal, decode_hash, encode_base64
from node.files import PUBLIC_MODE, read_public, replace_file
from node.store import Head

REPORT_NAME = "divergence.note"
_KEYS = ("height", "leaf", "computed", "received", "why", "note")
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Divergence:
    """What differs: the block, its first leaf that does, its hash here and as it came, and why.

    A hash is b"" where that side has no such leaf.
    """

    height: int
    leaf: int
    computed: bytes
    received: bytes
    why: str


class DivergenceError(ClearingError):
    """The leader's block is not what this replica's own work gives; nothing of it was kept."""

    def __init__(self, divergence: Divergence) -> None:
        """Carry what differs."""
        super().__init__(f"block {divergence.height}, leaf {divergence.leaf}: {divergence.why}")
        self.divergence = divergence


def _hash_text(value: bytes) -> str:
    return encode_base64(value) if value else _NOTHING


def make_report(
    divergence: Divergence,
    own: Head,
    note: bytes,
    *,
    origin: str,
    node: str,
    signer: Signer,
    now_s: int,
) -> bytes:
    """Return the signed report.

    own: the replica's head before the block; note: the leader's, over the block.
    Raises: DecodeError: a text that a note cannot carry.
    """
    why = " ".join("".join(c if c.isprintable() else " " for c in divergence.why).split())
    extensions = (
        f"height {divergence.height}",
        f"leaf {divergence.leaf}",
        f"computed {_hash_text(divergence.computed)}",
        f"received {_hash_text(divergence.received)}",
        f"why {why}",
        f"note {encode_base64(note)}",
    )
    head = Checkpoint(f"{origin}/divergence/{node}", own.size, own.root, extensions)
    return Note(head.text, (sign(head.text, signer, now_s),)).encode()


def parse_report(data: bytes) -> tuple[Checkpoint, Divergence, bytes]:
    """Return the replica's own head, what differs, and the leader's note.

    The caller verifies the signature.
    Raises: DecodeError: not such a report.
    """
    head = Checkpoint.parse(Note.parse(data).text)
    values = dict(line.split(" ", 1) for line in head.extensions if " " in line)
    if tuple(line.partition(" ")[0] for line in head.extensions) != _KEYS or len(values) != len(
        _KEYS
    ):
        raise DecodeError("not a divergence report")
    computed, received = (
        b"" if values[key] == _NOTHING else decode_hash(values[key], key)
        for key in ("computed", "received")
    )
    divergence = Divergence(
        decode_decimal(values["height"], "height"),
        decode_decimal(values["leaf"], "leaf"),
        computed,
        received,
        values["why"],
    )
    return head, divergence, decode_base64(values["note"], "note")


def write_report(directory: Path, report: bytes) -> Path:
    """Keep the report in `directory`; while it is there the replica stays DIVERGED.

    Raises: SetupError: it cannot be written.
    """
    path = directory / REPORT_NAME
    replace_file(path, report, PUBLIC_MODE)
    return path


def read_report(directory: Path) -> bytes:
    """Return the report kept in `directory`, b"" for none.

    Raises: SetupError: it cannot be read.
    """
    path = directory / REPORT_NAME
    return read_public(path) if path.exists() else b""
