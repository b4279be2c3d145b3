"""CSV files that people make: rows with their line, and a fault for each wrong cell.

Lives here: what every CSV file of the command line has in common (encoding, quotes, header, amounts, faults). May not
live here: what a column means to a command.

Format: UTF-8, with or without a byte order mark; lines end in LF, CRLF or CR; fields are separated by commas and may be
quoted; blank lines are skipped. Header names count without regard to case and to spaces around them.

Invariant: reading never stops at the first fault, so that a file can be corrected in one go.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clearing.errors import REMEDIES, ClearingError, RejectCode
from clearing.types import AMOUNT_MAX

FIELD_CHARACTERS_MAX = 4_096
"""Greatest length of one field; longer ones come from an unclosed quote."""

FAULTS_KEPT_MAX = 100
"""Greatest number of faults that are kept with line and column; all are counted."""

PRIORITY_MAX: Final = 255
"""Greatest place in a payer's queue: a record gives it one byte."""

FORMAT_REMEDIES: dict[str, str] = {
    "NOT_UTF8": "Save the file as UTF-8.",
    "NOT_CSV": "Close the quotes of the field, or double a quote inside one.",
    "NO_HEADER": "Write the names of the columns in the first line.",
    "DELIMITER": "Separate the columns with commas.",
    "MISSING_COLUMN": "Add the column to the header and to every line.",
    "DUPLICATE_COLUMN": "Name each column once.",
    "FIELD_COUNT": "Give each line as many fields as the header; quote a field that holds a comma.",
    "EMPTY_FIELD": "Fill in the field.",
    "FIELD_TOO_LONG": f"A field has at most {FIELD_CHARACTERS_MAX} characters; look for an unclosed quote.",
    "NOT_AN_INTEGER": "Write the amount as a whole number of the asset's smallest unit, digits only.",
    "AMOUNT_SIGN": "Write the amount without a sign; to turn it around, exchange debtor and creditor.",
    "AMOUNT_TOO_LARGE": "An amount is at most 2^128-1 smallest units.",
    "BAD_PRIORITY": f"Write a whole number from 0 to {PRIORITY_MAX}, higher is paid first, or leave the field empty.",
    RejectCode.ZERO_AMOUNT.name: REMEDIES[RejectCode.ZERO_AMOUNT],
}
"""What to do about the faults that every file can have; where the ledger has a code for one, the name is the ledger's."""

_AMOUNT_DIGITS_MAX = 64
_SHOWN_CHARACTERS_MAX = 60
_CHECKED_BYTES = 1 << 20
_BLANK_FILE = re.compile(rb"(?:\xef\xbb\xbf)?\s*\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong cell (or line, with column ""); `line` counts from 1, the header included."""

    line: int
    column: str
    code: str
    value: str
    remedy: str

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
            "remedy": self.remedy,
        }


class FaultLog:
    """The faults of one file: the first FAULTS_KEPT_MAX, and how many there are."""

    def __init__(self, remedies: Mapping[str, str]) -> None:
        """Know what to do about each code that may come."""
        self.faults: list[Fault] = []
        self.count = 0
        self._remedies = remedies

    def add(self, line: int, column: str, code: str, value: str = "") -> None:
        """Record one fault; `code` has a remedy."""
        remedy = self._remedies[code]
        self.count += 1
        if len(self.faults) < FAULTS_KEPT_MAX:
            self.faults.append(Fault(line, column, code, value, remedy))

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the faults kept as rows for tables and JSON, in the order of lines."""
        return [fault.as_row() for fault in self.faults]


class FaultyFileError(ClearingError):
    """A file has faults, so nothing of it is used: `rows` are the first ones, `count` is the number of all."""

    def __init__(self, log: FaultLog) -> None:
        """Carry what the log holds."""
        super().__init__("1 fault" if log.count == 1 else f"{log.count} faults")
        self.rows = log.as_rows()
        self.count = log.count


def amount_of(text: str) -> int | None:
    """Return the number that `text` writes in plain digits, 0 included, or None where `amount_fault` says why not."""
    # int() of a very long text is refused by Python itself and could be nothing but too large.
    if not (text.isascii() and text.isdigit()) or len(text) > _AMOUNT_DIGITS_MAX:
        return None
    amount = int(text)
    return amount if amount <= AMOUNT_MAX else None


def priority_of(text: str) -> int | None:
    """Return the place in the payer's queue that `text` writes, 0 for an empty field, or None where it writes none."""
    number = amount_of(text) if text else 0
    return number if number is not None and number <= PRIORITY_MAX else None


def amount_fault(text: str) -> str:
    """Return the code of an amount that is zero, or for which `amount_of` has no number."""
    if text[:1] in {"-", "+"}:
        return "AMOUNT_SIGN"
    if not (text.isascii() and text.isdigit()):
        return "NOT_AN_INTEGER"
    if amount_of(text) is None:
        return "AMOUNT_TOO_LARGE"
    return RejectCode.ZERO_AMOUNT.name


def is_blank(data: bytes) -> bool:
    """Say whether a file holds nothing, not even a header."""
    return _BLANK_FILE.match(data) is not None


def undecodable_at(data: bytes) -> int | None:
    """Return the offset of the first byte that is no UTF-8, or None; needs little memory beside `data`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _CHECKED_BYTES):
        end = start + _CHECKED_BYTES
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start:end], final=end >= len(data))
        except UnicodeDecodeError as error:
            return start - held + error.start
    return None


def numbered_rows(data: bytes, log: FaultLog) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row starts, fields) of each row that is not blank, until quotes end wrongly.

    Nothing is yielded of a file that is not UTF-8. Faults go to `log`.
    """
    wrong = undecodable_at(data)
    if wrong is not None:
        line = data.count(b"\n", 0, wrong) + 1
        log.add(line, "", "NOT_UTF8", repr(data[wrong : wrong + 1]))
        return
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    line = 1
    try:
        for row in rows:
            if row and (len(row) > 1 or row[0].strip()):
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        log.add(line, "", "NOT_CSV", str(error))


@dataclass(frozen=True, slots=True)
class Header:
    """Where the columns stand: `places` of the required ones, then of the optional ones (-1: absent)."""

    places: tuple[int, ...]
    width: int
    ignored: tuple[str, ...]


def read_header(
    names: Sequence[str], required: Sequence[str], optional: Sequence[str], log: FaultLog
) -> Header | None:
    """Return where the columns stand, or None when a fault was recorded; `names` is the first row."""
    before = log.count
    clean = [name.strip().lower() for name in names]
    if len(clean) == 1 and any(mark in clean[0] for mark in ";\t|"):
        log.add(1, "", "DELIMITER", names[0])
        return None
    for name in required:
        if name not in clean:
            log.add(1, name, "MISSING_COLUMN")
    known = (*required, *optional)
    for name in known:
        if clean.count(name) > 1:
            log.add(1, name, "DUPLICATE_COLUMN")
    if log.count > before:
        return None
    places = tuple(clean.index(name) if name in clean else -1 for name in known)
    ignored = tuple(name.strip() for name in names if name.strip().lower() not in known)
    return Header(places, len(names), ignored)


def open_rows(
    data: bytes, required: Sequence[str], optional: Sequence[str], log: FaultLog
) -> tuple[Header, Iterator[tuple[int, list[str]]]] | None:
    """Read the header and return it with the rows below it, or None when a fault was recorded."""
    rows = numbered_rows(data, log)
    first = next(rows, None)
    if first is None:
        if not log.count:
            log.add(1, "", "NO_HEADER")
        return None
    header = read_header(first[1], required, optional, log)
    return None if header is None else (header, rows)
