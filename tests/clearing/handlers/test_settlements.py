"""Settlement instructions block by block: every state, every move, every actor; and pledged liquidity."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from clearing.errors import RejectCode as R
from clearing.params import Parameters
from clearing.records.instruction import EVIDENCE_LAYOUT, REFERENCE_LAYOUT
from clearing.types import AMOUNT_MAX, CycleState, InstructionState, LicenceStatus, Role
from tests.clearing.core_kit import Core, Kind, licence
from tests.ledger_kit import BTC, CB, ETH, MINISTRY, P01, P02, P03, ROLES, item

PENDING, EVIDENCED, CONFIRMED, FAILED, SUPERSEDED = InstructionState
EVIDENCE, CONFIRM, FAIL = Kind.EVIDENCE, Kind.CONFIRM, Kind.FAIL
AGENT, STRANGER = CB, P03


def _two_pay_ins() -> Core:
    """Instructions: 0 pay-in of P01, 1 pay-in of P02, 2 pay-out to P03; 3, when 1 fails, the refund of P01."""
    net = Core()
    index = net.submit(P03, item(P01, P03, 5), item(P02, P03, 7))
    net.affirm(P01, index)
    net.affirm(P02, index)
    net.run_cycle()
    return net


def _do(net: Core, number: int, *kinds: Kind) -> None:
    for kind in kinds:
        outcome = net.settlement(kind, AGENT, 1, number)
        assert outcome.code is R.OK, outcome


def _reach(what: str) -> tuple[Core, int]:
    """Return a network in which an instruction is in the named state, and its number."""
    net = _two_pay_ins()
    kind, state = what.split()
    paid = (EVIDENCE, CONFIRM)
    if kind == "pay-in":
        steps = {"pending": (), "evidenced": (EVIDENCE,), "confirmed": paid, "failed": (FAIL,)}
        if state == "superseded":
            _do(net, 1, FAIL)
        elif state == "evidenced-after-failure":
            _do(net, 0, EVIDENCE)
            _do(net, 1, FAIL)
        else:
            _do(net, 0, *steps[state])
        return net, 0
    if kind == "pay-out":
        if state == "superseded":
            _do(net, 1, FAIL)
        elif state != "unfunded":
            _do(net, 0, *paid)
            _do(net, 1, *paid)
            _do(net, 2, *{"pending": (), "evidenced": (EVIDENCE,), "confirmed": paid}[state])
        return net, 2
    _do(net, 0, *paid)
    _do(net, 1, FAIL)
    _do(net, 3, *{"pending": (), "evidenced": (EVIDENCE,), "confirmed": paid}[state])
    return net, 3


# rows: where the instruction stands; columns: EVIDENCE, CONFIRM, FAIL, each by the agent, the participant, a third
_, P, S, F = R.OK, R.NOT_A_PARTY, R.INSTRUCTION_STATE, R.NOT_FUNDED
TABLE = {
    "pay-in pending": ((_, _, P), (S, P, P), (_, _, P)),
    "pay-in evidenced": ((S, S, P), (_, P, P), (_, P, P)),
    "pay-in confirmed": ((S, S, P), (S, P, P), (S, P, P)),
    "pay-in failed": ((S, S, P), (S, P, P), (S, P, P)),
    "pay-in superseded": ((S, S, P), (S, P, P), (S, P, P)),
    "pay-in evidenced-after-failure": ((S, S, P), (_, P, P), (_, P, P)),
    "pay-out unfunded": ((F, P, P), (F, F, P), (P, P, P)),
    "pay-out pending": ((_, P, P), (S, S, P), (P, P, P)),
    "pay-out evidenced": ((S, P, P), (_, _, P), (P, P, P)),
    "pay-out confirmed": ((S, P, P), (S, S, P), (P, P, P)),
    "pay-out superseded": ((S, P, P), (S, S, P), (P, P, P)),
    "refund pending": ((_, P, P), (S, S, P), (P, P, P)),
    "refund evidenced": ((S, P, P), (_, _, P), (P, P, P)),
    "refund confirmed": ((S, P, P), (S, S, P), (P, P, P)),
}
CELLS = [
    (what, kind, who, code)
    for what, row in TABLE.items()
    for (kind, who), code in zip(
        itertools.product((EVIDENCE, CONFIRM, FAIL), range(3)), itertools.chain(*row), strict=True
    )
]
TARGETS = {EVIDENCE: EVIDENCED, CONFIRM: CONFIRMED, FAIL: FAILED}


@pytest.mark.parametrize(("what", "kind", "who", "code"), CELLS)
def test_every_move_by_everybody_in_every_state(what: str, kind: Kind, who: int, code: R) -> None:
    net, number = _reach(what)
    before = net.instructions(1)[number]
    actor = (AGENT, before.participant, STRANGER if before.participant != STRANGER else P01)[who]
    outcome = net.settlement(kind, actor, 1, number)
    assert outcome.code is code
    after = net.instructions(1)[number]
    if code is R.OK:
        assert (after.state, after.moved_ms) == (TARGETS[kind], net.time_ms)
        assert after.evidence_hash == (b"\x11" * 32 if kind is EVIDENCE else before.evidence_hash)
    else:
        assert after == before


def test_confirmed_movements_are_counted_in_positions() -> None:
    net, _number = _reach("pay-out confirmed")
    assert [net.position(each).paid for each in (P01, P02, P03)] == [5, 7, 0]
    assert [net.position(each).received for each in (P01, P02, P03)] == [0, 0, 12]
    assert net.cycle(1).state is CycleState.SETTLED
    net, _number = _reach("refund evidenced")
    assert net.position(P01).paid == 5
    _do(net, 3, CONFIRM)
    assert net.position(P01).paid == 0


def test_several_moves_in_one_block_see_each_other() -> None:
    net = _two_pay_ins()

    def move(kind: Kind, number: int):
        values = {"cycle": 1, "number": number}
        if kind is EVIDENCE:
            return net.instruction(
                kind, CB, EVIDENCE_LAYOUT.encode(evidence_hash=bytes(32), **values)
            )
        return net.instruction(kind, CB, REFERENCE_LAYOUT.encode(**values))

    moves = [move(kind, number) for number in (2, 0, 1, 2) for kind in (EVIDENCE, CONFIRM)]
    codes = [outcome.code for outcome in net.block(*moves).outcomes]
    assert codes == [R.NOT_FUNDED, R.NOT_FUNDED] + [R.OK] * 6
    assert net.cycle(1).state is CycleState.SETTLED
    assert [net.position(each).received for each in (P01, P02, P03)] == [0, 0, 12]


def test_numbers_of_one_cycle_are_not_those_of_another() -> None:
    net = _two_pay_ins()
    net.affirmed(P01, P02, item(P01, P02, 1))
    net.run_cycle()
    _do(net, 0, EVIDENCE)
    assert [each.state for each in net.instructions(2)] == [PENDING, PENDING]
    assert net.settlement(EVIDENCE, P01, 2, 2).code is R.UNKNOWN_INSTRUCTION
    assert net.settlement(EVIDENCE, P01, 0, 0).code is R.UNKNOWN_INSTRUCTION


def test_pledged_liquidity_is_what_the_agent_last_said() -> None:
    net = Core()
    assert net.pledge(P01, AMOUNT_MAX, ETH).code is R.OK
    assert net.position(P01, ETH).liquidity == AMOUNT_MAX
    assert net.position(P01, BTC).liquidity == 0
    assert net.pledge(P01, 0, ETH).code is R.OK
    assert net.position(P01, ETH).liquidity == 0
    assert net.pledge(MINISTRY, 3).code is R.OK
    assert net.pledge(99, 3).code is R.UNKNOWN_PARTICIPANT
    assert net.pledge(P01, 3, asset=3).code is R.UNKNOWN_ASSET
    assert net.pledge(P01, 3, actor=P01).code is R.ROLE_NOT_ALLOWED


SECOND = len(ROLES)
HALF_PAST_ELEVEN_S = 23 * 3600 + 1800
"""An hour and a quarter after genesis, which is at 22:13:20."""


def _two_agents(**options: Any) -> Core:
    """A second central bank beside the first, and an obligation to net."""
    net = Core(roles=(*ROLES, ("second-cb", Role.CENTRAL_BANK)), **options)
    net.affirmed(P01, P02, item(P01, P02, 5))
    return net


@pytest.mark.parametrize("status", [LicenceStatus.SUSPENDED, LicenceStatus.WITHDRAWN])
def test_an_agent_whose_licence_ends_finishes_its_cycles_and_gets_no_more(
    status: LicenceStatus,
) -> None:
    net = _two_agents()
    assert net.run_cycle().code is R.OK
    net.enact(licence(CB, status))
    net.reload()
    assert net.cycle(1).agent == CB
    # Value that the first holds is not the second's to confirm.
    assert net.settlement(EVIDENCE, SECOND, 1, 0).code is R.NOT_A_PARTY
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED
    net.affirmed(P01, P02, item(P01, P02, 7))
    assert net.run_cycle(CB).code is R.NOT_LICENSED
    assert net.run_cycle(SECOND).code is R.OK
    assert net.cycle(2).agent == SECOND
    assert net.settlement(EVIDENCE, CB, 2, 0).code is R.NOT_A_PARTY
    for number in (0, 1):
        assert net.settlement(EVIDENCE, SECOND, 2, number).code is R.OK
        assert net.settlement(CONFIRM, SECOND, 2, number).code is R.OK
    assert net.cycle(2).state is CycleState.SETTLED


def test_a_licence_that_comes_back_brings_the_agent_back_but_not_into_anothers_cycle() -> None:
    net = _two_agents()
    net.suspend(CB)
    assert net.run_cycle(SECOND).code is R.OK
    index = net.propose(MINISTRY, licence(CB, LicenceStatus.ACTIVE)).index
    assert net.approve(SECOND, index).code is R.OK
    assert net.settlement(EVIDENCE, CB, 1, 0).code is R.NOT_A_PARTY
    net.affirmed(P01, P02, item(P01, P02, 7))
    assert net.run_cycle(SECOND).code is R.OK
    assert (net.cycle(1).agent, net.cycle(2).agent) == (SECOND, CB)


def test_pledges_are_the_word_of_who_is_agent_now() -> None:
    net = _two_agents()
    assert net.pledge(P01, 3).code is R.OK
    assert net.pledge(P01, 4, actor=SECOND).code is R.NOT_A_PARTY
    net.suspend(CB)
    # What was pledged with the first stays on record until the second says otherwise.
    assert net.position(P01, BTC).liquidity == 3
    assert net.pledge(P01, 4, actor=SECOND).code is R.OK
    assert net.position(P01, BTC).liquidity == 4


def test_without_an_agent_the_timetable_cuts_nothing_off() -> None:
    parameters = Parameters(governance_quorum=1)
    net = Core(cut_offs_s=(HALF_PAST_ELEVEN_S,), parameters=parameters)
    net.affirmed(P01, P02, item(P01, P02, 5))
    assert net.propose(MINISTRY, licence(CB, LicenceStatus.SUSPENDED)).code is R.OK
    assert net.block(after_ms=2 * 3_600_000).entries == ()
    assert net.propose(MINISTRY, licence(CB, LicenceStatus.ACTIVE)).code is R.OK
    net.block(after_ms=24 * 3_600_000)
    assert net.cycle(1).agent == CB
