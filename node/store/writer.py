"""What happens inside one write transaction.

Lives here: Writer, and the checks that a block or head follows from what is there. May not live
here: when a transaction begins and what its failure means (environment.py), who writes what
(store.py).

Invariant: every insertion is checked to have been one. LMDB answers False, without an exception,
where a key exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lmdb

from clearing.errors import VerificationError
from clearing.log.merkle import Node
from clearing.rows import Row
from node.store import tables
from node.store.errors import ForkDetectedError, RollbackDetectedError, StoreConflictError
from node.store.tables import Database, Head, Name, Tip, u64
from node.store.view import Record, View


@dataclass(frozen=True, slots=True)
class Block:
    """What is written for one block, of a full replica or a witness.

    tip: where the store stands after it. records: its leaves and what is held of their bodies.
    nodes: the subtrees that became complete. rows: the state's changes, in order.
    """

    tip: Tip
    records: Sequence[Record]
    nodes: Iterable[Node]
    rows: Sequence[Row] = ()

    @property
    def first_index(self) -> int:
        """The log index of its first leaf."""
        return self.tip.log_size - len(self.records)

    @property
    def size_bytes(self) -> int:
        """About how many bytes it writes."""
        leaves = sum(len(r.leaf) + len(r.body) + len(r.redacted) + 256 for r in self.records)
        return leaves + sum(len(row.value or b"") + 64 for row in self.rows)


class Writer:
    """Puts records into one write transaction."""

    def __init__(self, txn: lmdb.Transaction[bytes], databases: dict[Name, lmdb._Database]) -> None:
        """Write through `txn`, which the caller ends."""
        self._txn = txn
        self._databases = databases
        self.view = View(txn, databases)

    def insert(self, name: Name, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Append records behind the last key of a database, in key order.

        Raises: StoreConflictError: a key is not behind the last one; the caller's transaction is
        undone.
        """
        with self._txn.cursor(self._databases[name]) as cursor:
            _, added = cursor.putmulti(items, overwrite=False, append=True)
        if added != len(items):
            key = tables.key_text(name, items[added][0])
            raise StoreConflictError(
                f"{name}[{key}] is not a new record behind the last: nothing was written; run "
                "`clearing audit fsck`"
            )

    def put(self, name: Name, key: bytes, value: bytes) -> None:
        """Put a record that may replace an older one: rows of the state, and the tip."""
        self._txn.put(key, value, db=self._databases[name])

    def put_guarded(self, name: Database, key: bytes, payload: bytes, *, overwrite: bool) -> None:
        """Put a guarded record.

        Raises: StoreConflictError: one is there and `overwrite` is not set.
        """
        value = tables.guarded(name, key, payload)
        if not self._txn.put(key, value, overwrite=overwrite, db=self._databases[name]):
            raise StoreConflictError(
                f"{name}[{tables.key_text(name, key)}] exists with other bytes: nothing was written"
            )

    def delete(self, name: Name, key: bytes) -> None:
        """Delete a record; none there is fine."""
        self._txn.delete(key, db=self._databases[name])

    def clear(self, name: Name) -> None:
        """Delete every record of a database."""
        self._txn.drop(self._databases[name], delete=False)

    def apply_rows(self, rows: Iterable[Row]) -> None:
        """Write the state's changes: a value replaces what stood under the key, None deletes it."""
        for row in rows:
            if row.value is None:
                self.delete(row.table, row.key)
            else:
                self.put(row.table, row.key, row.value)

    def write_block(self, block: Block) -> None:
        """Write leaves, bodies, nodes, rows and seal index of one block, which must be the next.

        Raises: StoreConflictError: it does not, or a record exists.
        """
        first = block.first_index
        keyed = [(u64(index), record) for index, record in enumerate(block.records, first)]
        self.insert(Database.LEAVES, [(key, record.leaf) for key, record in keyed])
        held = [(key, record) for key, record in keyed if record.body]
        self.insert(Database.BODIES, [(key, r.body) for key, r in held if not r.public])
        self.insert(Database.PUBLIC, [(key, r.body) for key, r in held if r.public])
        self.insert(Database.REDACTED, [(key, r.redacted) for key, r in keyed if r.redacted])
        self.insert(Database.NODES, node_items(block.nodes))
        self.insert(Database.SEALS, [(u64(block.tip.height), u64(block.tip.log_size - 1))])
        self.apply_rows(block.rows)
        leaves, nodes = self.view.count(Database.LEAVES), self.view.count(Database.NODES)
        if leaves != block.tip.log_size or nodes != tables.node_count(leaves):
            raise StoreConflictError(
                f"block {block.tip.height} leads to {block.tip.log_size} leaves, the tables to "
                f"{leaves} leaves and {nodes} nodes: nothing was written; run `clearing audit fsck`"
            )

    def write_ordered(self, ordered: int, height: int | None) -> None:
        """Write how far the consensus engine's chain was followed.

        height: of the ledger block that its block `ordered` became, None where it changed nothing.
        """
        payload = u64(ordered)
        self.put_guarded(Database.STORE, tables.KEY_ORDERED, payload, overwrite=True)
        if height is not None:
            self.insert(Database.ORDERED, [(u64(height), u64(ordered))])

    def write_tip(self, tip: Tip) -> None:
        """Write where the store stands, and how many records its tables have."""
        counts = {name: self.view.count(name) for name in tables.COUNTED}
        self.put_guarded(Database.STORE, tables.KEY_TIP, tip.encode(), overwrite=True)
        self.put_guarded(
            Database.STORE, tables.KEY_COUNTS, tables.encode_counts(counts), overwrite=True
        )


def node_items(nodes: Iterable[Node]) -> list[tuple[bytes, bytes]]:
    """Return (key, hash) of nodes in key order."""
    return sorted((u64(tables.node_position(level, index)), value) for level, index, value in nodes)


def check_follows(tip: Tip | None, block: Block) -> None:
    """Check that a block is the next one after `tip`.

    Raises: StoreConflictError: another height or first leaf, time running backwards, or the other
    kind of replica.
    """
    height, size, time_ms = (tip.height + 1, tip.log_size, tip.time_ms) if tip else (0, 0, 0)
    if block.tip.height != height or block.first_index != size:
        raise StoreConflictError(
            f"the store goes on with block {height} at leaf {size}, got block {block.tip.height} "
            f"at leaf {block.first_index}: nothing was written"
        )
    if block.tip.time_ms < time_ms:
        raise StoreConflictError(
            f"block {height} has time {block.tip.time_ms}, before {time_ms}: nothing was written"
        )
    # A witness has no rows and a full replica has all: half of them would be neither.
    if tip is not None and tip.kind is not block.tip.kind:
        raise StoreConflictError(
            f"the store is a {tip.kind.name} replica and the block is of a {block.tip.kind.name} "
            "one: nothing was written"
        )


def check_head(view: View, name: str, signed: Head | None, head: Head) -> None:
    """Check that `head` may be signed after `signed`, on the log that `view` shows.

    Raises: RollbackDetectedError, ForkDetectedError: it may not; see Store.record_head.
    """
    remedy = "sign nothing and catch up from the peers"
    if signed is not None and head.size < signed.size:
        raise RollbackDetectedError(
            f"{name} signed {signed.size} leaves before and was to sign {head.size} now: {remedy}"
        )
    for known, what in ((signed, "signed before"), (head, "to be signed")):
        if known is None:
            continue
        try:
            root = view.root(known.size)
        except VerificationError as error:
            raise RollbackDetectedError(
                f"the log here does not reach the {known.size} leaves {what} by {name}: {remedy}"
            ) from error
        if root != known.root:
            raise ForkDetectedError(
                f"the log here has root {root.hex()} at {known.size} leaves, {known.root.hex()} "
                f"was {what} by {name}: stop the node and keep both"
            )
