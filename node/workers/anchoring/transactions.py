"""Anchor transactions: small, of their own, and never spending anything but the wallet's own coins.

Lives here: building and signing of an anchor, its replacements, its children. May not live here: when, at what fee
(policy.py, engine.py).

    version 2; one or a few inputs of ours, each replaceable (BIP 125)
    output 0   OP_RETURN and the 32-byte commitment, 0 satoshi
    output 1.. change to ourselves; two where the reserve of outputs is short

Invariants: outputs are the commitment and ourselves; the fee is the one asked for and within its bound; the stripped
transaction has at most STRIPPED_BYTES_MAX bytes, or no timestamp tool would find the commitment in it.
Source: opentimestamps.bitcoin.make_timestamp_from_block (1,000 bytes); BIP 125; Bitcoin Core's dust limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embit.script import Script
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from clearing.errors import ClearingError, invariant
from node.workers.anchoring.blocks import commitment_script, outpoint
from node.workers.anchoring.keyring import Branch, KeyPath
from node.workers.anchoring.wallet import Coin, Wallet

SEQUENCE = 0xFFFFFFFD
STRIPPED_BYTES_MAX = 1_000
CHANGE_SAT_MIN = 1_000
"""Less change than this goes to the fee: spending it would cost more."""

SPLIT_SAT_MIN = 20_000
"""Each half of a change that is split to fill the reserve holds at least this."""

INPUTS_MAX = 5
RATE_SAT_PER_KVB_MIN = 1_100
"""What nodes relay, and a tenth more: a signature may come out a byte longer than the one that was measured."""

RESERVE_OUTPUTS = 4
"""Spendable outputs that the wallet tries to keep, so that one stuck or lost anchor does not hold up the next."""


class FundsError(ClearingError):
    """The wallet has no coins for this; the text says how much is missing."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction of ours: bytes, txid (internal order), fee in satoshi, virtual size in bytes."""

    raw: bytes
    txid: bytes
    fee_sat: int
    vsize: int

    @property
    def rate_sat_per_kvb(self) -> int:
        """Fee rate, rounded down, in satoshi per 1,000 virtual bytes."""
        return self.fee_sat * 1000 // self.vsize


def fee_for(rate_sat_per_kvb: int, vsize: int) -> int:
    """Return the least fee in satoshi that gives the rate."""
    return -(-rate_sat_per_kvb * vsize // 1000)


def _finished(transaction: Transaction, fee_sat: int) -> Signed:
    raw = bytes(transaction.serialize())
    stripped = len(raw) - _witness_bytes(transaction)
    invariant(stripped <= STRIPPED_BYTES_MAX, "an anchor transaction is small")
    return Signed(raw, bytes(transaction.txid())[::-1], fee_sat, (3 * stripped + len(raw) + 3) // 4)


def _witness_bytes(transaction: Transaction) -> int:
    return 2 + sum(len(one.witness.serialize()) for one in transaction.vin)


def choose(wallet: Wallet, reserved: frozenset[bytes], needed_sat: int) -> list[Coin]:
    """Return coins worth at least `needed_sat`, fewest and deepest first, none of `reserved`.

    Raises: FundsError: there are not enough.
    """
    tip = wallet.tip_height
    free = [coin for coin in wallet if coin.is_spendable(tip) and coin.outpoint not in reserved]
    for coin in free:
        if coin.amount_sat >= needed_sat:
            return [coin]
    free.sort(key=lambda coin: -coin.amount_sat)
    chosen = free[:INPUTS_MAX]
    if sum(coin.amount_sat for coin in chosen) < needed_sat:
        raise FundsError(
            f"the anchor wallet has {sum(coin.amount_sat for coin in free)} satoshi to spend in {len(free)} outputs and "
            f"needs {needed_sat}: fund its address"
        )
    while len(chosen) > 1 and sum(coin.amount_sat for coin in chosen[:-1]) >= needed_sat:
        chosen.pop()
    return chosen


def build(
    wallet: Wallet, coins: Sequence[Coin], commitment: bytes, rate_sat_per_kvb: int, *, split: bool
) -> Signed:
    """Return a signed anchor of `commitment` that spends exactly `coins` at the fee rate.

    split: make two change outputs where that leaves both useful.
    Raises: FundsError: the coins do not pay the fee.
    """
    total = sum(coin.amount_sat for coin in coins)
    for count, least_sat in ((2, SPLIT_SAT_MIN), (1, CHANGE_SAT_MIN), (0, 0)):
        if count == 2 and not split:
            continue
        paths = [wallet.fresh(coins[0].path.kind, Branch.CHANGE, n) for n in range(count)]
        sized = _with_change(wallet, coins, commitment, paths, 0)
        fee = fee_for(rate_sat_per_kvb, sized.vsize)
        if total - fee >= count * least_sat:
            return _with_change(wallet, coins, commitment, paths, fee)
    raise FundsError(
        f"coins of {total} satoshi do not pay an anchor at {rate_sat_per_kvb} satoshi per 1,000 bytes: fund the wallet"
    )


def _with_change(
    wallet: Wallet, coins: Sequence[Coin], commitment: bytes, paths: Sequence[KeyPath], fee_sat: int
) -> Signed:
    """Return the anchor that gives what is left after the fee to `paths` in equal parts; without paths all is fee."""
    left = sum(coin.amount_sat for coin in coins) - fee_sat
    outputs = [TransactionOutput(0, Script(commitment_script(commitment)))]
    for number, path in enumerate(paths):
        share = left // len(paths) + (left % len(paths) if number == 0 else 0)
        outputs.append(TransactionOutput(share, Script(wallet.keyring.script(path))))
    return _signed(wallet, coins, outputs, fee_sat if paths else fee_sat + left)


def _signed(
    wallet: Wallet, coins: Sequence[Coin], outputs: Sequence[TransactionOutput], fee_sat: int
) -> Signed:
    """Sign, once it is certain that nothing but our own coins is spent and nobody but ourselves is paid."""
    for coin in coins:
        invariant(
            wallet.path_of(wallet.keyring.script(coin.path)) == coin.path,
            "inputs are coins of the wallet",
        )
    paid = sum(int(output.value) for output in outputs)
    invariant(
        sum(coin.amount_sat for coin in coins) == paid + fee_sat, "inputs pay outputs and fee"
    )
    for output in outputs:
        script = bytes(output.script_pubkey.data)
        is_commitment = script[:2] == b"\x6a\x20" and int(output.value) == 0
        invariant(
            is_commitment or wallet.path_of(script) is not None,
            "outputs are the commitment and ourselves",
        )
    inputs = [TransactionInput(coin.txid[::-1], coin.index, sequence=SEQUENCE) for coin in coins]
    transaction = Transaction(version=2, vin=inputs, vout=list(outputs), locktime=0)
    wallet.keyring.sign(transaction, [(coin.path, coin.amount_sat) for coin in coins])
    return _finished(transaction, fee_sat)


def build_child(wallet: Wallet, parent: Signed, rate_sat_per_kvb: int) -> Signed:
    """Return a signed transaction that spends the parent's largest change so that both together reach the fee rate.

    Raises: FundsError: the parent has no change that could pay.
    """
    transaction = Transaction.parse(parent.raw)
    ours = [
        (int(output.value), index, path)
        for index, output in enumerate(transaction.vout)
        if (path := wallet.path_of(bytes(output.script_pubkey.data))) is not None
    ]
    if not ours:
        raise FundsError("the anchor has no change output that a child could spend")
    amount, index, path = max(ours)
    coin = Coin(parent.txid, index, amount, path, wallet.tip_height + 1, is_coinbase=False)
    script = Script(wallet.keyring.script(wallet.fresh(path.kind, Branch.CHANGE, 2)))
    sized = _signed(wallet, [coin], [TransactionOutput(amount, script)], 0)
    together = fee_for(rate_sat_per_kvb, parent.vsize + sized.vsize)
    fee = max(together - parent.fee_sat, fee_for(RATE_SAT_PER_KVB_MIN, sized.vsize))
    if amount - fee < CHANGE_SAT_MIN:
        raise FundsError(
            f"the anchor's change of {amount} satoshi does not pay a child at this fee rate"
        )
    return _signed(wallet, [coin], [TransactionOutput(amount - fee, script)], fee)


def inputs_of(raw: bytes) -> list[bytes]:
    """Return the outpoints that a transaction of ours spends, in order."""
    return [outpoint(bytes(one.txid)[::-1], int(one.vout)) for one in Transaction.parse(raw).vin]
