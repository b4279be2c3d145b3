"""Files of liquidity and of net debit caps: participant, asset, amount.

Lives here: the format and its faults. May not live here: what a limit means to a method.

Format: a CSV file (node/csv_file.py) with the columns participant, asset and amount, in any order; further columns are ignored.
Spaces and tabs around a field do not count. Amounts are integers of the asset's smallest unit, 0 to 2^128-1; each participant
stands at most once for each asset. Who is absent has no liquidity, or no cap; so has everybody where a file holds nothing, not
even a header.

Invariant: a file with one fault yields nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from node.csv_file import (
    FORMAT_REMEDIES,
    FaultLog,
    FaultyFileError,
    amount_fault,
    amount_of,
    is_blank,
    open_rows,
)
from node.netting.obligation_file import BLANK

REQUIRED = ("participant", "asset", "amount")

REMEDIES_OF_LIMITS: dict[str, str] = FORMAT_REMEDIES | {
    "NO_HEADER": "Write the header participant,asset,amount in the first line.",
    "DUPLICATE_ROW": "Give each participant one amount for each asset.",
    "AMOUNT_SIGN": "Write the amount without a sign.",
}
"""What to do about each fault."""


@dataclass(frozen=True, slots=True)
class LimitTable:
    """Amounts by asset and then by participant; `ignored` are names of columns that mean nothing here."""

    amounts: dict[str, dict[str, int]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def of(self, asset: str) -> dict[str, int]:
        """Return the amounts of one asset by participant."""
        return self.amounts.get(asset, {})

    def strangers(self, parties: Iterable[str], assets: Iterable[str]) -> list[str]:
        """Return participants and assets named here that are in none of the two, in code point order."""
        known_parties, known_assets = set(parties), set(assets)
        named = {name for limits in self.amounts.values() for name in limits}
        return sorted((named - known_parties) | (self.amounts.keys() - known_assets))


def read_limits(data: bytes) -> LimitTable:
    """Read the bytes of a file of liquidity or caps.

    Raises: FaultyFileError: one row a fault (the first 100, and the count of all).
    """
    if is_blank(data):
        return LimitTable()
    log = FaultLog(REMEDIES_OF_LIMITS)
    opened = open_rows(data, REQUIRED, (), log)
    if opened is None:
        raise FaultyFileError(log)
    header, rows = opened
    table = LimitTable(ignored=header.ignored)
    for line, row in rows:
        if len(row) != header.width:
            log.add(line, "", "FIELD_COUNT", f"{len(row)} of {header.width}")
            continue
        values = [row[place].strip(BLANK) for place in header.places]
        empty = [name for name, value in zip(REQUIRED, values, strict=True) if not value]
        for name in empty:
            log.add(line, name, "EMPTY_FIELD")
        if empty:
            continue
        participant, asset, text = values
        amount = amount_of(text)
        limits = table.amounts.setdefault(asset, {})
        if participant in limits:
            log.add(line, "participant", "DUPLICATE_ROW", f"{participant}, {asset}")
        if amount is None:
            log.add(line, "amount", amount_fault(text), text)
            continue
        limits.setdefault(participant, amount)
    if log.count:
        raise FaultyFileError(log)
    return table
