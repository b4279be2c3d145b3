"""Wide integers against Python's own."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide

EDGES = [
    edge
    for power in (31, 32, 63, 64, 127, 128, 191)
    for edge in (2**power - 1, 2**power, -(2**power), -(2**power) - 1)
    if wide.MIN <= edge <= wide.MAX
]
NUMBERS = st.integers(wide.MIN, wide.MAX) | st.integers(-3, 3) | st.sampled_from(EDGES)
LISTS = st.lists(NUMBERS, max_size=8)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8)


def wrapped(value: int) -> int:
    return (value - wide.MIN) % 2**192 + wide.MIN


def sign(value: int) -> int:
    return (value > 0) - (value < 0)


@given(LISTS)
def test_every_integer_of_192_bits_comes_back(values: list[int]) -> None:
    array = wide.from_ints(values)
    assert array.shape == (len(values), 3)
    assert wide.to_ints(array) == values
    assert wide.to_ints(wide.from_bytes(wide.to_bytes(array))) == values
    assert wide.sign(array).tolist() == [sign(value) for value in values]
    assert wide.total(array) == sum(values)
    assert wide.fits_int64(array).tolist() == [-(2**63) <= value < 2**63 for value in values]


@given(PAIRS)
def test_addition_subtraction_and_negation_are_modulo_2_to_the_192(
    pairs: list[tuple[int, int]],
) -> None:
    left, right = (wide.from_ints(side) for side in zip(*pairs, strict=True))
    for function, ours in ((operator.add, wide.add), (operator.sub, wide.subtract)):
        assert wide.to_ints(ours(left, right)) == [wrapped(function(a, b)) for a, b in pairs]
    assert wide.to_ints(wide.negate(left)) == [wrapped(-a) for a, _ in pairs]


@given(PAIRS)
def test_order_is_that_of_the_integers(pairs: list[tuple[int, int]]) -> None:
    left, right = (wide.from_ints(side) for side in zip(*pairs, strict=True))
    assert wide.compare(left, right).tolist() == [sign(a - b) for a, b in pairs]
    assert wide.compare(left, right[:1]).tolist() == [sign(a - pairs[0][1]) for a, _ in pairs]


def test_canonical_bytes_are_little_endian_twos_complement() -> None:
    written = wide.to_bytes(wide.from_ints([1, -1, 2**64]))
    assert written == b"\x01" + bytes(23) + b"\xff" * 24 + bytes(8) + b"\x01" + bytes(15)
    with pytest.raises(ValueError, match="cannot reshape"):
        wide.from_bytes(bytes(8))


@pytest.mark.parametrize("value", [wide.MAX + 1, wide.MIN - 1])
def test_what_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        wide.from_ints([value])


@pytest.mark.parametrize("limbs", [1, 2, 3])
def test_fewer_limbs_widen_by_their_sign(limbs: int) -> None:
    values = [0, 1, -1, 2 ** (64 * limbs - 1) - 1, -(2 ** (64 * limbs - 1))]
    assert wide.to_ints(wide.extend(wide.from_ints(values)[:, :limbs])) == values


@given(st.lists(st.integers(0, 2**128 - 1), max_size=8))
def test_amounts_split_and_join(amounts: list[int]) -> None:
    lo, hi = wide.split_amounts(amounts)
    assert (hi is None) == all(amount < 2**64 for amount in amounts)
    assert wide.join_amounts(lo, hi) == amounts
    assert wide.to_ints(wide.from_places(wide.to_places(lo, hi))) == amounts


@pytest.mark.parametrize("amount", [-1, 2**128])
def test_no_amount_is_split_that_is_none(amount: int) -> None:
    with pytest.raises(OverflowError):
        wide.split_amounts([amount])


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=4, max_size=4), min_size=1))
def test_places_carry_with_their_signs(columns: list[list[int]]) -> None:
    expected = [sum(word << (32 * place) for place, word in enumerate(words)) for words in columns]
    assert wide.to_ints(wide.from_places(np.array(columns, np.int64).T.copy())) == expected
