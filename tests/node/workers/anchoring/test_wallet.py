"""Keys, coins and transactions of the anchor wallet, against a second library and against the chain itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import bdkpython as bdk
import pytest
from embit.script import Script
from embit.transaction import Transaction, TransactionOutput
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import InvariantViolation
from node.keys import SigningKey
from node.regtest.chain import Chain
from node.workers.anchoring.blocks import ScannedBlock, commitment_script
from node.workers.anchoring.keyring import Branch, KeyPath, Keyring, Kind
from node.workers.anchoring.network import Network
from node.workers.anchoring.transactions import (
    CHANGE_SAT_MIN,
    STRIPPED_BYTES_MAX,
    FundsError,
    _signed,
    build,
    build_child,
    choose,
    fee_for,
)
from node.workers.anchoring.wallet import GAP, Coin, Wallet
from tests.node.workers.anchoring.anchoring_kit import keyring

RING = keyring()
COMMITMENT = bytes(range(32))


@pytest.mark.parametrize(
    ("network", "theirs"),
    [
        (Network.MAIN, bdk.Network.BITCOIN),
        (Network.TESTNET4, bdk.Network.TESTNET4),
        (Network.SIGNET, bdk.Network.SIGNET),
        (Network.REGTEST, bdk.Network.REGTEST),
    ],
)
def test_descriptors_and_addresses_are_those_of_another_wallet(
    network: Network, theirs: bdk.Network
) -> None:
    ring = Keyring(SigningKey.from_seed(bytes(range(32))), network)
    shown = ring.descriptors()
    sort = bdk.NetworkKind.MAIN if network is Network.MAIN else bdk.NetworkKind.TEST
    assert len(shown) == 4
    for kind, (receive, change) in zip((Kind.WPKH, Kind.TR), (shown[:2], shown[2:]), strict=True):
        wallet = bdk.Wallet(
            bdk.Descriptor(receive, sort),
            bdk.Descriptor(change, sort),
            theirs,
            bdk.Persister.new_in_memory(),
        )
        for index in (0, 1, 19, 1_000):
            for branch, keychain in (
                (Branch.RECEIVE, bdk.KeychainKind.EXTERNAL),
                (Branch.CHANGE, bdk.KeychainKind.INTERNAL),
            ):
                expected = str(wallet.peek_address(keychain, index).address)
                assert ring.address(KeyPath(kind, branch, index)) == expected


def test_nothing_private_is_shown() -> None:
    text = repr(RING) + "".join(RING.descriptors())
    assert "prv" not in text


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Chain(tmp_path / "chain") as opened:
        yield opened


def _read(wallet: Wallet, chain: Chain) -> None:
    for height in range(wallet.tip_height + 1, chain.kernel.height + 1):
        block_hash = chain.kernel.hash_at(height)
        wallet.connect(ScannedBlock(height, block_hash, chain.kernel.block(block_hash)))


def test_coins_are_found_and_come_and_go_with_blocks(chain: Chain, tmp_path: Path) -> None:
    wallet = Wallet(RING, 0)
    assert wallet.tip_height == -1
    first = KeyPath(Kind.TR, Branch.RECEIVE, GAP - 1)
    chain.mine(1, RING.script(first))
    _read(wallet, chain)
    assert wallet.balance().immature_sat == 50 * 10**8
    # A key beyond the gap is watched once one at its edge is used.
    chain.mine(1, RING.script(KeyPath(Kind.TR, Branch.RECEIVE, 2 * GAP - 1)))
    chain.mine(100)
    _read(wallet, chain)
    assert wallet.balance().outputs == 2
    (coin, *_) = list(wallet)
    sent = build(wallet, [coin], COMMITMENT, 2_000, split=True)
    chain.send(sent.raw)
    chain.mine(1)
    _read(wallet, chain)
    assert wallet.balance().spendable_sat == 100 * 10**8 - sent.fee_sat
    assert wallet.balance().outputs == 3
    assert wallet.coin(coin.outpoint).spent_by == sent.txid
    wallet.save(tmp_path)
    again = Wallet.load(tmp_path, RING)
    assert again is not None
    assert list(again) == list(wallet)
    assert again.trail == wallet.trail
    wallet.disconnect()
    assert wallet.balance().spendable_sat == 100 * 10**8
    assert not wallet.coin(coin.outpoint).is_spent


def test_a_wallet_file_of_another_key_is_not_read(tmp_path: Path) -> None:
    Wallet(RING, 0).save(tmp_path)
    assert (
        Wallet.load(tmp_path, Keyring(SigningKey.from_seed(b"\x07" * 32), Network.REGTEST)) is None
    )
    assert Wallet.load(tmp_path / "nowhere", RING) is None


def test_every_shape_is_accepted_by_the_engine(chain: Chain) -> None:
    wallet = Wallet(RING, 0)
    for kind in Kind:
        for index in range(2):
            chain.mine(1, RING.script(KeyPath(kind, Branch.RECEIVE, index)))
    chain.mine(100)
    _read(wallet, chain)
    coins = list(wallet)
    for split, chosen in itertools.product((True, False), (coins[:1], coins[2:3], coins)):
        signed = build(wallet, chosen, COMMITMENT, 3_000, split=split)
        entry, _ = chain.mempool.judge(signed.raw)
        assert (entry.fee_sat, entry.vsize) == (signed.fee_sat, signed.vsize)
        assert (
            len(entry.transaction.serialize(params={"include_witness": False}))
            <= STRIPPED_BYTES_MAX
        )
        assert bytes(entry.transaction.vout[0].scriptPubKey) == commitment_script(COMMITMENT)
        chain.send(signed.raw)
        child = build_child(wallet, signed, 12_000)
        together = (signed.fee_sat + child.fee_sat) * 1_000 // (signed.vsize + child.vsize)
        assert 11_900 <= together <= 12_100
        chain.send(child.raw)
        chain.mempool.drop(signed.txid)


def _wallet_of(*amounts: int) -> Wallet:
    """Return a wallet with coins of these amounts, as if blocks had made them."""
    wallet = Wallet(RING, 0)
    wallet.trail = [(200, bytes(32))]
    for number, amount in enumerate(amounts):
        path = KeyPath(Kind.WPKH if number % 2 else Kind.TR, Branch.RECEIVE, number % GAP)
        coin = Coin(bytes([number]) * 32, number, amount, path, 10 + number, is_coinbase=False)
        wallet._coins[coin.outpoint] = coin
    return wallet


@given(
    amounts=st.lists(st.integers(330, 200_000), min_size=1, max_size=7),
    rate=st.integers(1_100, 300_000),
    split=st.booleans(),
)
def test_fee_and_change_add_up_whatever_the_coins(
    amounts: list[int], rate: int, split: bool
) -> None:
    wallet = _wallet_of(*amounts)
    try:
        coins = choose(wallet, frozenset(), fee_for(rate, 250) + 1)
        signed = build(wallet, coins, COMMITMENT, rate, split=split)
    except FundsError:
        return
    transaction = Transaction.parse(signed.raw)
    paid = [int(output.value) for output in transaction.vout]
    assert paid[0] == 0
    assert all(value >= CHANGE_SAT_MIN for value in paid[1:])
    assert sum(coin.amount_sat for coin in coins) == sum(paid) + signed.fee_sat
    assert signed.rate_sat_per_kvb >= rate * 99 // 100
    for output in transaction.vout[1:]:
        assert wallet.path_of(bytes(output.script_pubkey.data)) is not None


def test_reserved_and_missing_coins() -> None:
    wallet = _wallet_of(50_000, 2_000, 30_000)
    reserved = frozenset(coin.outpoint for coin in wallet if coin.amount_sat == 50_000)
    assert [coin.amount_sat for coin in choose(wallet, reserved, 10_000)] == [30_000]
    assert [coin.amount_sat for coin in choose(wallet, reserved, 31_000)] == [30_000, 2_000]
    with pytest.raises(FundsError, match="32000 satoshi to spend in 2 outputs"):
        choose(wallet, reserved, 40_000)


def test_what_is_not_ours_is_neither_spent_nor_paid() -> None:
    wallet = _wallet_of(50_000)
    (coin,) = wallet
    alien = KeyPath(Kind.TR, Branch.RECEIVE, 5_000)
    with pytest.raises(InvariantViolation, match="inputs are coins"):
        build(
            wallet,
            [Coin(coin.txid, 0, 50_000, alien, 1, is_coinbase=False)],
            COMMITMENT,
            2_000,
            split=False,
        )
    for output in (
        TransactionOutput(49_000, Script(b"\x00\x14" + bytes(20))),
        TransactionOutput(1, Script(commitment_script(COMMITMENT))),
    ):
        with pytest.raises(InvariantViolation, match="commitment and ourselves"):
            _signed(wallet, [coin], [output], 50_000 - output.value)
    with pytest.raises(InvariantViolation, match="inputs pay"):
        _signed(wallet, [coin], [TransactionOutput(0, Script(commitment_script(COMMITMENT)))], 1)
