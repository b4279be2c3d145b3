"""Headers and commits that the real engine made verify; anything changed in them does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing.consensus.commit import (
    FLAG_COMMIT,
    CommitSignature,
    Moment,
    SignedHeader,
    app_hash,
    verify_signed_header,
)
from clearing.consensus.validators import ValidatorKey, in_order, validators_hash
from clearing.errors import VerificationError
from node.sequencer.cometbft.headers import signed_header_of

VECTORS = Path(__file__).parents[2] / "vectors" / "engine_headers.json"
BLOCKS = [
    signed_header_of(block["signed_header"], block["validators"])
    for block in json.loads(VECTORS.read_text())["blocks"]
]
CHAIN = BLOCKS[0].header.chain_id
replace = dataclasses.replace


@pytest.mark.parametrize("signed", BLOCKS, ids=lambda signed: str(signed.header.height))
def test_what_the_engine_signed_verifies(signed: SignedHeader) -> None:
    assert verify_signed_header(signed, CHAIN) in (30, 40)


FIELDS = [field.name for field in dataclasses.fields(BLOCKS[0].header)]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_header_is_bound(name: str) -> None:
    signed = BLOCKS[4]
    value = getattr(signed.header, name)
    changed = {
        int: lambda: value + 1,
        str: lambda: value + "x",
        bytes: lambda: bytes([value[0] ^ 1]) + value[1:],
        Moment: lambda: replace(value, nanos=value.nanos ^ 1),
    }.get(type(value), lambda: replace(value, parts=value.parts + 1))()
    with pytest.raises(VerificationError):
        verify_signed_header(
            replace(signed, header=replace(signed.header, **{name: changed})), CHAIN
        )


def with_signatures(signed: SignedHeader, signatures) -> SignedHeader:
    return replace(signed, commit=replace(signed.commit, signatures=tuple(signatures)))


def test_half_is_not_enough_and_three_of_four_are() -> None:
    full = next(s for s in BLOCKS if all(g.flag == FLAG_COMMIT for g in s.commit.signatures))
    signatures = full.commit.signatures
    absent = replace(signatures[0], flag=1, signature=b"")
    assert verify_signed_header(with_signatures(full, (absent, *signatures[1:])), CHAIN) == 30
    with pytest.raises(VerificationError, match="20 of 40"):
        verify_signed_header(with_signatures(full, signatures[:2]), CHAIN)
    with pytest.raises(VerificationError, match="signed twice"):
        verify_signed_header(with_signatures(full, (*signatures[:2], signatures[0])), CHAIN)


def signed_by_two_of_three(powers: tuple[int, ...], heights_on: int = 0) -> SignedHeader:
    """Return a header of an own set, and the first two's commit over it, of a height so far on."""
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
    validators = tuple(
        ValidatorKey(key.public_key().public_bytes_raw(), power)
        for key, power in zip(keys, powers, strict=True)
    )
    header = replace(BLOCKS[0].header, validators_hash=validators_hash(validators))
    block_id = replace(BLOCKS[0].commit.block_id, hash=header.hash)
    commit = replace(BLOCKS[0].commit, block_id=block_id, height=header.height + heights_on)
    votes = tuple(
        CommitSignature(
            FLAG_COMMIT,
            validator.address,
            header.time,
            key.sign(commit.signed_bytes(CHAIN, header.time)),
        )
        for key, validator in zip(keys[:2], validators, strict=False)
    )
    return SignedHeader(header, replace(commit, signatures=votes), validators)


def test_exactly_two_thirds_are_not_enough() -> None:
    assert verify_signed_header(signed_by_two_of_three((4, 3, 3)), CHAIN) == 7
    with pytest.raises(VerificationError, match="6 of 9"):
        verify_signed_header(signed_by_two_of_three((3, 3, 3)), CHAIN)
    with pytest.raises(VerificationError, match="not over the header"):
        verify_signed_header(signed_by_two_of_three((4, 3, 3), heights_on=1), CHAIN)


def test_a_vote_of_another_time_round_or_block_does_not_verify() -> None:
    signed = BLOCKS[5]
    given = signed.commit.signatures[0]
    later = replace(given, time=replace(given.time, nanos=given.time.nanos ^ 1))
    broken = replace(given, signature=given.signature[:-1] + bytes([given.signature[-1] ^ 1]))
    for one in (later, broken, replace(given, signature=b"")):
        with pytest.raises(VerificationError, match="does not verify"):
            verify_signed_header(
                with_signatures(signed, (one, *signed.commit.signatures[1:])), CHAIN
            )
    other_round = replace(signed, commit=replace(signed.commit, round=signed.commit.round + 1))
    with pytest.raises(VerificationError, match="does not verify"):
        verify_signed_header(other_round, CHAIN)
    with pytest.raises(VerificationError, match="not over the header"):
        verify_signed_header(replace(signed, commit=BLOCKS[4].commit), CHAIN)
    with pytest.raises(VerificationError, match="of chain"):
        verify_signed_header(signed, "another")


def test_a_set_is_bound_by_keys_and_power_and_not_by_order() -> None:
    signed = BLOCKS[3]
    keys = signed.validators
    assert validators_hash(keys[::-1]) == validators_hash(keys) == signed.header.validators_hash
    for other in (keys[1:], (*keys[:3], replace(keys[3], power=11))):
        with pytest.raises(VerificationError, match="not those of block"):
            verify_signed_header(replace(signed, validators=other), CHAIN)


def test_the_engines_order_is_by_power_then_address() -> None:
    keys = [ValidatorKey(bytes([number]) * 32, power) for number, power in ((1, 5), (2, 9), (3, 5))]
    ordered = in_order(keys)
    assert [key.power for key in ordered] == [9, 5, 5]
    assert ordered[1].address < ordered[2].address


def test_the_app_hash_is_of_size_and_root() -> None:
    assert app_hash(3, b"\1" * 32) == app_hash(3, b"\1" * 32)
    assert len({app_hash(3, b"\1" * 32), app_hash(4, b"\1" * 32), app_hash(3, b"\2" * 32)}) == 3
