"""Obligation files: the CSV that `clearing submit` reads, checked cell by cell, as columns.

Lives here: the format, its faults with line, column, code and remedy, and the step to obligation records. May not
live here: what the ledger decides (licences, due times against block time), sending.

Format: a header with the columns id, debtor, creditor, asset, amount and optionally due, reference and priority, in any order;
further columns are ignored with a notice. UTF-8, with or without a byte order mark; LF or CRLF; fields may be quoted;
blank lines are skipped; spaces around a field do not count. Parties are registered names or LEIs, assets names,
CAIP-19 or DTI; amounts are integers of the asset's smallest unit. `due` is an ISO 8601 date (the end of that day), an
ISO 8601 date and time (UTC unless it says otherwise), or milliseconds since 1970. `reference`, else `id`, is hashed
with SHA-256 into the record's trade_ref_hash, so that both books can be matched without the ledger knowing either. `priority` is the
place in the payer's queue, 0 to 255, as in the files of `clearing net`.

Invariant: a file with one fault yields no record at all.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clearing.errors import REMEDIES, RejectCode
from clearing.records.obligation import DTYPE, ITEM_VERSION, MINED_COIN
from clearing.types import ObligationKind
from node.cli.errors import WrongUseError
from node.csv_file import (
    FIELD_CHARACTERS_MAX,
    FORMAT_REMEDIES,
    FaultLog,
    amount_fault,
    amount_of,
    open_rows,
    priority_of,
)

REQUIRED = ("id", "debtor", "creditor", "asset", "amount")
OPTIONAL = ("due", "reference", "priority")

_TIME_MS_MAX = (1 << 63) - 1
_MASK_64 = (1 << 64) - 1
_DAY = dt.timedelta(days=1)
_MS = dt.timedelta(milliseconds=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

REMEDIES_OF_FILES: dict[str, str] = FORMAT_REMEDIES | {
    "NO_HEADER": "Write the header id,debtor,creditor,asset,amount in the first line.",
    "DUPLICATE_ID": "Give each obligation of the file an id of its own.",
    "BAD_DUE": "Write due as 2027-01-31, 2027-01-31T16:00:00Z, or milliseconds since 1970.",
    RejectCode.UNKNOWN_PARTICIPANT.name: "Use a registered name or LEI; `clearing audit query participants` lists them.",
    RejectCode.UNKNOWN_ASSET.name: "Use a registered asset's name, CAIP-19 or DTI; `clearing audit query assets` lists them.",
    RejectCode.SAME_PARTY.name: REMEDIES[RejectCode.SAME_PARTY],
    RejectCode.SUBMITTER_NOT_PARTY.name: REMEDIES[RejectCode.SUBMITTER_NOT_PARTY],
}
"""What to do about each fault; where the ledger has a code for it the name is the ledger's."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Registry numbers by every accepted spelling: `parties` by name and LEI, `assets` by name, CAIP-19 and DTI."""

    parties: Mapping[str, int]
    assets: Mapping[str, int]


@dataclass(slots=True)
class ObligationFile:
    """A file without faults: parallel columns in file order, and what was ignored.

    lines: line of each row; ids: the back office's own, unique; amounts in smallest units; due_ms 0 for none.
    mined_coin: all are paid with mined coin.
    """

    lines: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    debtors: list[int] = field(default_factory=list)
    creditors: list[int] = field(default_factory=list)
    assets: list[int] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    due_ms: list[int] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    ignored_columns: tuple[str, ...] = ()
    mined_coin: bool = False

    def __len__(self) -> int:
        """Return the number of obligations."""
        return len(self.ids)

    def records(self, rows: Sequence[int] | None = None) -> bytes:
        """Return the canonical records (records/obligation.py) of all rows, or of those with these positions."""
        chosen = range(len(self)) if rows is None else rows
        made = np.zeros(len(chosen), dtype=DTYPE)
        made["version"] = ITEM_VERSION
        made["kind"] = ObligationKind.TRADE
        made["flags"] = MINED_COIN if self.mined_coin else 0
        made["priority"] = [self.priorities[i] for i in chosen]
        made["debtor"] = [self.debtors[i] for i in chosen]
        made["creditor"] = [self.creditors[i] for i in chosen]
        made["asset"] = [self.assets[i] for i in chosen]
        made["due_ms"] = [self.due_ms[i] for i in chosen]
        made["amount_lo"] = np.array([self.amounts[i] & _MASK_64 for i in chosen], np.uint64)
        made["amount_hi"] = np.array([self.amounts[i] >> 64 for i in chosen], np.uint64)
        hashes = b"".join(hashlib.sha256(self.references[i].encode()).digest() for i in chosen)
        made["trade_ref_hash"] = _as_hash_column(hashes)
        return made.tobytes()


def _as_hash_column(hashes: bytes) -> npt.NDArray[np.void]:
    return np.frombuffer(hashes, dtype="V32")


def parse_due_ms(text: str) -> int | None:
    """Return a due time in milliseconds since 1970, or None where `text` is none of the accepted forms.

    A date without a time means the end of that day in UTC; a time without an offset is UTC.
    """
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= 19 else _TIME_MS_MAX + 1
        # Eight digits are a date without its hyphens, or an evening of 1970: neither is a due time.
        return number if len(text) > 8 and number <= _TIME_MS_MAX else None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    if len(text) == len("2027-01-31"):
        try:
            moment += _DAY - _MS
        except OverflowError:
            return None
    due_ms = (moment - _EPOCH) // _MS
    return due_ms if due_ms > 0 else None


class _Reader:
    """One pass over a file: collects columns and faults, and never stops at the first one."""

    def __init__(self, directory: Directory, submitter: int | None, log: FaultLog) -> None:
        self.parties = directory.parties
        self.assets = directory.assets
        self.submitter = submitter
        self.file = ObligationFile()
        self.log = log
        self._line_of_id: dict[str, int] = {}
        self._due_of_text: dict[str, int | None] = {"": 0}

    def rows(
        self, rows: Iterator[tuple[int, list[str]]], places: Sequence[int], width: int
    ) -> None:
        """Check and keep every row; the hot loop of this module."""
        at_id, at_debtor, at_creditor, at_asset, at_amount, at_due, at_reference, at_priority = (
            places
        )
        parties, assets, file = self.parties, self.assets, self.file
        for line, row in rows:
            if len(row) != width:
                self.log.add(line, "", "FIELD_COUNT", f"{len(row)} of {width}")
                continue
            identity = row[at_id].strip()
            debtor = parties.get(row[at_debtor].strip())
            creditor = parties.get(row[at_creditor].strip())
            asset = assets.get(row[at_asset].strip())
            text = row[at_amount].strip()
            amount = amount_of(text)
            due = self._due(row[at_due].strip()) if at_due >= 0 else 0
            reference = row[at_reference].strip() if at_reference >= 0 else ""
            priority = priority_of(row[at_priority].strip()) if at_priority >= 0 else 0
            if (
                debtor is None
                or creditor is None
                or asset is None
                or due is None
                or priority is None
                or not amount
                or not identity
                or identity in self._line_of_id
                or debtor == creditor
                or (self.submitter is not None and self.submitter not in (debtor, creditor))
                or max(len(identity), len(reference)) > FIELD_CHARACTERS_MAX
            ):
                self._explain(line, row, places)
                continue
            self._line_of_id[identity] = line
            file.lines.append(line)
            file.ids.append(identity)
            file.debtors.append(debtor)
            file.creditors.append(creditor)
            file.assets.append(asset)
            file.amounts.append(amount)
            file.due_ms.append(due)
            file.references.append(reference or identity)
            file.priorities.append(priority)

    def _due(self, text: str) -> int | None:
        if text not in self._due_of_text:
            self._due_of_text[text] = parse_due_ms(text)
        return self._due_of_text[text]

    def _explain(self, line: int, row: list[str], places: Sequence[int]) -> None:
        """Record every fault of a row that was refused."""
        before = self.log.count
        values = {
            name: row[place].strip()
            for name, place in zip((*REQUIRED, *OPTIONAL), places, strict=True)
            if place >= 0
        }
        for name, value in values.items():
            if len(value) > FIELD_CHARACTERS_MAX:
                self.log.add(line, name, "FIELD_TOO_LONG", value)
        for name in REQUIRED:
            if not values[name]:
                self.log.add(line, name, "EMPTY_FIELD")
        if self.log.count > before:
            return
        identity = values["id"]
        if identity in self._line_of_id:
            self.log.add(
                line, "id", "DUPLICATE_ID", f"{identity} (line {self._line_of_id[identity]})"
            )
        self._line_of_id.setdefault(identity, line)
        for name in ("debtor", "creditor"):
            if values[name] not in self.parties:
                self.log.add(line, name, RejectCode.UNKNOWN_PARTICIPANT.name, values[name])
        if values["asset"] not in self.assets:
            self.log.add(line, "asset", RejectCode.UNKNOWN_ASSET.name, values["asset"])
        amount = values["amount"]
        if not amount_of(amount):
            self.log.add(line, "amount", amount_fault(amount), amount)
        if self._due(values.get("due", "")) is None:
            self.log.add(line, "due", "BAD_DUE", values["due"])
        if priority_of(values.get("priority", "")) is None:
            self.log.add(line, "priority", "BAD_PRIORITY", values["priority"])
        debtor = self.parties.get(values["debtor"])
        creditor = self.parties.get(values["creditor"])
        if debtor is None or creditor is None:
            return
        if debtor == creditor:
            self.log.add(line, "creditor", RejectCode.SAME_PARTY.name, values["creditor"])
        elif self.submitter is not None and self.submitter not in (debtor, creditor):
            parties = f"{values['debtor']}, {values['creditor']}"
            self.log.add(line, "debtor", RejectCode.SUBMITTER_NOT_PARTY.name, parties)


def parse_obligations(
    data: bytes, directory: Directory, submitter: int | None = None
) -> ObligationFile:
    """Read the bytes of an obligation file; with `submitter`, each row must name that participant.

    Raises: WrongUseError: one row a fault (the first 100, and the count of all); nothing of the file is used.
    """
    log = FaultLog(REMEDIES_OF_FILES)
    reader = _Reader(directory, submitter, log)
    opened = open_rows(data, REQUIRED, OPTIONAL, log)
    if opened is not None:
        header, rows = opened
        reader.file.ignored_columns = header.ignored
        reader.rows(rows, header.places, header.width)
    if log.count:
        raise _refusal(log)
    return reader.file


def _refusal(log: FaultLog) -> WrongUseError:
    faults = "1 fault" if log.count == 1 else f"{log.count} faults"
    return WrongUseError(
        "BAD_FILE",
        f"the file has {faults}; nothing of it was submitted",
        "Correct the lines that are listed and submit the file again.",
        log.as_rows(),
        log.count,
    )
