"""Minimum-cost flow with costs of 0 and 1 by pushing downhill: the solver for all but long thin graphs.

Lives here: the residual network, the search that measures how far every node is from a deficit, and the
discharge that pushes excess towards deficits. May not live here: what a node or an arc means, and any proof
(certificate).

The label of a node is a lower bound on its way to the nearest deficit in the residual network: first the cost,
then, between ways of equal cost, the number of steps: label = cost * 2^32 + steps. A residual arc u -> v of cost c
keeps cost(u) <= c + cost(v), and flow moves along it only when label(u) > label(v) + c * 2^32. So arcs that carry
some of what they could cost exactly the difference of their labels, which is optimality, and flow never runs
in circles. `search` sets all labels exactly; `discharge` pushes and raises labels node by node, first in first
out, until nothing can move or it has done about the work of a search. A node with more steps than some number
of steps that no node has any more (a gap) cannot reach a deficit at its cost: it waits for the next search, as does
one that has risen a few steps above the farthest. Excess that lies next to a deficit is poured there beforehand.

Invariants kept: integers only, one thread, no hashing: equal input gives equal flow on every machine; no excess
ever becomes a deficit.

Source: own design after the push-relabel method of Goldberg and Tarjan with global updates and gaps (Math. of
Operations Research 15, 1990; Cherkassky and Goldberg, Algorithmica 19, 1997). Costs are so small that labels
hold them whole, so it needs no scaling of costs: measured against scaling in 2 to 14 phases, against primal-dual
rounds and against augmenting paths, one phase looked at 2 to 10 times fewer arcs.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import invariant
from clearing.netting.engine import Engine, jit, room
from clearing.netting.instructions import prefetch
from clearing.netting.setoff_core import VERTICES_MAX, FlowProblem, FlowSolution, as_engine

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
I8: TypeAlias = NDArray[np.int8]
U32: TypeAlias = NDArray[np.uint32]

# A slot is one end of an arc: 16 bytes that change when flow moves, what the arc can still carry from here and the
# slot at its other end, and 4 bytes apart, all that is read to decide whether: the node at the other end << 4 |
# whether nothing can go there | whether nothing can come from there | the cost of going there + 1.
_RESIDUAL: Final = 0
_PARTNER: Final = 1
_COST: Final = 3
_SHUT_IN: Final = 4
_SHUT_OUT: Final = 8
_NODE_SHIFT: Final = 4
_NODE: Final = VERTICES_MAX - 1
# A shut way is longer than any by so much: added without a branch, which would often be guessed wrong.
_IN_TO_SHUT: Final = 60
_OUT_TO_SHUT: Final = 59

_STEPS: Final = (1 << 32) - 1
_STRANDED: Final = 1 << 30  # steps of a node that has no way at its cost
_FAR: Final = 1 << 61  # more than any way, less than a shut one
_CERTAIN: Final = -1
_NONE: Final = -1
_RAISE_WORK: Final = 4  # raising a label costs about as much as looking at so many slots
_CLIMB: Final = 4  # steps above the farthest measured to which a label rises before the next search
_ARCS_AHEAD: Final = 16  # arcs from which a slot is fetched that will be written
_AHEAD: Final = 3  # places in line from which what a node will read is fetched

# Work is counted in sweeps, one sweep being a look at every slot.
_FIRST_CHECK: Final = 32
_PATIENCE: Final = 300
_NODES_A_SWEEP: Final = 64


def solve(problem: FlowProblem, engine: Engine, *, patient: bool) -> FlowSolution | None:
    """Solve the problem, searching from the side, deficits or excesses, that has fewer nodes.

    Returns: the solution; None when not `patient` and the excess shrinks so slowly that the network simplex
    method will be faster. Whether it does depends on the problem only, not on time.
    """
    deficits = int(np.count_nonzero(problem.excess < 0))
    if 4 * deficits > 5 * int(np.count_nonzero(problem.excess > 0)):
        turned = problem._replace(tail=problem.head, head=problem.tail, excess=-problem.excess)
        found = _push(turned, engine, patient=patient)
        return None if found is None else FlowSolution(found.flow, -found.potential)
    return _push(problem, engine, patient=patient)


def _push(problem: FlowProblem, engine: Engine, *, patient: bool) -> FlowSolution | None:
    network = _network(problem, engine)
    nodes, sweep = problem.excess.shape[0], 2 * problem.tail.shape[0]
    run_search, run_discharge = as_engine(engine, _search), as_engine(engine, _discharge)
    cursor = network.first[:-1].copy()
    before = left = _unsettled(network.excess)
    check = _FIRST_CHECK * sweep
    work = 0
    while left:
        measured, seen, lost = run_search(network)
        invariant(lost == 0, "set-off: an excess has no way back to balance")
        work += nodes + seen + run_discharge(network, measured, cursor, sweep * 3 // 4)
        left = _unsettled(network.excess)
        if work >= check and not patient:
            # At this pace, in halvings of the excess, how many sweeps are still to do?
            gained = before.bit_length() - left.bit_length()
            if (check // 2) * left.bit_length() > gained * sweep * (
                _PATIENCE + nodes // _NODES_A_SWEEP
            ):
                return None
            before = left
            check *= 2
    return FlowSolution(
        problem.capacity - network.slots[network.home, _RESIDUAL], network.label >> 32
    )


def _network(problem: FlowProblem, engine: Engine) -> Network:
    """Build the residual network, with what excess next to a deficit sends there at once."""
    arcs = problem.tail.shape[0]
    poured: I64 = room(arcs, np.int64)
    excess, label = as_engine(engine, _pour)(*problem, poured)
    slots = room(4 * arcs, np.int64).reshape(2 * arcs, 2)
    ends, home, after = room(2 * arcs, np.uint32), room(arcs, np.int64), room(2 * arcs, np.int32)
    first = as_engine(engine, _lay_out)(*problem, poured, slots, ends, home)
    return Network(first, slots, ends, home, excess, label, after)


def _unsettled(excess: I64) -> int:
    return int(excess[excess > 0].sum())


class Network(NamedTuple):
    """A residual network and the state of its solution.

    first: int64[n + 1], the slots of node v are first[v]..first[v+1]-1.
    slots: int64[2m, 2], residual and partner. ends: uint32[2m], what is read of each slot. home: int64[m], the slot at
    the tail of each arc.
    excess: int64[n], what each node has to send (+) or to receive (-). label: int64[n]. after: int32[2m], for `_search`.
    """

    first: I64
    slots: I64
    ends: U32
    home: I64
    excess: I64
    label: I64
    after: I32


@jit
def _pour(
    tail: I32, head: I32, capacity: I64, cost: I8, excess: I64, poured: I64
) -> tuple[I64, I64]:
    """Send what can go from an excess straight to a deficit, arc by arc; nothing where going is free anywhere.

    With a label of one step of cost at every excess and none elsewhere all arcs keep what labels promise. In a dense
    graph this does most of what the first search and discharge would, in one look at every arc in order.

    Returns: the excess that is left, and the labels; `poured` is filled.
    """
    left = excess.copy()
    label = np.zeros(excess.shape[0], np.int64)
    dear = True
    for arc in range(tail.shape[0]):
        poured[arc] = 0
        dear &= cost[arc] == 1
    if dear:
        for node in range(excess.shape[0]):
            label[node] = np.int64(excess[node] > 0) << 32
        for arc in range(tail.shape[0]):
            have, need = left[tail[arc]], -left[head[arc]]
            if (have > 0) & (need > 0):
                flow = min(have, need, capacity[arc])
                poured[arc] = flow
                left[tail[arc]] -= flow
                left[head[arc]] += flow
    return left, label


@jit
def _lay_out(
    tail: I32,
    head: I32,
    capacity: I64,
    cost: I8,
    excess: I64,
    poured: I64,
    slots: I64,
    ends: U32,
    home: I64,
) -> I64:
    """Fill the residual network of the flow that was poured; return where the slots of each node begin."""
    nodes = excess.shape[0]
    arcs = tail.shape[0]
    first = np.zeros(nodes + 1, np.int64)
    for arc in range(arcs):
        first[tail[arc] + 1] += 1
        first[head[arc] + 1] += 1
    for node in range(nodes):
        first[node + 1] += first[node]
    free = first.copy()
    for arc in range(arcs):
        soon = free[head[min(arc + _ARCS_AHEAD, arcs - 1)]]
        prefetch(slots[soon], 0)
        prefetch(ends, soon)
        u = np.int64(tail[arc])
        v = np.int64(head[arc])
        here = free[u]
        free[u] += 1
        there = free[v]
        free[v] += 1
        price = np.int64(cost[arc])
        slots[here, _RESIDUAL] = capacity[arc] - poured[arc]
        slots[there, _RESIDUAL] = poured[arc]
        slots[here, _PARTNER] = there
        slots[there, _PARTNER] = here
        onward = 0 if capacity[arc] > poured[arc] else 1
        backward = 0 if poured[arc] > 0 else 1
        ends[here] = v << _NODE_SHIFT | onward * _SHUT_OUT | backward * _SHUT_IN | (1 + price)
        ends[there] = u << _NODE_SHIFT | backward * _SHUT_OUT | onward * _SHUT_IN | (1 - price)
        home[arc] = here
    return first


@jit
def _search(network: Network) -> tuple[I64, int, int]:
    """Set every label to its exact value, up to the cost at which the last excess finds a deficit.

    Dijkstra backwards from all deficits, level by level of reduced cost, within a level in order of steps.

    Returns: the nodes measured, nearest first (nodes beyond are stranded); the slots looked at; how many
    nodes with excess cannot reach any deficit.
    """
    first, _, ends, _, excess, label, after = network
    nodes = excess.shape[0]
    # The best way known: (level + cost by the old label) << 32 | steps; _CERTAIN when there is no better one.
    way = np.full(nodes, _FAR, np.int64)
    reach = np.empty(nodes, np.int64)  # of nodes that are certain: level << 32 | steps
    line = np.empty(nodes, np.int64)  # nodes that are certain, in order of steps
    batch = np.empty(nodes, np.int64)  # nodes that waited for this level: steps << 32 | node
    order = np.empty(nodes, np.int64)
    waiting = np.full(nodes + 2, _NONE, np.int32)  # by level, a list of slots that lead to a node
    level = top = measured = head = tail = work = 0
    taken = nodes
    wanted = int(np.count_nonzero(excess > 0))
    for deficit in np.flatnonzero(excess < 0):
        reach[deficit] = 0
        way[deficit] = _CERTAIN
        line[tail] = deficit
        tail += 1
    while wanted > 0:
        if taken < nodes and (head == tail or batch[taken] >> 32 <= reach[line[head]] & _STEPS):
            node = int(batch[taken] & _NODE)
            steps = batch[taken] >> 32
            taken += 1
            if way[node] == _CERTAIN:
                continue
            reach[node] = level << 32 | steps
            way[node] = _CERTAIN
            wanted -= excess[node] > 0
        elif head < tail:
            node = line[head]
            head += 1
        elif level < top:
            level += 1
            taken = _take(waiting[level], after, ends, way, batch)
            continue
        else:
            break
        order[measured] = node
        measured += 1
        work += first[node + 1] - first[node]
        above = level + (label[node] >> 32) + 1
        step = (reach[node] & _STEPS) + 1
        begin = first[node]
        for place, end in enumerate(ends[begin : first[node + 1]]):
            seen = np.int64(end)
            other = seen >> _NODE_SHIFT
            found = ((above - (seen & _COST)) << 32 | step) + ((seen & _SHUT_IN) << _IN_TO_SHUT)
            if found < way[other]:
                lies_at = (found >> 32) - (label[other] >> 32)
                if lies_at > level and way[other] >> 32 != found >> 32:
                    after[begin + place] = waiting[lies_at]
                    waiting[lies_at] = begin + place
                    top = max(top, lies_at)
                way[other] = found
                if lies_at == level:
                    reach[other] = level << 32 | step
                    way[other] = _CERTAIN
                    line[tail] = other
                    tail += 1
                    wanted -= excess[other] > 0
    order[measured : measured + tail - head] = line[head:tail]
    _raise_labels(label, way, reach, level)
    return order[: measured + tail - head], work, wanted


@jit
def _take(slot: int, after: I32, ends: U32, way: I64, batch: I64) -> int:
    """Put the nodes of a list that still wait at the end of `batch`, in order of steps.

    Returns: where in `batch` they begin.
    """
    begin = int(batch.shape[0])
    least = _FAR
    in_order = True
    while slot != _NONE:  # the last to come is the first in the list
        node = np.int64(ends[slot]) >> _NODE_SHIFT
        if way[node] != _CERTAIN:
            steps = way[node] & _STEPS
            in_order &= steps <= least
            least = steps
            begin -= 1
            batch[begin] = steps << 32 | node
        slot = after[slot]
    if not in_order:
        batch[begin:].sort()
    return begin


@jit
def _raise_labels(label: I64, way: I64, reach: I64, level: int) -> None:
    for node in range(label.shape[0]):
        if way[node] == _CERTAIN:
            label[node] = ((label[node] >> 32) + (reach[node] >> 32)) << 32 | (reach[node] & _STEPS)
        else:
            label[node] = ((label[node] >> 32) + level) << 32 | _STRANDED


@jit
def _discharge(network: Network, measured: I64, cursor: I64, limit: int) -> int:
    """Push excess downhill, raising labels where it is stuck, until nothing moves or the work is done.

    measured: the nodes that `_search` measured. cursor: int64[n], the slot at which each node goes on, kept by the
    caller, first network.first. limit: slots to look at.

    Returns: the work done, in slots looked at.
    """
    first, slots, ends, _, excess, label, _ = network
    nodes = excess.shape[0]
    crowd = np.zeros(nodes + 1, np.int64)  # by steps, how many nodes have them
    gap = nodes
    line, queued, tail = _line_up(measured, excess, label, crowd)
    ring = line.shape[0] - 1
    most = (label[measured[-1]] & _STEPS) + _CLIMB
    head = work = 0
    while head < tail and work < limit:
        node = line[head & ring]
        head += 1
        follows = cursor[line[(head + _AHEAD) & ring]]
        prefetch(ends, follows)
        prefetch(slots[follows], 0)
        queued[node] = False
        own = label[node]
        if own & _STEPS > gap:
            continue
        begin, end = first[node], first[node + 1]
        slot, left = cursor[node], excess[node]
        start, stop, best = slot, end, _FAR
        while True:
            slot, best = _look(ends, label, own, slot, stop, best)
            if slot < stop:
                other = np.int64(ends[slot]) >> _NODE_SHIFT
                partner = slots[slot, _PARTNER]
                can = slots[slot, _RESIDUAL]
                flow = min(left, can)
                if slots[partner, _RESIDUAL] == 0:
                    ends[slot] &= ~np.uint32(_SHUT_IN)
                    ends[partner] &= ~np.uint32(_SHUT_OUT)
                if flow == can:
                    ends[slot] |= np.uint32(_SHUT_OUT)
                    ends[partner] |= np.uint32(_SHUT_IN)
                slots[slot, _RESIDUAL] = can - flow
                slots[partner, _RESIDUAL] += flow
                excess[other] += flow
                if excess[other] > 0 and not queued[other]:
                    queued[other] = True
                    line[tail & ring] = other
                    tail += 1
                left -= flow
                if left == 0:
                    break
                slot += 1
            elif stop == end:  # round to where it began
                slot, stop = begin, start
            else:
                work += end - begin + _RAISE_WORK
                crowd[own & _STEPS] -= 1
                if crowd[own & _STEPS] == 0:
                    gap = min(gap, own & _STEPS)
                own = best + 1
                if own & _STEPS > min(gap, most):
                    own = own >> 32 << 32 | _STRANDED
                    break
                crowd[own & _STEPS] += 1
                stop, best = end, _FAR
        label[node], cursor[node], excess[node] = own, slot, left
    return work


@jit
def _look(ends: U32, label: I64, own: int, slot: int, stop: int, best: int) -> tuple[int, int]:
    """Look from a slot on for one that leads below the label `own`.

    Returns: the slot, or `stop`; the least label that others lead to, or `best`.
    """
    for at in range(slot, stop):
        seen = np.int64(ends[at])
        shut = (seen & _SHUT_OUT) << _OUT_TO_SHUT
        there = label[seen >> _NODE_SHIFT] + (((seen & _COST) - 1) << 32) + shut
        if there < own:
            return at, best
        best = min(best, there)
    return stop, best


@jit
def _line_up(
    measured: I64, excess: I64, label: I64, crowd: I64
) -> tuple[I64, NDArray[np.bool_], int]:
    """Count the nodes by steps, and put those with excess in line, the farthest first.

    Returns: the line, a ring of a power of two of places; which nodes stand in it; how many they are.
    """
    nodes = label.shape[0]
    places = 1
    while places < nodes:
        places *= 2
    line = np.zeros(places, np.int64)
    queued = np.zeros(nodes, np.bool_)
    length = 0
    for node in range(nodes):
        if label[node] & _STEPS <= nodes:
            crowd[label[node] & _STEPS] += 1
    for node in measured[::-1]:
        if excess[node] > 0:
            queued[node] = True
            line[length] = node
            length += 1
    return line, queued, length
