# ruff: noqa: N802 - the methods of a servicer are named by the .proto file
"""AnchorService: anchors, their proofs, and how this node's anchoring stands.

Lives here: the handlers of anchor.proto. May not live here: queries (anchor_queries.py), proofs' bytes, Bitcoin.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearing.errors import VerificationError
from clearing.rules.anchors import MINED
from node.anchor_queries import (
    PAGE_DEFAULT,
    PAGE_MAX,
    AnchorRow,
    anchored_notes,
    anchors,
    depth_in_headers,
)
from node.pb.v1 import anchor_pb2, anchor_pb2_grpc
from node.rpc_errors import Refusal, refusal
from node.services.common import Reading
from node.services.facade import Anchoring, Ledger, LedgerView
from node.wire_anchors import anchor_message, anchoring_message, proofs_message


class AnchorService(anchor_pb2_grpc.AnchorServiceServicer):
    """The handlers; comments in anchor.proto say what each call promises."""

    def __init__(self, ledger: Ledger, anchoring: Anchoring | None) -> None:
        """Serve `ledger`; `anchoring` is this node's own, None where it anchors nothing."""
        self._reading = Reading(ledger)
        self._ledger = ledger
        self._anchoring = anchoring

    async def ListAnchors(self, request: anchor_pb2.ListAnchorsRequest, context: Any) -> Any:
        """List anchors by id."""
        del context
        self._reading.require_state()
        at_most = min(request.page_size or PAGE_DEFAULT, PAGE_MAX)

        def read(view: LedgerView) -> tuple[list[Any], int]:
            rows, next_id = anchors(view, request.first_id, at_most)
            return [anchor_message(self._as_seen(view, row)) for row in rows], next_id

        found, next_id = await self._reading.view(read)
        return anchor_pb2.ListAnchorsResponse(anchors=found, next_id=next_id)

    def _as_seen(self, view: LedgerView, row: AnchorRow) -> AnchorRow:
        """Return the anchor with the confirmations by the ledger's own headers, else those that this node's anchoring sees."""
        depth = depth_in_headers(view, self._ledger.registry, row)
        if depth is not None:
            return replace(row, confirmations=depth)
        tip = self._anchoring.tip_height() if self._anchoring else -1
        if row.state not in MINED or tip < row.height:
            return row
        return replace(row, confirmations=tip - row.height + 1)

    async def GetAnchorProofs(
        self, request: anchor_pb2.GetAnchorProofsRequest, context: Any
    ) -> Any:
        """Return an anchor's notes and proofs."""
        del context
        self._reading.require_state()

        def read(view: LedgerView) -> Any:
            try:
                found = anchored_notes(view, request.id)
            except VerificationError as error:
                raise refusal(Refusal.NOT_FOUND, f"{error}; ask the node that anchors") from error
            if found is None:
                raise refusal(Refusal.NOT_FOUND, f"no anchor has the id {request.id}")
            return proofs_message(replace(found, row=self._as_seen(view, found.row)))

        return await self._reading.view(read)

    async def GetBitcoinHeaders(
        self, request: anchor_pb2.GetBitcoinHeadersRequest, context: Any
    ) -> Any:
        """Return block headers as the Bitcoin node has them."""
        del context
        if self._anchoring is None:
            raise refusal(Refusal.NOT_FOUND, "this node anchors nothing; ask the one that does")
        try:
            headers = await self._anchoring.bitcoin_headers(request.start_height)
        except VerificationError as error:
            raise refusal(Refusal.BITCOIN_UNAVAILABLE, str(error)) from error
        return anchor_pb2.GetBitcoinHeadersResponse(headers=headers)

    async def GetAnchoringStatus(
        self, request: anchor_pb2.GetAnchoringStatusRequest, context: Any
    ) -> Any:
        """Return how this node's anchoring stands."""
        del request, context
        status = self._anchoring.status() if self._anchoring else None
        return anchoring_message(status)

    async def AnchorNow(self, request: anchor_pb2.AnchorNowRequest, context: Any) -> Any:
        """Anchor what is due as soon as it may be."""
        del request, context
        if self._anchoring is None:
            raise refusal(Refusal.NOT_FOUND, "this node anchors nothing; ask the one that does")
        return anchor_pb2.AnchorNowResponse(due=self._anchoring.anchor_now())
