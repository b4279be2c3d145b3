"""Minimum-cost flow by the network simplex method: the solver for long thin graphs.

Lives here: a spanning tree of the arcs, the flow and the prices that follow from it, and the pivots that improve
it. May not live here: what a node or an arc means, and any proof (certificate).

Arcs outside the tree carry nothing or all they can; the tree then fixes the flow of its arcs by balance and the
prices of its nodes by cost + price[head] - price[tail] = 0. A pivot takes an arc for which this is less than
it should be into the tree, moves flow around the circle that it closes, and drops an arc that stops the flow.
One more node, the root, is joined to every node by an artificial arc so dear that none is used in the end.

It begins with a spanning tree of greatest capacity: thick arcs rarely end full, so most stay in the tree. Where
the tree cannot carry its flow it is cut, and the lower part hangs from the root by its artificial arc. On
chains with nested or overlapping circles this start is the optimum or near it, where a start from artificial
arcs alone makes ten thousands of long pivots.

Invariants kept: integers only, one thread: equal input gives equal flow on every machine; every tree is
strongly feasible (each tree arc can carry some flow towards the root), so it cannot run in circles.

Source: own design after Cunningham (Math. Programming 11, 1976: strong feasibility), Barr, Glover and Klingman
(INFOR 17, 1979: preorder thread) and Kovacs (Optimization Methods and Software 30, 2015: block search).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import invariant
from clearing.netting.engine import Engine, jit
from clearing.netting.setoff_core import FlowProblem, FlowSolution, arcs_at, as_engine

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
I8: TypeAlias = NDArray[np.int8]

_UNLIMITED: Final = 1 << 62
_NONE: Final = -1
# The state of an arc is the sign that its reduced cost must have.
_EMPTY: Final = 1
_IN_TREE: Final = 0
_FULL: Final = -1


class Tree(NamedTuple):
    """A spanning tree; node n is the root.

    parent, arc: int32[n + 1], the node above and the arc that leads there. depth: int32[n + 1].
    after, before: int32[n + 1], a ring of all nodes in preorder. last: int32[n + 1], the last node below each.
    price: int64[n + 1].
    """

    parent: I32
    arc: I32
    depth: I32
    after: I32
    before: I32
    last: I32
    price: I64


class Arcs(NamedTuple):
    """All arcs, and after them the artificial arc of each node.

    tail, head: int32[m + n]. capacity, cost, flow: int64[m + n]. state: int8[m + n].
    """

    tail: I32
    head: I32
    capacity: I64
    cost: I64
    flow: I64
    state: I8


def solve(problem: FlowProblem, engine: Engine) -> FlowSolution:
    """Solve the problem, to the end however long it takes."""
    nodes, count = problem.excess.shape[0], problem.tail.shape[0]
    by_capacity = np.argsort(-problem.capacity, kind="stable")
    chosen = as_engine(engine, _span)(problem, by_capacity)
    parent, link, price, order = as_engine(engine, _root)(problem, chosen)
    arcs = Arcs(*_with_artificial(problem))
    left = as_engine(engine, _balance)(problem, arcs, parent, link, price, order)
    tree = Tree(*as_engine(engine, _hang)(arcs, parent, link, order, left))
    as_engine(engine, _improve)(arcs, tree, max(10, math.isqrt(count) // 2))
    invariant(not arcs.flow[count:].any(), "set-off: an excess has no way back to balance")
    return FlowSolution(arcs.flow[:count], tree.price[:nodes])


def _with_artificial(problem: FlowProblem) -> tuple[I32, I32, I64, I64, I64, I8]:
    nodes = problem.excess.shape[0]
    own = np.arange(nodes, dtype=np.int32)
    count = problem.tail.shape[0] + nodes
    return (
        np.concatenate([problem.tail, own]),
        np.concatenate([problem.head, own]),
        np.concatenate([problem.capacity, np.full(nodes, _UNLIMITED, np.int64)]),
        np.concatenate([problem.cost.astype(np.int64), np.full(nodes, nodes + 1, np.int64)]),
        np.zeros(count, np.int64),
        np.full(count, _EMPTY, np.int8),
    )


@jit
def _span(problem: FlowProblem, by_capacity: I64) -> I32:
    """Choose the arcs of a spanning forest of greatest capacity: Kruskal's method with union by path halving."""
    tail, head = problem.tail, problem.head
    nodes = problem.excess.shape[0]
    lead = np.empty(nodes, np.int32)
    for node in range(nodes):
        lead[node] = node
    chosen = np.empty(nodes, np.int32)
    count = 0
    for arc in by_capacity:
        u = tail[arc]
        while lead[u] != u:
            lead[u] = lead[lead[u]]
            u = lead[u]
        v = head[arc]
        while lead[v] != v:
            lead[v] = lead[lead[v]]
            v = lead[v]
        if u != v:
            lead[max(u, v)] = min(u, v)
            chosen[count] = arc
            count += 1
    return chosen[:count]


@jit
def _root(problem: FlowProblem, chosen: I32) -> tuple[I32, I32, I64, I32]:
    """Direct the chosen arcs away from the least node of each of their trees.

    Returns: for each node the one above (the root for the least nodes), the arc to it, the price; and the
    nodes in an order in which every node comes after the one above.
    """
    tail, head, _, cost, _ = problem
    nodes = problem.excess.shape[0]
    first, near = arcs_at(tail, head, chosen, nodes)
    parent = np.full(nodes + 1, _NONE, np.int32)
    link = np.full(nodes + 1, _NONE, np.int32)
    price = np.zeros(nodes + 1, np.int64)
    order = np.empty(nodes, np.int32)
    reached = 0
    done = 0
    for start in range(nodes):
        if parent[start] == _NONE:
            parent[start] = nodes
            order[reached] = start
            reached += 1
        while done < reached:
            node = order[done]
            done += 1
            for index in range(first[node], first[node + 1]):
                arc = near[index]
                down = tail[arc] == node
                below = head[arc] if down else tail[arc]
                if parent[below] == _NONE:
                    parent[below] = node
                    link[below] = arc
                    price[below] = price[node] - cost[arc] if down else price[node] + cost[arc]
                    order[reached] = below
                    reached += 1
    return parent, link, price, order


@jit
def _balance(
    problem: FlowProblem, arcs: Arcs, parent: I32, link: I32, price: I64, order: I32
) -> I64:
    """Fill the arcs that the prices favour, balance by the tree as far as it can carry, and cut it where not.

    Returns: int64[n], the excess that is left at each node that was cut off from the one above.
    """
    tail, head, capacity, cost, excess = problem
    left = excess.copy()
    for arc in range(tail.shape[0]):
        if cost[arc] + price[head[arc]] < price[tail[arc]]:
            arcs.flow[arc] = capacity[arc]
            arcs.state[arc] = _FULL
            left[tail[arc]] -= capacity[arc]
            left[head[arc]] += capacity[arc]
    root = order.shape[0]
    for place in range(root - 1, -1, -1):
        node = order[place]
        above = parent[node]
        if above == root:
            continue
        arc = link[node]
        up = tail[arc] == node
        need = left[node] if up else -left[node]
        flow = min(max(need, 0), capacity[arc])
        arcs.flow[arc] = flow
        left[node] -= flow if up else -flow
        left[above] += flow if up else -flow
        to_root = capacity[arc] - flow if up else flow
        if flow == need and to_root > 0:
            arcs.state[arc] = _IN_TREE
        else:
            arcs.state[arc] = _EMPTY if flow == 0 else _FULL
            parent[node] = root
    return left


@jit
def _hang(
    arcs: Arcs, parent: I32, link: I32, order: I32, left: I64
) -> tuple[I32, I32, I32, I32, I32, I32, I64]:
    """Hang every part of the cut forest from the root by an artificial arc that carries what is left."""
    tail, head, _, cost, flow, state = arcs
    root = order.shape[0]
    count = tail.shape[0] - root
    size = np.ones(root + 1, np.int32)
    for place in range(root - 1, -1, -1):
        size[parent[order[place]]] += size[order[place]]
    parent[root] = _NONE
    depth = np.zeros(root + 1, np.int32)
    price = np.zeros(root + 1, np.int64)
    free = np.ones(root + 1, np.int32)  # the next place in preorder below each node
    preorder = np.full(root + 1, root, np.int32)
    last = np.empty(root + 1, np.int32)
    for node in range(root):
        artificial = count + node
        if left[node] >= 0:
            head[artificial] = root
        else:
            tail[artificial] = root
        flow[artificial] = abs(left[node])
        if parent[node] == root:
            link[node] = artificial
            state[artificial] = _IN_TREE
    for node in order:
        above = parent[node]
        preorder[free[above]] = node
        free[node] = free[above] + 1
        free[above] += size[node]
        depth[node] = depth[above] + 1
        arc = link[node]
        price[node] = price[above] + (cost[arc] if tail[arc] == node else -cost[arc])
    after = np.empty(root + 1, np.int32)
    before = np.empty(root + 1, np.int32)
    for place in range(root + 1):
        after[preorder[place - 1]] = preorder[place]
        before[preorder[place]] = preorder[place - 1]
    for node in range(root + 1):
        last[node] = preorder[free[node] - 1]
    return parent, link, depth, after, before, last, price


@jit
def _improve(arcs: Arcs, tree: Tree, block: int) -> int:
    """Pivot until no arc is favoured; return the number of pivots."""
    tail, head, _, cost, _, state = arcs
    price = tree.price
    count = tail.shape[0] - price.shape[0] + 1
    arc = 0
    pivots = 0
    while True:
        worst = 0
        entering = _NONE
        in_block = 0
        for _ in range(count):
            favour = state[arc] * (cost[arc] + price[head[arc]] - price[tail[arc]])
            if favour < worst:
                worst = favour
                entering = arc
            arc += 1
            if arc == count:
                arc = 0
            in_block += 1
            if in_block == block:
                if entering != _NONE:
                    break
                in_block = 0
        if entering == _NONE:
            return pivots
        pivots += 1
        _pivot(arcs, tree, entering)


@jit
def _pivot(arcs: Arcs, tree: Tree, entering: int) -> None:
    """Move flow around the circle that `entering` closes, as much as there is room for.

    Of several arcs that stop it the last one leaves the tree, counted along the flow from the circle's node
    nearest to the root: this keeps the tree strongly feasible.
    """
    tail, head, capacity, cost, flow, state = arcs
    parent, link, depth = tree.parent, tree.arc, tree.depth
    begin, end = tail[entering], head[entering]
    if state[entering] == _FULL:
        begin, end = end, begin
    room = capacity[entering]
    leaving = _NONE  # the node below the arc that leaves
    inside = begin  # the end of the entering arc that is cut off with it
    u, v = begin, end
    while u != v:
        if depth[u] >= depth[v]:  # the flow comes down to u
            arc = link[u]
            most = flow[arc] if tail[arc] == u else capacity[arc] - flow[arc]
            if most < room:
                room, leaving, inside = most, u, begin
            u = parent[u]
        else:  # the flow goes up from v
            arc = link[v]
            most = capacity[arc] - flow[arc] if tail[arc] == v else flow[arc]
            if most <= room:
                room, leaving, inside = most, v, end
            v = parent[v]
    if room > 0:
        flow[entering] += room * state[entering]
        node = begin
        while node != u:
            arc = link[node]
            flow[arc] += -room if tail[arc] == node else room
            node = parent[node]
        node = end
        while node != u:
            arc = link[node]
            flow[arc] += room if tail[arc] == node else -room
            node = parent[node]
    if leaving == _NONE:
        state[entering] = -state[entering]
        return
    state[link[leaving]] = _EMPTY if flow[link[leaving]] == 0 else _FULL
    state[entering] = _IN_TREE
    gain = cost[entering] + tree.price[head[entering]] - tree.price[tail[entering]]
    rise = gain if inside == tail[entering] else -gain
    _graft(tree, inside, end if inside == begin else begin, leaving, entering, rise)


@jit
def _graft(tree: Tree, inside: int, outside: int, leaving: int, entering: int, rise: int) -> None:
    """Cut off the tree below `leaving`, turn it so that `inside` is on top, and hang it below `outside`.

    In preorder each node from `inside` up to `leaving` keeps what was below it, less what moved before it.
    """
    parent, link, depth, after, before, last, price = tree
    front = before[leaving]
    back = last[leaving]
    node = parent[leaving]
    while node != _NONE and last[node] == back:
        last[node] = front
        node = parent[node]
    end = last[inside]  # of the new order as far as it is made
    rest = after[end]  # what comes after the part that was moved
    node, above, arc = inside, parent[inside], link[inside]
    left_of = before[inside]
    node_last = end
    parent[inside], link[inside] = outside, entering
    while node != leaving:
        next_above, next_arc, next_left, above_last = (
            parent[above],
            link[above],
            before[above],
            last[above],
        )
        parent[above], link[above] = node, arc
        after[end], before[above] = above, end
        end = left_of
        if above_last != node_last:
            after[end], before[rest] = rest, end
            end = above_last
            rest = after[end]
        node, above, arc, left_of, node_last = above, next_above, next_arc, next_left, above_last
    after[front], before[rest] = rest, front
    rest = after[outside]
    after[outside], before[inside] = inside, outside
    after[end], before[rest] = rest, end
    while node != outside:
        last[node] = end
        node = parent[node]
    while node != _NONE and last[node] == outside:
        last[node] = end
        node = parent[node]
    node = inside
    while True:
        depth[node] = depth[parent[node]] + 1
        price[node] += rise
        if node == end:
            return
        node = after[node]
