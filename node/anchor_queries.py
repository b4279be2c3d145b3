"""Anchors as a node's ledger has them, and what is needed to prove them.

Lives here: reading anchors, their notes and their place from rows and public bodies. May not live here: proofs' bytes
(workers/anchoring/proofs.py), protobuf, talking to Bitcoin.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.errors import VerificationError
from clearing.handlers import chain
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import SALT_BYTES
from clearing.rows import Reader, Table
from clearing.rules.anchors import MINED, Anchor, AnchorReport, AnchorState
from clearing.rules.registry import Registry
from clearing.state import Draft, State
from node.services.facade import LedgerView

PAGE_MAX = 1_000
PAGE_DEFAULT = 100


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """One anchor; hashes in internal order, `block_hash` b"" and `height` 0 where no block holds it.

    id: log index of its first report. number: among its participant's anchors, from 1. confirmations: as reported
    last, or as its reader sees them now. changed_ms: block time of the last report.
    """

    id: int
    participant: int
    number: int
    state: AnchorState
    network: BitcoinNetwork
    commitment: bytes
    txid: bytes
    block_hash: bytes
    height: int
    confirmations: int
    log_sizes: tuple[int, ...]
    changed_ms: int


@dataclass(frozen=True, slots=True)
class AnchoredNotes:
    """An anchor with its checkpoints' notes, ascending by size, and the last report with evidence where it is mined."""

    row: AnchorRow
    digests: tuple[bytes, ...]
    notes: tuple[bytes, ...]
    evidence: AnchorReport | None


def anchors(view: LedgerView, first_id: int, at_most: int) -> tuple[list[AnchorRow], int]:
    """Return anchors from id `first_id` on, ascending, and the id to go on with, 0 for none."""
    found = sorted(
        (anchor.begun_index, key, anchor)
        for key, value in view.scan(Table.ANCHORS)
        if (anchor := Anchor.decode(value)).begun_index >= first_id
    )
    rows = [_row(view, key, anchor) for _, key, anchor in found[:at_most]]
    return rows, found[at_most][0] if len(found) > at_most else 0


def _row(view: LedgerView, key: bytes, anchor: Anchor) -> AnchorRow:
    mined = anchor.state in MINED
    return AnchorRow(
        id=anchor.begun_index,
        participant=int.from_bytes(key[:4], "big"),
        number=int.from_bytes(key[4:], "big"),
        state=anchor.state,
        network=anchor.network,
        commitment=anchor.commitment,
        txid=anchor.txid,
        block_hash=anchor.block_hash if mined else b"",
        height=anchor.height if mined else 0,
        confirmations=anchor.depth if mined else 0,
        log_sizes=tuple(size for size, _ in _report(view, anchor.begun_index).checkpoints),
        changed_ms=anchor.changed_ms,
    )


def depth_in_headers(reader: Reader, registry: Registry, row: AnchorRow) -> int | None:
    """Return an anchor's confirmations by the chain of headers that the ledger itself follows, the same on every replica.

    Returns: 0 where that chain does not hold the anchor's block, None where it can say nothing: no block holds the anchor, or
    no chain of its network is followed from there on.
    """
    terms = registry.bitcoin.chain
    if row.state not in MINED or terms is None or terms.network is not row.network:
        return None
    if row.height < terms.height:
        return None
    state = State(reader)
    state.registry = registry
    draft = Draft(state, 0, 0)
    found = chain.in_best_chain(draft, row.block_hash)
    return 0 if found is None else chain.depth_of(draft, found.height)


def _report(view: LedgerView, index: int) -> AnchorReport:
    body = view.body(index)
    if body is None or leaf_kind(view.leaf(index)) is not LeafKind.INSTRUCTION:
        raise VerificationError(f"leaf {index} is no report of an anchor, or its body is not here")
    return AnchorReport.decode(body[SALT_BYTES:])


def anchored_notes(view: LedgerView, anchor_id: int) -> AnchoredNotes | None:
    """Return an anchor with all its notes, or None where there is none of this id.

    Raises: VerificationError: a note is not here as it was anchored, so that another replica must be asked.
    """
    for key, value in view.scan(Table.ANCHORS):
        anchor = Anchor.decode(value)
        if anchor.begun_index == anchor_id:
            listed = _report(view, anchor.begun_index).checkpoints
            return AnchoredNotes(
                _row(view, key, anchor),
                tuple(digest for _, digest in listed),
                tuple(_note(view, size, digest) for size, digest in listed),
                _report(view, anchor.mined_index) if anchor.state in MINED else None,
            )
    return None


def _note(view: LedgerView, size: int, digest: bytes) -> bytes:
    covering = view.checkpoint_covering(size)
    # Replicas may hold a note with other cosignatures, or none of this size: the anchored bytes count.
    if covering is None or covering[0] != size or hashlib.sha256(covering[1]).digest() != digest:
        raise VerificationError(f"the note of {size} leaves is not held here as it was anchored")
    return covering[1]
