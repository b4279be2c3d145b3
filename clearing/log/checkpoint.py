"""The text of a log's head: origin, size and root (C2SP tlog-checkpoint).

Lives here: the checkpoint as a value and its text. May not live here: signatures (note.py,
cosignature.py).
Invariant: `Checkpoint.parse` accepts exactly the image of `Checkpoint.text`.
Source: C2SP tlog-checkpoint v1.0.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.errors import DecodeError
from clearing.log.text import (
    UINT64_MAX,
    decode_decimal,
    decode_hash,
    encode_base64,
    is_printable_line,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head: which log, how many leaves, which root.

    `origin` names the log; `size` counts leaves, below 2**64; `root` is 32 bytes; `extensions` are
    further lines of the text, kept for logs of others. Ours never write any: no monitor can audit
    them, and ML-DSA cosignatures do not cover them.

    Raises: DecodeError: a field that the format cannot carry.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= UINT64_MAX:
            raise DecodeError(f"checkpoint size {self.size} is not below 2**64")
        if len(self.root) != 32:
            raise DecodeError(f"checkpoint root must be 32 bytes, got {len(self.root)}")
        for line in (self.origin, *self.extensions):
            if not line or not is_printable_line(line):
                raise DecodeError(
                    "checkpoint lines must be non-empty and free of control characters"
                )

    @property
    def text(self) -> str:
        """The note text: at least three lines, each ending in a newline."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note as a checkpoint.

        Raises: DecodeError: fewer than three lines, an empty line, a size or root that is not
        canonical.
        """
        if not text.endswith("\n"):
            raise DecodeError("checkpoint text must end in a newline")
        lines = text[:-1].split("\n")
        if len(lines) < 3:
            raise DecodeError(f"checkpoint must have at least 3 lines, got {len(lines)}")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            decode_decimal(size, "checkpoint size"),
            decode_hash(root, "checkpoint root"),
            tuple(extensions),
        )
