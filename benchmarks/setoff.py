"""Set-off of one asset: ours, from arrays to a certified result, against minimum-cost flow solvers on the whole graph.

Ours is timed with everything: merging, cores, solving, spreading over the rows, and the certificate. Of the peers solve() alone is
timed, not the building of their graph. The discharge is not unique, so values are compared, and ours is certified.
"""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import OURS, PEER, REFERENCE, Case, Contender, Goal, PeerAbsent, hold, timed
from benchmarks.floor import THREADS, floors_or_none
from benchmarks.graphs import GRAPHS, HARD, MILLION, columns_of
from benchmarks.obligations import SEED, Shape, book_of, bytes_of
from benchmarks.peers import native
from benchmarks.peers.remote import peers
from clearing.netting import certificate
from clearing.netting.columns import AssetColumns, Book, gross_of
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.setoff import set_off
from node.netting.obligation_file import read_obligations

PORTABLE_ROWS_MAX = 10_000
ROWS_FOR_THREADS = 500_000
BITS = 30
PEERS = ("LEMON network simplex", "LEMON cost scaling", "OR-tools")


def lemon(name: str, solver: str, graph: dict[str, NDArray[Any]]) -> Contender:
    """Return a solver of LEMON as a contender; it takes the time itself, of run() alone.

    Raises: PeerAbsent.
    """
    function = native.lemon(solver)
    flow = np.zeros(len(graph["tail"]), np.int64)
    nodes, arcs = ctypes.c_int32(len(graph["supply"])), ctypes.c_int64(len(flow))
    columns = [native.pointer(graph[key]) for key in ("tail", "head", "capacity", "supply")]

    def run() -> float:
        nanoseconds = function(nodes, arcs, *columns, native.pointer(flow))
        if nanoseconds < 0:
            raise PeerAbsent("finds no optimum")
        return float(nanoseconds) / 1e9

    def value() -> int:
        return int(graph["capacity"].sum()) - int(flow.sum())

    return Contender(name, PEER, run, value)


def graph_of(columns: AssetColumns, participants: int) -> dict[str, NDArray[Any]]:
    """Pose set-off to a solver: what flows on is what stays owed; supplies are net positions. Arcs by tail."""
    order = np.argsort(columns.debtor, kind="stable")
    tail, head = (side[order].astype(np.int32) for side in (columns.debtor, columns.creditor))
    capacity = columns.lo[order].astype(np.int64)
    supply = np.zeros(participants, np.int64)
    np.add.at(supply, tail, capacity)
    np.subtract.at(supply, head, capacity)
    return {"tail": tail, "head": head, "capacity": capacity, "supply": supply}


@contextlib.contextmanager
def solvers_of(
    columns: AssetColumns, participants: int
) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Make the solvers ready while the block runs: contenders, and who is absent and why."""
    graph = graph_of(columns, participants)
    with peers("setoff", {}, graph) as (found, absent):
        contenders = [one_number(contender) for contender in found]
        for name, solver in zip(
            PEERS, ("lemon_network_simplex", "lemon_cost_scaling"), strict=False
        ):
            try:
                contenders.append(lemon(name, solver, graph))
            except PeerAbsent as reason:
                absent[name] = str(reason)
        yield contenders, absent


@contextlib.contextmanager
def no_solvers(why: str) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Say why none takes part."""
    yield [], dict.fromkeys(PEERS, why)


def contest_of(
    columns: AssetColumns,
    facts: dict[str, Any],
    *,
    quick: bool = False,
    alone: bool = False,
    goals: Sequence[Goal] = (),
) -> Case:
    """Hold one contest over the obligations of one asset; `alone`: without peers."""
    participants = int(max(columns.debtor.max(), columns.creditor.max())) + 1
    book = Book(columns, np.array([0, columns.rows], np.int64))
    answer = set_off(columns, participants)
    lo, hi, potentials = answer.discharged_lo, answer.discharged_hi, answer.potentials

    def verify() -> int:
        gap = certificate.verify(columns, lo, hi, potentials)
        return answer.value + gap

    narrow = columns.hi is None and gross_of(columns) < 1 << 62 and not alone
    why = "ours alone: they take too long" if alone else "64-bit sums only"
    solvers = solvers_of(columns, participants) if narrow else no_solvers(why)
    with ThreadPoolExecutor(THREADS) as pool, solvers as (found, absent):

        def solve(engine: Engine) -> Callable[[], int]:
            pieces = THREADS if columns.rows >= ROWS_FOR_THREADS else 1
            return lambda: (
                set_off(columns, participants, engine=engine, runner=pool.map, pieces=pieces).value
            )

        ours = [timed("ours", OURS, solve(DEFAULT))]
        if DEFAULT is Engine.COMPILED and columns.rows <= PORTABLE_ROWS_MAX:
            ours.append(timed("ours, without numba", OURS, solve(Engine.PORTABLE)))
        certified = timed("our certificate alone", REFERENCE, verify)
        contenders = [*floors_or_none(book, pool), *ours, certified, *found]
        return hold(
            "setoff",
            facts
            | {"cleared_percent": round(100 * answer.value / max(1, sum(columns.amounts())), 3)},
            columns.rows,
            contenders,
            rounds=3 if quick else 7,
            share_s=1 if quick else 15,
            gb_read=bytes_of(book) / 1e9,
            absent=absent,
            goals=goals,
        )


def one_number(contender: Contender) -> Contender:
    """Let a peer's array of one value be compared with ours."""
    given = contender.answer
    contender.answer = lambda: None if given is None else int(given()[0])
    return contender


def contest(shape: Shape, *, debts: pathlib.Path | None = None, quick: bool = False) -> Case:
    """Hold one contest over random obligations of a shape, or over a file of real debts."""
    if debts is not None:
        return real(debts, quick=quick)
    return contest_of(book_of(shape).columns, shape.facts(), quick=quick)


def real(path: pathlib.Path, *, quick: bool = False) -> Case:
    """Hold one contest over a file of debts, all taken as one asset."""
    table = read_obligations(path.read_bytes())
    facts = {"name": f"real debts, {len(table):,} rows, {len(table.parties):,} parties"}
    goals = (Goal("LEMON network simplex", 3), Goal("OR-tools", 6))
    return contest_of(table.columns, facts, quick=quick, goals=goals)


def on_graph(name: str, bits: int = BITS) -> Case:
    """Hold one contest on one of the graphs."""
    facts = {"name": f"{name}, {bits} bits", "graph": name, "bits": bits, "seed": SEED}
    goals: tuple[Goal, ...] = ()
    if name.startswith(HARD):
        goals = (Goal("LEMON network simplex", 0.5),)
    elif name.startswith("200 banks"):
        goals = (Goal("peer", 20),)
    elif name.startswith("scale-free 10k, 840k rows"):
        goals = (Goal("peer", 3),)
    return contest_of(columns_of(GRAPHS[name](), bits), facts, goals=goals)


def million(name: str, bits: int = BITS) -> Case:
    """Time ours on a hard graph of a million rows."""
    facts = {"name": f"{name}, {bits} bits", "graph": name, "bits": bits, "seed": SEED}
    return contest_of(
        columns_of(MILLION[name](), bits), facts, alone=True, goals=(Goal("ms", 60_000),)
    )


def standard(*, quick: bool) -> list[Callable[[], Case]]:
    """Return the cases of the report: sizes, graphs, and amounts above 64 bits; real debts come with --debts."""
    if quick:
        return [partial(contest, Shape(2_000, 100, 1, BITS), quick=True)]
    sizes = [Shape(10**power, 1_000, 1, BITS) for power in range(3, 7)]
    wide = [partial(on_graph, "scale-free 10k, 95k rows", bits) for bits in (69, 104, 127)]
    return [
        *(partial(on_graph, name) for name in GRAPHS),
        *(partial(million, name) for name in MILLION),
        *(partial(contest, shape) for shape in sizes),
        *wide,
    ]
