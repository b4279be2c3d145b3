"""Signed headers as the engine's own light clients keep them: the bytes of a LightBlock.

Lives here: encode and decode. May not live here: what the signatures prove (commit.py).

What proves nothing is left out: votes that were not for the block stand there as absent, priorities of proposers as zero.
Invariant: `decode` accepts exactly the image of `encode`, so whoever keeps the bytes can be told that they were altered.
Source: CometBFT v0.39, proto/tendermint/types/types.proto and validator.proto; absent votes as types/block.go has them.
"""

from __future__ import annotations

from clearing.consensus import encoding
from clearing.consensus.commit import (
    FLAG_COMMIT,
    BlockId,
    Commit,
    CommitSignature,
    Header,
    Moment,
    SignedHeader,
)
from clearing.consensus.encoding import Message
from clearing.consensus.validators import ValidatorKey, in_order
from clearing.errors import DecodeError

LIGHT_BLOCK_BYTES_MAX = 65_536
"""Most bytes of one: a hundred validators take 20 KB."""

_FLAG_ABSENT = 1
_NO_MOMENT = Moment(-62_135_596_800, 0)
"""The year 1: the time that the engine gives to a vote that is absent."""

_ABSENT = CommitSignature(_FLAG_ABSENT, b"", _NO_MOMENT, b"")


def encode(signed: SignedHeader) -> bytes:
    """Return the bytes of a signed header with its set, in the engine's order of validators.

    Raises: DecodeError: a vote that is none of the validator in its place, or a proposer who is none.
    """
    validators = in_order(signed.validators)
    proposers = [one for one in validators if one.address == signed.header.proposer_address]
    if len(proposers) != 1:
        raise DecodeError("the block's proposer is not one of its validators")
    given = signed.commit.signatures
    # A vote's place says whose it is.
    if len(given) != len(validators) or any(
        one.flag == FLAG_COMMIT and one.address != validator.address
        for one, validator in zip(given, validators, strict=True)
    ):
        raise DecodeError("the commit's votes are not one for each validator, in their order")
    votes = [one if one.flag == FLAG_COMMIT else _ABSENT for one in given]
    commit = (
        encoding.integer(1, signed.commit.height)
        + encoding.integer(2, signed.commit.round)
        + encoding.message(3, signed.commit.block_id.encode())
        + b"".join(encoding.message(4, _vote_bytes(vote)) for vote in votes)
    )
    header = encoding.message(1, _header_bytes(signed.header)) + encoding.message(2, commit)
    chosen = b"".join(encoding.message(1, _validator_bytes(one)) for one in validators)
    chosen += encoding.message(2, _validator_bytes(proposers[0]))
    return encoding.message(1, header) + encoding.message(2, chosen)


def decode(data: bytes) -> SignedHeader:
    """Read a signed header with its set.

    Raises: DecodeError: not the bytes that `encode` makes of any.
    """
    if len(data) > LIGHT_BLOCK_BYTES_MAX:
        raise DecodeError(f"a light block is at most {LIGHT_BLOCK_BYTES_MAX} bytes")
    block = Message(data)
    header, commit = block.message(1).message(1), block.message(1).message(2)
    signed = SignedHeader(
        _header(header),
        Commit(
            commit.integer(1),
            commit.integer(2),
            _block_id(commit.message(3)),
            tuple(_vote(one) for one in commit.messages(4)),
        ),
        tuple(
            ValidatorKey(one.message(2).text(1), one.integer(3))
            for one in block.message(2).messages(1)
        ),
    )
    if encode(signed) != data:
        raise DecodeError("the light block is not canonical")
    return signed


def _header_bytes(header: Header) -> bytes:
    version = encoding.integer(1, header.block_version) + encoding.integer(2, header.app_version)
    return (
        encoding.message(1, version)
        + encoding.text(2, header.chain_id.encode())
        + encoding.integer(3, header.height)
        + encoding.message(4, header.time.encode())
        + encoding.message(5, header.last_block_id.encode())
        + b"".join(encoding.text(field, value) for field, value in enumerate(header.hashes, 6))
    )


def _header(found: Message) -> Header:
    version = found.message(1)
    try:
        chain_id = found.text(2).decode()
    except UnicodeDecodeError as error:
        raise DecodeError("the chain's name is not UTF-8") from error
    return Header(
        version.integer(1),
        version.integer(2),
        chain_id,
        found.integer(3),
        _moment(found.message(4)),
        _block_id(found.message(5)),
        *(found.text(field) for field in range(6, 15)),
    )


def _block_id(found: Message) -> BlockId:
    parts = found.message(2)
    return BlockId(found.text(1), parts.integer(1), parts.text(2))


def _vote_bytes(vote: CommitSignature) -> bytes:
    return (
        encoding.integer(1, vote.flag)
        + encoding.text(2, vote.address)
        + encoding.message(3, vote.time.encode())
        + encoding.text(4, vote.signature)
    )


def _vote(found: Message) -> CommitSignature:
    return CommitSignature(
        found.integer(1), found.text(2), _moment(found.message(3)), found.text(4)
    )


def _validator_bytes(validator: ValidatorKey) -> bytes:
    return (
        encoding.text(1, validator.address)
        + encoding.message(2, encoding.message(1, validator.public_key))
        + encoding.integer(3, validator.power)
    )


def _moment(found: Message) -> Moment:
    return Moment(found.integer(1), found.integer(2))
