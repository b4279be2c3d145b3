"""Receipts: made, read, judged offline, and no mutation passes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.merkle import HashedLeaves
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from tests.clearing.log.support import (
    GOLDEN,
    log_signer,
    naive_leaf,
    naive_root,
    sha256,
    unb64_all,
    witness_signer,
)

LOG, WITNESS = log_signer(), witness_signer()
SIZE = 21
LEAVES = [naive_leaf(number) for number in range(SIZE)]
TREE = HashedLeaves(LEAVES)
TEXT = Checkpoint(LOG.key.name, SIZE, naive_root(LEAVES)).text
NOTE = Note(TEXT, (sign(TEXT, LOG), sign(TEXT, WITNESS, 1700000000)))
POLICY = Policy.parse(
    f"log {LOG.key.vkey}\nwitness w1 {WITNESS.key.vkey}\nquorum w1\n".encode(),
)
PROOF = LogProof.make(5, NOTE, TREE, b"salt and record")


def test_every_leaf_has_a_receipt_that_verifies_after_a_round_trip():
    for index, leaf in enumerate(LEAVES):
        proof = LogProof.parse(LogProof.make(index, NOTE, TREE).encode())
        quorum = proof.check(leaf, POLICY)
        assert (quorum.checkpoint.size, list(quorum.cosignatures)) == (SIZE, ["w1"])
        assert proof.check(leaf, Policy.of_log(LOG.key)).log.key == LOG.key


def test_the_golden_receipt_has_its_text():
    text = (
        "c2sp.org/tlog-proof@v1\nindex 2\n"
        + GOLDEN["inclusion_2_of_3"][0]
        + "\n\n"
        + GOLDEN["note"]
    )
    proof = LogProof.parse(text.encode())
    assert (proof.index, list(proof.path)) == (2, unb64_all(GOLDEN["inclusion_2_of_3"]))
    proof.check(
        sha256(b"\x00gamma"),
        Policy.parse(
            f"log {GOLDEN['log_vkey']}\nwitness w {GOLDEN['witness_vkey']}\nquorum w\n".encode()
        ),
    )
    assert proof.encode().decode() == text


@pytest.mark.parametrize("extra", [None, b"", b"x", bytes(1000)])
def test_extra_data_is_carried_and_absent_is_not_empty(extra):
    proof = LogProof.make(0, NOTE, TREE, extra)
    assert LogProof.parse(proof.encode()).extra == extra
    assert (b"\nextra " in proof.encode()) == (extra is not None)


def test_a_receipt_fails_for_another_leaf_index_or_policy():
    with pytest.raises(VerificationError):
        PROOF.check(LEAVES[6], POLICY)
    with pytest.raises(VerificationError):
        LogProof(6, PROOF.path, NOTE).check(LEAVES[5], POLICY)
    with pytest.raises(VerificationError):
        PROOF.check(LEAVES[5], Policy.of_log(log_signer(b"\x01" * 32).key))
    unwitnessed = LogProof.make(5, Note(TEXT, NOTE.signatures[:1]), TREE)
    with pytest.raises(VerificationError, match="quorum 'w1'"):
        unwitnessed.check(LEAVES[5], POLICY)


def test_many_receipts_verify_under_one_trusted_checkpoint():
    trusted = PROOF.check(LEAVES[5], POLICY).checkpoint
    for index, leaf in enumerate(LEAVES):
        LogProof.make(index, NOTE, TREE).verify_under(trusted, leaf)
    with pytest.raises(VerificationError):
        PROOF.verify_under(trusted, LEAVES[6])
    for other in (
        Checkpoint(trusted.origin, SIZE - 1, trusted.root),
        Checkpoint("other", SIZE, trusted.root),
        Checkpoint(trusted.origin, SIZE, trusted.root, ("extension",)),
    ):
        with pytest.raises(VerificationError, match="another checkpoint"):
            PROOF.verify_under(other, LEAVES[5])


def test_a_receipt_under_a_checkpoint_before_the_leaf_cannot_be_made():
    with pytest.raises(VerificationError):
        LogProof.make(SIZE, NOTE, TREE)


@settings(max_examples=300)
@given(st.integers(0, len(PROOF.encode()) * 8 - 1))
def test_no_flipped_bit_passes_outside_the_unauthenticated_extra(bit):
    good = PROOF.encode()
    changed = (int.from_bytes(good, "big") ^ (1 << bit)).to_bytes(len(good), "big")
    try:
        proof = LogProof.parse(changed)
        proof.check(LEAVES[5], POLICY)
    except (DecodeError, VerificationError):
        return
    assert proof.extra != PROOF.extra
    assert (proof.index, proof.path, proof.checkpoint) == (
        PROOF.index,
        PROOF.path,
        PROOF.checkpoint,
    )


@given(st.data())
def test_what_is_read_is_written_alike(data):
    good = PROOF.encode()
    at = data.draw(st.integers(0, 220))
    width = data.draw(st.integers(0, 40))
    inserted = data.draw(
        st.sampled_from([b"", b"\n", b"\n\n", b"index 5\n", b"extra \n", b"0", b" ", b"\r"])
    )
    changed = good[:at] + inserted + good[at + width :]
    try:
        proof = LogProof.parse(changed)
    except DecodeError:
        return
    assert proof.encode() == changed


HASH = "OF2jDzkXKCyJOd/4UZV+UZqxhGsTUaFMCts7EWMnQqo=\n"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 5\n",
        " c2sp.org/tlog-proof@v1\nindex 5\n",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\nextra AA==\n",
        "c2sp.org/tlog-proof@v1\nindex 5\nextra AA==\n",
        "c2sp.org/tlog-proof@v1\nextra AA==\nextra AA==\nindex 5\n",
        "c2sp.org/tlog-proof@v1\nextra A\nindex 5\n",
        "c2sp.org/tlog-proof@v1\nextra\nindex 5\n",
        "c2sp.org/tlog-proof@v1\nindex 05\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n",
        f"c2sp.org/tlog-proof@v1\nindex {1 << 64}\n",
        "c2sp.org/tlog-proof@v1\nindex\n",
        "c2sp.org/tlog-proof@v1\nindex 5\nAAAA\n",
        "c2sp.org/tlog-proof@v1\nindex 5\n" + HASH * 65,
        "c2sp.org/tlog-proof@v1\r\nindex 5\r\n",
        "c2sp.org/tlog-proof@v1\nindex 5\n\n",
        "c2sp.org/tlog-proof@v1\nindex 5\n\xff\n",
    ],
)
def test_heads_that_break_the_format_are_refused(head):
    with pytest.raises(DecodeError):
        LogProof.parse(head.encode("latin-1") + b"\n" + NOTE.encode())


@pytest.mark.parametrize("tail", [b"", b"\n", TEXT.encode(), b"no checkpoint\n\n"])
def test_a_receipt_needs_a_signed_checkpoint(tail):
    with pytest.raises(DecodeError):
        LogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 5\n\n" + tail)


def test_a_note_that_is_no_checkpoint_makes_no_receipt():
    note = Note("text\n", (sign("text\n", LOG),))
    with pytest.raises(DecodeError):
        LogProof(0, (), note)
    with pytest.raises(DecodeError):
        LogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + note.encode())


def test_sizes_are_limited():
    with pytest.raises(DecodeError):
        LogProof.parse(bytes(3_000_001))
    with pytest.raises(DecodeError):
        LogProof(0, (), NOTE, bytes(1_000_001))
    with pytest.raises(DecodeError):
        LogProof(0, (bytes(32),) * 65, NOTE)
    with pytest.raises(DecodeError):
        LogProof(0, (bytes(31),), NOTE)
    for index in (-1, 1 << 64):
        with pytest.raises(DecodeError):
            LogProof(index, (), NOTE)
    biggest = LogProof(0, (bytes(32),) * 64, NOTE, bytes(1_000_000))
    assert LogProof.parse(biggest.encode()) == biggest
