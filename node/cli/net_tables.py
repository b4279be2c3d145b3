"""How a netting run is shown to people: a summary of every asset, then the head of what stands in the document.

Lives here: tables. May not live here: what is computed, JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clearing.netting import wide
from clearing.netting.limits import Reason
from clearing.netting.result import Method
from node.cli.render import cells, scaled, stdout, table
from node.netting.table import AGENT_NAME, ObligationTable

if TYPE_CHECKING:
    from node.netting.outcome import AssetOutcome

SHOWN_MAX = 12
"""Entries of one kind that are shown; the document holds all."""

NAME_CHARACTERS_MAX = 40


def short_name(name: str) -> str:
    """Return a name that does not break a table."""
    return name if len(name) <= NAME_CHARACTERS_MAX else name[: NAME_CHARACTERS_MAX - 3] + "..."


@dataclass(slots=True)
class Head:
    """The first entries of one kind, as cells, and how many there are."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    count: int = 0

    @property
    def room(self) -> int:
        """How many more are shown."""
        return SHOWN_MAX - len(self.rows)

    def add(self, rows: Sequence[tuple[str, ...]], count: int) -> None:
        """Take the first `room` of the entries of an asset, of which there are `count`."""
        self.rows += rows[: self.room]
        self.count += count


class Summary:
    """Collects what is shown while the assets are netted one by one, so that none has to be kept."""

    def __init__(self, method: Method, file: ObligationTable) -> None:
        """Know how the run nets, and the ids."""
        self._method = method
        self._file = file
        self._assets: list[tuple[str, ...]] = []
        self._positions, self._unsettled, self._transfers = Head(), Head(), Head()
        self._pairs, self._short = Head(), Head()

    def add(self, outcome: AssetOutcome) -> None:
        """Take the result of one asset."""
        result, name = outcome.result, short_name(outcome.table.name)
        settled = int(result.settled.sum())
        self._assets.append(
            (
                name,
                f"{result.rows:,}",
                f"{settled:,}",
                f"{result.rows - settled:,}",
                result.ratio,
                scaled(result.gross, 0),
                scaled(result.net, 0),
                scaled(result.value, 0),
                scaled(result.liquidity_used, 0),
            )
        )
        self._add_positions(outcome, name)
        self._add_unsettled(outcome, name)
        self._add_payments(outcome, name)

    def _add_positions(self, outcome: AssetOutcome, asset: str) -> None:
        room = self._positions.room
        both = (
            wide.to_ints(amounts[:room])
            for amounts in (outcome.result.positions, outcome.result.movements)
        )
        rows = [
            (asset, short_name(name), scaled(position, 0), scaled(movement, 0))
            for name, position, movement in zip(outcome.names, *both, strict=False)
        ]
        self._positions.add(rows, len(outcome.names))

    def _add_unsettled(self, outcome: AssetOutcome, asset: str) -> None:
        unsettled, room = outcome.result.unsettled, self._unsettled.room
        ids = self._file.ids.at(outcome.table.rows[unsettled.row[:room]]).strings()
        rows = [
            (
                asset,
                short_name(identity),
                Reason(reason).name,
                short_name(outcome.names[party]),
                scaled(short, 0),
            )
            for identity, reason, party, short in zip(
                ids,
                unsettled.reason.tolist(),
                unsettled.participant.tolist(),
                wide.to_ints(unsettled.short[:room]),
                strict=False,
            )
        ]
        self._unsettled.add(rows, len(unsettled.row))
        for number, entry in enumerate(outcome.rounds):
            missing = wide.to_ints(entry.missing)
            found = zip(entry.short.tolist(), entry.reason.tolist(), missing, strict=True)
            short_rows = [
                (
                    asset,
                    str(number),
                    short_name(outcome.names[party]),
                    Reason(reason).name,
                    scaled(amount, 0),
                )
                for party, reason, amount in found
            ]
            self._short.add(short_rows, len(short_rows))

    def _add_payments(self, outcome: AssetOutcome, asset: str) -> None:
        ends = [*map(short_name, outcome.names), AGENT_NAME]
        transfers, pairs = outcome.result.transfers, outcome.result.pairs
        if transfers is not None:
            amounts = wide.to_ints(transfers.amount[: self._transfers.room])
            found = zip(transfers.payer.tolist(), transfers.payee.tolist(), amounts, strict=False)
            rows = [(asset, ends[a], ends[b], scaled(amount, 0)) for a, b, amount in found]
            self._transfers.add(rows, len(transfers.payer))
        if pairs is not None:
            room = self._pairs.room
            nets, offs = wide.to_ints(pairs.net[:room]), wide.to_ints(pairs.set_off[:room])
            both = zip(pairs.debtor.tolist(), pairs.creditor.tolist(), nets, offs, strict=False)
            self._pairs.add(
                [(asset, ends[a], ends[b], scaled(n, 0), scaled(s, 0)) for a, b, n, s in both],
                len(pairs.debtor),
            )

    def show(self, total_hash: str) -> None:
        """Print everything to stdout."""
        counts = ("obligations", "settled", "unsettled", "ratio")
        amounts = ("gross", "net", "value", "liquidity used")
        title = f"Netting: {self._method.name.lower()}"
        shown = table(title, ("asset", *counts, *amounts), (*counts, *amounts))
        for row in self._assets:
            shown.add_row(*cells(*row))
        stdout().print(shown)
        self._show_head(
            "Participants", ("asset", "participant", "position", "moves"), self._positions, 2
        )
        self._show_head(
            "Pairs", ("asset", "debtor", "creditor", "net", "set off each way"), self._pairs, 2
        )
        self._show_head(
            "Unsettled", ("asset", "id", "reason", "participant", "short"), self._unsettled, 1
        )
        self._show_head(
            "Falling short", ("asset", "round", "participant", "reason", "missing"), self._short, 1
        )
        self._show_head("Transfers", ("asset", "from", "to", "amount"), self._transfers, 1)
        stdout().print(f"hash {total_hash}")

    def _show_head(self, title: str, columns: tuple[str, ...], head: Head, numeric: int) -> None:
        if not head.rows:
            return
        more = (
            ""
            if head.count == len(head.rows)
            else f", the first {len(head.rows)} of {head.count:,}"
        )
        shown = table(title + more, columns, columns[-numeric:])
        for row in head.rows:
            shown.add_row(*cells(*row))
        stdout().print(shown)
