"""Files of liquidity and caps: one row a fault, zero allowed, each participant once for each asset."""

from __future__ import annotations

import pytest

from clearing.types import AMOUNT_MAX
from node.csv_file import FaultyFileError
from node.netting.limits_file import REMEDIES_OF_LIMITS, read_limits

HEADER = b"participant,asset,amount\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'""', (1, "", "NO_HEADER")),
        (b"participant,amount\n", (1, "asset", "MISSING_COLUMN")),
        (b"participant,asset,amount,asset\n", (1, "asset", "DUPLICATE_COLUMN")),
        (b"participant;asset;amount\n", (1, "", "DELIMITER")),
        (HEADER + b"a,BTC\n", (2, "", "FIELD_COUNT")),
        (HEADER + b"a,BTC,1,2\n", (2, "", "FIELD_COUNT")),
        (HEADER + b" ,BTC,1\n", (2, "participant", "EMPTY_FIELD")),
        (HEADER + b"a,,1\n", (2, "asset", "EMPTY_FIELD")),
        (HEADER + b"a,BTC,\n", (2, "amount", "EMPTY_FIELD")),
        (HEADER + b"a,BTC,-1\n", (2, "amount", "AMOUNT_SIGN")),
        (HEADER + b"a,BTC,1.0\n", (2, "amount", "NOT_AN_INTEGER")),
        (HEADER + b"a,BTC,%d\n" % (AMOUNT_MAX + 1), (2, "amount", "AMOUNT_TOO_LARGE")),
        (HEADER + b"a,BTC,1\nb,BTC,1\na,BTC,1\n", (4, "participant", "DUPLICATE_ROW")),
        (HEADER + b'a,BTC,"1\n', (2, "", "NOT_CSV")),
        (HEADER + b"a\xff,BTC,1\n", (2, "", "NOT_UTF8")),
    ],
)
def test_each_fault_names_line_column_and_code(data: bytes, expected: tuple[int, str, str]) -> None:
    with pytest.raises(FaultyFileError) as caught:
        read_limits(data)
    rows = [(row["line"], row["column"], row["code"]) for row in caught.value.rows]
    assert rows == [expected]
    assert all(row["remedy"] == REMEDIES_OF_LIMITS[row["code"]] for row in caught.value.rows)


def test_amounts_by_asset_and_participant_zero_and_the_greatest_included() -> None:
    data = (
        b"\xef\xbb\xbfAmount,note,ASSET,participant\r\n0,x,BTC,a\r\n%d,,ETH,a\r\n7,, BTC ,b"
        % AMOUNT_MAX
    )
    table = read_limits(data)
    assert table.of("BTC") == {"a": 0, "b": 7}
    assert table.of("ETH") == {"a": AMOUNT_MAX}
    assert table.of("XRP") == {}
    assert table.ignored == ("note",)


@pytest.mark.parametrize("data", [b"", b" \r\n", b"\xef\xbb\xbf", HEADER])
def test_a_file_without_rows_is_valid(data: bytes) -> None:
    assert read_limits(data).amounts == {}


def test_names_that_occur_nowhere_else_are_told() -> None:
    table = read_limits(HEADER + b"a,BTC,1\nz,BTC,1\na,DOGE,1\n")
    assert table.strangers(["a", "b"], ["BTC", "ETH"]) == ["DOGE", "z"]
    assert read_limits(HEADER).strangers([], []) == []
