"""Obligations asset by asset: every row once, in file order, with the participants of that asset alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.netting.obligation_file import read_cells
from node.netting.table import by_asset

parties = st.integers(0, 40)
rows = st.lists(
    st.tuples(parties, parties, st.integers(0, 3), st.integers(1, 2**128 - 1)).filter(
        lambda row: row[0] != row[1]
    )
)


@given(rows)
def test_each_asset_has_its_rows_and_its_participants(
    given_rows: list[tuple[int, int, int, int]],
) -> None:
    lines = [f"i{n},p{d},p{c},a{a},{x}" for n, (d, c, a, x) in enumerate(given_rows)]
    table = read_cells("\n".join(["id,debtor,creditor,asset,amount", *lines]).encode())
    seen = []
    for part in by_asset(table):
        names = [table.parties[number] for number in part.parties]
        assert names == sorted(set(names))
        assert len(names) == part.participants
        assert part.rows.tolist() == sorted(part.rows.tolist())
        debtors, creditors = part.columns.debtor.tolist(), part.columns.creditor.tolist()
        assert set(debtors) | set(creditors) == set(range(part.participants))
        amounts = part.columns.amounts()
        for row, debtor, creditor, amount in zip(
            part.rows, debtors, creditors, amounts, strict=True
        ):
            seen.append((row, f"i{row},{names[debtor]},{names[creditor]},{part.name},{amount}"))
    assert [line for _, line in sorted(seen)] == lines
