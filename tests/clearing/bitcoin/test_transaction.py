"""Transactions, branches and their proofs: what holds, and what is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.bitcoin import transaction as tx
from clearing.errors import DecodeError, VerificationError
from tests.clearing.bitcoin.bitcoin_kit import Chain, coinbase, merkle, taproot, transaction, wpkh

SPENT = tx.Outpoint(b"\x11" * 32, 3)
PAID = tx.Output(5, b"\x00\x14" + b"\x22" * 20)


def test_a_transaction_without_witnesses_is_read_whole() -> None:
    raw = transaction([SPENT], [PAID])
    found = tx.Transaction.decode(raw)
    assert (found.inputs, found.outputs, found.is_coinbase) == ((SPENT,), (PAID,), False)
    assert found.txid == tx.sha256d(raw)


def test_witnesses_are_left_out_and_refused_where_they_are_not() -> None:
    plain = transaction([SPENT], [PAID])
    segwit = plain[:4] + b"\x00\x01" + plain[4:-4] + b"\x01\x01\x55" + plain[-4:]
    assert tx.without_witness(segwit) == plain
    with pytest.raises(DecodeError, match="without its witnesses"):
        tx.Transaction.decode(segwit)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00" * 64, transaction([SPENT], [PAID])[:-1], transaction([SPENT], [PAID]) + b"\0"],
)
def test_what_is_no_transaction_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        tx.Transaction.decode(raw)


def test_settlement_scripts_are_p2wpkh_and_p2tr_only() -> None:
    assert tx.is_settlement_script(wpkh("a"))
    assert tx.is_settlement_script(taproot("a"))
    for other in (b"", b"\x00\x20" + bytes(32), b"\x51\x14" + bytes(20), b"\x6a" + bytes(21)):
        assert not tx.is_settlement_script(other)


@given(st.integers(1, 9), st.data())
def test_branches_of_every_position_hold_and_no_other(count: int, data: st.DataObject) -> None:
    txids = [tx.sha256d(bytes([at])) for at in range(count)]
    position = data.draw(st.integers(0, count - 1))
    root, branch = merkle(txids, position)
    tx.verify_branch(txids[position], branch, position, root)
    with pytest.raises(VerificationError):
        tx.verify_branch(tx.sha256d(b"other"), branch, position, root)
    with pytest.raises(VerificationError):
        tx.verify_branch(txids[position], branch, 1 << len(branch), root)


def test_a_proof_travels_and_holds_against_its_header_only() -> None:
    chain = Chain()
    (proof,) = chain.block(transaction([SPENT], [PAID]))
    assert tx.TransactionProof.decode(proof.encode()) == proof
    proof.verify(chain.headers[1])
    with pytest.raises(VerificationError, match="another block"):
        proof.verify(chain.headers[0])
    with pytest.raises(DecodeError):
        tx.TransactionProof.decode(proof.encode()[:-1])
    with pytest.raises(DecodeError):
        tx.TransactionProof.decode(proof.encode() + b"\0")


def test_an_inner_node_that_reads_as_a_transaction_is_refused() -> None:
    # CVE-2017-12842: a transaction of 64 bytes whose halves pass for two leaves one level down.
    forged = bytes.fromhex("0100000001") + b"\x07" * 36 + b"\x03abc" + b"\xff" * 4
    forged += bytes.fromhex("01") + (1).to_bytes(8, "little") + b"\x01\x51" + bytes(4)
    assert len(forged) == tx.INNER_NODE_BYTES
    with pytest.raises(DecodeError, match="may be no transaction"):
        tx.Transaction.decode(forged)
    left, right = forged[:32], forged[32:]
    root = tx.sha256d(forged)
    with pytest.raises(VerificationError, match="does not hold"):
        tx.verify_branch(left, (right,), 0, root)


def test_a_coinbase_is_told_from_others() -> None:
    assert tx.Transaction.decode(coinbase(200, PAID)).is_coinbase
