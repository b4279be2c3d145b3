"""Proof that a set-off is the greatest one: checked in one pass, with none of the code that found it.

Lives here: what anybody needs who was given a discharge and its potentials and does not trust the giver. May not
live here: anything that searches.
Invariants kept: sums are exact whatever is claimed; hostile potentials of any size can only widen the gap.

The proof. Let q be any integers, one a participant, and k = 1 - q[debtor] + q[creditor] for each obligation. A
discharge d that leaves every net position as it was has sum(d * (q[creditor] - q[debtor])) = 0, so its value
is sum(d) = sum(d * k) <= sum(amount * max(0, k)): no discharge has more. With liquidity b a participant may pay
up to b more than it receives; then, if no q is negative, the bound grows by sum(q * b). The gap is bound - value:
(amount - d) * k where k > 0, d * -k where k < 0, and q times the liquidity that was not used. A gap of zero proves
that no other discharge has a greater value; there may be others of the same value.

Source: duality of linear programming (complementary slackness), written for circulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import VerificationError
from clearing.netting import wide
from clearing.netting.columns import (
    AssetColumns,
    InvalidColumns,
    check_participants,
    check_rows,
    runs_of,
)
from clearing.netting.engine import DEFAULT, Engine, Runner, in_turn, jit

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Potentials: TypeAlias = I64 | Sequence[int]

# Differences of potentials within this are far from overflow.
_CALM: Final = 1 << 61
_NOT_PLAIN: Final = -1
_HALF: Final = np.uint64(32)
_TOP: Final = np.uint64(63)


def verify(
    columns: AssetColumns,
    discharged_lo: U64,
    discharged_hi: U64 | None,
    potentials: Potentials,
    liquidity: U64 | None = None,
    *,
    engine: Engine = DEFAULT,
    runner: Runner = in_turn,
    pieces: int = 1,
) -> int:
    """Check a set-off and bound how far it is from the greatest one.

    discharged_lo, discharged_hi: uint64[rows], what each obligation loses; hi is None when all is below 2^64.
    potentials: one integer a participant, of any size. liquidity: wide array uint64[participants, 3] in
    [0, 2^128), how much more than it receives each may pay; None: nothing. pieces: how many parts the rows are cut into
    for `runner`, as for positions.

    Returns: the gap, at least 0; no set-off has a greater value than the sum of the discharge plus the gap.
    Raises: VerificationError: an obligation loses more than its amount, a participant pays more than it may,
        or the arrays do not fit the table. InvalidRow, InvalidColumns: the obligations themselves are malformed.
    """
    participants = len(potentials)
    check_participants(participants)
    _check_shape("discharged_lo", discharged_lo, columns.rows)
    if discharged_hi is not None:
        _check_shape("discharged_hi", discharged_hi, columns.rows)
    if liquidity is not None:
        check_liquidity(liquidity, participants)
    calm = _calm(potentials)
    if calm is not None and columns.hi is None and discharged_hi is None:
        plain, slack, net = _check_runs(columns, discharged_lo, calm, engine, runner, pieces)
        if plain:
            moved = wide.from_signed(net) if net.any() or liquidity is not None else None
            gap = _gap(columns, discharged_lo, None, calm) if slack else 0
            return gap + _check_positions(moved, potentials, liquidity)
    check_rows(columns, participants, engine=engine)
    _check_wide(columns, discharged_lo, discharged_hi)
    moved = movements(columns, discharged_lo, discharged_hi, participants)
    exact = calm if calm is not None else np.array([int(q) for q in potentials], object)
    gap = _gap(columns, discharged_lo, discharged_hi, exact)
    return gap + _check_positions(moved, potentials, liquidity)


def _check_shape(name: str, column: U64, rows: int) -> None:
    if column.dtype != np.uint64 or column.shape != (rows,):
        raise VerificationError(f"{name} is {column.dtype}{column.shape}: give uint64({rows},)")


def check_liquidity(liquidity: U64, participants: int) -> None:
    """Refuse a liquidity that is no wide array of amounts, one a participant.

    Raises: InvalidColumns.
    """
    if liquidity.dtype != np.uint64 or liquidity.shape != (participants, wide.LIMBS):
        raise InvalidColumns(
            f"liquidity has shape {liquidity.shape}: give uint64({participants}, 3)"
        )
    if liquidity[:, 2].any():
        raise InvalidColumns("liquidity is not in 0..2^128-1")


def _calm(potentials: Potentials) -> I64 | None:
    """Return the potentials as int64 when none is so large that arithmetic on them needs care."""
    if not isinstance(potentials, np.ndarray):
        if any(not -_CALM <= q <= _CALM for q in potentials):
            return None
        return np.array(potentials, np.int64)
    if potentials.dtype != np.int64 or potentials.ndim != 1:
        raise VerificationError(f"potentials are {potentials.dtype}: give int64 or Python integers")
    least, greatest = int(potentials.min(initial=0)), int(potentials.max(initial=0))
    return potentials if least >= -_CALM and greatest <= _CALM else None


def _loses_too_much(row: int) -> VerificationError:
    return VerificationError(f"row {row}: the obligation loses more than its amount")


def _check_runs(
    columns: AssetColumns, discharged: U64, q: I64, engine: Engine, runner: Runner, pieces: int
) -> tuple[bool, bool, I64]:
    """Check the rows in runs, and put together what `_check_int64` says of each.

    Returns: whether every row is in order and 63 bits hold all sums; whether a row adds to the gap; the movements.
    """
    check = engine.choose(_check_int64, _check_int64_numpy)

    def check_run(run: tuple[int, int]) -> tuple[int, I64, int]:
        rows = columns.between(*run)
        return check(rows.debtor, rows.creditor, rows.lo, discharged[slice(*run)], q)

    slacks, nets, gross = zip(*runner(check_run, runs_of(columns.rows, pieces)), strict=True)
    plain = _NOT_PLAIN not in gross and sum(gross) < 1 << 31
    return plain, any(slacks), np.sum(nets, axis=0)


@jit
def _check_int64(
    debtor: NDArray[Any], creditor: NDArray[Any], amount: U64, discharged: U64, q: I64
) -> tuple[int, I64, int]:
    """Check every row, and sum the movements modulo 2^64.

    Returns: 0 when no row adds to the gap; int64[participants], what each receives (+) or pays (-) in money; the sum of the
    amounts in units of 2^32, each rounded up, or _NOT_PLAIN where a row is no obligation, loses more than its amount, or needs 64 bits.
    """
    net = np.zeros(q.shape[0], np.int64)
    slack = gross = np.int64(0)
    for row in range(amount.shape[0]):
        full = np.int64(amount[row])
        part = np.int64(discharged[row])
        payer = np.int64(debtor[row])
        payee = np.int64(creditor[row])
        rest = full - part
        alien = (payer >= net.shape[0]) | (payee >= net.shape[0]) | (payer == payee)
        if alien | (full <= 0) | ((part | rest) < 0):
            return 0, net, _NOT_PLAIN
        k = q[payee] - q[payer] + 1
        slack |= (rest & (-k >> 63)) | (part & (k >> 63))  # the sign of k is a mask of all bits
        net[payer] -= part
        net[payee] += part
        gross += full >> 32
    return int(slack), net, int(gross) + amount.shape[0]


def _check_int64_numpy(
    debtor: NDArray[Any], creditor: NDArray[Any], amount: U64, discharged: U64, q: I64
) -> tuple[int, I64, int]:
    net = np.zeros(q.shape[0], np.int64)
    if max(debtor.max(initial=0), creditor.max(initial=0)) >= q.shape[0]:
        return 0, net, _NOT_PLAIN
    if ((debtor == creditor) | (amount == 0) | (discharged > amount) | (amount >> _TOP > 0)).any():
        return 0, net, _NOT_PLAIN
    np.subtract.at(net, debtor, discharged.view(np.int64))
    np.add.at(net, creditor, discharged.view(np.int64))
    k = 1 - q[debtor] + q[creditor]
    slack = (k > 0) & (discharged < amount) | (k < 0) & (discharged > 0)
    gross = wide.total_unsigned(amount >> _HALF) + len(amount)
    return int(np.count_nonzero(slack)), net, gross


def _check_wide(columns: AssetColumns, discharged_lo: U64, discharged_hi: U64 | None) -> None:
    """Check every row at any size."""
    amount = wide.from_places(wide.to_places(columns.lo, columns.hi))
    discharged = wide.from_places(wide.to_places(discharged_lo, discharged_hi))
    over = wide.compare(discharged, amount) > 0
    if over.any():
        raise _loses_too_much(int(over.argmax()))


def movements(
    columns: AssetColumns, discharged_lo: U64, discharged_hi: U64 | None, participants: int
) -> U64:
    """Sum what each participant receives (+) or pays (-) in money in a set-off: nothing without liquidity.

    Returns: wide array[participants]; its sum is zero.
    """
    places = wide.to_places(discharged_lo, discharged_hi)
    sums = np.zeros((places.shape[0], participants), np.int64)
    for column, words in zip(sums, places, strict=True):
        np.subtract.at(column, columns.debtor, words)
        np.add.at(column, columns.creditor, words)
    return wide.from_places(sums)


def _gap(
    columns: AssetColumns, discharged_lo: U64, discharged_hi: U64 | None, q: NDArray[Any]
) -> int:
    """Sum what the obligations add to the gap, in Python integers over the rows that add something."""
    k = 1 - q[columns.debtor] + q[columns.creditor]
    rows = np.flatnonzero(k != 0)
    full = columns.take(rows).amounts()
    hi = None if discharged_hi is None else discharged_hi[rows]
    part = wide.join_amounts(discharged_lo[rows], hi)
    factors = [int(factor) for factor in k[rows].tolist()]
    return sum(
        (a - d) * f if f > 0 else d * -f for a, d, f in zip(full, part, factors, strict=True)
    )


def _check_positions(moved: U64 | None, potentials: Potentials, liquidity: U64 | None) -> int:
    """Check that nobody pays more than it may; return what unused liquidity adds to the gap.

    moved: wide array[participants], what each receives (+) or pays (-); None when all are zero.
    """
    if moved is None:
        return 0
    if liquidity is None:
        changed = (moved != 0).any(axis=1)
        if changed.any():
            raise VerificationError(
                f"participant {int(changed.argmax())}: does not receive what it pays"
            )
        return 0
    lowest = min((int(q) for q in potentials), default=0)
    if lowest < 0:
        raise VerificationError("a potential is negative: with liquidity this proves nothing")
    unused = wide.add(liquidity, moved)
    overdrawn = wide.sign(unused) < 0
    if overdrawn.any():
        raise VerificationError(
            f"participant {int(overdrawn.argmax())}: pays more than it receives and has"
        )
    return sum(int(q) * b for q, b in zip(potentials, wide.to_ints(unused), strict=True))
