"""Netting again without some participants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.columns import InvalidColumns, InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.limits import Limits, Reason
from clearing.netting.recast import Recast, recast
from tests.clearing.netting.netting_kit import ENGINES, Row, Table, columns_of, net, tables

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


def naive(table: Table, excluded: set[int]) -> tuple[list[tuple[list[int], list[int]]], list[bool]]:
    """Rounds as (newly out, short), and the rows that are kept."""
    rounds, out, new = [], set[int](), sorted(excluded)
    while True:
        out.update(new)
        kept = [row.debtor not in out and row.creditor not in out for row in table.rows]
        rest = [row for row, keep in zip(table.rows, kept, strict=True) if keep]
        positions = net(rest, table.participants)
        short = [n for n, limit in enumerate(table.allowed) if positions[n] + limit < 0]
        rounds.append((new, short))
        if not short:
            return rounds, kept
        new = short


@EACH_ENGINE
@given(table=tables(rows_max=40), excluded=st.sets(st.integers(0, 1)))
def test_rounds_are_those_of_plain_python(engine: Engine, table: Table, excluded: set[int]) -> None:
    done = recast(table.columns, table.participants, excluded, table.limits, engine=engine)
    rounds, kept = naive(table, excluded)
    assert [(one.out.tolist(), one.short.tolist()) for one in done.rounds] == rounds
    assert done.kept.tolist() == kept
    rest = [row for row, keep in zip(table.rows, kept, strict=True) if keep]
    assert wide.to_ints(done.net) == net(rest, table.participants)
    assert len(rounds) <= table.participants + 1


def chain(engine: Engine) -> Recast:
    rows = [Row(number, number + 1, 10) for number in range(4)]
    limits = Limits.of(5, {0: 10, 2: 3}, {1: 2})
    return recast(columns_of(rows), 5, [0], limits, engine=engine)


@EACH_ENGINE
def test_a_default_runs_down_a_chain_and_names_what_is_missing(engine: Engine) -> None:
    told = [
        (one.out.tolist(), one.short.tolist(), one.reason.tolist(), wide.to_ints(one.missing))
        for one in chain(engine).rounds
    ]
    assert told == [
        ([0], [1], [Reason.LIQUIDITY], [10]),
        ([1], [2], [Reason.LIQUIDITY], [7]),
        ([2], [3], [Reason.LIQUIDITY], [10]),
        ([3], [], [], []),
    ]
    assert not chain(engine).kept.any()


@EACH_ENGINE
def test_without_limits_there_is_one_round(engine: Engine) -> None:
    done = recast(columns_of([Row(0, 1, 5), Row(1, 2, 7)]), 3, [0, 0], engine=engine)
    assert [one.out.tolist() for one in done.rounds] == [[0]]
    assert done.kept.tolist() == [False, True]
    assert wide.to_ints(done.net) == [0, -7, 7]
    nobody = recast(columns_of([]), 3, [], engine=engine)
    assert (len(nobody.rounds), wide.to_ints(nobody.net)) == (1, [0, 0, 0])


@EACH_ENGINE
def test_bad_input_is_refused(engine: Engine) -> None:
    columns = columns_of([Row(0, 1, 5)])
    for unknown in (-1, 2):
        with pytest.raises(InvalidColumns, match="excluded"):
            recast(columns, 2, [unknown], engine=engine)
    with pytest.raises(InvalidColumns, match="limits of 3 participants"):
        recast(columns, 2, [], Limits.of(3, {}), engine=engine)
    with pytest.raises(InvalidRow, match="row 0"):
        recast(columns_of([Row(0, 0, 5)]), 2, [], engine=engine)
