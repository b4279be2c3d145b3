"""Proofs of mined coin: a coinbase's, a pool's, and what is wrong with those that do not hold."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from embit import ec, script

from clearing.bitcoin.provenance import (
    Claim,
    Way,
    claim_message,
    verify_coinbase,
    verify_message,
)
from clearing.bitcoin.transaction import Outpoint, Output, Transaction, TransactionProof
from clearing.errors import DecodeError, VerificationError
from tests.clearing.bitcoin.bitcoin_kit import (
    VECTORS,
    Chain,
    coinbase,
    signed_message,
    taproot,
    transaction,
    wpkh,
)

NETWORK = b"\x07" * 32


def message_of(outpoint: Outpoint) -> bytes:
    """Return what the miner of these tests signs."""
    return claim_message(NETWORK, outpoint, "LEI", "L-1")


def own_claim(paid: bytes, name: str = "miner") -> Claim:
    """Return a good claim to the second output of a coinbase at height 1."""
    made = coinbase(1, Output(1, wpkh("other")), Output(5_000, paid))
    (proof,) = Chain().block(made)
    outpoint = Outpoint(proof.transaction.txid, 1)
    return Claim(Way.OWN, proof, None, 1, signed_message(name, paid, message_of(outpoint)))


def pool_claim(*more: Outpoint) -> Claim:
    """Return a claim to a pool's payout; with `more` inputs beside the coinbase's it is not good."""
    chain = Chain()
    (first,) = chain.block(coinbase(1, Output(9_000, wpkh("pool"))))
    spent = Outpoint(first.transaction.txid, 0)
    paid = taproot("miner")
    (second,) = chain.block(transaction([spent, *more], [Output(4_000, paid)]))
    outpoint = Outpoint(second.transaction.txid, 0)
    return Claim(Way.POOL, first, second, 0, signed_message("miner", paid, message_of(outpoint)))


@pytest.mark.parametrize("vector", VECTORS["signed_message"]["valid"])
def test_signed_messages_of_bip_322_hold(vector) -> None:
    paid = bytes(script.p2wpkh(ec.PrivateKey.from_wif(VECTORS["signed_message"]["wif"])).data)
    signature = base64.b64decode(vector["signature"])
    verify_message(paid, vector["message"].encode(), signature)
    with pytest.raises(VerificationError, match="signed message"):
        verify_message(paid, vector["message"].encode() + b"!", signature)
    with pytest.raises(VerificationError):
        verify_message(wpkh("other"), vector["message"].encode(), signature)


@pytest.mark.parametrize("paid", [wpkh("miner"), taproot("miner")])
def test_a_coinbase_claim_holds_and_travels(paid: bytes) -> None:
    claim = own_claim(paid)
    assert Claim.decode(claim.encode()) == claim
    assert claim.paid == Output(5_000, paid)
    claim.verify(1, message_of(claim.outpoint))


def test_a_pool_claim_holds_and_names_the_pool() -> None:
    claim = pool_claim()
    assert Claim.decode(claim.encode()) == claim
    claim.verify(1, message_of(claim.outpoint))
    assert claim.pool_script() == wpkh("pool")


def test_a_payout_with_other_inputs_is_no_mined_coin() -> None:
    claim = pool_claim(Outpoint(b"\x09" * 32, 0))
    with pytest.raises(VerificationError, match="nothing else"):
        claim.verify(1, message_of(claim.outpoint))


def test_another_height_message_signer_or_output_is_refused() -> None:
    claim = own_claim(wpkh("miner"))
    with pytest.raises(VerificationError, match="height 2"):
        claim.verify(2, message_of(claim.outpoint))
    with pytest.raises(VerificationError, match="signed message"):
        claim.verify(1, message_of(Outpoint(bytes(32), 0)))
    with pytest.raises(VerificationError, match="signed message"):
        replace(claim, output=0).verify(1, message_of(claim.outpoint))
    with pytest.raises(VerificationError, match="2 outputs"):
        replace(claim, output=2).verify(1, message_of(claim.outpoint))


def test_what_is_not_a_blocks_first_transaction_mines_nothing() -> None:
    raw = transaction([Outpoint(b"\x01" * 32, 0)], [Output(5, wpkh("miner"))])
    proof = TransactionProof(bytes(32), 0, (), Transaction.decode(raw))
    with pytest.raises(VerificationError, match="first transaction"):
        verify_coinbase(proof, 1)
    made = Transaction.decode(coinbase(1, Output(5, wpkh("miner"))))
    with pytest.raises(VerificationError, match="first transaction"):
        verify_coinbase(TransactionProof(bytes(32), 1, (bytes(32),), made), 1)


def test_bytes_that_are_no_claim_are_refused() -> None:
    good = own_claim(wpkh("miner")).encode()
    for bad in (b"", good[:-1], good + b"\0", b"\x09" + good[1:], good[:1] + b"\1" + good[2:]):
        with pytest.raises(DecodeError):
            Claim.decode(bad)
