"""The two solvers of minimum-cost flow, by the conditions that prove an optimum; and the rounds above 64 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import InvariantViolation
from clearing.netting import setoff_push, setoff_simplex, setoff_wide, wide
from clearing.netting.engine import Engine
from clearing.netting.setoff import set_off
from clearing.netting.setoff_core import FlowProblem, FlowSolution
from tests.clearing.netting import setoff_kit
from tests.clearing.netting.netting_kit import ENGINES, Row, columns_of

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


def push(problem: FlowProblem, engine: Engine) -> FlowSolution:
    found = setoff_push.solve(problem, engine, patient=True)
    assert found is not None
    return found


EACH_SOLVER = pytest.mark.parametrize("solve", [push, setoff_simplex.solve])


def problem_of(nodes: int, arcs: list[tuple[int, int, int, int]], flow: list[int]) -> FlowProblem:
    """The problem that `flow`, and perhaps a cheaper one, solves."""
    excess = [0] * nodes
    for (tail, head, _, _), amount in zip(arcs, flow, strict=True):
        excess[tail] += amount
        excess[head] -= amount
    tails, heads, capacities, costs = (np.array([arc[k] for arc in arcs]) for k in range(4))
    return FlowProblem(
        tails.astype(np.int32),
        heads.astype(np.int32),
        capacities.astype(np.int64),
        costs.astype(np.int8),
        np.array(excess, np.int64),
    )


@st.composite
def problems(draw: st.DrawFn) -> FlowProblem:
    """Any graph, connected or not, with arcs of no capacity and circles of cost zero."""
    nodes = draw(st.integers(2, 12))
    most = draw(st.sampled_from([1, 5, 2**55]))
    node = st.integers(0, nodes - 1)
    arc = st.tuples(node, node, st.integers(0, most), st.integers(0, 1))
    arcs = [each for each in draw(st.lists(arc, max_size=50)) if each[0] != each[1]]
    flow = [draw(st.just(0) | st.just(each[2]) | st.integers(0, each[2])) for each in arcs]
    return problem_of(nodes, arcs, flow)


def check_optimal(problem: FlowProblem, found: FlowSolution) -> None:
    assert ((found.flow >= 0) & (found.flow <= problem.capacity)).all()
    sent = np.zeros_like(problem.excess)
    np.add.at(sent, problem.tail, found.flow)
    np.subtract.at(sent, problem.head, found.flow)
    assert (sent == problem.excess).all()
    reduced = problem.cost + found.potential[problem.head] - found.potential[problem.tail]
    assert (reduced[found.flow < problem.capacity] >= 0).all()
    assert (reduced[found.flow > 0] <= 0).all()


@EACH_ENGINE
@EACH_SOLVER
@given(problem=problems())
def test_the_flow_is_the_cheapest(solve, engine: Engine, problem: FlowProblem) -> None:
    check_optimal(problem, solve(problem, engine))
    turned = problem._replace(tail=problem.head, head=problem.tail, excess=-problem.excess)
    check_optimal(turned, solve(turned, engine))


@EACH_SOLVER
@pytest.mark.parametrize("seed", range(6))
def test_larger_flows_are_the_cheapest_and_always_the_same(solve, seed: int) -> None:
    draw = setoff_kit.numbers(seed)
    nodes = 120
    arcs = []
    while len(arcs) < 900:
        tail = next(draw) % nodes
        head = (tail + 1 + next(draw) % (4 if seed % 2 else nodes - 1)) % nodes
        arcs.append((tail, head, next(draw) % 1000, int(next(draw) % 8 > 0)))
    flow = [next(draw) % (capacity + 1) for _, _, capacity, _ in arcs]
    problem = problem_of(nodes, arcs, flow)
    answers = [solve(problem, engine) for engine in ENGINES]
    check_optimal(problem, answers[0])
    for other in answers[1:]:
        assert (other.flow == answers[0].flow).all()
        assert (other.potential == answers[0].potential).all()


@EACH_ENGINE
@EACH_SOLVER
def test_an_excess_without_a_way_is_our_own_defect(solve, engine: Engine) -> None:
    impossible = problem_of(3, [(0, 1, 5, 1)], [3])._replace(excess=np.array([3, 0, -3]))
    with pytest.raises(InvariantViolation, match="no way back"):
        solve(impossible, engine)


@given(values=st.lists(st.integers(0, 2**180 - 1), min_size=1), bits=st.integers(0, 180))
def test_wide_entries_shift_as_integers_do(values: list[int], bits: int) -> None:
    entries = wide.from_ints(values)
    right = setoff_wide._shift_right(entries, bits)
    assert wide.to_ints(right) == [value >> bits for value in values]
    left = min(bits, 63)
    small = wide.from_ints([value >> 70 for value in values])
    shifted = setoff_wide._shift_left(small, left)
    assert wide.to_ints(shifted) == [value >> 70 << left for value in values]
    most = 1 << 61
    assert setoff_wide._narrow(entries, most).tolist() == [min(value, most) for value in values]


@pytest.mark.parametrize("word", [10, 13, 20, 40])
@pytest.mark.parametrize("money", [False, True])
def test_many_rounds_of_few_bits_end_at_the_greatest(
    monkeypatch: pytest.MonkeyPatch, word: int, *, money: bool
) -> None:
    """With a word of 10 bits each round adds one bit, and the last box still holds the greatest flow."""
    monkeypatch.setattr(setoff_wide, "_BITS", word)
    for seed in range(8):
        table = setoff_kit.scale_free(6, 14, seed)
        rows = [Row(row.debtor, row.creditor, row.amount << 50 | row.amount) for row in table.rows]
        balances = [row.amount << 48 for row in table.rows[:6]] if money else None
        found = set_off(columns_of(rows), 6, setoff_kit.wide_liquidity(balances))
        great = setoff_kit.table_of(6, [(row.debtor, row.creditor, row.amount) for row in rows])
        assert found.value == setoff_kit.greatest(great, balances)
