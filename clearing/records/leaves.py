"""The leaves of the log: their kinds, the leaves that the ledger itself writes, and their byte layouts.

Lives here: LeafKind and the fixed-width leaves GENESIS, CYCLE_CUT_OFF, CYCLE_NETTED, CYCLE_ENDED, EXPIRED,
VALIDATORS, MISBEHAVIOUR and SEAL. Signed leaves
have modules of their own (submission.py, instruction.py). May not live here: when a leaf is written (ledger.py).

Every leaf starts with version u8 and kind u8, and is at most LEAF_BYTES_MAX bytes. A block's leaves are in this
order: evidence against validators, what fell due by block time, each accepted transaction followed by what it caused,
a new set of validators, then one SEAL.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.codec import Field, Kind, Layout, raw, reserved, uint
from clearing.errors import DecodeError

LEAF_VERSION = 1


class LeafKind(enum.IntEnum):
    """What a leaf records; the second byte of every leaf."""

    GENESIS = 1
    SUBMISSION = 2
    INSTRUCTION = 3
    CYCLE_NETTED = 4
    CYCLE_ENDED = 5
    EXPIRED = 6
    SEAL = 7
    CYCLE_CUT_OFF = 8
    VALIDATORS = 10
    MISBEHAVIOUR = 11


def leaf_kind(leaf: bytes) -> LeafKind:
    """Return the kind of a leaf.

    Raises: DecodeError: fewer than two bytes, another version, or an unknown kind.
    """
    if len(leaf) < 2 or leaf[0] != LEAF_VERSION:
        raise DecodeError("a leaf starts with version 1 and its kind")
    try:
        return LeafKind(leaf[1])
    except ValueError as error:
        raise DecodeError(f"leaf kind {leaf[1]} is unknown") from error


def _leaf_layout(name: str, *fields: Field) -> Layout:
    return Layout(name, uint("version", 1), uint("kind", 1), *fields)


class _LedgerLeaf:
    """Encoding shared by the leaves that the ledger writes: dataclass fields behind version and kind."""

    __slots__ = ()
    KIND: ClassVar[LeafKind]
    LAYOUT: ClassVar[Layout]

    def encode(self) -> bytes:
        """Return the leaf's canonical bytes."""
        names = (field.name for field in self.LAYOUT.fields if field.kind is not Kind.ZERO)
        values = {name: getattr(self, name) for name in names if name not in ("version", "kind")}
        return self.LAYOUT.encode(version=LEAF_VERSION, kind=self.KIND, **values)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: not a leaf of this kind.
        """
        if leaf_kind(data) is not cls.KIND:
            raise DecodeError(f"not a {cls.KIND.name} leaf")
        values = cls.LAYOUT.decode(data)
        del values["version"], values["kind"]
        return cls(**values)


@dataclass(frozen=True, slots=True)
class GenesisLeaf(_LedgerLeaf):
    """Leaf 0. `body_hash` is the SHA-256 of the genesis body (rules/governance.py); `time_ms` the first block time."""

    time_ms: int
    body_hash: bytes

    KIND: ClassVar[LeafKind] = LeafKind.GENESIS
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "genesis leaf", reserved(6), uint("time_ms", 8), raw("body_hash", 32)
    )


@dataclass(frozen=True, slots=True)
class CycleCutOffLeaf(_LedgerLeaf):
    """A cycle was cut off and waits for solutions of set-offs; without any it is netted in the same block."""

    cycle: int
    obligations: int

    KIND: ClassVar[LeafKind] = LeafKind.CYCLE_CUT_OFF
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "cycle-cut-off leaf", reserved(2), uint("cycle", 4), uint("obligations", 8)
    )


@dataclass(frozen=True, slots=True)
class CycleNettedLeaf(_LedgerLeaf):
    """A cycle was cut off and netted; `result_root` commits to its result rows (rules/cycles.py)."""

    cycle: int
    obligations: int
    instructions: int
    result_root: bytes

    KIND: ClassVar[LeafKind] = LeafKind.CYCLE_NETTED
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "cycle-netted leaf",
        reserved(2),
        uint("cycle", 4),
        uint("obligations", 8),
        uint("instructions", 8),
        raw("result_root", 32),
    )


@dataclass(frozen=True, slots=True)
class CycleEndedLeaf(_LedgerLeaf):
    """A cycle ended: `state` SETTLED or FAILED. A cycle is final when a quorum checkpoint covers its SETTLED leaf."""

    cycle: int
    state: int
    result_root: bytes

    KIND: ClassVar[LeafKind] = LeafKind.CYCLE_ENDED
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "cycle-ended leaf",
        uint("state", 1),
        reserved(1),
        uint("cycle", 4),
        raw("result_root", 32),
    )


@dataclass(frozen=True, slots=True)
class ExpiredLeaf(_LedgerLeaf):
    """`count` items of one submission lapsed unaffirmed; `states_hash` is the SHA-256 of its item-state row."""

    submission: int
    count: int
    states_hash: bytes

    KIND: ClassVar[LeafKind] = LeafKind.EXPIRED
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "expired leaf", reserved(2), uint("count", 4), uint("submission", 8), raw("states_hash", 32)
    )


@dataclass(frozen=True, slots=True)
class SealLeaf(_LedgerLeaf):
    """The last leaf of a block: what the ledger remembers after it.

    first_index is the log index of the block's first leaf; state_root the two-level root over positions for
    `participants` and `assets` registered (state.py); changes_hash the SHA-256 over every row the block wrote, in
    canonical order, so that replicas which agree on a SEAL agree on each byte of their state.
    """

    height: int
    time_ms: int
    first_index: int
    rules_version: int
    participants: int
    assets: int
    state_root: bytes
    changes_hash: bytes

    KIND: ClassVar[LeafKind] = LeafKind.SEAL
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "seal leaf",
        uint("rules_version", 2),
        uint("assets", 4),
        uint("participants", 4),
        reserved(4),
        uint("height", 8),
        uint("time_ms", 8),
        uint("first_index", 8),
        raw("state_root", 32),
        raw("changes_hash", 32),
    )


@dataclass(frozen=True, slots=True)
class ValidatorsLeaf(_LedgerLeaf):
    """The set of validators in force changed; the engine obeys two of its blocks later.

    validators_hash: of the new set, as the engine's block headers carry it, so that the log alone says whose
    signatures count; body_hash: SHA-256 of the body, the set itself (rules/validators.py).
    """

    count: int
    total_power: int
    validators_hash: bytes
    body_hash: bytes

    KIND: ClassVar[LeafKind] = LeafKind.VALIDATORS
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "validators leaf",
        uint("count", 2),
        reserved(4),
        uint("total_power", 8),
        raw("validators_hash", 32),
        raw("body_hash", 32),
    )


@dataclass(frozen=True, slots=True)
class MisbehaviourLeaf(_LedgerLeaf):
    """The engine agreed that a validator broke its rules; body_hash: SHA-256 of the body (records/misbehaviour.py)."""

    participant: int
    engine_height: int
    body_hash: bytes

    KIND: ClassVar[LeafKind] = LeafKind.MISBEHAVIOUR
    LAYOUT: ClassVar[Layout] = _leaf_layout(
        "misbehaviour leaf",
        reserved(2),
        uint("participant", 4),
        uint("engine_height", 8),
        raw("body_hash", 32),
    )


HASHED_BODIES: dict[LeafKind, type[GenesisLeaf | ValidatorsLeaf | MisbehaviourLeaf]] = {
    LeafKind.GENESIS: GenesisLeaf,
    LeafKind.VALIDATORS: ValidatorsLeaf,
    LeafKind.MISBEHAVIOUR: MisbehaviourLeaf,
}
"""Leaves that the ledger writes with a body, to which they commit as a whole by `body_hash`; all are public."""


def body_hash(body: bytes) -> bytes:
    """Return the SHA-256 of a body, for leaves that commit to one as a whole."""
    return hashlib.sha256(body).digest()
