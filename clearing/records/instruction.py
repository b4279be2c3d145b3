"""A signed instruction: everything a party tells the ledger besides new obligations.

Lives here: the bytes of an instruction (leaf and body), its kinds, its payload layouts. May not live here: who may
give which instruction and what follows from it (rules/, ledger.py).

A transaction is `leaf || body`. The leaf (128 bytes) goes into the log; the body is `salt (16) || payload`, and the
leaf's commitment is the RFC 6962 leaf hash of the body, so a payload may be withheld while its proof verifies.
Source: own design (README, decision 2).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.params import (
    PAYLOAD_BYTES_MAX,
    RANGES_PER_INSTRUCTION_MAX,
    SOLUTION_BYTES_MAX,
)
from clearing.records.leaves import LEAF_VERSION, LeafKind
from clearing.records.obligation import SALT_BYTES
from clearing.records.submission import SIGNATURE_BYTES, verify_leaf_signature

_DOMAIN = b"clearing/instruction/v1\0"


class InstructionKind(enum.IntEnum):
    """What an instruction asks for; the number stands in its leaf."""

    AFFIRM = 1
    REJECT = 2
    RESCIND = 3
    RUN_CYCLE = 4
    EVIDENCE = 5
    CONFIRM = 6
    FAIL = 7
    SET_LIQUIDITY = 8
    PROPOSE = 9
    APPROVE = 10
    SOLVE = 11
    REPORT_ANCHOR = 20
    SET_SETTLEMENT_SCRIPT = 30
    NAME_COINS = 31
    OFFER_LEG = 32
    REFUSE_LEG = 33
    REPORT_SIGNING = 34
    REPORT_HEADERS = 35
    SHOW_TRANSACTION = 36
    RECAST_CYCLE = 37
    DECLARE_COIN = 38
    ATTEST_COIN = 39


LAYOUT = Layout(
    "instruction leaf",
    uint("version", 1),
    uint("kind", 1),
    uint("instruction_kind", 2),
    uint("payload_bytes", 4),
    uint("actor", 4),
    reserved(4),
    raw("client_id", 16),
    raw("commitment", 32),
    raw("signature", 64),
)
LEAF_BYTES = LAYOUT.width

SELECTION_LAYOUT = Layout("item selection", uint("submission", 8), uint("ranges", 4))
RANGE_LAYOUT = Layout("item range", uint("first", 4), uint("last", 4))
REFERENCE_LAYOUT = Layout("settlement reference", uint("cycle", 4), uint("number", 4))
EVIDENCE_LAYOUT = Layout(
    "settlement evidence", uint("cycle", 4), uint("number", 4), raw("evidence_hash", 32)
)
LIQUIDITY_LAYOUT = Layout(
    "pledged liquidity",
    uint("participant", 4),
    uint("asset", 2),
    reserved(2),
    uint("amount_units", 16),
)
APPROVAL_LAYOUT = Layout("approval", uint("proposal", 8))


@dataclass(frozen=True, slots=True)
class Instruction:
    """A parsed instruction; equal bytes give equal values and back."""

    leaf: bytes
    body: bytes
    kind: InstructionKind
    actor: int
    client_id: bytes
    commitment: bytes

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse `leaf || body`.

        Raises: DecodeError: not exactly a leaf and the body it announces, or an unknown kind.
        """
        leaf, body = data[:LEAF_BYTES], data[LEAF_BYTES:]
        instruction = cls.of_leaf(leaf, body)
        payload_bytes = int.from_bytes(leaf[4:8], "little")
        if len(body) != SALT_BYTES + payload_bytes:
            raise DecodeError(f"the body takes {SALT_BYTES + payload_bytes} bytes, got {len(body)}")
        return instruction

    @classmethod
    def of_leaf(cls, leaf: bytes, body: bytes = b"") -> Self:
        """Parse a leaf from the log, where the body may be withheld (empty).

        Raises: DecodeError: not an instruction leaf.
        """
        values = LAYOUT.decode(leaf)
        if values["version"] != LEAF_VERSION or values["kind"] != LeafKind.INSTRUCTION:
            raise DecodeError("not an instruction leaf of version 1")
        try:
            kind = InstructionKind(values["instruction_kind"])
        except ValueError as error:
            raise DecodeError(
                f"instruction kind {values['instruction_kind']} is unknown"
            ) from error
        longest = SOLUTION_BYTES_MAX if kind is InstructionKind.SOLVE else PAYLOAD_BYTES_MAX
        if values["payload_bytes"] > longest:
            raise DecodeError(f"a payload of this kind is at most {longest} bytes")
        return cls(leaf, body, kind, values["actor"], values["client_id"], values["commitment"])

    def encode(self) -> bytes:
        """Return `leaf || body`."""
        return self.leaf + self.body

    @property
    def payload(self) -> bytes:
        """The body without its salt."""
        return self.body[SALT_BYTES:]

    def verify_signature(self, network_id: bytes, public_key: bytes) -> None:
        """Check the actor's Ed25519 signature.

        Raises: VerificationError: the signature is not by `public_key` for this network.
        """
        verify_leaf_signature(_DOMAIN, network_id, self.leaf, public_key)

    def verify_commitment(self) -> None:
        """Check the body against the signed commitment.

        Raises: VerificationError: the body is not what was signed.
        """
        if merkle.leaf_hash(self.body) != self.commitment:
            raise VerificationError("the payload does not match the signed commitment")


@dataclass(frozen=True, slots=True)
class ItemSelection:
    """Items of one submission: inclusive (first, last) ranges, ascending and disjoint; none means all that apply."""

    submission: int
    ranges: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes: 12 and 8 for each range."""
        head = SELECTION_LAYOUT.encode(submission=self.submission, ranges=len(self.ranges))
        return head + b"".join(RANGE_LAYOUT.encode(first=a, last=b) for a, b in self.ranges)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, too many ranges, or ranges not ascending and disjoint.
        """
        head = SELECTION_LAYOUT.decode(data[: SELECTION_LAYOUT.width])
        if head["ranges"] > RANGES_PER_INSTRUCTION_MAX:
            raise DecodeError(f"at most {RANGES_PER_INSTRUCTION_MAX} ranges an instruction")
        rows = split_records(
            data[SELECTION_LAYOUT.width :], RANGE_LAYOUT.width, head["ranges"], "item ranges"
        )
        pairs = [RANGE_LAYOUT.decode(row) for row in rows]
        ranges = tuple((pair["first"], pair["last"]) for pair in pairs)
        floor = -1
        for first, last in ranges:
            if first <= floor or last < first:
                raise DecodeError("item ranges must ascend and must not overlap")
            floor = last
        return cls(head["submission"], ranges)


def make_instruction(
    *,
    network_id: bytes,
    kind: InstructionKind,
    actor: int,
    client_id: bytes,
    salt: bytes,
    payload: bytes,
    sign: Callable[[bytes], bytes],
) -> Instruction:
    """Sign one instruction.

    Caller's duties: `client_id` (16 bytes) and `salt` (16 bytes) are random and new for each instruction; `sign` makes
    an Ed25519 signature with the actor's registered key.
    Raises: DecodeError: the payload is too long.
    """
    body = salt + payload
    unsigned = LAYOUT.encode(
        version=LEAF_VERSION,
        kind=LeafKind.INSTRUCTION,
        instruction_kind=kind,
        payload_bytes=len(payload),
        actor=actor,
        client_id=client_id,
        commitment=merkle.leaf_hash(body),
        signature=bytes(SIGNATURE_BYTES),
    )[:-SIGNATURE_BYTES]
    return Instruction.decode(unsigned + sign(_DOMAIN + network_id + unsigned) + body)
