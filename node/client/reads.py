"""Reading: lists, cycles, proposals, status.

Lives here: the operations that read and follow pages. May not live here: proofs (trust.py), writing.

What is returned are the same values that the node's queries make (node.queries); amounts are integers of smallest
units. Lists come whole; `rows_max` cuts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from clearing.consensus import light_block
from clearing.errors import DecodeError
from clearing.handlers.reasons import Explanation
from clearing.records.leaves import CycleCutOffLeaf, CycleNettedLeaf, LeafKind, leaf_kind
from clearing.rules.positions import Position
from clearing.types import CycleState, InstructionState, ObligationState
from node import wire, wire_bitcoin, wire_netting
from node.anchor_queries import AnchorRow
from node.client.calls import Call, Operation
from node.client.errors import BadAnswerError
from node.client.trust import ANCHOR, AUDIT, OPERATOR, PARTICIPANT, Trust
from node.netting_queries import UnsettledRow
from node.pb.v1 import anchor_pb2, audit_pb2, operator_pb2, participant_pb2
from node.queries import (
    PAGE_ROWS_MAX,
    CycleAssetRow,
    CycleRow,
    ObligationFilter,
    ObligationRow,
    PositionFilter,
    ProposalRow,
    SettlementFilter,
    SettlementRow,
)
from node.queries_bitcoin import LegRow, MinedCoin
from node.services.facade import AnchoringStatus, BlockCommit, NodeStatus
from node.wire_anchors import AnchorProofs, anchor_of, anchoring_of, proofs_of
from node.wire_nodes import status_of

T = TypeVar("T")


class Reader:
    """Operations that read; `everyone` asks for all parties' rows and is for supervisors."""

    def __init__(self, trust: Trust) -> None:
        """Read from nodes that `trust` has checked."""
        self._trust = trust

    def block_commit(self, height: int) -> Operation[BlockCommit]:
        """Return what the validators have signed of a block; to be verified by the caller.

        Raises: BadAnswerError: it is no signed header.
        """
        answer = yield Call(
            f"{AUDIT}GetBlockCommit",
            audit_pb2.GetBlockCommitRequest(height=height),
            audit_pb2.GetBlockCommitResponse,
        )
        try:
            signed = light_block.decode(answer.light_block)
        except DecodeError as error:
            raise BadAnswerError(f"the commit is malformed: {error}") from error
        return BlockCommit(answer.engine_height, signed, answer.validators_index)

    def obligations(
        self, wanted: ObligationFilter, *, everyone: bool, rows_max: int | None
    ) -> Operation[tuple[ObligationRow, ...]]:
        """List obligations, by submission and item; `wanted.participant` counts for `everyone` only."""
        fields = _given(
            submission=wanted.submission,
            counterparty=wanted.counterparty,
            asset=wanted.asset,
            cycle=wanted.cycle,
            states=_numbers(wanted.states),
        )
        if everyone:
            request: Any = audit_pb2.QueryObligationsRequest(
                **fields, **_given(participant=wanted.participant)
            )
            call = Call(f"{AUDIT}QueryObligations", request, audit_pb2.QueryObligationsResponse)
        else:
            request = participant_pb2.ListObligationsRequest(**fields)
            call = Call(
                f"{PARTICIPANT}ListObligations", request, participant_pb2.ListObligationsResponse
            )
        return self._pages(call, "obligations", wire.obligation_of, rows_max)

    def positions(
        self, wanted: PositionFilter, *, everyone: bool, rows_max: int | None
    ) -> Operation[tuple[Position, ...]]:
        """List positions, by participant and asset; `wanted.participant` counts for `everyone` only."""
        fields = _given(asset=wanted.asset)
        if everyone:
            request: Any = audit_pb2.QueryPositionsRequest(
                **fields, **_given(participant=wanted.participant)
            )
            call = Call(f"{AUDIT}QueryPositions", request, audit_pb2.QueryPositionsResponse)
        else:
            request = participant_pb2.ListPositionsRequest(**fields)
            call = Call(
                f"{PARTICIPANT}ListPositions", request, participant_pb2.ListPositionsResponse
            )
        return self._pages(call, "positions", wire.position_of, rows_max)

    def instructions(
        self, wanted: SettlementFilter, *, everyone: bool, rows_max: int | None
    ) -> Operation[tuple[SettlementRow, ...]]:
        """List settlement instructions, by cycle and number; participant and asset count for `everyone` only."""
        states: list[InstructionState] = list(wanted.states)
        fields = _given(cycle=wanted.cycle, states=_numbers(tuple(states)))
        if everyone:
            request: Any = audit_pb2.QueryInstructionsRequest(
                **fields, **_given(participant=wanted.participant, asset=wanted.asset)
            )
            call = Call(f"{AUDIT}QueryInstructions", request, audit_pb2.QueryInstructionsResponse)
        else:
            request = participant_pb2.ListInstructionsRequest(**fields)
            call = Call(
                f"{PARTICIPANT}ListInstructions", request, participant_pb2.ListInstructionsResponse
            )
        return self._pages(call, "instructions", wire.settlement_of, rows_max)

    def cycles(
        self, states: tuple[CycleState, ...], *, rows_max: int | None
    ) -> Operation[tuple[CycleRow, ...]]:
        """List cycles, by number."""
        request = participant_pb2.ListCyclesRequest(**_given(states=_numbers(states)))
        call = Call(f"{PARTICIPANT}ListCycles", request, participant_pb2.ListCyclesResponse)
        return self._pages(call, "cycles", wire.cycle_of, rows_max)

    def cycle_begun_by(self, log_index: int) -> Operation[int]:
        """Return the number of the cycle that a recorded RUN_CYCLE or RECAST_CYCLE began; the node's word."""
        yield from self._trust.ready()
        # What a transaction causes follows it: here the cycle's first leaf.
        leaf, _ = yield from self._trust.leaf(log_index + 1, log_index + 2)
        return _read(_cycle_in, leaf)

    def cycle(
        self, number: int, *, everyone: bool
    ) -> Operation[tuple[CycleRow, tuple[CycleAssetRow, ...]]]:
        """Return one cycle and its result by asset: everybody's net positions, or the caller's own."""
        yield from self._trust.ready()
        if not everyone:
            request = participant_pb2.GetCycleRequest(cycle=number)
            answer = yield Call(f"{PARTICIPANT}GetCycle", request, participant_pb2.GetCycleResponse)
            return _read(wire.cycle_of, answer.cycle), _read_all(wire.cycle_asset_of, answer.assets)
        query = audit_pb2.QueryCycleRequest(cycle=number, page_size=PAGE_ROWS_MAX)
        assets: dict[int, CycleAssetRow] = {}
        while True:
            answer = yield Call(f"{AUDIT}QueryCycle", query, audit_pb2.QueryCycleResponse)
            for row in _read_all(wire.cycle_asset_of, answer.assets):
                # An asset that the page's end cut comes again, with its further rows.
                before = assets.get(row.asset, replace(row, rows=(), potentials={}))
                assets[row.asset] = replace(
                    row,
                    rows=before.rows + row.rows,
                    potentials={**before.potentials, **row.potentials},
                )
            if not answer.next_page_token:
                return _read(wire.cycle_of, answer.cycle), tuple(assets.values())
            query.page_token = answer.next_page_token

    def network_id(self) -> Operation[bytes]:
        """Return the network's id, proven under a final checkpoint."""
        seen = yield from self._trust.ready()
        return seen.network_id

    def leg(self, cycle: int) -> Operation[LegRow]:
        """Return the Bitcoin leg of a cycle."""
        yield from self._trust.ready()
        request = participant_pb2.GetLegRequest(cycle=cycle)
        answer = yield Call(f"{PARTICIPANT}GetLeg", request, participant_pb2.GetLegResponse)
        return _read(lambda message: wire_bitcoin.leg_of(cycle, message), answer)

    def mined_coin(self) -> Operation[MinedCoin]:
        """Return declared mined coin: the caller's own, or everybody's for a supervisor."""
        yield from self._trust.ready()
        request = participant_pb2.ListMinedCoinRequest()
        answer = yield Call(
            f"{PARTICIPANT}ListMinedCoin", request, participant_pb2.ListMinedCoinResponse
        )
        return _read(wire_bitcoin.mined_of, answer)

    def unsettled(
        self, cycle: int, *, everyone: bool, rows_max: int | None
    ) -> Operation[tuple[UnsettledRow, ...]]:
        """List what a cycle did not discharge, by asset, submission and item."""
        if everyone:
            request: Any = audit_pb2.QueryUnsettledRequest(cycle=cycle)
            call = Call(f"{AUDIT}QueryUnsettled", request, audit_pb2.QueryUnsettledResponse)
        else:
            request = participant_pb2.ListUnsettledRequest(cycle=cycle)
            call = Call(
                f"{PARTICIPANT}ListUnsettled", request, participant_pb2.ListUnsettledResponse
            )
        return self._pages(call, "obligations", wire_netting.unsettled_of, rows_max)

    def reason(self, submission: int, item: int, *, everyone: bool) -> Operation[Explanation]:
        """Return why an obligation is not discharged, and the cheapest change that would discharge it."""
        yield from self._trust.ready()
        asked = {"submission": submission, "item": item}
        if everyone:
            query = audit_pb2.QueryReasonRequest(**asked)
            answer = yield Call(f"{AUDIT}QueryReason", query, audit_pb2.QueryReasonResponse)
        else:
            request = participant_pb2.GetReasonRequest(**asked)
            answer = yield Call(
                f"{PARTICIPANT}GetReason", request, participant_pb2.GetReasonResponse
            )
        return _read(wire_netting.reason_of, answer.reason)

    def proposals(
        self, log_index: int | None, *, rows_max: int | None
    ) -> Operation[tuple[ProposalRow, ...]]:
        """List governance proposals, by log index, or only the one at `log_index`."""
        request = audit_pb2.ListProposalsRequest(**_given(log_index=log_index))
        call = Call(f"{AUDIT}ListProposals", request, audit_pb2.ListProposalsResponse)
        return self._pages(call, "proposals", wire.proposal_of, rows_max)

    def anchors(self) -> Operation[tuple[AnchorRow, ...]]:
        """List anchors, by id."""
        yield from self._trust.ready()
        rows: list[AnchorRow] = []
        request = anchor_pb2.ListAnchorsRequest()
        while True:
            answer = yield Call(f"{ANCHOR}ListAnchors", request, anchor_pb2.ListAnchorsResponse)
            rows.extend(_read_all(anchor_of, answer.anchors))
            if not answer.next_id:
                return tuple(rows)
            request.first_id = answer.next_id

    def anchor_proofs(self, anchor: int) -> Operation[AnchorProofs]:
        """Return an anchor with its notes and proofs; verify before use."""
        yield from self._trust.ready()
        request = anchor_pb2.GetAnchorProofsRequest(id=anchor)
        answer = yield Call(f"{ANCHOR}GetAnchorProofs", request, anchor_pb2.GetAnchorProofsResponse)
        return _read(proofs_of, answer)

    def bitcoin_headers(self, start_height: int) -> Operation[bytes]:
        """Return block headers from a height on, as the node's Bitcoin node has them; they are to be verified."""
        request = anchor_pb2.GetBitcoinHeadersRequest(start_height=start_height)
        answer = yield Call(
            f"{ANCHOR}GetBitcoinHeaders", request, anchor_pb2.GetBitcoinHeadersResponse
        )
        return bytes(answer.headers)

    def anchoring(self) -> Operation[AnchoringStatus | None]:
        """Return how the node's anchoring stands, None where it anchors nothing."""
        request = anchor_pb2.GetAnchoringStatusRequest()
        answer = yield Call(
            f"{ANCHOR}GetAnchoringStatus", request, anchor_pb2.GetAnchoringStatusResponse
        )
        return _read(anchoring_of, answer)

    def anchor_now(self) -> Operation[int]:
        """Have the node anchor what is due; returns how many checkpoints wait."""
        answer = yield Call(
            f"{ANCHOR}AnchorNow", anchor_pb2.AnchorNowRequest(), anchor_pb2.AnchorNowResponse
        )
        return int(answer.due)

    def status(self) -> Operation[NodeStatus]:
        """Return how the node stands; asks nothing else of it, so that a degraded node answers too."""
        request = operator_pb2.GetStatusRequest()
        answer = yield Call(f"{OPERATOR}GetStatus", request, operator_pb2.GetStatusResponse)
        return _read(status_of, answer)

    def _pages(
        self, call: Call, field: str, read: Callable[[Any], T], rows_max: int | None
    ) -> Operation[tuple[T, ...]]:
        """Follow the pages of `call` until there is none, or `rows_max` rows are there."""
        yield from self._trust.ready()
        rows: list[T] = []
        call.request.page_size = min(rows_max or PAGE_ROWS_MAX, PAGE_ROWS_MAX)
        while True:
            answer = yield call
            rows.extend(_read_all(read, getattr(answer, field)))
            if rows_max is not None and len(rows) >= rows_max:
                return tuple(rows[:rows_max])
            if not answer.next_page_token:
                return tuple(rows)
            call.request.page_token = answer.next_page_token


def _cycle_in(leaf: bytes) -> int:
    kind = CycleCutOffLeaf if leaf_kind(leaf) is LeafKind.CYCLE_CUT_OFF else CycleNettedLeaf
    return kind.decode(leaf).cycle


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are set, for a request in which the others are left out."""
    return {name: value for name, value in fields.items() if value is not None}


def _numbers(
    states: tuple[ObligationState, ...] | tuple[InstructionState, ...] | tuple[CycleState, ...],
) -> list[int]:
    return [int(state) for state in states]


def _read(read: Callable[[Any], T], message: Any) -> T:
    try:
        return read(message)
    except DecodeError as error:
        raise BadAnswerError(f"the answer is malformed: {error}") from error


def _read_all(read: Callable[[Any], T], messages: Any) -> tuple[T, ...]:
    return tuple(_read(read, message) for message in messages)
