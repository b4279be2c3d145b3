"""The other side of `remote.py`: runs in the peers' own environment, holds their data, times one run at a time.

Lives here: the peers that are Python packages, each in its best form: warm, all cores, data in its own layout before the clock
starts, answers converted after it stops. Imports nothing of this project.

Speaks JSON lines: {"load": kind, "directory": …} -> {"names": {name: exact}, "absent": {name: why}}; {"run": name} -> {"seconds": …};
{"answer": name, "path": …} -> {}; {"memory": true} -> {"peak_rss_mb": …}.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PANDAS_WIDE_ROWS_MAX = 300_000
NETWORKX_ARCS_MAX = 20_000
SIGN = {"debtor": -1, "creditor": 1, "cell": 1}

Peer = tuple[Callable[[], Any], Callable[[Any], np.ndarray], bool]
"""What runs, how its answer becomes an array, whether it is exact by construction."""


class Data:
    """The arrays of one case; those named by `sides` hold keys below `cells`, by which amounts are summed."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.facts = json.loads((directory / "facts.json").read_text())
        self.arrays = {path.stem: np.load(path) for path in directory.glob("*.npy")}
        self.cells = self.facts.get("cells", 0)
        self.sides = self.facts.get("sides", [])

    def __getattr__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def wide(self) -> bool:
        return "hi" in self.arrays

    @property
    def bits_of_sums(self) -> int:
        return int(self.facts["bits_of_sums"])

    @property
    def fits(self) -> bool:
        """Whether every sum fits the signed integers that hold the amounts."""
        return self.bits_of_sums <= (127 if self.wide else 63)

    def amounts(self) -> list[int]:
        return [
            (top << 64) | low for top, low in zip(self.hi.tolist(), self.lo.tolist(), strict=True)
        ]


def net_of(cells: int, sums: dict[str, tuple[Any, Any]]) -> np.ndarray:
    """Add sums by key, those of debtors negative: int64 cells, or uint64 limbs [cells, 2] of Python integers."""
    if all(isinstance(totals, np.ndarray) for _, totals in sums.values()):
        net = np.zeros(cells, np.int64)
        for side, (keys, totals) in sums.items():
            net[keys] += SIGN[side] * totals
        return net
    exact = [0] * cells
    for side, (keys, totals) in sums.items():
        for key, total in zip(keys, totals, strict=True):
            exact[key] += SIGN[side] * int(total)
    packed = b"".join((total % (1 << 128)).to_bytes(16, "little") for total in exact)
    return np.frombuffer(packed, "<u8").reshape(-1, 2)


def pyarrow_sums(pa: Any, data: Data) -> Peer:
    """A group-by a side; wide amounts as decimals that hold every sum."""
    importlib.import_module("pyarrow.compute")
    if data.wide:
        words = 2 if data.bits_of_sums < 126 else 4
        raw = np.zeros((len(data.lo), words), np.uint64)
        raw[:, 0], raw[:, 1] = data.lo, data.hi
        kind = pa.decimal128(38, 0) if words == 2 else pa.decimal256(76, 0)
        amount = pa.Array.from_buffers(kind, len(raw), [None, pa.py_buffer(raw.tobytes())])
    else:
        amount = pa.array(data.lo.astype(np.int64))
    table = pa.table({side: getattr(data, side) for side in data.sides} | {"amount": amount})

    def run() -> Any:
        return [table.group_by(side).aggregate([("amount", "sum")]) for side in data.sides]

    def convert(answer: Any) -> np.ndarray:
        sums = {}
        for side, found in zip(data.sides, answer, strict=True):
            totals = found["amount_sum"]
            sums[side] = (
                found[side].to_numpy(),
                totals.to_pylist() if data.wide else totals.to_numpy(),
            )
        return net_of(data.cells, sums)

    return run, convert, data.wide or data.fits


def polars_sums(pl: Any, data: Data) -> Peer:
    """Lazy group-bys, a side each, collected together; wide amounts as Int128."""
    columns = {side: getattr(data, side) for side in data.sides}
    frame = pl.DataFrame(columns | {"lo": data.lo})
    if data.wide:
        frame = frame.with_columns(hi=pl.Series(data.hi))
        high = pl.col("hi").cast(pl.Int128) * pl.lit(1 << 64, pl.Int128)
        frame = frame.select(*data.sides, amount=high + pl.col("lo").cast(pl.Int128))
    else:
        frame = frame.select(*data.sides, amount=pl.col("lo").cast(pl.Int64))

    def run() -> Any:
        lazy = frame.lazy()
        return pl.collect_all([lazy.group_by(s).agg(pl.col("amount").sum()) for s in data.sides])

    def convert(answer: Any) -> np.ndarray:
        sums = {}
        for side, found in zip(data.sides, answer, strict=True):
            totals = found["amount"]
            sums[side] = (
                found[side].to_numpy(),
                totals.to_list() if data.wide else totals.to_numpy(),
            )
        return net_of(data.cells, sums)

    return run, convert, data.fits


def duckdb_sums(duckdb: Any, data: Data) -> Peer:
    """A GROUP BY a side over a table of its own; wide amounts as HUGEINT."""
    pa = importlib.import_module("pyarrow")
    base = duckdb.connect()
    names = [*data.sides, "lo", *(["hi"] if data.wide else [])]
    base.register("given", pa.table({name: getattr(data, name) for name in names}))
    amount = (
        "hi::HUGEINT * 18446744073709551616::HUGEINT + lo::HUGEINT" if data.wide else "lo::BIGINT"
    )
    base.execute(
        f"CREATE TABLE book AS SELECT {', '.join(data.sides)}, {amount} AS amount FROM given"  # noqa: S608 - our own names
    )
    base.unregister("given")
    huge = data.wide or not data.fits
    total = "sum(amount)" if huge else "sum(amount)::BIGINT"

    def run() -> Any:
        answers = []
        for side in data.sides:
            found = base.execute(f"SELECT {side}, {total} FROM book GROUP BY {side}")  # noqa: S608 - our own names
            answers.append(found.fetchall() if huge else found.fetchnumpy())
        return answers

    def convert(answer: Any) -> np.ndarray:
        sums = {}
        for side, found in zip(data.sides, answer, strict=True):
            keys, totals = zip(*found, strict=True) if huge else found.values()
            sums[side] = np.asarray(keys), list(totals) if huge else np.asarray(totals)
        return net_of(data.cells, sums)

    return run, convert, data.bits_of_sums <= 127


def pandas_sums(pandas: Any, data: Data) -> Peer:
    """A group-by a side, without sorting; wide amounts as Python integers."""
    if data.wide and len(data.lo) > PANDAS_WIDE_ROWS_MAX:
        raise ImportError(f"no wide integers; Python ones up to {PANDAS_WIDE_ROWS_MAX:,} rows")
    amount = np.array(data.amounts(), object) if data.wide else data.lo.astype(np.int64)
    frame = pandas.DataFrame(
        {side: getattr(data, side) for side in data.sides} | {"amount": amount}
    )

    def run() -> Any:
        return [frame.groupby(side, sort=False)["amount"].sum() for side in data.sides]

    def convert(answer: Any) -> np.ndarray:
        sums = {}
        for side, found in zip(data.sides, answer, strict=True):
            sums[side] = found.index.to_numpy(), found.tolist() if data.wide else found.to_numpy()
        return net_of(data.cells, sums)

    return run, convert, data.wide or data.fits


def ortools_setoff(min_cost_flow: Any, data: Data) -> Peer:
    """SimpleMinCostFlow: the cheapest flow that keeps every net position; solve() alone is timed."""
    solver = min_cost_flow.SimpleMinCostFlow()
    cost = np.ones(len(data.tail), np.int64)
    solver.add_arcs_with_capacity_and_unit_cost(data.tail, data.head, data.capacity, cost)
    solver.set_nodes_supplies(np.arange(len(data.supply), dtype=np.int32), data.supply)

    def run() -> Any:
        status = solver.solve()
        if status != solver.OPTIMAL:
            raise RuntimeError(f"ortools says {status}")
        return solver.optimal_cost()

    return run, lambda cost: np.array([int(data.capacity.sum()) - cost]), True


def networkx_setoff(networkx: Any, data: Data) -> Peer:
    """network_simplex on a multigraph."""
    if len(data.tail) > NETWORKX_ARCS_MAX:
        raise ImportError(f"run up to {NETWORKX_ARCS_MAX:,} rows only, for it takes minutes above")
    graph = networkx.MultiDiGraph()
    for node, supply in enumerate(data.supply.tolist()):
        graph.add_node(node, demand=-supply)
    for tail, head, capacity in zip(
        data.tail.tolist(), data.head.tolist(), data.capacity.tolist(), strict=True
    ):
        graph.add_edge(tail, head, capacity=capacity, weight=1)

    def run() -> Any:
        return networkx.network_simplex(graph)[0]

    return run, lambda cost: np.array([int(data.capacity.sum()) - cost]), True


KINDS: dict[str, dict[str, tuple[str, Callable[[Any, Data], Peer]]]] = {
    "sums": {
        "pyarrow": ("pyarrow", pyarrow_sums),
        "polars": ("polars", polars_sums),
        "duckdb": ("duckdb", duckdb_sums),
        "pandas": ("pandas", pandas_sums),
    },
    "setoff": {
        "OR-tools": ("ortools.graph.python.min_cost_flow", ortools_setoff),
        "networkx": ("networkx", networkx_setoff),
    },
}


def load(kind: str, directory: str) -> tuple[dict[str, Peer], dict[str, str]]:
    """Hand the data of a case to each peer of its kind."""
    data = Data(pathlib.Path(directory))
    peers, absent = {}, {}
    for name, (module, make) in KINDS[kind].items():
        try:
            peers[name] = make(importlib.import_module(module), data)
        except ImportError as error:
            absent[name] = str(error)
    return peers, absent


def main() -> None:
    """Answer requests until the other side closes."""
    peers: dict[str, Peer] = {}
    answers: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        reply: dict[str, Any] = {}
        if "load" in request:
            answers = {}
            peers, absent = load(request["load"], request["directory"])
            reply = {"names": {name: peer[2] for name, peer in peers.items()}, "absent": absent}
        elif "run" in request:
            run = peers[request["run"]][0]
            start = time.perf_counter()
            try:
                answers[request["run"]] = run()
                reply = {"seconds": time.perf_counter() - start}
            except Exception as error:  # noqa: BLE001 - whatever a peer cannot do is told, not hidden
                reply = {"error": str(error).splitlines()[0]}
        elif "answer" in request:
            name = request["answer"]
            np.save(request["path"], peers[name][1](answers[name]))
        else:
            reply = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
