"""Obligation files of `clearing net`: read at the speed of memory where they are plain, cell by cell where they are not.

Lives here: the format, its faults, and the choice between the compiled scan and the reader that explains. May not live
here: netting, printing.

Format: a CSV file (node/csv_file.py) with the columns id, debtor, creditor, asset, amount and optionally priority, in any order;
further columns are ignored. Spaces and tabs around a field do not count. Names are any text without control
characters; amounts are integers of the asset's smallest unit, 1 to 2^128-1. Priorities are 0 to 255, higher is paid
first, empty means 0. A file that holds nothing, not even a header, holds no obligations.

Invariants: both ways give the same table; a file with one fault gives none.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from clearing.errors import REMEDIES, RejectCode
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import HAS_NUMBA
from node.csv_file import (
    FIELD_CHARACTERS_MAX,
    FORMAT_REMEDIES,
    FaultLog,
    FaultyFileError,
    amount_fault,
    amount_of,
    is_blank,
    open_rows,
    priority_of,
    read_header,
    undecodable_at,
)
from node.netting import csv_kernel as kernel
from node.netting.table import AGENT_NAME, ObligationTable, code_point_ranks, ids_dtype
from node.netting.texts import Texts

REQUIRED = ("id", "debtor", "creditor", "asset", "amount")
OPTIONAL = ("priority",)

SCAN_BYTES_MIN = 1 << 18
"""Smaller files are read cell by cell: that takes less time than loading compiled code."""

BLANK = " \t"
"""What does not count around a field."""

REMEDIES_OF_FILE: dict[str, str] = FORMAT_REMEDIES | {
    "NO_HEADER": "Write the header id,debtor,creditor,asset,amount in the first line.",
    "DUPLICATE_ID": "Give each obligation of the file an id of its own.",
    "CONTROL_CHARACTER": "Remove the character below U+0020 or from U+007F to U+009F; it may come from a wrong encoding.",
    "RESERVED_NAME": "This name means the settlement agent; give the participant another one.",
    RejectCode.SAME_PARTY.name: REMEDIES[RejectCode.SAME_PARTY],
}
"""What to do about each fault."""

Advance = Callable[[int], None]
"""Called with the number of bytes that have been read; it falls back where a file is read again, cell by cell."""

_BOM = b"\xef\xbb\xbf"
_PIECE_BYTES = 1 << 23
_SHOWN_ROWS = 1 << 15
_NAME_SLOTS = 1 << 14
_MASK_64 = (1 << 64) - 1
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_FIELDS = (*REQUIRED, *OPTIONAL)


def _silent(done: int) -> None:
    """Show no progress."""


def read_obligations(data: bytes, advance: Advance = _silent) -> ObligationTable:
    """Read the bytes of an obligation file.

    Raises: FaultyFileError: one row a fault (the first 100, and the count of all); nothing of the file is used.
    """
    if HAS_NUMBA and len(data) >= SCAN_BYTES_MIN:
        table = scan_plain(data, advance)
        if table is not None:
            return table
    return read_cells(data, advance)


def scan_plain(data: bytes, advance: Advance = _silent) -> ObligationTable | None:
    """Read a file without quotes and without faults in one compiled pass.

    Returns: the table, or None where `read_cells` has to look.
    """
    if not data.endswith(b"\n"):
        data += b"\n"
    begin = len(_BOM) if data.startswith(_BOM) else 0
    body = data.index(b"\n", begin) + 1
    roles, ignored = _plain_header(data[begin:body])
    if roles is None:
        return None
    rows = kernel.empty_rows(data.count(b"\n", body))
    names = kernel.empty_names(_NAME_SLOTS)
    state = np.zeros(5, np.int64)
    state[kernel.AT] = body
    view = np.frombuffer(data, np.uint8)
    while state[kernel.AT] < len(data):
        state[kernel.STOP] = min(int(state[kernel.AT]) + _PIECE_BYTES, len(data))
        status = kernel.scan(view, roles, rows, names, state)
        if status == kernel.NOT_PLAIN:
            return None
        if status == kernel.NAMES_FULL:
            names = kernel.grown(names, int(state[kernel.NAMES]))
        advance(int(state[kernel.AT]))
    if state[kernel.BEYOND_ASCII] and undecodable_at(data) is not None:
        return None
    count = int(state[kernel.ROW])
    if _may_repeat(rows.id_hash[:count]):
        return None
    texts = Texts(data, names.start, names.size).at(slice(int(state[kernel.NAMES])))
    if AGENT_NAME.encode() in texts.raw():
        return None
    return _from_scan(texts, kernel.Rows._make(column[:count] for column in rows), ignored)


def _plain_header(
    line: bytes,
) -> tuple[np.ndarray[Any, np.dtype[np.uint64]] | None, tuple[str, ...]]:
    """Return what each column holds, or None where the header is not plain or has a fault, and the names ignored."""
    if b'"' in line or undecodable_at(line) is not None or b"\r" in line.rstrip(b"\r\n"):
        return None, ()
    names = next(csv.reader([line.decode().rstrip("\r\n")]), [])
    header = read_header(names, REQUIRED, OPTIONAL, FaultLog(REMEDIES_OF_FILE))
    if header is None:
        return None, ()
    roles = np.full(header.width, kernel.IGNORED, np.uint64)
    for role, place in enumerate(header.places):
        if place >= 0:
            roles[place] = role
    return roles, header.ignored


def _may_repeat(hashes: np.ndarray[Any, np.dtype[np.uint64]]) -> bool:
    """Say whether two ids have one hash; ids that repeat always do."""
    ordered = np.sort(hashes)
    return bool((ordered[1:] == ordered[:-1]).any())


def _from_scan(names: Texts, rows: kernel.Rows, ignored: tuple[str, ...]) -> ObligationTable:
    """Renumber what the scan found: parties and assets apart, each by code points."""
    parties, party_rank = _ranks_of(names, rows.debtor, rows.creditor)
    assets, asset_rank = _ranks_of(names, rows.asset)
    columns = AssetColumns(
        party_rank[rows.debtor],
        party_rank[rows.creditor],
        rows.lo,
        rows.hi if rows.hi.any() else None,
        rows.priority if rows.priority.any() else None,
    )
    ids = Texts(names.data, rows.id_start, rows.id_bytes)
    return ObligationTable(ids, parties, assets, asset_rank[rows.asset], columns, ignored)


def _ranks_of(names: Texts, *columns: Any) -> tuple[list[str], Any]:
    """Sort the names that occur in the columns. Returns: them in order, and the place there of each name's number."""
    occurs = np.zeros(len(names), np.bool_)
    for column in columns:
        occurs[column] = True
    numbers = np.flatnonzero(occurs)
    ordered, ranks = code_point_ranks(names.at(numbers).raw())
    rank = np.zeros(len(names), ids_dtype(len(ordered)))
    rank[numbers] = ranks
    return ordered, rank


class _Cells:
    """One pass over a file, cell by cell: collects columns and faults, and never stops at the first one."""

    def __init__(self, log: FaultLog) -> None:
        self.log = log
        self.parties: dict[str, int] = {}
        self.assets: dict[str, int] = {}
        self.ids = bytearray()
        self.id_end = array("q", [0])
        self.debtor, self.creditor, self.asset = array("I"), array("I"), array("I")
        self.lo, self.hi, self.priority = array("Q"), array("Q"), array("B")
        self._line_of_id: dict[str, int] = {}

    def read(
        self, rows: Iterator[tuple[int, list[str]]], places: Sequence[int], width: int
    ) -> None:
        """Check and keep every row; the hot loop of this reader."""
        at_id, at_debtor, at_creditor, at_asset, at_amount, at_priority = places
        for line, row in rows:
            if len(row) != width:
                self.log.add(line, "", "FIELD_COUNT", f"{len(row)} of {width}")
                continue
            identity = row[at_id].strip(BLANK)
            debtor, creditor = row[at_debtor].strip(BLANK), row[at_creditor].strip(BLANK)
            asset = row[at_asset].strip(BLANK)
            amount = amount_of(row[at_amount].strip(BLANK))
            priority = priority_of(row[at_priority].strip(BLANK)) if at_priority >= 0 else 0
            if (
                not amount
                or priority is None
                or debtor == creditor
                or AGENT_NAME in (debtor, creditor)
                or identity in self._line_of_id
                or not (_is_plain(identity) and _is_plain(debtor))
                or not (_is_plain(creditor) and _is_plain(asset))
            ):
                self._explain(line, row, places)
                continue
            self._line_of_id[identity] = line
            self.ids += identity.encode()
            self.id_end.append(len(self.ids))
            self.debtor.append(self.parties.setdefault(debtor, len(self.parties)))
            self.creditor.append(self.parties.setdefault(creditor, len(self.parties)))
            self.asset.append(self.assets.setdefault(asset, len(self.assets)))
            self.lo.append(amount & _MASK_64)
            self.hi.append(amount >> 64)
            self.priority.append(priority)

    def _explain(self, line: int, row: list[str], places: Sequence[int]) -> None:
        """Record every fault of a row that was refused."""
        values = {
            name: row[place].strip(BLANK) if place >= 0 else ""
            for name, place in zip(_FIELDS, places, strict=True)
        }
        for name in REQUIRED:
            if len(values[name]) > FIELD_CHARACTERS_MAX:
                self.log.add(line, name, "FIELD_TOO_LONG", values[name])
            elif not values[name]:
                self.log.add(line, name, "EMPTY_FIELD")
            elif name != "amount" and not _is_plain(values[name]):
                self.log.add(line, name, "CONTROL_CHARACTER", ascii(values[name]))
        wrong = {fault.column for fault in self.log.faults if fault.line == line}
        identity = values["id"]
        if identity in self._line_of_id:
            first = self._line_of_id[identity]
            self.log.add(line, "id", "DUPLICATE_ID", f"{identity} (line {first})")
        elif "id" not in wrong:
            self._line_of_id[identity] = line
        if "creditor" not in wrong and values["debtor"] == values["creditor"]:
            self.log.add(line, "creditor", RejectCode.SAME_PARTY.name, values["creditor"])
        for name in ("debtor", "creditor"):
            if values[name] == AGENT_NAME:
                self.log.add(line, name, "RESERVED_NAME", values[name])
        if "amount" not in wrong and not amount_of(values["amount"]):
            self.log.add(line, "amount", amount_fault(values["amount"]), values["amount"])
        if priority_of(values["priority"]) is None:
            self.log.add(line, "priority", "BAD_PRIORITY", values["priority"])

    def table(self, ignored: tuple[str, ...]) -> ObligationTable:
        """Return the columns with names in code point order."""
        parties, party_rank = code_point_ranks(name.encode() for name in self.parties)
        assets, asset_rank = code_point_ranks(name.encode() for name in self.assets)
        party_rank = party_rank.astype(ids_dtype(len(parties)), copy=False)
        asset_rank = asset_rank.astype(ids_dtype(len(assets)), copy=False)
        high = np.frombuffer(self.hi, np.uint64)
        priority = np.frombuffer(self.priority, np.uint8)
        columns = AssetColumns(
            party_rank[np.frombuffer(self.debtor, np.uint32)],
            party_rank[np.frombuffer(self.creditor, np.uint32)],
            np.frombuffer(self.lo, np.uint64),
            high if high.any() else None,
            priority if priority.any() else None,
        )
        end = np.frombuffer(self.id_end, np.int64)
        ids = Texts(bytes(self.ids), end[:-1], np.diff(end).astype(np.int32))
        asset = asset_rank[np.frombuffer(self.asset, np.uint32)]
        return ObligationTable(ids, parties, assets, asset, columns, ignored)


def _is_plain(text: str) -> bool:
    """Say whether a name or id may stand as it is: not empty, not too long, no control characters."""
    if not 0 < len(text) <= FIELD_CHARACTERS_MAX:
        return False
    return text.isprintable() or _CONTROL.search(text) is None


def _showing(
    rows: Iterator[tuple[int, list[str]]], show: Callable[[int], None]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows, showing the line from time to time."""
    for number, row in enumerate(rows):
        if number % _SHOWN_ROWS == 0:
            show(row[0])
        yield row


def read_cells(data: bytes, advance: Advance = _silent) -> ObligationTable:
    """Read a file cell by cell, as `read_obligations` says.

    Raises: FaultyFileError.
    """
    log = FaultLog(REMEDIES_OF_FILE)
    cells = _Cells(log)
    if is_blank(data):
        return cells.table(())
    opened = open_rows(data, REQUIRED, OPTIONAL, log)
    if opened is not None:
        header, rows = opened
        lines = data.count(b"\n") + 1
        shown = _showing(rows, lambda line: advance(len(data) * line // lines))
        cells.read(shown, header.places, header.width)
    if opened is None or log.count:
        raise FaultyFileError(log)
    return cells.table(header.ignored)
