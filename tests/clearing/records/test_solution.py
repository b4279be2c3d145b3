"""Bytes of set-off solutions: one form each, and hostile ones refused as malformed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.netting import wide
from clearing.netting.pairs import PairTotals
from clearing.records.solution import LAYOUT, PAIR_LAYOUT, POTENTIAL_LAYOUT, Solution

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(1, 2**191 - 1),
    max_size=6,
)
POTENTIALS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6)


def solution(pairs: dict[tuple[int, int], int], potentials: list[int]) -> Solution:
    ordered = sorted(pairs)
    totals = PairTotals(
        np.array([debtor for debtor, _ in ordered], np.uint32),
        np.array([creditor for _, creditor in ordered], np.uint32),
        wide.from_ints([pairs[pair] for pair in ordered]),
    )
    return Solution.of(7, 3, totals, np.array(potentials, np.int64))


@given(pairs=PAIRS, potentials=POTENTIALS)
def test_a_solution_reads_back_and_has_one_form(
    pairs: dict[tuple[int, int], int], potentials: list[int]
) -> None:
    data = solution(pairs, potentials).encode()
    again = Solution.decode(data)
    assert again.encode() == data
    assert (again.cycle, again.asset) == (7, 3)
    assert wide.to_ints(again.pairs.amount) == [pairs[pair] for pair in sorted(pairs)]
    assert again.all_potentials(len(potentials)).tolist() == potentials
    holders = sum(one != 0 for one in potentials)
    assert len(data) == LAYOUT.width + 32 * len(pairs) + 12 * holders
    assert (PAIR_LAYOUT.width, POTENTIAL_LAYOUT.width) == (32, 12)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_solution_of_that_form_or_refused(data: bytes) -> None:
    try:
        found = Solution.decode(data)
    except DecodeError:
        return
    assert found.encode() == data


@given(pairs=PAIRS, potentials=POTENTIALS, data=st.data())
def test_a_cut_or_lengthened_solution_is_refused(
    pairs: dict[tuple[int, int], int], potentials: list[int], data: st.DataObject
) -> None:
    whole = solution(pairs, potentials).encode()
    for wrong in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(DecodeError):
            Solution.decode(wrong)


def raw(pairs: list[tuple[int, int, int]], potentials: list[tuple[int, int]]) -> bytes:
    head = LAYOUT.encode(cycle=1, asset=0, pairs=len(pairs), potentials=len(potentials))
    told = b"".join(
        PAIR_LAYOUT.encode(debtor=debtor, creditor=creditor, amount_units=amount)
        for debtor, creditor, amount in pairs
    )
    held = b"".join(
        POTENTIAL_LAYOUT.encode(participant=participant, potential=value)
        for participant, value in potentials
    )
    return head + told + held


@pytest.mark.parametrize(
    ("pairs", "potentials"),
    [
        ([(1, 2, 5), (1, 2, 5)], []),
        ([(2, 1, 5), (1, 2, 5)], []),
        ([(1, 3, 5), (1, 2, 5)], []),
        ([(1, 2, 0)], []),
        ([(1, 2, 1 << 191)], []),
        ([(1, 2, (1 << 192) - 1)], []),
        ([], [(4, 0)]),
        ([], [(4, 1), (4, 1)]),
        ([], [(4, 1), (3, 1)]),
    ],
)
def test_what_is_out_of_order_twice_or_nothing_is_refused(
    pairs: list[tuple[int, int, int]], potentials: list[tuple[int, int]]
) -> None:
    with pytest.raises(DecodeError):
        Solution.decode(raw(pairs, potentials))


def test_counts_far_beyond_the_bytes_are_refused_before_anything_is_made() -> None:
    for pairs, potentials in ((2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1)):
        head = LAYOUT.encode(cycle=1, asset=0, pairs=pairs, potentials=potentials)
        with pytest.raises(DecodeError):
            Solution.decode(head)


def test_a_potential_of_somebody_who_is_not_registered_is_refused() -> None:
    found = Solution.decode(raw([], [(4, -9)]))
    assert found.all_potentials(5).tolist() == [0, 0, 0, 0, -9]
    with pytest.raises(DecodeError, match="not registered"):
        found.all_potentials(4)
