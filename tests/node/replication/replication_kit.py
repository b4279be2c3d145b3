"""What tests of replication share: the leader's store with a history, and its blocks as a follower receives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clearing.ledger import BlockResult
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note, sign
from node.replication.link import Assembler
from node.replication.replica import ReceivedBlock
from node.replication.source import BlockSource, Rights
from node.store import Store
from tests.node.sequencer.heads_kit import LOG, ORIGIN, POLICY
from tests.node.store.store_kit import fill, history

ALL = Rights(0, sees_all=True)


def leader_store(directory: Path) -> Store:
    """Return the store of a leader with the history of the store's tests."""
    return fill(directory)


def signed_note(size: int, root: bytes, signer: Signer = LOG) -> bytes:
    """Return a checkpoint note by the log."""
    text = Checkpoint(ORIGIN, size, root).text
    return Note(text, (sign(text, signer),)).encode()


def newest_note(store: Store) -> bytes:
    """Return the log's note over the whole store."""
    return signed_note(store.tip.log_size, store.tip.log_root)


def received(store: Store, rights: Rights = ALL, *, by_block: bool = False) -> list[ReceivedBlock]:
    """Return all blocks of a leader's store as they arrive, covered by the newest note or by one a block."""
    source = BlockSource(store)
    blocks = []
    for height in range(store.tip.height + 1):
        with store.snapshot() as view:
            end = view.block_range(height)[1]
            note = signed_note(end, view.root(end)) if by_block else newest_note(store)
        assembler = Assembler(POLICY, ORIGIN)
        done = [assembler.add(part) for part in source.parts(height, rights, note)]
        assert [one is None for one in done] == [True] * (len(done) - 1) + [False]
        assert isinstance(done[-1], ReceivedBlock)
        blocks.append(done[-1])
    return blocks


def relabelled(
    store: Store, blocks: Sequence[ReceivedBlock], at: int, leaves: list[bytes]
) -> ReceivedBlock:
    """Return block `at` with other leaves, under a note that the log signs over exactly these: a lying leader."""
    block = blocks[at]
    with store.snapshot() as view:
        before = merkle.CompactRange.read(block.first_index, view)
    after, _ = before.append_many([merkle.leaf_hash(leaf) for leaf in leaves])
    note = signed_note(after.size, after.root)
    entries = tuple(
        type(block.entries[0])(leaf, entry.shown, entry.public)
        for leaf, entry in zip(leaves, block.entries, strict=True)
    )
    head = Checkpoint(ORIGIN, after.size, after.root)
    return ReceivedBlock(block.height, block.first_index, entries, note, head, ())


def results() -> tuple[BlockResult, ...]:
    """Return the history as the core computed it."""
    return history()
