"""Texts in one buffer: numbers written exactly, lines put together, both engines byte by byte the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.engine import Engine
from clearing.types import AMOUNT_MAX
from node.netting.texts import Texts, decimals, join_lines

edges = st.sampled_from([0, 9, 10, 2**32, 10**19 - 1, 10**19, 2**64 - 1, 2**64, 10**38, AMOUNT_MAX])
texts = st.lists(st.tuples(st.text(max_size=9), edges | st.integers(0, AMOUNT_MAX)))


@pytest.mark.parametrize("engine", Engine)
@given(st.lists(edges | st.integers(0, AMOUNT_MAX) | st.integers(0, 2**64 - 1)))
def test_amounts_are_written_as_python_writes_them(engine: Engine, amounts: list[int]) -> None:
    lo, hi = wide.split_amounts(amounts)
    assert decimals(lo, hi, engine=engine).strings() == [str(amount) for amount in amounts]


@pytest.mark.parametrize("engine", Engine)
@given(texts)
@example([])
@example([("", 0)])
def test_lines_hold_each_column_in_turn(engine: Engine, rows: list[tuple[str, int]]) -> None:
    names = Texts.of(name.encode() for name, _ in rows)
    numbers = decimals(*wide.split_amounts([number for _, number in rows]), engine=engine)
    lines = join_lines([b"<", names, "é:".encode(), numbers, b">\n"], engine=engine)
    assert lines.decode() == "".join(f"<{name}é:{number}>\n" for name, number in rows)


def test_texts_are_chosen_by_number_or_slice() -> None:
    letters = Texts.of([b"a", b"", b"ccc"])
    assert letters.at(np.array([2, 0, 0])).strings() == ["ccc", "a", "a"]
    assert letters.at(slice(1, None)).strings() == ["", "ccc"]
    assert len(letters) == 3
