"""A transaction for every reject code of Bitcoin settlement and mined coin; run by test_reject_codes.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clearing.bitcoin.next_header import header_hash
from clearing.bitcoin.transaction import Outpoint, Output, TransactionProof
from clearing.errors import RejectCode as R
from clearing.params import MINED_PARTS_MAX
from clearing.records.settlement import (
    ATTEST_LAYOUT,
    LEG_LAYOUT,
    OFFER_LAYOUT,
    SIGNING_LAYOUT,
    ScriptStatement,
)
from clearing.records.transaction import Transaction
from clearing.rules.legs import NamedCoins
from clearing.rules.registry import Action, ActionKind
from clearing.types import Role
from tests.clearing.bitcoin.bitcoin_kit import Chain, coin, mine, transaction, wpkh
from tests.clearing.bitcoin_net import Bitcoin, Kind, node_key
from tests.clearing.core_kit import Core, reference, selection, signed
from tests.ledger_kit import BTC, CB, MINISTRY, P01, P02, P03, P04, item, participant

Case = Callable[[Core], Transaction]
BITCOIN_CASES: list[tuple[R, Case]] = []


def case(code: R) -> Callable[[Case], Case]:
    """Register a case that must get this code."""

    def register(make: Case) -> Case:
        BITCOIN_CASES.append((code, make))
        return make

    return register


def leg(net: Core) -> Bitcoin:
    """Net cycle 1: P01 and P02 pay, P03 and P04 are paid, by transaction."""
    bitcoin = Bitcoin(net)
    for actor in (P01, P02, P03, P04):
        bitcoin.ok(bitcoin.script(actor))
    net.affirmed(P01, P03, item(P01, P03, 1_000_000))
    net.affirmed(P02, P04, item(P02, P04, 1_000_000))
    bitcoin.ok(net.run_cycle())
    return bitcoin


def offered(net: Core) -> Bitcoin:
    """Go on to the offer."""
    bitcoin = leg(net)
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    bitcoin.ok(bitcoin.offer(1))
    return bitcoin


def naming(net: Core, actor: int, *coins: object, cycle: int = 1) -> Transaction:
    """Name coins."""
    payload = NamedCoins(cycle, wpkh("change"), coins).encode()
    return signed(net, actor, Kind.NAME_COINS, payload)


def offering(bitcoin: Bitcoin, fee_rate: int = 2_000, cycle: int = 1) -> Transaction:
    """Offer the transaction."""
    payload = OFFER_LAYOUT.encode(cycle=cycle, fee_rate=fee_rate)
    return signed(bitcoin.net, CB, Kind.OFFER_LEG, payload)


def showing(bitcoin: Bitcoin, proof: TransactionProof) -> Transaction:
    """Show a transaction."""
    return bitcoin.stated(Kind.SHOW_TRANSACTION, CB, proof.encode())


def reporting(bitcoin: Bitcoin, *headers: bytes) -> Transaction:
    """Report headers."""
    return bitcoin.stated(Kind.REPORT_HEADERS, MINISTRY, b"".join(headers))


@case(R.BAD_SIGNATURE)
def headers_signed_by_the_participants_key(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.chain.blocks(1)
    return signed(net, CB, Kind.REPORT_HEADERS, bitcoin.chain.headers[1])


@case(R.BITCOIN_NOT_SET)
def headers_of_no_chain(net: Core) -> Transaction:
    key = node_key("ministry").public_key().public_bytes_raw()
    net.enact(Action(ActionKind.SET_NODE_KEY, {"participant": MINISTRY, "node_key": key}))
    chain = Chain()
    chain.blocks(1)
    return reporting(Bitcoin(net, actions=()), chain.headers[1])


@case(R.HEADER_UNCONNECTED)
def a_header_without_its_parent(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.chain.blocks(2)
    return reporting(bitcoin, bitcoin.chain.headers[2])


@case(R.HEADER_INVALID)
def a_header_without_work(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    good = mine(bitcoin.chain.headers[0], bytes(32))
    lazy = [good[:76] + nonce.to_bytes(4, "little") for nonce in range(64)]
    return reporting(bitcoin, next(one for one in lazy if header_hash(one)[-1] > 0x7F))


@case(R.HEADERS_KNOWN)
def headers_twice(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.mine()
    return reporting(bitcoin, bitcoin.chain.headers[1])


@case(R.BLOCK_NOT_IN_CHAIN)
def a_transaction_of_an_unknown_block(net: Core) -> Transaction:
    bitcoin = offered(net)
    (proof,) = bitcoin.chain.block(bitcoin.template(1).transaction.raw)
    return showing(bitcoin, proof)


@case(R.BITCOIN_PROOF_INVALID)
def a_transaction_at_another_place(net: Core) -> Transaction:
    bitcoin = offered(net)
    (proof,) = bitcoin.mine(bitcoin.template(1).transaction.raw)
    return showing(bitcoin, replace(proof, position=0))


@case(R.TOO_SHALLOW)
def a_double_spend_one_block_deep(net: Core) -> Transaction:
    bitcoin = offered(net)
    spent = bitcoin.template(1).inputs[0][1].outpoint
    (proof,) = bitcoin.mine(transaction([spent], [Output(5, wpkh("x"))]))
    return showing(bitcoin, proof)


@case(R.NOTHING_WATCHED)
def a_strangers_transaction(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    raw = transaction([Outpoint(b"\x44" * 32, 0)], [Output(5, wpkh("x"))])
    (proof,) = bitcoin.mine(raw)
    return showing(bitcoin, proof)


@case(R.SETTLES_BY_TRANSACTION)
def evidence_by_the_agent(net: Core) -> Transaction:
    leg(net)
    return reference(net, Kind.EVIDENCE, CB, 1, 0)


@case(R.NO_SUCH_LEG)
def coins_for_no_leg(net: Core) -> Transaction:
    Bitcoin(net)
    return naming(net, P01, coin("p01", 5_000_000), cycle=9)


@case(R.NO_SUCH_LEG)
def recast_of_no_leg(net: Core) -> Transaction:
    Bitcoin(net)
    return signed(net, CB, Kind.RECAST_CYCLE, LEG_LAYOUT.encode(cycle=9))


@case(R.LEG_STATE)
def coins_after_the_offer(net: Core) -> Transaction:
    offered(net)
    return naming(net, P01, coin("p01", 5_000_000))


@case(R.LEG_STATE)
def recast_of_a_running_cycle(net: Core) -> Transaction:
    leg(net)
    return signed(net, CB, Kind.RECAST_CYCLE, LEG_LAYOUT.encode(cycle=1))


@case(R.LEG_NOT_READY)
def offer_before_coins(net: Core) -> Transaction:
    return offering(leg(net))


@case(R.NOT_A_PARTY)
def offer_by_another_node(net: Core) -> Transaction:
    leg(net)
    second = replace(
        participant("bank-2", Role.CENTRAL_BANK, 40),
        node_key=node_key("bank-2").public_key().public_bytes_raw(),
    )
    net.enact(Action(ActionKind.ADD_PARTICIPANT, second))
    number = len(net.state.registry.participants) - 1
    payload = OFFER_LAYOUT.encode(cycle=1, fee_rate=2_000)
    net.roles = (*net.roles, ("bank-2", Role.CENTRAL_BANK))
    return signed(net, number, Kind.OFFER_LEG, payload)


@case(R.NOT_A_PAYER)
def coins_of_a_payee(net: Core) -> Transaction:
    leg(net)
    return naming(net, P03, coin("p03", 5_000_000))


@case(R.NOT_A_PAYER)
def refusal_of_a_payee(net: Core) -> Transaction:
    leg(net)
    return signed(net, P03, Kind.REFUSE_LEG, LEG_LAYOUT.encode(cycle=1))


@case(R.COIN_IN_USE)
def anothers_coin(net: Core) -> Transaction:
    bitcoin = leg(net)
    bitcoin.ok(bitcoin.coins(P02, 1, coin("p02", 5_000_000)))
    return naming(net, P01, coin("p02", 5_000_000))


@case(R.TOO_MANY_COINS)
def more_coins_than_fit(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.ok(bitcoin.script(P03))
    names = [f"bank-{at}" for at in range(9)]
    first = len(net.state.registry.participants)
    net.enact(
        *(
            Action(ActionKind.ADD_PARTICIPANT, participant(name, Role.BANK, 60 + at))
            for at, name in enumerate(names)
        )
    )
    net.roles = (*net.roles, *((name, Role.BANK) for name in names))
    payers = [P01, *range(first, first + 9)]
    for payer in payers:
        net.affirmed(payer, P03, item(payer, P03, 1_000_000))
    bitcoin.ok(net.run_cycle())
    return naming(net, P01, *(coin("p01", 5_000_000 + at) for at in range(31)))


@case(R.COINS_SHORT)
def a_coin_without_the_greatest_fee(net: Core) -> Transaction:
    leg(net)
    return naming(net, P01, coin("p01", 1_000_001))


@case(R.FEE_RATE)
def a_fee_below_the_least(net: Core) -> Transaction:
    bitcoin = leg(net)
    for actor in (P01, P02):
        bitcoin.ok(bitcoin.coins(actor, 1))
    return offering(bitcoin, 999)


@case(R.DEADLINE_AHEAD)
def unsigned_before_the_deadline(net: Core) -> Transaction:
    offered(net)
    payload = SIGNING_LAYOUT.encode(cycle=1, signed=0, participant=P01, transaction_hash=bytes(32))
    return signed(net, CB, Kind.REPORT_SIGNING, payload)


@case(R.MALFORMED)
def signed_by_all_and_not_by_one(net: Core) -> Transaction:
    offered(net)
    payload = SIGNING_LAYOUT.encode(cycle=1, signed=1, participant=P01, transaction_hash=bytes(32))
    return signed(net, CB, Kind.REPORT_SIGNING, payload)


@case(R.MALFORMED)
def a_coin_named_twice(net: Core) -> Transaction:
    leg(net)
    one = coin("p01", 5_000_000)
    return naming(net, P01, one, one)


@case(R.NO_ROUTE)
def a_script_where_none_is_needed(net: Core) -> Transaction:
    statement = ScriptStatement(BTC, wpkh("p01"), b"\0")
    return signed(net, P01, Kind.SET_SETTLEMENT_SCRIPT, statement.encode())


@case(R.SCRIPT_PROOF_INVALID)
def a_script_without_its_key(net: Core) -> Transaction:
    Bitcoin(net)
    statement = ScriptStatement(BTC, wpkh("p01"), b"\0")
    return signed(net, P01, Kind.SET_SETTLEMENT_SCRIPT, statement.encode())


@case(R.NOT_A_MINER)
def a_declaration_of_a_bank(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    claim = bitcoin.claim(bitcoin.mined(5_000), P01)
    return signed(net, P01, Kind.DECLARE_COIN, claim.encode())


@case(R.COIN_DECLARED)
def a_coin_declared_twice(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    claim = bitcoin.claim(bitcoin.mined(5_000))
    bitcoin.ok(bitcoin.declare(claim))
    return signed(net, P04, Kind.DECLARE_COIN, claim.encode())


@case(R.COIN_IMMATURE)
def a_coin_99_blocks_deep(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    claim = bitcoin.claim(bitcoin.mined(5_000, deep=99))
    return signed(net, P04, Kind.DECLARE_COIN, claim.encode())


@case(R.PAYOUT_SCRIPT_UNKNOWN)
def a_coin_to_another_script(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    claim = bitcoin.claim(bitcoin.mined(5_000, "other"), name="other")
    return signed(net, P04, Kind.DECLARE_COIN, claim.encode())


def attesting(bitcoin: Bitcoin, batch: int) -> Transaction:
    """Attest a batch."""
    payload = ATTEST_LAYOUT.encode(
        miner=P04, unspent=1, batch=batch, block_hash=header_hash(bitcoin.chain.headers[-1])
    )
    return bitcoin.stated(Kind.ATTEST_COIN, CB, payload)


@case(R.UNKNOWN_BATCH)
def a_batch_that_is_none(net: Core) -> Transaction:
    return attesting(Bitcoin(net), 3)


@case(R.BATCH_STATE)
def a_batch_attested_twice(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    return attesting(bitcoin, bitcoin.counted(5_000))


@case(R.TOO_MANY_DRAWS)
def more_items_paid_with_mined_coin_than_one_instruction_may_move(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.counted(MINED_PARTS_MAX)
    index = net.submit(P04, *[item(P04, P01, 1, flags=1)] * (MINED_PARTS_MAX + 1))
    return selection(net, P01, index)


@case(R.MINED_COIN_SHORT)
def more_than_was_mined(net: Core) -> Transaction:
    bitcoin = Bitcoin(net)
    bitcoin.counted(5_000)
    index = net.submit(P04, item(P04, P01, 5_001, flags=1))
    return selection(net, P01, index)
