"""Everything that is written: blocks, signed heads, checkpoints, cosignatures.

Lives here: Store. May not live here: what LMDB wants (environment.py), reads beyond the two core
contracts (view.py), checks (startup.py, fsck.py).

Invariants: one block, one transaction: leaves, nodes, bodies, rows, seal index and tip are there
together or not at all; a ledger record is never replaced: each write of one is checked to have been
an insertion; what is refused changed nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import lmdb

from clearing.errors import DecodeError
from clearing.ledger import BlockResult
from clearing.log.merkle import Node
from clearing.records.leaves import SealLeaf
from clearing.rows import Table
from node.store import heads, tables
from node.store.environment import Environment, StoreSettings, StoreUsage
from node.store.errors import StoreDamagedError
from node.store.tables import Database, Head, ReplicaKind, Tip, u64
from node.store.view import Record, View
from node.store.writer import Block, Writer, check_follows, check_head

_SCAN_PAGE_ROWS = 1024
_Txn: TypeAlias = "lmdb.Transaction[bytes]"


@dataclass(frozen=True, slots=True)
class LeafBlock:
    """A sealed block as a witness keeps it: without rows.

    records: all leaves of the block, its SEAL leaf last. nodes: the subtrees that became complete,
    level 0 included, as merkle.CompactRange.append_many returns them. log_root: the root after the
    block, which the caller has verified.
    """

    records: tuple[Record, ...]
    nodes: tuple[Node, ...]
    log_root: bytes


class Store:
    """The store of one node: a rows.Reader and merkle.NodeReader, and the only writer of blocks.

    Reads may come from any thread. Each call on the store itself is a read transaction of its own;
    use `snapshot` for several reads at one height. Writes may come from any thread and wait for one
    another.
    """

    def __init__(self, environment: Environment) -> None:
        """Take over an open environment; use `open`, which also checks it."""
        self._environment = environment
        self._recording = threading.Lock()
        self._file_heads = heads.read_heads(environment.directory)
        self._tip: Tip | None = None
        # A broken tip is start-up's finding; fsck and rebuild open the store all the same. Nothing
        # can be written on it: every write of a block reads the tip again.
        with contextlib.suppress(StoreDamagedError), self.snapshot() as view:
            self._tip = view.tip

    @classmethod
    def open(
        cls, directory: Path, settings: StoreSettings | None = None, *, create: bool = True
    ) -> Self:
        """Open the store in `directory`.

        No check beyond the file's length and the schema (startup.open_checked).

        Raises: StoreLockedError, StoreSchemaError, StoreDamagedError, StoreFailedError: see
        errors.py.
        """
        environment = Environment.open(directory, settings or StoreSettings(), create=create)
        try:
            return cls(environment)
        except BaseException:
            environment.close()
            raise

    def close(self) -> None:
        """Close the store and free its directory.

        Waits for views to end, as long as growth would. A second call does nothing.
        """
        self._environment.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    @property
    def directory(self) -> Path:
        """Where the store lives."""
        return self._environment.directory

    @property
    def tip(self) -> Tip | None:
        """The newest block that is durable, or None in an empty store or one without a good tip."""
        return self._tip

    def usage(self) -> StoreUsage:
        """Return how full the store is."""
        return self._environment.usage()

    def check_readers(self) -> int:
        """Free reader slots of processes that died.

        Returns how many. Writes do it once a minute by themselves.
        """
        return self._environment.check_readers()

    def backup(self, directory: Path) -> None:
        """Write a consistent, compacted copy into `directory`, without the signed heads' file.

        Writing goes on. A node started from it signs nothing until its log has caught up with the
        heads it once signed.
        Raises: StoreFailedError: the copy could not be written.
        """
        self._environment.copy(directory)

    # -- reading

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[View]:
        """Give a View of the newest committed block for the time of the `with` block.

        Keep it short.
        """
        with self._environment.reading() as txn:
            yield View(txn, self._environment.databases)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the row under `key`, or None."""
        with self.snapshot() as view:
            return view.get(table, key)

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order: keys with `prefix`, not before `start`.

        Every 1,024 rows are one read transaction, so that a slow consumer pins nothing; rows may
        come from blocks committed in between. Use a snapshot where that matters.
        """
        while True:
            page = []
            with self.snapshot() as view:
                for item in view.scan(table, prefix, start):
                    page.append(item)
                    if len(page) == _SCAN_PAGE_ROWS:
                        break
            yield from page
            if len(page) < _SCAN_PAGE_ROWS:
                return
            start = page[-1][0] + b"\0"

    def leaf(self, index: int) -> bytes:
        """Return the log leaf at `index`.

        Raises: KeyError: there is none.
        """
        with self.snapshot() as view:
            return view.leaf(index)

    def body(self, index: int) -> bytes | None:
        """Return the whole body of the leaf at `index`, or None: withheld, or it has none."""
        with self.snapshot() as view:
            return view.body(index)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of node (level, index).

        Raises: VerificationError: the log has no such complete subtree.
        """
        with self.snapshot() as view:
            return view.node(level, index)

    # -- blocks

    def commit(self, *results: BlockResult, ordered: int | None = None) -> None:
        """Write blocks of a full replica, consecutive and in order, in one transaction.

        Durable when it returns. A result without entries changed nothing and is passed over.

        ordered: height of the consensus engine's block that the last result was made of; it is
        kept in the same transaction, see `ordered`.

        Raises: StoreConflictError: a block does not follow the one before; StoreFullError,
        StoreBusyError: nothing was written; StoreFailedError: the node must stop.
        """
        self._write_blocks(
            [
                Block(
                    Tip(
                        ReplicaKind.FULL,
                        result.height,
                        result.time_ms,
                        result.log_size,
                        result.log_root,
                        result.state_root,
                    ),
                    [Record(entry.leaf, entry.body, entry.public) for entry in result.entries],
                    result.nodes,
                    result.delta.rows,
                )
                for result in results
                if result.entries
            ],
            ordered,
        )

    def append(self, *blocks: LeafBlock) -> None:
        """Write sealed blocks of a witness, consecutive and in order, in one transaction.

        Durable when it returns.

        Caller's duties: the leaves lead to `log_root`, that root is signed by the log, and bodies
        and redacted bodies match their leaves' commitments.
        Raises: DecodeError: a block's last leaf is no SEAL; otherwise as `commit`.
        """
        tip = self._tip
        size = tip.log_size if tip else 0
        written = []
        for block in blocks:
            if not block.records:
                raise DecodeError("a block has at least its SEAL leaf")
            seal = SealLeaf.decode(block.records[-1].leaf)
            size += len(block.records)
            written.append(
                Block(
                    Tip(
                        ReplicaKind.WITNESS,
                        seal.height,
                        seal.time_ms,
                        size,
                        block.log_root,
                        seal.state_root,
                    ),
                    block.records,
                    block.nodes,
                )
            )
        self._write_blocks(written)

    def mark_ordered(self, height: int) -> None:
        """Remember that the consensus engine's chain was followed up to `height`.

        For blocks that changed nothing: those that did are marked by `commit`.
        Raises: as `commit`.
        """

        def work(txn: _Txn) -> None:
            Writer(txn, self._environment.databases).write_ordered(height, None)

        self._environment.write(256, work)

    def _write_blocks(self, blocks: Sequence[Block], ordered: int | None = None) -> None:
        if not blocks:
            return

        def work(txn: _Txn) -> None:
            writer = Writer(txn, self._environment.databases)
            tip = writer.view.tip
            for block in blocks:
                check_follows(tip, block)
                writer.write_block(block)
                tip = block.tip
            writer.write_tip(blocks[-1].tip)
            if ordered is not None:
                writer.write_ordered(ordered, blocks[-1].tip.height)

        self._environment.write(sum(block.size_bytes for block in blocks), work)
        self._tip = blocks[-1].tip

    # -- signed heads

    def signed_head(self, name: str) -> Head | None:
        """Return the largest head recorded as signed under `name`, in database or file, or None."""
        with self.snapshot() as view:
            return self._signed_head(view, name)

    def _signed_head(self, view: View, name: str) -> Head | None:
        known = [view.head(name), (self._file_heads or {}).get(name)]
        return max((head for head in known if head), key=lambda head: head.size, default=None)

    def record_head(self, name: str, head: Head) -> None:
        """Record that `head` is about to be signed by key `name`: durable, twice, when it returns.

        Only then may the signature be made. Recording the same head again is allowed.
        Raises: RollbackDetectedError: a larger head was signed before, or the log here does not
        reach that one; ForkDetectedError: another root was signed at that size, or the log here has
        another; else as `commit`.
        """

        def work(txn: _Txn) -> None:
            writer = Writer(txn, self._environment.databases)
            check_head(writer.view, name, self._signed_head(writer.view, name), head)
            writer.put_guarded(Database.HEADS, name.encode(), head.encode(), overwrite=True)

        # The file holds the heads of all names: two threads must not each write it without the
        # other's.
        with self._recording:
            self._environment.write(256, work)
            updated = {**(self._file_heads or {}), name: head}
            heads.write_heads(self.directory, updated)
            self._file_heads = updated

    # -- checkpoints and cosignatures

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Keep `note` as the final checkpoint of `size` leaves.

        The same note again changes nothing. Caller's duty: the note satisfies the policy and its
        root is that of this log.
        Raises: StoreConflictError: another note is kept for that size; else as `commit`.
        """
        self._add_guarded(Database.CHECKPOINTS, u64(size), note)

    def add_cosignature(self, size: int, key_id: bytes, name: str, line: bytes) -> None:
        """Keep a cosigner's signature line for the checkpoint of `size`.

        A newer line of the same key replaces it. Caller's duty: the line verifies over the
        checkpoint of that size of this log.
        Raises: as `commit`.
        """
        key = tables.cosignature_key(size, key_id, name)

        def work(txn: _Txn) -> None:
            writer = Writer(txn, self._environment.databases)
            writer.put_guarded(Database.COSIGNATURES, key, line, overwrite=True)

        self._environment.write(len(line) + 256, work)

    def drop_cosignatures(self, below_size: int) -> int:
        """Forget collected lines for checkpoints below `below_size`, which final notes hold.

        Returns how many.
        """

        def work(txn: _Txn) -> int:
            writer = Writer(txn, self._environment.databases)
            keys = []
            for key, _ in writer.view.items(Database.COSIGNATURES):
                if tables.number_of(key[:8]) >= below_size:
                    break
                keys.append(key)
            for key in keys:
                writer.delete(Database.COSIGNATURES, key)
            return len(keys)

        return self._environment.write(256, work)

    def _add_guarded(self, name: Database, key: bytes, payload: bytes) -> None:
        def work(txn: _Txn) -> None:
            writer = Writer(txn, self._environment.databases)
            if writer.view.raw(name, key) != tables.guarded(name, key, payload):
                writer.put_guarded(name, key, payload, overwrite=False)

        self._environment.write(len(payload) + 256, work)

    # -- for rebuild.py

    def rewrite(self, size_bytes: int, work: Callable[[Writer], Tip]) -> Tip:
        """Run `work` with a Writer in one transaction.

        For rebuilding derived tables, never for new records. `work` returns the tip it wrote.
        Raises: as `commit`.
        """
        self._tip = self._environment.write(
            size_bytes, lambda txn: work(Writer(txn, self._environment.databases))
        )
        return self._tip

    def database_names(self) -> list[str]:
        """Return the names of all sub-databases in the data file, those not ours included."""
        return self._environment.database_names()
