"""Receipts: what verifies, what does not, and that no altered byte passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.receipt import VerifiedItem, item_tree, make_receipt, verify_receipt
from clearing.records.instruction import Instruction, InstructionKind, ItemSelection
from clearing.records.receipt import Opened, ReceiptRecord
from clearing.records.submission import Submission
from tests.ledger_kit import BTC, ETH, GENESIS_MS, P01, P02, P03, Net, item, seeded_key
from tests.proof_kit import COSIGNED_S, LOG, POLICY, STRANGER, head_note

COUNT = 5
SUBMISSION, AFFIRMATION = 2, 4
DUE_MS = GENESIS_MS + 1_000_000
GREAT = (1 << 127) + 3


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    records = [item(P01, P02, 1000 + n, asset=BTC) for n in range(COUNT - 1)]
    last = item(P03, P01, GREAT, asset=ETH, priority=9, due_ms=DUE_MS)
    assert net.submit(P01, *records, last) == SUBMISSION
    assert net.affirm(P02, SUBMISSION, (0, 2)).index == AFFIRMATION
    return net


def transaction(net: Net, index: int) -> Submission | Instruction:
    leaf, body = net.store.leaf(index), net.store.body(index) or b""
    return (Submission if index == SUBMISSION else Instruction).of_leaf(leaf, body)


def receipt(net: Net, index: int, number: int | None = None, note: Note | None = None) -> bytes:
    found = transaction(net, index)
    return make_receipt(
        network_id=net.state.network_id,
        index=index,
        transaction=found,
        checkpoint=note or head_note(net),
        nodes=net.store,
        item=number,
        tree=item_tree(found) if isinstance(found, Submission) else None,
    )


def record_of(data: bytes) -> ReceiptRecord:
    extra = LogProof.parse(data).extra
    assert extra is not None
    return ReceiptRecord.decode(extra)


def with_record(data: bytes, record: ReceiptRecord) -> bytes:
    return replace(LogProof.parse(data), extra=record.encode()).encode()


@pytest.mark.parametrize("number", range(COUNT))
def test_each_item_is_opened(net: Net, number: int) -> None:
    verified = verify_receipt(receipt(net, SUBMISSION, number), POLICY)
    assert verified.network_id == net.state.network_id == merkle.leaf_hash(net.store.leaf(0))
    assert verified.index == SUBMISSION
    assert verified.checkpoint.size == net.state.log_size
    assert verified.cosigned_s == {"cb": COSIGNED_S}
    expected = VerifiedItem(number, 1, 0, P01, P02, BTC, 0, 1000 + number, bytes(32), bytes(32))
    if number == COUNT - 1:
        expected = VerifiedItem(number, 1, 9, P03, P01, ETH, DUE_MS, GREAT, bytes(32), bytes(32))
    assert verified.item == expected
    verified.verify_signature(seeded_key("p01").public_key().public_bytes_raw())
    with pytest.raises(VerificationError):
        verified.verify_signature(seeded_key("p02").public_key().public_bytes_raw())


def test_a_submission_without_opening_reveals_no_item(net: Net) -> None:
    data = receipt(net, SUBMISSION)
    verified = verify_receipt(data, POLICY)
    assert verified.item is None
    assert isinstance(verified.transaction, Submission)
    assert (verified.transaction.count, verified.transaction.body) == (COUNT, b"")
    assert record_of(data).opened is Opened.NOTHING


def test_an_instruction_is_opened_with_its_payload(net: Net) -> None:
    verified = verify_receipt(receipt(net, AFFIRMATION), POLICY)
    assert isinstance(verified.transaction, Instruction)
    assert verified.transaction.kind is InstructionKind.AFFIRM
    selection = ItemSelection.decode(verified.transaction.payload)
    assert selection == ItemSelection(SUBMISSION, ((0, 2),))
    verified.verify_signature(seeded_key("p02").public_key().public_bytes_raw())


def test_an_instruction_without_its_body_is_proven_all_the_same(net: Net) -> None:
    found = replace(transaction(net, AFFIRMATION), body=b"")
    data = make_receipt(
        network_id=net.state.network_id,
        index=AFFIRMATION,
        transaction=found,
        checkpoint=head_note(net),
        nodes=net.store,
    )
    assert verify_receipt(data, POLICY).transaction == found


def test_an_earlier_checkpoint_that_covers_the_leaf_does(net: Net) -> None:
    size = SUBMISSION + 1
    text = Checkpoint(LOG.key.name, size, merkle.CompactRange.read(size, net.store).root).text
    note = Note(text, (sign(text, LOG),))
    data = receipt(net, SUBMISSION, 0, note)
    assert verify_receipt(data, Policy.of_log(LOG.key)).checkpoint.size == size
    with pytest.raises(VerificationError, match="quorum"):
        verify_receipt(data, POLICY)
    with pytest.raises(VerificationError):
        receipt(net, AFFIRMATION, None, note)


def test_another_logs_key_is_refused(net: Net) -> None:
    with pytest.raises(VerificationError):
        verify_receipt(receipt(net, SUBMISSION, 0), Policy.of_log(STRANGER.key))


def test_no_altered_character_passes(net: Net) -> None:
    data = receipt(net, SUBMISSION, 3)
    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] = ord("A") if data[at] != ord("A") else ord("B")
        with pytest.raises((DecodeError, VerificationError)):
            verify_receipt(bytes(altered), POLICY)


@pytest.mark.parametrize("index", [SUBMISSION, AFFIRMATION])
def test_no_altered_byte_of_the_record_passes(net: Net, index: int) -> None:
    proof = LogProof.parse(receipt(net, index, 1 if index == SUBMISSION else None))
    extra = proof.extra or b""
    for at in range(len(extra)):
        altered = extra[:at] + bytes([extra[at] ^ 1]) + extra[at + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify_receipt(replace(proof, extra=altered).encode(), POLICY)


def test_no_cut_or_lengthened_record_passes(net: Net) -> None:
    proof = LogProof.parse(receipt(net, SUBMISSION, 1))
    extra = proof.extra or b""
    for altered in [extra[:at] for at in range(len(extra))] + [extra + b"\0"]:
        with pytest.raises(DecodeError):
            verify_receipt(replace(proof, extra=altered).encode(), POLICY)
    with pytest.raises(DecodeError):
        verify_receipt(replace(proof, extra=None).encode(), POLICY)


def test_the_opening_of_another_item_is_refused(net: Net) -> None:
    one, two = (receipt(net, SUBMISSION, number) for number in (1, 2))
    swapped = replace(record_of(one), opening=record_of(two).opening)
    with pytest.raises(VerificationError):
        verify_receipt(with_record(one, swapped), POLICY)


def test_another_network_id_is_refused(net: Net) -> None:
    data = receipt(net, SUBMISSION, 1)
    with pytest.raises(VerificationError):
        verify_receipt(with_record(data, replace(record_of(data), network_id=bytes(32))), POLICY)


def test_a_leaf_of_the_ledgers_own_is_no_receipt(net: Net) -> None:
    head = head_note(net)
    paths = [merkle.inclusion_proof(index, net.state.log_size, net.store) for index in (0, 1)]
    record = ReceiptRecord(net.state.network_id, net.store.leaf(1), paths[0])
    data = LogProof(1, paths[1], head, record.encode()).encode()
    with pytest.raises(VerificationError, match="SEAL"):
        verify_receipt(data, POLICY)


@pytest.mark.parametrize("opened", [Opened.ITEM, Opened.PAYLOAD])
def test_an_opening_of_the_wrong_sort_is_refused(net: Net, opened: Opened) -> None:
    index = AFFIRMATION if opened is Opened.ITEM else SUBMISSION
    data = receipt(net, index)
    wrong = replace(record_of(data), opened=opened, opening=bytes(118), item=0)
    with pytest.raises(VerificationError):
        verify_receipt(with_record(data, wrong), POLICY)


def test_the_opening_of_an_only_item_is_an_items() -> None:
    """It needs no path, so that nothing else tells it from a payload."""
    net = Net()
    assert net.submit(P01, item(P01, P02, 1)) == SUBMISSION
    data = receipt(net, SUBMISSION, 0)
    assert verify_receipt(data, POLICY).item is not None
    wrong = replace(record_of(data), opened=Opened.PAYLOAD)
    with pytest.raises(VerificationError, match="none of an item"):
        verify_receipt(with_record(data, wrong), POLICY)


@pytest.mark.parametrize("number", [-1, COUNT])
def test_an_item_that_is_none_cannot_be_opened(net: Net, number: int) -> None:
    with pytest.raises(DecodeError):
        receipt(net, SUBMISSION, number)


def test_an_item_cannot_be_opened_without_the_body_or_of_an_instruction(net: Net) -> None:
    bare = replace(transaction(net, SUBMISSION), body=b"")
    for index, found in ((SUBMISSION, bare), (AFFIRMATION, transaction(net, AFFIRMATION))):
        with pytest.raises(DecodeError):
            make_receipt(
                network_id=net.state.network_id,
                index=index,
                transaction=found,
                checkpoint=head_note(net),
                nodes=net.store,
                item=0,
            )
