"""Every reject code: a transaction that gets exactly this one.

A refused transaction leaves no trace: no leaf, no row, the same state.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from clearing.errors import RejectCode as R
from clearing.params import OPEN_ITEMS_MAX, Parameters
from clearing.records import instruction as ins
from clearing.records.obligation import SECRET_BYTES
from clearing.records.submission import LEAF_BYTES, make_submission
from clearing.records.transaction import Transaction
from clearing.rules.anchors import AnchorState
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind
from clearing.types import LicenceStatus, Role
from tests.clearing import reject_setoff  # noqa: F401 - its cases register themselves
from tests.clearing.anchor_kit import after, begin, mined, stated, told, with_node_key
from tests.clearing.bitcoin_cases import BITCOIN_CASES
from tests.clearing.core_kit import (
    NOBODY,
    Core,
    Kind,
    approving,
    dump,
    licence,
    netted,
    proposing,
    reference,
    selection,
    signed,
    tampered,
)
from tests.clearing.reject_kit import CASES, Case, case
from tests.ledger_kit import (
    CB,
    MINISTRY,
    P01,
    P02,
    P03,
    REGULATOR,
    item,
    participant,
    seeded_key,
)

GOOD = item(P01, P02, 5)

# what the transaction itself is


@case(R.MALFORMED)
def selection_cut_short(net: Core) -> Transaction:
    return signed(net, P02, Kind.AFFIRM, b"\0" * 11)


@case(R.MALFORMED)
def cycle_with_a_payload(net: Core) -> Transaction:
    return signed(net, CB, Kind.RUN_CYCLE, b"\0")


@case(R.MALFORMED)
def evidence_without_a_hash(net: Core) -> Transaction:
    payload = ins.REFERENCE_LAYOUT.encode(cycle=1, number=0)
    return signed(net, P01, Kind.EVIDENCE, payload)


@case(R.MALFORMED)
def confirmation_with_a_hash(net: Core) -> Transaction:
    return signed(net, CB, Kind.CONFIRM, bytes(40))


@case(R.MALFORMED)
def failure_without_a_number(net: Core) -> Transaction:
    return signed(net, P01, Kind.FAIL, bytes(4))


@case(R.MALFORMED)
def pledge_with_reserved_bytes(net: Core) -> Transaction:
    return signed(net, CB, Kind.SET_LIQUIDITY, b"\1" * ins.LIQUIDITY_LAYOUT.width)


@case(R.MALFORMED)
def proposal_of_nothing(net: Core) -> Transaction:
    return signed(net, MINISTRY, Kind.PROPOSE, b"")


@case(R.MALFORMED)
def proposal_of_an_unknown_action(net: Core) -> Transaction:
    return signed(net, MINISTRY, Kind.PROPOSE, b"\x63\0\0\0")


@case(R.MALFORMED)
def proposal_of_an_unknown_role(net: Core) -> Transaction:
    data = bytearray(encode_actions([Action(ActionKind.ADD_PARTICIPANT, participant("x", 4, 50))]))
    data[4 + 52] = 9
    return signed(net, MINISTRY, Kind.PROPOSE, bytes(data))


@case(R.MALFORMED)
def approval_of_nothing(net: Core) -> Transaction:
    return signed(net, CB, Kind.APPROVE, b"")


@case(R.UNKNOWN_ACTOR)
def instruction_of_nobody(net: Core) -> Transaction:
    return signed(net, NOBODY, Kind.RUN_CYCLE, b"")


@case(R.BAD_SIGNATURE)
def submission_with_a_flipped_bit(net: Core) -> Transaction:
    return tampered(net.submission(P01, GOOD), LEAF_BYTES - 1)


@case(R.BAD_SIGNATURE)
def instruction_in_another_s_name(net: Core) -> Transaction:
    made = signed(net, P02, Kind.RUN_CYCLE, b"")
    return ins.Instruction.decode(made.leaf[:8] + bytes(4) + made.leaf[12:] + made.body)


@case(R.BAD_SIGNATURE)
def submission_for_another_network(net: Core) -> Transaction:
    return make_submission(
        network_id=bytes(32),
        submitter=P01,
        client_id=bytes(16),
        secret=bytes(32),
        records=GOOD,
        sign=net.key(P01).sign,
    )


@case(R.COMMITMENT_MISMATCH)
def submission_with_another_body(net: Core) -> Transaction:
    return tampered(net.submission(P01, GOOD), LEAF_BYTES + SECRET_BYTES + 20)


@case(R.COMMITMENT_MISMATCH)
def instruction_with_another_salt(net: Core) -> Transaction:
    return tampered(signed(net, CB, Kind.RUN_CYCLE, b""), ins.LEAF_BYTES)


@case(R.EXISTS_DIFFERENT)
def id_of_another_submission(net: Core) -> Transaction:
    net.one(net.submission(P01, GOOD, client_id=b"i" * 16))
    return net.submission(P01, item(P01, P02, 6), client_id=b"i" * 16)


@case(R.EXISTS_DIFFERENT)
def id_of_a_submission_for_an_instruction(net: Core) -> Transaction:
    net.one(net.submission(P01, GOOD, client_id=b"i" * 16))
    return signed(net, P01, Kind.AFFIRM, ins.ItemSelection(2).encode(), client_id=b"i" * 16)


# what the actor may do


@case(R.NOT_LICENSED)
def submission_of_a_suspended_bank(net: Core) -> Transaction:
    net.suspend(P01)
    return net.submission(P01, GOOD)


@case(R.NOT_LICENSED)
def affirmation_of_an_expired_bank(net: Core) -> Transaction:
    index = net.submit(P01, GOOD)
    net.set_licence(P02, LicenceStatus.ACTIVE, net.time_ms + 3_000)
    return selection(net, P02, index)


@case(R.ROLE_NOT_ALLOWED)
def submission_of_a_regulator(net: Core) -> Transaction:
    return net.submission(REGULATOR, item(REGULATOR, P01, 5))


@case(R.ROLE_NOT_ALLOWED)
def cycle_run_by_a_bank(net: Core) -> Transaction:
    return signed(net, P01, Kind.RUN_CYCLE, b"")


@case(R.ROLE_NOT_ALLOWED)
def proposal_of_a_bank(net: Core) -> Transaction:
    return proposing(net, licence(P02, LicenceStatus.SUSPENDED), actor=P01)


@case(R.NOT_A_PARTY)
def affirmation_of_one_s_own_items(net: Core) -> Transaction:
    return selection(net, P01, net.submit(P01, GOOD), (0, 0))


@case(R.NOT_A_PARTY)
def rescission_by_the_other_side(net: Core) -> Transaction:
    return selection(net, P02, net.submit(P01, GOOD), (0, 0), kind=Kind.RESCIND)


@case(R.NOT_A_PARTY)
def affirmation_by_a_third(net: Core) -> Transaction:
    return selection(net, P03, net.submit(P01, GOOD, item(P03, P01, 5)), (0, 1))


@case(R.NOT_A_PARTY)
def evidence_by_a_third(net: Core) -> Transaction:
    netted(net)
    return reference(net, Kind.EVIDENCE, P03, 1, 0)


@case(R.NOT_A_PARTY)
def confirmation_of_one_s_own_pay_in(net: Core) -> Transaction:
    netted(net)
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    return reference(net, Kind.CONFIRM, P01, 1, 0)


@case(R.NOT_A_PARTY)
def failing_a_pay_out(net: Core) -> Transaction:
    netted(net)
    return reference(net, Kind.FAIL, CB, 1, 1)


# an item of a submission


@case(R.ITEM_VERSION)
def version_two(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 5, version=2))


@case(R.ITEM_KIND)
def kind_six(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 5, kind=6))


@case(R.ITEM_FLAGS)
def a_flag(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 5, flags=1))


@case(R.SAME_PARTY)
def owing_oneself(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P01, 5))


@case(R.SUBMITTER_NOT_PARTY)
def between_two_others(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P02, P03, 5))


@case(R.UNKNOWN_PARTICIPANT)
def owing_nobody(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, 7, 5))


@case(R.UNKNOWN_PARTICIPANT)
def owing_a_ministry(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, MINISTRY, 5))


@case(R.PARTICIPANT_NOT_LICENSED)
def owing_a_suspended_bank(net: Core) -> Transaction:
    net.suspend(P02)
    return net.submission(P01, item(P01, P03, 5), GOOD)


@case(R.UNKNOWN_ASSET)
def in_asset_three(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 5, asset=3))


@case(R.ZERO_AMOUNT)
def nothing_owed(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 0))


@case(R.DUE_PASSED)
def due_at_the_block_s_own_time(net: Core) -> Transaction:
    return net.submission(P01, GOOD, item(P01, P02, 5, due_ms=net.time_ms + 1_000))


@case(R.BOOK_FULL)
def one_more_than_the_book_holds(net: Core) -> Transaction:
    net.state.open_items = OPEN_ITEMS_MAX - 1
    return net.submission(P01, GOOD, GOOD)


@case(R.SUBMITTER_BOOK_FULL)
def one_more_than_one_submitter_may_have(net: Core) -> Transaction:
    net.enact(Action(ActionKind.SET_PARAMETERS, Parameters(submitter_open_items=1)))
    return net.submission(P01, GOOD, GOOD)


# a selection of items


@case(R.UNKNOWN_SUBMISSION)
def affirming_the_genesis_leaf(net: Core) -> Transaction:
    return selection(net, P02, 0)


@case(R.UNKNOWN_SUBMISSION)
def affirming_what_is_not_in_the_log(net: Core) -> Transaction:
    return selection(net, P02, (1 << 64) - 1, (0, 0))


@case(R.UNKNOWN_ITEM)
def affirming_past_the_end(net: Core) -> Transaction:
    return selection(net, P02, net.submit(P01, GOOD), (0, 1))


@case(R.NOTHING_SELECTED)
def affirming_all_of_nothing(net: Core) -> Transaction:
    return selection(net, P03, net.submit(P01, GOOD))


@case(R.NOTHING_SELECTED)
def affirming_all_twice(net: Core) -> Transaction:
    return selection(net, P02, net.affirmed(P01, P02, GOOD))


@case(R.ITEM_STATE)
def affirming_an_item_twice(net: Core) -> Transaction:
    return selection(net, P02, net.affirmed(P01, P02, GOOD), (0, 0))


@case(R.ITEM_STATE)
def rescinding_after_the_cut_off(net: Core) -> Transaction:
    index = net.affirmed(P01, P02, GOOD)
    net.run_cycle()
    return selection(net, P01, index, (0, 0), kind=Kind.RESCIND)


# cycles and settlement


@case(R.NOTHING_TO_NET)
def cycle_over_unaffirmed_items(net: Core) -> Transaction:
    net.submit(P01, GOOD)
    return signed(net, CB, Kind.RUN_CYCLE, b"")


@case(R.NOTHING_TO_NET)
def cycle_over_items_of_a_suspended_bank(net: Core) -> Transaction:
    net.affirmed(P01, P02, GOOD)
    net.suspend(P01)
    return signed(net, CB, Kind.RUN_CYCLE, b"")


@case(R.NO_SETTLEMENT_AGENT)
def cycle_where_no_central_bank_is_in_licence(net: Core) -> Transaction:
    (operator,) = operators(net, 1)
    net.roles += ((f"operator-{operator}", Role.OPERATOR),)
    net.affirmed(P01, P02, GOOD)
    alone = Action(ActionKind.SET_PARAMETERS, Parameters(governance_quorum=1))
    net.enact(alone, licence(CB, LicenceStatus.WITHDRAWN))
    return signed(net, operator, Kind.RUN_CYCLE, b"")


@case(R.UNKNOWN_INSTRUCTION)
def evidence_for_a_number_past_the_end(net: Core) -> Transaction:
    netted(net)
    return reference(net, Kind.EVIDENCE, P01, 1, 2)


@case(R.UNKNOWN_INSTRUCTION)
def evidence_in_a_cycle_that_was_not(net: Core) -> Transaction:
    return reference(net, Kind.EVIDENCE, P01, (1 << 32) - 1, 0)


@case(R.NOT_FUNDED)
def pay_out_before_the_pay_in(net: Core) -> Transaction:
    netted(net)
    return reference(net, Kind.EVIDENCE, CB, 1, 1)


@case(R.INSTRUCTION_STATE)
def confirming_without_evidence(net: Core) -> Transaction:
    netted(net)
    return reference(net, Kind.CONFIRM, CB, 1, 0)


@case(R.INSTRUCTION_STATE)
def evidence_twice(net: Core) -> Transaction:
    netted(net)
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    return reference(net, Kind.EVIDENCE, P01, 1, 0)


@case(R.INSTRUCTION_STATE)
def confirming_a_pay_out_of_a_settled_cycle(net: Core) -> Transaction:
    netted(net)
    net.settle(1)
    return reference(net, Kind.CONFIRM, P02, 1, 1)


@case(R.INSTRUCTION_STATE)
def paying_out_of_a_failed_cycle(net: Core) -> Transaction:
    netted(net)
    net.settlement(Kind.FAIL, P01, 1, 0)
    return reference(net, Kind.EVIDENCE, CB, 1, 1)


# governance


@case(R.UNKNOWN_PROPOSAL)
def approving_a_submission(net: Core) -> Transaction:
    return approving(net, CB, net.submit(P01, GOOD))


@case(R.PROPOSAL_CLOSED)
def approving_what_is_enacted(net: Core) -> Transaction:
    return approving(net, CB, net.enact(licence(P01, LicenceStatus.SUSPENDED)))


@case(R.PROPOSAL_CLOSED)
def approving_what_has_lapsed(net: Core) -> Transaction:
    index = net.propose(MINISTRY, licence(P01, LicenceStatus.SUSPENDED)).index
    net.time_ms += Parameters().proposal_lifetime_ms - 1_000
    return approving(net, CB, index)


@case(R.ALREADY_APPROVED)
def approving_one_s_own_proposal(net: Core) -> Transaction:
    return approving(
        net, MINISTRY, net.propose(MINISTRY, licence(P01, LicenceStatus.SUSPENDED)).index
    )


@case(R.ACTION_UNKNOWN_SUBJECT)
def suspending_nobody(net: Core) -> Transaction:
    return proposing(net, licence(7, LicenceStatus.SUSPENDED))


@case(R.ACTION_DUPLICATE)
def registering_a_name_twice(net: Core) -> Transaction:
    return proposing(net, Action(ActionKind.ADD_PARTICIPANT, participant("p01", 4, 50)))


@case(R.ACTION_DUPLICATE)
def enacting_what_became_a_duplicate(net: Core) -> Transaction:
    add = Action(ActionKind.ADD_PARTICIPANT, participant("p05", 4, 50))
    index = net.propose(MINISTRY, add).index
    net.enact(add)
    return approving(net, CB, index)


@case(R.ACTION_VALUE)
def cut_offs_that_descend(net: Core) -> Transaction:
    return proposing(net, Action(ActionKind.SET_TIMETABLE, (2, 1)))


@case(R.GOVERNANCE_STRANDED)
def suspending_one_governor_of_two(net: Core) -> Transaction:
    return proposing(net, licence(CB, LicenceStatus.SUSPENDED))


# validators


def appoint(participant_no: int, power: int = 10, key: bytes = b"") -> Action:
    values = {
        "participant": participant_no,
        "power": power,
        "consensus_key": key or vkey(participant_no),
    }
    return Action(ActionKind.SET_VALIDATOR, values)


def vkey(number: int) -> bytes:
    return seeded_key(f"validator {number}").public_key().public_bytes_raw()


def operators(net: Core, count: int) -> list[int]:
    """Register operators and return their numbers."""
    first = len(net.state.registry.participants)
    numbers = range(first, first + count)
    fresh = [participant(f"operator-{i}", Role.OPERATOR, i) for i in numbers]
    net.enact(*(Action(ActionKind.ADD_PARTICIPANT, one) for one in fresh))
    return list(numbers)


def appointed(net: Core, count: int = 4) -> list[int]:
    """Appoint ministry, central bank and operators as validators of equal power."""
    numbers = [MINISTRY, CB, *operators(net, count - 2)]
    net.enact(*map(appoint, numbers))
    return numbers


@case(R.VALIDATOR_ROLE)
def bank_as_validator(net: Core) -> Transaction:
    return proposing(net, appoint(P01))


@case(R.VALIDATOR_KEY_TAKEN)
def validator_with_anothers_key(net: Core) -> Transaction:
    appointed(net)
    (fifth,) = operators(net, 1)
    return proposing(net, appoint(fifth, key=vkey(CB)))


@case(R.VALIDATOR_KEY_TAKEN)
def validator_with_a_participants_key(net: Core) -> Transaction:
    return proposing(net, appoint(CB, key=net.key(P01).public_key().public_bytes_raw()))


@case(R.VALIDATORS_TOO_FEW)
def three_validators(net: Core) -> Transaction:
    (operator,) = operators(net, 1)
    return proposing(net, *map(appoint, (MINISTRY, CB, operator)))


@case(R.VALIDATORS_TOO_FEW)
def removing_one_of_four(net: Core) -> Transaction:
    return proposing(net, appoint(appointed(net)[-1], 0, bytes(32)))


@case(R.VALIDATORS_TOO_MANY)
def more_validators_than_fit(net: Core) -> Transaction:
    numbers = [number for _ in range(2) for number in operators(net, 60)]
    first, second = numbers[:60], numbers[60:]
    net.enact(*map(appoint, first))
    net.enact(*map(appoint, second[:20]))
    net.enact(*map(appoint, second[20:40]))
    return proposing(net, *map(appoint, second[40:]))


@case(R.VALIDATOR_TOO_STRONG)
def a_third_of_the_power_at_once(net: Core) -> Transaction:
    numbers = [MINISTRY, CB, *operators(net, 2)]
    return proposing(net, *map(appoint, numbers[:3]), appoint(numbers[3], 15))


@case(R.VALIDATORS_CHANGE_TOO_GREAT)
def two_keys_of_four_rotated(net: Core) -> Transaction:
    numbers = appointed(net)
    return proposing(net, *(appoint(number, key=vkey(100 + number)) for number in numbers[:2]))


@case(R.ACTION_VALUE)
def a_validator_removed_that_never_was(net: Core) -> Transaction:
    return proposing(net, appoint(CB, 0, bytes(32)))


@case(R.ANCHOR_ORDER)
def a_second_report_of_an_anchor_that_was_never_begun(net: Core) -> Transaction:
    return stated(with_node_key(net), after(begin(2), AnchorState.BROADCAST))


@case(R.ANCHOR_STATE)
def an_anchor_lost_before_it_was_sent(net: Core) -> Transaction:
    told(with_node_key(net), begin(2))
    return stated(net, after(begin(2), AnchorState.LOST))


@case(R.ANCHOR_CHECKPOINTS)
def an_anchor_of_more_than_the_log_has(net: Core) -> Transaction:
    return stated(with_node_key(net), begin(10_000))


@case(R.ANCHOR_EVIDENCE)
def a_block_that_holds_another_anchor(net: Core) -> Transaction:
    told(with_node_key(net), begin(2))
    return stated(net, replace(mined(begin(3)), commitment=begin(2).commitment))


@case(R.BAD_SIGNATURE)
def an_anchor_reported_without_a_node_key(net: Core) -> Transaction:
    return stated(net, begin(2))


@case(R.MALFORMED)
def an_anchor_report_that_is_cut_short(net: Core) -> Transaction:
    return stated(with_node_key(net), begin(2).encode()[:-1])


CASES += BITCOIN_CASES


@pytest.mark.parametrize(("code", "make"), CASES, ids=lambda each: getattr(each, "__name__", None))
def test_each_fault_has_its_code_and_leaves_no_trace(code: R, make: Case) -> None:
    net = Core()
    transaction = make(net)
    before, rows = dump(net.state), net.rows()
    result = net.block(transaction)
    (outcome,) = result.outcomes
    assert outcome.code is code
    assert (outcome.index, outcome.repeated) == (-1, False)
    assert (result.entries, result.delta.rows, result.nodes) == ((), (), ())
    assert (result.log_root, result.state_root) == (net.state.log.root, before["state_root"])
    assert dump(net.state) == before
    assert net.rows() == rows


def test_every_code_has_a_case() -> None:
    assert {code for code, _ in CASES} | {R.OK} == set(R)
