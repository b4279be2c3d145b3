"""First in, first out with bypass: payments settle one by one as long as the payer can pay them now.

Lives here: the method. May not live here: simultaneous settlement (gridlock), which does what this cannot.
Invariants kept: no participant's net debit ever passes its limit, not even between two payments; the scan order
is fixed, so the set is too.

A payment that its payer cannot pay is passed over, and later ones, also of the same payer, may settle. The scan
is repeated, since income of one pass pays for the next, until a pass settles nothing or `passes_max` is reached:
an input can be made of which every pass settles one payment only.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, Ids, Tier, check_rows, gross_of, tier_of
from clearing.netting.engine import DEFAULT, Engine, jit
from clearing.netting.gridlock import Settlement, queue_order
from clearing.netting.limbs import move_int192
from clearing.netting.limits import Limits, minimum

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

PASSES_MAX: Final = 256


def bypass(
    columns: AssetColumns,
    limits: Limits,
    *,
    passes_max: int = PASSES_MAX,
    engine: Engine = DEFAULT,
) -> Settlement:
    """Settle payments in queue order, passing over those that cannot be paid yet.

    columns: in row order, higher priority first where priorities differ, over all payers; ids below
    limits.participants.

    Returns: what settled; gridlock(before=...) may then settle more of it.
    Raises: InvalidRow: the first bad row.
    Source: FIFO with bypass as in Bech and Soramaki, Bank of Finland DP 9/2001; the bound on passes is our own.
    """
    check_rows(columns, limits.participants, engine=engine)
    order = queue_order(columns)
    rows = columns if order is None else columns.take(order)
    gross = gross_of(rows)
    # Nobody can owe more than the gross total, so a greater limit means no more than that.
    limit = minimum(limits.allowed(), wide.from_ints([gross]))
    settles = np.zeros(rows.rows, np.bool_)
    run = engine.choose(_bypass_compiled, _bypass_python)
    balance = run(rows, limit, settles, tier_of(4 * gross), passes_max)
    settled = settles
    if order is not None:
        settled = np.empty(rows.rows, np.bool_)
        settled[order] = settles
    return Settlement(settled, wide.subtract(balance, limit))


def _bypass_python(
    rows: AssetColumns, limit: U64, settles: Mask, _tier: Tier, passes_max: int
) -> U64:
    """Set `settles`, with Python integers.

    Returns: the balances that are left.
    """
    left = wide.to_ints(limit)
    queue = list(
        zip(
            range(rows.rows),
            rows.debtor.tolist(),
            rows.creditor.tolist(),
            rows.amounts(),
            strict=True,
        )
    )
    for _ in range(passes_max):
        passed_over = []
        for payment in queue:
            row, payer, payee, amount = payment
            if left[payer] < amount:
                passed_over.append(payment)
            else:
                left[payer] -= amount
                left[payee] += amount
                settles[row] = True
        if len(passed_over) == len(queue):
            break
        queue = passed_over
    return wide.from_ints(left)


def _bypass_compiled(
    rows: AssetColumns, limit: U64, settles: Mask, tier: Tier, passes_max: int
) -> U64:
    """Set `settles`.

    Returns: the balances that are left.
    """
    if tier is Tier.INT64:
        narrow = np.ascontiguousarray(limit[:, 0]).view(np.int64)
        amount = rows.lo.view(np.int64)
        _bypass_int64(rows.debtor, rows.creditor, amount, narrow, settles, passes_max)
        return wide.from_signed(narrow)
    hi = np.zeros(rows.rows, np.uint64) if rows.hi is None else rows.hi
    flat = limit.reshape(-1).copy()
    _bypass_int192(rows.debtor, rows.creditor, rows.lo, hi, flat, settles, passes_max)
    return flat.reshape(-1, wide.LIMBS)


@jit
def _bypass_int64(
    debtor: Ids, creditor: Ids, amount: I64, balance: I64, settles: Mask, passes_max: int
) -> None:
    queue = np.arange(debtor.shape[0])
    count = queue.shape[0]
    for _ in range(passes_max):
        passed_over = 0
        for place in range(count):
            row = queue[place]
            if balance[debtor[row]] < amount[row]:
                queue[passed_over] = row
                passed_over += 1
            else:
                balance[debtor[row]] -= amount[row]
                balance[creditor[row]] += amount[row]
                settles[row] = True
        if passed_over == count:
            break
        count = passed_over


@jit
def _bypass_int192(
    debtor: Ids, creditor: Ids, lo: U64, hi: U64, balance: U64, settles: Mask, passes_max: int
) -> None:
    queue = np.arange(debtor.shape[0])
    count = queue.shape[0]
    for _ in range(passes_max):
        passed_over = 0
        for place in range(count):
            row = queue[place]
            payer = np.int64(debtor[row])
            low, high, top = balance[3 * payer], balance[3 * payer + 1], balance[3 * payer + 2]
            if top == 0 and (high < hi[row] or (high == hi[row] and low < lo[row])):
                queue[passed_over] = row
                passed_over += 1
            else:
                payee = np.uint64(creditor[row])
                move_int192(balance, np.uint64(payer), payee, lo[row], hi[row])
                settles[row] = True
        if passed_over == count:
            break
        count = passed_over
