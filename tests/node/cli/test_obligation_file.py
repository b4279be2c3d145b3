"""The obligation file: one row a fault, what is accepted, and the records that come out."""

from __future__ import annotations

import csv
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.records.obligation import ITEM_BYTES, LAYOUT, items_view
from clearing.types import AMOUNT_MAX
from node.cli.errors import WrongUseError
from node.cli.obligation_file import (
    FIELD_CHARACTERS_MAX,
    OPTIONAL,
    REMEDIES_OF_FILES,
    REQUIRED,
    Directory,
    ObligationFile,
    parse_due_ms,
    parse_obligations,
)

LEI = "5493001KJTIIGC8Y1R12"
DIRECTORY = Directory(
    parties={"p01": 2, "p02": 3, "p03": 4, LEI: 2},
    assets={"BTC": 0, "ETH": 1, "eip155:1/slip44:60": 1, "4H95J0R2X": 0},
)
HEADER = b"id,debtor,creditor,asset,amount\n"
RANKED = HEADER.replace(b"\n", b",priority\n")
GOOD = b"a1,p01,p02,BTC,5\n"


def read(data: bytes, submitter: int | None = None) -> ObligationFile:
    return parse_obligations(data, DIRECTORY, submitter)


def faults(data: bytes, submitter: int | None = None) -> list[tuple[int, str, str]]:
    with pytest.raises(WrongUseError) as caught:
        read(data, submitter)
    assert caught.value.exit_code == 2
    assert all(row["remedy"] for row in caught.value.details)
    return [(row["line"], row["column"], row["code"]) for row in caught.value.details]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (1, "", "NO_HEADER")),
        (b"\n\n", (1, "", "NO_HEADER")),
        (b"id,debtor,creditor,asset\n" + GOOD, (1, "amount", "MISSING_COLUMN")),
        (b"id,debtor,creditor,asset,amount,id\n", (1, "id", "DUPLICATE_COLUMN")),
        (b"id,debtor,creditor,asset,amount,due,due\n", (1, "due", "DUPLICATE_COLUMN")),
        (b"id;debtor;creditor;asset;amount\n", (1, "", "DELIMITER")),
        (b"id\tdebtor\tcreditor\tasset\tamount\n", (1, "", "DELIMITER")),
        (HEADER + b"a1,p01,p02,BTC\n", (2, "", "FIELD_COUNT")),
        (HEADER + b"a1,p01,p02,BTC,1,000\n", (2, "", "FIELD_COUNT")),
        (HEADER + b",p01,p02,BTC,1\n", (2, "id", "EMPTY_FIELD")),
        (HEADER + b"a1, ,p02,BTC,1\n", (2, "debtor", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,,BTC,1\n", (2, "creditor", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p02,,1\n", (2, "asset", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p02,BTC,\n", (2, "amount", "EMPTY_FIELD")),
        (HEADER + b"a1,p01,p99,BTC,1\n", (2, "creditor", "UNKNOWN_PARTICIPANT")),
        (HEADER + b"a1,P01,p02,BTC,1\n", (2, "debtor", "UNKNOWN_PARTICIPANT")),
        (HEADER + b"a1,p01,p02,btc,1\n", (2, "asset", "UNKNOWN_ASSET")),
        (HEADER + b"a1,p01,p01,BTC,1\n", (2, "creditor", "SAME_PARTY")),
        (HEADER + f"a1,p01,{LEI},BTC,1\n".encode(), (2, "creditor", "SAME_PARTY")),
        (HEADER + b"a1,p01,p02,BTC,0\n", (2, "amount", "ZERO_AMOUNT")),
        (HEADER + b"a1,p01,p02,BTC,000\n", (2, "amount", "ZERO_AMOUNT")),
        (HEADER + b"a1,p01,p02,BTC,-1\n", (2, "amount", "AMOUNT_SIGN")),
        (HEADER + b"a1,p01,p02,BTC,+1\n", (2, "amount", "AMOUNT_SIGN")),
        (HEADER + b"a1,p01,p02,BTC,1.5\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,1e6\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,1_000\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + "a1,p01,p02,BTC,١٢\n".encode(), (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a1,p01,p02,BTC,%d\n" % (AMOUNT_MAX + 1), (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + b"a1,p01,p02,BTC," + b"9" * 4000 + b"\n", (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + GOOD + GOOD, (3, "id", "DUPLICATE_ID")),
        (
            b"id,debtor,creditor,asset,amount,due\na1,p01,p02,BTC,1,tomorrow\n",
            (2, "due", "BAD_DUE"),
        ),
        (
            b"id,debtor,creditor,asset,amount,due\na1,p01,p02,BTC,1,20270131\n",
            (2, "due", "BAD_DUE"),
        ),
        (RANKED + b"a1,p01,p02,BTC,1,256\n", (2, "priority", "BAD_PRIORITY")),
        (RANKED + b"a1,p01,p02,BTC,1,high\n", (2, "priority", "BAD_PRIORITY")),
        (HEADER + b'a1,p01,p02,BTC,"1\n', (2, "", "NOT_CSV")),
        (HEADER + b'a1,p01,p02,"BTC"x,1\n', (2, "", "NOT_CSV")),
        (HEADER + b"a1,p01,p02,BTC,1\nb\xff,p01,p02,BTC,1\n", (3, "", "NOT_UTF8")),
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


def test_a_row_of_strangers_to_the_submitter_is_refused() -> None:
    assert faults(HEADER + b"a1,p02,p03,BTC,1\n", submitter=2) == [
        (2, "debtor", "SUBMITTER_NOT_PARTY")
    ]
    assert len(read(HEADER + b"a1,p02,p01,BTC,1\n", submitter=2)) == 1


def test_a_row_with_several_faults_shows_them_all_and_good_rows_do_not_save_the_file() -> None:
    data = HEADER + GOOD + b"a1,p98,p99,XYZ,-3\n" + b"a2,p01,p02,BTC,7\n"
    assert faults(data) == [
        (3, "id", "DUPLICATE_ID"),
        (3, "debtor", "UNKNOWN_PARTICIPANT"),
        (3, "creditor", "UNKNOWN_PARTICIPANT"),
        (3, "asset", "UNKNOWN_ASSET"),
        (3, "amount", "AMOUNT_SIGN"),
    ]


def test_the_first_hundred_faults_are_listed_and_all_are_counted() -> None:
    data = HEADER + b"".join(b"a%d,p01,p02,BTC,0\n" % i for i in range(250))
    with pytest.raises(WrongUseError) as caught:
        read(data)
    assert len(caught.value.details) == 100
    assert caught.value.total == 250
    assert "250 faults" in caught.value.sentence


def test_lines_are_counted_through_quoted_line_breaks_and_blank_lines() -> None:
    data = b'id,debtor,creditor,asset,amount,reference\n"a\nb",p01,p02,BTC,1,x\n\n\na3,p01,p02,BTC,0,y\n'
    assert faults(data) == [(6, "amount", "ZERO_AMOUNT")]


@pytest.mark.parametrize(
    "data",
    [
        HEADER + GOOD,
        b"\xef\xbb\xbf" + HEADER + GOOD,
        (HEADER + GOOD).replace(b"\n", b"\r\n"),
        (HEADER + GOOD).rstrip(b"\n"),
        HEADER + b' a1 , p01,"p02",BTC , 0005\n',
        b"Amount,ID,creditor,asset,debtor\n5,a1,p02,BTC,p01\n",
        HEADER + f"a1,{LEI},p02,4H95J0R2X,5\n".encode(),
        b"id,debtor,creditor,asset,amount,due,reference\na1,p01,p02,BTC,5,,\n",
        RANKED + b"a1,p01,p02,BTC,5,\n",
    ],
)
def test_spellings_of_one_file_give_the_same_record(data: bytes) -> None:
    file = read(data)
    assert file.ids == ["a1"]
    assert file.ignored_columns == ()
    assert LAYOUT.decode(file.records()) == {
        "version": 1,
        "kind": 1,
        "flags": 0,
        "priority": 0,
        "debtor": 2,
        "creditor": 3,
        "asset": 0,
        "due_ms": 0,
        "amount_units": 5,
        "trade_ref_hash": hashlib.sha256(b"a1").digest(),
        "compliance_ref_hash": bytes(32),
    }


def test_unknown_columns_are_ignored_and_named() -> None:
    file = read(b"id,debtor,creditor,asset,amount,Book,\na1,p01,p02,BTC,5,desk 3,\n")
    assert file.ignored_columns == ("Book", "")


def test_due_and_reference_reach_the_record() -> None:
    data = (
        b"id,debtor,creditor,asset,amount,due,reference\n"
        b"a1,p01,p02,ETH,340282366920938463463374607431768211455,2027-01-31,INV 7\n"
        b"a2,p02,p01,BTC,1,1800000000000,\n"
    )
    file = read(data)
    first, second = (LAYOUT.decode(file.records()[i : i + ITEM_BYTES]) for i in (0, ITEM_BYTES))
    assert first["amount_units"] == AMOUNT_MAX
    assert first["due_ms"] == 1_801_439_999_999
    assert first["trade_ref_hash"] == hashlib.sha256(b"INV 7").digest()
    assert second["due_ms"] == 1_800_000_000_000
    assert second["trade_ref_hash"] == hashlib.sha256(b"a2").digest()
    assert file.records([1]) == file.records()[ITEM_BYTES:]


def test_the_place_in_the_payers_queue_reaches_the_record() -> None:
    file = read(RANKED + b"a1,p01,p02,BTC,5,255\na2,p01,p02,BTC,5, 7\na3,p01,p02,BTC,5,\n")
    assert [int(item["priority"]) for item in items_view(file.records())] == [255, 7, 0]
    assert [int(item["priority"]) for item in items_view(file.records([1]))] == [7]


@pytest.mark.parametrize(
    ("text", "due_ms"),
    [
        ("1800000000000", 1_800_000_000_000),
        ("1970-01-02", 2 * 86_400_000 - 1),
        ("2027-01-15T08:00:00Z", 1_800_000_000_000),
        ("2027-01-15T08:00:00", 1_800_000_000_000),
        ("2027-01-15T09:00:00+01:00", 1_800_000_000_000),
        ("2027-01-15 08:00:00.250Z", 1_800_000_000_250),
        ("1969-12-30", None),
        ("9999-12-31", 253_402_300_799_999),
        ("2027-02-30", None),
        ("31.01.2027", None),
        ("99999999999999999999", None),
        ("9" * 19, None),
        ("12", None),
        ("-5", None),
        ("٣٣٣٣٣٣٣٣٣٣", None),
    ],
)
def test_due_times(text: str, due_ms: int | None) -> None:
    assert parse_due_ms(text) == due_ms


def test_an_empty_file_with_a_header_has_no_rows() -> None:
    file = read(HEADER)
    assert len(file) == 0
    assert file.records() == b""


def test_every_fault_has_a_remedy_that_is_a_sentence() -> None:
    assert all(text.endswith(".") for text in REMEDIES_OF_FILES.values())


ROWS = st.lists(
    st.tuples(
        st.sampled_from([("p01", "p02"), ("p02", "p03"), ("p03", "p01")]),
        st.sampled_from(["BTC", "ETH"]),
        st.integers(1, AMOUNT_MAX),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30),
    ),
    max_size=30,
)


@given(rows=ROWS, order=st.permutations((*REQUIRED, *OPTIONAL)), crlf=st.booleans())
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[tuple[tuple[str, str], str, int, str]], order: list[str], *, crlf: bool
) -> None:
    out = io.StringIO()
    ending = "\r\n" if crlf else "\n"
    writer = csv.DictWriter(out, order, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for number, ((debtor, creditor), asset, amount, reference) in enumerate(rows):
        writer.writerow(
            {
                "id": f"x{number}",
                "debtor": debtor,
                "creditor": creditor,
                "asset": asset,
                "amount": amount,
                "due": "",
                "reference": reference,
            }
        )
    file = read(out.getvalue().encode())
    assert file.amounts == [amount for _, _, amount, _ in rows]
    assert file.references == [text.strip() or f"x{i}" for i, (_, _, _, text) in enumerate(rows)]
    if rows:
        records = items_view(file.records())
        assert [int(r["amount_lo"]) | int(r["amount_hi"]) << 64 for r in records] == file.amounts


@given(data=st.binary(max_size=400), after_header=st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, *, after_header: bool) -> None:
    refused = ()
    try:
        read(HEADER + data if after_header else data)
    except WrongUseError as error:
        refused = (error,)
    assert all(error.details and error.total for error in refused)
