"""Everything that is read from the store, in one read transaction: one height, nothing moves.

Lives here: View and Record. May not live here: writes, checks.

A view pins the pages of its height: the file grows while it is open. Hold it for one answer, never
across a wait for a client; a stream opens a new one a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lmdb

from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.rows import Table
from node.store import tables
from node.store.errors import Finding, FindingKind, StoreDamagedError
from node.store.tables import Database, Head, Name, Tip, u64


@dataclass(frozen=True, slots=True)
class Record:
    """One leaf of the log with what this replica holds of its body.

    body: the whole body, b"" where the leaf has none or it is withheld. public: the body may be
    shown to anyone.
    redacted: what stands in for a withheld body (commitments and own openings, see
    node/replication), b"" for none.
    """

    leaf: bytes
    body: bytes = b""
    public: bool = False
    redacted: bytes = b""


class View:
    """A rows.Reader and merkle.NodeReader over the committed blocks at one height.

    Made by Store.snapshot(); of use only inside its `with` block, from one thread at a time.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], databases: dict[Name, lmdb._Database]) -> None:
        """Read through `txn`, which the caller ends."""
        self._txn = txn
        self._databases = databases

    # -- rows.Reader

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the row under `key`, or None."""
        return self._get(table, key)

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order: keys with `prefix`, not before `start`."""
        return self.items(table, prefix, start)

    def leaf(self, index: int) -> bytes:
        """Return the log leaf at `index`.

        Raises: KeyError: there is none.
        """
        leaf = self._at(Database.LEAVES, index)
        if leaf is None:
            raise KeyError(f"the log has no leaf {index}")
        return leaf

    def body(self, index: int) -> bytes | None:
        """Return the whole body of the leaf at `index`, or None: withheld, or it has none."""
        body = self._at(Database.BODIES, index)
        return body if body is not None else self._at(Database.PUBLIC, index)

    # -- merkle.NodeReader

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of node (level, index).

        Raises: VerificationError: the log has no such complete subtree.
        """
        possible = 0 <= level < 64 and index >= 0
        position = tables.node_position(level, index) if possible else -1
        value = self._at(Database.NODES, position)
        if value is None:
            raise VerificationError(f"the log has no node {index} at level {level}")
        return value

    # -- the log

    @property
    def tip(self) -> Tip | None:
        """The newest block, or None in an empty store.

        Raises: StoreDamagedError: its record is broken.
        """
        data = self._guarded(Database.STORE, tables.KEY_TIP)
        return None if data is None else Tip.decode(data)

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves, from kept nodes.

        Raises: VerificationError: the log has fewer.
        """
        return merkle.CompactRange.read(size, self).root

    def records(self, first: int, end: int) -> list[Record]:
        """Return leaves `first` to `end - 1` with what is held of their bodies.

        Raises: KeyError: the log has fewer than `end` leaves.
        """
        return [self.record(index) for index in range(first, end)]

    def entries(self, first: int, count: int) -> list[bytes]:
        """Return leaves `first` to `first + count - 1`; tiles.EntryReader.

        Raises: KeyError: the log has fewer.
        """
        return [self.leaf(index) for index in range(first, first + count)]

    def record(self, index: int) -> Record:
        """Return the leaf at `index` with what is held of its body.

        Raises: KeyError: there is none.
        """
        leaf = self.leaf(index)
        public = self._at(Database.PUBLIC, index)
        body = public if public is not None else self._at(Database.BODIES, index)
        redacted = self._at(Database.REDACTED, index)
        return Record(leaf, body or b"", public is not None, redacted or b"")

    def block_range(self, height: int) -> tuple[int, int]:
        """Return (first, end): the log indices of the block's leaves, its SEAL leaf at end - 1.

        Raises: KeyError: there is no block of that height.
        """
        seal = self._at(Database.SEALS, height)
        if seal is None:
            raise KeyError(f"there is no block {height}")
        before = self._at(Database.SEALS, height - 1)
        first = 0 if before is None else tables.number_of(before) + 1
        return first, tables.number_of(seal) + 1

    def height_of(self, index: int) -> int:
        """Return the height of the block that holds leaf `index`; reads about 2 log2(height) rows.

        Raises: KeyError: the log has no such leaf.
        """
        tip = self.tip
        if tip is None or not 0 <= index < tip.log_size:
            raise KeyError(f"the log has no leaf {index}")
        low, high = 0, tip.height
        while low < high:
            middle = (low + high) // 2
            if self.block_range(middle)[1] <= index:
                low = middle + 1
            else:
                high = middle
        return low

    # -- the consensus engine's chain, where one orders

    @property
    def ordered(self) -> int:
        """Height up to which the consensus engine's chain was followed, 0 for not at all.

        It may be a little less than what was followed, by blocks that changed nothing.
        Raises: StoreDamagedError: its record is broken.
        """
        data = self._guarded(Database.STORE, tables.KEY_ORDERED)
        return 0 if data is None else tables.number_of(data)

    def ordered_of(self, height: int) -> int | None:
        """Return the height of the consensus engine's block that block `height` was made of."""
        value = self._at(Database.ORDERED, height)
        return None if value is None else tables.number_of(value)

    # -- the node's own records

    def head(self, name: str) -> Head | None:
        """Return the last head recorded under `name` in the database, or None.

        Raises: StoreDamagedError: its record is broken.
        """
        data = self._guarded(Database.HEADS, name.encode())
        return None if data is None else Head.decode(data)

    def heads(self) -> dict[str, Head]:
        """Return the last recorded heads in the database by name.

        Raises: StoreDamagedError: a record is broken.
        """
        return {
            key.decode(): Head.decode(self._open_guard(Database.HEADS, key, value))
            for key, value in self.items(Database.HEADS)
        }

    def checkpoint(self, size: int) -> bytes | None:
        """Return the final checkpoint note of exactly `size` leaves, or None."""
        return self._guarded(Database.CHECKPOINTS, u64(size)) if _fits(size) else None

    def latest_checkpoint(self) -> tuple[int, bytes] | None:
        """Return (size, note) of the largest final checkpoint, or None."""
        with self._txn.cursor(self._databases[Database.CHECKPOINTS]) as cursor:
            if not cursor.last():
                return None
            key, value = cursor.item()
        return tables.number_of(key), self._open_guard(Database.CHECKPOINTS, key, value)

    def checkpoint_covering(self, size: int) -> tuple[int, bytes] | None:
        """Return (size, note) of the smallest final checkpoint that covers `size`, or None."""
        if not _fits(size):
            return None
        for key, value in self.items(Database.CHECKPOINTS, start=u64(size)):
            return tables.number_of(key), self._open_guard(Database.CHECKPOINTS, key, value)
        return None

    def cosignatures(self, size: int) -> list[bytes]:
        """Return the signature lines kept for the checkpoint of `size`, by key id and name."""
        if not _fits(size):
            return []
        return [
            self._open_guard(Database.COSIGNATURES, key, value)
            for key, value in self.items(Database.COSIGNATURES, prefix=u64(size))
        ]

    # -- any database, for checks and rebuilds

    def items(
        self, name: Name, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of any database in key order: with `prefix`, not before `start`."""
        with self._txn.cursor(self._databases[name]) as cursor:
            if not cursor.set_range(max(prefix, start)):
                return
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    return
                yield key, value

    def count(self, name: Name) -> int:
        """Return the number of records of any database."""
        return self._txn.stat(self._databases[name])["entries"]

    def raw(self, name: Name, key: bytes) -> bytes | None:
        """Return the stored bytes under `key` of any database, guard included, or None."""
        return self._get(name, key)

    def _get(self, name: Name, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._databases[name])

    def _at(self, name: Name, number: int) -> bytes | None:
        """Return the value under a number; numbers come from clients and may be any."""
        return self._get(name, u64(number)) if _fits(number) else None

    def _guarded(self, name: Name, key: bytes) -> bytes | None:
        value = self._get(name, key)
        return None if value is None else self._open_guard(name, key, value)

    @staticmethod
    def _open_guard(name: Name, key: bytes, value: bytes) -> bytes:
        try:
            return tables.unguarded(name, key, value)
        except DecodeError as error:
            finding = Finding(FindingKind.ALTERED, name, tables.key_text(name, key), str(error))
            raise StoreDamagedError([finding]) from error


def _fits(number: int) -> bool:
    """Return whether a number can be a u64 key."""
    return 0 <= number < 1 << 64
