"""Liquidity and caps: which binds, and how much is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from clearing.netting import wide
from clearing.netting.columns import InvalidColumns
from clearing.netting.limits import Limits, Reason, minimum
from tests.clearing.netting.netting_kit import Table, net, tables


@given(table=tables())
def test_the_lesser_limit_binds_and_is_named(table: Table) -> None:
    limits = table.limits
    assert limits.participants == table.participants
    assert wide.to_ints(limits.allowed()) == table.allowed
    positions = net(table.rows, table.participants)
    found, reason, missing = limits.breached(wide.from_ints(positions))
    expected = [
        (
            number,
            Reason.CAP if table.caps[number] < table.liquidity[number] else Reason.LIQUIDITY,
            -position - table.allowed[number],
        )
        for number, position in enumerate(positions)
        if -position > table.allowed[number]
    ]
    columns = found.tolist(), reason.tolist(), wide.to_ints(missing)
    assert list(zip(*columns, strict=True)) == expected


def test_absent_is_no_liquidity_and_no_cap() -> None:
    limits = Limits.of(2, {1: 5})
    assert wide.to_ints(limits.liquidity) == [0, 5]
    assert wide.to_ints(limits.allowed()) == [0, 5]
    reason, short = limits.short(np.array([0, 1]), wide.from_ints([3, 2**129]))
    assert reason.tolist() == [Reason.LIQUIDITY] * 2
    assert wide.to_ints(short) == [3, 2**129 - 5]


def test_equal_limits_are_told_as_liquidity() -> None:
    reason, short = Limits.of(1, {0: 5}, {0: 5}).short(np.array([0]), wide.from_ints([6]))
    assert (reason.tolist(), wide.to_ints(short)) == ([Reason.LIQUIDITY], [1])


@pytest.mark.parametrize("limit", [{2: 1}, {-1: 1}, {0: -1}, {0: 2**128}])
def test_what_is_no_limit_is_refused(limit: dict[int, int]) -> None:
    with pytest.raises(InvalidColumns, match="liquidity of participant"):
        Limits.of(2, limit)
    with pytest.raises(InvalidColumns, match="cap of participant"):
        Limits.of(2, {}, limit)


def test_minimum_takes_one_entry_for_all() -> None:
    values = wide.from_ints([2**180, 1, -5])
    assert wide.to_ints(minimum(values, wide.from_ints([7]))) == [7, 1, -5]
