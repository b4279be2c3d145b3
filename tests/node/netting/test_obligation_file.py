"""Obligation files of `clearing net`: one row a fault, what is accepted, and two readers that agree."""

from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clearing.types import AMOUNT_MAX
from node.csv_file import FAULTS_KEPT_MAX, FIELD_CHARACTERS_MAX, FaultyFileError, undecodable_at
from node.netting import csv_kernel
from node.netting.obligation_file import (
    REMEDIES_OF_FILE,
    SCAN_BYTES_MIN,
    read_cells,
    read_obligations,
    scan_plain,
)
from node.netting.table import ObligationTable

HEADER = b"id,debtor,creditor,asset,amount\n"
RANKED = b"id,debtor,creditor,asset,amount,priority\n"
GOOD = b"a1,p01,p02,BTC,5\n"


def rows_of(table: ObligationTable) -> list[tuple[str, str, str, str, int, int]]:
    """Return what the file said, row by row."""
    priority = table.columns.priority
    return list(
        zip(
            table.ids.strings(),
            [table.parties[number] for number in table.columns.debtor],
            [table.parties[number] for number in table.columns.creditor],
            [table.assets[number] for number in table.asset],
            table.columns.amounts(),
            [0] * len(table) if priority is None else priority.tolist(),
            strict=True,
        )
    )


def faults(data: bytes) -> list[tuple[int, str, str]]:
    with pytest.raises(FaultyFileError) as caught:
        read_cells(data)
    assert scan_plain(data) is None
    assert all(row["remedy"] for row in caught.value.rows)
    return [(row["line"], row["column"], row["code"]) for row in caught.value.rows]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'""\n', (1, "", "NO_HEADER")),
        (b"id,debtor,creditor,asset\n" + GOOD, (1, "amount", "MISSING_COLUMN")),
        (b"id,debtor,creditor,asset,amount,id\n", (1, "id", "DUPLICATE_COLUMN")),
        (
            b"priority,id,debtor,creditor,asset,amount,priority\n",
            (1, "priority", "DUPLICATE_COLUMN"),
        ),
        (b"id;debtor;creditor;asset;amount\n", (1, "", "DELIMITER")),
        (HEADER + b"a1,p01,p02,BTC\n", (2, "", "FIELD_COUNT")),
        (HEADER + b"a1,p01,p02,BTC,1,000\n", (2, "", "FIELD_COUNT")),
        (HEADER + b"  \na1,p01,p02,BTC,1,\n", (3, "", "FIELD_COUNT")),
        (HEADER + b",p01,p02,BTC,1\n", (2, "id", "EMPTY_FIELD")),
        (HEADER + b"a1, ,p02,BTC,1\n", (2, "debtor", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,,BTC,1\n", (2, "creditor", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p02,\t,1\n", (2, "asset", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p02,BTC,\n", (2, "amount", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p01,BTC,1\n", (2, "creditor", "SAME_PARTY")),
        (HEADER + b"a1,p01, p01,BTC,1\n", (2, "creditor", "SAME_PARTY")),
        (HEADER + b"a1,p01,settlement agent,BTC,1\n", (2, "creditor", "RESERVED_NAME")),
        (HEADER + b"a1,p01,p02,BTC,0\n", (2, "amount", "ZERO_AMOUNT")),
        (HEADER + b"a1,p01,p02,BTC,000\n", (2, "amount", "ZERO_AMOUNT")),
        (HEADER + b"a1,p01,p02,BTC,-1\n", (2, "amount", "AMOUNT_SIGN")),
        (HEADER + b"a1,p01,p02,BTC,+1\n", (2, "amount", "AMOUNT_SIGN")),
        (HEADER + b"a1,p01,p02,BTC,1.5\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,1e6\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,1_000\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,1 000\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + "a1,p01,p02,BTC,١٢\n".encode(), (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,%d\n" % (AMOUNT_MAX + 1), (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + b"a1,p01,p02,BTC,%d\n" % (AMOUNT_MAX * 10), (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + b"a1,p01,p02,BTC," + b"9" * 39 + b"\n", (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + b"a1,p01,p02,BTC," + b"9" * 4000 + b"\n", (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + GOOD + GOOD, (3, "id", "DUPLICATE_ID")),
        (HEADER + GOOD + b" a1 ,p03,p04,ETH,9\n", (3, "id", "DUPLICATE_ID")),
        (RANKED + b"a1,p01,p02,BTC,1,256\n", (2, "priority", "BAD_PRIORITY")),
        (RANKED + b"a1,p01,p02,BTC,1,-1\n", (2, "priority", "BAD_PRIORITY")),
        (RANKED + b"a1,p01,p02,BTC,1,high\n", (2, "priority", "BAD_PRIORITY")),
        (HEADER + b"a1,p\x1b[31m,p02,BTC,1\n", (2, "debtor", "CONTROL_CHARACTER")),
        (HEADER + b"a1,p01,p\x0002,BTC,1\n", (2, "creditor", "CONTROL_CHARACTER")),
        (HEADER + "a1,p01,p\x9b02,BTC,1\n".encode(), (2, "creditor", "CONTROL_CHARACTER")),
        (HEADER + b"a\x7f1,p01,p02,BTC,1\n", (2, "id", "CONTROL_CHARACTER")),
        (HEADER + b'a1,p01,"p\n02",BTC,1\n', (2, "creditor", "CONTROL_CHARACTER")),
        (HEADER + b'a1,p01,p02,BTC,"1\n', (2, "", "NOT_CSV")),
        (HEADER + b'a1,p01,p02,"BTC"x,1\n', (2, "", "NOT_CSV")),
        (HEADER + b"a1,p01,p02,BTC,1\nb\xff,p01,p02,BTC,1\n", (3, "", "NOT_UTF8")),
        (HEADER + b"a1,p01,p02,BTC,1\nb2,p01,p\xc3,BTC,1\n", (3, "", "NOT_UTF8")),
        ((HEADER + GOOD).decode().encode("utf-16"), (1, "", "NOT_UTF8")),
        (
            HEADER + b"a" * (FIELD_CHARACTERS_MAX + 1) + b",p01,p02,BTC,1\n",
            (2, "id", "FIELD_TOO_LONG"),
        ),
        (HEADER + b"a" * 200_000 + b",p01,p02,BTC,1\n", (2, "", "NOT_CSV")),
    ],
)
def test_each_fault_names_line_column_and_code(data: bytes, expected: tuple[int, str, str]) -> None:
    assert faults(data) == [expected]
    if data.startswith(HEADER):
        # A fault in the midst of good rows, behind a row that spans lines, is named as exactly.
        line, column, code = expected
        moved = HEADER + b'"x1",p01,p02,BTC,7\n\nx2,p01,p02,BTC,8\n' + data[len(HEADER) :]
        assert faults(moved + b"x3,p01,p02,BTC,8\n")[0] == (line + 3, column, code)


def test_a_row_with_several_faults_shows_them_all_and_no_good_row_saves_the_file() -> None:
    data = RANKED + b"a1,p01,p02,BTC,5,\na1,,p\x01,,-3,300\na2,p01,p02,BTC,7,\n"
    assert faults(data) == [
        (3, "debtor", "EMPTY_FIELD"),
        (3, "creditor", "CONTROL_CHARACTER"),
        (3, "asset", "EMPTY_FIELD"),
        (3, "id", "DUPLICATE_ID"),
        (3, "amount", "AMOUNT_SIGN"),
        (3, "priority", "BAD_PRIORITY"),
    ]


def test_the_first_hundred_faults_are_listed_and_all_are_counted() -> None:
    data = HEADER + b"".join(b"a%d,p01,p02,BTC,0\n" % number for number in range(250))
    with pytest.raises(FaultyFileError) as caught:
        read_cells(data)
    assert caught.value.count == 250
    assert [row["line"] for row in caught.value.rows] == list(range(2, 2 + FAULTS_KEPT_MAX))


def test_every_fault_that_can_be_named_has_a_remedy() -> None:
    assert all(REMEDIES_OF_FILE.values())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xef\xbb\xbf \r\n",
        HEADER,
        HEADER[:-1],
        b"\xef\xbb\xbf" + HEADER,
        b"\n \n" + HEADER + b"\n\n",
        b"id,debtor,creditor,asset,amount,priority,note\r\n",
    ],
)
def test_a_file_without_rows_is_valid(data: bytes) -> None:
    assert len(read_cells(data)) == 0
    scanned = scan_plain(data)
    assert scanned is None or len(scanned) == 0


@pytest.mark.parametrize(
    "data",
    [
        HEADER + GOOD + b"a2,p02,p01,BTC,6\n",
        HEADER + GOOD + b"a2,p02,p01,BTC,6",
        b"\xef\xbb\xbf" + HEADER + GOOD + b"a2,p02,p01,BTC,6\n",
        (HEADER + GOOD + b"a2,p02,p01,BTC,6\n").replace(b"\n", b"\r\n"),
        (HEADER + GOOD + b"a2,p02,p01,BTC,6\n").replace(b"\n", b"\r"),
        HEADER + b"\n" + GOOD + b"\n\n  \na2,p02,p01,BTC,6\n\n",
        b'"id","debtor","creditor","asset","amount"\n"a1","p01","p02","BTC","5"\na2,p02,p01,BTC,6\n',
        b" ID , Debtor,CREDITOR,asset,Amount\na1, p01,p02\t,BTC,0005 \na2,p02,p01,BTC,6\n",
        b"amount,note,asset,creditor,debtor,id\n5,\xc3\xa9,BTC,p02,p01,a1\n6,,BTC,p01,p02,a2\n",
        RANKED + b"a1,p01,p02,BTC,5,\na2,p02,p01,BTC,6,0\n",
    ],
)
def test_the_same_rows_however_they_are_written(data: bytes) -> None:
    expected = [("a1", "p01", "p02", "BTC", 5, 0), ("a2", "p02", "p01", "BTC", 6, 0)]
    assert rows_of(read_obligations(data)) == expected
    scanned = scan_plain(data)
    assert scanned is None or rows_of(scanned) == expected


def test_further_columns_are_named_and_names_sort_by_code_point() -> None:
    data = "id,debtor,creditor,asset,amount, Note,\na,é,Z,b,1,x,\nb,z,\U0001f3e6,B,2,,\n".encode()
    for table in (read_cells(data), scan_plain(data)):
        assert table is not None
        assert list(table.parties) == ["Z", "z", "é", "\U0001f3e6"]
        assert list(table.assets) == ["B", "b"]
        assert table.ignored == ("Note", "")


def test_amounts_at_the_edges_of_limbs_are_read_exactly() -> None:
    amounts = [1, 10**18, 10**19 - 1, 10**19, 2**64 - 1, 2**64, 2**64 + 1, 10**38, AMOUNT_MAX]
    data = HEADER + b"".join(b"%d,a,b,X,%d\n" % pair for pair in enumerate(amounts))
    for table in (read_cells(data), scan_plain(data)):
        assert table is not None
        assert table.columns.amounts() == amounts


def test_many_names_make_the_tables_grow() -> None:
    count = 30_000
    lines = [f"{n},debtor-{n},creditor-{n},asset-{n},{n + 1}\n" for n in range(count)]
    data = HEADER + "".join(lines).encode()
    scanned = scan_plain(data)
    assert scanned is not None
    assert rows_of(scanned) == rows_of(read_cells(data))
    assert (len(scanned.parties), len(scanned.assets)) == (2 * count, count)


def test_names_of_one_slot_are_left_to_the_reader_that_cannot_be_slowed_down() -> None:
    # Names whose hashes end in the same bits, found by trying: a table with open addressing would crawl.
    mask, wanted, names, number = 0x3FFF, None, [], 0
    while len(names) < 70:
        value = 0xCBF29CE484222325
        for byte in b"%d" % number:
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
        slot = (value ^ value >> 29) & mask
        wanted = slot if wanted is None else wanted
        if slot == wanted:
            names.append(number)
        number += 1
    lines = [
        b"%d,%d,%d,X,1\n" % (row, a, b) for row, (a, b) in enumerate(itertools.pairwise(names))
    ]
    data = HEADER + b"".join(lines)
    assert scan_plain(data) is None
    assert len(read_obligations(data)) == 69


def test_a_large_file_goes_through_the_scan_and_reports_its_progress() -> None:
    count = SCAN_BYTES_MIN // 5
    data = RANKED + b"".join(b"%d,a,b,X,1,%d\n" % (row, row % 256) for row in range(count))
    read: list[int] = []
    table = read_obligations(data, read.append)
    assert len(table) == count
    assert read == sorted(read)
    assert read[-1] == len(data)
    read.clear()
    read_cells(data, read.append)
    assert read == sorted(read)
    assert 0 < read[0] < read[-1] <= len(data)
    assert table.columns.priority is not None
    assert table.columns.priority.tolist() == [row % 256 for row in range(count)]


field = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
plain = st.text("abcXYZ-_.é€\U0001f3e6 0", min_size=1, max_size=5)
digits = st.one_of(
    st.integers(1, AMOUNT_MAX + 2).map(str), st.integers(0, 300).map(str), st.just("0" * 30 + "7")
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a file: mostly right, sometimes with anything in a cell, quoted as the csv module does or not at all."""
    columns = draw(st.permutations(["id", "debtor", "creditor", "asset", "amount"]))
    columns = [
        *columns,
        *draw(st.lists(st.sampled_from(["priority", "note"]), max_size=2, unique=True)),
    ]
    kinds = {"amount": digits, "priority": digits | st.just("")}
    wild = draw(st.booleans())
    lines = []
    for number in range(draw(st.integers(0, 6))):
        cells = {name: draw(kinds.get(name, plain)) for name in columns}
        cells["id"] = draw(plain) if wild else f"{number}{cells['id'].strip()}"
        if wild:
            cells[draw(st.sampled_from(columns))] = draw(field)
        lines.append([cells[name] for name in columns])
    end = draw(st.sampled_from(["\n", "\r\n"]))
    if draw(st.booleans()):
        out = io.StringIO()
        csv.writer(out, lineterminator=end).writerows([columns, *lines])
        text = out.getvalue()
    else:
        text = "".join(",".join(line) + end for line in [columns, *lines])
    return (
        draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
        + text.encode()[: draw(st.none() | st.integers(0, 400))]
    )


@given(files())
@example(HEADER + b"a,b,c,d,1\r\r\n")
@example(HEADER + b"a,b,c,d,1\r2\n")
@example(HEADER + b"\r\na,b,c,d,1\r")
@example(HEADER + b"a,b,c,d,1\n\xef\xbb\xbf")
@example(b"id\r,debtor,creditor,asset,amount\n")
@example(b"\n" + HEADER)
def test_the_scan_takes_no_file_that_the_reader_refuses_and_both_see_the_same(data: bytes) -> None:
    scanned = scan_plain(data)
    try:
        read = read_cells(data)
    except FaultyFileError:
        assert scanned is None
        return
    if scanned is None:
        return
    assert rows_of(scanned) == rows_of(read)
    assert (scanned.parties, scanned.assets) == (read.parties, read.assets)
    assert scanned.ignored == read.ignored
    assert scanned.columns.debtor.dtype == read.columns.debtor.dtype
    assert (scanned.columns.hi is None) == (read.columns.hi is None)


@given(st.lists(st.tuples(plain, plain, plain, st.integers(1, AMOUNT_MAX), st.integers(0, 255))))
def test_plain_files_are_not_left_to_the_slow_reader(
    rows: list[tuple[str, str, str, int, int]],
) -> None:
    lines = [
        f"{number},d{a.strip()},c{b.strip()},x{c.strip()},{amount},{rank}\r\n"
        for number, (a, b, c, amount, rank) in enumerate(rows)
    ]
    data = RANKED + "".join(lines).encode()
    scanned = scan_plain(data)
    assert scanned is not None
    assert rows_of(scanned) == rows_of(read_cells(data))


@given(st.binary(max_size=40), st.integers(0, 3))
def test_where_a_file_stops_being_text_is_found_across_the_pieces_it_is_checked_in(
    tail: bytes, cut: int
) -> None:
    data = b"a" * ((1 << 20) - cut) + tail
    expected = None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        expected = error.start
    assert undecodable_at(data) == expected


def test_names_keep_their_numbers_when_their_table_grows() -> None:
    small = csv_kernel.empty_names(8)
    small.hash[:3] = [1, 9, 2**63]
    small.start[:3] = [4, 5, 6]
    large = csv_kernel.grown(small, 3)
    assert large.start[:3].tolist() == [4, 5, 6]
    assert np.sort(large.slots[large.slots > 0]).tolist() == [1, 2, 3]
