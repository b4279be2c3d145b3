"""That a coin was mined, where, and by whom: proofs that need nothing but block headers.

Lives here: the proof's bytes and every check that its own bytes allow. May not live here: which scripts belong to which
licensed miner (rules), which blocks count (the ledger's header chain), whether the coin is still unspent (no header says so).

Two ways. OWN: a coinbase pays the miner's registered script. POOL: a coinbase pays a registered pool's script, and a transaction
whose only input spends that output pays the miner's: then all that it pays is freshly mined, and nothing else is. In both
the miner signs (BIP 322) with the paid script's key that this output is its own under its licence.
Source: BIP 34 (height in the coinbase), BIP 322 (signed messages), CVE-2017-12842; verification by btclib.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from btclib import bip322
from btclib.block.block import bip34_commitment
from btclib.exceptions import BTClibException
from btclib.script.script_pub_key import ScriptPubKey
from btclib.script.witness import Witness

from clearing.bitcoin.transaction import (
    Outpoint,
    Output,
    Transaction,
    TransactionProof,
    is_settlement_script,
)
from clearing.codec import Layout, reserved, uint
from clearing.errors import DecodeError, VerificationError

SIGNATURE_BYTES_MAX = 512
COINBASE_MATURITY = 100
"""Confirmations a coinbase output needs before it can be spent. Source: Bitcoin Core src/consensus/consensus.h."""

CLAIM_LAYOUT = Layout(
    "mined-coin claim",
    uint("way", 1),
    reserved(3),
    uint("output", 4),
    uint("signature_bytes", 2),
    reserved(2),
)


class Way(enum.IntEnum):
    """How a mined coin came to the miner."""

    OWN = 1
    """By a coinbase."""
    POOL = 2
    """By a pool's payout of a coinbase."""


def verify_message(script: bytes, message: bytes, signature: bytes) -> None:
    """Check a BIP 322 simple signature (the witness's bytes) of `message` by a settlement script's key.

    Raises: VerificationError: it does not hold, or the script is neither P2WPKH nor P2TR.
    """
    if not is_settlement_script(script):
        raise VerificationError("only P2WPKH and P2TR scripts sign here")
    if len(signature) > SIGNATURE_BYTES_MAX:
        raise VerificationError(f"a signature has at most {SIGNATURE_BYTES_MAX} bytes")
    try:
        witness = Witness.parse(signature)
        address = ScriptPubKey(script).address
        bip322.assert_as_valid(message, address, bip322.Sig(witness), legacy=False)
    except (BTClibException, ValueError) as error:
        raise VerificationError(f"the signed message does not hold: {error}") from error


def claim_message(network_id: bytes, outpoint: Outpoint, lei: str, licence_no: str) -> bytes:
    """Return what a miner signs: this output, under this licence, in this network, once."""
    text = f"clearing/mined-coin/v1|{network_id.hex()}|{outpoint}|{lei}|{licence_no}"
    return text.encode()


def script_message(network_id: bytes, lei: str, asset: int) -> bytes:
    """Return what proves that a settlement script's key is in the hands of the participant with this LEI."""
    return f"clearing/settlement-script/v1|{network_id.hex()}|{lei}|{asset}".encode()


@dataclass(frozen=True, slots=True)
class Claim:
    """A proof of mined coin: the coinbase, for POOL the payout that spends it, the output claimed, and the signature."""

    way: Way
    coinbase: TransactionProof
    payout: TransactionProof | None
    output: int
    signature: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = CLAIM_LAYOUT.encode(
            way=self.way, output=self.output, signature_bytes=len(self.signature)
        )
        payout = b"" if self.payout is None else self.payout.encode()
        return head + self.coinbase.encode() + payout + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: cut short, left over, an unknown way, or not the transactions that its way needs.
        """
        head = CLAIM_LAYOUT.decode(data[: CLAIM_LAYOUT.width])
        try:
            way = Way(head["way"])
        except ValueError as error:
            raise DecodeError(f"way {head['way']} is unknown") from error
        coinbase, rest = TransactionProof.decode_from(data[CLAIM_LAYOUT.width :])
        payout = None
        if way is Way.POOL:
            payout, rest = TransactionProof.decode_from(rest)
        if len(rest) != head["signature_bytes"]:
            raise DecodeError(
                f"the signature takes {head['signature_bytes']} bytes, got {len(rest)}"
            )
        return cls(way, coinbase, payout, head["output"], rest)

    @property
    def paying(self) -> TransactionProof:
        """The proof of the transaction that pays the miner."""
        return self.coinbase if self.payout is None else self.payout

    @property
    def outpoint(self) -> Outpoint:
        """The output claimed."""
        return Outpoint(self.paying.transaction.txid, self.output)

    @property
    def paid(self) -> Output:
        """What the claimed output pays, and to which script.

        Raises: VerificationError: the transaction has no such output.
        """
        return _output(self.paying.transaction, self.output)

    def pool_script(self) -> bytes:
        """Return the script of the pool that the payout spends from. Caller's duty: verify has held, way is POOL.

        Raises: VerificationError: the coinbase has no such output.
        """
        spent = self.paying.transaction.inputs[0]
        return _output(self.coinbase.transaction, spent.index).script

    def verify(self, coinbase_height: int, message: bytes) -> None:
        """Check everything that is in the claim itself; block proofs are checked against headers by the caller.

        coinbase_height: of the block that the coinbase is proved in. message: see claim_message.
        Raises: VerificationError: no coinbase at the block's first place, another height in it, a payout that spends
        anything else, no such output, or a signature that does not hold.
        """
        verify_coinbase(self.coinbase, coinbase_height)
        if self.payout is not None:
            inputs = self.payout.transaction.inputs
            if len(inputs) != 1 or inputs[0].txid != self.coinbase.transaction.txid:
                raise VerificationError("a payout spends the pool's coinbase and nothing else")
            _output(self.coinbase.transaction, inputs[0].index)
        verify_message(self.paid.script, message, self.signature)


def _output(transaction: Transaction, index: int) -> Output:
    if index >= len(transaction.outputs):
        raise VerificationError(f"the transaction has {len(transaction.outputs)} outputs")
    return transaction.outputs[index]


def verify_coinbase(proof: TransactionProof, height: int) -> None:
    """Check that a proof shows the coinbase of the block at `height`.

    Raises: VerificationError: not the block's first transaction, no coinbase, or another height in it.
    """
    transaction = proof.transaction
    if proof.position != 0 or not transaction.is_coinbase:
        raise VerificationError("only the first transaction of a block mines coin")
    if not transaction.input_scripts[0].startswith(bytes(bip34_commitment(height))):
        raise VerificationError(f"the coinbase does not name height {height}")
