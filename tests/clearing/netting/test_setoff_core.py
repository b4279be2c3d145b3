"""The way from rows to the cores and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting.engine import Engine
from clearing.netting.setoff_core import (
    OUTSIDE,
    Core,
    FlowSolution,
    answer,
    circles,
    extract,
    hops,
    pose,
    potentials,
    spread,
    total_by_arc,
)
from tests.clearing.netting.netting_kit import ENGINES

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)

Rows = list[tuple[int, int]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Rows]:
    vertices = draw(st.integers(1, 12))
    ends = st.integers(0, vertices - 1)
    rows = draw(st.lists(st.tuples(ends, ends), max_size=40))
    return vertices, [(u, v) for u, v in rows if u != v]


def core_of(vertices: int, rows: Rows, engine: Engine) -> Core:
    debtor = np.array([u for u, _ in rows], np.int32)
    creditor = np.array([v for _, v in rows], np.int32)
    return extract(debtor, creditor, vertices, engine)


def reachable(vertices: int, rows: Rows) -> list[set[int]]:
    found = [{vertex} for vertex in range(vertices)]
    for _ in range(vertices):
        for u, v in rows:
            found[u] |= found[v]
    return found


@EACH_ENGINE
@given(graph=graphs())
def test_a_core_is_what_lies_on_a_circle(engine: Engine, graph: tuple[int, Rows]) -> None:
    vertices, rows = graph
    core = core_of(vertices, rows, engine)
    reach = reachable(vertices, rows)
    on_circle = sorted({(u, v) for u, v in rows if u in reach[v]})
    numbers = core.node.tolist()
    vertex_of = {node: vertex for vertex, node in enumerate(numbers) if node != OUTSIDE}
    arcs = [(vertex_of[u], vertex_of[v]) for u, v in zip(core.tail, core.head, strict=True)]
    assert arcs == on_circle
    assert sorted(vertex_of.values()) == sorted({vertex for arc in arcs for vertex in arc})
    assert sorted(vertex_of) == list(range(core.nodes))
    for (u, v), arc in zip(rows, core.arc.tolist(), strict=True):
        assert (arcs[arc] == (u, v)) if (u, v) in on_circle else arc == OUTSIDE
    for u in range(vertices):
        for v in range(vertices):
            assert (core.rank[u] == core.rank[v]) == (v in reach[u] and u in reach[v])
            assert core.rank[u] <= core.rank[v] or v not in reach[u]


@EACH_ENGINE
@given(graph=graphs())
def test_hops_are_the_steps_to_the_farthest(engine: Engine, graph: tuple[int, Rows]) -> None:
    core = core_of(*graph, engine)
    arcs = list(zip(core.tail.tolist(), core.head.tolist(), strict=True))
    near, steps = {0}, 0
    while True:
        wider = near | {v for u, v in arcs if u in near} | {u for u, v in arcs if v in near}
        if wider == near:
            break
        near, steps = wider, steps + 1
    assert hops(core, engine) == steps


@EACH_ENGINE
@given(graph=graphs())
def test_circles_are_the_pairs_beyond_a_tree(engine: Engine, graph: tuple[int, Rows]) -> None:
    core = core_of(*graph, engine)
    ends = zip(core.tail.tolist(), core.head.tolist(), strict=True)
    assert circles(core, engine) == len({frozenset(pair) for pair in ends}) - core.nodes + 1


@EACH_ENGINE
@given(graph=graphs(), data=st.data())
def test_amounts_go_to_arcs_and_flows_come_back(
    engine: Engine, graph: tuple[int, Rows], data: st.DataObject
) -> None:
    vertices, rows = graph
    core = core_of(vertices, rows, engine)
    sizes = {"min_size": len(rows), "max_size": len(rows)}
    amounts = data.draw(st.lists(st.integers(1, 2**50), **sizes))
    total = total_by_arc(core, np.array(amounts, np.uint64), engine)
    expected = [0] * core.arcs
    for arc, amount in zip(core.arc.tolist(), amounts, strict=True):
        if arc != OUTSIDE:
            expected[arc] += amount
    assert total.tolist() == expected
    flow = [data.draw(st.integers(0, most)) for most in expected]
    given_back = spread(core, np.array(amounts, np.uint64), np.array(flow, np.int64), engine)
    for arc, amount, part in zip(core.arc.tolist(), amounts, given_back.tolist(), strict=True):
        assert part == (min(amount, flow[arc]) if arc != OUTSIDE else 0)
        if arc != OUTSIDE:
            flow[arc] -= part
    assert not any(flow)


@EACH_ENGINE
@given(graph=graphs(), data=st.data())
def test_potentials_fall_between_components(
    engine: Engine, graph: tuple[int, Rows], data: st.DataObject
) -> None:
    vertices, rows = graph
    core = core_of(vertices, rows, engine)
    sizes = {"min_size": core.nodes, "max_size": core.nodes}
    inner = data.draw(st.lists(st.integers(-9, 9), **sizes))
    lifted = potentials(core, np.array(inner, np.int64))
    assert (lifted >= 0).all()
    for u, v in rows:
        if core.rank[u] == core.rank[v]:
            assert lifted[u] - lifted[v] == inner[core.node[u]] - inner[core.node[v]]
        else:
            assert lifted[u] > lifted[v]


@EACH_ENGINE
def test_the_problem_takes_back_obligations_and_sends_out_money(engine: Engine) -> None:
    core = core_of(3, [(0, 1), (1, 2), (2, 0), (2, 1)], engine)  # vertex 2 is money
    lower, upper = np.array([-1, 2, 3, 0]), np.array([10, 20, 30, 40])
    problem = pose(core, 2, lower, upper, engine)
    assert problem.tail.tolist() == [0, 2, 0, 1]
    assert problem.head.tolist() == [1, 1, 2, 2]
    assert problem.capacity.tolist() == [11, 18, 27, 40]
    assert problem.cost.tolist() == [1, 0, 0, 0]
    assert problem.excess.tolist() == [10 - 3, 2 - 10, 3 - 2]
    solution = FlowSolution(np.array([1, 2, 3, 4]), np.zeros(3, np.int64))
    assert answer(problem, solution, lower, upper).tolist() == [9, 4, 6, 4]
