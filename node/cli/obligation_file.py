"""Obligation files: the CSV that `clearing submit` reads, checked cell by cell, as columns.

Lives here: the format, its faults with line, column, code and remedy, and the step to obligation records. May not
live here: what the ledger decides (licences, due times against block time), sending.

Format: a header with the columns id, debtor, creditor, asset, amount and optionally due and reference, in any order;
further columns are ignored with a notice. UTF-8, with or without a byte order mark; LF or CRLF; fields may be quoted;
blank lines are skipped; spaces around a field do not count. Parties are registered names or LEIs, assets names,
CAIP-19 or DTI; amounts are integers of the asset's smallest unit. `due` is an ISO 8601 date (the end of that day), an
ISO 8601 date and time (UTC unless it says otherwise), or milliseconds since 1970. `reference`, else `id`, is hashed
with SHA-256 into the record's trade_ref_hash, so that both books can be matched without the ledger knowing either.

Invariant: a file with one fault yields no record at all.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clearing.errors import REMEDIES, RejectCode
from clearing.records.obligation import DTYPE, ITEM_VERSION
from clearing.types import AMOUNT_MAX, ObligationKind
from node.cli.errors import DETAILS_SHOWN_MAX, WrongUseError

REQUIRED = ("id", "debtor", "creditor", "asset", "amount")
OPTIONAL = ("due", "reference")

FIELD_CHARACTERS_MAX = 4_096
"""Greatest length of one field; longer ones come from an unclosed quote."""

_SHOWN_CHARACTERS_MAX = 60
_AMOUNT_DIGITS_MAX = 64
_TIME_MS_MAX = (1 << 63) - 1
_MASK_64 = (1 << 64) - 1
_DAY = dt.timedelta(days=1)
_MS = dt.timedelta(milliseconds=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

REMEDIES_OF_FILES: dict[str, str] = {
    "NOT_UTF8": "Save the file as UTF-8.",
    "NOT_CSV": "Close the quotes of the field, or double a quote inside one.",
    "NO_HEADER": "Write the header id,debtor,creditor,asset,amount in the first line.",
    "DELIMITER": "Separate the columns with commas.",
    "MISSING_COLUMN": "Add the column to the header and to every line.",
    "DUPLICATE_COLUMN": "Name each column once.",
    "FIELD_COUNT": "Give each line as many fields as the header; quote a field that holds a comma.",
    "EMPTY_FIELD": "Fill in the field.",
    "FIELD_TOO_LONG": f"A field has at most {FIELD_CHARACTERS_MAX} characters; look for an unclosed quote.",
    "DUPLICATE_ID": "Give each obligation of the file an id of its own.",
    "NOT_AN_INTEGER": "Write the amount as a whole number of the asset's smallest unit, digits only.",
    "AMOUNT_SIGN": "Write the amount without a sign; to turn it around, exchange debtor and creditor.",
    "AMOUNT_TOO_LARGE": "An amount is at most 2^128-1 smallest units.",
    "BAD_DUE": "Write due as 2027-01-31, 2027-01-31T16:00:00Z, or milliseconds since 1970.",
    RejectCode.UNKNOWN_PARTICIPANT.name: "Use a registered name or LEI; `clearing audit query participants` lists them.",
    RejectCode.UNKNOWN_ASSET.name: "Use a registered asset's name, CAIP-19 or DTI; `clearing audit query assets` lists them.",
    RejectCode.SAME_PARTY.name: REMEDIES[RejectCode.SAME_PARTY],
    RejectCode.SUBMITTER_NOT_PARTY.name: REMEDIES[RejectCode.SUBMITTER_NOT_PARTY],
    RejectCode.ZERO_AMOUNT.name: REMEDIES[RejectCode.ZERO_AMOUNT],
}
"""What to do about each fault; where the ledger has a code for it the name is the ledger's."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong cell (or line, with column ""); `line` counts from 1, the header included."""

    line: int
    column: str
    code: str
    value: str = ""

    def as_row(self) -> dict[str, Any]:
        """Return the fault as a row for tables and JSON."""
        shown = self.value
        if len(shown) > _SHOWN_CHARACTERS_MAX:
            shown = shown[: _SHOWN_CHARACTERS_MAX - 3] + "..."
        return {
            "line": self.line,
            "column": self.column,
            "code": self.code,
            "value": shown,
            "remedy": REMEDIES_OF_FILES[self.code],
        }


@dataclass(frozen=True, slots=True)
class Directory:
    """Registry numbers by every accepted spelling: `parties` by name and LEI, `assets` by name, CAIP-19 and DTI."""

    parties: Mapping[str, int]
    assets: Mapping[str, int]


@dataclass(slots=True)
class ObligationFile:
    """A file without faults: parallel columns in file order, and what was ignored.

    lines: line of each row; ids: the back office's own, unique; amounts in smallest units; due_ms 0 for none.
    """

    lines: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    debtors: list[int] = field(default_factory=list)
    creditors: list[int] = field(default_factory=list)
    assets: list[int] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    due_ms: list[int] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    ignored_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of obligations."""
        return len(self.ids)

    def records(self, rows: Sequence[int] | None = None) -> bytes:
        """Return the canonical records (records/obligation.py) of all rows, or of those with these positions."""
        chosen = range(len(self)) if rows is None else rows
        made = np.zeros(len(chosen), dtype=DTYPE)
        made["version"] = ITEM_VERSION
        made["kind"] = ObligationKind.TRADE
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


def _amount_fault(text: str) -> str:
    """Return the code of an amount that is not one to 39 plain digits, not zero, and at most AMOUNT_MAX."""
    if text[:1] in {"-", "+"}:
        return "AMOUNT_SIGN"
    if not (text.isascii() and text.isdigit()):
        return "NOT_AN_INTEGER"
    # int() of a very long text is refused by Python itself and could be nothing but too large.
    if len(text) > _AMOUNT_DIGITS_MAX or int(text) > AMOUNT_MAX:
        return "AMOUNT_TOO_LARGE"
    return RejectCode.ZERO_AMOUNT.name


class _Reader:
    """One pass over a file: collects columns and faults, and never stops at the first one."""

    def __init__(self, directory: Directory, submitter: int | None) -> None:
        self.parties = directory.parties
        self.assets = directory.assets
        self.submitter = submitter
        self.file = ObligationFile()
        self.faults: list[Fault] = []
        self.fault_count = 0
        self._line_of_id: dict[str, int] = {}
        self._due_of_text: dict[str, int | None] = {"": 0}

    def fault(self, line: int, column: str, code: str, value: str = "") -> None:
        self.fault_count += 1
        if len(self.faults) < DETAILS_SHOWN_MAX:
            self.faults.append(Fault(line, column, code, value))

    def header(self, names: Sequence[str]) -> list[int] | None:
        """Return the positions of REQUIRED and OPTIONAL (-1: absent), or None when a fault was found."""
        clean = [name.strip().lower() for name in names]
        if len(clean) == 1 and any(mark in clean[0] for mark in ";\t|"):
            self.fault(1, "", "DELIMITER", names[0])
            return None
        for name in REQUIRED:
            if name not in clean:
                self.fault(1, name, "MISSING_COLUMN")
        for name in (*REQUIRED, *OPTIONAL):
            if clean.count(name) > 1:
                self.fault(1, name, "DUPLICATE_COLUMN")
        known = (*REQUIRED, *OPTIONAL)
        self.file.ignored_columns = tuple(
            name.strip() for name in names if name.strip().lower() not in known
        )
        if self.fault_count:
            return None
        return [clean.index(name) if name in clean else -1 for name in known]

    def rows(self, rows: Iterator[tuple[int, list[str]]], places: list[int], width: int) -> None:
        """Check and keep every row; the hot loop of this module."""
        at_id, at_debtor, at_creditor, at_asset, at_amount, at_due, at_reference = places
        parties, assets, file = self.parties, self.assets, self.file
        for line, row in rows:
            if len(row) != width:
                self.fault(line, "", "FIELD_COUNT", f"{len(row)} of {width}")
                continue
            identity = row[at_id].strip()
            debtor = parties.get(row[at_debtor].strip())
            creditor = parties.get(row[at_creditor].strip())
            asset = assets.get(row[at_asset].strip())
            text = row[at_amount].strip()
            plain = text.isascii() and text.isdigit() and len(text) < _AMOUNT_DIGITS_MAX
            amount = int(text) if plain else 0
            due = self._due(row[at_due].strip()) if at_due >= 0 else 0
            reference = row[at_reference].strip() if at_reference >= 0 else ""
            if (
                debtor is None
                or creditor is None
                or asset is None
                or due is None
                or not 0 < amount <= AMOUNT_MAX
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

    def _due(self, text: str) -> int | None:
        if text not in self._due_of_text:
            self._due_of_text[text] = parse_due_ms(text)
        return self._due_of_text[text]

    def _explain(self, line: int, row: list[str], places: list[int]) -> None:
        """Record every fault of a row that was refused."""
        before = self.fault_count
        values = {
            name: row[place].strip()
            for name, place in zip((*REQUIRED, *OPTIONAL), places, strict=True)
            if place >= 0
        }
        for name, value in values.items():
            if len(value) > FIELD_CHARACTERS_MAX:
                self.fault(line, name, "FIELD_TOO_LONG", value)
        for name in REQUIRED:
            if not values[name]:
                self.fault(line, name, "EMPTY_FIELD")
        if self.fault_count > before:
            return
        identity = values["id"]
        if identity in self._line_of_id:
            self.fault(
                line, "id", "DUPLICATE_ID", f"{identity} (line {self._line_of_id[identity]})"
            )
        self._line_of_id.setdefault(identity, line)
        for name in ("debtor", "creditor"):
            if values[name] not in self.parties:
                self.fault(line, name, RejectCode.UNKNOWN_PARTICIPANT.name, values[name])
        if values["asset"] not in self.assets:
            self.fault(line, "asset", RejectCode.UNKNOWN_ASSET.name, values["asset"])
        amount = values["amount"]
        plain = amount.isascii() and amount.isdigit() and len(amount) < _AMOUNT_DIGITS_MAX
        if not plain or not 0 < int(amount) <= AMOUNT_MAX:
            self.fault(line, "amount", _amount_fault(amount), amount)
        if self._due(values.get("due", "")) is None:
            self.fault(line, "due", "BAD_DUE", values["due"])
        debtor = self.parties.get(values["debtor"])
        creditor = self.parties.get(values["creditor"])
        if debtor is None or creditor is None:
            return
        if debtor == creditor:
            self.fault(line, "creditor", RejectCode.SAME_PARTY.name, values["creditor"])
        elif self.submitter is not None and self.submitter not in (debtor, creditor):
            parties = f"{values['debtor']}, {values['creditor']}"
            self.fault(line, "debtor", RejectCode.SUBMITTER_NOT_PARTY.name, parties)


def _numbered_rows(text: str, reader: _Reader) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row starts, fields) of each row that is not blank."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in rows:
            if row and (len(row) > 1 or row[0].strip()):
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        reader.fault(line, "", "NOT_CSV", str(error))


def parse_obligations(
    data: bytes, directory: Directory, submitter: int | None = None
) -> ObligationFile:
    """Read the bytes of an obligation file; with `submitter`, each row must name that participant.

    Raises: WrongUseError: one row a fault (the first 100, and the count of all); nothing of the file is used.
    """
    reader = _Reader(directory, submitter)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reader.fault(
            data.count(b"\n", 0, error.start) + 1,
            "",
            "NOT_UTF8",
            repr(error.object[error.start : error.end]),
        )
        raise _refusal(reader) from error
    rows = _numbered_rows(text, reader)
    header = next(rows, None)
    if header is None:
        if not reader.fault_count:
            reader.fault(1, "", "NO_HEADER")
        raise _refusal(reader)
    places = reader.header(header[1])
    if places is not None:
        reader.rows(rows, places, len(header[1]))
    if reader.fault_count:
        raise _refusal(reader)
    return reader.file


def _refusal(reader: _Reader) -> WrongUseError:
    count = reader.fault_count
    faults = "1 fault" if count == 1 else f"{count} faults"
    return WrongUseError(
        "BAD_FILE",
        f"the file has {faults}; nothing of it was submitted",
        "Correct the lines that are listed and submit the file again.",
        [fault.as_row() for fault in reader.faults],
        count,
    )
