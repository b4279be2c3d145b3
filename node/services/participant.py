# ruff: noqa: N802 - the methods of a servicer are named by the .proto file
"""ParticipantService: record signed transactions, show a participant its own, make receipts.

Lives here: the handlers of participant.proto. May not live here: rules, queries, who may call (auth.py).

Invariant: a handler reads only what names `caller().number` as a party; the filters are set here, never by the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from clearing.errors import DecodeError, RejectCode
from clearing.log import merkle
from clearing.log.note import Note
from clearing.receipt import item_tree, make_receipt
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import SECRET_BYTES, items_view
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction, actor_of, decode_transaction
from clearing.types import CycleState, InstructionState, ObligationState
from node import queries, queries_bitcoin, wire, wire_bitcoin, wire_netting
from node.auth import Caller, caller
from node.pb.v1 import participant_pb2, participant_pb2_grpc, types_pb2
from node.rpc_errors import Refusal, malformed, refusal, rejection
from node.services.common import (
    Paging,
    Reading,
    bad_request,
    final_note,
    final_size,
    log_size,
)
from node.services.facade import Ledger, LedgerView, OutcomeUnknownError
from node.services.reasons import reason, unsettled_page, with_potentials
from node.services.trees import ItemTrees

CLIENT_ID_BYTES = 16


UNKNOWN_RETRY_MS = 500


class ParticipantService(participant_pb2_grpc.ParticipantServiceServicer):
    """The handlers; comments in participant.proto say what each call promises."""

    def __init__(self, ledger: Ledger) -> None:
        """Serve `ledger`."""
        self._ledger = ledger
        self._reading = Reading(ledger)
        self._trees = ItemTrees()

    async def Submit(self, request: participant_pb2.SubmitRequest, context: Any) -> Any:
        """Record a submission."""
        del context
        submission = _own_transaction(request.transaction, Submission, caller())
        receipt = await self._record(submission, submission.count)
        return participant_pb2.SubmitResponse(receipt=receipt)

    async def Instruct(self, request: participant_pb2.InstructRequest, context: Any) -> Any:
        """Record an instruction."""
        del context
        instruction = _own_transaction(request.transaction, Instruction, caller())
        receipt = await self._record(instruction, 0)
        return participant_pb2.InstructResponse(receipt=receipt)

    async def _record(self, transaction: Transaction, items: int) -> participant_pb2.Receipt:
        try:
            outcome = await self._ledger.submit(transaction)
        except OutcomeUnknownError as error:
            raise refusal(Refusal.OUTCOME_UNKNOWN, str(error), UNKNOWN_RETRY_MS) from error
        if outcome.code is not RejectCode.OK:
            raise rejection(outcome)
        state = participant_pb2.Receipt(
            log_index=outcome.index,
            items=items,
            state=types_pb2.REQUEST_STATE_RECORDED,
            repeated=outcome.repeated,
        )
        # A fresh transaction cannot be final yet; a repeated one may be since long.
        if outcome.repeated and await self._reading.view(final_size) > outcome.index:
            state.state = types_pb2.REQUEST_STATE_CHECKPOINTED
        return state

    async def GetRequest(self, request: participant_pb2.GetRequestRequest, context: Any) -> Any:
        """Say what became of an earlier request."""
        del context
        self._reading.require_state()
        actor = caller().number
        with bad_request():
            client_id = wire.exactly(request.client_id, CLIENT_ID_BYTES, "client_id")

        def read(view: LedgerView) -> participant_pb2.GetRequestResponse:
            receipt = participant_pb2.Receipt(state=types_pb2.REQUEST_STATE_UNKNOWN)
            index = queries.request(view, actor, client_id)
            if index is not None:
                receipt = _receipt_of(view, index)
            return participant_pb2.GetRequestResponse(
                receipt=receipt, as_of=wire.head_message(view.tip)
            )

        return await self._reading.view(read)

    async def ListObligations(
        self, request: participant_pb2.ListObligationsRequest, context: Any
    ) -> Any:
        """List the caller's obligations."""
        del context
        self._reading.require_state()
        number = caller().number
        page = Paging.of(request, number, queries.ITEM_KEY_BYTES)
        with bad_request():
            wanted = queries.ObligationFilter(
                participant=number,
                submission=wire.optional(request, "submission"),
                counterparty=wire.optional(request, "counterparty"),
                asset=wire.optional(request, "asset"),
                cycle=wire.optional(request, "cycle"),
                states=wire.enums_of(ObligationState, request.states, "states"),
            )

        def read(view: LedgerView) -> participant_pb2.ListObligationsResponse:
            found = queries.obligations(view, wanted, page.start, page.rows_max)
            return participant_pb2.ListObligationsResponse(
                obligations=map(wire.obligation_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def ListPositions(
        self, request: participant_pb2.ListPositionsRequest, context: Any
    ) -> Any:
        """List the caller's positions."""
        del context
        self._reading.require_state()
        number = caller().number
        page = Paging.of(request, number, queries.POSITION_KEY_BYTES)
        wanted = queries.PositionFilter(participant=number, asset=wire.optional(request, "asset"))

        def read(view: LedgerView) -> participant_pb2.ListPositionsResponse:
            found = queries.positions(view, wanted, page.start, page.rows_max)
            return participant_pb2.ListPositionsResponse(
                positions=map(wire.position_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def ListInstructions(
        self, request: participant_pb2.ListInstructionsRequest, context: Any
    ) -> Any:
        """List the caller's settlement instructions; of cycles that it settles as agent, everybody's."""
        del context
        self._reading.require_state()
        number = caller().number
        page = Paging.of(request, number, queries.SETTLEMENT_KEY_BYTES)
        with bad_request():
            wanted = queries.SettlementFilter(
                concerning=number,
                cycle=wire.optional(request, "cycle"),
                states=wire.enums_of(InstructionState, request.states, "states"),
            )

        def read(view: LedgerView) -> participant_pb2.ListInstructionsResponse:
            found = queries.settlements(view, wanted, page.start, page.rows_max)
            return participant_pb2.ListInstructionsResponse(
                instructions=map(wire.settlement_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def ListCycles(self, request: participant_pb2.ListCyclesRequest, context: Any) -> Any:
        """List all cycles."""
        del context
        self._reading.require_state()
        page = Paging.of(request, caller().number, queries.CYCLE_KEY_BYTES)
        with bad_request():
            states = wire.enums_of(CycleState, request.states, "states")

        def read(view: LedgerView) -> participant_pb2.ListCyclesResponse:
            found = queries.cycles(view, states, final_size(view), page.start, page.rows_max)
            return participant_pb2.ListCyclesResponse(
                cycles=map(wire.cycle_message, found.rows),
                next_page_token=page.token(found.next_key),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def GetCycle(self, request: participant_pb2.GetCycleRequest, context: Any) -> Any:
        """Show one cycle with the caller's own net positions."""
        del context
        self._reading.require_state()
        number = caller().number

        def read(view: LedgerView) -> participant_pb2.GetCycleResponse:
            row = queries.cycle(view, request.cycle, final_size(view))
            if row is None:
                raise refusal(Refusal.NOT_FOUND, f"there is no cycle {request.cycle}")
            found = queries.cycle_results(view, row.number, number)
            return participant_pb2.GetCycleResponse(
                cycle=wire.cycle_message(row),
                assets=map(wire.cycle_asset_message, with_potentials(view, found.rows)),
                as_of=wire.head_message(view.tip),
            )

        return await self._reading.view(read)

    async def GetLeg(self, request: participant_pb2.GetLegRequest, context: Any) -> Any:
        """Show the Bitcoin leg of a cycle to its parties and to supervisors."""
        del context
        self._reading.require_state()
        who = caller()

        def read(view: LedgerView) -> participant_pb2.GetLegResponse:
            row = queries_bitcoin.leg(view, request.cycle)
            if row is None or not (who.is_supervisor or who.number in row.parties):
                raise refusal(Refusal.NOT_FOUND, f"cycle {request.cycle} has no leg of yours")
            answer = wire_bitcoin.leg_message(row)
            answer.as_of.CopyFrom(wire.head_message(view.tip))
            return answer

        return await self._reading.view(read)

    async def ListMinedCoin(
        self, request: participant_pb2.ListMinedCoinRequest, context: Any
    ) -> Any:
        """List declared mined coin: the caller's own, or everybody's for a supervisor."""
        del request, context
        self._reading.require_state()
        who = caller()

        def read(view: LedgerView) -> participant_pb2.ListMinedCoinResponse:
            found = queries_bitcoin.mined_coin(view, None if who.is_supervisor else who.number)
            answer = wire_bitcoin.mined_message(found)
            answer.as_of.CopyFrom(wire.head_message(view.tip))
            return answer

        return await self._reading.view(read)

    async def ListUnsettled(
        self, request: participant_pb2.ListUnsettledRequest, context: Any
    ) -> Any:
        """List the caller's obligations that a cycle did not discharge wholly."""
        del context
        number = caller().number
        answer = participant_pb2.ListUnsettledResponse
        return await unsettled_page(self._reading, request, number, number, answer)

    async def GetReason(self, request: participant_pb2.GetReasonRequest, context: Any) -> Any:
        """Say why an obligation of the caller is not discharged."""
        del context
        found = await reason(self._reading, request.submission, request.item, caller().number)
        return participant_pb2.GetReasonResponse(reason=wire_netting.reason_message(found))

    async def GetReceipt(self, request: participant_pb2.GetReceiptRequest, context: Any) -> Any:
        """Make a receipt."""
        self._reading.require_state()
        who = caller()
        item = wire.optional(request, "item")
        # Rights first: who may not have the receipt does not wait for it either.
        await self._reading.view(lambda view: _receiptable(view, request.log_index, item, who))
        await self._reading.await_final(request.log_index, context)

        def read(view: LedgerView) -> participant_pb2.GetReceiptResponse:
            transaction = _receiptable(view, request.log_index, item, who)
            tree = None
            if isinstance(transaction, Submission) and item is not None:
                tree = self._trees.get(request.log_index, lambda: item_tree(transaction))
            text = make_receipt(
                network_id=self._ledger.network_id,
                index=request.log_index,
                transaction=transaction,
                checkpoint=Note.parse(final_note(view)[1]),
                nodes=view,
                item=item,
                tree=tree,
            )
            return participant_pb2.GetReceiptResponse(receipt=text.decode())

        return await self._reading.view(read)

    async def WatchCheckpoints(
        self, request: participant_pb2.WatchCheckpointsRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Send every new final checkpoint."""
        del context
        known = request.since_size
        size = await self._reading.view(log_size)
        if known > size:
            raise refusal(Refusal.ROLLBACK, f"this node's log has {size} leaves, not {known}")
        while True:
            await self._ledger.final_beyond(known)
            read = partial(_next_checkpoint, known=known)
            known, response = await self._reading.view(read)
            yield response


def _own_transaction(data: bytes, kind: type[Any], who: Caller) -> Any:
    """Parse a transaction of the wanted kind, signed in the caller's own name.

    Raises: RpcError: MALFORMED, or NOT_AUTHORISED for another participant's.
    """
    try:
        transaction = decode_transaction(data)
    except DecodeError as error:
        raise malformed(error) from error
    if not isinstance(transaction, kind):
        call = "Submit" if isinstance(transaction, Submission) else "Instruct"
        raise malformed(DecodeError(f"send this transaction by {call}"))
    # A signed transaction seen elsewhere must not be played in by somebody else.
    if actor_of(transaction) != who.number:
        raise refusal(
            Refusal.NOT_AUTHORISED,
            f"signed as participant {actor_of(transaction)}, connected as {who.number}",
        )
    return transaction


def _receipt_of(view: LedgerView, index: int) -> participant_pb2.Receipt:
    leaf = view.leaf(index)
    is_submission = leaf_kind(leaf) is LeafKind.SUBMISSION
    is_final = final_size(view) > index
    return participant_pb2.Receipt(
        log_index=index,
        items=Submission.of_leaf(leaf).count if is_submission else 0,
        state=types_pb2.REQUEST_STATE_CHECKPOINTED
        if is_final
        else types_pb2.REQUEST_STATE_RECORDED,
    )


def _receiptable(view: LedgerView, index: int, item: int | None, who: Caller) -> Transaction:
    """Return the transaction at `index` with its body, if the caller may have its receipt.

    Raises: RpcError: NOT_FOUND; whether another party's transaction exists is not said.
    """
    missing = refusal(Refusal.NOT_FOUND, f"no such transaction of yours at log index {index}")
    try:
        leaf = view.leaf(index)
    except KeyError:
        raise missing from None
    kind, body = leaf_kind(leaf), view.body(index) or b""
    if kind is LeafKind.INSTRUCTION and item is None:
        instruction = Instruction.of_leaf(leaf, body)
        if who.is_supervisor or instruction.actor == who.number:
            return instruction
    if kind is LeafKind.SUBMISSION:
        submission = Submission.of_leaf(leaf, body)
        if item is None:
            if who.is_supervisor or submission.submitter == who.number:
                return submission
        elif _names(submission, item, who):
            return submission
    raise missing


def _names(submission: Submission, item: int, who: Caller) -> bool:
    """Return whether there is such an item here, and the caller is a party to it or a supervisor."""
    if not submission.body or item >= submission.count:
        return False
    row = items_view(memoryview(submission.body)[SECRET_BYTES:])[item]
    return who.is_supervisor or who.number in (int(row["debtor"]), int(row["creditor"]))


def _next_checkpoint(
    view: LedgerView, known: int
) -> tuple[int, participant_pb2.WatchCheckpointsResponse]:
    """Return the greatest final checkpoint's size, and the message that takes a client there from size `known`."""
    size, note = final_note(view)
    response = participant_pb2.WatchCheckpointsResponse(
        checkpoint=wire.checkpoint_message(note, final=True)
    )
    if known:
        path = merkle.consistency_proof(known, size, view)
        response.consistency.CopyFrom(wire.consistency_message(known, size, path))
    return size, response
