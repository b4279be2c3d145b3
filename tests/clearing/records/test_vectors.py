"""Every record has the pinned bytes, and no other bytes parse as it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from tests.clearing.records.vectors import PARSERS, RECORDS, REENCODERS, Record

every_record = pytest.mark.parametrize(
    "record", RECORDS, ids=lambda record: f"{record.record}: {record.case}"
)


def test_every_parser_has_a_vector() -> None:
    assert {record.record for record in RECORDS} == set(REENCODERS)


@every_record
def test_a_vector_is_its_fields_one_after_the_other(record: Record) -> None:
    assert record.naive_bytes() == record.data


@every_record
def test_a_vector_parses_and_encodes_to_itself(record: Record) -> None:
    assert REENCODERS[record.record](record.data) == record.data


@pytest.mark.parametrize(
    "record", [r for r in RECORDS if r.record in PARSERS], ids=lambda r: r.case
)
def test_parsed_values_are_those_of_the_fields(record: Record) -> None:
    parsed = PARSERS[record.record](record.data)
    values = {
        name: value
        for name, value in record.values().items()
        if name not in ("version", "kind", "has_cap") or hasattr(type(parsed), name)
    }
    if values.get("cap") == 0 and not record.values()["has_cap"]:
        values["cap"] = None
    assert {name: getattr(parsed, name) for name in values} == values


@every_record
def test_a_vector_cut_short_or_continued_is_refused(record: Record) -> None:
    # Actions are a list without a count: whole actions less or more are another list.
    lists = [r.data for r in RECORDS if r.record == "actions"] if record.record == "actions" else []
    wrong = [record.data[:length] for length in range(len(record.data))]
    wrong += [record.data + more for more in (b"\0", b"\1", record.data[:1], record.data[:-1])]
    for data in wrong:
        if data not in lists:
            with pytest.raises(DecodeError):
                REENCODERS[record.record](data)


@every_record
def test_reserved_bytes_must_be_zero(record: Record) -> None:
    for offset in record.zero_offsets():
        for bit in (0x01, 0x80):
            changed = bytearray(record.data)
            changed[offset] ^= bit
            with pytest.raises(DecodeError):
                REENCODERS[record.record](bytes(changed))


@given(st.sampled_from(RECORDS), st.data())
def test_changed_bytes_are_refused_or_are_the_bytes_of_another_value(
    record: Record, data: st.DataObject
) -> None:
    changed = bytearray(record.data)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = REENCODERS[record.record](bytes(changed))
    except DecodeError:
        return
    assert again == changed


@given(st.sampled_from(sorted(REENCODERS)), st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_come_back(name: str, data: bytes) -> None:
    try:
        again = REENCODERS[name](data)
    except DecodeError:
        return
    assert again == data
