"""What the oracle remembers: its parties, obligations, cycles, proposals, requests and answers, as plain values.

Lives here: the facts alone. May not live here: what follows from them (oracle.py, oracle_netting.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clearing.errors import RejectCode as R
from clearing.types import (
    CycleState,
    InstructionState,
    LicenceStatus,
    ObligationState,
    Role,
    SettlementKind,
)


@dataclass(frozen=True)
class Party:
    """A participant; `key` names its signing key, `node_key` that of its node."""

    name: str
    lei: str
    role: Role
    status: LicenceStatus
    expiry_ms: int
    key: object
    node_key: object = None

    def is_licensed(self, time_ms: int) -> bool:
        """Return whether the licence is in force."""
        return self.status is LicenceStatus.ACTIVE and not 0 < self.expiry_ms <= time_ms


@dataclass(frozen=True)
class Terms:
    """Parameters and timetable."""

    quorum: int
    lifetime_ms: int
    timeout_ms: int
    cut_offs_s: tuple[int, ...] = ()
    solution_ms: int = 70_000
    submitter_items: int = 1 << 22


@dataclass
class Obligation:
    """One item of a submission and where it stands.

    paid: what settled cycles have discharged of it; loses: what the cycle that holds it will.
    """

    debtor: int
    creditor: int
    asset: int
    amount: int
    due_ms: int
    faults: tuple[R, ...] = ()
    state: ObligationState = ObligationState.PROPOSED
    cycle: int = 0
    paid: int = 0
    loses: int = 0

    @property
    def rest(self) -> int:
        """What is still owed."""
        return self.amount - self.paid


@dataclass
class Settlement:
    """One settlement instruction."""

    participant: int
    asset: int
    kind: SettlementKind
    amount: int
    state: InstructionState = InstructionState.PENDING


@dataclass
class Cycle:
    """One cycle with its settlement instructions by number.

    awaits: assets whose set-off is not solved. results: by asset, what it discharges, and what it leaves of how many items.
    """

    cut_off_ms: int
    obligations: int
    agent: int
    state: CycleState = CycleState.CUT_OFF
    netted_ms: int = 0
    awaits: set[int] = field(default_factory=set)
    moves: dict[tuple[int, int], int] = field(default_factory=dict)
    value: int = 0
    instructions: list[Settlement] = field(default_factory=list)

    def waiting(self, *kinds: SettlementKind) -> int:
        """Return how many instructions of these kinds may still be confirmed."""
        open_states = (InstructionState.PENDING, InstructionState.EVIDENCED)
        return sum(each.kind in kinds and each.state in open_states for each in self.instructions)


@dataclass
class Proposal:
    """A proposal with its actions, each (what, values)."""

    created_ms: int
    actions: tuple[tuple[str, tuple[Any, ...]], ...]
    approvals: list[int]
    enacted: bool = False


@dataclass(frozen=True)
class Request:
    """A signed transaction: `leaf` is equal for equal bytes; `what` and `values` say what is asked.

    what: malformed, submit, affirm, reject, rescind, run, evidence, confirm, fail, pledge, propose, approve.
    """

    actor: int
    client_id: bytes
    leaf: bytes
    signed_with: object
    what: str
    values: tuple[Any, ...] = ()
    is_committed: bool = True


@dataclass(frozen=True)
class Answer:
    """What a request gets: its log index, or a code, with the bad items by number."""

    code: R
    index: int = -1
    repeated: bool = False
    bad: tuple[tuple[int, R], ...] = ()
