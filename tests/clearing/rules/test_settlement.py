"""Settlement instructions: made from nets, and who may move them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.rules.settlement import (
    SettlementInstruction,
    instructions_of,
    may_confirm,
    may_evidence,
    may_fail,
)
from clearing.types import InstructionState, SettlementKind

AGENT, PARTY, STRANGER = 0, 2, 3
PAY_IN, PAY_OUT, REFUND = SettlementKind
PENDING, EVIDENCED, CONFIRMED, FAILED, SUPERSEDED = InstructionState


def _instruction(kind: SettlementKind, state: InstructionState = PENDING) -> SettlementInstruction:
    return SettlementInstruction(PARTY, 1, kind, state, 5)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-(1 << 191), 1 << 191)))
)
def test_every_net_that_is_not_zero_becomes_one_instruction(nets) -> None:
    made = instructions_of(nets, 77)
    assert [(each.asset, each.participant) for each in made] == [row[:2] for row in nets if row[2]]
    for each, (_, _, net) in zip(made, (row for row in nets if row[2]), strict=True):
        assert each.kind is (PAY_IN if net < 0 else PAY_OUT)
        assert each.amount_units == abs(net)
        assert (each.state, each.moved_ms, each.evidence_hash) == (PENDING, 77, bytes(32))
    paid_in = sum(each.amount_units for each in made if each.kind is PAY_IN)
    paid_out = sum(each.amount_units for each in made if each.kind is PAY_OUT)
    assert paid_out - paid_in == sum(net for _, _, net in nets)


@pytest.mark.parametrize(
    ("kind", "evidence", "confirm"),
    [
        (PAY_IN, {AGENT, PARTY}, {AGENT}),
        (PAY_OUT, {AGENT}, {AGENT, PARTY}),
        (REFUND, {AGENT}, {AGENT, PARTY}),
    ],
)
def test_who_pays_shows_evidence_and_who_is_paid_confirms(kind, evidence, confirm) -> None:
    each = _instruction(kind)
    actors = (AGENT, PARTY, STRANGER)
    assert {actor for actor in actors if may_evidence(each, actor, AGENT)} == evidence
    assert {actor for actor in actors if may_confirm(each, actor, AGENT)} == confirm


@pytest.mark.parametrize("state", InstructionState)
def test_a_payer_gives_up_while_pending_the_agent_at_any_time(state: InstructionState) -> None:
    each = _instruction(PAY_IN, state)
    assert may_fail(each, PARTY, AGENT) is (state is PENDING)
    assert may_fail(each, AGENT, AGENT)
    assert not may_fail(each, STRANGER, AGENT)


@pytest.mark.parametrize("kind", [PAY_OUT, REFUND])
def test_what_the_agent_owes_nobody_can_give_up(kind: SettlementKind) -> None:
    for state in InstructionState:
        assert not any(may_fail(_instruction(kind, state), actor, AGENT) for actor in range(4))


def test_the_agent_s_own_pay_in_is_its_own_to_move() -> None:
    each = SettlementInstruction(AGENT, 1, PAY_IN, PENDING, 5)
    assert each.payer(AGENT) == each.payee(AGENT) == AGENT
    assert may_evidence(each, AGENT, AGENT)
    assert may_confirm(each, AGENT, AGENT)


@pytest.mark.parametrize(("offset", "value"), [(6, 0), (6, 4), (7, 0), (7, 6)])
def test_an_unknown_kind_or_state_is_refused(offset: int, value: int) -> None:
    data = bytearray(_instruction(PAY_IN).encode())
    data[offset] = value
    with pytest.raises(DecodeError):
        SettlementInstruction.decode(bytes(data))
