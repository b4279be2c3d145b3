"""Signed headers as bytes: the same that the engine's own types write, and no others are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.consensus import light_block
from clearing.consensus.commit import FLAG_COMMIT, verify_signed_header
from clearing.consensus.validators import in_order
from clearing.errors import DecodeError
from node.sequencer.cometbft.headers import signed_header_of

VECTORS = Path(__file__).parents[2] / "vectors" / "engine_headers.json"
BLOCKS = json.loads(VECTORS.read_text())["blocks"]
BLOCK = signed_header_of(BLOCKS[-1]["signed_header"], BLOCKS[-1]["validators"])


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b["signed_header"]["header"]["height"])
def test_the_bytes_are_those_of_the_engines_own_types(block: dict[str, Any]) -> None:
    data = bytes.fromhex(block["light_block"])
    signed = signed_header_of(block["signed_header"], block["validators"])
    assert light_block.encode(signed) == data
    read = light_block.decode(data)
    assert read.header == signed.header
    assert read.validators == in_order(signed.validators)
    assert verify_signed_header(read, read.header.chain_id) in (30, 40)
    # A set may be given in any order, it is written in the engine's.
    assert light_block.encode(replace(signed, validators=signed.validators[::-1])) == data


def test_a_vote_that_was_not_for_the_block_is_written_as_absent() -> None:
    votes = list(BLOCK.commit.signatures)
    at = next(place for place, vote in enumerate(votes) if vote.flag == FLAG_COMMIT)
    votes[at] = replace(votes[at], flag=3)
    read = light_block.decode(
        light_block.encode(replace(BLOCK, commit=replace(BLOCK.commit, signatures=tuple(votes))))
    )
    assert (read.commit.signatures[at].address, read.commit.signatures[at].signature) == (b"", b"")
    assert read.commit.signatures[at + 1] == BLOCK.commit.signatures[at + 1]


def test_votes_must_be_one_for_each_validator_in_order() -> None:
    votes = BLOCK.commit.signatures
    for given_votes in (votes[1:], (*votes, votes[0]), votes[::-1], ()):
        commit = replace(BLOCK.commit, signatures=given_votes)
        with pytest.raises(DecodeError, match="votes"):
            light_block.encode(replace(BLOCK, commit=commit))
    header = replace(BLOCK.header, proposer_address=bytes(20))
    with pytest.raises(DecodeError, match="proposer"):
        light_block.encode(replace(BLOCK, header=header))


def test_no_altered_byte_is_read_as_the_same() -> None:
    data = light_block.encode(BLOCK)
    for at in range(len(data)):
        for bit in (1, 128):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                read = light_block.decode(changed)
            except DecodeError:
                continue
            assert light_block.encode(read) == changed
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            light_block.decode(data[:end])
    # Fields that are unknown, there twice, or zero: other bytes of the same message.
    for more in (b"\x18\x01", b"\x0a\x00", b"\x18\x00", data):
        with pytest.raises(DecodeError):
            light_block.decode(data + more)
    with pytest.raises(DecodeError, match="at most"):
        light_block.decode(bytes(light_block.LIGHT_BLOCK_BYTES_MAX + 1))


@given(st.binary(max_size=400))
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        light_block.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * 11,  # a number without end
        b"\xff" * 9 + b"\x7f",  # a number beyond 64 bits
        b"\x0b",  # a group
        b"\x0a\x05ab",  # ends within a field
        b"\x09\x01",  # ends within eight bytes
        b"\x08\x01",  # a number where a message belongs
        b"\x0a\x04\x0a\x02\x10\x01",  # the chain's name is a number
        b"\x0a\x05\x0a\x03\x12\x01\xff",  # the chain's name is not UTF-8
        b"\x0a\x04\x0a\x02\x1a\x00",  # the height is text
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        light_block.decode(data)
