"""Files, runs and documents for the tests of `clearing net`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from clearing.netting.engine import HAS_NUMBA, Engine
from clearing.netting.result import Method
from clearing.types import AMOUNT_MAX
from node.netting.document import DocumentWriter
from node.netting.limits_file import LimitTable
from node.netting.obligation_file import read_cells
from node.netting.run import Options, Paying, net_file
from node.netting.table import ObligationTable

ENGINES = list(Engine) if HAS_NUMBA else [Engine.PORTABLE]
PARTIES = ["A", "B", "C", "Ünal", "b", '"q"\\']
ASSETS = ["BTC", "ETH"]


@dataclass(frozen=True)
class Row:
    """One line of a file."""

    debtor: str
    creditor: str
    asset: str
    amount: int
    priority: int = 0


def csv_of(rows: Sequence[Row]) -> bytes:
    """Write a file; ids are r0, r1, ..."""

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = ["id,debtor,creditor,asset,amount,priority"]
    lines += [
        f"r{n},{cell(row.debtor)},{cell(row.creditor)},{row.asset},{row.amount},{row.priority}"
        for n, row in enumerate(rows)
    ]
    return "\n".join(lines).encode()


def limits_of(amounts: dict[tuple[str, str], int]) -> LimitTable:
    """Make a table of limits by (asset, participant)."""
    table = LimitTable()
    for (asset, participant), amount in amounts.items():
        table.amounts.setdefault(asset, {})[participant] = amount
    return table


def document_of(
    table: ObligationTable, options: Options, engine: Engine | None = None
) -> dict[str, Any]:
    """Net a file and return the document."""
    return dict(json.loads(written(table, options, engine)))


def written(table: ObligationTable, options: Options, engine: Engine | None = None) -> bytes:
    """Net a file and return the bytes of the document."""
    parts: list[bytes] = []
    chosen = Engine.PORTABLE if engine is None else engine
    writer = DocumentWriter(parts.append, table.ids, chosen)
    writer.write(options.method, net_file(table, options, engine))
    return b"".join(parts)


amounts = st.one_of(
    st.integers(1, 30),
    st.integers(1, AMOUNT_MAX),
    st.sampled_from([2**63 - 1, 2**63, 2**64, 2**127, AMOUNT_MAX]),
)
limit_amounts = st.integers(0, 40) | st.integers(0, AMOUNT_MAX)
cells = st.tuples(st.sampled_from(ASSETS), st.sampled_from(PARTIES))


@st.composite
def tables(draw: st.DrawFn) -> ObligationTable:
    """Draw a file of a few obligations."""
    parties = st.sampled_from(PARTIES)
    row = st.builds(
        Row, parties, parties, st.sampled_from(ASSETS), amounts, st.sampled_from([0, 0, 1, 255])
    ).filter(lambda row: row.debtor != row.creditor)
    return read_cells(csv_of(draw(st.lists(row, max_size=14))))


@st.composite
def runs(draw: st.DrawFn) -> tuple[ObligationTable, Options]:
    """Draw a file and options that its method knows."""
    table = draw(tables())
    method = draw(st.sampled_from(list(Method)))
    limits = st.none() | st.dictionaries(cells, limit_amounts).map(limits_of)
    limited = method in (Method.POSITIONS, Method.GRIDLOCK)
    exclude = draw(st.sets(st.sampled_from(PARTIES), max_size=2)) & set(table.parties)
    options = Options(
        method=method,
        bypass=method is Method.GRIDLOCK and draw(st.booleans()),
        liquidity=draw(limits) if limited or method is Method.SETOFF else None,
        caps=draw(limits) if limited else None,
        exclude=frozenset(exclude),
        paying=draw(st.sampled_from(list(Paying))),
    )
    return table, options
