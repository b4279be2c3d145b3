"""The ledger applied anew from what the store holds, block by block.

Lives here: cutting the log into blocks at its SEAL leaves, and the replay that fsck compares with
and rebuild writes.
May not live here: comparison, writing.

Only leaves and bodies are read; indices, nodes and rows may be missing or wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clearing import ledger
from clearing.errors import ClearingError
from clearing.ledger import BlockResult, Entry
from clearing.memory import MemoryRows
from clearing.records.leaves import GenesisLeaf, LeafKind, leaf_kind
from clearing.state import State
from node.store.checks import Progress, silent
from node.store.view import Record, View


class ReplayError(ClearingError):
    """The log cannot be applied again; `height` and `first_index` name the block."""

    def __init__(self, height: int, first_index: int, why: str) -> None:
        """Say at which block the replay stopped, and why."""
        self.height = height
        self.first_index = first_index
        super().__init__(f"block {height} at leaf {first_index} cannot be applied again: {why}")


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block as the leaves say: height by counting SEALs, first leaf, all its records."""

    height: int
    first_index: int
    records: tuple[Record, ...]

    @property
    def end(self) -> int:
        """Log index behind its SEAL."""
        return self.first_index + len(self.records)


def stored_blocks(view: View, size: int) -> Iterator[StoredBlock]:
    """Yield the blocks of the first `size` leaves, cut at SEAL leaves.

    Leaves after the last SEAL are left out.

    Raises: ReplayError: a leaf is missing, or is none of ours.
    """
    height, first, records = 0, 0, []
    for index in range(size):
        try:
            record = view.record(index)
            kind = leaf_kind(record.leaf)
        except (KeyError, ClearingError) as error:
            raise ReplayError(height, first, f"leaf {index}: {error}") from error
        records.append(record)
        if kind is LeafKind.SEAL:
            yield StoredBlock(height, first, tuple(records))
            height, first, records = height + 1, index + 1, []


class _Replayed(MemoryRows):
    """Rows made anew, over the store's own leaves and bodies: those need no second copy."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def leaf(self, index: int) -> bytes:
        """Return the log leaf at `index`."""
        return self._view.leaf(index)

    def body(self, index: int) -> bytes | None:
        """Return the whole body of the leaf at `index`, or None."""
        return self._view.body(index)


class Replay:
    """Applies the blocks of the first `size` leaves.

    `rows` are those of the blocks applied so far.
    """

    def __init__(self, view: View, size: int) -> None:
        """Start before genesis."""
        self._view = view
        self._size = size
        self.rows = _Replayed(view)
        self.state = State(self.rows)

    def run(self, progress: Progress = silent) -> Iterator[tuple[StoredBlock, BlockResult]]:
        """Yield every block with what applying it gives; its rows are in `rows` by then.

        Raises: ReplayError: a block cannot be applied: a leaf or body is missing, malformed or out
        of order.
        """
        for block in stored_blocks(self._view, self._size):
            try:
                result = self._apply(block)
            except ClearingError as error:
                raise ReplayError(block.height, block.first_index, str(error)) from error
            self.rows.apply_rows(result.delta.rows)
            self.state.advance(result.delta)
            progress("replay", block.end, self._size)
            yield block, result

    def _apply(self, block: StoredBlock) -> BlockResult:
        if block.height == 0:
            genesis = block.records[0]
            return ledger.genesis(GenesisLeaf.decode(genesis.leaf).time_ms, genesis.body)
        entries = [entry_of(record) for record in block.records]
        return ledger.apply(self.state, ledger.block_of_entries(entries))


def entry_of(record: Record) -> Entry:
    """Return a record as the core's entry."""
    return Entry(record.leaf, record.body, record.public)
