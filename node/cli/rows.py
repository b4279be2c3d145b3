"""Lists of the ledger's rows as people and scripts see them: one table and one JSON object each.

Lives here: columns and keys; the JSON keys are stable. May not live here: asking for rows (the commands).
Amounts: decimal strings of smallest units in JSON, with the asset's decimal point in tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from clearing.rules.positions import Position
from clearing.rules.registry import Asset, Participant
from clearing.types import (
    CycleState,
    InstructionState,
    NettingMethod,
    ObligationState,
    SettlementKind,
)
from node.cli.names import Names
from node.cli.render import cells, print_json_rows, stdout, table, utc
from node.queries import CycleRow, ObligationRow, SettlementRow

T = TypeVar("T")

TABLE_ROWS_MAX = 200
"""Rows of a table for people; JSON always has all."""

NUMERIC = ("amount", "payable", "receivable", "locked net", "paid", "received", "obligations")


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """How rows of one kind are shown: JSON object, and table columns with the cells of a row."""

    title: str
    fact: Callable[[T, Names], dict[str, Any]]
    columns: Sequence[str]
    cells: Callable[[T, Names], Sequence[Any]]

    def show(self, rows: Sequence[T], names: Names, *, as_json: bool) -> None:
        """Print the rows: all as JSON, or the first TABLE_ROWS_MAX as a table."""
        if as_json:
            print_json_rows(self.fact(row, names) for row in rows)
            return
        shown = table(self.title, self.columns, [name for name in self.columns if name in NUMERIC])
        for row in rows[:TABLE_ROWS_MAX]:
            shown.add_row(*cells(*self.cells(row, names)))
        console = stdout()
        console.print(shown)
        if len(rows) > TABLE_ROWS_MAX:
            console.print(f"the first {TABLE_ROWS_MAX} rows; there are more, and --json prints all")


def rows_wanted(*, as_json: bool, limit: int | None = None) -> int | None:
    """Return how many rows to ask for, None for all: for a table no more than tell that there are more than it shows."""
    if as_json:
        return limit
    return TABLE_ROWS_MAX + 1 if limit is None else min(limit, TABLE_ROWS_MAX + 1)


def words(name: str) -> str:
    """Return an enumeration member's name as words of a table."""
    return name.lower().replace("_", " ")


def _obligation_fact(row: ObligationRow, names: Names) -> dict[str, Any]:
    return {
        "submission": row.submission,
        "item": row.item,
        "debtor": names.party(row.debtor),
        "creditor": names.party(row.creditor),
        "asset": names.asset_name(row.asset),
        "amount": str(row.amount_units),
        "priority": row.priority,
        "due_ms": row.due_ms or None,
        "state": ObligationState(row.state).name,
        "cycle": row.cycle or None,
    }


def _obligation_cells(row: ObligationRow, names: Names) -> Sequence[Any]:
    return (
        f"{row.submission}:{row.item}",
        names.party(row.debtor),
        names.party(row.creditor),
        names.asset_name(row.asset),
        names.scaled(row.amount_units, row.asset),
        utc(row.due_ms),
        words(ObligationState(row.state).name),
        row.cycle or "-",
    )


OBLIGATIONS = View(
    "Obligations",
    _obligation_fact,
    ("item", "debtor", "creditor", "asset", "amount", "due (UTC)", "state", "cycle"),
    _obligation_cells,
)


def _position_fact(row: Position, names: Names) -> dict[str, Any]:
    return {
        "participant": names.party(row.participant),
        "asset": names.asset_name(row.asset),
        "payable": str(row.payable),
        "receivable": str(row.receivable),
        "locked_net": str(row.locked_net),
        "paid": str(row.paid),
        "received": str(row.received),
        "liquidity": str(row.liquidity),
        "cap": None if row.cap is None else str(row.cap),
    }


def _position_cells(row: Position, names: Names) -> Sequence[Any]:
    amounts = (row.payable, row.receivable, row.locked_net, row.paid, row.received)
    return (
        names.party(row.participant),
        names.asset_name(row.asset),
        *(names.scaled(amount, row.asset) for amount in amounts),
    )


POSITIONS = View(
    "Positions",
    _position_fact,
    ("participant", "asset", "payable", "receivable", "locked net", "paid", "received"),
    _position_cells,
)


def _instruction_fact(row: SettlementRow, names: Names) -> dict[str, Any]:
    one = row.instruction
    return {
        "instruction": f"{row.cycle}:{row.number}",
        "cycle": row.cycle,
        "number": row.number,
        "kind": SettlementKind(one.kind).name,
        "participant": names.party(one.participant),
        "asset": names.asset_name(one.asset),
        "amount": str(one.amount_units),
        "state": InstructionState(one.state).name,
        "evidence": one.evidence_hash.hex() if any(one.evidence_hash) else None,
    }


def _instruction_cells(row: SettlementRow, names: Names) -> Sequence[Any]:
    one = row.instruction
    return (
        f"{row.cycle}:{row.number}",
        words(SettlementKind(one.kind).name),
        names.party(one.participant),
        names.asset_name(one.asset),
        names.scaled(one.amount_units, one.asset),
        words(InstructionState(one.state).name),
        one.evidence_hash.hex()[:16] if any(one.evidence_hash) else "-",
    )


INSTRUCTIONS = View(
    "Settlement instructions",
    _instruction_fact,
    ("instruction", "kind", "participant", "asset", "amount", "state", "evidence"),
    _instruction_cells,
)


def cycle_fact(row: CycleRow) -> dict[str, Any]:
    """Return a cycle as JSON."""
    return {"cycle": row.number, "state": CycleState(row.cycle.state).name, "final": row.final}


def _cycle_cells(row: CycleRow, _: Names) -> Sequence[Any]:
    return (
        row.number,
        words(CycleState(row.cycle.state).name),
        "final" if row.final else "-",
        f"{row.cycle.obligations:,}",
        row.cycle.instructions,
        utc(row.cycle.netted_ms),
    )


CYCLES: View[CycleRow] = View(
    "Cycles",
    lambda row, _: cycle_fact(row),
    ("cycle", "state", "finality", "obligations", "instructions", "netted (UTC)"),
    _cycle_cells,
)


def participant_fact(row: Participant) -> dict[str, Any]:
    """Return a participant as JSON."""
    return {
        "name": row.name,
        "lei": row.lei,
        "role": row.role.name.lower().replace("_", "-"),
        "status": row.status.name.lower(),
    }


PARTICIPANTS: View[Participant] = View(
    "Participants",
    lambda row, _: participant_fact(row) | {"licence_expiry_ms": row.licence_expiry_ms},
    ("name", "LEI", "role", "licence", "until (UTC)"),
    lambda row, _: (
        row.name,
        row.lei,
        words(row.role.name),
        words(row.status.name),
        utc(row.licence_expiry_ms),
    ),
)


def asset_fact(row: Asset) -> dict[str, Any]:
    """Return an asset as JSON."""
    return {"name": row.name, "caip19": row.caip19, "scale": row.scale}


ASSETS: View[Asset] = View(
    "Assets",
    lambda row, _: asset_fact(row) | {"dti": row.dti or None, "method": row.method.name.lower()},
    ("name", "CAIP-19", "DTI", "decimals", "netted by"),
    lambda row, _: (
        row.name,
        row.caip19,
        row.dti or "-",
        row.scale,
        words(NettingMethod(row.method).name),
    ),
)
