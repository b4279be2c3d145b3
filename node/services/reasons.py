"""What participants and supervisors ask of netting in the same words: what is left over, and why.

Lives here: the reads that both services share. May not live here: rights (each service says whose data it shows), the
computation (clearing/handlers/reasons.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearing.handlers.reasons import Explanation
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import SECRET_BYTES, items_view
from clearing.records.submission import LEAF_BYTES
from node import netting_queries, queries, wire, wire_netting
from node.rpc_errors import Refusal, refusal
from node.services.common import Paging, Reading, log_size
from node.services.facade import LedgerView


def with_potentials(
    view: LedgerView, rows: tuple[queries.CycleAssetRow, ...]
) -> tuple[queries.CycleAssetRow, ...]:
    """Return results with the potentials of their set-off solutions."""
    return tuple(
        replace(row, potentials=netting_queries.potentials(view, row.solution_index))
        for row in rows
    )


async def unsettled_page(
    reading: Reading, request: Any, number: int, party: int | None, response: Any
) -> Any:
    """Return a page of what a cycle left; `number` is the caller's, `party` whose obligations, None for all."""
    reading.require_state()
    page = Paging.of(request, number, netting_queries.UNSETTLED_KEY_BYTES)

    def read(view: LedgerView) -> Any:
        if queries.cycle(view, request.cycle, 0) is None:
            raise refusal(Refusal.NOT_FOUND, f"there is no cycle {request.cycle}")
        found = netting_queries.unsettled(view, request.cycle, party, page.start, page.rows_max)
        return response(
            obligations=map(wire_netting.unsettled_message, found.rows),
            next_page_token=page.token(found.next_key),
            as_of=wire.head_message(view.tip),
        )

    return await reading.view(read)


async def reason(reading: Reading, submission: int, item: int, party: int | None) -> Explanation:
    """Return why an obligation is not discharged; `party` must be one side of it, None for anybody's."""
    reading.require_state()
    missing = refusal(Refusal.NOT_FOUND, f"there is no obligation {submission}:{item} of yours")
    if not await reading.view(lambda view: _is_shown(view, submission, item, party)):
        raise missing
    found = await reading.explain(submission, item)
    if found is None:
        raise missing
    return found


def _is_shown(view: LedgerView, submission: int, item: int, party: int | None) -> bool:
    if submission >= log_size(view):
        return False
    leaf = view.leaf(submission)
    if leaf_kind(leaf) is not LeafKind.SUBMISSION or len(leaf) != LEAF_BYTES:
        return False
    body = view.body(submission)
    if not body:
        return False
    items = items_view(memoryview(body)[SECRET_BYTES:])
    if item >= len(items):
        return False
    return party in (None, int(items["debtor"][item]), int(items["creditor"][item]))
