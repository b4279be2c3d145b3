"""Unspent outputs of the active chain, followed block by block.

Lives here: the set and how a block changes it, forwards and back. May not live here: whether a block is valid (the
engine has judged it), unconfirmed transactions.

The engine keeps the same set but shows it to nobody, so it is derived again from the blocks at every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitcoin.core import CBlock, CTransaction

from node.regtest.kernel import Spent

OUTPOINT_BYTES = 36


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output: amount in satoshi, script, height of its block, and whether a coinbase made it."""

    amount_sat: int
    script: bytes
    height: int
    is_coinbase: bool


def outpoint(txid: bytes, index: int) -> bytes:
    """Return an output's name: 32-byte txid in internal order, 4-byte index."""
    return txid + index.to_bytes(4, "little")


def spends(transaction: CTransaction) -> list[bytes]:
    """Return the outpoints that a transaction spends, in order."""
    return [outpoint(bytes(one.prevout.hash), one.prevout.n) for one in transaction.vin]


def is_unspendable(script: bytes) -> bool:
    """Return whether no input can ever spend an output of this script, as Core judges it."""
    return script[:1] == b"\x6a" or len(script) > 10_000


class Coins:
    """The unspent outputs; `by_outpoint` is read by everybody and changed here alone."""

    def __init__(self) -> None:
        """Begin before the genesis block, whose output nobody can spend."""
        self.by_outpoint: dict[bytes, Coin] = {}

    def connect(self, block: CBlock, height: int) -> None:
        """Follow `block`, now the active chain's block at `height`."""
        for position, transaction in enumerate(block.vtx):
            if position:
                for spent in spends(transaction):
                    del self.by_outpoint[spent]
            txid = transaction.GetTxid()
            for index, output in enumerate(transaction.vout):
                script = bytes(output.scriptPubKey)
                if not is_unspendable(script):
                    coin = Coin(output.nValue, script, height, position == 0)
                    self.by_outpoint[outpoint(txid, index)] = coin

    def disconnect(self, block: CBlock, undo: Sequence[Sequence[Spent]]) -> None:
        """Take `block`, the tip, back; `undo` is what its transactions but the coinbase spent."""
        for position in range(len(block.vtx) - 1, -1, -1):
            transaction = block.vtx[position]
            txid = transaction.GetTxid()
            for index in range(len(transaction.vout)):
                self.by_outpoint.pop(outpoint(txid, index), None)
            if position:
                for spent, was in zip(spends(transaction), undo[position - 1], strict=True):
                    self.by_outpoint[spent] = Coin(
                        was.amount_sat, was.script, was.height, was.is_coinbase
                    )
