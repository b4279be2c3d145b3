"""The ledger as anchoring sees it: which checkpoints are due, and reports in the ledger's own form.

Lives here: reading final checkpoints from the node's store, turning an anchor into its report. May not live here: what a
report does (clearing/rules/anchors.py), signing and submitting it (worker.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.ots import commitment_of
from clearing.records.instruction import LAYOUT, InstructionKind
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rows import Table, key_u32
from clearing.rules.anchors import MINED, AnchorReport, AnchorState
from clearing.rules.anchors import Anchor as AnchorRow
from node.store import Store
from node.workers.anchoring.book import Anchor
from node.workers.anchoring.desk import Due
from node.workers.anchoring.network import Network
from node.workers.anchoring.proofs import digest_of, evidence_of


class LedgerSide:
    """Reads one node's store; a desk.Reporting. Each call opens a view of its own, from whichever thread."""

    def __init__(self, store: Store, network: Network, actor: Callable[[], int | None]) -> None:
        """Report on `network` as the participant whose registry number `actor` gives, None before it is registered."""
        self._store = store
        self._network = BitcoinNetwork[network.name]
        self._actor = actor
        self._digests: dict[int, bytes] = {}

    def due(self, after: int, at_most: int) -> Sequence[Due]:
        """Return final checkpoints of more than `after` leaves, ascending."""
        found: list[Due] = []
        with self._store.snapshot() as view:
            while len(found) < at_most:
                covering = view.checkpoint_covering(after + 1)
                if covering is None:
                    break
                after, note = covering
                if after not in self._digests:
                    self._digests[after] = digest_of(note)
                found.append(Due(after, self._digests[after]))
        for size in [size for size in self._digests if found and size < found[0].size]:
            del self._digests[size]
        return found

    def is_news(self, after: int, size: int) -> bool:
        """Return whether leaves `after` to `size` - 1 record anything besides seals and reports of anchors."""
        with self._store.snapshot() as view:
            return any(not _is_own(view.leaf(index)) for index in range(after, size))

    def last(self) -> tuple[int, int]:
        """Return number and greatest log size of the last anchor that the ledger knows of this node, zeros for none."""
        actor = self._actor()
        if actor is None:
            return 0, 0
        with self._store.snapshot() as view:
            rows = [
                (int.from_bytes(key[4:], "big"), AnchorRow.decode(value).last_size)
                for key, value in view.scan(Table.ANCHORS, key_u32(actor))
            ]
        return rows[-1] if rows else (0, 0)

    def commitment(self, digests: Sequence[bytes]) -> bytes:
        """Return the 32 bytes that anchor these digests."""
        return commitment_of(digests)

    def payload(self, anchor: Anchor) -> bytes:
        """Return the report of an anchor's state, to be signed."""
        place = anchor.place if anchor.state in MINED else None
        first = not anchor.statements
        return AnchorReport(
            state=anchor.state,
            network=self._network,
            number=anchor.number,
            sequence=len(anchor.statements),
            commitment=anchor.commitment,
            depth=anchor.depth,
            height=place.height if place else 0,
            txid=_txid(anchor),
            checkpoints=tuple(zip(anchor.sizes, anchor.digests, strict=True)) if first else (),
            header=place.header if place else b"",
            proof=evidence_of(place) if place else None,
        ).encode()


def _txid(anchor: Anchor) -> bytes:
    if anchor.state is AnchorState.LOST:
        return anchor.conflict_txid or bytes(32)
    if anchor.place is not None:
        return anchor.place.txid
    return anchor.newest.signed.txid if anchor.newest else bytes(32)


def _is_own(leaf: bytes) -> bool:
    kind = leaf_kind(leaf)
    if kind is LeafKind.INSTRUCTION:
        return bool(LAYOUT.decode(leaf)["instruction_kind"] == InstructionKind.REPORT_ANCHOR)
    return kind is LeafKind.SEAL
