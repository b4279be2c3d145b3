"""Signed headers out of the engine's JSON.

Lives here: reading them. May not live here: judging them (clearing.consensus), the calls (rpc.py).
Source: CometBFT v0.39, rpc/openapi: /commit and /validators.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clearing.consensus.commit import BlockId, Commit, CommitSignature, Header, Moment, SignedHeader
from clearing.consensus.validators import ValidatorKey
from clearing.errors import DecodeError

_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?Z")
_ZERO_TIME = "0001-01-01T00:00:00Z"


def signed_header_of(
    signed: Mapping[str, Any], validators: Sequence[Mapping[str, Any]]
) -> SignedHeader:
    """Return a signed header and its set from the engine's JSON.

    Raises: DecodeError: a member is missing or none of its kind.
    """
    try:
        return SignedHeader(
            _header(signed["header"]), _commit(signed["commit"]), tuple(map(_validator, validators))
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"the engine's answer is not a signed header: {error!r}") from error


def _header(found: Mapping[str, Any]) -> Header:
    hashes = (
        "last_commit_hash",
        "data_hash",
        "validators_hash",
        "next_validators_hash",
        "consensus_hash",
        "app_hash",
        "last_results_hash",
        "evidence_hash",
        "proposer_address",
    )
    return Header(
        int(found["version"]["block"]),
        int(found["version"].get("app", 0)),
        str(found["chain_id"]),
        int(found["height"]),
        _moment(found["time"]),
        _block_id(found["last_block_id"]),
        **{name: bytes.fromhex(found[name]) for name in hashes},
    )


def _block_id(found: Mapping[str, Any]) -> BlockId:
    parts = found["parts"]
    return BlockId(bytes.fromhex(found["hash"]), int(parts["total"]), bytes.fromhex(parts["hash"]))


def _commit(found: Mapping[str, Any]) -> Commit:
    return Commit(
        int(found["height"]),
        int(found["round"]),
        _block_id(found["block_id"]),
        tuple(
            CommitSignature(
                int(one["block_id_flag"]),
                bytes.fromhex(one["validator_address"]),
                _moment(one["timestamp"]),
                base64.b64decode(one["signature"] or ""),
            )
            for one in found["signatures"]
        ),
    )


def _validator(found: Mapping[str, Any]) -> ValidatorKey:
    key = base64.b64decode(found["pub_key"]["value"], validate=True)
    return ValidatorKey(key, int(found["voting_power"]))


def _moment(text: str) -> Moment:
    # What a validator that did not vote has for its time.
    if text == _ZERO_TIME:
        return Moment(0, 0)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]}")
    moment = dt.datetime.fromisoformat(match[1] + "+00:00")
    return Moment(int(moment.timestamp()), int((match[2] or "").ljust(9, "0")))
