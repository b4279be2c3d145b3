"""The set in force moves towards the set wanted and never through a guard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, RejectCode
from clearing.rules.validators import (
    VALIDATORS_MIN,
    Validator,
    Validators,
    changed_power,
    decode_validators,
    encode_validators,
    next_set,
    refusal,
    total_power,
    with_validator,
    without,
)


def validator(number: int, power: int = 10, key: int = 0) -> Validator:
    return Validator(number, power, number.to_bytes(16, "big") + key.to_bytes(16, "big"))


def equal(*numbers: int) -> Validators:
    return tuple(map(validator, numbers))


def sets(least: int = 0) -> st.SearchStrategy[Validators]:
    members = st.builds(validator, st.integers(0, 9), st.integers(1, 30), st.integers(0, 2))
    return st.lists(members, min_size=least, max_size=8, unique_by=lambda v: v.participant).map(
        lambda made: tuple(sorted(made, key=lambda v: v.participant))
    )


def strongest(validators: Validators) -> tuple[int, int]:
    return max((v.power for v in validators), default=0), total_power(validators)


@given(sets(VALIDATORS_MIN), sets())
def test_no_step_breaks_a_guard(in_force: Validators, wanted: Validators) -> None:
    for _ in range(20):
        moved = next_set(in_force, wanted)
        assert len(moved) >= min(VALIDATORS_MIN, len(in_force))
        assert 3 * changed_power(in_force, moved) <= total_power(in_force)
        (was, before), (power, total) = strongest(in_force), strongest(moved)
        assert 3 * power < total or power * before <= was * total
        # Nobody comes whom nobody wanted, nobody wanted goes.
        numbers = {v.participant for v in wanted}
        assert {v.participant for v in moved} <= {v.participant for v in in_force} | numbers
        kept = {v.participant for v in in_force} & numbers
        assert kept <= {v.participant for v in moved}
        # The engine dies of a key that stands twice.
        assert len({v.consensus_key for v in moved}) == len(moved)
        in_force = moved


@given(st.integers(4, 8), st.integers(4, 8), st.integers(0, 10))
def test_equal_sets_of_four_or_more_reach_what_is_wanted(old: int, new: int, shift: int) -> None:
    in_force, wanted = equal(*range(old)), equal(*range(shift, shift + new))
    for _ in range(30):
        in_force = next_set(in_force, wanted)
    assert in_force == wanted


@given(sets(), sets())
def test_steps_end(in_force: Validators, wanted: Validators) -> None:
    seen = [in_force]
    for _ in range(60):
        in_force = next_set(in_force, wanted)
        if in_force == seen[-1]:
            return
        seen.append(in_force)
    raise AssertionError("the set moves for ever")


def test_the_first_set_is_taken_whole() -> None:
    assert next_set((), equal(1, 2, 3, 4)) == equal(1, 2, 3, 4)


def test_one_who_must_go_stays_until_another_has_come() -> None:
    four = equal(1, 2, 3, 4)
    assert next_set(four, equal(1, 2, 3)) == four
    five = next_set(four, equal(1, 2, 3, 5))
    assert five == equal(1, 2, 3, 4, 5)
    assert next_set(five, equal(1, 2, 3, 5)) == equal(1, 2, 3, 5)


def test_a_rotated_key_changes_at_once_and_two_do_not() -> None:
    four = equal(1, 2, 3, 4)
    one = with_validator(four, validator(2, key=1))
    assert next_set(four, one) == one
    two = with_validator(one, validator(3, key=1))
    assert next_set(four, two) == one
    assert next_set(one, two) == two


def test_a_third_of_the_power_may_change_at_once_and_no_more() -> None:
    six = equal(*range(6))
    rotated = [with_validator(six, validator(0, key=1))]
    for number in (1, 2):
        rotated.append(with_validator(rotated[-1], validator(number, key=1)))
    assert next_set(six, rotated[1]) == rotated[1]
    assert next_set(six, rotated[2]) == rotated[1]
    assert refusal(six, rotated[1]) is RejectCode.OK
    assert refusal(six, rotated[2]) is RejectCode.VALIDATORS_CHANGE_TOO_GREAT


def test_changed_power_counts_a_rotated_key_once() -> None:
    four = equal(1, 2, 3, 4)
    assert changed_power(four, with_validator(four, validator(1, 12))) == 2
    assert changed_power(four, with_validator(four, validator(1, 12, 1))) == 12
    assert changed_power(four, without(four, 1)) == 10
    assert changed_power(four, with_validator(four, validator(9, 7))) == 7
    assert changed_power(four, four) == 0


CODES = [
    (equal(1, 2, 3, 4), equal(1, 2, 3), RejectCode.VALIDATORS_TOO_FEW),
    ((), equal(1, 2, 3), RejectCode.VALIDATORS_TOO_FEW),
    (equal(1, 2, 3, 4), (), RejectCode.VALIDATORS_TOO_FEW),
    # What mends a set that is broken already is allowed.
    (equal(1, 2), equal(1, 2), RejectCode.OK),
    (equal(1, 2, 3), equal(1, 2, 3, 4), RejectCode.OK),
    (
        equal(1, 2, 3, 4),
        with_validator(equal(1, 2, 3), validator(4, 15)),
        RejectCode.VALIDATOR_TOO_STRONG,
    ),
    (equal(1, 2, 3, 4), with_validator(equal(1, 2, 3), validator(4, 14)), RejectCode.OK),
    (equal(*range(90)), equal(*range(101)), RejectCode.VALIDATORS_TOO_MANY),
    (equal(*range(90)), equal(*range(100)), RejectCode.OK),
    (equal(1, 2, 3, 4), equal(3, 4, 5, 6), RejectCode.VALIDATORS_CHANGE_TOO_GREAT),
    (equal(1, 2, 3, 4), equal(1, 2, 3, 4, 5), RejectCode.OK),
    ((), (), RejectCode.OK),
    ((), equal(1, 2, 3, 4), RejectCode.OK),
]


@pytest.mark.parametrize(("before", "after", "code"), CODES)
def test_what_governance_may_ask_for(
    before: Validators, after: Validators, code: RejectCode
) -> None:
    assert refusal(before, after) is code


@given(sets())
def test_a_set_comes_back_from_its_bytes(validators: Validators) -> None:
    assert decode_validators(encode_validators(validators)) == validators


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        encode_validators(equal(1))[:-1],
        encode_validators(equal(2)) + encode_validators(equal(1)),
        encode_validators(equal(1)) * 2,
        encode_validators(equal(1))[:8] + b"\2" + encode_validators(equal(1))[9:],
    ],
)
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_validators(data)
