"""Timestamp proofs: those we make, the stock library reads; ours and its reading agree; every changed byte is refused."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentimestamps.core.notary import (
    BitcoinBlockHeaderAttestation,
    PendingAttestation,
)
from opentimestamps.core.op import OpAppend, OpSHA1, OpSHA256
from opentimestamps.core.serialize import (
    BytesDeserializationContext,
    StreamSerializationContext,
)
from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp, make_merkle_tree

from clearing.bitcoin import ots
from clearing.bitcoin.headers import HeaderChain, genesis_pin, verify_chain
from clearing.bitcoin.next_header import BitcoinNetwork, HeaderError, HeaderFault
from clearing.bitcoin.ots import Operation, OtsProof, commitment_of, make_proofs, verify_ots
from clearing.bitcoin.transaction import Outpoint, Output, TransactionProof
from clearing.errors import ClearingError, DecodeError, VerificationError
from tests.clearing.bitcoin.bitcoin_kit import Chain, taproot, transaction


def digests_of(count: int) -> list[bytes]:
    return [hashlib.sha256(f"note {number}".encode()).digest() for number in range(count)]


def anchored(
    digests: list[bytes], neighbours: int = 4
) -> tuple[HeaderChain, TransactionProof, int]:
    """Return a chain with the anchor of `digests` six deep among `neighbours` other transactions."""
    chain = Chain()
    chain.blocks(14)
    script = b"\x6a\x20" + commitment_of(digests)
    anchor = transaction(
        [Outpoint(b"\1" * 32, 0)], [Output(0, script), Output(9_000, taproot("change"))]
    )
    others = [
        transaction([Outpoint(bytes([9, n] * 16), 0)], [Output(5_000, taproot(f"other {n}"))])
        for n in range(neighbours)
    ]
    place = chain.block(*others[:2], anchor, *others[2:])[min(2, neighbours)]
    height = chain.height
    chain.blocks(5)
    network = BitcoinNetwork.REGTEST
    verified = verify_chain(network, 0, b"".join(chain.headers), genesis_pin(network))
    return verified, place, height


def stock(data: bytes) -> DetachedTimestampFile:
    return DetachedTimestampFile.deserialize(BytesDeserializationContext(data))


def written(file: DetachedTimestampFile) -> bytes:
    stream = io.BytesIO()
    file.serialize(StreamSerializationContext(stream))
    return stream.getvalue()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 33])
def test_the_stock_library_reads_every_proof_to_the_blocks_merkle_root(count: int) -> None:
    digests = digests_of(count)
    chain, place, height = anchored(digests)
    proofs = list(make_proofs(digests, place, height))
    assert len(proofs) == count
    for digest, data in zip(digests, proofs, strict=True):
        file = stock(data)
        assert file.file_digest == digest
        ((message, attestation),) = file.timestamp.all_attestations()
        assert attestation == BitcoinBlockHeaderAttestation(height)
        assert message == chain.header(height)[36:68]
        # The same bytes, too: the stock writer has one form for this.
        assert written(file) == data
        proven = verify_ots(OtsProof.decode(data), digest, chain, 6)
        assert (proven.height, proven.depth) == (height, 6)
        assert proven.time_s == chain.time_s(height)
        assert proven.median_time_s == chain.median_time_s(height)
        assert OtsProof.decode(data).encode() == data


@given(st.integers(1, 70))
def test_the_commitment_is_the_stock_librarys_merkle_root(count: int) -> None:
    digests = digests_of(count)
    assert commitment_of(digests) == make_merkle_tree([Timestamp(one) for one in digests]).msg


def test_a_block_with_nothing_but_the_anchor_beside_its_coinbase() -> None:
    digests = digests_of(1)
    chain, place, height = anchored(digests, neighbours=0)
    (data,) = make_proofs(digests, place, height)
    verify_ots(OtsProof.decode(data), digests[0], chain, 1)
    assert len(data) < 300


def test_every_changed_byte_is_refused() -> None:
    digests = digests_of(3)
    chain, place, height = anchored(digests)
    data = next(make_proofs(digests, place, height))
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises((DecodeError, VerificationError)):
                verify_ots(OtsProof.decode(bytes(changed)), digests[0], chain, 6)


def test_cut_short_and_left_over_are_refused() -> None:
    digests = digests_of(2)
    _, place, height = anchored(digests)
    data = next(make_proofs(digests, place, height))
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            OtsProof.decode(data[:end])
    with pytest.raises(DecodeError, match="left over"):
        OtsProof.decode(data + b"\0")
    with pytest.raises(DecodeError, match="at most"):
        OtsProof.decode(data + bytes(ots.PROOF_BYTES_MAX))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_or_read_canonically(tail: bytes) -> None:
    data = ots.MAGIC + b"\x01\x08" + bytes(32) + tail
    try:
        proof = OtsProof.decode(data)
    except DecodeError:
        return
    assert proof.encode() == data


def test_what_is_not_one_way_to_a_block_is_refused_by_name() -> None:
    digest = digests_of(1)[0]
    forked, waiting, other = (Timestamp(digest) for _ in range(3))
    for suffix in (b"a", b"b"):
        leaf = forked.ops.add(OpAppend(suffix)).ops.add(OpSHA256())
        leaf.attestations.add(BitcoinBlockHeaderAttestation(5))
    waiting.attestations.add(PendingAttestation("https://calendar.example"))
    other.ops.add(OpSHA1()).attestations.add(BitcoinBlockHeaderAttestation(5))
    for stamp, why in ((forked, "forks"), (waiting, "not complete"), (other, "operation 0x02")):
        with pytest.raises(DecodeError, match=why):
            OtsProof.decode(written(DetachedTimestampFile(OpSHA256(), stamp)))
    with pytest.raises(VerificationError, match="no hash"):
        OtsProof(digest, ((Operation.APPEND, b"a"),), 5).root()
    long = OtsProof(digest, ((Operation.APPEND, bytes(4_090)),), 5)
    with pytest.raises(VerificationError, match="too long"):
        long.root()
    many = OtsProof(digest, ((Operation.SHA256, b""),) * 251, 5)
    with pytest.raises(DecodeError, match="at most 250"):
        many.encode()


def test_numbers_have_one_form_and_bounds() -> None:
    digest = digests_of(1)[0]
    good = OtsProof(digest, ((Operation.SHA256, b""),), 5).encode()
    assert good.endswith(b"\x01\x05")
    for payload in (b"\x85\x00", b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x08", b"\x05\x05", b""):
        with pytest.raises(DecodeError):
            OtsProof.decode(good[:-2] + bytes([len(payload)]) + payload)
    with pytest.raises(DecodeError, match="version"):
        OtsProof.decode(good.replace(ots.MAGIC + b"\1", ots.MAGIC + b"\2"))
    with pytest.raises(DecodeError, match="SHA-256"):
        OtsProof.decode(good.replace(ots.MAGIC + b"\1\x08", ots.MAGIC + b"\1\x02"))
    with pytest.raises(DecodeError, match="not an OpenTimestamps"):
        OtsProof.decode(b"\1" + good[1:])
    with pytest.raises(DecodeError, match="adds nothing"):
        OtsProof.decode(good[:65] + b"\xf0\x00" + good[65:])


def test_another_file_block_depth_or_branch_is_refused() -> None:
    digests = digests_of(2)
    chain, place, height = anchored(digests)
    data = next(make_proofs(digests, place, height))
    proof = OtsProof.decode(data)
    with pytest.raises(VerificationError, match="another file"):
        verify_ots(proof, digests[1], chain, 6)
    with pytest.raises(VerificationError, match="does not lead"):
        verify_ots(OtsProof(proof.digest, proof.steps, height + 1), digests[0], chain, 1)
    with pytest.raises(HeaderError) as caught:
        verify_ots(OtsProof(proof.digest, proof.steps, 9_999), digests[0], chain, 1)
    assert caught.value.fault is HeaderFault.HEIGHT
    with pytest.raises(HeaderError) as caught:
        verify_ots(proof, digests[0], chain, 7)
    assert caught.value.fault is HeaderFault.SHALLOW
    # After a reorganisation the same proof is of another chain.
    fork = Chain([chain.header(at) for at in range(height)])
    fork.blocks(8, salt=3)
    network = BitcoinNetwork.REGTEST
    other = verify_chain(network, 0, b"".join(fork.headers), genesis_pin(network))
    with pytest.raises(VerificationError, match="does not lead"):
        verify_ots(proof, digests[0], other, 1)


def test_making_refuses_what_would_prove_nothing() -> None:
    digests = digests_of(2)
    _, place, height = anchored(digests)
    with pytest.raises(VerificationError, match="commitment"):
        list(make_proofs(digests[:1], place, height))
    for wrong in ([], [b"short"]):
        with pytest.raises(ClearingError):
            list(make_proofs(wrong, place, height))
