"""A counterparty sees its own items and nothing else, and can prove both against the signed leaf."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.redacted import HEADER_LAYOUT, OPENING_LAYOUT, RedactedSubmission
from clearing.records.submission import Submission
from tests.ledger_kit import P01, P02, P03, Net, item

NET = Net()


def submission(*creditors: int) -> Submission:
    records = [item(P01, creditor, 10 + place) for place, creditor in enumerate(creditors)]
    return NET.submission(P01, *records)


MIXED = submission(P02, P03, P02, P03, P03)


@given(st.lists(st.sampled_from((P02, P03)), min_size=1, max_size=20))
def test_own_items_are_opened_and_no_others(creditors: list[int]) -> None:
    whole = submission(*creditors)
    redacted = RedactedSubmission.of(whole, P02)
    assert [number for number, _ in redacted.openings] == [
        number for number, creditor in enumerate(creditors) if creditor == P02
    ]
    for number, opening in redacted.openings:
        assert opening[16:] == bytes(whole.records[102 * number : 102 * (number + 1)])
        commitment = hashlib.sha256(b"\0" + opening).digest()
        assert redacted.commitments[32 * number : 32 * (number + 1)] == commitment
    redacted.verify(Submission.of_leaf(whole.leaf))
    assert RedactedSubmission.decode(redacted.encode()) == redacted


def test_the_submitter_is_a_party_of_every_item() -> None:
    assert len(RedactedSubmission.of(MIXED, P01).openings) == 5


def test_given_commitments_are_taken_and_nothing_of_the_others_is_in_the_bytes() -> None:
    made = RedactedSubmission.of(MIXED, P02)
    assert RedactedSubmission.of(MIXED, P02, made.commitments) == made
    data = made.encode()
    assert MIXED.secret not in data
    for number in (1, 3, 4):
        assert bytes(MIXED.records[102 * number : 102 * (number + 1)]) not in data


def test_the_layout_is_header_commitments_openings() -> None:
    made = RedactedSubmission.of(MIXED, P02)
    data = made.encode()
    assert data[:16] == bytes.fromhex("01000000050000000200000000000000")
    assert data[16 : 16 + 160] == made.commitments
    assert data[176:] == b"".join(
        number.to_bytes(4, "little") + opening for number, opening in made.openings
    )
    assert (HEADER_LAYOUT.width, OPENING_LAYOUT.width) == (16, 122)


def test_any_other_count_commitment_or_opening_is_refused() -> None:
    made = RedactedSubmission.of(MIXED, P02)
    leaf = Submission.of_leaf(MIXED.leaf)
    with pytest.raises(VerificationError, match="5 items"):
        RedactedSubmission(made.commitments[:-32], ()).verify(leaf)
    for byte in range(0, len(made.commitments), 17):
        altered = bytearray(made.commitments)
        altered[byte] ^= 1
        with pytest.raises(VerificationError, match="commitment root"):
            dataclasses.replace(made, commitments=bytes(altered)).verify(leaf)
    for place, (number, opening) in enumerate(made.openings):
        for byte in (0, 15, 16, len(opening) - 1):
            changed = bytearray(opening)
            changed[byte] ^= 1
            openings = list(made.openings)
            openings[place] = (number, bytes(changed))
            with pytest.raises(VerificationError, match=f"item {number} "):
                dataclasses.replace(made, openings=tuple(openings)).verify(leaf)


def test_an_opening_counts_for_its_own_item_only() -> None:
    made = RedactedSubmission.of(MIXED, P02)
    swapped = tuple(zip((0, 2), (made.openings[1][1], made.openings[0][1]), strict=True))
    with pytest.raises(VerificationError, match="item 0 "):
        dataclasses.replace(made, openings=swapped).verify(MIXED)


def test_bytes_that_are_not_canonical_are_refused() -> None:
    made = RedactedSubmission.of(MIXED, P02)
    data = made.encode()
    for cut in (0, 15, 16, 17, len(data) - 1):
        with pytest.raises(DecodeError):
            RedactedSubmission.decode(data[:cut])
    with pytest.raises(DecodeError, match="opened items"):
        RedactedSubmission.decode(data + b"\0")
    with pytest.raises(DecodeError, match="version"):
        RedactedSubmission.decode(b"\2" + data[1:])
    with pytest.raises(DecodeError, match="reserved"):
        RedactedSubmission.decode(data[:1] + b"\1" + data[2:])
    for count in (0, ITEMS_PER_SUBMISSION_MAX + 1):
        header = HEADER_LAYOUT.encode(version=1, count=count, openings=0)
        with pytest.raises(DecodeError, match="1 to"):
            RedactedSubmission.decode(header)
    for numbers in ((2, 0), (0, 0), (0, 5)):
        openings = tuple(
            (number, opening) for number, (_, opening) in zip(numbers, made.openings, strict=True)
        )
        with pytest.raises(DecodeError, match="ascend"):
            RedactedSubmission.decode(dataclasses.replace(made, openings=openings).encode())
