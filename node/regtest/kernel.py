"""The consensus engine: its directory, its blocks, its judgement.

Lives here: the only use of py-bitcoinkernel's chainstate. May not live here: unspent outputs, unconfirmed transactions, RPC.

The engine writes its databases when it is closed; blocks go to their files at once. So a process that was killed finds
its blocks but an old state: a marker file says that the last process did not close, and then everything is derived
again from the block files.
Invariants: one process a directory (an exclusive lock that ends with the process); hashes are bytes in internal order.
Source: bitcoin/bitcoin src/kernel/bitcoinkernel.h, by py-bitcoinkernel 0.1.0a5.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pbk

from clearing.errors import ClearingError
from node.errors import SetupError
from node.files import make_private_directory, sync_directory

LOCK_NAME = "lock"
MARKER_NAME = "unclean"

_LOG_LINES = 32
_REASON = re.compile(r"(?:AcceptBlock FAILED \(|ConnectBlock [0-9a-f]{64} failed, )(.+)")


class BlockRefusedError(ClearingError):
    """The consensus engine does not accept a block; the text is its reason."""


@dataclass(frozen=True, slots=True)
class Spent:
    """An output that a block spent: amount in satoshi, script, and the height and kind of what made it."""

    amount_sat: int
    script: bytes
    height: int
    is_coinbase: bool


def shown(hash32: bytes) -> str:
    """Return a block or transaction hash as Bitcoin writes it: reversed, in hexadecimal."""
    return hash32[::-1].hex()


class Kernel:
    """A regtest chain in a directory. Not safe from several threads: chain.py holds the lock.

    reindexed: whether the state was derived again from the block files at the start.
    """

    def __init__(self, directory: Path) -> None:
        """Open the chain in `directory`, which is made when missing.

        Raises: SetupError: another process has it open, or the engine cannot read it.
        """
        make_private_directory(directory)
        self._directory = directory
        self._lock = _lock(directory)
        self._said: deque[str] = deque(maxlen=_LOG_LINES)
        pbk.logging_set_options(pbk.LoggingOptions(log_timestamps=False))
        self._log = pbk.LoggingConnection(self._hear)
        self.reindexed = self._marker.exists()
        try:
            self._marker.touch()
            sync_directory(directory)
            self._manager = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self._chain = self._manager.get_active_chain()

    @property
    def _marker(self) -> Path:
        return self._directory / MARKER_NAME

    def _hear(self, line: str) -> None:
        self._said.append(line.strip())

    def _open(self) -> pbk.ChainstateManager:
        self._context = pbk.make_context(pbk.ChainType.REGTEST)
        options = pbk.ChainstateManagerOptions(
            self._context,
            str(self._directory.absolute()),
            str((self._directory / "blocks").absolute()),
        )
        if self.reindexed:
            options.set_wipe_dbs(True, True)
        try:
            manager = pbk.ChainstateManager(options)
            manager.import_blocks([])
        except RuntimeError as error:
            said = self._said[-1] if self._said else str(error)
            raise SetupError(
                f"the chain in {self._directory} does not open ({said}): remove the directory, it holds test coins only"
            ) from error
        return manager

    def close(self) -> None:
        """Write the state and give up the directory; a second call does nothing."""
        if self._lock < 0:
            return
        # The engine writes its state when its last reference goes.
        del self._chain, self._manager, self._context
        self._marker.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    # -- reading

    @property
    def height(self) -> int:
        """Height of the active chain's tip."""
        return int(self._chain.height)

    @property
    def tip(self) -> bytes:
        """Hash of the active chain's tip."""
        return self.hash_at(self.height)

    def hash_at(self, height: int) -> bytes:
        """Return the hash of the active chain's block at `height`. Raises: IndexError: no such height."""
        return bytes(self._chain.block_tree_entries[height].block_hash)

    def _entry(self, block_hash: bytes) -> pbk.BlockTreeEntry:
        return self._manager.block_tree_entries[pbk.BlockHash(block_hash)]

    def knows(self, block_hash: bytes) -> bool:
        """Return whether a block of this hash was accepted, on the active chain or beside it."""
        return pbk.BlockHash(block_hash) in self._manager.block_tree_entries

    def height_of(self, block_hash: bytes) -> int:
        """Return the height of a known block. Raises: KeyError: it is not known."""
        return int(self._entry(block_hash).height)

    def is_active(self, block_hash: bytes) -> bool:
        """Return whether a known block is on the active chain. Raises: KeyError: it is not known."""
        return self._entry(block_hash) in self._chain.block_tree_entries

    def header(self, block_hash: bytes) -> bytes:
        """Return the 80 bytes of a known block's header. Raises: KeyError: it is not known."""
        return bytes(self._entry(block_hash).block_header)

    def block(self, block_hash: bytes) -> bytes:
        """Return the bytes of a known block. Raises: KeyError: it is not known."""
        return bytes(self._manager.blocks[self._entry(block_hash)])

    def spent_by(self, block_hash: bytes) -> list[list[Spent]]:
        """Return what each transaction of a block but the coinbase spent, input by input.

        Raises: KeyError: the block is not known, or is the genesis block.
        """
        undo = self._manager.block_spent_outputs[self._entry(block_hash)]
        return [
            [
                Spent(
                    int(coin.output.amount),
                    bytes(coin.output.script_pubkey),
                    int(coin.confirmation_height),
                    bool(coin.is_coinbase),
                )
                for coin in transaction.coins
            ]
            for transaction in undo.transactions
        ]

    # -- writing

    def submit(self, block: bytes) -> bool:
        """Have the engine judge `block` and adopt it if its branch has the most work; return whether it is new.

        Raises: BlockRefusedError: with the engine's reason, such as bad-cb-height.
        """
        self._said.clear()
        try:
            parsed = pbk.Block(block)
        except RuntimeError as error:
            raise BlockRefusedError("Block decode failed") from error
        known = self.knows(bytes(parsed.block_hash))
        try:
            new = bool(self._manager.process_block(parsed))
        except pbk.ProcessBlockException as error:
            raise BlockRefusedError(self._reason()) from error
        # A block may be stored and then fail against the unspent outputs: it is then part of no chain.
        if not known and any("ConnectBlock" in line for line in self._said):
            raise BlockRefusedError(self._reason())
        return new

    def _reason(self) -> str:
        for line in reversed(self._said):
            found = _REASON.search(line)
            if found:
                return found[1].rstrip(")")
        return self._said[-1] if self._said else "rejected"


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with contextlib.closing(os.fdopen(descriptor)):
            raise SetupError(
                f"{directory} is open in another process: stop that one, or give another --dir"
            ) from error
    return descriptor
