"""Unconfirmed transactions: taken in by Core's policy in small, their scripts checked by the consensus engine.

Lives here: what is taken in, what replaces what, what a block or a reorganisation leaves. May not live here: blocks, RPC.

What is judged as Bitcoin Core does: missing, spent and immature inputs, amounts, scripts, dust, least fee, replacement
(BIP 125 rules 3 and 4, every transaction replaceable), 25 ancestors. What is simpler: no packages, no eviction by size
(a full pool refuses), relative time locks refused.
Source: Bitcoin Core doc/policy/mempool-replacements.md, mempool-limits.md; BIP 125.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pbk
from bitcoin.core import CTransaction
from bitcoin.core.serialize import SerializationError
from pbk.script import PrecomputedTransactionData

from clearing.errors import ClearingError
from node.regtest.coins import Coin, Coins, is_unspendable, outpoint, spends

COINBASE_MATURITY = 100
ANCESTORS_MAX = 25
POOL_BYTES_MAX = 32 << 20
WEIGHT_MAX = 400_000
DUST_SAT = 294
MONEY_SAT_MAX = 21_000_000 * 100_000_000
MIN_FEE_SAT_PER_KVB = 1_000
INCREMENTAL_FEE_SAT_PER_KVB = 1_000
_FINAL_SEQUENCE = 0xFFFFFFFF
_NO_RELATIVE_LOCK = 1 << 31


class TransactionRefusedError(ClearingError):
    """A transaction is not taken in; `code` is the number that Bitcoin Core's sendrawtransaction gives."""

    def __init__(self, code: int, reason: str) -> None:
        """Refuse with Core's words."""
        super().__init__(reason)
        self.code = code


VERIFY_ERROR = -25
VERIFY_REJECTED = -26
ALREADY_IN_CHAIN = -27


@dataclass(frozen=True, slots=True)
class Entry:
    """An unconfirmed transaction: its bytes, fee in satoshi, virtual size, and when it came, in seconds."""

    raw: bytes
    transaction: CTransaction
    txid: bytes
    spent: tuple[bytes, ...]
    fee_sat: int
    vsize: int
    time_s: int


def decode(raw: bytes) -> CTransaction:
    """Parse a transaction strictly.

    Raises: TransactionRefusedError: not one, or bytes are left over.
    """
    try:
        transaction = CTransaction.deserialize(raw)
    except (SerializationError, ValueError, OverflowError, MemoryError) as error:
        raise TransactionRefusedError(-22, "TX decode failed") from error
    if transaction.serialize() != raw or not transaction.vin or not transaction.vout:
        raise TransactionRefusedError(-22, "TX decode failed")
    return transaction


def vsize_of(transaction: CTransaction) -> int:
    """Return the virtual size in bytes."""
    stripped = len(transaction.serialize(params={"include_witness": False}))
    return (3 * stripped + len(transaction.serialize()) + 3) // 4


class Mempool:
    """The unconfirmed transactions, parents before children; `min_fee_sat_per_kvb` may be set by tests."""

    def __init__(self, coins: Coins, height: Callable[[], int]) -> None:
        """Begin empty over the unspent outputs `coins`; `height` gives the tip's."""
        self._coins = coins
        self._height = height
        self._entries: dict[bytes, Entry] = {}
        self._spender: dict[bytes, bytes] = {}
        self._bytes = 0
        self.min_fee_sat_per_kvb = MIN_FEE_SAT_PER_KVB

    def __contains__(self, txid: bytes) -> bool:
        """Return whether the transaction is here."""
        return txid in self._entries

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Go through them, parents before children."""
        return iter(list(self._entries.values()))

    def entry(self, txid: bytes) -> Entry:
        """Return one. Raises: KeyError: it is not here."""
        return self._entries[txid]

    def spender(self, spent: bytes) -> bytes | None:
        """Return the txid that spends an outpoint, or None."""
        return self._spender.get(spent)

    @property
    def size_bytes(self) -> int:
        """Bytes of all transactions."""
        return self._bytes

    def coin(self, name: bytes) -> Coin | None:
        """Return the output called `name`, confirmed or made here; None where there is none."""
        found = self._coins.by_outpoint.get(name)
        if found is not None:
            return found
        made = self._entries.get(name[:32])
        index = int.from_bytes(name[32:], "little")
        if made is None or index >= len(made.transaction.vout):
            return None
        output = made.transaction.vout[index]
        return Coin(output.nValue, bytes(output.scriptPubKey), self._height() + 1, False)

    def ancestors(self, entry: Entry) -> set[bytes]:
        """Return the txids of all unconfirmed ancestors."""
        return self._closure(
            entry.spent,
            lambda one: one.spent,
            lambda name: name[:32] if name[:32] in self._entries else None,
        )

    def descendants(self, txid: bytes) -> set[bytes]:
        """Return the txids of all unconfirmed descendants."""
        return self._closure(self._outputs(self._entries[txid]), self._outputs, self._spender.get)

    @staticmethod
    def _outputs(entry: Entry) -> tuple[bytes, ...]:
        return tuple(outpoint(entry.txid, n) for n in range(len(entry.transaction.vout)))

    def _closure(
        self,
        names: Iterable[bytes],
        onward: Callable[[Entry], Iterable[bytes]],
        owner: Callable[[bytes], bytes | None],
    ) -> set[bytes]:
        found: set[bytes] = set()
        left = list(names)
        while left:
            txid = owner(left.pop())
            if txid is not None and txid not in found:
                found.add(txid)
                left.extend(onward(self._entries[txid]))
        return found

    # -- taking in

    def judge(self, raw: bytes) -> tuple[Entry, set[bytes]]:
        """Return what `raw` would be here, and the txids that it would replace.

        Raises: TransactionRefusedError: with Core's code and words.
        """
        transaction = decode(raw)
        txid = transaction.GetTxid()
        _check_alone(transaction, self._height() + 1)
        if txid in self._entries:
            raise TransactionRefusedError(ALREADY_IN_CHAIN, "txn-already-in-mempool")
        names = spends(transaction)
        self._check_known(transaction, txid, names)
        used = [coin for coin in map(self.coin, names) if coin is not None]
        fee = self._check_amounts(transaction, used)
        entry = Entry(
            raw, transaction, txid, tuple(names), fee, vsize_of(transaction), int(time.time())
        )
        replaced = self._check_policy(entry)
        check_scripts(raw, used)
        return entry, replaced

    def _check_known(self, transaction: CTransaction, txid: bytes, names: list[bytes]) -> None:
        made = (outpoint(txid, n) for n in range(len(transaction.vout)))
        if any(name in self._coins.by_outpoint for name in made):
            raise TransactionRefusedError(
                ALREADY_IN_CHAIN, "Transaction outputs already in utxo set"
            )
        if any(self.coin(name) is None for name in names):
            raise TransactionRefusedError(VERIFY_ERROR, "bad-txns-inputs-missingorspent")

    def _check_amounts(self, transaction: CTransaction, used: list[Coin]) -> int:
        height = self._height() + 1
        if any(coin.is_coinbase and height - coin.height < COINBASE_MATURITY for coin in used):
            raise TransactionRefusedError(VERIFY_REJECTED, "bad-txns-premature-spend-of-coinbase")
        paid = sum(int(output.nValue) for output in transaction.vout)
        fee = sum(coin.amount_sat for coin in used) - paid
        if fee < 0:
            raise TransactionRefusedError(VERIFY_REJECTED, "bad-txns-in-belowout")
        return fee

    def _check_policy(self, entry: Entry) -> set[bytes]:
        """Return what the transaction replaces.

        Raises: TransactionRefusedError: it pays too little, or the pool is full.
        """
        if entry.fee_sat * 1000 < self.min_fee_sat_per_kvb * entry.vsize:
            raise TransactionRefusedError(VERIFY_REJECTED, "min relay fee not met")
        direct = {self._spender[name] for name in entry.spent if name in self._spender}
        replaced = set(direct)
        for txid in direct:
            replaced |= self.descendants(txid)
        if any(name[:32] in replaced for name in entry.spent):
            raise TransactionRefusedError(VERIFY_REJECTED, "bad-txns-spends-conflicting-tx")
        for txid in direct:
            old = self._entries[txid]
            if entry.fee_sat * old.vsize <= old.fee_sat * entry.vsize:
                raise TransactionRefusedError(
                    VERIFY_REJECTED,
                    "insufficient fee, rejecting replacement: not a higher fee rate",
                )
        least = sum(self._entries[txid].fee_sat for txid in replaced)
        if replaced and (entry.fee_sat - least) * 1000 < INCREMENTAL_FEE_SAT_PER_KVB * entry.vsize:
            raise TransactionRefusedError(
                VERIFY_REJECTED,
                "insufficient fee, rejecting replacement: not enough additional fees",
            )
        if len(self.ancestors(entry)) >= ANCESTORS_MAX:
            raise TransactionRefusedError(VERIFY_REJECTED, "too-long-mempool-chain")
        if self._bytes + len(entry.raw) > POOL_BYTES_MAX:
            raise TransactionRefusedError(VERIFY_REJECTED, "mempool full")
        return replaced

    def add(self, raw: bytes) -> Entry:
        """Take a transaction in, in the place of those that it replaces.

        Raises: TransactionRefusedError: nothing has changed.
        """
        entry, replaced = self.judge(raw)
        for txid in replaced:
            self._remove(txid)
        self._entries[entry.txid] = entry
        self._bytes += len(raw)
        for name in entry.spent:
            self._spender[name] = entry.txid
        return entry

    # -- giving up

    def _remove(self, txid: bytes) -> None:
        entry = self._entries.pop(txid)
        self._bytes -= len(entry.raw)
        for name in entry.spent:
            self._spender.pop(name, None)

    def drop(self, txid: bytes) -> None:
        """Forget a transaction and its descendants, as a node does with too many. Raises: KeyError: it is not here."""
        for gone in self.descendants(txid) | {txid}:
            self._remove(gone)

    def follow(self, undone: Iterable[CTransaction]) -> None:
        """Keep what is still valid now that the active chain has changed.

        `undone` are the transactions of blocks that were taken back, those of lower blocks first: they come back too.
        """
        before = [one.serialize() for one in undone]
        before += [entry.raw for entry in self._entries.values()]
        self._entries.clear()
        self._spender.clear()
        self._bytes = 0
        for raw in before:
            try:
                self.add(raw)
            except TransactionRefusedError:
                continue


def _check_alone(transaction: CTransaction, height: int) -> None:
    """Check what shows without inputs; `height` is that of the block it would be in.

    Raises: TransactionRefusedError: it is malformed, locked, or makes dust.
    """
    if transaction.is_coinbase():
        raise TransactionRefusedError(VERIFY_REJECTED, "coinbase")
    names = spends(transaction)
    if len(set(names)) != len(names):
        raise TransactionRefusedError(VERIFY_REJECTED, "bad-txns-inputs-duplicate")
    amounts = [output.nValue for output in transaction.vout]
    if any(not 0 <= amount <= MONEY_SAT_MAX for amount in amounts) or sum(amounts) > MONEY_SAT_MAX:
        raise TransactionRefusedError(VERIFY_REJECTED, "bad-txns-vout-toolarge")
    if 4 * vsize_of(transaction) > WEIGHT_MAX:
        raise TransactionRefusedError(VERIFY_REJECTED, "tx-size")
    locked = transaction.nLockTime >= height and any(
        one.nSequence != _FINAL_SEQUENCE for one in transaction.vin
    )
    if transaction.nLockTime and locked:
        raise TransactionRefusedError(VERIFY_REJECTED, "non-final")
    if transaction.nVersion >= 2 and any(
        not one.nSequence & _NO_RELATIVE_LOCK and one.nSequence & 0xFFFF for one in transaction.vin
    ):
        raise TransactionRefusedError(VERIFY_REJECTED, "non-BIP68-final")
    for output in transaction.vout:
        if not is_unspendable(bytes(output.scriptPubKey)) and output.nValue < DUST_SAT:
            raise TransactionRefusedError(VERIFY_REJECTED, "dust")


def check_scripts(raw: bytes, used: list[Coin]) -> None:
    """Have the consensus engine check every input's script; `used` are the spent outputs in order.

    Raises: TransactionRefusedError: one does not hold.
    """
    transaction = pbk.Transaction(raw)
    outputs = [pbk.TransactionOutput(pbk.ScriptPubkey(one.script), one.amount_sat) for one in used]
    shared = PrecomputedTransactionData(transaction, outputs)
    for index, (output, coin) in enumerate(zip(outputs, used, strict=True)):
        script = output.script_pubkey
        if not script.verify(
            coin.amount_sat, transaction, shared, index, pbk.ScriptVerificationFlags.ALL
        ):
            raise TransactionRefusedError(
                VERIFY_REJECTED, f"mandatory-script-verify-flag-failed, input {index}"
            )
