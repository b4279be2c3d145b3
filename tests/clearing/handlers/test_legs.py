"""A cycle's Bitcoin leg: paid whole, or failed with the name of who stood in its way; nothing settles in part."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from clearing import ledger
from clearing.bitcoin.next_header import HEIGHT_MAX
from clearing.bitcoin.settlement import FEE_RATE_MIN
from clearing.bitcoin.transaction import MONEY_SAT_MAX, Outpoint, Output
from clearing.errors import RejectCode as R
from clearing.handlers.leg_rows import script_at
from clearing.memory import MemoryStore
from clearing.params import Parameters
from clearing.records.instruction import REFERENCE_LAYOUT
from clearing.rows import NoRows, Table, key_position
from clearing.rules.bitcoin_terms import SIGNING_MS_MAX
from clearing.rules.legs import NOBODY, LegCause, LegState, why_by_agent
from clearing.rules.registry import Action, ActionKind
from clearing.state import Draft, State
from clearing.types import CycleState, InstructionState, ObligationState, SettlementKind
from tests.clearing.bitcoin.bitcoin_kit import coin, taproot, transaction, wpkh
from tests.clearing.bitcoin_net import DEPTH, FEE_RATE_MAX, SIGNING_MS, Bitcoin, Kind, terms
from tests.clearing.core_kit import Core
from tests.ledger_kit import BTC, CB, ETH, P01, P02, P03, P04, USDT, item

MS = 1_000_000


def ready(*, other_asset: bool = False) -> tuple[Core, Bitcoin]:
    """Net one cycle in which P01 and P02 pay a million each, P03 and P04 are paid; with another asset's nets beside."""
    net = Core()
    bitcoin = Bitcoin(net)
    for actor in (P01, P02, P03, P04):
        bitcoin.ok(bitcoin.script(actor))
    net.affirmed(P01, P03, item(P01, P03, MS))
    net.affirmed(P02, P04, item(P02, P04, MS))
    if other_asset:
        net.affirmed(P03, P01, item(P03, P01, 7, ETH))
    bitcoin.ok(net.run_cycle())
    return net, bitcoin


def offered() -> tuple[Core, Bitcoin]:
    """Go on to the offer."""
    net, bitcoin = ready()
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    bitcoin.ok(bitcoin.offer(1))
    return net, bitcoin


def states(net: Core) -> set[InstructionState]:
    """Return the states of cycle 1's instructions in Bitcoin."""
    return {one.state for one in net.instructions(1) if one.asset == BTC}


def test_a_leg_is_paid_by_one_transaction_as_deep_as_governed() -> None:
    net, bitcoin = offered()
    leg = bitcoin.leg(1)
    assert (leg.state, leg.payers, leg.payees, leg.depth) == (LegState.OFFERED, 2, 2, DEPTH)
    template = bitcoin.template(1)
    assert leg.txid == template.transaction.txid
    paid = {one.participant: one.output for one in template.outputs if not one.is_change}
    assert paid == {P03: Output(MS, wpkh("p03")), P04: Output(MS, wpkh("p04"))}
    bitcoin.ok(bitcoin.all_signed(1))
    (proof,) = bitcoin.mine(template.transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    assert (bitcoin.leg(1).state, states(net)) == (LegState.MINED, {InstructionState.EVIDENCED})
    assert all(one.evidence_hash == leg.txid for one in net.instructions(1))
    bitcoin.mine()
    assert net.cycle(1).state is CycleState.NETTED
    bitcoin.mine()
    assert (bitcoin.leg(1).state, states(net)) == (LegState.CONFIRMED, {InstructionState.CONFIRMED})
    assert net.cycle(1).state is CycleState.SETTLED
    assert (net.position(P01).paid, net.position(P03).received) == (MS, MS)
    assert not list(net.store.scan(Table.COINS))


def test_other_assets_keep_the_agents_way_and_coin_moves_last() -> None:
    net, bitcoin = ready(other_asset=True)
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    assert bitcoin.offer(1).code is R.LEG_NOT_READY
    numbers = {(one.asset, one.kind): at for at, one in enumerate(net.instructions(1))}
    pay_in = numbers[ETH, SettlementKind.PAY_IN]
    for kind in (Kind.EVIDENCE, Kind.CONFIRM):
        bitcoin.ok(net.settlement(kind, CB, 1, pay_in))
    bitcoin.ok(bitcoin.offer(1))
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    bitcoin.chain.blocks(DEPTH)
    bitcoin.report()
    assert net.cycle(1).state is CycleState.FUNDED
    pay_out = numbers[ETH, SettlementKind.PAY_OUT]
    for kind in (Kind.EVIDENCE, Kind.CONFIRM):
        bitcoin.ok(net.settlement(kind, CB, 1, pay_out))
    assert net.cycle(1).state is CycleState.SETTLED


def test_the_agent_cannot_move_what_a_transaction_settles() -> None:
    net, _ = ready()
    assert net.settlement(Kind.EVIDENCE, CB, 1, 0).code is R.SETTLES_BY_TRANSACTION
    assert net.settlement(Kind.FAIL, P01, 1, 0).code is R.SETTLES_BY_TRANSACTION


def test_a_payer_that_refuses_is_named_and_the_cycle_is_recast_without_it() -> None:
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.refuse(P02, 1))
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.REFUSED, P02)
    assert net.cycle(1).state is CycleState.FAILED
    assert states(net) == {InstructionState.SUPERSEDED}
    assert not list(net.store.scan(Table.COINS))
    bitcoin.ok(bitcoin.recast(1))
    assert {one.participant for one in net.instructions(2)} == {P01, P03}
    # The released coin pays in the cycle that was recast.
    bitcoin.ok(bitcoin.coins(P01, 2, coin("p01", 1_000_000_001)))
    bitcoin.ok(bitcoin.offer(2))
    (proof,) = bitcoin.mine(bitcoin.template(2).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    bitcoin.chain.blocks(DEPTH)
    bitcoin.report()
    assert net.cycle(2).state is CycleState.SETTLED
    assert net.states(net_submission(net, P02)) == [ObligationState.AFFIRMED]


def test_a_cycle_is_recast_once_and_before_another_is_netted() -> None:
    """Else one failure would let its culprit be left out of any cycle, for ever."""
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.refuse(P02, 1))
    net.affirmed(P03, P01, item(P03, P01, MS, ETH))
    bitcoin.ok(bitcoin.recast(1))
    net.affirmed(P02, P01, item(P02, P01, MS, ETH))
    assert bitcoin.recast(1).code is R.LEG_STATE
    net, bitcoin = offered()
    # A cycle that was begun before the failure took nothing of what it returned.
    net.affirmed(P03, P01, item(P03, P01, MS, ETH))
    bitcoin.ok(net.run_cycle())
    bitcoin.ok(bitcoin.refuse(P02, 1))
    bitcoin.ok(bitcoin.recast(1))
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.refuse(P02, 1))
    bitcoin.ok(net.run_cycle())
    net.affirmed(P03, P01, item(P03, P01, MS, ETH))
    assert bitcoin.recast(1).code is R.LEG_STATE


def test_a_recast_that_leaves_everything_out_is_refused() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    bitcoin.ok(bitcoin.script(P03))
    net.affirmed(P01, P03, item(P01, P03, MS))
    bitcoin.ok(net.run_cycle())
    bitcoin.ok(bitcoin.refuse(P01, 1))
    assert bitcoin.recast(1).code is R.NOTHING_TO_NET
    assert net.state.last_cycle == 1
    # What is affirmed between others in the meantime is netted by it; the culprit's own stays open.
    net.affirmed(P02, P03, item(P02, P03, MS))
    bitcoin.ok(bitcoin.recast(1))
    assert {one.participant for one in net.instructions(2)} == {P02, P03}


def test_a_payer_out_of_licence_still_pays_what_was_netted_before() -> None:
    net, bitcoin = ready()
    net.suspend(P01)
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    bitcoin.ok(bitcoin.offer(1))
    # Where it is paid later it may not set.
    assert bitcoin.script(P01).code is R.NOT_LICENSED
    bitcoin.ok(bitcoin.refuse(P01, 1))


def net_submission(net: Core, submitter: int) -> int:
    """Return the log index of a participant's submission."""
    for key, row in net.store.scan(Table.SUBMISSIONS):
        if int.from_bytes(row[:4], "little") == submitter:
            return int.from_bytes(key, "big")
    raise AssertionError(submitter)


def test_who_names_no_coins_by_the_deadline_is_named_by_the_ledger() -> None:
    net, bitcoin = ready()
    bitcoin.ok(bitcoin.coins(P01, 1))
    net.block(after_ms=SIGNING_MS - 2_000)
    assert bitcoin.leg(1).state is LegState.WAITING
    net.block(after_ms=1_000)
    assert net.time_ms == bitcoin.leg(1).deadline_ms
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.NO_COINS, P02)
    assert net.cycle(1).state is CycleState.FAILED


def test_an_offer_that_never_comes_is_the_agents_fault() -> None:
    net, bitcoin = ready()
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    net.block(after_ms=SIGNING_MS)
    leg = bitcoin.leg(1)
    assert (leg.cause, leg.culprit) == (LegCause.NOT_OFFERED, CB)


def test_who_has_not_signed_is_named_by_the_agent_after_the_deadline_only() -> None:
    net, bitcoin = offered()
    net.block(after_ms=bitcoin.leg(1).deadline_ms - net.time_ms - 3_000)
    assert bitcoin.unsigned(1, P03).code is R.NOT_A_PAYER
    assert bitcoin.unsigned(1, P02).code is R.DEADLINE_AHEAD
    bitcoin.ok(bitcoin.unsigned(1, P02))
    assert net.time_ms == bitcoin.leg(1).deadline_ms
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.NOT_SIGNED, P02)


def test_a_signed_transaction_outlives_every_deadline() -> None:
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.all_signed(1))
    net.block(after_ms=10 * Parameters().settlement_timeout_ms)
    assert net.cycle(1).state is CycleState.NETTED
    assert bitcoin.refuse(P02, 1).code is R.LEG_STATE
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    bitcoin.chain.blocks(DEPTH)
    bitcoin.report()
    assert net.cycle(1).state is CycleState.SETTLED


def test_an_offer_nobody_completes_fails_with_the_cycles_time_out() -> None:
    net, bitcoin = offered()
    left_ms = net.cycle(1).netted_ms + Parameters().settlement_timeout_ms - net.time_ms
    net.block(after_ms=left_ms - 1)
    assert bitcoin.leg(1).state is LegState.OFFERED
    net.block(after_ms=1)
    assert (bitcoin.leg(1).cause, net.cycle(1).state) == (LegCause.TIMED_OUT, CycleState.FAILED)
    # It is nobody's fault, and there is nobody to net without.
    assert bitcoin.recast(1).code is R.LEG_STATE


@pytest.mark.parametrize("fee_rate", [FEE_RATE_MIN, FEE_RATE_MAX])
def test_the_fee_rate_is_within_what_the_network_relays_and_governance_allows(
    fee_rate: int,
) -> None:
    _, bitcoin = ready()
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    for wrong in (FEE_RATE_MIN - 1, FEE_RATE_MAX + 1):
        assert bitcoin.offer(1, wrong).code is R.FEE_RATE
    bitcoin.ok(bitcoin.offer(1, fee_rate))
    assert bitcoin.leg(1).fee_rate == fee_rate


def test_a_payer_that_double_spends_at_one_confirmation_is_named() -> None:
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.all_signed(1))
    template = bitcoin.template(1)
    before = bitcoin.chain.height
    (proof,) = bitcoin.mine(template.transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    assert bitcoin.leg(1).state is LegState.MINED
    # A longer branch in which P02 spends its coin elsewhere.
    (spent,) = [one.outpoint for who, one in template.inputs if who == P02]
    branch = bitcoin.chain.fork(before)
    (theft,) = branch.block(transaction([spent], [Output(5, wpkh("thief"))]), salt=1)
    branch.blocks(1, salt=1)
    bitcoin.report(branch, before)
    # The reorganisation takes the instructions back, with the headers as evidence.
    assert (bitcoin.leg(1).state, states(net)) == (LegState.BROADCAST, {InstructionState.PENDING})
    assert all(one.evidence_hash == bytes(32) for one in net.instructions(1))
    # Two blocks are not yet three.
    assert bitcoin.show(theft).code is R.TOO_SHALLOW
    assert bitcoin.show(proof).code is R.BLOCK_NOT_IN_CHAIN
    bitcoin.mine(salt=1)
    bitcoin.ok(bitcoin.show(theft))
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.SPENT, P02)
    assert (net.cycle(1).state, states(net)) == (CycleState.FAILED, {InstructionState.SUPERSEDED})
    assert net.position(P01).paid == net.position(P03).received == 0


def test_after_a_reorganisation_the_same_transaction_is_mined_again() -> None:
    net, bitcoin = offered()
    raw = bitcoin.template(1).transaction.raw
    before = bitcoin.chain.height
    (proof,) = bitcoin.mine(raw)
    bitcoin.ok(bitcoin.show(proof))
    branch = bitcoin.chain.fork(before)
    branch.blocks(1, salt=2)
    (again,) = branch.block(raw, salt=2)
    bitcoin.report(branch, before)
    assert states(net) == {InstructionState.PENDING}
    bitcoin.ok(bitcoin.show(again))
    bitcoin.chain.blocks(DEPTH, salt=2)
    bitcoin.report()
    assert net.cycle(1).state is CycleState.SETTLED


def test_an_equal_branch_changes_nothing() -> None:
    net, bitcoin = offered()
    before = bitcoin.chain.height
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    branch = bitcoin.chain.fork(before)
    branch.blocks(1, salt=3)
    kept = bitcoin.chain
    bitcoin.report(branch, before)
    assert states(net) == {InstructionState.EVIDENCED}
    bitcoin.report(kept, kept.height)


def test_without_every_payees_script_the_agents_way_is_taken() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    net.affirmed(P01, P03, item(P01, P03, MS))
    bitcoin.ok(net.run_cycle())
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.BY_AGENT, LegCause.NO_SCRIPT, P03)
    assert (leg.is_over, leg.may_be_mined) == (True, False)
    for tried in (bitcoin.offer(1), bitcoin.coins(P01, 1), bitcoin.refuse(P01, 1)):
        assert tried.code is R.NO_SUCH_LEG
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED
    assert bitcoin.recast(1).code is R.NO_SUCH_LEG
    assert bitcoin.leg(1) == leg


def test_a_leg_of_the_agent_ends_with_its_cycle_as_it_was() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    net.affirmed(P01, P03, item(P01, P03, MS))
    bitcoin.ok(net.run_cycle())
    bitcoin.ok(bitcoin.give(Kind.FAIL, P01, REFERENCE_LAYOUT.encode(cycle=1, number=0)))
    assert net.cycle(1).state is CycleState.FAILED
    assert bitcoin.leg(1).state is LegState.BY_AGENT
    assert bitcoin.recast(1).code is R.NO_SUCH_LEG


def test_a_cycle_without_the_asset_has_no_leg() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    net.affirmed(P01, P03, item(P01, P03, MS, ETH))
    bitcoin.ok(net.run_cycle())
    assert net.store.get(Table.LEGS, (1).to_bytes(4, "big")) is None
    assert bitcoin.offer(1).code is R.NO_SUCH_LEG


@pytest.mark.parametrize(
    ("amount", "cause", "whom"),
    [
        (293, LegCause.DUST, P03),
        (21_000_000 * 10**8 + 1, LegCause.TOO_MUCH, NOBODY),
    ],
)
def test_dust_and_more_than_all_coin_go_through_the_agent(
    amount: int, cause: LegCause, whom: int
) -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    bitcoin.ok(bitcoin.script(P03))
    net.affirmed(P01, P03, item(P01, P03, amount))
    bitcoin.ok(net.run_cycle())
    leg = bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.BY_AGENT, cause, whom)


def test_what_one_transaction_cannot_hold_goes_through_the_agent() -> None:
    payees = [(number, 1_000, wpkh("p03")) for number in range(200)]
    assert why_by_agent([1_000] * 150, payees) is None
    assert why_by_agent([1_000] * 151, payees) == (LegCause.TOO_MANY, NOBODY)
    assert why_by_agent([1_000], [*payees, (201, 1_000, wpkh("p03"))]) == (
        LegCause.TOO_MANY,
        NOBODY,
    )


def test_a_script_counts_from_the_next_cycle_on() -> None:
    _, bitcoin = ready()
    bitcoin.ok(bitcoin.script(P03, wpkh("p03")))
    bitcoin.ok(bitcoin.script(P03, taproot("p03")))
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    bitcoin.ok(bitcoin.offer(1))
    scripts = {one.participant: one.output.script for one in bitcoin.template(1).outputs}
    assert scripts[P03] == wpkh("p03")


def test_however_many_scripts_one_registers_a_cycle_reads_the_newest_alone() -> None:
    net, bitcoin = ready()
    scripts = [wpkh("p03"), taproot("p03"), taproot("p03"), wpkh("p03"), taproot("p03")]
    for script in scripts[1:]:
        bitcoin.ok(bitcoin.script(P03, script))
    draft, read = Draft(net.state, net.state.height + 1, net.time_ms), []

    class Watched(NoRows):
        def scan(
            self, table: Table, prefix: bytes = b"", start: bytes = b""
        ) -> Iterator[tuple[bytes, bytes]]:
            for row in net.store.scan(table, prefix, start):
                read.append(row)
                yield row

    net.state.reader = Watched()
    newest = draft.next_index
    assert script_at(draft, P03, BTC, newest) == scripts[-1]
    assert len(read) == 1
    # At the log index of a registration it does not count yet; each has its time.
    keys = [key for key, _ in net.store.scan(Table.SCRIPTS, key_position(P03, BTC))]
    at = [(1 << 64) - 1 - int.from_bytes(key[6:], "big") for key in keys]
    before = [script_at(draft, P03, BTC, index) for index in at]
    assert before == [*reversed(scripts[:-1]), None]


def test_who_is_asked_for_coins_costs_no_look_at_every_instruction_of_the_cycle() -> None:
    """Everybody may name coins and refuse, as often as it likes, whether it is asked or not."""
    net = Core()
    bitcoin = Bitcoin(net)
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.script(actor))
    parties = (P01, P02, P03, P04)
    for asset in (ETH, USDT):
        for debtor, creditor in itertools.permutations(parties, 2):
            net.affirmed(debtor, creditor, item(debtor, creditor, debtor + 7 * creditor, asset))
    net.affirmed(P01, P02, item(P01, P02, MS))
    bitcoin.ok(net.run_cycle())
    assert len(net.instructions(1)) == 10
    watched = net.watch()
    assert bitcoin.refuse(P03, 1).code is R.NOT_A_PAYER
    assert watched.count(Table.SETTLEMENTS) <= 5
    assert bitcoin.refuse(P02, 1).code is R.NOT_A_PAYER
    assert watched.count(Table.SETTLEMENTS) <= 6
    bitcoin.ok(bitcoin.coins(P01, 1))
    # Its own pay-in, and the leg's payees.
    assert watched.count(Table.SETTLEMENTS) <= 13


def test_a_cycle_that_has_failed_costs_later_blocks_nothing() -> None:
    """A pay-in that is evidenced and never confirmed keeps it open, however long."""
    net, bitcoin = ready(other_asset=True)
    numbers = {(one.asset, one.kind): at for at, one in enumerate(net.instructions(1))}
    bitcoin.ok(net.settlement(Kind.EVIDENCE, CB, 1, numbers[ETH, SettlementKind.PAY_IN]))
    bitcoin.ok(bitcoin.refuse(P01, 1))
    assert list(net.state.cycles) == [1]
    watched = net.watch()
    net.block()
    assert ledger.next_deadline_ms(net.state, net.time_ms) is None
    assert watched.read == []


def test_coins_are_named_once_over_all_legs_and_may_be_named_anew() -> None:
    net, bitcoin = ready()
    first, second = coin("p01", 2 * MS), coin("p01", 3 * MS)
    bitcoin.ok(bitcoin.coins(P01, 1, first))
    assert bitcoin.coins(P02, 1, first).code is R.COIN_IN_USE
    bitcoin.ok(bitcoin.coins(P01, 1, second))
    bitcoin.ok(bitcoin.coins(P02, 1, first))
    net.affirmed(P01, P03, item(P01, P03, MS))
    bitcoin.ok(net.run_cycle())
    assert bitcoin.coins(P01, 2, second).code is R.COIN_IN_USE


def test_no_coins_that_payers_name_keep_the_offer_from_being_a_transaction() -> None:
    """Amounts are a payer's own word: together with what others say they must leave a transaction that all can parse."""
    _, bitcoin = ready()
    most = MONEY_SAT_MAX // 2
    assert bitcoin.coins(P01, 1, coin("p01", most + 1)).code is R.TOO_MANY_COINS
    whole = coin("p01", MONEY_SAT_MAX)
    beside = replace(whole, outpoint=Outpoint(whole.outpoint.txid, 1))
    assert bitcoin.coins(P01, 1, whole, beside).code is R.TOO_MANY_COINS
    for index in (0, 0xFFFFFFFF):
        nothing = replace(coin("p01", 2 * MS), outpoint=Outpoint(bytes(32), index))
        assert bitcoin.coins(P01, 1, nothing).code is R.MALFORMED
    for actor, name in ((P01, "p01"), (P02, "p02")):
        bitcoin.ok(bitcoin.coins(actor, 1, coin(name, most)))
    bitcoin.ok(bitcoin.offer(1))
    template = bitcoin.template(1)
    assert sum(one.output.amount_sat for one in template.outputs) == 2 * most - template.fee_sat


def test_a_second_spend_that_headers_cannot_rule_out_changes_nothing() -> None:
    """The ledger follows headers, not the rules of blocks: two of them may spend one coin, and no replica stops."""
    _, bitcoin = offered()
    bitcoin.ok(bitcoin.all_signed(1))
    template = bitcoin.template(1)
    spent = template.transaction.inputs[0]
    (other,) = bitcoin.mine(transaction([spent], [Output(5, wpkh("x"))]))
    (proof,) = bitcoin.mine(template.transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    bitcoin.mine()
    assert bitcoin.show(other).code is R.LEG_STATE
    assert bitcoin.leg(1).state is LegState.MINED
    bitcoin.mine()
    assert bitcoin.leg(1).state is LegState.CONFIRMED


def test_what_the_chain_shows_is_proved_and_concerns_somebody() -> None:
    _, bitcoin = offered()
    (stranger,) = bitcoin.mine(transaction([Outpoint(b"\x31" * 32, 0)], [Output(5, wpkh("x"))]))
    assert bitcoin.show(stranger).code is R.NOTHING_WATCHED


def test_the_route_may_end_and_running_legs_go_on() -> None:
    net, bitcoin = offered()
    end = {"asset": BTC, "by_transaction": 0, "depth": 0, "signing_ms": 0, "fee_rate_max": 0}
    net.enact(Action(ActionKind.SET_ROUTE, end))
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    assert bitcoin.leg(1).state is LegState.MINED


def test_a_replay_from_the_log_reaches_the_same_bytes() -> None:
    net, bitcoin = offered()
    bitcoin.ok(bitcoin.refuse(P01, 1))
    store = MemoryStore()
    store.commit(net.results[0])
    state = State.load(store)
    for result in net.results[1:]:
        again = ledger.apply(state, ledger.block_of_entries(result.entries))
        assert again.entries == result.entries
        store.commit(again)
        state = State.load(store)
    assert state.registry == net.state.registry
    for table in Table:
        assert list(store.scan(table)) == list(net.store.scan(table))


def test_deadlines_wake_the_ledger() -> None:
    net, bitcoin = ready()
    assert ledger.next_deadline_ms(net.state, net.time_ms) == bitcoin.leg(1).deadline_ms


def test_terms_of_governance_are_checked() -> None:
    net = Core()
    for wrong in ({"depth": 0}, {"signing_ms": 0}, {"signing_ms": SIGNING_MS_MAX + 1}):
        assert net.propose(1, *terms(**wrong)).code is R.ACTION_VALUE
    wrong_units = [
        replace(one, subject=one.subject | {"asset": ETH})
        if one.kind is ActionKind.SET_ROUTE
        else one
        for one in terms()
    ]
    assert net.propose(1, *wrong_units).code is R.ACTION_VALUE
    (chain,) = [one for one in terms() if one.kind is ActionKind.SET_BITCOIN_CHAIN]
    beyond = replace(chain, subject=chain.subject | {"height": HEIGHT_MAX + 1})
    assert net.propose(1, beyond).code is R.ACTION_VALUE
    bitcoin = Bitcoin(net)
    assert net.propose(1, chain).code is R.ACTION_DUPLICATE
    assert bitcoin.chain.height == 0


def test_a_block_that_comes_back_brings_the_transaction_back() -> None:
    net, bitcoin = offered()
    before = bitcoin.chain.height
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    bitcoin.ok(bitcoin.show(proof))
    first, branch = bitcoin.chain, bitcoin.chain.fork(before)
    branch.blocks(2, salt=5)
    bitcoin.report(branch, before)
    assert states(net) == {InstructionState.PENDING}
    held = first.height
    first.blocks(DEPTH)
    bitcoin.report(first, held)
    assert states(net) == {InstructionState.EVIDENCED}
    bitcoin.mine()
    assert net.cycle(1).state is CycleState.SETTLED
