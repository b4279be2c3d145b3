"""Bytes of set-off solutions: one form each, and hostile ones refused as malformed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.netting import wide
from clearing.netting.pairs import PairTotals
from clearing.params import SOLUTION_BYTES_MAX
from clearing.records.solution import LAYOUT, Solution

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1)),
    st.just(0) | st.integers(1, 2**191 - 1),
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
    held = [(place, value) for place, value in enumerate(potentials) if value]
    assert data == raw([(*pair, pairs[pair]) for pair in sorted(pairs)], held, (7, 3))


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


def leb(value: int) -> bytes:
    """Return a number in seven bits a byte, the slow way."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + leb(value >> 7)


def raw(
    pairs: list[tuple[int, int, int]],
    potentials: list[tuple[int, int]],
    subject: tuple[int, int] = (1, 0),
) -> bytes:
    """Return the bytes by the description, number by number; what does not ascend steps by 2^64 less."""
    cycle, asset = subject
    data = LAYOUT.encode(cycle=cycle, asset=asset, pairs=len(pairs), potentials=len(potentials))
    before = -1
    for debtor, creditor, amount in pairs:
        key = debtor << 20 | creditor
        data += leb(((key - before - 1) << 1 | (amount != 0)) % 2**64)
        before = key
    for limb in range(3):
        data += b"".join(leb(amount >> 64 * limb & 2**64 - 1) for *_, amount in pairs if amount)
    before = -1
    for participant, _ in potentials:
        data += leb((participant - before - 1) % 2**64)
        before = participant
    return data + b"".join(leb(2 * q if q >= 0 else -2 * q - 1) for _, q in potentials)


@pytest.mark.parametrize(
    ("pairs", "potentials"),
    [
        ([(1, 2, 5), (1, 2, 5)], []),
        ([(2, 1, 5), (1, 2, 5)], []),
        ([(1, 3, 5), (1, 2, 5)], []),
        ([(1 << 20, 2, 0)], []),
        ([(1, 2, 1 << 191)], []),
        ([(1, 2, (1 << 192) - 1)], []),
        ([], [(4, 0)]),
        ([], [(4, 1), (4, 1)]),
        ([], [(4, 1), (3, 1)]),
        ([], [(1 << 20, 1)]),
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


def test_a_part_of_nothing_is_refused() -> None:
    head = LAYOUT.encode(cycle=1, asset=0, pairs=1, potentials=0)
    part = leb((1 << 20 | 2) << 1 | 1)
    assert Solution.decode(head + part + b"\1\0\0").pairs.amount.tolist() == [[1, 0, 0]]
    with pytest.raises(DecodeError, match="parts of nothing"):
        Solution.decode(head + part + b"\0\0\0")


@pytest.mark.parametrize("number", [b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x00"])
def test_a_number_has_one_form_and_fits_64_bits(number: bytes) -> None:
    head = LAYOUT.encode(cycle=1, asset=0, pairs=1, potentials=0)
    with pytest.raises(DecodeError):
        Solution.decode(head + number)


def test_a_million_pairs_fit_a_payload_and_200_000_a_transaction_of_half_a_megabyte() -> None:
    """Everybody owes everybody, each loses a part to one and all to the others: what an optimal basis looks like."""
    for participants, most in ((1_001, SOLUTION_BYTES_MAX), (448, 512 << 10)):
        debtor, creditor = np.nonzero(~np.eye(participants, dtype=np.bool_))
        amount = wide.zeros(len(debtor))
        amount[:: participants - 1, 0] = 2**60
        pairs = PairTotals(debtor.astype(np.uint32), creditor.astype(np.uint32), amount)
        potentials = np.arange(1, participants + 1) << 40
        told = Solution.of(1, 0, pairs, potentials)
        assert len(debtor) >= 200_000
        data = told.encode()
        assert len(data) < most // 2
        again = Solution.decode(data)
        assert np.array_equal(again.pairs.keys, pairs.keys)
        assert np.array_equal(again.pairs.amount, amount)
