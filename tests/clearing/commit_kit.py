"""What validators with real keys sign of a ledger in memory, for tests of commit proofs.

Lives here: making a signed header and the proof around it. Real signatures over the engine's own bytes throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing.commit_proof import CommitProof
from clearing.consensus.commit import (
    FLAG_COMMIT,
    BlockId,
    Commit,
    CommitSignature,
    Header,
    Moment,
    SignedHeader,
    app_hash,
    chain_id,
)
from clearing.consensus.validators import ValidatorKey, in_order, validators_hash
from clearing.log import merkle
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rules.registry import Action, ActionKind
from clearing.types import Role
from tests.ledger_kit import CB, MINISTRY, ROLES, Net

OPERATORS = (len(ROLES), len(ROLES) + 1, len(ROLES) + 2)
FOUR = (CB, MINISTRY, *OPERATORS[:2])
FIVE = (*FOUR, OPERATORS[2])
TIME = Moment(1_700_000_200, 123_456_789)
ENGINE_HEIGHT = 41
POWER = 10


def key_of(participant: int) -> Ed25519PrivateKey:
    """Return the key that a participant's validator votes with."""
    return Ed25519PrivateKey.from_private_bytes(bytes([200 + participant]) * 32)


def make_net() -> Net:
    """Return a ledger whose four validators have real keys."""
    net = Net(roles=(*ROLES, *((f"operator-{number}", Role.OPERATOR) for number in OPERATORS)))
    net.govern(*(appointed(number) for number in FOUR))
    return net


def appointed(participant: int, power: int = POWER) -> Action:
    """Return the action that appoints a participant's validator, or dismisses it with no power."""
    key = key_of(participant).public_key().public_bytes_raw() if power else bytes(32)
    values = {"participant": participant, "power": power, "consensus_key": key}
    return Action(ActionKind.SET_VALIDATOR, values)


def keys_of(participants: Sequence[int]) -> tuple[ValidatorKey, ...]:
    """Return the set of these participants' validators, in the engine's order."""
    keys = [key_of(number).public_key().public_bytes_raw() for number in participants]
    return in_order([ValidatorKey(key, POWER) for key in keys])


def header_over(net: Net, participants: Sequence[int], **changed: object) -> Header:
    """Return the engine's header that carries the ledger's present log, of the set of these participants."""
    chosen = keys_of(participants)
    here = validators_hash(chosen)
    made = Header(
        11,
        1,
        chain_id(net.state.network_id),
        ENGINE_HEIGHT,
        TIME,
        BlockId(b"\1" * 32, 1, b"\2" * 32),
        *(bytes([number]) * 32 for number in (3, 4)),
        here,
        here,
        b"\5" * 32,
        app_hash(net.state.log_size, net.state.log.root),
        b"\6" * 32,
        b"\7" * 32,
        chosen[0].address,
    )
    return replace(made, **changed)


def signed_by(
    header: Header, participants: Sequence[int], voters: Sequence[int] | None = None
) -> SignedHeader:
    """Return a header with the votes of `voters`, all of the set if left out; the others are absent."""
    wanted = {
        key_of(number).public_key().public_bytes_raw(): number
        for number in (participants if voters is None else voters)
    }
    commit = Commit(header.height, 2, BlockId(header.hash, 1, b"\x08" * 32), ())
    votes = []
    for place, validator in enumerate(keys_of(participants)):
        time = replace(TIME, nanos=place)
        if validator.public_key in wanted:
            vote = key_of(wanted[validator.public_key]).sign(
                commit.signed_bytes(header.chain_id, time)
            )
            votes.append(CommitSignature(FLAG_COMMIT, validator.address, time, vote))
        else:
            votes.append(CommitSignature(1, b"", Moment(0, 0), b""))
    return SignedHeader(header, replace(commit, signatures=tuple(votes)), keys_of(participants))


@dataclass(frozen=True)
class Naming:
    """A VALIDATORS leaf of the log and where it stands."""

    index: int
    leaf: bytes


def namings(net: Net) -> list[Naming]:
    """Return the log's VALIDATORS leaves, in order."""
    leaves = [net.store.leaf(index) for index in range(net.state.log_size)]
    return [
        Naming(index, leaf)
        for index, leaf in enumerate(leaves)
        if leaf_kind(leaf) is LeafKind.VALIDATORS
    ]


def proof_of(net: Net, naming: Naming, signed: SignedHeader) -> CommitProof:
    """Return the commit proof for the ledger's present log."""
    path = merkle.inclusion_proof(naming.index, net.state.log_size, net.store)
    return CommitProof(naming.index, naming.leaf, path, signed)
