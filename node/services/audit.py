# ruff: noqa: N802 - the methods of a servicer are named by the .proto file
"""AuditService: heads, proofs and leaves for every participant, everybody's data for supervisors.

Lives here: the handlers of audit.proto. May not live here: queries, proof algorithms, who may call (auth.py).

Invariant: what is not guarded by Rule.SUPERVISOR or by the caller's own number holds nothing but leaves, hashes,
registers and governance, which are everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from clearing.consensus import light_block
from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.position_proof import make_position_proof
from clearing.types import InstructionState, ObligationState
from node import queries, wire, wire_netting
from node.auth import caller
from node.pb.v1 import audit_pb2, audit_pb2_grpc
from node.rpc_errors import Refusal, refusal
from node.services.common import (
    NOT_YET_FINAL_RETRY_MS,
    Paging,
    Reading,
    bad_request,
    final_note,
    final_size,
    log_size,
)
from node.services.facade import Ledger, LedgerView, PositionProof
from node.services.reasons import reason, unsettled_page, with_potentials

LEAVES_PER_MESSAGE_MAX = 4_096
LEAF_BYTES_PER_MESSAGE_MAX = 1 << 20


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """The handlers; comments in audit.proto say what each call promises."""

    def __init__(self, ledger: Ledger) -> None:
        """Serve `ledger`."""
        self._ledger = ledger
        self._reading = Reading(ledger)

    async def GetCheckpoint(self, request: audit_pb2.GetCheckpointRequest, context: Any) -> Any:
        """Return the newest checkpoint and its consistency with the caller's."""
        del context
        latest = self._ledger.latest_note() if request.allow_unfinal else None

        def read(view: LedgerView) -> audit_pb2.GetCheckpointResponse:
            return _checkpoint_since(view, latest, request.since_size)

        return await self._reading.view(read)

    async def GetInclusionProof(
        self, request: audit_pb2.GetInclusionProofRequest, context: Any
    ) -> Any:
        """Prove that a leaf is in the log."""
        del context

        def read(view: LedgerView) -> audit_pb2.GetInclusionProofResponse:
            size = _size_in(view, request.size)
            if request.index >= size:
                raise refusal(
                    Refusal.NOT_FOUND, f"a tree of {size} leaves has none {request.index}"
                )
            response = audit_pb2.GetInclusionProofResponse(leaf=view.leaf(request.index))
            response.inclusion.index = request.index
            response.inclusion.size = size
            response.inclusion.path.extend(merkle.inclusion_proof(request.index, size, view))
            return response

        return await self._reading.view(read)

    async def GetConsistencyProof(
        self, request: audit_pb2.GetConsistencyProofRequest, context: Any
    ) -> Any:
        """Prove that one size of the log extends another."""
        del context

        def read(view: LedgerView) -> audit_pb2.GetConsistencyProofResponse:
            new_size = _size_in(view, request.new_size)
            if not 0 < request.old_size <= new_size:
                raise refusal(Refusal.BAD_REQUEST, f"old_size must be 1 to {new_size}")
            path = merkle.consistency_proof(request.old_size, new_size, view)
            proof = wire.consistency_message(request.old_size, new_size, path)
            return audit_pb2.GetConsistencyProofResponse(consistency=proof)

        return await self._reading.view(read)

    async def GetLeaves(
        self, request: audit_pb2.GetLeavesRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Stream leaves; each message reads a view of its own."""
        del context
        end = request.end_index or await self._reading.view(final_size)
        size = await self._reading.view(log_size)
        if end > size or request.start_index > end:
            raise refusal(Refusal.NOT_FOUND, f"the log has leaves 0 to {size - 1}")
        first = request.start_index
        while first < end:
            leaves = await self._reading.view(partial(_leaves, first=first, end=end))
            yield audit_pb2.GetLeavesResponse(first_index=first, leaves=leaves)
            first += len(leaves)

    async def GetPositionProof(
        self, request: audit_pb2.GetPositionProofRequest, context: Any
    ) -> Any:
        """Prove a position or its absence."""
        self._reading.require_state()
        who = caller()
        if request.participant != who.number and not who.is_supervisor:
            raise refusal(
                Refusal.NOT_AUTHORISED, "another participant's position is not yours to see"
            )
        try:
            proof = await asyncio.to_thread(
                self._ledger.position_proof, request.participant, request.asset
            )
        except VerificationError as error:
            raise refusal(Refusal.NOT_FOUND, str(error)) from error
        await self._reading.await_final(proof.seal_index, context)
        read = partial(self._position_proof, request=request, proof=proof)
        return await self._reading.view(read)

    def _position_proof(
        self, view: LedgerView, request: audit_pb2.GetPositionProofRequest, proof: PositionProof
    ) -> audit_pb2.GetPositionProofResponse:
        text = make_position_proof(
            network_id=self._ledger.network_id,
            seal_index=proof.seal_index,
            seal_leaf=view.leaf(proof.seal_index),
            participant=request.participant,
            asset=request.asset,
            position=proof.position,
            path=proof.path,
            checkpoint=Note.parse(final_note(view)[1]),
            nodes=view,
        )
        return audit_pb2.GetPositionProofResponse(proof=text.decode())

    async def GetRegistry(self, request: audit_pb2.GetRegistryRequest, context: Any) -> Any:
        """Return what governance has set."""
        del request, context
        # Taken before the view: the moment that is named is never older than what is shown.
        registry = self._ledger.registry

        def read(view: LedgerView) -> audit_pb2.GetRegistryResponse:
            limit = self._ledger.transaction_bytes_max
            return wire.registry_message(registry, self._ledger.network_id, view.tip, limit)

        return await self._reading.view(read)

    async def GetBlockCommit(self, request: audit_pb2.GetBlockCommitRequest, context: Any) -> Any:
        """Return what the validators have signed of a block."""
        del context
        try:
            found = await self._ledger.block_commit(request.height)
        except VerificationError as error:
            raise refusal(Refusal.NOT_FOUND, str(error)) from error
        return audit_pb2.GetBlockCommitResponse(
            height=request.height,
            engine_height=found.engine_height,
            light_block=light_block.encode(found.signed),
            validators_index=found.validators_index,
        )

    async def ListProposals(self, request: audit_pb2.ListProposalsRequest, context: Any) -> Any:
        """List governance proposals."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.PROPOSAL_KEY_BYTES)
        wanted = wire.optional(request, "log_index")
        lifetime_ms = self._ledger.registry.parameters.proposal_lifetime_ms

        def read(view: LedgerView) -> audit_pb2.ListProposalsResponse:
            time_ms = 0 if view.tip is None else view.tip.time_ms
            found = queries.proposals(
                view, time_ms, lifetime_ms, page.start, page.rows_max, log_index=wanted
            )
            return audit_pb2.ListProposalsResponse(
                proposals=map(wire.proposal_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def QueryObligations(
        self, request: audit_pb2.QueryObligationsRequest, context: Any
    ) -> Any:
        """List everybody's obligations."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.ITEM_KEY_BYTES)
        with bad_request():
            wanted = queries.ObligationFilter(
                participant=wire.optional(request, "participant"),
                submission=wire.optional(request, "submission"),
                counterparty=wire.optional(request, "counterparty"),
                asset=wire.optional(request, "asset"),
                cycle=wire.optional(request, "cycle"),
                states=wire.enums_of(ObligationState, request.states, "states"),
            )

        def read(view: LedgerView) -> audit_pb2.QueryObligationsResponse:
            found = queries.obligations(view, wanted, page.start, page.rows_max)
            return audit_pb2.QueryObligationsResponse(
                obligations=map(wire.obligation_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def QueryPositions(self, request: audit_pb2.QueryPositionsRequest, context: Any) -> Any:
        """List everybody's positions."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.POSITION_KEY_BYTES)
        wanted = queries.PositionFilter(
            participant=wire.optional(request, "participant"),
            asset=wire.optional(request, "asset"),
        )

        def read(view: LedgerView) -> audit_pb2.QueryPositionsResponse:
            found = queries.positions(view, wanted, page.start, page.rows_max)
            return audit_pb2.QueryPositionsResponse(
                positions=map(wire.position_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def QueryInstructions(
        self, request: audit_pb2.QueryInstructionsRequest, context: Any
    ) -> Any:
        """List everybody's settlement instructions."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.SETTLEMENT_KEY_BYTES)
        with bad_request():
            wanted = queries.SettlementFilter(
                participant=wire.optional(request, "participant"),
                cycle=wire.optional(request, "cycle"),
                asset=wire.optional(request, "asset"),
                states=wire.enums_of(InstructionState, request.states, "states"),
            )

        def read(view: LedgerView) -> audit_pb2.QueryInstructionsResponse:
            found = queries.settlements(view, wanted, page.start, page.rows_max)
            return audit_pb2.QueryInstructionsResponse(
                instructions=map(wire.settlement_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def QueryCycle(self, request: audit_pb2.QueryCycleRequest, context: Any) -> Any:
        """Show one cycle with everybody's net positions."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.RESULT_KEY_BYTES)

        def read(view: LedgerView) -> audit_pb2.QueryCycleResponse:
            row = queries.cycle(view, request.cycle, final_size(view))
            if row is None:
                raise refusal(Refusal.NOT_FOUND, f"there is no cycle {request.cycle}")
            found = queries.cycle_results(view, row.number, None, page.start, page.rows_max)
            return audit_pb2.QueryCycleResponse(
                cycle=wire.cycle_message(row),
                assets=map(wire.cycle_asset_message, with_potentials(view, found.rows)),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def QueryUnsettled(self, request: audit_pb2.QueryUnsettledRequest, context: Any) -> Any:
        """List everybody's obligations that a cycle did not discharge wholly."""
        del context
        answer = audit_pb2.QueryUnsettledResponse
        return await unsettled_page(self._reading, request, caller().number, None, answer)

    async def QueryReason(self, request: audit_pb2.QueryReasonRequest, context: Any) -> Any:
        """Say why any obligation is not discharged."""
        del context
        found = await reason(self._reading, request.submission, request.item, None)
        return audit_pb2.QueryReasonResponse(reason=wire_netting.reason_message(found))


def _checkpoint_since(
    view: LedgerView, latest: bytes | None, since_size: int
) -> audit_pb2.GetCheckpointResponse:
    """Return the final checkpoint, or `latest` where that is greater, with its consistency with `since_size`."""
    final = view.latest_checkpoint()
    size, note = final or (0, b"")
    if latest is not None:
        latest_size = Checkpoint.parse(Note.parse(latest).text).size
        if latest_size > size:
            size, note, final = latest_size, latest, None
    if since_size > log_size(view):
        raise refusal(
            Refusal.ROLLBACK, f"this node's log has {log_size(view)} leaves, not {since_size}"
        )
    if not note or since_size > size:
        message = f"no checkpoint of {max(since_size, 1)} leaves or more is there yet"
        raise refusal(Refusal.NOT_YET_FINAL, message, NOT_YET_FINAL_RETRY_MS)
    response = audit_pb2.GetCheckpointResponse(
        checkpoint=wire.checkpoint_message(note, final=final is not None)
    )
    if since_size:
        path = merkle.consistency_proof(since_size, size, view)
        response.consistency.CopyFrom(wire.consistency_message(since_size, size, path))
    return response


def _size_in(view: LedgerView, size: int) -> int:
    """Return a tree size asked for, 0 meaning the greatest final checkpoint's.

    Raises: RpcError: NOT_FOUND beyond the log; NOT_YET_FINAL where 0 asks for what is not there yet.
    """
    if not size:
        return final_note(view)[0]
    if size > log_size(view):
        raise refusal(Refusal.NOT_FOUND, f"the log has {log_size(view)} leaves, not {size}")
    return size


def _leaves(view: LedgerView, first: int, end: int) -> list[bytes]:
    """Return leaves from `first` on, as many as fit one message, at least one."""
    leaves: list[bytes] = []
    room = LEAF_BYTES_PER_MESSAGE_MAX
    for index in range(first, min(end, first + LEAVES_PER_MESSAGE_MAX)):
        leaf = view.leaf(index)
        room -= len(leaf)
        if leaves and room < 0:
            break
        leaves.append(leaf)
    return leaves
