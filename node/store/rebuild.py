"""Indices and state dropped and made anew from leaves and bodies.

Lives here: rebuild. May not live here: checks of signatures; repair of leaves or bodies, which only
a peer has.

The log is the truth: nodes and seal index follow from the leaves alone, the state's rows from
applying the blocks again. All of it is written in one transaction: a crash leaves the store as it
was.
"""

from __future__ import annotations

from clearing.errors import ClearingError
from clearing.log import merkle
from clearing.records.leaves import LeafKind, SealLeaf, leaf_kind
from clearing.rows import Table
from node.store import checks, heads
from node.store.checks import Progress, silent
from node.store.errors import Finding, FindingKind, StoreDamagedError
from node.store.replay import Replay, ReplayError, entry_of
from node.store.store import Store
from node.store.tables import Database, Head, ReplicaKind, Tip, u64
from node.store.view import View
from node.store.writer import Writer, node_items

_CHUNK_LEAVES = 4096
_NODE_BYTES = 64
_ROW_BYTES = 64


def rebuild(store: Store, kind: ReplicaKind, progress: Progress = silent) -> Tip:
    """Drop and rebuild nodes, seal index, tip and, of a full replica, every table of the state.

    Returns the tip.

    kind: what this node is, since its own record of that may be among what is lost. Afterwards run
    fsck: it compares with checkpoints. Memory: the rows of the whole state.

    Raises: StoreDamagedError: leaves or bodies are damaged, or lead to another root than a head
    this node has signed; nothing was written. Otherwise as Store.commit.
    """
    with store.snapshot() as view:
        leaves = view.count(Database.LEAVES)
        replay = Replay(view, leaves)
        if kind is ReplicaKind.FULL:
            _replay(replay, progress)
    row_bytes = sum(
        _ROW_BYTES + len(value) for table in Table for _, value in replay.rows.scan(table)
    )
    in_file = heads.read_heads(store.directory) or {}

    def work(writer: Writer) -> Tip:
        tip = _write_log(writer, kind, progress)
        _check_signed(writer.view, tip, {**writer.view.heads(), **in_file})
        for table in Table:
            writer.clear(table)
            writer.insert(table, list(replay.rows.scan(table)))
        writer.write_tip(tip)
        return tip

    return store.rewrite(2 * leaves * _NODE_BYTES + row_bytes, work)


def _replay(replay: Replay, progress: Progress) -> None:
    try:
        for block, result in replay.run(progress):
            if [entry_of(record) for record in block.records] != list(result.entries):
                raise ReplayError(
                    block.height, block.first_index, "it gives other leaves or bodies"
                )
    except ReplayError as error:
        key = f"index {error.first_index}"
        finding = Finding(FindingKind.DAMAGED, Database.LEAVES, key, str(error))
        raise StoreDamagedError([finding]) from error


def _write_log(writer: Writer, kind: ReplicaKind, progress: Progress) -> Tip:
    """Write nodes and seal index from the leaves; returns the tip that the last leaf describes."""
    view = writer.view
    writer.clear(Database.NODES)
    writer.clear(Database.SEALS)
    log = merkle.CompactRange()
    size = view.count(Database.LEAVES)
    seal, height = None, 0
    for first in range(0, size, _CHUNK_LEAVES):
        hashes, seals = [], []
        for index in range(first, min(first + _CHUNK_LEAVES, size)):
            leaf, seal = _read_leaf(view, index)
            hashes.append(merkle.leaf_hash(leaf))
            if seal is not None:
                seals.append((u64(height), u64(index)))
                height += 1
        log, nodes = log.append_many(hashes)
        writer.insert(Database.NODES, node_items(nodes))
        writer.insert(Database.SEALS, seals)
        progress("leaves", log.size, size)
    if seal is None or seal.height != height - 1:
        what = "the log does not end in the SEAL leaf of its newest block"
        raise StoreDamagedError([checks.table_finding(FindingKind.DAMAGED, Database.LEAVES, what)])
    return Tip(kind, seal.height, seal.time_ms, log.size, log.root, seal.state_root)


def _read_leaf(view: View, index: int) -> tuple[bytes, SealLeaf | None]:
    try:
        leaf = view.leaf(index)
        return leaf, SealLeaf.decode(leaf) if leaf_kind(leaf) is LeafKind.SEAL else None
    except (KeyError, ClearingError) as error:
        what = f"nothing can be rebuilt without it ({error})"
        raise StoreDamagedError([checks.altered(Database.LEAVES, u64(index), what)]) from error


def _check_signed(view: View, tip: Tip, signed: dict[str, Head]) -> None:
    """Refuse to build on leaves that this node has signed otherwise.

    An older database is start-up's business.
    """
    for name, head in signed.items():
        if head.size > tip.log_size:
            continue
        if view.root(head.size) != head.root:
            what = (
                f"{head.size} leaves lead to another root than {name} has signed: restore them "
                "from a peer"
            )
            finding = checks.table_finding(FindingKind.DAMAGED, Database.LEAVES, what)
            raise StoreDamagedError([finding])
