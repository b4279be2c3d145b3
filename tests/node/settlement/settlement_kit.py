"""A ledger that is told of a real chain: what tests of settlement share, over the engine and over independent nodes.

Lives here: acting a cycle out up to its signed transaction. Nothing here knows what the right answer is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from clearing import ledger
from clearing.bitcoin import psbt
from clearing.bitcoin.settlement import Coin, Payee, Payer, make_template
from clearing.bitcoin.transaction import Outpoint
from clearing.records.settlement import OFFER_LAYOUT
from clearing.records.transaction import Transaction
from node import queries_bitcoin, wire_bitcoin
from node.regtest.chain import Chain
from node.settlement.blocks import proof_of
from node.settlement.coordinator import gather
from node.settlement.signer import load_keys, sign
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.chain_watch import ChainWatch
from node.workers.clerk import Clerk
from tests.clearing.bitcoin.bitcoin_kit import key, wpkh
from tests.clearing.bitcoin_net import Bitcoin, Kind
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB, P01, P02, P03, P04, item


class Money(Protocol):
    """A chain that coins come from."""

    rpc: BitcoinRpc

    def coin(self, paid: bytes) -> Coin:
        """Mine a coin to a script."""

    def mature(self) -> None:
        """Mine on until every coin can be spent."""


@dataclass
class Regtest:
    """The engine's chain and an RPC client for it."""

    chain: Chain
    rpc: BitcoinRpc

    def coin(self, paid: bytes) -> Coin:
        """Mine a coin to a script; it can be spent a hundred blocks later."""
        (block_hash,) = self.chain.mine(1, paid)
        height = self.chain.kernel.height_of(block_hash)
        proof = proof_of(self.rpc.block(block_hash), 0)
        made = proof.transaction.outputs[0]
        assert height == self.chain.kernel.height
        return Coin(Outpoint(proof.transaction.txid, 0), made.amount_sat, paid)

    def mature(self) -> None:
        """Mine on until every coin can be spent."""
        self.chain.mine(100)


class Orders:
    """A ledger in memory as a clerk sees it."""

    def __init__(self, net: Core) -> None:
        self._net = net
        self.network_id = net.state.network_id

    @property
    def registry(self) -> Any:
        return self._net.state.registry

    async def submit(self, made: Transaction) -> ledger.Outcome:
        return self._net.one(made)


class Stored:
    """The newest committed rows."""

    def __init__(self, net: Core) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net.store, name)


@dataclass
class Told:
    """A ledger that a watch tells of the engine's chain."""

    net: Core
    bitcoin: Bitcoin
    clerk: Clerk
    watch: ChainWatch

    def round(self) -> int:
        return asyncio.run(self.watch.round())


def told(money: Money) -> Told:
    """Let a ledger follow the engine's chain from block 0."""
    net = Core()
    bitcoin = Bitcoin(net)
    signer = net.node_key(CB)
    clerk = Clerk(_Signer(signer), "central-bank", lambda: Orders(net))
    watch = ChainWatch(money.rpc, clerk, Stored(net), lambda: net.state.registry)
    return Told(net, bitcoin, clerk, watch)


class _Signer:
    """A message signer over a test key."""

    def __init__(self, secret: Any) -> None:
        self._secret = secret
        self.public_key = secret.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return bytes(self._secret.sign(message))


def offered(money: Money) -> tuple[Told, bytes]:
    """Go on to a signed transaction of P01 and P02, paying P03 and P04 a million each."""
    all_told = told(money)
    net, bitcoin = all_told.net, all_told.bitcoin
    coins = {actor: money.coin(wpkh(name)) for actor, name in ((P01, "p01"), (P02, "p02"))}
    money.mature()
    assert all_told.round() >= 1
    assert all_told.round() == 0
    for actor in (P03, P04):
        bitcoin.ok(bitcoin.script(actor))
    net.affirmed(P01, P03, item(P01, P03, 1_000_000))
    net.affirmed(P02, P04, item(P02, P04, 1_000_000))
    bitcoin.ok(net.run_cycle())
    for actor, coin in coins.items():
        bitcoin.ok(bitcoin.coins(actor, 1, coin))
    bitcoin.ok(bitcoin.give(Kind.OFFER_LEG, CB, OFFER_LAYOUT.encode(cycle=1, fee_rate=2_000)))
    row = queries_bitcoin.leg(net.store, 1)
    assert row is not None
    assert wire_bitcoin.leg_of(1, wire_bitcoin.leg_message(row)) == row
    template = row.template()
    assert template.transaction.txid == row.leg.txid == bitcoin.template(1).transaction.txid
    unsigned = psbt.make_psbt(template)
    answers = [
        sign(psbt.read_psbt(unsigned), load_keys(key(name).wif()), 1_000_000, 9_000).b64encode()
        for name in ("p01", "p02")
    ]
    raw = gather(answers, template).raw
    bitcoin.ok(bitcoin.all_signed(1))
    return all_told, raw


def theft_of(payer: int, name: str, row: Any) -> bytes:
    """Return a signed transaction that spends a payer's coin of a leg elsewhere."""
    (stolen,) = [coin for who, coin in row.template().inputs if who == payer]
    theft = make_template(
        [Payer(payer, 10**9, (stolen,), stolen.script)], [Payee(9, 10**9, wpkh("thief"))], 1_000
    )
    unsigned = psbt.read_psbt(psbt.make_psbt(theft))
    answer = sign(unsigned, load_keys(key(name).wif()), 10**9, 9_000)
    return gather([answer.b64encode()], theft).raw
