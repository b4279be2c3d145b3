"""The anchor wallet: which coins are ours, found by reading every block from a birthday on.

Lives here: coins, their coming and going with blocks and reorganisations, the file that remembers them. May not live
here: keys (keyring.py), talking to the node (scan.py), building transactions (transactions.py).

The node's own wallet is not used: any node serves, and nothing but this file and the sealed key is ours to lose. The file
is a memory of what the chain says; without it, or where it was damaged, everything is read again from the birthday.
Invariants: a coin is ours only by its script; what was spent is kept as long as a reorganisation may bring it back.
Source: BIP 44 (gap limit).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bitcoin.core import CTransaction

from clearing.errors import DecodeError
from node.workers.anchoring.blocks import ScannedBlock, outpoint, spent_outpoints
from node.workers.anchoring.files import read_guarded, write_guarded
from node.workers.anchoring.keyring import Branch, KeyPath, Keyring, Kind

WALLET_NAME = "wallet"
GAP = 20
"""Unused keys watched behind the last used one of each branch."""

COINBASE_MATURITY = 100
TRAIL_BLOCKS = 300
"""How deep a reorganisation may be without reading everything again."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An output of ours: outpoint, amount in satoshi, key, block height; and what spent it, at which height."""

    txid: bytes
    index: int
    amount_sat: int
    path: KeyPath
    height: int
    is_coinbase: bool
    spent_by: bytes = b""
    spent_height: int = -1

    @property
    def outpoint(self) -> bytes:
        """The output's name, 36 bytes."""
        return outpoint(self.txid, self.index)

    @property
    def is_spent(self) -> bool:
        """Whether a block's transaction has spent it."""
        return self.spent_height >= 0

    def confirmations(self, tip_height: int) -> int:
        """Return the depth of its block, 1 at the tip."""
        return tip_height - self.height + 1

    def is_spendable(self, tip_height: int) -> bool:
        """Return whether a transaction in the next block may spend it."""
        return not self.is_spent and (
            not self.is_coinbase or self.confirmations(tip_height) >= COINBASE_MATURITY
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """Satoshi: confirmed and spendable, reward coins that are still locked; and how many outputs are spendable."""

    spendable_sat: int
    immature_sat: int
    outputs: int


class Wallet:
    """Coins and position in the chain; `birthday` is the first block read. Not safe from several threads.

    trail: (height, hash) of the last blocks read, the newest last.
    """

    def __init__(self, keyring: Keyring, birthday: int) -> None:
        """Begin with no coins and nothing read."""
        self.keyring = keyring
        self.birthday = birthday
        self.trail: list[tuple[int, bytes]] = []
        self._coins: dict[bytes, Coin] = {}
        self._used = {(kind, branch): -1 for kind in Kind for branch in Branch}
        self._paths: dict[bytes, KeyPath] = {}
        self._watch()

    def _watch(self) -> None:
        """Have GAP unused keys of each branch watched."""
        watched = set(self._paths.values())
        for (kind, branch), used in self._used.items():
            for index in range(used + 1 + GAP):
                path = KeyPath(kind, branch, index)
                if path not in watched:
                    self._paths[self.keyring.script(path)] = path

    # -- reading

    @property
    def tip_height(self) -> int:
        """Height of the last block read, birthday - 1 before the first."""
        return self.trail[-1][0] if self.trail else self.birthday - 1

    def __iter__(self) -> Iterator[Coin]:
        """Go through the coins that are not spent, the oldest first."""
        unspent = (coin for coin in self._coins.values() if not coin.is_spent)
        return iter(sorted(unspent, key=lambda coin: (coin.height, coin.outpoint)))

    def coin(self, name: bytes) -> Coin | None:
        """Return the coin of an outpoint, spent or not; None where it is not ours or was never seen."""
        return self._coins.get(name)

    def path_of(self, script: bytes) -> KeyPath | None:
        """Return the key whose script this is, or None: not ours."""
        return self._paths.get(script)

    def balance(self) -> Balance:
        """Return what there is, counting blocks only."""
        tip = self.tip_height
        spendable = [coin.amount_sat for coin in self if coin.is_spendable(tip)]
        immature = sum(coin.amount_sat for coin in self if not coin.is_spendable(tip))
        return Balance(sum(spendable), immature, len(spendable))

    def fresh(self, kind: Kind, branch: Branch, number: int = 0) -> KeyPath:
        """Return the `number`-th key that no output has used yet, 0 the first."""
        return KeyPath(kind, branch, self._used[kind, branch] + 1 + number % GAP)

    # -- following the chain

    def connect(self, block: ScannedBlock) -> None:
        """Follow the next block of the best chain."""
        if self._concerns(block):
            for position, transaction in enumerate(block.parsed().vtx):
                self._take(transaction, block.height, is_coinbase=position == 0)
        self.trail.append((block.height, block.block_hash))
        del self.trail[:-TRAIL_BLOCKS]

    def _concerns(self, block: ScannedBlock) -> bool:
        return any(block.holds(script) for script in self._paths) or any(
            block.holds(coin.outpoint) for coin in self._coins.values() if not coin.is_spent
        )

    def _take(self, transaction: CTransaction, height: int, *, is_coinbase: bool) -> None:
        txid = bytes(transaction.GetTxid())
        for name in spent_outpoints(transaction):
            coin = self._coins.get(name)
            if coin is not None and not coin.is_spent:
                self._coins[name] = replace(coin, spent_by=txid, spent_height=height)
        for index, output in enumerate(transaction.vout):
            path = self._paths.get(bytes(output.scriptPubKey))
            if path is not None:
                coin = Coin(txid, index, int(output.nValue), path, height, is_coinbase)
                self._coins[coin.outpoint] = coin
                if path.index > self._used[path.kind, path.branch]:
                    self._used[path.kind, path.branch] = path.index
                    self._watch()

    def disconnect(self) -> None:
        """Take the newest block back: what it made is gone, what it spent is ours again."""
        height, _ = self.trail.pop()
        self._coins = {
            name: replace(coin, spent_by=b"", spent_height=-1)
            if coin.spent_height == height
            else coin
            for name, coin in self._coins.items()
            if coin.height != height
        }

    def restart(self) -> None:
        """Forget all coins, so that everything is read again from the birthday; which keys were used stays."""
        self.trail = []
        self._coins = {}

    # -- the file

    def save(self, directory: Path) -> None:
        """Replace the wallet's file; on disk when this returns. Coins spent deeper than the trail are left out.

        Raises: SetupError: it cannot be written.
        """
        least = self.trail[0][0] if self.trail else 0
        kept = [
            coin for coin in self._coins.values() if not coin.is_spent or coin.spent_height >= least
        ]
        self._coins = {coin.outpoint: coin for coin in kept}
        document = {
            "fingerprint": repr(self.keyring),
            "birthday": self.birthday,
            "used": [[kind, branch, used] for (kind, branch), used in self._used.items()],
            "trail": [[height, block_hash.hex()] for height, block_hash in self.trail],
            "coins": [_encoded(coin) for coin in kept],
        }
        write_guarded(directory / WALLET_NAME, document)

    @classmethod
    def load(cls, directory: Path, keyring: Keyring) -> Wallet | None:
        """Return the wallet of the file in `directory`, or None where there is none, or of another key.

        Raises: DecodeError: it was altered. SetupError: it cannot be read.
        """
        document = read_guarded(directory / WALLET_NAME)
        if document is None or document.get("fingerprint") != repr(keyring):
            return None
        try:
            wallet = cls(keyring, int(document["birthday"]))
            for kind, branch, used in document["used"]:
                wallet._used[Kind(kind), Branch(branch)] = int(used)
            wallet._watch()
            wallet.trail = [
                (int(height), bytes.fromhex(text)) for height, text in document["trail"]
            ]
            coins: Iterable[Coin] = map(_decoded, document["coins"])
            wallet._coins = {coin.outpoint: coin for coin in coins}
        except (KeyError, ValueError, TypeError) as error:
            raise DecodeError(f"the wallet's file is of another form: {error}") from error
        return wallet


def _encoded(coin: Coin) -> dict[str, Any]:
    fields = asdict(coin)
    path = coin.path
    return fields | {
        "txid": coin.txid.hex(),
        "spent_by": coin.spent_by.hex(),
        "path": [path.kind, path.branch, path.index],
    }


def _decoded(fields: dict[str, Any]) -> Coin:
    kind, branch, index = fields["path"]
    return Coin(
        **fields
        | {
            "txid": bytes.fromhex(fields["txid"]),
            "spent_by": bytes.fromhex(fields["spent_by"]),
            "path": KeyPath(Kind(kind), Branch(branch), int(index)),
        }
    )
