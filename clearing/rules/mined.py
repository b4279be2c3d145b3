"""Mined coin: batches that miners declared, what obligations draw on them, and the report of a month.

Lives here: the records, the order in which batches are drawn on, and the report's arithmetic. May not live here: proofs
(clearing/bitcoin/provenance.py), who is a miner (bitcoin_terms.py), what moves an obligation (handlers).

A batch is one declared output. It gives its amount once: what obligations drew on it never exceeds it. An obligation flagged
MINED_COIN draws when it is affirmed, on the batches of its debtor, the oldest declaration first, and gives back to the same batches when it
is rescinded. The record of an obligation has no place for a batch, and needs none: the order decides, on every replica.
A batch counts from the moment a supervisor's node attested that its coin is unspent. Months are those of block time, so that the report of a
month that is over never changes.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from clearing.bitcoin.transaction import OUTPOINT_BYTES
from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError, invariant
from clearing.rules.bitcoin_terms import TaxRule
from clearing.rules.lifecycle import Lifecycle

DAY_MS = 86_400_000
_EPOCH_DAYS = 719_468


class BatchState(enum.IntEnum):
    """Where a declared output stands."""

    DECLARED = 1
    COUNTED = 2
    VOID = 3


LIFECYCLE = Lifecycle(
    "declared mined coin",
    BatchState.DECLARED,
    (
        (BatchState.DECLARED, BatchState.COUNTED, "a supervisor's node attests it is unspent"),
        (BatchState.DECLARED, BatchState.VOID, "it is attested, or shown by the chain, as spent"),
    ),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One declared output. counted_ms: block time from which it may be drawn on, 0 before."""

    state: BatchState
    way: int
    amount_units: int
    used_units: int
    declared_ms: int
    counted_ms: int
    block_height: int
    outpoint: bytes

    LAYOUT: ClassVar[Layout] = Layout(
        "mined batch",
        uint("state", 1),
        uint("way", 1),
        reserved(2),
        uint("block_height", 4),
        uint("amount_units", 16),
        uint("used_units", 16),
        uint("declared_ms", 8),
        uint("counted_ms", 8),
        raw("outpoint", OUTPOINT_BYTES),
    )

    @property
    def left_units(self) -> int:
        """What may still be drawn."""
        return self.amount_units - self.used_units if self.state is BatchState.COUNTED else 0

    def encode(self) -> bytes:
        """Return the canonical 92 bytes.

        Raises: InvariantViolation: more is used than there is.
        """
        invariant(0 <= self.used_units <= self.amount_units, "a batch gave more than its amount")
        return self.LAYOUT.encode(**{one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown state.
        """
        values = cls.LAYOUT.decode(data)
        try:
            values["state"] = BatchState(values["state"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Draw:
    """What one obligation drew: when, on which batches how much, and when it gave back, 0 for never."""

    miner: int
    drawn_ms: int
    returned_ms: int
    parts: tuple[tuple[int, int], ...]

    LAYOUT: ClassVar[Layout] = Layout(
        "draw on mined coin",
        uint("miner", 4),
        uint("parts", 4),
        uint("drawn_ms", 8),
        uint("returned_ms", 8),
    )
    PART: ClassVar[Layout] = Layout("drawn part", uint("batch", 8), uint("amount_units", 16))

    @property
    def amount_units(self) -> int:
        """What was drawn in all."""
        return sum(amount for _, amount in self.parts)

    def encode(self) -> bytes:
        """Return the canonical bytes: 24 and 24 for each part."""
        head = self.LAYOUT.encode(
            miner=self.miner,
            parts=len(self.parts),
            drawn_ms=self.drawn_ms,
            returned_ms=self.returned_ms,
        )
        return head + b"".join(self.PART.encode(batch=a, amount_units=b) for a, b in self.parts)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length.
        """
        head = cls.LAYOUT.decode(data[: cls.LAYOUT.width])
        parts = split_records(data[cls.LAYOUT.width :], cls.PART.width, head["parts"], "parts")
        values = [cls.PART.decode(part) for part in parts]
        pairs = tuple((one["batch"], one["amount_units"]) for one in values)
        return cls(head["miner"], head["drawn_ms"], head["returned_ms"], pairs)


class Reserve:
    """What is left of one miner's batches: their numbers, ascending, how much of each, and in all."""

    __slots__ = ("left", "left_units", "numbers")

    def __init__(self, numbers: list[int], left: dict[int, int]) -> None:
        """Take over the numbers of all batches with something left, ascending, and how much that is."""
        self.numbers = numbers
        self.left = left
        self.left_units = sum(left.values())

    @classmethod
    def of(cls, batches: Iterable[tuple[int, Batch]]) -> Self:
        """Build it from (number, batch), ascending by number."""
        left = {number: batch.left_units for number, batch in batches if batch.left_units}
        return cls(list(left), left)

    def copy(self) -> Self:
        """Return another one that says the same."""
        return type(self)(self.numbers.copy(), self.left.copy())

    def put(self, number: int, batch: Batch) -> None:
        """Take down a batch as it is now."""
        before, now = self.left.pop(number, 0), batch.left_units
        self.left_units += now - before
        if now:
            self.left[number] = now
        if now and not before:
            bisect.insort(self.numbers, number)
        elif before and not now:
            del self.numbers[bisect.bisect_left(self.numbers, number)]


class BatchQueue:
    """A reserve while obligations draw on it, the oldest batch first: a draw costs what it empties, and changes no reserve."""

    def __init__(self, reserve: Reserve) -> None:
        """Begin with what is left now; the reserve stays as it is until the last draw."""
        self._reserve = reserve
        self._left_units = reserve.left_units
        self._first = 0
        self._used_units = 0

    def draw(self, amount_units: int) -> tuple[tuple[int, int], ...] | None:
        """Take an amount above 0 and return (batch, amount) of each part; None, and nothing taken, where less is left."""
        if amount_units > self._left_units:
            return None
        self._left_units -= amount_units
        parts = []
        while amount_units:
            number = self._reserve.numbers[self._first]
            left_units = self._reserve.left[number] - self._used_units
            part = min(left_units, amount_units)
            parts.append((number, part))
            amount_units -= part
            self._used_units += part
            if part == left_units:
                self._first, self._used_units = self._first + 1, 0
        return tuple(parts)

    def drawn(self) -> tuple[tuple[int, int], ...]:
        """Return (batch, units) of each that gave something, ascending."""
        numbers = self._reserve.numbers
        emptied = [(number, self._reserve.left[number]) for number in numbers[: self._first]]
        return (
            (*emptied, (numbers[self._first], self._used_units))
            if self._used_units
            else tuple(emptied)
        )


def month_of(time_ms: int) -> int:
    """Return the month of a time as YYYYMM, UTC.

    Source: days to civil date, H. Hinnant, "chrono-compatible low-level date algorithms".
    """
    days = time_ms // DAY_MS + _EPOCH_DAYS
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    shifted = (5 * day + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return (year + era * 400 + (month <= 2)) * 100 + month


@dataclass(frozen=True, slots=True)
class MonthRow:
    """One miner's month: what was counted as mined, used in foreign trade, and left at its end; the taxable base."""

    miner: int
    month: int
    mined_units: int
    used_units: int
    remaining_units: int
    taxable_units: int


def report(
    batches: Iterable[tuple[int, Batch]], draws: Iterable[Draw], tax: TaxRule
) -> tuple[MonthRow, ...]:
    """Return the months of each miner in which anything happened, ascending by miner and month.

    batches: (miner, batch). The base of a month is the rule over what was mined and not used in it, not below zero, and
    over what was used in it, not below zero either: what comes back in a later month lowers that month's use.
    """
    mined: dict[tuple[int, int], int] = {}
    used: dict[tuple[int, int], int] = {}
    for miner, batch in batches:
        if batch.state is BatchState.COUNTED:
            _add(mined, (miner, month_of(batch.counted_ms)), batch.amount_units)
    for one in draws:
        _add(used, (one.miner, month_of(one.drawn_ms)), one.amount_units)
        if one.returned_ms:
            _add(used, (one.miner, month_of(one.returned_ms)), -one.amount_units)
    rows = []
    left: dict[int, int] = {}
    for miner, month in sorted({**mined, **used}):
        got, gave = mined.get((miner, month), 0), used.get((miner, month), 0)
        left[miner] = left.get(miner, 0) + got - gave
        base = tax.base(max(got - gave, 0), max(gave, 0))
        rows.append(MonthRow(miner, month, got, gave, left[miner], base))
    return tuple(rows)


def _add(sums: dict[tuple[int, int], int], key: tuple[int, int], amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount
