"""apply, genesis, replay and repetition: what holds whatever the transactions are."""

from __future__ import annotations

import pytest

from clearing import ledger
from clearing.errors import DecodeError, InvariantViolation, RejectCode, VerificationError
from clearing.log import merkle
from clearing.memory import MemoryStore
from clearing.params import ITEMS_PER_SUBMISSION_MAX, OPEN_ITEMS_MAX, RULES_VERSION, Parameters
from clearing.records import instruction as ins
from clearing.records.leaves import GenesisLeaf, SealLeaf, body_hash
from clearing.rows import Table, changes_hash, key_request
from clearing.rules.governance import encode_actions
from clearing.rules.registry import NO_KEY, Action, ActionKind, Cap
from clearing.state import State
from clearing.types import AMOUNT_MAX, Role
from tests.clearing.core_kit import Core, Kind, dump, signed, tampered
from tests.clearing.log.support import naive_root, sha256
from tests.clearing.test_golden import run_scenario
from tests.ledger_kit import (
    BTC,
    CB,
    GENESIS_MS,
    P01,
    P02,
    P03,
    genesis_actions,
    item,
    participant,
)

GOOD = item(P01, P02, 5)


# genesis


def test_genesis_binds_the_network_to_everything_it_sets() -> None:
    actions = genesis_actions()
    result = ledger.genesis(GENESIS_MS, actions)
    leaf = GenesisLeaf(GENESIS_MS, body_hash(actions)).encode()
    genesis_entry, seal_entry = result.entries
    assert (genesis_entry.leaf, genesis_entry.body, genesis_entry.public) == (leaf, actions, True)
    assert result.delta.network_id == sha256(b"\0" + leaf)
    assert (result.height, result.log_size, result.outcomes) == (0, 2, ())
    assert SealLeaf.decode(seal_entry.leaf).participants == 7
    ids = {
        ledger.genesis(time_ms, genesis_actions(parameters=parameters)).delta.network_id
        for time_ms in (GENESIS_MS, GENESIS_MS + 1)
        for parameters in (Parameters(), Parameters(1))
    }
    assert len(ids) == 4


def test_genesis_may_set_caps() -> None:
    actions = genesis_actions() + encode_actions([Action(ActionKind.SET_CAP, Cap(P01, BTC, 5))])
    store = MemoryStore()
    store.commit(ledger.genesis(GENESIS_MS, actions))
    assert store.count(Table.POSITIONS) == 1


def _only(*roles: Role, quorum: int = 1) -> bytes:
    parties = [
        Action(ActionKind.ADD_PARTICIPANT, participant(f"p{at}", role, at))
        for at, role in enumerate(roles)
    ]
    return encode_actions([*parties, Action(ActionKind.SET_PARAMETERS, Parameters(quorum))])


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        (b"", "at least one action"),
        (genesis_actions()[:-1], "cut short|got"),
        (genesis_actions() + genesis_actions(), "ACTION_DUPLICATE"),
        (_only(Role.CENTRAL_BANK, quorum=2), "GOVERNANCE_STRANDED"),
        (_only(Role.MINISTRY), "must register a central bank"),
    ],
)
def test_a_genesis_that_cannot_work_is_refused(actions: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        ledger.genesis(GENESIS_MS, actions)


def test_a_central_bank_alone_is_a_network() -> None:
    assert ledger.genesis(GENESIS_MS, _only(Role.CENTRAL_BANK)).height == 0


# blocks


@pytest.mark.parametrize("height", [-1, 0, 2, 3])
def test_a_block_must_follow_the_state(height: int) -> None:
    net = Core()
    with pytest.raises(InvariantViolation, match=f"block {height} after 0"):
        ledger.apply(net.state, ledger.Block(height, net.time_ms, ()))


def test_block_time_may_stand_still_and_not_go_back() -> None:
    net = Core()
    assert net.one(net.submission(P01, GOOD), after_ms=0).code is RejectCode.OK
    with pytest.raises(InvariantViolation, match="went backwards"):
        net.block(after_ms=-1)


def test_the_seal_says_what_the_block_left_behind() -> None:
    net = run_scenario()
    for result in net.results:
        seal = SealLeaf.decode(result.entries[-1].leaf)
        assert (seal.height, seal.time_ms) == (result.height, result.time_ms)
        assert (seal.first_index, seal.rules_version) == (result.first_index, RULES_VERSION)
        assert (seal.participants, seal.assets) == (7, 3)
        assert seal.state_root == result.state_root
        assert seal.changes_hash == changes_hash(result.delta.rows)
    assert [result.height for result in net.results] == list(range(len(net.results)))


def test_the_log_is_the_tree_over_all_leaves() -> None:
    net = run_scenario()
    leaves = [sha256(b"\0" + entry.leaf) for result in net.results for entry in result.entries]
    for result in net.results:
        assert result.log_root == naive_root(leaves[: result.log_size])
    whole = merkle.HashedLeaves(leaves)
    nodes = {(level, at): value for result in net.results for level, at, value in result.nodes}
    assert nodes == {
        (level, at): whole.node(level, at)
        for level in range(len(leaves).bit_length())
        for at in range(len(leaves) >> level)
    }


def test_a_block_that_records_nothing_uses_nothing_up() -> None:
    net = Core()
    before = dump(net.state)
    result = net.block(net.submission(P01, item(P01, P02, 0)), after_ms=5_000)
    assert (result.entries, result.delta.rows, result.nodes) == ((), (), ())
    assert (result.height, result.log_size) == (1, 2)
    assert result.log_root == net.state.log.root
    assert dump(net.state) == before
    assert net.one(net.submission(P01, GOOD)).index == 2


def test_refused_transactions_among_good_ones_leave_no_trace() -> None:
    with_refused, without = Core(), Core()
    good = [with_refused.submission(P01, GOOD), with_refused.submission(P02, item(P02, P03, 1))]
    bad = [with_refused.submission(P01, item(P01, P02, 0)), tampered(good[0], 70)]
    first = with_refused.block(bad[0], good[0], bad[1], good[1], bad[0])
    second = without.block(*good)
    assert [outcome.code.value for outcome in first.outcomes] == [308, 0, 102, 0, 308]
    assert first.entries == second.entries
    assert first.delta.rows == second.delta.rows


def test_the_greatest_submission_is_one_leaf() -> None:
    net = Core()
    records = [item(P01, (P02, P03)[at % 2], AMOUNT_MAX, at % 3) for at in range(6)]
    index = net.submit(P01, *records * (ITEMS_PER_SUBMISSION_MAX // 6), records[0], records[1])
    assert len(net.states(index)) == ITEMS_PER_SUBMISSION_MAX
    net.affirm(P02, index)
    net.affirm(P03, index)
    net.run_cycle()
    owed = sum(row.debit for result in net.results_of(1) for row in result.rows)
    assert owed == ITEMS_PER_SUBMISSION_MAX * AMOUNT_MAX
    assert sum(net.position(P01, asset).payable for asset in range(3)) == owed


def test_the_book_may_be_filled_to_its_last_place() -> None:
    net = Core()
    net.state.open_items = OPEN_ITEMS_MAX - 2
    outcomes = net.block(net.submission(P01, GOOD, GOOD), net.submission(P01, GOOD)).outcomes
    assert [outcome.code for outcome in outcomes] == [RejectCode.OK, RejectCode.BOOK_FULL]


# replay


def test_replay_from_entries_gives_the_same_bytes() -> None:
    net = run_scenario()
    store = MemoryStore()
    (genesis_entry, _) = net.results[0].entries
    leaf = GenesisLeaf.decode(genesis_entry.leaf)
    store.commit(ledger.genesis(leaf.time_ms, genesis_entry.body))
    state = State.load(store)
    for result in net.results[1:]:
        again = ledger.apply(state, ledger.block_of_entries(result.entries))
        assert again.entries == result.entries
        assert again.delta.rows == result.delta.rows
        assert {outcome.code for outcome in again.outcomes} <= {RejectCode.OK}
        store.commit(again)
        state.advance(again.delta)
    assert dump(state) == dump(net.state)
    for table in Table:
        assert list(store.scan(table)) == list(net.store.scan(table))


def test_entries_that_are_no_block_are_refused() -> None:
    net = Core()
    net.submit(P01, GOOD)
    entries = net.results[1].entries
    with pytest.raises(DecodeError):
        ledger.block_of_entries(())
    with pytest.raises(DecodeError, match="not a SEAL leaf"):
        ledger.block_of_entries(entries[:-1])
    with pytest.raises(DecodeError, match="a body of 1 obligations takes 134 bytes, got 0"):
        ledger.block_of_entries((ledger.Entry(entries[0].leaf), entries[1]))
    with pytest.raises(DecodeError):
        ledger.block_of_entries((ledger.Entry(b"\1"), entries[1]))


# repetition


def test_the_same_bytes_get_the_first_answer_as_often_as_they_come() -> None:
    net = Core()
    submission = net.submission(P01, GOOD)
    first = net.one(submission)
    instruction = net.instruction(Kind.AFFIRM, P02, ins.ItemSelection(first.index).encode())
    affirmed = net.one(instruction)
    for _ in range(2):
        before = dump(net.state)
        result = net.block(submission, instruction, submission)
        assert [(each.code, each.index, each.repeated) for each in result.outcomes] == [
            (RejectCode.OK, first.index, True),
            (RejectCode.OK, affirmed.index, True),
            (RejectCode.OK, first.index, True),
        ]
        assert result.entries == ()
        assert dump(net.state) == before
        net.reload()  # and after a restart


def test_a_repetition_in_the_same_block_is_answered_too() -> None:
    net = Core()
    submission = net.submission(P01, GOOD)
    outcomes = net.block(submission, submission).outcomes
    assert [(each.index, each.repeated) for each in outcomes] == [(2, False), (2, True)]
    assert net.state.open_items == 1


def test_other_bytes_under_the_same_id_are_refused_also_after_a_restart() -> None:
    net = Core()
    submission = net.submission(P01, GOOD)
    first = net.one(submission)
    other = net.submission(P01, item(P01, P02, 6), client_id=submission.client_id)
    affirm = ins.ItemSelection(first.index).encode()
    for _ in range(2):
        assert net.one(other).code is RejectCode.EXISTS_DIFFERENT
        instruction = signed(net, P01, Kind.AFFIRM, affirm, submission.client_id)
        assert net.one(instruction).code is RejectCode.EXISTS_DIFFERENT
        net.reload()


def test_ids_are_each_actor_s_own() -> None:
    net = Core()
    client_id = b"the same id here"
    outcomes = net.block(
        net.submission(P01, GOOD, client_id=client_id),
        net.submission(P02, item(P02, P03, 5), client_id=client_id),
    ).outcomes
    assert [outcome.code for outcome in outcomes] == [RejectCode.OK, RejectCode.OK]
    assert net.store.get(Table.REQUESTS, key_request(P01, client_id))[:8] == bytes(7) + b"\2"
    assert net.store.get(Table.REQUESTS, key_request(P02, client_id))[:8] == bytes(7) + b"\3"


def test_a_refused_request_may_be_sent_again() -> None:
    net = Core()
    affirm = ins.ItemSelection(net.state.log_size + 1).encode()
    instruction = net.instruction(Kind.AFFIRM, P02, affirm)
    assert net.one(instruction).code is RejectCode.UNKNOWN_SUBMISSION
    net.pledge(P01, 1)
    index = net.submit(P01, GOOD)
    retry = net.instruction(Kind.AFFIRM, P02, ins.ItemSelection(index).encode())
    assert net.one(retry).code is RejectCode.OK
    cycle = net.instruction(Kind.RUN_CYCLE, CB)
    net.suspend(P02)
    assert net.one(cycle).code is RejectCode.NOTHING_TO_NET
    net.affirmed(P03, P01, item(P03, P01, 2))
    assert net.one(cycle).code is RejectCode.OK
    again = net.one(cycle)
    assert (again.code, again.repeated) == (RejectCode.OK, True)


def test_a_repeated_leaf_with_another_body_gets_the_first_answer_and_no_more() -> None:
    net = Core()
    submission = net.submission(P01, GOOD)
    net.one(submission)
    result = net.block(tampered(submission, 150))
    assert (result.outcomes[0].repeated, result.entries) == (True, ())


def test_nobody_speaks_for_the_node_of_whom_none_is_registered() -> None:
    """Its key is all zeros then, a point under which one fixed signature verifies for about every fourth message."""
    net = Core()
    forged = (1).to_bytes(32, "little") + bytes(32)
    verified = 0
    for number in range(40):
        stated = ins.make_instruction(
            network_id=net.state.network_id,
            kind=Kind.REPORT_HEADERS,
            actor=CB,
            client_id=bytes([number]) * 16,
            salt=bytes(16),
            payload=bytes(80),
            sign=lambda _: forged,
        )
        assert net.one(stated).code is RejectCode.BAD_SIGNATURE
        try:
            stated.verify_signature(net.state.network_id, NO_KEY)
        except VerificationError:
            continue
        verified += 1
    assert verified > 0
