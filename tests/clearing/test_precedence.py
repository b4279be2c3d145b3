"""Of two faults at once the lower number is told, wherever they are; and of many bad items each has its own code."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from clearing.errors import RejectCode as R
from clearing.params import OPEN_ITEMS_MAX, Parameters
from clearing.records import instruction as ins
from clearing.records.submission import LEAF_BYTES, SIGNATURE_BYTES
from clearing.records.transaction import Transaction
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Cap
from clearing.types import LicenceStatus
from tests.clearing.core_kit import (
    NOBODY,
    Core,
    Kind,
    approving,
    licence,
    netted,
    proposing,
    reference,
    selection,
    signed,
    tampered,
)
from tests.ledger_kit import BTC, CB, ETH, MINISTRY, P01, P02, P03, P04, item, participant

GOOD = item(P01, P02, 5)
Case = Callable[[Core], Transaction]


def _names(pair: tuple[R, R]) -> str:
    return " and ".join(code.name for code in pair)


def _used_id(net: Core, actor: int) -> bytes:
    """Return a client id that the actor has used."""
    roles = {MINISTRY: Kind.PROPOSE, P01: Kind.AFFIRM, P02: Kind.AFFIRM}
    client_id = net.fresh("used", 16)
    if roles[actor] is Kind.PROPOSE:
        payload = encode_actions([licence(P04, LicenceStatus.ACTIVE)])
    else:
        index = net.submit(P03, item(P03, actor, 5))
        payload = ins.ItemSelection(index).encode()
    assert net.one(signed(net, actor, roles[actor], payload, client_id)).code is R.OK
    return client_id


def _unlicense(net: Core, actor: int) -> None:
    if actor == MINISTRY:  # a third governor keeps the quorum
        net.enact(Action(ActionKind.ADD_PARTICIPANT, participant("ministry-2", 1, 60)))
    net.suspend(actor)


def _damaged(transaction: Transaction, faults: set[R]) -> Transaction:
    if R.COMMITMENT_MISMATCH in faults:
        transaction = tampered(transaction, LEAF_BYTES)
    if R.BAD_SIGNATURE in faults:
        transaction = tampered(transaction, LEAF_BYTES - SIGNATURE_BYTES)
    return transaction


SUBMISSION_FAULTS = (
    *(R.BAD_SIGNATURE, R.COMMITMENT_MISMATCH, R.EXISTS_DIFFERENT, R.NOT_LICENSED),
    *(R.ROLE_NOT_ALLOWED, R.ZERO_AMOUNT, R.BOOK_FULL),
    R.SUBMITTER_BOOK_FULL,
)


@pytest.mark.parametrize("pair", list(itertools.combinations(SUBMISSION_FAULTS, 2)), ids=_names)
def test_of_two_faults_of_a_submission_the_lower_number_is_told(pair: tuple[R, R]) -> None:
    net, faults = Core(), set(pair)
    actor = MINISTRY if R.ROLE_NOT_ALLOWED in faults else P01
    client_id = _used_id(net, actor) if R.EXISTS_DIFFERENT in faults else None
    if R.NOT_LICENSED in faults:
        _unlicense(net, actor)
    if R.BOOK_FULL in faults:
        net.state.open_items = OPEN_ITEMS_MAX
    if R.SUBMITTER_BOOK_FULL in faults:
        net.state.open_items_of[actor] = Parameters().submitter_open_items
    record = item(actor, P02, 0 if R.ZERO_AMOUNT in faults else 5)
    transaction = _damaged(net.submission(actor, record, client_id=client_id), faults)
    assert net.one(transaction).code is min(faults)


INSTRUCTION_FAULTS = (
    *(R.MALFORMED, R.UNKNOWN_ACTOR, R.BAD_SIGNATURE, R.COMMITMENT_MISMATCH, R.EXISTS_DIFFERENT),
    *(R.NOT_LICENSED, R.ROLE_NOT_ALLOWED, R.UNKNOWN_SUBMISSION),
)
IMPOSSIBLE_WITH_NOBODY = {R.EXISTS_DIFFERENT, R.NOT_LICENSED, R.ROLE_NOT_ALLOWED}
NEEDS_A_PAYLOAD = {R.MALFORMED, R.UNKNOWN_SUBMISSION}


@pytest.mark.parametrize(
    "pair",
    [
        pair
        for pair in itertools.combinations(INSTRUCTION_FAULTS, 2)
        if set(pair) != NEEDS_A_PAYLOAD
        if not (R.UNKNOWN_ACTOR in pair and IMPOSSIBLE_WITH_NOBODY & set(pair))
    ],
    ids=_names,
)
def test_of_two_faults_of_an_instruction_the_lower_number_is_told(pair: tuple[R, R]) -> None:
    net, faults = Core(), set(pair)
    actor = MINISTRY if R.ROLE_NOT_ALLOWED in faults else P02
    index = 99 if R.UNKNOWN_SUBMISSION in faults else net.submit(P01, GOOD)
    client_id = _used_id(net, actor) if R.EXISTS_DIFFERENT in faults else None
    if R.NOT_LICENSED in faults:
        _unlicense(net, actor)
    if R.UNKNOWN_ACTOR in faults:
        actor = NOBODY
    payload = ins.ItemSelection(index).encode()[: 11 if R.MALFORMED in faults else None]
    transaction = _damaged(signed(net, actor, Kind.AFFIRM, payload, client_id), faults)
    assert net.one(transaction).code is min(faults)


def _two_faults_in_one_place() -> list[tuple[R, Case]]:
    def past_the_end_and_another_s(net: Core) -> Transaction:
        return selection(net, P03, net.submit(P01, GOOD), (0, 5))

    def past_the_end_and_moved_on(net: Core) -> Transaction:
        return selection(net, P02, net.affirmed(P01, P02, GOOD), (0, 5))

    def another_s_and_moved_on(net: Core) -> Transaction:
        return selection(net, P03, net.affirmed(P01, P02, GOOD), (0, 0))

    def not_the_agent_and_unknown_participant(net: Core) -> Transaction:
        net.enact(Action(ActionKind.ADD_PARTICIPANT, participant("central-bank-2", 2, 60)))
        net.roles = (*net.roles, ("central-bank-2", 2))
        payload = ins.LIQUIDITY_LAYOUT.encode(participant=99, asset=99, amount_units=1)
        return signed(net, 7, Kind.SET_LIQUIDITY, payload)

    def pledge_of_nobody_in_no_asset(net: Core) -> Transaction:
        payload = ins.LIQUIDITY_LAYOUT.encode(participant=99, asset=99, amount_units=1)
        return signed(net, CB, Kind.SET_LIQUIDITY, payload)

    def pledge_in_no_asset(net: Core) -> Transaction:
        payload = ins.LIQUIDITY_LAYOUT.encode(participant=P01, asset=99, amount_units=1)
        return signed(net, CB, Kind.SET_LIQUIDITY, payload)

    def a_third_and_not_funded(net: Core) -> Transaction:
        netted(net)
        return reference(net, Kind.EVIDENCE, P03, 1, 1)

    def not_funded_and_without_evidence(net: Core) -> Transaction:
        netted(net)
        return reference(net, Kind.CONFIRM, P02, 1, 1)

    def a_third_and_confirmed(net: Core) -> Transaction:
        netted(net)
        net.settle(1)
        return reference(net, Kind.EVIDENCE, P03, 1, 0)

    def enacted_and_approved(net: Core) -> Transaction:
        return approving(net, MINISTRY, net.enact(licence(P01, LicenceStatus.ACTIVE)))

    def cap_of_nobody_in_no_asset(net: Core) -> Transaction:
        return proposing(net, Action(ActionKind.SET_CAP, Cap(99, ETH, 1)))

    return [
        (R.NOT_A_PARTY, past_the_end_and_another_s),
        (R.UNKNOWN_ITEM, past_the_end_and_moved_on),
        (R.NOT_A_PARTY, another_s_and_moved_on),
        (R.NOT_A_PARTY, not_the_agent_and_unknown_participant),
        (R.UNKNOWN_PARTICIPANT, pledge_of_nobody_in_no_asset),
        (R.UNKNOWN_ASSET, pledge_in_no_asset),
        (R.NOT_A_PARTY, a_third_and_not_funded),
        (R.NOT_FUNDED, not_funded_and_without_evidence),
        (R.NOT_A_PARTY, a_third_and_confirmed),
        (R.PROPOSAL_CLOSED, enacted_and_approved),
        (R.ACTION_UNKNOWN_SUBJECT, cap_of_nobody_in_no_asset),
    ]


@pytest.mark.parametrize(
    ("code", "make"), _two_faults_in_one_place(), ids=lambda each: getattr(each, "__name__", None)
)
def test_of_two_faults_in_one_place_the_lower_number_is_told(code: R, make: Case) -> None:
    net = Core()
    transaction = make(net)
    assert net.one(transaction).code is code


def test_every_bad_item_is_named_with_its_own_code() -> None:
    net = Core()
    faults = [item(P01, P02, 0), GOOD, item(P01, P01, 5, BTC), item(P02, P03, 5), item(P01, P02, 0)]
    outcome = net.one(net.submission(P01, *faults))
    assert outcome.code is R.SAME_PARTY
    assert outcome.items == (
        (0, R.ZERO_AMOUNT),
        (2, R.SAME_PARTY),
        (3, R.SUBMITTER_NOT_PARTY),
        (4, R.ZERO_AMOUNT),
    )
    assert outcome.bad_items == 4


def test_of_many_bad_items_the_first_hundred_are_named_and_all_counted() -> None:
    net = Core()
    outcome = net.one(net.submission(P01, *[item(P01, P02, 0)] * 150, item(P01, P01, 1)))
    assert outcome.code is R.SAME_PARTY
    assert outcome.items == tuple((at, R.ZERO_AMOUNT) for at in range(100))
    assert outcome.bad_items == 151
