"""Results of netting one asset: against plain sums at every width, and what a result commits to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.log import merkle
from clearing.netting.columns import AssetColumns
from clearing.rules import results
from clearing.rules.results import (
    AssetResult,
    ResultRow,
    cycle_secret,
    result_commitments,
    result_rows,
)
from clearing.types import AMOUNT_MAX, NettingMethod
from tests.clearing.records.vectors import VECTORS

HASHES = VECTORS["hashes"]
EDGES = [1, 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64]
EDGES += [(1 << 96) - 1, 1 << 96, (1 << 127) - 1, 1 << 127, AMOUNT_MAX]
AMOUNT = st.one_of(st.integers(1, AMOUNT_MAX), st.sampled_from(EDGES))
PARTICIPANTS = 9
OBLIGATION = st.tuples(
    st.integers(0, PARTICIPANTS - 1), st.integers(1, PARTICIPANTS - 1), AMOUNT
).map(lambda row: (row[0], (row[0] + row[1]) % PARTICIPANTS, row[2]))


def _columns(rows: list[tuple[int, int, int]]) -> AssetColumns:
    debtors, creditors, amounts = zip(*rows, strict=True)
    return AssetColumns.of(debtors, creditors, amounts)


def _naive_rows(rows: list[tuple[int, int, int]]) -> tuple[ResultRow, ...]:
    debits, credits_ = dict.fromkeys(range(PARTICIPANTS), 0), dict.fromkeys(range(PARTICIPANTS), 0)
    for debtor, creditor, amount in rows:
        debits[debtor] += amount
        credits_[creditor] += amount
    return tuple(
        ResultRow(at, debits[at], credits_[at])
        for at in range(PARTICIPANTS)
        if debits[at] or credits_[at]
    )


@given(st.lists(OBLIGATION, min_size=1, max_size=40))
def test_both_paths_give_the_plain_sums(rows: list[tuple[int, int, int]]) -> None:
    columns, naive = _columns(rows), _naive_rows(rows)
    assert result_rows(columns, PARTICIPANTS) == naive
    assert results._summed_rows(columns) == naive
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "KERNEL_ROWS_MIN", 0)
        assert result_rows(columns, PARTICIPANTS) == naive


@given(st.lists(OBLIGATION, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_nets_sum_to_zero_and_the_order_of_rows_is_irrelevant(rows, random) -> None:
    result = result_rows(_columns(rows), PARTICIPANTS)
    assert sum(row.net for row in result) == 0
    shuffled = random.sample(rows, len(rows))
    assert result_rows(_columns(shuffled), PARTICIPANTS) == result
    whole = AssetResult(0, NettingMethod.POSITIONS, len(rows), result)
    assert whole.gross == sum(amount for _, _, amount in rows)
    assert whole.net == sum(abs(row.net) for row in result) // 2


@pytest.mark.parametrize("amount", [1, (1 << 64) - 1, AMOUNT_MAX])
@pytest.mark.parametrize("rows", [results.KERNEL_ROWS_MIN - 1, results.KERNEL_ROWS_MIN])
def test_the_paths_agree_where_one_gives_way_to_the_other(rows: int, amount: int) -> None:
    pairs = itertools.islice(itertools.cycle(itertools.permutations(range(PARTICIPANTS), 2)), rows)
    table = [(debtor, creditor, amount) for debtor, creditor in pairs]
    assert result_rows(_columns(table), PARTICIPANTS) == _naive_rows(table)


def test_sums_beyond_128_bits_are_exact() -> None:
    rows = 70_000
    greatest = np.full(rows, np.uint64((1 << 64) - 1))
    columns = AssetColumns(np.zeros(rows, np.uint32), np.ones(rows, np.uint32), greatest, greatest)
    total = rows * AMOUNT_MAX
    assert total > 1 << 143
    assert result_rows(columns, 2) == (ResultRow(0, total, 0), ResultRow(1, 0, total))


def test_an_asset_result_carries_sums_to_191_bits() -> None:
    row = ResultRow(3, (1 << 192) - 1, (1 << 191) + 5, 1 << 191, 3)
    result = AssetResult(1, NettingMethod.POSITIONS, 1 << 40, (row,))
    assert AssetResult.decode(result.encode()) == result
    assert len(result.encode()) == 24 + 100


def test_an_unknown_method_or_outcome_is_refused() -> None:
    result = bytearray(AssetResult(1, NettingMethod.POSITIONS, 0, ()).encode())
    result[2] = 4
    with pytest.raises(DecodeError):
        AssetResult.decode(bytes(result))
    result[2:4] = b"\1\4"
    with pytest.raises(DecodeError):
        AssetResult.decode(bytes(result))


def test_a_cycle_s_secret_is_the_pinned_hash_over_its_submissions() -> None:
    pinned = HASHES["cycle_secret"]
    secrets = [bytes.fromhex(secret) for secret in pinned["submission_secrets"]]
    assert cycle_secret(pinned["cycle"], secrets).hex() == pinned["secret"]
    assert cycle_secret(pinned["cycle"], secrets[::-1]).hex() != pinned["secret"]
    assert cycle_secret(pinned["cycle"] + 1, secrets).hex() != pinned["secret"]


def test_a_result_commits_to_each_row_with_a_salt_of_its_own() -> None:
    pinned = HASHES["result_root"]
    by_asset: dict[int, list[ResultRow]] = {}
    for row in pinned["rows"]:
        amounts = (int(row[name]) for name in ("debit", "credit", "kept_debit", "kept_credit"))
        values = ResultRow(row["participant"], *amounts)
        by_asset.setdefault(row["asset"], []).append(values)
    made = result_commitments(
        bytes.fromhex(HASHES["cycle_secret"]["secret"]),
        [AssetResult(at, NettingMethod.POSITIONS, 0, tuple(rows)) for at, rows in by_asset.items()],
    )
    assert made.hex() == "".join(pinned["commitments"])
    assert merkle.root_of(made).hex() == pinned["root"]
