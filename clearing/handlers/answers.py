"""What a handler answers: the outcome of one transaction.

Lives here: Outcome and its constructors. May not live here: any rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.errors import RejectCode


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


def refused(
    code: RejectCode, items: tuple[tuple[int, RejectCode], ...] = (), bad_items: int = 0
) -> Outcome:
    """Return the answer to a transaction that changes nothing."""
    return Outcome(code, -1, items=items, bad_items=bad_items)


def recorded(index: int) -> Outcome:
    """Return the answer to a transaction whose leaf is at `index`."""
    return Outcome(RejectCode.OK, index)
