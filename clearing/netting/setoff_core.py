"""The part of a book in which set-off can happen: its strongly connected cores, with parallel rows merged.

Lives here: from rows to the smallest equal problem, the problem as a minimum-cost flow, and the way back from arcs
to rows and from nodes to participants. May not live here: any search for an optimum.
Invariants kept: arcs are in order of debtor and then creditor, whatever the order of the rows; an arc outside a
core can carry no circulation, so nothing is lost by leaving it out.

A vertex is a participant or, with liquidity, the money node, whose number is the number of participants: its
arcs carry money in and out of the balances and discharge nothing. A node is a vertex of a core, renumbered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from clearing.netting.engine import Engine, jit, room

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
I8: TypeAlias = NDArray[np.int8]
U64: TypeAlias = NDArray[np.uint64]

_Function = TypeVar("_Function", bound=Callable[..., object])

VERTICES_MAX: Final = 1 << 28
ARCS_MAX: Final = 1 << 30
OUTSIDE: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """The merged arcs of all strongly connected components that have any.

    tail, head: int32[m], nodes, in order of (tail, head). nodes: how many there are.
    arc: int32[rows], the arc of each row, OUTSIDE for a row between components.
    node: int32[vertices], the node of each vertex, OUTSIDE for one without arcs in a core.
    rank: int32[vertices], the component of each vertex; every arc between components leads to a greater rank.
    """

    tail: I32
    head: I32
    nodes: int
    arc: I32
    node: I32
    rank: I32

    @property
    def arcs(self) -> int:
        """Number of merged arcs."""
        return int(self.tail.shape[0])


class FlowProblem(NamedTuple):
    """Send all excess to where there is a deficit, at the least cost.

    tail, head: int32[m]. capacity: int64[m], not negative. cost: int8[m], 0 or 1. excess: int64[n], sum zero.
    Capacities sum to less than 2^62, and there is a flow that sends all excess.
    """

    tail: I32
    head: I32
    capacity: I64
    cost: I8
    excess: I64


class FlowSolution(NamedTuple):
    """A cheapest flow and the potentials that prove it.

    flow: int64[m]. potential: int64[n]; cost + potential[head] - potential[tail] is at least 0 where the flow
    could be more and at most 0 where it could be less.
    """

    flow: I64
    potential: I64


def extract(debtor: I32, creditor: I32, vertices: int, engine: Engine) -> Core:
    """Find the cores of the graph that has an arc for each row.

    debtor, creditor: int32[rows], different in every row and below `vertices`, which is below 2^28.
    """
    rows = debtor.shape[0]
    few = vertices * vertices <= 2 * rows
    pair: I32 = room(rows, np.int32)
    if few:
        first, target = as_engine(engine, _merge_in_table)(debtor, creditor, vertices, pair)
    else:
        line, place, source = (room(rows, kind) for kind in (np.int64, np.int32, np.int32))
        merge = as_engine(engine, _merge)
        first, target = merge(debtor, creditor, vertices, pair, line, place, source)
    rank = as_engine(engine, _components)(first, target)
    tail, head, node, nodes = as_engine(engine, _keep_cores)(first, target, rank, pair)
    return Core(tail, head, int(nodes), pair, node, rank)


def as_engine(engine: Engine, kernel: _Function) -> _Function:
    """Pick the compiled kernel or the Python function that it was made of: one source, the same answer.

    These loops have no form in whole arrays, so without numba they are some hundred times slower.
    """
    return engine.choose(kernel, getattr(kernel, "__wrapped__", kernel))


@jit
def _merge(
    debtor: I32, creditor: I32, vertices: int, pair: I32, line: I64, place: I32, source: I32
) -> tuple[I32, I32]:
    """Merge parallel rows with two counting sorts, by creditor and then by debtor.

    pair: int32[rows], filled with the arc of each row. line, place, source: room for as many rows.

    Returns: first, int32[vertices + 1], and target: the arcs of u lead to target[first[u]:first[u+1]],
    ascending.
    """
    rows = debtor.shape[0]
    start = np.zeros(vertices + 1, np.int32)
    first = np.zeros(vertices + 1, np.int32)
    for row in range(rows):
        start[creditor[row]] += 1
    end = 0
    for vertex in range(vertices + 1):
        end += start[vertex]
        start[vertex] = end
    # line, by creditor: debtor << 32 | row. place, of each pair: first its debtor, then its arc.
    for row in range(rows - 1, -1, -1):
        start[creditor[row]] -= 1
        line[start[creditor[row]]] = np.int64(debtor[row]) << 32 | row
    met = np.full(vertices, -1, np.int32)  # the last pair of each debtor
    pairs = 0
    for vertex in range(vertices):
        begin = pairs
        for index in range(start[vertex], start[vertex + 1]):
            row = line[index] & 0xFFFFFFFF
            payer = line[index] >> 32
            found = met[payer]
            if found < begin:
                found = pairs
                met[payer] = pairs
                place[pairs] = payer
                source[pairs] = vertex
                first[payer] += 1
                pairs += 1
            pair[row] = found
    end = 0
    for vertex in range(vertices + 1):
        end += first[vertex]
        first[vertex] = end
    target = np.empty(pairs, np.int32)
    for index in range(pairs - 1, -1, -1):
        payer = place[index]
        first[payer] -= 1
        target[first[payer]] = source[index]
        place[index] = first[payer]
    for row in range(rows):
        pair[row] = place[pair[row]]
    return first, target


@jit
def _merge_in_table(debtor: I32, creditor: I32, vertices: int, pair: I32) -> tuple[I32, I32]:
    """Merge parallel rows in a table of all pairs, where they are few beside the rows; as `_merge`."""
    rows = debtor.shape[0]
    table = np.zeros((vertices, vertices), np.int32)
    for row in range(rows):
        table[debtor[row], creditor[row]] = 1
    first = np.zeros(vertices + 1, np.int32)
    target = np.empty(min(rows, vertices * vertices), np.int32)
    pairs = 0
    for payer in range(vertices):
        for payee in range(vertices):
            if table[payer, payee]:
                table[payer, payee] = pairs
                target[pairs] = payee
                pairs += 1
        first[payer + 1] = pairs
    for row in range(rows):
        pair[row] = table[debtor[row], creditor[row]]
    return first, target[:pairs].copy()


@jit
def _components(first: I32, target: I32) -> I32:
    """Number the strongly connected components so that arcs between them lead to greater numbers.

    Source: Pearce, "An improved algorithm for finding the strongly connected components of a directed graph"
    (2005), its third algorithm: one number a vertex serves as visiting index, low link and component.
    """
    vertices = first.shape[0] - 1
    rank = np.zeros(
        vertices, np.int32
    )  # 0: unseen; then the least index reachable; last the component
    cursor = first[:vertices].copy()
    is_root = np.ones(vertices, np.bool_)
    path = np.empty(vertices, np.int32)
    done = np.empty(vertices, np.int32)  # visited, but its component is not complete
    complete = 0
    index = 1
    component = vertices
    for start in range(vertices):
        if rank[start] != 0:
            continue
        rank[start] = index
        index += 1
        path[0] = start
        depth = 0
        while depth >= 0:
            vertex = path[depth]
            low = rank[vertex]
            below = -1
            for arc in range(cursor[vertex], first[vertex + 1]):
                other = target[arc]
                if rank[other] == 0:
                    below = other
                    cursor[vertex] = arc
                    break
                if rank[other] < low:
                    low = rank[other]
                    is_root[vertex] = False
            rank[vertex] = low
            if below >= 0:
                rank[below] = index
                index += 1
                depth += 1
                path[depth] = below
                continue
            depth -= 1
            if not is_root[vertex]:
                done[complete] = vertex
                complete += 1
                continue
            index -= 1
            while complete > 0 and rank[done[complete - 1]] >= low:
                complete -= 1
                rank[done[complete]] = component
                index -= 1
            rank[vertex] = component
            component -= 1
    return rank


@jit
def _keep_cores(first: I32, target: I32, rank: I32, pair: I32) -> tuple[I32, I32, I32, int]:
    """Keep the arcs inside components; `pair` becomes the arc that was kept, or OUTSIDE.

    Returns: tail, head, node, nodes: as in Core.
    """
    vertices = rank.shape[0]
    node = np.full(vertices, OUTSIDE, np.int32)
    kept = np.full(target.shape[0], OUTSIDE, np.int32)
    tail = np.empty(target.shape[0], np.int32)
    head = np.empty(target.shape[0], np.int32)
    arcs = 0
    nodes = 0
    for vertex in range(vertices):
        begin = arcs
        for index in range(first[vertex], first[vertex + 1]):
            if rank[target[index]] == rank[vertex]:
                kept[index] = arcs
                tail[arcs] = nodes
                head[arcs] = target[index]
                arcs += 1
        if arcs > begin:
            node[vertex] = nodes
            nodes += 1
    for arc in range(arcs):
        head[arc] = node[head[arc]]
    if arcs < kept.shape[0]:
        for row in range(pair.shape[0]):
            pair[row] = kept[pair[row]]
    return tail[:arcs].copy(), head[:arcs].copy(), node, nodes


def circles(core: Core, engine: Engine) -> int:
    """Count the arcs that a spanning tree of a connected core leaves over, two arcs there and back being one."""
    edges = as_engine(engine, _edges)(core.tail, core.head, core.nodes)
    return int(edges) - core.nodes + 1


@jit
def _edges(tail: I32, head: I32, nodes: int) -> int:
    """Count the pairs of nodes that have an arc, either way or both."""
    arcs = tail.shape[0]
    cursor = np.zeros(nodes, np.int64)
    for arc in range(arcs - 1, -1, -1):
        cursor[tail[arc]] = arc
    both = 0
    for arc in range(arcs):
        back = cursor[head[arc]]  # moves on only: tails ascend, and so do the heads of each tail
        while back < arcs and tail[back] == head[arc] and head[back] < tail[arc]:
            back += 1
        cursor[head[arc]] = back
        both += back < arcs and tail[back] == head[arc] and head[back] == tail[arc]
    return int(arcs - both // 2)


def hops(core: Core, engine: Engine) -> int:
    """Count the steps from the first node to the farthest one that is joined to it, whichever way arcs lead."""
    return int(as_engine(engine, _hops)(core.tail, core.head, core.nodes))


@jit
def arcs_at(tail: I32, head: I32, chosen: I32, nodes: int) -> tuple[I32, I32]:
    """List the chosen arcs at each node, those that leave it and those that lead to it.

    Returns: first, int32[nodes + 1], and at: the arcs at node v are at[first[v]:first[v+1]], the last chosen first.
    """
    first = np.zeros(nodes + 1, np.int32)
    for arc in chosen:
        first[tail[arc]] += 1
        first[head[arc]] += 1
    end = 0
    for node in range(nodes + 1):
        end += first[node]
        first[node] = end
    at = np.empty(end, np.int32)
    for arc in chosen:
        first[tail[arc]] -= 1
        at[first[tail[arc]]] = arc
        first[head[arc]] -= 1
        at[first[head[arc]]] = arc
    return first, at


@jit
def _hops(tail: I32, head: I32, nodes: int) -> int:
    first, at = arcs_at(tail, head, np.arange(tail.shape[0]).astype(np.int32), nodes)
    away = np.full(nodes, -1, np.int32)
    line = np.zeros(nodes, np.int32)  # begins with node 0
    away[:1] = 0
    reached = min(1, nodes)
    done = 0
    while done < reached:
        node = line[done]
        done += 1
        for index in range(first[node], first[node + 1]):
            arc = at[index]
            other = head[arc] if tail[arc] == node else tail[arc]
            if away[other] < 0:
                away[other] = away[node] + 1
                line[reached] = other
                reached += 1
    return int(away[line[reached - 1]]) if reached > 0 else 0


def total_by_arc(core: Core, amount: U64, engine: Engine) -> I64:
    """Sum the amounts of the rows of each arc; all amounts sum to less than 2^63.

    Returns: int64[m].
    """
    total: I64 = as_engine(engine, _total_by_arc)(core.arc, amount.view(np.int64), core.arcs)
    return total


@jit
def _total_by_arc(arc: I32, amount: I64, arcs: int) -> I64:
    total = np.zeros(arcs, np.int64)
    for row in range(arc.shape[0]):
        if arc[row] >= 0:
            total[arc[row]] += amount[row]
    return total


def spread(core: Core, amount: U64, flow: I64, engine: Engine) -> U64:
    """Give the flow of each arc to its rows, earlier rows first.

    amount: uint64[k] of the first k rows. flow: int64[m], no more than `total_by_arc`.

    Returns: uint64[k].
    """
    given: I64 = room(amount.shape[0], np.int64)
    as_engine(engine, _spread)(core.arc, amount.view(np.int64), flow.copy(), given)
    return given.view(np.uint64)


@jit
def _spread(arc: I32, amount: I64, left: I64, given: I64) -> None:
    for row in range(amount.shape[0]):
        given[row] = 0
        if arc[row] >= 0:
            part = min(amount[row], left[arc[row]])
            left[arc[row]] -= part
            given[row] = part


def pose(core: Core, money: int, lower: I64, upper: I64, engine: Engine) -> FlowProblem:
    """Ask for the flow between the bounds, in balance at every node, that discharges most.

    Every obligation begins at its upper bound, every arc of the money node at its lower: the problem is to
    bring this into balance while taking back as little discharge as can be. A unit taken back from u -> v goes
    from u to v, at cost 1; a unit of money sent along u -> v goes from v to u, at cost 0.

    money: the money node, or OUTSIDE. lower, upper: int64[m]; there is a balanced flow between them.
    """
    return FlowProblem(
        *as_engine(engine, _pose)(core.tail, core.head, core.nodes, money, lower, upper)
    )


@jit
def _pose(
    tail: I32, head: I32, nodes: int, money: int, lower: I64, upper: I64
) -> tuple[I32, I32, I64, I8, I64]:
    arcs = tail.shape[0]
    begin = tail.copy()
    end = head.copy()
    cost = np.ones(arcs, np.int8)
    excess = np.zeros(nodes, np.int64)
    for arc in range(arcs):
        flow = upper[arc]
        if tail[arc] == money or head[arc] == money:
            flow = lower[arc]
            begin[arc] = head[arc]
            end[arc] = tail[arc]
            cost[arc] = 0
        excess[tail[arc]] += flow
        excess[head[arc]] -= flow
    return begin, end, upper - lower, cost, excess


def answer(problem: FlowProblem, solution: FlowSolution, lower: I64, upper: I64) -> I64:
    """Turn the solution of `pose` into the flow of each arc."""
    flow: I64 = np.where(problem.cost == 1, upper - solution.flow, lower + solution.flow)
    return flow


def potentials(core: Core, potential: I64) -> I64:
    """Extend the potentials of the nodes to all vertices.

    Arcs between components must have a potential that falls by at least 1 on the way: each component is lifted
    above all that its arcs lead to.

    Returns: int64[vertices], not negative, below 2^58.
    """
    inside = core.node >= 0
    lifted = np.zeros(core.node.shape[0], np.int64)
    if core.nodes:
        lifted[inside] = potential[core.node[inside]] - potential.min()
    height = int(lifted.max(initial=0)) + 1
    lifted += height * (core.rank.shape[0] - core.rank.astype(np.int64))
    return lifted
