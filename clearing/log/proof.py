"""Receipts: proofs of logging that verify offline (C2SP tlog-proof).

Lives here: the proof as a value, its text, its making and its verification. May not live here: what
the leaf says (the caller computes its hash), files.
Invariant: `LogProof.parse` accepts exactly the image of `LogProof.encode`.
Source: C2SP tlog-proof, version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.merkle import HASH_BYTES, NodeReader, inclusion_proof, verify_inclusion
from clearing.log.note import Note
from clearing.log.policy import Policy, Quorum
from clearing.log.text import (
    UINT64_MAX,
    decode_base64,
    decode_decimal,
    decode_hash,
    decode_utf8,
    encode_base64,
)

HEADER = "c2sp.org/tlog-proof@v1"
PATH_HASHES_MAX = 64  # the depth of a tree of 2**64 - 1 leaves
EXTRA_BYTES_MAX = 1_000_000
PROOF_BYTES_MAX = 3_000_000  # extra in base64, index and path, and a note


@dataclass(frozen=True, slots=True)
class LogProof:
    """A receipt: leaf `index`, its inclusion `path`, and the signed `checkpoint` they lead to.

    `extra` is opaque data of the application and is **not** authenticated: whoever holds the proof
    can change it. None means no extra line, b"" an empty one. The checkpoint may be trusted only as
    `check` returns it.

    Raises: DecodeError: an index, a path or an extra that the format cannot carry, or a note whose
    text is no checkpoint.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= UINT64_MAX:
            raise DecodeError(f"proof index {self.index} is not below 2**64")
        if len(self.path) > PATH_HASHES_MAX or any(len(part) != HASH_BYTES for part in self.path):
            raise DecodeError(f"proof must have at most {PATH_HASHES_MAX} hashes of 32 bytes")
        if self.extra is not None and len(self.extra) > EXTRA_BYTES_MAX:
            raise DecodeError(f"extra data of a proof is limited to {EXTRA_BYTES_MAX} bytes")
        Checkpoint.parse(self.checkpoint.text)

    @classmethod
    def make(
        cls, index: int, checkpoint: Note, reader: NodeReader, extra: bytes | None = None
    ) -> LogProof:
        """Return the receipt of leaf `index` under a signed checkpoint of our own log.

        The signatures are not checked: they are the holder's to judge.

        Raises: DecodeError: the note is no checkpoint. VerificationError: the checkpoint does not
        cover the leaf.
        """
        size = Checkpoint.parse(checkpoint.text).size
        return cls(index, inclusion_proof(index, size, reader), checkpoint, extra)

    def encode(self) -> bytes:
        """Return the text of a `.tlog-proof` file.

        Raises: DecodeError: the checkpoint carries no signature.
        """
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(encode_base64(part) for part in self.path)
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint.encode()

    @classmethod
    def parse(cls, data: bytes) -> LogProof:
        """Read a `.tlog-proof` file.

        Raises: DecodeError: too long, not UTF-8, a line missing, superfluous or not canonical, or a
        checkpoint that is not a signed note with a checkpoint's text.
        """
        if len(data) > PROOF_BYTES_MAX:
            raise DecodeError(f"proof is longer than {PROOF_BYTES_MAX} bytes")
        head, separator, note = data.partition(b"\n\n")
        if not separator:
            raise DecodeError("proof must have an empty line before its checkpoint")
        lines = decode_utf8(head, "proof").split("\n")
        if lines.pop(0) != HEADER:
            raise DecodeError(f"proof must start with the line {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "extra line of the proof")
        if not lines or not lines[0].startswith("index "):
            raise DecodeError("proof must have an index line")
        index = decode_decimal(lines.pop(0).removeprefix("index "), "index of the proof")
        if len(lines) > PATH_HASHES_MAX:
            raise DecodeError(f"proof has more than {PATH_HASHES_MAX} hashes")
        path = tuple(decode_hash(line, "hash of the proof") for line in lines)
        return cls(index, path, Note.parse(note), extra)

    def check(self, leaf_hash: bytes, policy: Policy) -> Quorum:
        """Judge whether the log has the leaf, under a checkpoint that the policy accepts.

        `leaf_hash` is computed by the caller from what it believes was logged. To trust a log's key
        alone, pass `Policy.of_log(key)`.

        Returns: who signed, with the checkpoint.

        Raises: VerificationError: the policy refuses the checkpoint, or the leaf is not at this
        index under it.
        """
        quorum = policy.check(self.checkpoint)
        self.verify_under(quorum.checkpoint, leaf_hash)
        return quorum

    def verify_under(self, trusted: Checkpoint, leaf_hash: bytes) -> None:
        """Verify the receipt under a checkpoint that a policy has accepted before.

        The signatures are not looked at again: of many receipts under one checkpoint, which is most
        of the cost, only one needs `check`.

        Raises: VerificationError: the receipt is under another checkpoint, or the leaf is not at
        this index under it.
        """
        if self.checkpoint.text != trusted.text:
            raise VerificationError("receipt is under another checkpoint than the trusted one")
        verify_inclusion(leaf_hash, self.index, trusted.size, self.path, trusted.root)
