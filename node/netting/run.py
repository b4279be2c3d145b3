"""Netting of an obligation file by one method, asset by asset.

Lives here: what is asked of the library for each asset, and how rows of excluded participants stand in a result. May not live
here: the methods (clearing/netting), files, JSON, printing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from clearing.netting import certificate, wide
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Settlement
from clearing.netting.limits import Limits
from clearing.netting.methods import (
    TransferStyle,
    by_bilateral,
    by_discharge,
    by_gridlock,
    by_positions,
)
from clearing.netting.recast import Recast, Round, recast
from clearing.netting.result import Method, NettingResult
from clearing.netting.setoff import set_off
from node.netting.exclusion import over_all_rows, settled_over_all_rows
from node.netting.limits_file import LimitTable
from node.netting.outcome import AssetOutcome, Proof
from node.netting.table import AssetTable, ObligationTable, by_asset

_COMPILED_ROWS_MIN: Final = {
    Method.POSITIONS: 100_000,
    Method.BILATERAL: 20_000,
    Method.GRIDLOCK: 20_000,
    Method.SETOFF: 1_000,
}
"""Fewer rows are done before the compiler's runtime is loaded."""


class Paying(enum.Enum):
    """How movements are paid; the value is the name on the command line."""

    AGENT = "agent"
    PAIRWISE = "pairwise"

    @property
    def style(self) -> TransferStyle:
        """The same for the library."""
        return TransferStyle(self.value)


@dataclass(frozen=True, slots=True)
class Options:
    """What to do with every asset of a file; liquidity and caps are None where no file was given."""

    method: Method = Method.POSITIONS
    bypass: bool = False
    liquidity: LimitTable | None = None
    caps: LimitTable | None = None
    exclude: frozenset[str] = field(default_factory=frozenset)
    paying: Paying = Paying.AGENT

    def engine(self, rows: int) -> Engine:
        """Choose what runs the kernels for a file of so many rows; the answer is the same."""
        return DEFAULT if rows >= _COMPILED_ROWS_MIN[self.method] else Engine.PORTABLE


def net_file(
    table: ObligationTable, options: Options, engine: Engine | None = None
) -> Iterator[AssetOutcome]:
    """Net every asset, in code point order of their names.

    engine: what runs the kernels; None chooses by the size of the file. The answer is the same.
    """
    engine = options.engine(len(table)) if engine is None else engine
    for part in by_asset(table):
        yield _AssetRun(table, part, options, engine).outcome()


class _AssetRun:
    """One asset under one method."""

    def __init__(
        self, table: ObligationTable, part: AssetTable, options: Options, engine: Engine
    ) -> None:
        self.part = part
        self.participants = part.participants
        self.options = options
        self.engine = engine
        self.names = [table.parties[number] for number in part.parties]
        self.liquidity = self._given(options.liquidity)
        self.caps = self._given(options.caps)
        self.limits = Limits.of(self.participants, self.liquidity or {}, self.caps)
        if options.method is Method.POSITIONS and self.liquidity is None:
            # Everything settles by positions, so without a file of liquidity there is none to check against.
            unlimited = np.tile(wide.from_ints([wide.MAX]), (self.participants, 1))
            self.limits = Limits(unlimited, self.limits.cap)

    def _given(self, table: LimitTable | None) -> dict[int, int] | None:
        """Return the limits of a file by participant of this asset; None where no file was given."""
        if table is None:
            return None
        given = table.of(self.part.name)
        return {number: given[name] for number, name in enumerate(self.names) if name in given}

    def outcome(self) -> AssetOutcome:
        """Leave out who is excluded, and run the method over the rest."""
        excluded = [n for n, name in enumerate(self.names) if name in self.options.exclude]
        columns, rounds = self.part.columns, tuple[Round, ...]()
        without = None
        if excluded:
            without = self._recast(excluded)
            rounds = without.rounds
            columns = columns.take(without.kept)
        result, before, proof = self._run(columns)
        if without is not None:
            result = over_all_rows(self.part.columns, result, without, self.engine)
            before = None if before is None else settled_over_all_rows(before, without)
        elif self.options.method is Method.POSITIONS and self._limited:
            rounds = (Round(np.empty(0, np.int64), *self.limits.breached(result.movements)),)
        return AssetOutcome(
            table=self.part,
            names=self.names,
            result=result,
            before=before,
            proof=proof,
            liquidity=self.liquidity,
            caps=self.caps,
            excluded=excluded,
            rounds=rounds,
        )

    @property
    def _limited(self) -> bool:
        return self.liquidity is not None or self.caps is not None

    def _recast(self, excluded: list[int]) -> Recast:
        """Take out the excluded; by positions, where limits are given, also those who then fall short."""
        cascades = self.options.method is Method.POSITIONS and self._limited
        limits = self.limits if cascades else None
        columns = self.part.columns
        return recast(columns, self.participants, excluded, limits, engine=self.engine)

    def _run(self, columns: AssetColumns) -> tuple[NettingResult, Settlement | None, Proof | None]:
        """Run the method. Returns: the result, what bypass had settled before, the proof of a set-off."""
        style, engine = self.options.paying.style, self.engine
        if self.options.method is Method.POSITIONS:
            return by_positions(columns, self.participants, style=style, engine=engine), None, None
        if self.options.method is Method.BILATERAL:
            return by_bilateral(columns, self.participants, engine=engine), None, None
        if self.options.method is Method.GRIDLOCK:
            result, before = by_gridlock(
                columns, self.limits, bypass_first=self.options.bypass, style=style, engine=engine
            )
            return result, before, None
        return self._set_off(columns)

    def _set_off(self, columns: AssetColumns) -> tuple[NettingResult, None, Proof]:
        liquidity = None if self.liquidity is None else self.limits.liquidity
        found = set_off(columns, self.participants, liquidity, engine=self.engine)
        lo, hi = found.discharged_lo, found.discharged_hi
        proof = Proof(found.potentials.tolist(), found.value, 0)
        result = by_discharge(
            Method.SETOFF,
            columns,
            self.participants,
            lo,
            hi,
            movements=certificate.movements(columns, lo, hi, self.participants),
            certificate=proof,
            style=self.options.paying.style,
            engine=self.engine,
        )
        return result, None, proof
