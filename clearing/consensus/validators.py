"""A set of validators as the consensus engine sees it: keys with power, and the set's hash.

Lives here: ValidatorKey, order and hash of a set. May not live here: who is a validator by the
ledger's rules (rules/validators.py).
Source: CometBFT v0.39, spec/core/data_structures.md ("ValidatorSet"), types/validator_set.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from clearing.consensus import encoding
from clearing.log import merkle

ADDRESS_BYTES = 20


@dataclass(frozen=True, slots=True)
class ValidatorKey:
    """An Ed25519 key, 32 bytes, and its voting power, above 0."""

    public_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """The engine's name of the key, 20 bytes."""
        return address_of(self.public_key)


def address_of(public_key: bytes) -> bytes:
    """Return the engine's 20-byte name of an Ed25519 key."""
    return hashlib.sha256(public_key).digest()[:ADDRESS_BYTES]


def in_order(keys: Sequence[ValidatorKey]) -> tuple[ValidatorKey, ...]:
    """Return a set in the engine's order: greatest power first, then by address."""
    return tuple(sorted(keys, key=lambda key: (-key.power, key.address)))


def validators_hash(keys: Sequence[ValidatorKey]) -> bytes:
    """Return the hash of a set, in whatever order it is given, as block headers carry it."""
    leaves = [
        merkle.leaf_hash(
            encoding.message(1, encoding.message(1, key.public_key))
            + encoding.integer(2, key.power)
        )
        for key in in_order(keys)
    ]
    return merkle.root_of(leaves)
