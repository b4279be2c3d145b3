"""Netting cycles: their lifecycle, the result of netting one asset, and what a result commits to.

Lives here: Cycle, AssetResult and the commitment over result rows. May not live here: which obligations are in a
cycle (ledger.py selects them), the netting itself (clearing/netting), settlement instructions (settlement.py).

Invariants: per asset the nets sum to zero; a result row says what one participant owes and is owed in one asset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError, invariant
from clearing.log import merkle
from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.positions import net_positions
from clearing.records.obligation import SALT_BYTES, salts_of
from clearing.rules.lifecycle import Lifecycle
from clearing.types import CycleState, NettingMethod

LIFECYCLE = Lifecycle(
    "cycle",
    CycleState.OPEN,
    (
        (CycleState.OPEN, CycleState.CUT_OFF, "timetable or operator"),
        (CycleState.CUT_OFF, CycleState.NETTED, "positions netted, instructions made"),
        (CycleState.NETTED, CycleState.FUNDED, "every pay-in confirmed"),
        (CycleState.NETTED, CycleState.FAILED, "a pay-in fails or times out"),
        (CycleState.FUNDED, CycleState.SETTLED, "every pay-out confirmed"),
    ),
)

_SECRET_DOMAIN = b"clearing/cycle-secret/v1\0"

KERNEL_ROWS_MIN = 4096
"""From so many rows on, two kernel calls cost less than sums by numpy; both are exact."""

_LOW_HALF = np.uint64(2**32 - 1)


@dataclass(frozen=True, slots=True)
class Cycle:
    """One netting cycle from its cut-off on.

    pay_ins and pay_outs: settlement instructions of each kind not yet confirmed. netted_index and ended_index: log
    indexes of its CYCLE_NETTED and CYCLE_ENDED leaves, the latter 0 while it has not ended.
    """

    state: CycleState
    netted_ms: int
    obligations: int
    instructions: int
    pay_ins: int
    pay_outs: int
    netted_index: int
    ended_index: int
    result_root: bytes

    LAYOUT: ClassVar[Layout] = Layout(
        "cycle",
        uint("state", 1),
        reserved(7),
        uint("netted_ms", 8),
        uint("obligations", 8),
        uint("instructions", 4),
        uint("pay_ins", 4),
        uint("pay_outs", 4),
        reserved(4),
        uint("netted_index", 8),
        uint("ended_index", 8),
        raw("result_root", 32),
    )

    def encode(self) -> bytes:
        """Return the canonical 88 bytes."""
        return self.LAYOUT.encode(
            **{field.name: getattr(self, field.name) for field in fields(self)}
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown state.
        """
        values = cls.LAYOUT.decode(data)
        try:
            values["state"] = CycleState(values["state"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What netting one asset means for one participant; amounts in smallest units, net = credit - debit."""

    participant: int
    debit: int
    credit: int

    @property
    def net(self) -> int:
        """Net position: + receives, - pays."""
        return self.credit - self.debit


@dataclass(frozen=True, slots=True)
class AssetResult:
    """The result of netting one asset in one cycle; rows ascending by participant, every participant that occurs."""

    asset: int
    method: NettingMethod
    obligations: int
    rows: tuple[ResultRow, ...]

    HEAD: ClassVar[Layout] = Layout(
        "asset result",
        uint("asset", 2),
        uint("method", 1),
        reserved(1),
        uint("rows", 4),
        uint("obligations", 8),
    )
    ROW: ClassVar[Layout] = Layout(
        "asset result row", uint("participant", 4), uint("debit", 24), uint("credit", 24)
    )

    @property
    def gross(self) -> int:
        """Sum of the amounts netted."""
        return sum(row.debit for row in self.rows)

    @property
    def net(self) -> int:
        """Sum of the positive net positions: what moves in settlement."""
        return sum(row.net for row in self.rows if row.net > 0)

    def encode(self) -> bytes:
        """Return the canonical bytes: 16 and 52 for each row."""
        head = self.HEAD.encode(
            asset=self.asset,
            method=self.method,
            rows=len(self.rows),
            obligations=self.obligations,
        )
        return head + b"".join(map(_encode_row, self.rows))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown method.
        """
        head = cls.HEAD.decode(data[: cls.HEAD.width])
        width = cls.ROW.width
        if len(data) != cls.HEAD.width + head["rows"] * width:
            raise DecodeError("the length of an asset result does not match its rows")
        try:
            method = NettingMethod(head["method"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        parts = (data[i : i + width] for i in range(cls.HEAD.width, len(data), width))
        rows = tuple(ResultRow(**cls.ROW.decode(part)) for part in parts)
        return cls(head["asset"], method, head["obligations"], rows)


def _encode_row(row: ResultRow) -> bytes:
    return (
        row.participant.to_bytes(4, "little")
        + row.debit.to_bytes(24, "little")
        + row.credit.to_bytes(24, "little")
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

    Row content: asset u16, participant u32, debit and credit 24 bytes each.
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
