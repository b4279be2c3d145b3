"""apply(state, block): the one place that sequences the rules.

Lives here: Block, Outcome, Entry, BlockResult and `apply`. May not live here: a rule (rules/), a format
(records/), persistence. See README for the order of phases in a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.errors import RejectCode
from clearing.records.transaction import Transaction
from clearing.state import Delta


@dataclass(frozen=True, slots=True)
class Block:
    """A decided block: what to apply, in order.

    height counts from 1 without gaps (genesis is height 0); time_ms never decreases from block to block.
    """

    height: int
    time_ms: int
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one transaction.

    code OK: `index` is the log index of its leaf (also when it is a repetition: `repeated`, then nothing was
    written). Otherwise index is -1 and `items` names the first bad items with their codes; bad_items counts all.
    """

    code: RejectCode
    index: int
    repeated: bool = False
    items: tuple[tuple[int, RejectCode], ...] = ()
    bad_items: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the log with the body that it commits to (b"" for none); public bodies may be shown to anyone."""

    leaf: bytes
    body: bytes = b""
    public: bool = False


@dataclass(frozen=True, slots=True)
class BlockResult:
    """Everything that follows from a block; persisting it is the caller's separate step.

    outcomes: one for each transaction, in order. entries: the leaves, in order, from `first_index` on; empty when the
    block changed nothing (then delta.rows() is empty too and nothing is sealed). delta: what State.advance takes over
    once the block is durable; delta.rows() are the rows to write, in canonical order (table, key).
    nodes: (level, index, hash) of the log's newly complete subtrees, level 0 included. log_root and log_size: of the
    log after the block. state_root: of the positions after the block.
    """

    height: int
    time_ms: int
    first_index: int
    outcomes: tuple[Outcome, ...]
    entries: tuple[Entry, ...]
    delta: Delta
    nodes: tuple[tuple[int, int, bytes], ...]
    log_size: int
    log_root: bytes
    state_root: bytes
