"""The store contract in memory: for offline replay and for tests.

Lives here: rows in dictionaries with their keys kept in order, and a whole ledger on top of them.
May not live here: files, and anything the contract (rows.py) does not ask for.

Invariants: the same commits give the same answers as node/store; what does not follow is refused
whole.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

from clearing.errors import VerificationError, invariant
from clearing.ledger import BlockResult, Entry
from clearing.rows import Row, Table


class MemoryRows:
    """The rows of every table, without a log."""

    def __init__(self) -> None:
        """Start empty."""
        self._values: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        return self._values[table].get(key)

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order: keys with `prefix`, not before `start`.

        Shows the rows of the moment of the call, whatever is written while it is consumed.
        """
        keys, values = self._keys[table], self._values[table]
        page = []
        for at in range(bisect.bisect_left(keys, max(prefix, start)), len(keys)):
            if not keys[at].startswith(prefix):
                break
            page.append((keys[at], values[keys[at]]))
        return iter(page)

    def count(self, table: Table) -> int:
        """Return the number of rows of a table."""
        return len(self._keys[table])

    def apply_rows(self, rows: Iterable[Row]) -> None:
        """Write rows: a value replaces what stood under the key, None deletes it."""
        for row in rows:
            values, keys = self._values[row.table], self._keys[row.table]
            if row.value is not None:
                if row.key not in values:
                    bisect.insort(keys, row.key)
                values[row.key] = row.value
            elif values.pop(row.key, None) is not None:
                del keys[bisect.bisect_left(keys, row.key)]


class MemoryStore(MemoryRows):
    """A whole ledger in memory: a rows.Reader and a merkle.NodeReader, written by `commit`."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._entries: list[Entry] = []
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._seals: list[int] = []

    @property
    def height(self) -> int:
        """Height of the newest block; -1 before genesis."""
        return len(self._seals) - 1

    @property
    def log_size(self) -> int:
        """Number of leaves in the log."""
        return len(self._entries)

    def leaf(self, index: int) -> bytes:
        """Return the log leaf at `index`.

        Raises: KeyError: there is none.
        """
        return self.entry(index).leaf

    def body(self, index: int) -> bytes | None:
        """Return the body that belongs to the leaf at `index`, or None where it has none."""
        known = 0 <= index < len(self._entries)
        return (self._entries[index].body or None) if known else None

    def entry(self, index: int) -> Entry:
        """Return leaf and body at `index`.

        Raises: KeyError: there is none.
        """
        if not 0 <= index < len(self._entries):
            raise KeyError(f"the log has no leaf {index}")
        return self._entries[index]

    def entries_of(self, height: int) -> tuple[Entry, ...]:
        """Return the entries of one block, its SEAL last.

        Raises: KeyError: there is no block of that height.
        """
        if not 0 <= height < len(self._seals):
            raise KeyError(f"there is no block {height}")
        first = self._seals[height - 1] + 1 if height else 0
        return tuple(self._entries[first : self._seals[height] + 1])

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of node (level, index).

        Raises: VerificationError: the log has no such complete subtree.
        """
        if (level, index) not in self._nodes:
            raise VerificationError(f"the log has no node {index} at level {level}")
        return self._nodes[level, index]

    def commit(self, *results: BlockResult) -> None:
        """Take blocks, consecutive and in order.

        A result without entries changed nothing and is passed over.

        Raises: InvariantViolation: a block does not follow the one before; that block and later
        ones are not taken.
        """
        for result in results:
            if not result.entries:
                continue
            # Both are refused by the store on disk as well: a gap or a repetition is the caller's
            # defect.
            invariant(result.height == self.height + 1, "a block must follow the newest one")
            invariant(result.first_index == self.log_size, "a block's leaves must follow the log")
            self._entries.extend(result.entries)
            self._nodes.update(((level, index), value) for level, index, value in result.nodes)
            self._seals.append(self.log_size - 1)
            self.apply_rows(result.delta.rows)
