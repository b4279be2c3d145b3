"""Leaves that the ledger itself writes, and telling leaves and transactions apart."""

from __future__ import annotations

import hashlib

import pytest

from clearing.errors import DecodeError, InvariantViolation
from clearing.params import LEAF_BYTES_MAX
from clearing.records import leaves
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.submission import Submission
from clearing.records.transaction import actor_of, decode_transaction
from tests.clearing.records.vectors import RECORDS, VECTORS

OWN = {
    "genesis leaf": leaves.GenesisLeaf,
    "cycle-cut-off leaf": leaves.CycleCutOffLeaf,
    "cycle-netted leaf": leaves.CycleNettedLeaf,
    "cycle-ended leaf": leaves.CycleEndedLeaf,
    "expired leaf": leaves.ExpiredLeaf,
    "seal leaf": leaves.SealLeaf,
    "validators leaf": leaves.ValidatorsLeaf,
    "misbehaviour leaf": leaves.MisbehaviourLeaf,
}
EXAMPLES = {record.record: record.data for record in RECORDS if record.record.endswith(" leaf")}
SUBMISSION, INSTRUCTION = VECTORS["signed"]["submission"], VECTORS["signed"]["instruction"]


def test_every_kind_of_leaf_has_its_number() -> None:
    kinds = {name: leaf_kind(data) for name, data in EXAMPLES.items()}
    assert sorted(kinds.values()) == list(LeafKind)
    assert {name: kind.value for name, kind in kinds.items()} == {
        "genesis leaf": 1,
        "submission leaf": 2,
        "instruction leaf": 3,
        "cycle-netted leaf": 4,
        "cycle-ended leaf": 5,
        "expired leaf": 6,
        "seal leaf": 7,
        "cycle-cut-off leaf": 8,
        "validators leaf": 10,
        "misbehaviour leaf": 11,
    }


@pytest.mark.parametrize("data", [b"", b"\1", b"\0\1", b"\2\1", b"\1\0", b"\1\x09", b"\1\xff"])
def test_what_starts_like_no_leaf_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        leaf_kind(data)


@pytest.mark.parametrize("name", OWN)
def test_a_leaf_parses_as_its_own_kind_only(name: str) -> None:
    for other, kind in OWN.items():
        if other == name:
            assert kind.decode(EXAMPLES[name]).encode() == EXAMPLES[name]
        else:
            with pytest.raises(DecodeError, match=f"not a {kind.KIND.name} leaf"):
                kind.decode(EXAMPLES[name])


def test_every_leaf_fits_an_entry_bundle() -> None:
    assert max(map(len, EXAMPLES.values())) <= LEAF_BYTES_MAX


def test_values_that_do_not_fit_a_leaf_are_refused() -> None:
    with pytest.raises(DecodeError, match="does not fit"):
        leaves.CycleEndedLeaf(1 << 32, 5, bytes(32)).encode()
    with pytest.raises(DecodeError, match="must be 32 bytes"):
        leaves.GenesisLeaf(0, bytes(31)).encode()
    with pytest.raises(InvariantViolation, match="is missing"):
        leaves.SealLeaf.LAYOUT.encode(version=1, kind=7)


def test_a_body_hash_is_plain_sha256() -> None:
    assert leaves.body_hash(b"abc") == hashlib.sha256(b"abc").digest()


def test_transactions_are_told_apart_by_their_second_byte() -> None:
    body = SUBMISSION["secret"] + "".join(SUBMISSION["records"])
    submission = decode_transaction(bytes.fromhex(SUBMISSION["leaf"] + body))
    assert isinstance(submission, Submission)
    assert actor_of(submission) == 2
    parts = INSTRUCTION["leaf"] + INSTRUCTION["salt"] + INSTRUCTION["payload"]
    instruction = decode_transaction(bytes.fromhex(parts))
    assert isinstance(instruction, Instruction)
    assert actor_of(instruction) == 3


@pytest.mark.parametrize("name", OWN)
def test_what_the_ledger_writes_is_no_transaction(name: str) -> None:
    with pytest.raises(DecodeError, match="is no transaction"):
        decode_transaction(EXAMPLES[name])
