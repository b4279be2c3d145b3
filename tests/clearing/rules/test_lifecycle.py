"""The transition tables: which moves there are, and that there are no others."""

from __future__ import annotations

import enum

import numpy as np
import pytest

from clearing.errors import InvariantViolation
from clearing.rules import cycles, legs, mined, obligations, settlement
from clearing.rules.lifecycle import Lifecycle
from clearing.types import CycleState, InstructionState, ObligationState

MOVES = {
    obligations.LIFECYCLE: """
        PROPOSED AFFIRMED, PROPOSED REJECTED, PROPOSED RESCINDED, PROPOSED EXPIRED,
        AFFIRMED RESCINDED, AFFIRMED LOCKED,
        LOCKED SETTLED, LOCKED PARTLY_DISCHARGED, LOCKED AFFIRMED,
        PARTLY_DISCHARGED LOCKED
    """,
    cycles.LIFECYCLE: """
        OPEN CUT_OFF, CUT_OFF NETTED, NETTED FUNDED, NETTED FAILED, FUNDED SETTLED,
        NETTED DEADLOCK
    """,
    settlement.LIFECYCLE: """
        PENDING EVIDENCED, EVIDENCED CONFIRMED, PENDING FAILED, EVIDENCED FAILED, PENDING SUPERSEDED,
        EVIDENCED PENDING
    """,
    legs.LIFECYCLE: """
        WAITING OFFERED, OFFERED BROADCAST, OFFERED MINED, BROADCAST MINED, MINED BROADCAST, MINED CONFIRMED,
        WAITING FAILED, OFFERED FAILED, BROADCAST FAILED, WAITING BY_AGENT
    """,
    mined.LIFECYCLE: "DECLARED COUNTED, DECLARED VOID",
}
STATES = {
    obligations.LIFECYCLE: ObligationState,
    cycles.LIFECYCLE: CycleState,
    settlement.LIFECYCLE: InstructionState,
    legs.LIFECYCLE: legs.LegState,
    mined.LIFECYCLE: mined.BatchState,
}
TERMINAL = {
    obligations.LIFECYCLE: {"SETTLED", "REJECTED", "RESCINDED", "EXPIRED"},
    cycles.LIFECYCLE: {"SETTLED", "FAILED", "DEADLOCK"},
    settlement.LIFECYCLE: {"CONFIRMED", "FAILED", "SUPERSEDED"},
    legs.LIFECYCLE: {"CONFIRMED", "FAILED", "BY_AGENT"},
    mined.LIFECYCLE: {"COUNTED", "VOID"},
}
DRAWINGS = {
    obligations.LIFECYCLE: """\
stateDiagram-v2
    [*] --> PROPOSED
    PROPOSED --> AFFIRMED: counterparty affirms
    PROPOSED --> REJECTED: counterparty rejects
    PROPOSED --> RESCINDED: submitter rescinds
    PROPOSED --> EXPIRED: due time passes unaffirmed
    AFFIRMED --> RESCINDED: submitter rescinds before cut-off
    AFFIRMED --> LOCKED: cut-off of a cycle
    LOCKED --> SETTLED: cycle settles, wholly discharged
    LOCKED --> PARTLY_DISCHARGED: cycle settles, a part remains
    LOCKED --> AFFIRMED: cycle fails or discharges nothing of it
    PARTLY_DISCHARGED --> LOCKED: cut-off of a later cycle
    REJECTED --> [*]
    RESCINDED --> [*]
    EXPIRED --> [*]
    SETTLED --> [*]""",
    cycles.LIFECYCLE: """\
stateDiagram-v2
    [*] --> OPEN
    OPEN --> CUT_OFF: timetable or operator
    CUT_OFF --> NETTED: every asset netted, instructions made
    NETTED --> FUNDED: every pay-in confirmed
    NETTED --> FAILED: a pay-in fails or times out
    FUNDED --> SETTLED: every pay-out confirmed
    NETTED --> DEADLOCK: nothing of it can be discharged
    FAILED --> [*]
    SETTLED --> [*]
    DEADLOCK --> [*]""",
    settlement.LIFECYCLE: """\
stateDiagram-v2
    [*] --> PENDING
    PENDING --> EVIDENCED: payer or agent shows evidence
    EVIDENCED --> CONFIRMED: payee or agent confirms
    PENDING --> FAILED: payer or agent gives up
    EVIDENCED --> FAILED: agent finds the evidence void
    PENDING --> SUPERSEDED: the cycle fails
    EVIDENCED --> PENDING: the Bitcoin chain reorganises
    CONFIRMED --> [*]
    FAILED --> [*]
    SUPERSEDED --> [*]""",
    legs.LIFECYCLE: """\
stateDiagram-v2
    [*] --> WAITING
    WAITING --> OFFERED: coins are named, other pay-ins confirmed, fee set
    OFFERED --> BROADCAST: every payer has signed
    OFFERED --> MINED: the best chain holds the transaction
    BROADCAST --> MINED: the best chain holds the transaction
    MINED --> BROADCAST: a reorganisation takes it out again
    MINED --> CONFIRMED: deep enough
    WAITING --> FAILED: refusal, deadline, or the cycle fails
    OFFERED --> FAILED: refusal, deadline, or a coin is spent otherwise
    BROADCAST --> FAILED: a coin is spent otherwise, deep enough
    WAITING --> BY_AGENT: at once, where one transaction cannot pay
    CONFIRMED --> [*]
    FAILED --> [*]
    BY_AGENT --> [*]""",
    mined.LIFECYCLE: """\
stateDiagram-v2
    [*] --> DECLARED
    DECLARED --> COUNTED: a supervisor's node attests it is unspent
    DECLARED --> VOID: it is attested, or shown by the chain, as spent
    COUNTED --> [*]
    VOID --> [*]""",
}
each_lifecycle = pytest.mark.parametrize("lifecycle", MOVES, ids=lambda each: each.name)


def _pairs(lifecycle: Lifecycle) -> set[tuple[str, str]]:
    return {tuple(pair.split()) for pair in MOVES[lifecycle].split(",")}


@each_lifecycle
def test_the_table_has_these_moves_and_no_others(lifecycle: Lifecycle) -> None:
    states = STATES[lifecycle]
    for origin in states:
        for target in states:
            is_move = (origin.name, target.name) in _pairs(lifecycle)
            assert lifecycle.allows(origin, target) is is_move
            if is_move:
                assert lifecycle.require(origin, target) is target
            else:
                with pytest.raises(InvariantViolation, match=f"no move {origin.name} -> "):
                    lifecycle.require(origin, target)


@each_lifecycle
def test_every_state_can_be_reached_and_some_end(lifecycle: Lifecycle) -> None:
    reached = [lifecycle.initial]
    for state in reached:
        reached += [b for a, b, _ in lifecycle.moves if a is state and b not in reached]
    assert set(reached) == set(STATES[lifecycle])
    ends = {state.name for state in STATES[lifecycle] if lifecycle.is_terminal(state)}
    assert ends == TERMINAL[lifecycle]


@each_lifecycle
def test_the_column_form_says_the_same(lifecycle: Lifecycle) -> None:
    column = np.arange(256, dtype=np.uint8)
    for target in STATES[lifecycle]:
        allowed = [
            number
            for number in range(256)
            if any(a == number and b is target for a, b, _ in lifecycle.moves)
        ]
        assert np.flatnonzero(lifecycle.mask_of(column, target)).tolist() == allowed
        assert sorted(lifecycle.sources(target)) == allowed


@each_lifecycle
def test_the_drawing_is_the_table(lifecycle: Lifecycle) -> None:
    assert lifecycle.mermaid() == DRAWINGS[lifecycle]


def test_a_state_of_the_same_number_in_another_lifecycle_is_another_state() -> None:
    class Other(enum.IntEnum):
        PENDING = 1
        EVIDENCED = 2

    assert not settlement.LIFECYCLE.allows(Other.PENDING, Other.EVIDENCED)
