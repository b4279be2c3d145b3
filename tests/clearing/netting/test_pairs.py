"""Discharge by pair and back: against plain sums and queues, and what no pair may be said to lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import VerificationError
from clearing.netting import wide
from clearing.netting.engine import HAS_NUMBA, Engine
from clearing.netting.pairs import PairTotals, pair_totals, spread_pairs, stated
from tests.clearing.netting.netting_kit import EDGES, Row, columns_of

ENGINES = [Engine.PORTABLE, *([Engine.COMPILED] if HAS_NUMBA else [])]
ROWS = st.lists(
    st.builds(
        lambda debtor, step, amount, priority: Row(debtor, (debtor + step) % 4, amount, priority),
        st.integers(0, 3),
        st.integers(1, 3),
        st.integers(1, 9) | st.sampled_from(EDGES),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=10,
)


def told(losses: dict[tuple[int, int], int]) -> PairTotals:
    pairs = sorted(pair for pair, amount in losses.items() if amount)
    return PairTotals(
        np.array([debtor for debtor, _ in pairs], np.uint32),
        np.array([creditor for _, creditor in pairs], np.uint32),
        wide.from_ints([losses[pair] for pair in pairs]),
    )


@given(rows=ROWS, data=st.data())
def test_a_pair_s_obligations_lose_in_queue_order_and_sum_back(
    rows: list[Row], data: st.DataObject
) -> None:
    owed: dict[tuple[int, int], int] = {}
    for row in rows:
        pair = (row.debtor, row.creditor)
        owed[pair] = owed.get(pair, 0) + row.amount
    losses = {pair: data.draw(st.integers(0, total)) for pair, total in sorted(owed.items())}
    columns = columns_of(rows)
    engine = data.draw(st.sampled_from(ENGINES))
    lo, hi = spread_pairs(columns, told(losses), engine=engine)
    short = stated(columns, told(losses))
    whole = [pair for pair in sorted(losses) if losses[pair]]
    assert [not any(limbs) for limbs in short.amount.tolist()] == [
        losses[one] == owed[one] for one in whole
    ]
    for column, first in zip(spread_pairs(columns, short, engine=engine), (lo, hi), strict=True):
        assert np.array_equal(column, first)
    left, naive = dict(losses), [0] * len(rows)
    for at in sorted(range(len(rows)), key=lambda at: (-rows[at].priority, at)):
        pair = (rows[at].debtor, rows[at].creditor)
        naive[at] = min(left[pair], rows[at].amount)
        left[pair] -= naive[at]
    assert wide.join_amounts(lo, hi) == naive
    back, first = pair_totals(columns, lo, hi), told(losses)
    assert np.array_equal(back.keys, first.keys)
    assert wide.to_ints(back.amount) == wide.to_ints(first.amount)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("amount", [1, 1 << 64, (1 << 128) - 1])
def test_no_pair_loses_more_than_it_owes(amount: int, engine: Engine) -> None:
    columns = columns_of([Row(0, 1, amount), Row(0, 1, amount)])
    lo, hi = spread_pairs(columns, told({(0, 1): 2 * amount}), engine=engine)
    assert wide.join_amounts(lo, hi) == [amount, amount]
    for more in (2 * amount + 1, (1 << 191) - 1):
        with pytest.raises(VerificationError, match="more than it owes"):
            spread_pairs(columns, told({(0, 1): more}), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pair", [(0, 0), (0, 2), (1, 0), (2**32 - 1, 2**32 - 1)])
def test_a_pair_that_owes_nothing_has_nothing_to_lose(
    pair: tuple[int, int], engine: Engine
) -> None:
    with pytest.raises(VerificationError, match="owes nothing"):
        spread_pairs(columns_of([Row(0, 1, 5)]), told({pair: 1}), engine=engine)


def test_saying_nothing_discharges_nothing() -> None:
    lo, hi = spread_pairs(columns_of([Row(0, 1, 5)]), told({}))
    assert wide.join_amounts(lo, hi) == [0]
