"""Legs paid on a real chain: Bitcoin Core's consensus engine, real keys, BDK as a second signer, the ledger told by a watch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bdkpython as bdk
import pytest
from btclib.bip32 import BIP32KeyOrigin
from embit import bip32, script

from clearing.bitcoin import psbt
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.settlement import Payee, Payer, make_template
from clearing.bitcoin.transaction import sha256d
from clearing.errors import VerificationError
from clearing.rules.legs import LegCause, LegState
from clearing.rules.mined import BatchState
from clearing.types import CycleState, InstructionState
from node import queries_bitcoin, wire_bitcoin
from node.regtest.calls import Calls
from node.regtest.chain import Chain
from node.regtest.server import RpcServer
from node.settlement.blocks import proof_of
from node.settlement.coordinator import gather, verify_scripts
from node.settlement.signer import load_keys, sign
from node.workers.anchoring.rpc import BitcoinRpc, WrongNetworkError
from node.workers.chain_watch import ChainWatch, missing_headers
from tests.clearing.bitcoin.bitcoin_kit import key, taproot, wpkh
from tests.ledger_kit import P01, P02, P03, P04
from tests.node.settlement.settlement_kit import (
    Regtest,
    Stored,
    offered,
    theft_of,
    told,
)

SEED = b"\x17" * 32


@pytest.fixture
def regtest(tmp_path: Path) -> Iterator[Regtest]:
    with (
        Chain(tmp_path / "chain") as chain,
        RpcServer(Calls(chain), "127.0.0.1", 0, "u:p") as server,
        BitcoinRpc(f"http://u:p@127.0.0.1:{server.port}") as rpc,
    ):
        yield Regtest(chain, rpc)


class BdkSigner:
    """A wallet of another library: BIP 84 account 0 of a root key."""

    def __init__(self) -> None:
        self.root = bip32.HDKey.from_seed(SEED, version=bytes.fromhex("04358394"))
        child = self.root.derive("m/84h/1h/0h/0/0")
        self.public = child.get_public_key()
        self.script = bytes(script.p2wpkh(self.public).data)
        text = f"wpkh({self.root.to_base58()}/84h/1h/0h/0/*)"
        descriptor = bdk.Descriptor(text, bdk.NetworkKind.TEST)
        persister = bdk.Persister.new_in_memory()
        self.wallet = bdk.Wallet.create_single(descriptor, bdk.Network.REGTEST, persister)
        self.wallet.reveal_next_address(bdk.KeychainKind.EXTERNAL)

    def sign(self, text: str) -> str:
        """Return the PSBT with BDK's signatures."""
        own = psbt.read_psbt(text)
        origin = BIP32KeyOrigin(self.root.my_fingerprint, "m/84h/1h/0h/0/0")
        for one in own.inputs:
            if one.witness_utxo.script_pub_key.script == self.script:
                one.hd_key_paths = {self.public.sec(): origin}
        given = bdk.Psbt(own.b64encode())
        options = bdk.SignOptions(
            trust_witness_utxo=True,
            assume_height=None,
            allow_all_sighashes=False,
            try_finalize=False,
            sign_with_tap_internal_key=True,
            allow_grinding=False,
        )
        self.wallet.sign(given, options)
        return given.serialize()


@pytest.mark.parametrize("version", [0, 2])
def test_three_payers_of_two_libraries_pay_three_payees_in_one_block(
    regtest: Regtest, version: int
) -> None:
    other = BdkSigner()
    paid_to = (wpkh("first"), taproot("second"), other.script)
    coins = [regtest.coin(one) for one in paid_to]
    regtest.chain.mine(100)
    payers = [Payer(at, 10**9 + at, (coin,), coin.script) for at, coin in enumerate(coins)]
    nets = [10**9, 10**9, 10**9 + 3]
    payees = [Payee(10 + at, net, taproot(f"payee {at}")) for at, net in enumerate(nets)]
    template = make_template(payers, payees, 3_000)
    unsigned = psbt.make_psbt(template, version)
    answers = [
        sign(psbt.read_psbt(unsigned), load_keys(key(name).wif()), 10**9 + at, 5_000).b64encode()
        for at, name in enumerate(("first", "second"))
    ]
    assert gather(answers, template).missing == (2,)
    answers.append(other.sign(psbt.make_psbt(template)))
    gathered = gather(answers, template)
    assert gathered.missing == ()
    broken = bytearray(gathered.raw)
    broken[-40] ^= 1
    with pytest.raises(VerificationError, match="consensus engine refuses input"):
        verify_scripts(bytes(broken), template)
    assert regtest.rpc.send(gathered.raw) == ""
    regtest.chain.mine(1)
    for at, net in enumerate(nets):
        found = regtest.rpc.output(template.transaction.txid, at)
        assert found is not None
        assert (found.amount_sat, found.script) == (net, taproot(f"payee {at}"))


@pytest.mark.slow
def test_fifty_payers_pay_fifty_payees(regtest: Regtest) -> None:
    names = [f"payer {at}" for at in range(50)]
    scripts = [wpkh(name) if at % 2 else taproot(name) for at, name in enumerate(names)]
    coins = [regtest.coin(one) for one in scripts]
    regtest.chain.mine(100)
    payers = [Payer(at, 10**8, (coin,), coin.script) for at, coin in enumerate(coins)]
    payees = [Payee(100 + at, 10**8, wpkh(f"payee {at}")) for at in range(50)]
    template = make_template(payers, payees, 2_000)
    unsigned = psbt.make_psbt(template)
    answers = [
        sign(psbt.read_psbt(unsigned), load_keys(key(name).wif()), 10**8, 5_000).b64encode()
        for name in names
    ]
    gathered = gather(answers, template)
    assert regtest.rpc.send(gathered.raw) == ""
    regtest.chain.mine(1)
    assert regtest.rpc.output(template.transaction.txid, 49) is not None


def test_a_cycle_settles_when_the_watch_has_told_of_its_transaction(regtest: Regtest) -> None:
    all_told, raw = offered(regtest)
    assert regtest.rpc.send(raw) == ""
    regtest.chain.mine(1)
    all_told.round()
    assert all_told.bitcoin.leg(1).state is LegState.MINED
    regtest.chain.mine(2)
    all_told.round()
    assert all_told.net.cycle(1).state is CycleState.SETTLED
    assert all_told.round() == 0


def test_a_double_spend_at_one_confirmation_is_seen_and_named(regtest: Regtest) -> None:
    all_told, raw = offered(regtest)
    row = queries_bitcoin.leg(all_told.net.store, 1)
    assert row is not None
    before = regtest.chain.kernel.height
    assert regtest.rpc.send(raw) == ""
    regtest.chain.mine(1)
    all_told.round()
    assert all_told.bitcoin.leg(1).state is LegState.MINED
    spent = theft_of(P02, "p02", row)
    regtest.chain.branch(before, 2, transactions=[spent])
    all_told.round()
    states = {one.state for one in all_told.net.instructions(1)}
    assert (all_told.bitcoin.leg(1).state, states) == (
        LegState.BROADCAST,
        {InstructionState.PENDING},
    )
    regtest.chain.mine(1)
    all_told.round()
    leg = all_told.bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.SPENT, P02)
    assert all_told.net.cycle(1).state is CycleState.FAILED
    all_told.bitcoin.ok(all_told.bitcoin.recast(1))
    assert {one.participant for one in all_told.net.instructions(2)} == {P01, P03}


def test_a_declared_coin_counts_when_the_watchs_node_finds_it_unspent(regtest: Regtest) -> None:
    all_told = told(regtest)
    net, bitcoin = all_told.net, all_told.bitcoin
    mined = regtest.coin(wpkh("miner"))
    height = regtest.chain.kernel.height
    regtest.chain.mine(99)
    all_told.round()
    proof = proof_of(regtest.rpc.block(regtest.rpc.block_hash(height)), 0)
    index = bitcoin.ok(bitcoin.declare(bitcoin.claim(proof))).index
    all_told.round()
    batch = bitcoin.batch(index)
    assert (batch.state, batch.amount_units) == (BatchState.COUNTED, mined.amount_sat)
    coin = queries_bitcoin.mined_coin(net.store, P04)
    assert wire_bitcoin.mined_of(wire_bitcoin.mined_message(coin)) == coin
    (month,) = coin.months(net.state.registry.bitcoin.tax)
    assert (month.mined_units, month.taxable_units) == (mined.amount_sat, mined.amount_sat)
    assert queries_bitcoin.mined_coin(net.store, P01).batches == ()


def test_headers_are_reported_from_the_fork_on_and_no_others(regtest: Regtest) -> None:
    all_told = told(regtest)
    regtest.chain.mine(5)
    all_told.round()
    regtest.chain.branch(3, 4)
    found = missing_headers(all_told.net.state, regtest.rpc)
    assert len(found) == 4
    assert sha256d(found[-1]) == regtest.chain.kernel.tip
    all_told.round()
    assert missing_headers(all_told.net.state, regtest.rpc) == []


def test_a_node_of_another_chain_is_named_and_nothing_told(regtest: Regtest) -> None:
    all_told = told(regtest)
    terms = all_told.net.state.registry.bitcoin.chain
    assert terms is not None
    other = replace(terms, network=BitcoinNetwork.SIGNET)
    registry = SimpleNamespace(bitcoin=SimpleNamespace(chain=other))
    watch = ChainWatch(regtest.rpc, all_told.clerk, Stored(all_told.net), lambda: registry)
    size = all_told.net.state.log_size
    with pytest.raises(WrongNetworkError, match="signet"):
        asyncio.run(watch.round())
    assert all_told.net.state.log_size == size


def test_proofs_made_of_blocks_hold_at_every_place(regtest: Regtest) -> None:
    coins = [regtest.coin(wpkh("p01")) for _ in range(3)]
    regtest.chain.mine(100)
    for coin in coins:
        template = make_template(
            [Payer(1, 10**9, (coin,), coin.script)], [Payee(2, 10**9, wpkh("x"))], 1_000
        )
        answer = sign(
            psbt.read_psbt(psbt.make_psbt(template)), load_keys(key("p01").wif()), 10**9, 9_000
        )
        assert regtest.rpc.send(gather([answer.b64encode()], template).raw) == ""
    (block_hash,) = regtest.chain.mine(1)
    block = regtest.rpc.block(block_hash)
    for position in range(4):
        proof_of(block, position).verify(block[:80])
