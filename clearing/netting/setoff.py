"""Set-off: the greatest total discharge of divisible obligations that leaves every net position as it was.

Lives here: the public method, the choice of solver, and the way from obligations to a certified result. May not live
here: the solvers (setoff_push, setoff_simplex, setoff_wide) and the proof (certificate).
Invariants kept: nothing leaves here without a certificate of gap zero; the value and, between each two
participants, the discharge do not depend on the order of the rows, the engine or the machine.

In the graph with an arc from debtor to creditor for each obligation this is the greatest circulation. It is not
unique in general: another program may find another discharge of the same value. With liquidity, a money node is
joined to every participant, and what flows through it is paid in money: circles may then end in a balance.

Source: obligation clearing as in Fleischman, Dini and Littera (J. Risk Financial Manag. 13(12):295, 2020); method
as said in the modules.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import invariant
from clearing.netting import (
    certificate,
    setoff_dense,
    setoff_push,
    setoff_simplex,
    setoff_wide,
    wide,
)
from clearing.netting.columns import AssetColumns, Ids, InvalidColumns, check_rows, gross_of
from clearing.netting.engine import DEFAULT, Engine, Runner, in_turn
from clearing.netting.gridlock import queue_order
from clearing.netting.limits import minimum
from clearing.netting.setoff_core import (
    ARCS_MAX,
    OUTSIDE,
    VERTICES_MAX,
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

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
U64: TypeAlias = NDArray[np.uint64]

# Below this gross total the capacities, with those of the money node, sum to less than 2^61.
_NARROW_MAX: Final = 1 << 59
# Pivots of a thin core take less than so many looks at all arcs, which is about what pushing takes there.
_THIN_SWEEPS: Final = 128
# Up to here even pivots as long as the whole core take seconds at most.
_LONG_NODES_MAX: Final = 50_000
_ONE: Final = np.array([[1, 0, 0]], np.uint64)


class Route(enum.Enum):
    """Which solver runs; the answer is certified whichever does, and its value is the same."""

    AUTO = "auto"
    PUSH = "push"
    SIMPLEX = "simplex"


@dataclass(frozen=True, slots=True, eq=False)
class SetOff:
    """A greatest set-off of one asset with its certificate.

    discharged_lo, discharged_hi: uint64[rows], what each obligation loses; hi is None when the columns have none.
    potentials: int64[participants]; with them `certificate.verify` finds a gap of zero.
    value: the sum of the discharge, which is also the bound that the potentials prove.
    """

    discharged_lo: U64
    discharged_hi: U64 | None
    potentials: I64
    value: int

    def discharged(self) -> list[int]:
        """The discharge as Python integers, in row order."""
        return wide.join_amounts(self.discharged_lo, self.discharged_hi)


def set_off(
    columns: AssetColumns,
    participants: int,
    liquidity: U64 | None = None,
    *,
    route: Route = Route.AUTO,
    engine: Engine = DEFAULT,
    runner: Runner = in_turn,
    pieces: int = 1,
) -> SetOff:
    """Set off the obligations of one asset against each other, as much as can be.

    columns: obligations; parallel ones lose in queue order (priority, then row order). participants: ids are
    below it; below 2^28. liquidity: wide array uint64[participants, 3] in [0, 2^128), how much more than it
    receives each may pay in money; None: nothing. pieces: how many parts the rows are cut into for `runner` in the
    passes over them, as for positions; what lies between runs on one thread.

    Returns: the discharge with its certificate.
    Raises: InvalidRow: the first bad row. InvalidColumns: too many participants or rows, or a malformed liquidity.
    """
    if participants >= VERTICES_MAX or columns.rows + 2 * participants >= ARCS_MAX:
        raise InvalidColumns("set-off takes fewer than 2^28 participants and 2^29 obligations")
    order = queue_order(columns)
    rows = columns if order is None else columns.take(order)
    tables = setoff_dense.totals(rows, participants, _NARROW_MAX, engine, runner, pieces)
    if tables is None:
        check_rows(columns, participants, engine=engine)
    if liquidity is not None:
        certificate.check_liquidity(liquidity, participants)
    owed = rows if tables is None else setoff_dense.pairs_of(tables)
    run = _narrow if tables is not None or gross_of(columns) < _NARROW_MAX else _wide
    lo, hi, potential = run(owed, participants, liquidity, route, engine)
    value = wide.total_unsigned(lo) + (0 if hi is None else wide.total_unsigned(hi) << 64)
    if tables is not None:
        lo = setoff_dense.hand_out(rows, owed, lo, tables, runner)
    if order is not None:
        back = np.argsort(order)
        lo, hi = lo[back], None if hi is None else hi[back]
    gap = certificate.verify(
        columns, lo, hi, potential, liquidity, engine=engine, runner=runner, pieces=pieces
    )
    invariant(gap == 0, f"set-off: the discharge is {gap} short of its bound")
    return SetOff(lo, hi, potential, value)


def _narrow(
    rows: AssetColumns, participants: int, liquidity: U64 | None, route: Route, engine: Engine
) -> tuple[U64, U64 | None, I64]:
    """Set off amounts whose sums fit 64 bits.

    Returns: discharged_lo, discharged_hi, potentials.
    """
    core, money = _core_of(rows, participants, liquidity, engine)
    amount = rows.lo if money is None else np.concatenate([rows.lo, money[:, 0]])
    upper = total_by_arc(core, amount, engine)
    flow, potential = _solve(core, np.zeros_like(upper), upper, participants, route, engine)
    lo = spread(core, rows.lo, flow, engine)
    hi = None if rows.hi is None else np.zeros_like(rows.hi)
    return lo, hi, _potentials(core, potential, participants)


def _wide(
    rows: AssetColumns, participants: int, liquidity: U64 | None, route: Route, engine: Engine
) -> tuple[U64, U64 | None, I64]:
    """Set off amounts of any size; as `_narrow`."""
    core, money = _core_of(rows, participants, liquidity, engine)
    amount = wide.to_places(rows.lo, rows.hi)
    capacity = setoff_wide.total_by_arc(core, amount)
    if money is not None:
        arc = core.arc[rows.rows :]
        capacity[arc[arc >= 0]] = money[arc >= 0]
    flow, potential = setoff_wide.solve_rounds(
        capacity, lambda lower, upper: _solve(core, lower, upper, participants, route, engine)
    )
    discharged = setoff_wide.spread(core, amount, flow)
    lo, hi = (np.ascontiguousarray(discharged[:, limb]) for limb in range(2))
    return lo, None if rows.hi is None else hi, _potentials(core, potential, participants)


def _core_of(
    rows: AssetColumns, participants: int, liquidity: U64 | None, engine: Engine
) -> tuple[Core, U64 | None]:
    """Extract the cores of the obligations and, with liquidity, of the money that can help.

    Returns: the core, and the wide amounts of the rows for money that were put after the obligations.
    """
    debtor, creditor = _signed(rows.debtor), _signed(rows.creditor)
    if liquidity is None:
        return extract(debtor, creditor, participants, engine), None
    owes, owed = (
        _sums_by(rows, rows.debtor, participants),
        _sums_by(rows, rows.creditor, participants),
    )
    # A capacity of one more than could ever be used is never used up, so it has no price: what is beyond it
    # cannot matter, and 64 bits suffice for balances of any size.
    own = np.arange(participants, dtype=np.int32)
    rich = np.flatnonzero(liquidity.any(axis=1)).astype(np.int32)
    into = wide.add(owed, _ONE)
    out = minimum(liquidity[rich], wide.add(owes[rich], _ONE))
    node = np.int32(participants)
    debtor = np.concatenate([debtor, own, np.full_like(rich, node)])
    creditor = np.concatenate([creditor, np.full_like(own, node), rich])
    return extract(debtor, creditor, participants + 1, engine), np.concatenate([into, out])


def _signed(ids: Ids) -> I32:
    """Give ids, which are below 2^28, as int32; without a copy where they have that width."""
    return ids.view(np.int32) if ids.dtype == np.uint32 else ids.astype(np.int32)


def _sums_by(rows: AssetColumns, party: NDArray[np.integer], participants: int) -> U64:
    sums = np.zeros((4, participants), np.int64)
    for column, words in zip(sums, wide.to_places(rows.lo, rows.hi), strict=True):
        np.add.at(column, party, words)
    return wide.from_places(sums)


def _solve(
    core: Core, lower: I64, upper: I64, participants: int, route: Route, engine: Engine
) -> tuple[I64, I64]:
    """Find the flow between the bounds, in balance at every node, that discharges most; and its potentials."""
    with_money = core.node.shape[0] > participants
    money = int(core.node[participants]) if with_money else OUTSIDE
    problem = pose(core, money, lower, upper, engine)
    found: FlowSolution | None = None
    if route is Route.PUSH or (route is Route.AUTO and not _is_thin(core, engine)):
        found = setoff_push.solve(problem, engine, patient=route is Route.PUSH)
    if found is None:
        found = setoff_simplex.solve(problem, engine)
    return answer(problem, found, lower, upper), found.potential


def _is_thin(core: Core, engine: Engine) -> bool:
    """Say whether a spanning tree is nearly all of the core, so that few pivots, however long, are all there is to do."""
    if core.arcs > 3 * core.nodes:
        return False
    if circles(core, engine) * core.nodes <= _THIN_SWEEPS * core.arcs:
        return True
    # A long chain with circles inside each other: the tree of greatest capacity is nearly right.
    sparse = 5 * core.arcs <= 8 * core.nodes <= 8 * _LONG_NODES_MAX
    return sparse and hops(core, engine) > 4 * math.isqrt(core.nodes)


def _potentials(core: Core, potential: I64, participants: int) -> I64:
    """Give every participant a potential; with a money node, that of money is zero."""
    lifted = potentials(core, potential)
    if lifted.shape[0] > participants:
        lifted -= lifted[participants]
    return lifted[:participants]
