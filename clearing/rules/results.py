"""What netting one asset in one cycle gave, for each participant, and what a result commits to.

Lives here: ResultRow, AssetResult, how rows are summed from columns, why obligations did not settle, and the commitment
over rows. May not live here: the netting itself (clearing/netting), a cycle's life (cycles.py).

Invariants: per asset debits and credits have one sum, and so have what is kept of them; a row says what one participant
owes and is owed in one asset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from clearing.codec import Layout, uint
from clearing.errors import DecodeError, invariant
from clearing.log import merkle
from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.limits import Reason
from clearing.netting.positions import net_positions
from clearing.records.obligation import SALT_BYTES, salts_of
from clearing.types import NettingMethod, ResultOutcome

_SECRET_DOMAIN = b"clearing/cycle-secret/v1\0"

KERNEL_ROWS_MIN = 4096
"""From so many rows on, two kernel calls cost less than sums by numpy; both are exact."""

_LOW_HALF = np.uint64(2**32 - 1)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What netting one asset means for one participant; amounts in smallest units.

    debit, credit: all that was cut off. kept_debit, kept_credit: what of it the cycle does not discharge.
    """

    participant: int
    debit: int
    credit: int
    kept_debit: int = 0
    kept_credit: int = 0

    @property
    def net(self) -> int:
        """Net position over all that was cut off: + receives, - pays."""
        return self.credit - self.debit

    @property
    def discharged_debit(self) -> int:
        """What the participant owes no more when the cycle settles."""
        return self.debit - self.kept_debit

    @property
    def discharged_credit(self) -> int:
        """What the participant is owed no more when the cycle settles."""
        return self.credit - self.kept_credit

    @property
    def movement(self) -> int:
        """What the participant receives (+) or pays (-) in this cycle."""
        return self.discharged_credit - self.discharged_debit


@dataclass(frozen=True, slots=True)
class AssetResult:
    """The result of netting one asset in one cycle; rows ascending by participant, every participant that occurs.

    obligations: cut off. solution_index: log index of the set-off solution that holds the certificate, 0 for none.
    """

    asset: int
    method: NettingMethod
    obligations: int
    rows: tuple[ResultRow, ...]
    outcome: ResultOutcome = ResultOutcome.NETTED
    solution_index: int = 0

    HEAD: ClassVar[Layout] = Layout(
        "asset result",
        uint("asset", 2),
        uint("method", 1),
        uint("outcome", 1),
        uint("rows", 4),
        uint("obligations", 8),
        uint("solution_index", 8),
    )
    ROW: ClassVar[Layout] = Layout(
        "asset result row",
        uint("participant", 4),
        uint("debit", 24),
        uint("credit", 24),
        uint("kept_debit", 24),
        uint("kept_credit", 24),
    )

    @property
    def gross(self) -> int:
        """Sum of the amounts cut off."""
        return sum(row.debit for row in self.rows)

    @property
    def net(self) -> int:
        """Sum of the positive net positions: what moves when everything settles."""
        return sum(row.net for row in self.rows if row.net > 0)

    @property
    def value(self) -> int:
        """Sum of what the cycle discharges."""
        return sum(row.discharged_debit for row in self.rows)

    @property
    def liquidity_used(self) -> int:
        """Sum of what payers pay in."""
        return -sum(row.movement for row in self.rows if row.movement < 0)

    def encode(self) -> bytes:
        """Return the canonical bytes: 24 and 100 for each row."""
        head = self.HEAD.encode(
            asset=self.asset,
            method=self.method,
            outcome=self.outcome,
            rows=len(self.rows),
            obligations=self.obligations,
            solution_index=self.solution_index,
        )
        return head + b"".join(map(_encode_row, self.rows))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or an unknown method or outcome.
        """
        head = cls.HEAD.decode(data[: cls.HEAD.width])
        width = cls.ROW.width
        if len(data) != cls.HEAD.width + head["rows"] * width:
            raise DecodeError("the length of an asset result does not match its rows")
        try:
            method = NettingMethod(head["method"])
            outcome = ResultOutcome(head["outcome"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        parts = (data[i : i + width] for i in range(cls.HEAD.width, len(data), width))
        rows = tuple(ResultRow(**cls.ROW.decode(part)) for part in parts)
        return cls(
            head["asset"], method, head["obligations"], rows, outcome, head["solution_index"]
        )


def _encode_row(row: ResultRow) -> bytes:
    amounts = (row.debit, row.credit, row.kept_debit, row.kept_credit)
    return row.participant.to_bytes(4, "little") + b"".join(
        amount.to_bytes(24, "little") for amount in amounts
    )


UNSETTLED_LAYOUT = Layout(
    "unsettled obligation",
    uint("item", 4),
    uint("reason", 1),
    uint("participant", 4),
    uint("short_units", 24),
)
_UNSETTLED = np.dtype(
    [("item", "<u4"), ("reason", "u1"), ("participant", "<u4"), ("short", "<u8", 3)]
)


@dataclass(frozen=True, slots=True)
class UnsettledItem:
    """Why a cycle did not discharge an item, or not all of it: whose limit or claim binds, and how much is missing."""

    item: int
    reason: Reason
    participant: int
    short_units: int


def encode_unsettled(
    items: npt.NDArray[np.int64],
    reason: npt.NDArray[np.uint8],
    participant: npt.NDArray[np.int64],
    short: npt.NDArray[np.uint64],
) -> bytes:
    """Return the row of one submission's unsettled items: a count u32, and 33 bytes each, in the order given.

    items, reason, participant: columns[k]; short: wide array of k amounts.
    """
    rows = np.zeros(len(items), _UNSETTLED)
    rows["item"], rows["reason"], rows["participant"] = items, reason, participant
    rows["short"] = short
    return len(rows).to_bytes(4, "little") + rows.tobytes()


def decode_unsettled(data: bytes) -> tuple[UnsettledItem, ...]:
    """Parse the row of one submission's unsettled items.

    Raises: DecodeError: wrong length, or an unknown reason.
    """
    width = _UNSETTLED.itemsize
    if len(data) != 4 + int.from_bytes(data[:4], "little") * width:
        raise DecodeError("the length of a row of unsettled obligations does not match its count")
    found = []
    for start in range(4, len(data), width):
        values = UNSETTLED_LAYOUT.decode(data[start : start + width])
        try:
            values["reason"] = Reason(values["reason"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        found.append(UnsettledItem(**values))
    return tuple(found)


def with_kept(rows: Sequence[ResultRow], kept: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """Return `rows`, with the debits and credits of `kept`, a part of the same obligations, as what is kept."""
    by_participant = {row.participant: row for row in kept}
    return tuple(
        replace(row, kept_debit=left.debit, kept_credit=left.credit)
        if (left := by_participant.get(row.participant)) is not None
        else row
        for row in rows
    )


def result_rows(columns: AssetColumns, participants: int) -> tuple[ResultRow, ...]:
    """Return what `columns` of one asset mean for each participant that occurs, ascending by number.

    participants: number registered; every row has been validated at ingest.
    Raises: InvariantViolation: debits and credits do not balance.
    """
    if columns.rows < KERNEL_ROWS_MIN:
        return _summed_rows(columns)
    net = net_positions(columns, participants).net
    owed = net_positions(_owed_to_nobody(columns, participants), participants + 1).net
    debit = wide.negate(owed[:participants])
    credit = wide.add(net, debit)
    numbers = np.flatnonzero(wide.sign(debit) | wide.sign(credit))
    debits, credits_ = wide.to_ints(debit[numbers]), wide.to_ints(credit[numbers])
    invariant(sum(debits) == sum(credits_), "debits and credits of an asset do not balance")
    return tuple(ResultRow(*row) for row in zip(numbers.tolist(), debits, credits_, strict=True))


def _summed_rows(columns: AssetColumns) -> tuple[ResultRow, ...]:
    """Return the same rows for fewer obligations, where a kernel call would cost more than the sums.

    Halves of 32 bits are summed in 64, which cannot overflow below 2^31 rows.
    """
    parties = np.concatenate((columns.debtor, columns.creditor))
    numbers, places = np.unique(parties, return_inverse=True)
    debtor, creditor = places[: columns.rows], places[columns.rows :]
    words = (columns.lo,) if columns.hi is None else (columns.lo, columns.hi)
    debits, credits_ = [0] * len(numbers), [0] * len(numbers)
    for half in range(2 * len(words)):
        amounts = (words[half >> 1] >> np.uint64(32 * (half & 1))) & _LOW_HALF
        for sums, place in ((debits, debtor), (credits_, creditor)):
            column = np.zeros(len(numbers), dtype=np.uint64)
            np.add.at(column, place, amounts)
            for at, value in enumerate(column.tolist()):
                sums[at] += value << (32 * half)
    return tuple(ResultRow(*row) for row in zip(numbers.tolist(), debits, credits_, strict=True))


def _owed_to_nobody(columns: AssetColumns, participants: int) -> AssetColumns:
    """Return the columns with every creditor replaced by one number past the register: nets become gross debits."""
    nobody = np.full_like(columns.creditor, participants)
    return replace(columns, creditor=nobody)


def cycle_secret(cycle: int, submission_secrets: Iterable[bytes]) -> bytes:
    """Return the secret of a cycle's result salts: known to who knows every submission in it.

    submission_secrets: of the member submissions, ascending by log index.
    """
    digest = hashlib.sha256(_SECRET_DOMAIN + cycle.to_bytes(4, "little"))
    for secret in submission_secrets:
        digest.update(secret)
    return digest.digest()


def result_commitments(secret: bytes, results: Sequence[AssetResult]) -> bytes:
    """Return the salted commitments of all result rows, packed: ascending by asset, then participant.

    Row content: asset u16, participant u32; debit, credit and what is kept of each, 24 bytes each.
    """
    contents = [
        result.asset.to_bytes(2, "little") + _encode_row(row)
        for result in results
        for row in result.rows
    ]
    salts = salts_of(secret, len(contents))
    return b"".join(
        merkle.leaf_hash(salts[i * SALT_BYTES : (i + 1) * SALT_BYTES] + content)
        for i, content in enumerate(contents)
    )
