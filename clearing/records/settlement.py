"""Payloads of the instructions about Bitcoin settlement and mined coin.

Lives here: their layouts, and the one with a signature of its own. May not live here: what follows from them (handlers).
Coins named for a leg stand in rules/legs.py, proofs of transactions and of mined coin in clearing/bitcoin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from clearing.bitcoin.provenance import SIGNATURE_BYTES_MAX
from clearing.bitcoin.transaction import SCRIPT_BYTES_MAX, is_settlement_script
from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError

LEG_LAYOUT = Layout("leg reference", uint("cycle", 4), reserved(4))
OFFER_LAYOUT = Layout("leg offer", uint("cycle", 4), reserved(4), uint("fee_rate", 8))
SIGNING_LAYOUT = Layout(
    "signing report",
    uint("cycle", 4),
    uint("signed", 1),
    reserved(3),
    uint("participant", 4),
    reserved(4),
    raw("transaction_hash", 32),
)
ATTEST_LAYOUT = Layout(
    "attested coin",
    uint("miner", 4),
    uint("unspent", 1),
    reserved(3),
    uint("batch", 8),
    raw("block_hash", 32),
)
SCRIPT_LAYOUT = Layout(
    "settlement script",
    uint("asset", 2),
    uint("script_bytes", 1),
    reserved(1),
    uint("signature_bytes", 4),
    raw("script", SCRIPT_BYTES_MAX),
)


@dataclass(frozen=True, slots=True)
class ScriptStatement:
    """The script that a participant is paid to in an asset, and its BIP 322 signature (a witness) by the script's key."""

    asset: int
    script: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes: 42 and the signature's.

        Raises: DecodeError: the script is longer than a settlement script.
        """
        head = SCRIPT_LAYOUT.encode(
            asset=self.asset,
            script_bytes=len(self.script),
            signature_bytes=len(self.signature),
            script=self.script.ljust(SCRIPT_BYTES_MAX, b"\0"),
        )
        return head + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, too long a signature, or neither P2WPKH nor P2TR.
        """
        head = SCRIPT_LAYOUT.decode(data[: SCRIPT_LAYOUT.width])
        signature = data[SCRIPT_LAYOUT.width :]
        if len(signature) != head["signature_bytes"] or len(signature) > SIGNATURE_BYTES_MAX:
            raise DecodeError("the signature's length does not match")
        script = head["script"][: head["script_bytes"]]
        if not is_settlement_script(script) or any(head["script"][len(script) :]):
            raise DecodeError("a settlement script is P2WPKH or P2TR, padded with zeros")
        return cls(head["asset"], script, signature)


def decode_signing(data: bytes) -> dict[str, int]:
    """Parse a signing report: signed 1 names no participant (all ones), signed 0 names who has not signed.

    Raises: DecodeError: not canonical.
    """
    values = SIGNING_LAYOUT.decode(data)
    if values["signed"] > 1 or (values["signed"] and values["participant"] != (1 << 32) - 1):
        raise DecodeError("a signing report says either that all signed or who did not")
    return values


def decode_attested(data: bytes) -> dict[str, int]:
    """Parse what a node attests of a declared coin.

    Raises: DecodeError: not canonical.
    """
    values = ATTEST_LAYOUT.decode(data)
    if values["unspent"] > 1:
        raise DecodeError("unspent is 0 or 1")
    return values
