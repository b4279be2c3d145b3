"""Two-clock receipts: both times are proven, and nothing in the file can be changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing import anchored_receipt as ar
from clearing.anchored_receipt import AnchoredReceipt, under_anchored_note
from clearing.bitcoin.headers import Pin
from clearing.bitcoin.next_header import BitcoinNetwork, HeaderError, HeaderFault
from clearing.bitcoin.ots import OtsProof
from clearing.bitcoin.transaction import sha256d
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.note import Note, sign
from clearing.log.policy import Group, Log, Policy, Witness
from clearing.log.proof import LogProof
from node.keys import CosignerSigner, SigningKey
from tests.anchored_kit import SUBMISSION, Case, anchored, make_case, receipt_under
from tests.ledger_kit import BTC, P01, P02, Net, item
from tests.proof_kit import COSIGNED_S, LOG, POLICY, STRANGER, head_note

REGTEST = BitcoinNetwork.REGTEST


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


def test_both_times_are_proven(case: Case) -> None:
    data = case.file.encode()
    assert AnchoredReceipt.parse(data) == case.file
    proven = AnchoredReceipt.parse(data).verify(POLICY)
    assert proven.final_at_s == COSIGNED_S
    assert proven.receipt.item is not None
    assert proven.receipt.item.amount_units == 1001
    assert (proven.existence.height, proven.existence.depth) == (case.height, 6)
    times = [int.from_bytes(one[68:72], "little") for one in case.chain.headers]
    assert proven.existence.time_s == times[case.height]
    assert proven.existence.median_time_s == times[case.height - 5]
    assert proven.existence.block_hash == sha256d(case.chain.headers[case.height])
    assert proven.pin.height == 0


def test_no_byte_can_be_changed(case: Case) -> None:
    data = case.file.encode()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 7)
        with pytest.raises((DecodeError, VerificationError)):
            AnchoredReceipt.parse(bytes(changed)).verify(POLICY)


def test_cut_short_or_left_over_is_refused(case: Case) -> None:
    data = case.file.encode()
    for end in range(0, len(data), 7):
        with pytest.raises((DecodeError, VerificationError)):
            AnchoredReceipt.parse(data[:end]).verify(POLICY)
    for more in (data + b"\n", data + data, b"\n" + data):
        with pytest.raises((DecodeError, VerificationError)):
            AnchoredReceipt.parse(more).verify(POLICY)
    with pytest.raises(DecodeError, match="at most"):
        AnchoredReceipt.parse(data + bytes(ar.FILE_BYTES_MAX))


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused(tail: bytes) -> None:
    for data in (tail, ar.FILE_HEADER.encode() + b"\n" + tail):
        with pytest.raises(DecodeError):
            AnchoredReceipt.parse(data)


def test_parts_of_other_receipts_do_not_fit(case: Case) -> None:
    other_net = Net()
    other_net.submit(P01, *[item(P01, P02, 5 + n, asset=BTC) for n in range(3)])
    note = head_note(other_net)
    other = anchored(other_net, note.encode(), receipt_under(other_net, note))
    with pytest.raises(VerificationError, match="another file"):
        replace(case.file, ots=other.file.ots).verify(POLICY)
    with pytest.raises(VerificationError, match="another file"):
        replace(case.file, receipt=other.receipt).verify(POLICY)
    with pytest.raises(VerificationError, match="does not lead"):
        replace(case.file, headers=other.file.headers).verify(POLICY)
    # The same statement with another cosignature on it is another file.
    text = Note.parse(case.note).text
    again = Note(text, (sign(text, LOG), *Note.parse(note.encode()).signatures[1:]))
    proof = replace(LogProof.parse(case.receipt), checkpoint=again)
    with pytest.raises(VerificationError):
        replace(case.file, receipt=proof.encode()).verify(POLICY)


def test_pin_network_depth_and_policy_are_demanded(case: Case) -> None:
    tip = case.chain.height
    case.file.verify(POLICY, pin=Pin(tip, sha256d(case.chain.headers[tip])), network=REGTEST)
    for pin in (Pin(3, bytes(32)), Pin(tip + 1, bytes(32)), Pin(tip, b"")):
        with pytest.raises(HeaderError) as caught:
            case.file.verify(POLICY, pin=pin)
        assert caught.value.fault is HeaderFault.PIN
    with pytest.raises(VerificationError, match="not on main"):
        case.file.verify(POLICY, network=BitcoinNetwork.MAIN)
    with pytest.raises(HeaderError) as caught:
        case.file.verify(POLICY, depth_min=7)
    assert caught.value.fault is HeaderFault.SHALLOW
    with pytest.raises(VerificationError):
        case.file.verify(Policy((Log(STRANGER.key),), (), (), "none"))
    # Trusting the log's key alone asks nobody for a time.
    assert case.file.verify(Policy.of_log(LOG.key)).final_at_s is None
    # Nor does one who knows witnesses and needs none of them.
    assert case.file.verify(replace(POLICY, groups=(), quorum="none")).final_at_s is None
    # Easy blocks renamed to another network's are none there.
    for network in (BitcoinNetwork.MAIN, BitcoinNetwork.SIGNET):
        with pytest.raises(HeaderError):
            replace(case.file, network=network).verify(POLICY)


def test_final_at_is_when_the_quorum_was_complete() -> None:
    keys = [
        CosignerSigner(SigningKey.from_seed(bytes([n] * 32)), f"clearing.test/node/{n}")
        for n in (101, 102, 103)
    ]
    witnesses = tuple(Witness(f"w{n}", key.key) for n, key in enumerate(keys))
    policy = Policy((Log(LOG.key),), witnesses, (Group("two", 2, ("w0", "w1", "w2")),), "two")
    net = Net()
    net.submit(P01, *[item(P01, P02, 1000 + n, asset=BTC) for n in range(3)])
    text = head_note(net).text
    signed = [sign(text, key, 1_000 * (3 - n)) for n, key in enumerate(keys)]
    note = Note(text, (sign(text, LOG), *signed))
    found = anchored(net, note.encode(), receipt_under(net, note))
    assert found.file.verify(policy).final_at_s == 2_000


def test_a_receipt_is_brought_under_the_anchored_note(case: Case) -> None:
    net = Net()
    net.submit(P01, *[item(P01, P02, 1000 + n, asset=BTC) for n in range(3)])
    early = head_note(net)
    size = net.state.log_size
    net.affirm(P02, SUBMISSION, (0, 1))
    late = receipt_under(net, head_note(net))
    paths = [merkle.inclusion_proof(index, size, net.store) for index in (SUBMISSION, 0)]
    moved = under_anchored_note(late, early.encode(), *paths)
    found = anchored(net, early.encode(), moved)
    proven = found.file.verify(POLICY)
    assert proven.receipt.checkpoint.size == size
    with pytest.raises(DecodeError):
        under_anchored_note(LogProof.parse(late).encode()[:40], early.encode(), *paths)
    bare = replace(LogProof.parse(late), extra=None).encode()
    with pytest.raises(DecodeError, match="no receipt record"):
        under_anchored_note(bare, early.encode(), *paths)


def test_networks_have_names_and_headers_have_bounds(case: Case) -> None:
    for network in BitcoinNetwork:
        assert ar.network_of(ar.network_name(network)) is network
    with pytest.raises(DecodeError, match="one of main"):
        ar.network_of("mainnet")
    for headers in (b"", bytes(79), bytes(80 * (ar.HEADERS_MAX + 1))):
        with pytest.raises(DecodeError, match="headers"):
            replace(case.file, headers=headers).encode()
    proof = OtsProof.decode(case.file.ots)
    assert proof.digest == hashlib.sha256(case.note).digest()
