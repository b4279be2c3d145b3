"""What cycles left undischarged, and what their set-offs prove, out of the rows and bodies of one view.

Lives here: pages of unsettled obligations, potentials of solutions. May not live here: rights (services), what the
rows mean (clearing/rules/results.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clearing.codec import Layout, uint
from clearing.errors import DecodeError
from clearing.netting.limits import Reason
from clearing.records.obligation import SALT_BYTES, SECRET_BYTES, items_view
from clearing.records.solution import Solution
from clearing.rows import Reader, Table, key_result, key_u32, key_u64
from clearing.rules.results import UnsettledItem, decode_unsettled
from node.queries import PAGE_ROWS_DEFAULT, Page

_KEY = Layout("unsettled page", uint("asset", 2), uint("submission", 8), uint("item", 4))
UNSETTLED_KEY_BYTES = _KEY.width


@dataclass(frozen=True, slots=True)
class UnsettledRow:
    """An obligation that a cycle did not discharge wholly; short_units: what is missing, or what is left of it."""

    submission: int
    item: int
    asset: int
    reason: Reason
    participant: int
    short_units: int


def unsettled(
    reader: Reader,
    cycle: int,
    party: int | None = None,
    start: bytes = b"",
    rows_max: int = PAGE_ROWS_DEFAULT,
) -> Page[UnsettledRow]:
    """Return a page of what a cycle did not discharge, by asset, submission and item; of one party, or all.

    Raises: DecodeError: `start` is not a key that a page returned.
    """
    at = _KEY.decode(start) if start else {"asset": 0, "submission": 0, "item": 0}
    first = key_result(cycle, at["asset"]) + key_u64(at["submission"])
    rows: list[UnsettledRow] = []
    for key, value in reader.scan(Table.CYCLE_UNSETTLED, key_u32(cycle), first):
        asset, submission = int.from_bytes(key[4:6], "big"), int.from_bytes(key[6:], "big")
        found = decode_unsettled(value)
        if (asset, submission) == (at["asset"], at["submission"]):
            found = tuple(one for one in found if one.item >= at["item"])
        for one in _of_party(reader, submission, found, party):
            if len(rows) == rows_max:
                here = {"asset": asset, "submission": submission, "item": one.item}
                return Page(tuple(rows), _KEY.encode(**here))
            rows.append(
                UnsettledRow(
                    submission, one.item, asset, one.reason, one.participant, one.short_units
                )
            )
    return Page(tuple(rows))


def _of_party(
    reader: Reader, submission: int, found: tuple[UnsettledItem, ...], party: int | None
) -> tuple[UnsettledItem, ...]:
    """Return the items of which `party` is one side; all for None. Where the body is erased, nobody's."""
    if party is None:
        return found
    body = reader.body(submission)
    if not body:
        return ()
    items = items_view(memoryview(body)[SECRET_BYTES:])
    return tuple(
        one
        for one in found
        if party in (int(items["debtor"][one.item]), int(items["creditor"][one.item]))
    )


def potentials(reader: Reader, solution_index: int) -> Mapping[int, int]:
    """Return the potentials of a set-off solution by participant, those of zero left out; none where there is no body."""
    body = reader.body(solution_index) if solution_index else None
    if not body:
        return {}
    try:
        solution = Solution.decode(body[SALT_BYTES:])
    except DecodeError:
        return {}
    return dict(zip(solution.holders.tolist(), solution.potentials.tolist(), strict=True))
