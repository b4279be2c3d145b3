"""The parameters record, and the limits that other formats rest on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing import params
from clearing.errors import DecodeError
from clearing.params import Parameters
from clearing.records.instruction import RANGE_LAYOUT, SELECTION_LAYOUT
from clearing.records.obligation import ITEM_BYTES
from clearing.types import AMOUNT_MAX

U64_MAX = (1 << 64) - 1


def test_the_defaults_are_two_governors_a_week_and_a_day() -> None:
    assert Parameters().encode().hex() == (
        "020000000000400000840c2400000000005c260500000000c027090000000000"
    )
    assert Parameters().proposal_lifetime_ms == 7 * 24 * 60 * 60 * 1000
    assert Parameters().settlement_timeout_ms == 24 * 60 * 60 * 1000
    assert Parameters().solution_timeout_ms == 10 * 60 * 1000
    assert Parameters().submitter_open_items == 4_194_304


@given(
    st.integers(1, 255),
    st.tuples(*[st.integers(1, U64_MAX)] * 3),
    st.integers(1, params.OPEN_ITEMS_MAX // 2),
)
def test_parameters_come_back(quorum: int, spans_ms: tuple[int, int, int], items: int) -> None:
    parameters = Parameters(quorum, *spans_ms, items)
    assert len(parameters.encode()) == Parameters.WIDTH == 32
    assert Parameters.decode(parameters.encode()) == parameters


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (Parameters(governance_quorum=0), "governance_quorum must be at least 1"),
        (Parameters(proposal_lifetime_ms=0), "must be above 0"),
        (Parameters(settlement_timeout_ms=0), "must be above 0"),
        (Parameters(solution_timeout_ms=0), "must be above 0"),
        (Parameters(submitter_open_items=0), "must be 1 to 33554432"),
        (Parameters(submitter_open_items=(1 << 25) + 1), "must be 1 to 33554432"),
    ],
)
def test_a_parameter_that_would_disable_a_rule_is_refused(changed: Parameters, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        Parameters.decode(changed.encode())


def test_other_bytes_are_refused() -> None:
    good = Parameters().encode()
    for data in (b"", good[:-1], good + b"\0", good[:1] + b"\1" + good[2:]):
        with pytest.raises(DecodeError):
            Parameters.decode(data)


def test_the_limits_of_the_formats_fit_each_other() -> None:
    # a selection with the most ranges is a payload that is accepted
    largest = SELECTION_LAYOUT.width + params.RANGES_PER_INSTRUCTION_MAX * RANGE_LAYOUT.width
    assert largest <= params.PAYLOAD_BYTES_MAX < params.LEAF_BYTES_MAX
    # the largest submission is below the 16 MiB that a gRPC message is given
    assert params.ITEMS_PER_SUBMISSION_MAX * ITEM_BYTES < 16 << 20
    # the greatest sum of a full book is below 2^191, what a position and a result row can hold
    assert params.OPEN_ITEMS_MAX * AMOUNT_MAX < 1 << 191
    # nobody fills the book alone, and by default not sixteen together
    assert Parameters().submitter_open_items * 16 <= params.OPEN_ITEMS_MAX
    assert params.SUBMITTER_OPEN_ITEMS_MAX * 2 <= params.OPEN_ITEMS_MAX
    # registry numbers fit their fields: u32 and u16
    assert params.PARTICIPANTS_MAX <= 1 << 32
    assert params.ASSETS_MAX <= 1 << 16
