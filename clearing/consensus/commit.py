"""Headers and commits of the consensus engine: what more than two thirds of the power have signed.

Lives here: Header and its hash, Commit and its signatures, the judgement over both. May not live here: which set of
validators was in force (rules/validators.py; the log has a leaf for each), what the app hash commits to.

A block's header carries the app hash of the block before, so the commit that proves what block H did is that of H + 1.
Source: CometBFT v0.39, types/block.go (Header.Hash, CommitSig), types/canonical.go, spec/core/data_structures.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clearing.consensus import encoding
from clearing.consensus.validators import ValidatorKey, validators_hash
from clearing.errors import VerificationError
from clearing.log import merkle

PRECOMMIT = 2
"""Type of the vote that a commit is made of."""

FLAG_COMMIT = 2
"""A validator's vote for the block; 1 is absent, 3 a vote for nothing."""

_APP_HASH_DOMAIN = b"clearing/app/v1\0"


def chain_id(network_id: bytes) -> str:
    """Return the engine's name of a network's chain, of at most 50 characters: two networks never share one."""
    return f"clearing-{network_id.hex()[:32]}"


def app_hash(log_size: int, log_root: bytes) -> bytes:
    """Return what the engine's headers carry of the ledger: SHA-256 over the log's size and root.

    The log's last leaf is a SEAL over every row of the state, so this is all there is to agree on. It holds neither
    height nor time: a block that changes nothing leaves it as it was.
    """
    return hashlib.sha256(_APP_HASH_DOMAIN + log_size.to_bytes(8, "little") + log_root).digest()


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of time as the engine has it: seconds since 1970 and nanoseconds."""

    seconds: int
    nanos: int

    def encode(self) -> bytes:
        """Return the engine's bytes."""
        return encoding.timestamp(self.seconds, self.nanos)


@dataclass(frozen=True, slots=True)
class BlockId:
    """What names a block: the hash of its header, and number and hash of the parts it travels in."""

    hash: bytes
    parts: int
    parts_hash: bytes

    def encode(self) -> bytes:
        """Return the engine's bytes, the same in headers and in votes."""
        parts = encoding.integer(1, self.parts) + encoding.text(2, self.parts_hash)
        return encoding.text(1, self.hash) + encoding.message(2, parts)


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header, in the engine's order of fields."""

    block_version: int
    app_version: int
    chain_id: str
    height: int
    time: Moment
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer_address: bytes

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """What the header says by hash, and who proposed the block, in the engine's order."""
        return (
            self.last_commit_hash,
            self.data_hash,
            self.validators_hash,
            self.next_validators_hash,
            self.consensus_hash,
            self.app_hash,
            self.last_results_hash,
            self.evidence_hash,
            self.proposer_address,
        )

    @property
    def hash(self) -> bytes:
        """The block's hash: the RFC 6962 root over the header's fields."""
        version = encoding.integer(1, self.block_version) + encoding.integer(2, self.app_version)
        fields = [
            version,
            encoding.text(1, self.chain_id.encode()),
            encoding.integer(1, self.height),
            self.time.encode(),
            self.last_block_id.encode(),
        ]
        fields += [encoding.text(1, value) for value in self.hashes]
        return merkle.root_of([merkle.leaf_hash(field) for field in fields])


@dataclass(frozen=True, slots=True)
class CommitSignature:
    """What one validator gave: its flag, and where it voted for the block its address, time and signature."""

    flag: int
    address: bytes
    time: Moment
    signature: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """The precommits of one round over one block."""

    height: int
    round: int
    block_id: BlockId
    signatures: tuple[CommitSignature, ...]

    def signed_bytes(self, chain_id: str, time: Moment) -> bytes:
        """Return what a validator of `chain_id` signed at `time` to vote for the block."""
        vote = (
            encoding.integer(1, PRECOMMIT)
            + encoding.fixed64(2, self.height)
            + encoding.fixed64(3, self.round)
            + encoding.message(4, self.block_id.encode())
            + encoding.message(5, time.encode())
            + encoding.text(6, chain_id.encode())
        )
        return encoding.varint(len(vote)) + vote


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header, the commit over it, and the set of validators that it says has signed."""

    header: Header
    commit: Commit
    validators: tuple[ValidatorKey, ...]


def verify_signed_header(signed: SignedHeader, chain_id: str) -> int:
    """Check that more than two thirds of the power of the header's own set have signed it; return the power that did.

    The caller checks that this set was in force: its hash is `header.validators_hash`, and the log has a VALIDATORS
    leaf with the same.
    Raises: VerificationError: another chain, a commit of another block, a set that is not the header's, a signature
        that does not verify, or too little power.
    """
    header, commit = signed.header, signed.commit
    if header.chain_id != chain_id:
        raise VerificationError(f"the header is of chain {header.chain_id!r}, not {chain_id!r}")
    if commit.height != header.height or commit.block_id.hash != header.hash:
        raise VerificationError(f"the commit is not over the header of block {header.height}")
    if validators_hash(signed.validators) != header.validators_hash:
        raise VerificationError(f"the validators are not those of block {header.height}")
    power = _signed_power(signed)
    total = sum(validator.power for validator in signed.validators)
    if 3 * power <= 2 * total:
        raise VerificationError(
            f"block {header.height} is signed by {power} of {total} power: more than two thirds are needed"
        )
    return power


def _signed_power(signed: SignedHeader) -> int:
    known = {validator.address: validator for validator in signed.validators}
    counted: set[bytes] = set()
    power = 0
    for given in signed.commit.signatures:
        if given.flag != FLAG_COMMIT:
            continue
        validator = known.get(given.address)
        # One validator, one vote.
        if validator is None or given.address in counted:
            raise VerificationError(f"{given.address.hex()} is no validator, or signed twice")
        counted.add(given.address)
        message = signed.commit.signed_bytes(signed.header.chain_id, given.time)
        try:
            Ed25519PublicKey.from_public_bytes(validator.public_key).verify(
                given.signature, message
            )
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(
                f"the signature of {given.address.hex()} does not verify"
            ) from error
        power += validator.power
    return power
