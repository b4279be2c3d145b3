"""Commit proofs: what the validators signed is proven, and nothing in the file can be changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing import commit_proof
from clearing.commit_proof import CommitProof, has_commit_proof, without_commit
from clearing.consensus.validators import validators_hash
from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.receipt import verify_receipt
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rows import Table
from clearing.rules.validators import naming_key
from tests.anchored_kit import receipt_under
from tests.clearing.commit_kit import (
    ENGINE_HEIGHT,
    FIVE,
    FOUR,
    OPERATORS,
    TIME,
    appointed,
    header_over,
    keys_of,
    make_net,
    namings,
    proof_of,
    signed_by,
)
from tests.ledger_kit import P01, P02, Net, item
from tests.proof_kit import ORIGIN, POLICY, head_note

HASH_OF_FOUR = validators_hash(keys_of(FOUR))


@pytest.fixture(scope="module")
def net() -> Net:
    net = make_net()
    net.submit(P01, item(P01, P02, 1000), item(P01, P02, 1001))
    return net


@pytest.fixture(scope="module")
def proof(net: Net) -> CommitProof:
    (naming,) = namings(net)
    return proof_of(net, naming, signed_by(header_over(net, FOUR), FOUR, FOUR[:3]))


def head_of(net: Net) -> Checkpoint:
    return Checkpoint(ORIGIN, net.state.log_size, net.state.log.root)


def test_more_than_two_thirds_of_the_power_are_proven(net: Net, proof: CommitProof) -> None:
    proven = proof.verify(net.state.network_id, head_of(net))
    assert (proven.engine_height, proven.time_s) == (ENGINE_HEIGHT, TIME.seconds)
    assert (proven.power, proven.validators.total_power, proven.validators.count) == (30, 40, 4)
    assert proven.validators.validators_hash == HASH_OF_FOUR
    assert proof.verify(net.state.network_id, head_of(net), HASH_OF_FOUR) == proven
    row = net.store.get(Table.PARAMETERS, naming_key(HASH_OF_FOUR))
    assert row == proven.validators_index.to_bytes(8, "big")


def test_a_file_carries_a_proof_as_it_stands(net: Net, proof: CommitProof) -> None:
    receipt = receipt_of(net)
    data = proof.carrying(receipt)
    assert has_commit_proof(data)
    found, carried = CommitProof.split(data)
    assert (found, carried) == (normal(proof), receipt)
    assert without_commit(data) == without_commit(receipt) == receipt
    # What is carried may hold what the file itself begins with.
    assert CommitProof.split(proof.carrying(data)) == (normal(proof), data)
    assert found.carrying(carried) == data


def receipt_of(net: Net) -> bytes:
    leaves = map(net.store.leaf, range(net.state.log_size))
    kinds = [leaf_kind(leaf) for leaf in leaves]
    return receipt_under(net, head_note(net), kinds.index(LeafKind.SUBMISSION))


def normal(proof: CommitProof) -> CommitProof:
    """Return the proof as it reads from a file, where votes that are absent are of the year 1."""
    return CommitProof.split(proof.carrying(b""))[0]


def test_no_byte_can_be_changed(net: Net, proof: CommitProof) -> None:
    receipt = receipt_of(net)
    data = proof.carrying(receipt)

    def check(changed: bytes) -> None:
        found, carried = CommitProof.split(changed)
        proven = verify_receipt(carried, POLICY)
        found.verify(proven.network_id, proven.checkpoint)

    check(data)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 7)
        with pytest.raises((DecodeError, VerificationError)):
            check(bytes(changed))
    for end in range(0, len(data), 5):
        with pytest.raises((DecodeError, VerificationError)):
            check(data[:end])
    for more in (data + b"\n", data + data, b"\n" + data):
        with pytest.raises((DecodeError, VerificationError)):
            check(more)


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused(tail: bytes) -> None:
    for data in (tail, commit_proof.FILE_HEADER.encode() + b"\n" + tail):
        with pytest.raises(DecodeError):
            CommitProof.split(data)


def test_an_endless_head_is_refused() -> None:
    head = commit_proof.FILE_HEADER.encode() + b"\nindex 0\nleaf \npath \nblock "
    with pytest.raises(DecodeError):
        CommitProof.split(head + b"A" * commit_proof.HEAD_BYTES_MAX + b"\n\n")


def test_two_thirds_are_not_enough(net: Net, proof: CommitProof) -> None:
    few = replace(proof, signed=signed_by(header_over(net, FOUR), FOUR, FOUR[:2]))
    with pytest.raises(VerificationError, match="20 of 40"):
        few.verify(net.state.network_id, head_of(net))


def test_another_log_network_or_set_is_refused(net: Net, proof: CommitProof) -> None:
    network_id, head = net.state.network_id, head_of(net)
    other_log = header_over(net, FOUR, app_hash=bytes(32))
    with pytest.raises(VerificationError, match="of another log"):
        replace(proof, signed=signed_by(other_log, FOUR)).verify(network_id, head)
    with pytest.raises(VerificationError, match="of chain"):
        proof.verify(bytes(32), head)
    with pytest.raises(VerificationError, match="not by 0000"):
        proof.verify(network_id, head, bytes(32))
    # Anyone can sign as a set of his own: it must be the one that the log names.
    own = signed_by(header_over(net, FIVE), FIVE)
    with pytest.raises(VerificationError, match="not by that of the leaf"):
        replace(proof, signed=own).verify(network_id, head)
    with pytest.raises(VerificationError):
        proof.verify(network_id, replace(head, size=head.size - 1))


def test_a_leaf_that_is_not_in_the_log_names_nobody(net: Net, proof: CommitProof) -> None:
    forged = bytearray(proof.validators_leaf)
    own = validators_hash(keys_of(FIVE))
    at = bytes(forged).index(HASH_OF_FOUR)
    forged[at : at + 32] = own
    signed = signed_by(header_over(net, FIVE), FIVE)
    with pytest.raises(VerificationError):
        replace(proof, validators_leaf=bytes(forged), signed=signed).verify(
            net.state.network_id, head_of(net)
        )
    with pytest.raises(DecodeError):
        replace(proof, validators_leaf=net.store.leaf(0)).verify(net.state.network_id, head_of(net))


def test_a_set_that_comes_back_is_proven_by_the_leaf_that_named_it_first() -> None:
    net = make_net()
    net.govern(appointed(OPERATORS[2]))
    net.govern(appointed(OPERATORS[2], power=0))
    first, _, again = namings(net)
    assert first.leaf == again.leaf
    row = net.store.get(Table.PARAMETERS, naming_key(HASH_OF_FOUR))
    assert row == first.index.to_bytes(8, "big")
    for naming in (first, again):
        proof = proof_of(net, naming, signed_by(header_over(net, FOUR), FOUR))
        assert proof.verify(net.state.network_id, head_of(net)).validators_index == naming.index
