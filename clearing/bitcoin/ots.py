"""OpenTimestamps proofs: a file's SHA-256 led, hash by hash, to the Merkle root of a Bitcoin block.

Lives here: the bytes of the proofs that this ledger makes, their making, their strict reading, and their verification under a
chain of headers. May not live here: what is stamped (anchor.py), whether a chain of headers holds (headers.py).

    magic || version 1 || SHA-256 || digest || operations || attestation: Bitcoin, height

A proof here is one line of operations: append, prepend, SHA-256, and one attestation by a Bitcoin block at its end; no
calendar is ever asked. Stock `ots` reads every such proof; of others' proofs those are read that have this form, and what forks, waits
for a calendar or uses other operations is refused by name. Invariant: `OtsProof.decode` accepts exactly the image of
`OtsProof.encode`, so a byte that is changed changes what is proven or is refused.
An attestation names a height and no block: only headers say which.
Source: opentimestamps 0.4.5, core/timestamp.py, core/op.py, core/notary.py.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from clearing.bitcoin.headers import HeaderChain
from clearing.bitcoin.next_header import HEIGHT_MAX
from clearing.bitcoin.transaction import BRANCH_HASHES_MAX, TransactionProof
from clearing.errors import DecodeError, VerificationError

MAGIC = bytes.fromhex("004f70656e54696d657374616d7073000050726f6f6600bf89e2e884e89294")
VERSION = 1
DIGEST_BYTES = 32
MESSAGE_BYTES_MAX = 4_096
"""Greatest message that an operation takes or gives. Source: core/op.py MAX_RESULT_LENGTH."""

OPERATIONS_MAX = 250
"""Most operations of one proof; the stock reader gives up at 256."""

PROOF_BYTES_MAX = 64_000
_ATTESTATION = bytes.fromhex("000588960d73d71901")


class Operation(enum.IntEnum):
    """What is done to a message; the byte that stands for it."""

    SHA256 = 0x08
    APPEND = 0xF0
    PREPEND = 0xF1


Step = tuple[Operation, bytes]
"""An operation with what it appends or prepends, b"" for SHA-256."""


def _varuint(value: int) -> bytes:
    """Return LEB128 without superfluous bytes."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


class _Reader:
    """Reads a proof from its front, within bounds."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises: DecodeError: there are fewer."""
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise DecodeError("the timestamp proof is cut short")
        self._at += count
        return part

    def varuint(self, value_max: int) -> int:
        """Return the next number in LEB128. Raises: DecodeError: above `value_max`, or not in its one form."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if value > value_max or shift > 63:
                raise DecodeError("a number in the timestamp proof is too great")
            if byte < 0x80:
                break
            shift += 7
        # A zero at its end would be a second way to write the same number.
        if byte == 0 and shift:
            raise DecodeError("a number in the timestamp proof is not canonical")
        return value


@dataclass(frozen=True, slots=True)
class OtsProof:
    """A proof: `steps` lead from `digest` (SHA-256 of a file) to the Merkle root of the block at `height`."""

    digest: bytes
    steps: tuple[Step, ...]
    height: int

    def encode(self) -> bytes:
        """Return the bytes of an .ots file.

        Raises: DecodeError: longer than stock readers take.
        """
        if len(self.steps) > OPERATIONS_MAX:
            raise DecodeError(f"a timestamp proof has at most {OPERATIONS_MAX} operations")
        parts = [MAGIC, _varuint(VERSION), bytes([Operation.SHA256]), self.digest]
        for operation, argument in self.steps:
            parts.append(bytes([operation]))
            if operation is not Operation.SHA256:
                parts += [_varuint(len(argument)), argument]
        height = _varuint(self.height)
        return b"".join([*parts, _ATTESTATION, _varuint(len(height)), height])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an .ots file.

        Raises: DecodeError: not one, cut short, left over, beyond a bound, or not one line of operations that ends at a
        Bitcoin block.
        """
        if len(data) > PROOF_BYTES_MAX:
            raise DecodeError(f"a timestamp proof is at most {PROOF_BYTES_MAX} bytes")
        reader = _Reader(data)
        if reader.take(len(MAGIC)) != MAGIC:
            raise DecodeError("not an OpenTimestamps proof")
        if reader.varuint(0xFF) != VERSION:
            raise DecodeError(f"not an OpenTimestamps proof of version {VERSION}")
        if reader.take(1)[0] != Operation.SHA256:
            raise DecodeError("only files stamped by their SHA-256 are read")
        digest = reader.take(DIGEST_BYTES)
        steps: list[Step] = []
        while (tag := reader.take(1)[0]) != _ATTESTATION[0]:
            steps.append(_step(reader, tag))
            if len(steps) > OPERATIONS_MAX:
                raise DecodeError(f"a timestamp proof has at most {OPERATIONS_MAX} operations")
        if reader.take(len(_ATTESTATION) - 1) != _ATTESTATION[1:]:
            raise DecodeError("the timestamp proof ends at no Bitcoin block: it is not complete")
        payload_bytes = reader.varuint(10)
        payload = _Reader(reader.take(payload_bytes))
        height = payload.varuint(HEIGHT_MAX)
        if not payload.is_done or not reader.is_done:
            raise DecodeError("bytes are left over behind the timestamp proof")
        return cls(digest, tuple(steps), height)

    def root(self) -> bytes:
        """Return what the steps lead to: the Merkle root (internal order) that the block's header must hold.

        Raises: VerificationError: a message on the way is too long, or the last step is no hash.
        """
        message = self.digest
        for operation, argument in self.steps:
            if operation is Operation.SHA256:
                message = hashlib.sha256(message).digest()
            else:
                is_append = operation is Operation.APPEND
                message = message + argument if is_append else argument + message
            if len(message) > MESSAGE_BYTES_MAX:
                raise VerificationError("a message in the timestamp proof is too long")
        if not self.steps or self.steps[-1][0] is not Operation.SHA256:
            raise VerificationError("the timestamp proof leads to no hash")
        return message


def _step(reader: _Reader, tag: int) -> Step:
    if tag == 0xFF:
        raise DecodeError("a timestamp proof that forks is not read: keep the way to one block")
    try:
        operation = Operation(tag)
    except ValueError as error:
        raise DecodeError(f"operation {tag:#04x} of a timestamp proof is not read") from error
    if operation is Operation.SHA256:
        return operation, b""
    length = reader.varuint(MESSAGE_BYTES_MAX)
    if not length:
        raise DecodeError("an operation of the timestamp proof adds nothing")
    return operation, reader.take(length)


@dataclass(frozen=True, slots=True)
class Existence:
    """What a timestamp proof shows: the file existed by the time of this block.

    time_s: as its miner claims it, at most about two hours off; median_time_s: of the block and the ten before, which no single miner
    chooses, None where the chain does not hold them. Seconds since 1970. depth: confirmations in the chain, 1 at its tip.
    """

    height: int
    block_hash: bytes
    time_s: int
    median_time_s: int | None
    depth: int


def verify_ots(proof: OtsProof, digest: bytes, chain: HeaderChain, depth_min: int) -> Existence:
    """Check that a file with this SHA-256 existed by a block of a verified chain of headers.

    Raises: VerificationError: the proof is of another file or leads to no block of this chain; HeaderError: HEIGHT or SHALLOW:
    the chain has no block at the height, or fewer than `depth_min` confirmations on it.
    """
    if proof.digest != digest:
        raise VerificationError("the timestamp proof is of another file")
    header = chain.header(proof.height)
    if header[36:68] != proof.root():
        raise VerificationError(
            f"the timestamp proof does not lead to block {proof.height} of this chain"
        )
    depth = chain.require_depth(proof.height, depth_min)
    return Existence(
        proof.height,
        hashlib.sha256(hashlib.sha256(header).digest()).digest(),
        chain.time_s(proof.height),
        chain.median_time_s(proof.height),
        depth,
    )


def make_proofs(digests: Sequence[bytes], place: TransactionProof, height: int) -> Iterator[bytes]:
    """Yield the .ots of each digest, in order, from the proof that a block at `height` holds their anchor's transaction.

    Raises: DecodeError: no digests, or the transaction is too large for a timestamp; VerificationError: the transaction does
    not hold their commitment.
    """
    if len(place.branch) > BRANCH_HASHES_MAX:
        raise DecodeError(f"a branch has at most {BRANCH_HASHES_MAX} hashes")
    levels = _levels(digests)
    before, commitment, after = place.transaction.raw.partition(levels[-1][0])
    if not commitment:
        raise VerificationError("the transaction does not hold the commitment of these digests")
    if len(place.transaction.raw) > MESSAGE_BYTES_MAX:
        raise DecodeError("the transaction is too large for a timestamp")
    twice: tuple[Step, Step] = ((Operation.SHA256, b""), (Operation.SHA256, b""))
    rest = [(Operation.PREPEND, before), (Operation.APPEND, after), *twice]
    for level, sibling in enumerate(place.branch):
        is_right = place.position >> level & 1
        rest += [(Operation.PREPEND if is_right else Operation.APPEND, sibling), *twice]
    for number, digest in enumerate(digests):
        yield OtsProof(digest, (*_path(levels, number), *rest), height).encode()


def commitment_of(digests: Sequence[bytes]) -> bytes:
    """Return the root of OpenTimestamps' Merkle tree over digests, in order.

    Raises: DecodeError: there are none, or one is not 32 bytes.
    """
    return _levels(digests)[-1][0]


def _levels(digests: Sequence[bytes]) -> list[list[bytes]]:
    """Return the tree from the digests to its root: an odd last one goes up as it is. Source: core/timestamp.py make_merkle_tree."""
    if not digests or any(len(digest) != DIGEST_BYTES for digest in digests):
        raise DecodeError(f"digests are {DIGEST_BYTES} bytes each, and at least one")
    levels = [list(digests)]
    while len(levels[-1]) > 1:
        row = levels[-1]
        joined = [
            hashlib.sha256(row[at] + row[at + 1]).digest() for at in range(0, len(row) - 1, 2)
        ]
        levels.append(joined + row[len(row) // 2 * 2 :])
    return levels


def _path(levels: Sequence[Sequence[bytes]], number: int) -> Iterator[Step]:
    for row in levels[:-1]:
        sibling = number ^ 1
        if sibling < len(row):
            yield (Operation.APPEND if number < sibling else Operation.PREPEND), row[sibling]
            yield Operation.SHA256, b""
        number //= 2
