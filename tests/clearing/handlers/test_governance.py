"""Governance block by block: k of n, lapse, keys, licences and what they allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clearing.errors import RejectCode as R
from clearing.params import Parameters
from clearing.records import instruction as ins
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Cap
from clearing.types import CycleState, LicenceStatus, ObligationState, Role
from tests.clearing.core_kit import Core, Kind, licence
from tests.ledger_kit import (
    BTC,
    CB,
    ETH,
    MINISTRY,
    P01,
    P02,
    P03,
    ROLES,
    item,
    participant,
    seeded_key,
)

ACTIVE, SUSPENDED, WITHDRAWN = LicenceStatus
LIFETIME_MS = Parameters().proposal_lifetime_ms
SUSPEND_P01 = licence(P01, SUSPENDED)
THREE_GOVERNORS = (*ROLES, ("ministry-2", Role.MINISTRY))
MINISTRY_2 = 7


def _net(quorum: int) -> Core:
    return Core(roles=THREE_GOVERNORS, parameters=Parameters(governance_quorum=quorum))


def _is_suspended(net: Core) -> bool:
    return net.state.registry.participants[P01].status is SUSPENDED


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_the_approval_that_reaches_the_quorum_enacts(quorum: int) -> None:
    net = _net(quorum)
    index = net.propose(MINISTRY, SUSPEND_P01).index
    governors = [CB, MINISTRY_2]
    for approvals in range(1, quorum):
        assert not _is_suspended(net)
        assert net.proposal(index).approvals == (MINISTRY, *governors[: approvals - 1])
        assert net.approve(governors[approvals - 1], index).code is R.OK
    assert _is_suspended(net)
    assert net.proposal(index).enacted
    for governor in (MINISTRY, CB, MINISTRY_2):
        assert net.approve(governor, index).code is R.PROPOSAL_CLOSED


def test_a_proposal_is_open_for_its_lifetime() -> None:
    net = Core()
    index = net.propose(MINISTRY, SUSPEND_P01).index
    created_ms = net.time_ms
    net.time_ms = created_ms + LIFETIME_MS - 1_000
    assert net.approve(CB, index).code is R.PROPOSAL_CLOSED
    again = net.propose(CB, SUSPEND_P01).index
    net.time_ms += LIFETIME_MS - 1_001
    assert net.approve(MINISTRY, again).code is R.OK
    assert _is_suspended(net)


def test_a_shorter_lifetime_holds_for_what_is_open() -> None:
    net = Core()
    index = net.propose(MINISTRY, SUSPEND_P01).index
    net.enact(Action(ActionKind.SET_PARAMETERS, Parameters(proposal_lifetime_ms=2_500)))
    assert net.approve(CB, index).code is R.PROPOSAL_CLOSED


def test_governors_approve_once_and_others_never() -> None:
    net = _net(3)
    index = net.propose(MINISTRY, SUSPEND_P01).index
    assert net.approve(MINISTRY, index).code is R.ALREADY_APPROVED
    assert net.approve(CB, index).code is R.OK
    assert net.approve(CB, index).code is R.ALREADY_APPROVED
    assert net.approve(P01, index).code is R.ROLE_NOT_ALLOWED
    assert net.proposal(index).approvals == (MINISTRY, CB)


def test_the_approval_of_a_governor_out_of_licence_does_not_count() -> None:
    net = _net(2)
    index = net.propose(MINISTRY_2, SUSPEND_P01).index
    net.suspend(MINISTRY_2)
    assert net.approve(MINISTRY_2, index).code is R.NOT_LICENSED
    assert net.approve(MINISTRY, index).code is R.OK
    assert not _is_suspended(net), "two approvals, one of them of a suspended governor"
    assert net.approve(CB, index).code is R.OK
    assert _is_suspended(net)


def test_what_cannot_be_enacted_any_more_is_refused_and_stays_open() -> None:
    net = Core()
    name_taken = Action(ActionKind.ADD_PARTICIPANT, participant("p05", Role.BANK, 50))
    first, second = (net.propose(MINISTRY, name_taken).index for _ in range(2))
    assert net.approve(CB, first).code is R.OK
    before = net.rows()
    assert net.approve(CB, second).code is R.ACTION_DUPLICATE
    assert net.rows() == before
    assert net.proposal(second).approvals == (MINISTRY,)


def test_actions_take_effect_together_and_at_once() -> None:
    net = Core()
    party = participant("p05", Role.BANK, 50)
    rotate = {"participant": 7, "public_key": seeded_key("p05", 1).public_key().public_bytes_raw()}
    cap = Action(ActionKind.SET_CAP, Cap(7, BTC, 9))
    net.enact(Action(ActionKind.ADD_PARTICIPANT, party), Action(ActionKind.ROTATE_KEY, rotate), cap)
    assert net.state.registry.participants[7] == replace(party, public_key=rotate["public_key"])
    assert net.position(7).cap == 9
    net.roles = (*net.roles, ("p05", Role.BANK))
    net.generation[7] = 1
    assert net.submit(7, item(7, P01, 5))


def test_one_refused_action_refuses_all() -> None:
    net = Core()
    before = net.rows()
    party = participant("p05", Role.BANK, 50)
    outcome = net.propose(MINISTRY, Action(ActionKind.ADD_PARTICIPANT, party), licence(99, ACTIVE))
    assert outcome.code is R.ACTION_UNKNOWN_SUBJECT
    assert net.rows() == before


def test_a_proposal_and_its_approval_fit_in_one_block() -> None:
    net = Core()
    index = net.state.log_size
    approval = net.instruction(Kind.APPROVE, CB, ins.APPROVAL_LAYOUT.encode(proposal=index))
    proposal = net.instruction(Kind.PROPOSE, MINISTRY, encode_actions([SUSPEND_P01]))
    submission = net.submission(P01, item(P01, P02, 5))
    early = net.submission(P01, item(P01, P02, 5))
    codes = [each.code for each in net.block(proposal, early, approval, submission).outcomes]
    assert codes == [R.OK, R.OK, R.OK, R.NOT_LICENSED]


def test_everything_said_in_governance_is_public_and_nothing_else() -> None:
    net = Core()
    net.enact(SUSPEND_P01)
    index = net.submit(P02, item(P02, P03, 5))
    net.affirm(P03, index)
    public = [net.store.entry(at).public for at in range(net.store.log_size)]
    # genesis, proposal, approval; SEALs have no body, submission and affirmation are their parties' own
    assert [at for at, is_public in enumerate(public) if is_public] == [0, 2, 4]


def test_caps_are_set_replaced_and_removed_by_governance() -> None:
    net = Core()
    for amount in (5, (1 << 128) - 1, 0, None):
        net.enact(Action(ActionKind.SET_CAP, Cap(P01, ETH, amount)))
        assert net.position(P01, ETH).cap == amount
    assert net.position(P01, BTC).cap is None


def test_a_changed_time_out_holds_for_cycles_that_run() -> None:
    net = Core()
    net.affirmed(P01, P02, item(P01, P02, 5))
    net.run_cycle()
    net.enact(Action(ActionKind.SET_PARAMETERS, Parameters(settlement_timeout_ms=10_000)))
    net.block(after_ms=10_000)
    assert net.cycle(1).state is CycleState.FAILED


def test_a_new_asset_is_cleared_from_the_next_transaction_on() -> None:
    net = Core()
    asset = replace(net.state.registry.assets[ETH], name="ETC", caip19="eip155:61/slip44:61")
    assert net.one(net.submission(P01, item(P01, P02, 5, 3))).code is R.UNKNOWN_ASSET
    net.affirmed(P01, P02, item(P01, P02, 5))
    net.enact(Action(ActionKind.ADD_ASSET, asset))
    net.affirmed(P01, P02, item(P01, P02, 7, 3))
    assert net.position(P01, 3).payable == 7
    net.reload()
    net.run_cycle()
    assert [result.asset for result in net.results_of(1)] == [BTC, 3]


# keys


def test_a_rotated_key_is_in_force_at_once_and_the_old_one_is_not() -> None:
    net = Core()
    with_old_key = net.submission(P01, item(P01, P02, 5))
    net.rotate_key(P01)
    assert net.one(with_old_key).code is R.BAD_SIGNATURE
    assert net.one(net.submission(P01, item(P01, P02, 5))).code is R.OK


def test_a_repetition_is_answered_after_its_key_was_rotated() -> None:
    net = Core()
    submission = net.submission(P01, item(P01, P02, 5))
    first = net.one(submission)
    net.rotate_key(P01)
    again = net.one(submission)
    assert (again.code, again.index, again.repeated) == (R.OK, first.index, True)
    other = net.submission(P01, item(P01, P02, 6), client_id=submission.client_id)
    assert net.one(other).code is R.EXISTS_DIFFERENT


def test_suspension_and_rotation_need_no_signature_of_whom_they_concern() -> None:
    net = _net(2)
    index = net.propose(MINISTRY, licence(CB, SUSPENDED)).index
    assert net.approve(MINISTRY_2, index).code is R.OK
    assert net.propose(CB, licence(CB, ACTIVE)).code is R.NOT_LICENSED
    index = net.propose(MINISTRY, licence(CB, ACTIVE)).index
    assert net.approve(MINISTRY_2, index).code is R.OK
    key = seeded_key("central-bank", 1).public_key().public_bytes_raw()
    rotate = Action(ActionKind.ROTATE_KEY, {"participant": CB, "public_key": key})
    index = net.propose(MINISTRY, rotate).index
    assert net.approve(MINISTRY_2, index).code is R.OK
    assert net.approve(CB, index).code is R.BAD_SIGNATURE
    net.generation[CB] = 1
    assert net.approve(CB, index).code is R.PROPOSAL_CLOSED


# licences


def _with_licence(how: str) -> tuple[Core, int]:
    """P01 has one item to affirm, one to reject, one to rescind, a pay-in in cycle 1; then its licence ends."""
    net = Core()
    index = net.submit(P02, item(P01, P02, 5), item(P01, P02, 5))
    net.affirmed(P01, P02, item(P01, P02, 7))
    net.run_cycle()
    net.submit(P01, item(P01, P02, 9))
    _end_licence(net, P01, how)
    return net, index


def _end_licence(net: Core, participant_no: int, how: str) -> None:
    if how == "EXPIRED":
        net.set_licence(participant_no, ACTIVE, net.time_ms + 2_000)
    else:
        net.set_licence(participant_no, LicenceStatus[how])


out_of_licence = pytest.mark.parametrize("how", ["SUSPENDED", "WITHDRAWN", "EXPIRED"])


@out_of_licence
def test_a_licence_that_is_not_in_force_lets_nothing_new_begin(how: str) -> None:
    net, index = _with_licence(how)
    own = max(net.state.open)
    assert net.one(net.submission(P01, item(P01, P02, 5))).code is R.NOT_LICENSED
    assert net.affirm(P01, index).code is R.NOT_LICENSED
    assert net.select(Kind.REJECT, P01, index).code is R.NOT_LICENSED
    assert net.select(Kind.RESCIND, P01, own).code is R.NOT_LICENSED


@out_of_licence
def test_a_licence_that_is_not_in_force_lets_what_is_locked_be_settled(how: str) -> None:
    net, _ = _with_licence(how)
    assert net.settlement(Kind.EVIDENCE, P01, 1, 0).code is R.OK
    assert net.settlement(Kind.CONFIRM, CB, 1, 0).code is R.OK
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED
    net, _ = _with_licence(how)
    assert net.settlement(Kind.FAIL, P01, 1, 0).code is R.OK


@out_of_licence
def test_a_payee_out_of_licence_confirms_what_it_gets(how: str) -> None:
    net = Core()
    net.affirmed(P02, P01, item(P02, P01, 7))
    net.run_cycle()
    net.settlement(Kind.EVIDENCE, P02, 1, 1)
    net.settlement(Kind.CONFIRM, CB, 1, 1)
    _end_licence(net, P01, how)
    assert net.settlement(Kind.EVIDENCE, CB, 1, 0).code is R.OK
    assert net.settlement(Kind.CONFIRM, P01, 1, 0).code is R.OK
    assert net.cycle(1).state is CycleState.SETTLED


@out_of_licence
def test_a_central_bank_out_of_licence_settles_and_governs_nothing(how: str) -> None:
    net = Core(roles=THREE_GOVERNORS)
    net.affirmed(P01, P02, item(P01, P02, 7))
    net.run_cycle()
    _end_licence(net, CB, how)
    index = net.propose(MINISTRY, SUSPEND_P01).index
    assert net.propose(CB, SUSPEND_P01).code is R.NOT_LICENSED
    assert net.approve(CB, index).code is R.NOT_LICENSED
    assert net.run_cycle().code is R.NOT_LICENSED
    assert net.pledge(P01, 1).code is R.NOT_LICENSED
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED


@out_of_licence
def test_counterparties_of_a_party_out_of_licence_are_told(how: str) -> None:
    net, _ = _with_licence(how)
    outcome = net.one(net.submission(P02, item(P02, P03, 5), item(P02, P01, 5)))
    assert outcome.code is R.PARTICIPANT_NOT_LICENSED
    assert outcome.items == ((1, R.PARTICIPANT_NOT_LICENSED),)


def test_a_counterparty_may_still_undo_its_own_proposal() -> None:
    net, index = _with_licence("SUSPENDED")
    assert net.select(Kind.RESCIND, P02, index).code is R.OK
    assert net.states(index) == [ObligationState.RESCINDED] * 2


def test_a_suspended_licence_comes_back_and_a_withdrawn_one_does_not() -> None:
    net = Core()
    net.suspend(P01)
    net.set_licence(P01, ACTIVE)
    assert net.submit(P01, item(P01, P02, 5))
    net.set_licence(P01, WITHDRAWN)
    assert net.propose(MINISTRY, licence(P01, ACTIVE)).code is R.ACTION_VALUE
