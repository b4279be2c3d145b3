"""Mined coin: declared once, counted when attested, given once to what is paid with it; conserved whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from clearing.bitcoin.transaction import Outpoint, Output
from clearing.errors import RejectCode as R
from clearing.handlers import mined
from clearing.records.instruction import ItemSelection
from clearing.rows import Table
from clearing.rules.mined import Batch, BatchState, Draw, report
from clearing.rules.registry import Action, ActionKind
from clearing.state import State
from tests.clearing.bitcoin.bitcoin_kit import Chain, transaction, wpkh
from tests.clearing.bitcoin_net import Bitcoin, Kind, terms
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB, ETH, MINISTRY, P01, P02, P04, item


def started() -> tuple[Core, Bitcoin]:
    """Return a ledger that follows a chain."""
    net = Core()
    return net, Bitcoin(net)


def draws(net: Core) -> list[Draw]:
    """Return every draw."""
    return [Draw.decode(row) for _, row in net.store.scan(Table.DRAWS)]


def drawn_by(given: list[Draw]) -> dict[int, int]:
    """Return what obligations hold of each batch now: the other side of every batch's used_units."""
    sums: dict[int, int] = {}
    for one in given:
        for number, amount in () if one.returned_ms else one.parts:
            sums[number] = sums.get(number, 0) + amount
    return sums


def test_a_coinbase_counts_once_it_is_mature_and_attested() -> None:
    _, bitcoin = started()
    proof = bitcoin.mined(5_000, deep=99)
    claim = bitcoin.claim(proof)
    assert bitcoin.declare(claim).code is R.COIN_IMMATURE
    bitcoin.mine()
    index = bitcoin.ok(bitcoin.declare(claim)).index
    assert bitcoin.batch(index).state is BatchState.DECLARED
    assert bitcoin.batch(index).left_units == 0
    assert bitcoin.attest(index, miner=P01).code is R.UNKNOWN_BATCH
    bitcoin.ok(bitcoin.attest(index, by=MINISTRY))
    batch = bitcoin.batch(index)
    assert (batch.state, batch.amount_units, batch.left_units) == (BatchState.COUNTED, 5_000, 5_000)
    assert bitcoin.attest(index).code is R.BATCH_STATE
    assert bitcoin.declare(claim).code is R.COIN_DECLARED


def test_a_pools_payout_counts_and_another_pools_does_not() -> None:
    _, bitcoin = started()
    index = bitcoin.ok(bitcoin.declare(bitcoin.pool_claim(4_000))).index
    assert bitcoin.batch(index).amount_units == 4_000
    assert bitcoin.declare(bitcoin.pool_claim(4_100, "other pool")).code is R.PAYOUT_SCRIPT_UNKNOWN
    # A miner's own script is no pool's.
    assert bitcoin.declare(bitcoin.pool_claim(4_200, "miner")).code is R.PAYOUT_SCRIPT_UNKNOWN


def test_a_pools_payout_is_in_the_chain_and_as_deep_as_its_coinbase() -> None:
    """A shallow one may go again, and the pool pay the same coin out by another transaction."""
    _, bitcoin = started()
    claim = bitcoin.pool_claim(4_000, deep=99)
    assert bitcoin.declare(claim).code is R.COIN_IMMATURE
    bitcoin.mine()
    assert claim.payout is not None
    nowhere = replace(claim, payout=replace(claim.payout, block_hash=bytes(32)))
    assert bitcoin.declare(nowhere).code is R.BLOCK_NOT_IN_CHAIN
    elsewhere = replace(claim, payout=replace(claim.payout, block_hash=claim.coinbase.block_hash))
    assert bitcoin.declare(elsewhere).code is R.BITCOIN_PROOF_INVALID
    bitcoin.ok(bitcoin.declare(claim))


def test_only_the_miners_own_registered_scripts_count() -> None:
    _, bitcoin = started()
    proof = bitcoin.mined(5_000, "nobody")
    assert bitcoin.declare(bitcoin.claim(proof, name="nobody")).code is R.PAYOUT_SCRIPT_UNKNOWN
    assert bitcoin.declare(bitcoin.claim(proof, P01, "nobody"), P01).code is R.NOT_A_MINER
    # Signed under another participant's licence.
    own = bitcoin.mined(5_002)
    assert bitcoin.declare(bitcoin.claim(own, P01)).code is R.BITCOIN_PROOF_INVALID


def test_a_script_is_one_miners_and_a_pools_script_no_miners() -> None:
    net = Core()
    bitcoin = Bitcoin(net, terms(miner=CB))
    other = Action(ActionKind.SET_MINER, {"participant": P01, "active": 1, "region": "IRKUTSK"})
    net.enact(other)
    anothers = bitcoin.claim(bitcoin.mined(5_000), P01)
    assert bitcoin.declare(anothers, P01).code is R.PAYOUT_SCRIPT_UNKNOWN
    pools = bitcoin.claim(bitcoin.mined(5_001, "pool"), CB, "pool")
    assert bitcoin.declare(pools, CB).code is R.PAYOUT_SCRIPT_UNKNOWN


def test_a_supervisor_that_mines_does_not_attest_its_own_coin() -> None:
    bitcoin = Bitcoin(Core(), terms(miner=CB))
    index = bitcoin.ok(bitcoin.declare(bitcoin.claim(bitcoin.mined(5_000), CB), CB)).index
    assert bitcoin.attest(index, miner=CB, by=CB).code is R.NOT_A_PARTY
    bitcoin.ok(bitcoin.attest(index, miner=CB, by=MINISTRY))


def test_the_lowest_code_that_applies_is_told() -> None:
    """Beside a proof that fails, that its bringer is no miner; beside a block that is unknown, a batch that is."""
    bitcoin = Bitcoin(Core(), terms(miner=CB))
    claim = bitcoin.claim(bitcoin.mined(5_000), CB)
    nowhere = replace(claim, coinbase=replace(claim.coinbase, block_hash=bytes(32)))
    assert bitcoin.declare(nowhere, P01).code is R.BLOCK_NOT_IN_CHAIN
    assert bitcoin.declare(claim, P01).code is R.BITCOIN_PROOF_INVALID
    assert bitcoin.attest(7, miner=CB, by=CB).code is R.NOT_A_PARTY
    bitcoin.chain = Chain()
    bitcoin.chain.blocks(1, salt=9)
    assert bitcoin.attest(7, miner=CB, by=MINISTRY).code is R.BLOCK_NOT_IN_CHAIN


def test_a_coin_attested_or_shown_as_spent_is_void() -> None:
    net, bitcoin = started()
    first = bitcoin.ok(bitcoin.declare(bitcoin.claim(bitcoin.mined(5_000)))).index
    bitcoin.ok(bitcoin.attest(first, unspent=0))
    assert bitcoin.batch(first).state is BatchState.VOID
    proof = bitcoin.mined(5_001)
    second = bitcoin.ok(bitcoin.declare(bitcoin.claim(proof))).index
    spent = Outpoint(proof.transaction.txid, 0)
    (shown,) = bitcoin.mine(transaction([spent], [Output(5_000, wpkh("x"))]))
    bitcoin.ok(bitcoin.show(shown))
    assert bitcoin.batch(second).state is BatchState.VOID
    assert bitcoin.attest(second).code is R.BATCH_STATE
    assert net.affirm(P01, net.submit(P04, item(P04, P01, 1, flags=1))).code is R.MINED_COIN_SHORT
    # One that is counted may be spent: it is the miner's to spend.
    proof = bitcoin.mined(5_002)
    third = bitcoin.ok(bitcoin.declare(bitcoin.claim(proof))).index
    bitcoin.ok(bitcoin.attest(third))
    spends = transaction([Outpoint(proof.transaction.txid, 0)], [Output(5_000, wpkh("x"))])
    (shown,) = bitcoin.mine(spends)
    assert bitcoin.show(shown).code is R.NOTHING_WATCHED
    assert bitcoin.batch(third).state is BatchState.COUNTED


def test_obligations_draw_the_oldest_batch_first_and_give_back_where_they_drew() -> None:
    net, bitcoin = started()
    first, second = bitcoin.counted(100), bitcoin.counted(50)
    index = net.submit(P04, item(P04, P01, 70, flags=1), item(P04, P01, 60, flags=1))
    assert bitcoin.batch(first).used_units == 0
    bitcoin.ok(net.affirm(P01, index))
    assert (bitcoin.batch(first).used_units, bitcoin.batch(second).used_units) == (100, 30)
    assert [one.parts for one in draws(net)] == [((first, 70),), ((first, 30), (second, 30))]
    bitcoin.ok(net.select(Kind.RESCIND, P04, index, (0, 0)))
    assert (bitcoin.batch(first).used_units, bitcoin.batch(second).used_units) == (30, 30)
    short = net.submit(P04, item(P04, P01, 91, flags=1), item(P04, P01, 5))
    outcome = net.affirm(P01, short)
    assert (outcome.code, outcome.items) == (R.MINED_COIN_SHORT, ((0, R.MINED_COIN_SHORT),))
    bitcoin.ok(net.affirm(P01, short, (1, 1)))


def test_batches_are_read_once_and_then_those_that_are_drawn_on() -> None:
    """However many a miner has declared: every replica pays for each affirmation."""
    net, bitcoin = started()
    numbers = [bitcoin.counted(10 + at) for at in range(8)]
    net.reload()
    watched = net.watch()

    def costs(amount: int) -> tuple[R, int]:
        index = net.submit(P04, item(P04, P01, amount, flags=1))
        code = net.affirm(P01, index).code
        return code, watched.count(Table.BATCHES)

    assert costs(10) == (R.OK, 9)
    assert costs(12) == (R.OK, 2)
    assert costs(10_000) == (R.MINED_COIN_SHORT, 0)
    bitcoin.ok(bitcoin.attest(bitcoin.ok(bitcoin.declare(bitcoin.claim(bitcoin.mined(99)))).index))
    left = sum(10 + at for at in range(8)) + 99 - 22
    assert costs(left + 1)[0] is R.MINED_COIN_SHORT
    assert costs(left) == (R.OK, 7)
    assert [bitcoin.batch(number).left_units for number in numbers] == [0] * 8


def test_one_instruction_draws_and_gives_back_so_many_parts_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, bitcoin = started()
    numbers = [bitcoin.counted(10) for _ in range(5)]
    index = net.submit(P04, *(item(P04, P01, amount, flags=1) for amount in (1, 1, 1, 1, 30)))

    def answers(kind: Kind, actor: int, *ranges: tuple[int, int]) -> tuple[R, bool]:
        before = (net.rows(), net.state.reserve(P04).left.copy())
        code = net.select(kind, actor, index, *ranges).code
        return code, before == (net.rows(), net.state.reserve(P04).left)

    monkeypatch.setattr(mined, "MINED_PARTS_MAX", 3)
    assert answers(Kind.AFFIRM, P01) == (R.TOO_MANY_DRAWS, True)
    assert answers(Kind.AFFIRM, P01, (0, 3)) == (R.TOO_MANY_DRAWS, True)
    # It would draw on four: of the first there are ten, less the three that were drawn before.
    assert answers(Kind.AFFIRM, P01, (0, 2)) == (R.OK, False)
    assert answers(Kind.AFFIRM, P01, (4, 4)) == (R.TOO_MANY_DRAWS, True)
    monkeypatch.setattr(mined, "MINED_PARTS_MAX", 4)
    assert answers(Kind.AFFIRM, P01, (4, 4)) == (R.OK, False)
    assert answers(Kind.RESCIND, P04, (2, 2), (4, 4)) == (R.TOO_MANY_DRAWS, True)
    assert answers(Kind.RESCIND, P04, (0, 2)) == (R.OK, False)
    # One item can always be taken back, whatever the limit was when it drew.
    monkeypatch.setattr(mined, "MINED_PARTS_MAX", 2)
    assert answers(Kind.RESCIND, P04, (4, 4)) == (R.OK, False)
    assert [bitcoin.batch(number).used_units for number in numbers] == [0] * 5


def test_a_refused_affirmation_takes_nothing_from_those_after_it_in_the_block() -> None:
    net, bitcoin = started()
    batch = bitcoin.counted(100)
    first, second = (net.submit(P04, *[item(P04, P01, 60, flags=1)] * 2) for _ in range(2))
    orders = [ItemSelection(first), ItemSelection(first, ((0, 0),)), ItemSelection(second)]
    moves = [net.instruction(Kind.AFFIRM, P01, one.encode()) for one in orders]
    moves.append(net.instruction(Kind.RESCIND, P04, orders[1].encode()))
    last = ItemSelection(second, ((1, 1),)).encode()
    moves.append(net.instruction(Kind.AFFIRM, P01, last))
    codes = [outcome.code for outcome in net.block(*moves).outcomes]
    assert codes == [R.MINED_COIN_SHORT, R.OK, R.MINED_COIN_SHORT, R.OK, R.OK]
    assert bitcoin.batch(batch).used_units == 60
    assert net.state.reserve(P04).left == {batch: 40}


def test_flags_are_for_miners_and_for_the_asset_that_is_mined() -> None:
    net, _ = started()
    for record, code in (
        (item(P01, P02, 5, flags=1), R.NOT_A_MINER),
        (item(P04, P01, 5, ETH, flags=1), R.ITEM_FLAGS),
        (item(P04, P01, 5, flags=2), R.ITEM_FLAGS),
    ):
        submitter = P04 if record[4] == P04 else P01
        outcome = net.one(net.submission(submitter, record))
        assert (outcome.code, outcome.items) == (code, ((0, code),))
    plain = Core()
    assert plain.one(plain.submission(P04, item(P04, P01, 5, flags=1))).code is R.ITEM_FLAGS


def test_what_a_failed_cycle_returns_stays_drawn_and_what_settles_too() -> None:
    net, bitcoin = started()
    batch = bitcoin.counted(100)
    index = net.submit(P04, item(P04, P01, 70, flags=1))
    bitcoin.ok(net.affirm(P01, index))
    bitcoin.ok(net.run_cycle())
    bitcoin.ok(net.settlement(Kind.FAIL, P04, 1, 0 if net.instructions(1)[0].kind == 1 else 1))
    assert bitcoin.batch(batch).used_units == 70
    bitcoin.ok(net.run_cycle())
    net.settle(2)
    assert bitcoin.batch(batch).used_units == 70


class Conservation(RuleBasedStateMachine):
    """Whatever is submitted, affirmed, rescinded, netted and settled: a batch gives what was drawn, never more."""

    submissions = Bundle("submissions")

    @initialize()
    def start(self) -> None:
        """Count two batches."""
        self.net, self.bitcoin = started()
        self.amounts = {self.bitcoin.counted(amount): amount for amount in (100, 60)}
        self.held: dict[tuple[int, int], int] = {}

    @rule(
        target=submissions,
        parts=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 1)), min_size=1, max_size=3),
    )
    def submit(self, parts: list[tuple[int, int]]):
        """Owe some, with and without the flag."""
        records = [item(P04, P01, amount, flags=flag) for amount, flag in parts]
        return multiple((self.net.submit(P04, *records), tuple(parts)))

    @rule(made=submissions, at=st.integers(0, 2))
    def affirm(self, made: tuple[int, tuple[tuple[int, int], ...]], at: int) -> None:
        """Affirm one item; the naive model knows whether there is enough."""
        index, parts = made
        at = min(at, len(parts) - 1)
        outcome = self.net.affirm(P01, index, (at, at))
        amount, flag = parts[at]
        left = sum(self.amounts.values()) - sum(self.held.values())
        if outcome.code is R.OK:
            assert not flag or amount <= left
            if flag:
                self.held[index, at] = amount
        elif outcome.code is R.MINED_COIN_SHORT:
            assert flag
            assert amount > left
        else:
            assert outcome.code is R.ITEM_STATE

    @rule(made=submissions, at=st.integers(0, 2))
    def rescind(self, made: tuple[int, tuple[tuple[int, int], ...]], at: int) -> None:
        """Take one item back, if it may be."""
        index, parts = made
        at = min(at, len(parts) - 1)
        if self.net.select(Kind.RESCIND, P04, index, (at, at)).code is R.OK:
            self.held.pop((index, at), None)

    @rule(fails=st.booleans())
    def cycle(self, fails: bool) -> None:
        """Net what is affirmed, and settle or fail it."""
        if self.net.run_cycle().code is not R.OK:
            return
        number = self.net.state.last_cycle
        if fails and len(self.net.instructions(number)):
            self.net.settlement(Kind.FAIL, CB, number, 0)
            self.net.settlement(Kind.FAIL, CB, number, 1)
        else:
            self.net.settle(number)

    @invariant()
    def holds(self) -> None:
        """declared - used >= 0 for each batch, and used is what obligations hold."""
        if not hasattr(self, "net"):
            return
        kept, anew = self.net.state.reserve(P04), State.load(self.net.store).reserve(P04)
        assert (kept.numbers, kept.left, kept.left_units) == (
            anew.numbers,
            anew.left,
            anew.left_units,
        )
        drawn = drawn_by(draws(self.net))
        for index, amount in self.amounts.items():
            batch = self.bitcoin.batch(index)
            assert 0 <= batch.used_units <= batch.amount_units == amount
            assert batch.used_units == drawn.get(index, 0)
        assert sum(drawn.values()) == sum(self.held.values())
        rows = report(
            [(P04, Batch.decode(row)) for _, row in self.net.store.scan(Table.BATCHES)],
            draws(self.net),
            self.net.state.registry.bitcoin.tax,
        )
        assert rows[-1].remaining_units == sum(self.amounts.values()) - sum(self.held.values())


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
