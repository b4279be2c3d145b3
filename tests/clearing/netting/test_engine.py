"""The choice between numba and numpy."""

from __future__ import annotations

import pytest

from clearing.netting import engine
from clearing.netting.engine import (
    DEFAULT,
    HAS_NUMBA,
    Engine,
    EngineUnavailable,
    describe,
    in_turn,
    jit,
)
from clearing.netting.positions import net_positions
from tests.clearing.netting.netting_kit import Row, columns_of


def _seven() -> int:
    return 7


def _eight() -> int:
    return 8


def test_the_portable_form_can_always_be_chosen() -> None:
    assert Engine.PORTABLE.choose(_seven, _eight)() == 8
    assert describe(Engine.PORTABLE)["kernels"] == "numpy"


def test_the_compiled_form_is_the_default_where_it_can_be() -> None:
    assert (DEFAULT is Engine.COMPILED) == HAS_NUMBA
    assert describe()["kernels"] == DEFAULT.value
    assert ("numba" in describe()) == HAS_NUMBA


def test_without_numba_nothing_pretends_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "HAS_NUMBA", False)
    assert jit(_seven) is _seven
    with pytest.raises(EngineUnavailable, match="install it or use"):
        Engine.COMPILED.choose(_seven, _eight)
    with pytest.raises(EngineUnavailable):
        net_positions(columns_of([Row(0, 1, 1)]), 2, engine=Engine.COMPILED)
    assert net_positions(columns_of([Row(0, 1, 1)]), 2, engine=Engine.PORTABLE).ints() == [-1, 1]


def test_the_default_runner_works_in_order() -> None:
    assert list(in_turn(str, [3, 1, 2])) == ["3", "1", "2"]
