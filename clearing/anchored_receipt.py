"""Two-clock receipts: what was recorded, by when the quorum had made it final, and by when Bitcoin shows that it existed.

Lives here: the file as a value, its text, its making and its verification, offline. May not live here: receipts themselves
(receipt.py), timestamp proofs and headers (bitcoin/), files, who fetches the parts.

    clearing/anchored-receipt@v1
    network regtest
    start 0                      height of the first header
    tip <base64>                 hash of the last header, internal order
    headers <base64>             80 bytes each, in order
    ots <base64>                 OpenTimestamps proof of the checkpoint below, as it stands
    (empty line)
    <receipt: a C2SP tlog-proof, verbatim>

Two clocks, and they differ in kind: *final at* is what the nodes of the quorum say with their cosignatures; *existed by* is
the time of the block that holds the anchor, which no node of ours can move: it is worth what the work behind the chain
of headers is worth, nothing on regtest. Invariant: `AnchoredReceipt.parse` accepts exactly the image of `AnchoredReceipt.encode`.
Source: own design (README, decision 40).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Self

from clearing.bitcoin.headers import HeaderChain, Pin, genesis_pin, verify_chain
from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork
from clearing.bitcoin.ots import Existence, OtsProof, verify_ots
from clearing.bitcoin.transaction import sha256d
from clearing.errors import DecodeError, VerificationError
from clearing.log.note import Note
from clearing.log.policy import QUORUM_NONE, Policy
from clearing.log.proof import LogProof
from clearing.log.text import (
    decode_base64,
    decode_decimal,
    decode_fields,
    decode_hash,
    encode_base64,
    encode_fields,
)
from clearing.receipt import VerifiedReceipt, verify_receipt
from clearing.records.receipt import ReceiptRecord

FILE_HEADER = "clearing/anchored-receipt@v1"
HEADERS_MAX = 20_160
"""Most headers of one file: ten difficulty periods, 1.6 MB."""

FILE_BYTES_MAX = 6_000_000
DEPTH_MIN_DEFAULT = 6
"""Confirmations that are asked for unless said otherwise."""

_NAMES = {
    BitcoinNetwork.MAIN: "main",
    BitcoinNetwork.TESTNET4: "testnet4",
    BitcoinNetwork.SIGNET: "signet",
    BitcoinNetwork.REGTEST: "regtest",
}
_FIELDS = ("network", "start", "tip", "headers", "ots")


def network_name(network: BitcoinNetwork) -> str:
    """Return a network's name as files and commands write it."""
    return _NAMES[network]


def network_of(name: str) -> BitcoinNetwork:
    """Return the network of a name. Raises: DecodeError: none."""
    for network, known in _NAMES.items():
        if known == name:
            return network
    raise DecodeError(f"a Bitcoin network is one of {', '.join(_NAMES.values())}, not {name!r}")


@dataclass(frozen=True, slots=True)
class AnchoredReceipt:
    """The file's parts; nothing of it may be trusted before `verify`.

    receipt: the tlog-proof's bytes, its checkpoint the anchored note. ots: the .ots file of that note. start_height: of the first header.
    """

    network: BitcoinNetwork
    start_height: int
    headers: bytes
    ots: bytes
    receipt: bytes

    def encode(self) -> bytes:
        """Return the file.

        Raises: DecodeError: no whole headers, or more than HEADERS_MAX.
        """
        count, rest = divmod(len(self.headers), HEADER_BYTES)
        if rest or not 0 < count <= HEADERS_MAX:
            raise DecodeError(f"an anchored receipt holds 1 to {HEADERS_MAX} headers of 80 bytes")
        values = (
            _NAMES[self.network],
            str(self.start_height),
            encode_base64(sha256d(self.headers[-HEADER_BYTES:])),
            encode_base64(self.headers),
            encode_base64(self.ots),
        )
        return encode_fields(FILE_HEADER, dict(zip(_FIELDS, values, strict=True))) + self.receipt

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file.

        Raises: DecodeError: too long, not UTF-8, a line missing, superfluous or not canonical, or headers that were cut or
        altered at their end.
        """
        if len(data) > FILE_BYTES_MAX:
            raise DecodeError(f"an anchored receipt is at most {FILE_BYTES_MAX} bytes")
        head, separator, receipt = data.partition(b"\n\n")
        if not separator:
            raise DecodeError("the anchored receipt has no empty line before the receipt")
        values = decode_fields(head, FILE_HEADER, _FIELDS, "an anchored receipt")
        found = cls(
            network_of(values[0]),
            decode_decimal(values[1], "height of the first header"),
            decode_base64(values[3], "headers"),
            decode_base64(values[4], "timestamp proof"),
            receipt,
        )
        # On a network without real work another last header is found at once: so it is named.
        if decode_hash(values[2], "hash of the last header") != sha256d(
            found.headers[-HEADER_BYTES:]
        ):
            raise DecodeError("the headers do not end with the one that is named")
        if found.encode() != data:
            raise DecodeError("the anchored receipt is not canonical")
        return found

    def verify(
        self,
        policy: Policy,
        *,
        pin: Pin | None = None,
        network: BitcoinNetwork | None = None,
        depth_min: int = DEPTH_MIN_DEFAULT,
    ) -> VerifiedAnchoredReceipt:
        """Verify everything, offline: the receipt by `policy`, the timestamp of its checkpoint by the chain of headers.

        pin: a header that must be in the chain; None: the genesis block, from which the headers must then start. network: that is
        demanded; None: whichever the file names.
        Raises: DecodeError, VerificationError, HeaderError: something does not hold; it says what.
        """
        if network is not None and network is not self.network:
            raise VerificationError(
                f"the receipt is anchored on {_NAMES[self.network]}, not on {_NAMES[network]}"
            )
        receipt = verify_receipt(self.receipt, policy)
        note = LogProof.parse(self.receipt).checkpoint.encode()
        chosen = genesis_pin(self.network) if pin is None else pin
        chain = verify_chain(self.network, self.start_height, self.headers, chosen)
        proof = OtsProof.decode(self.ots)
        existence = verify_ots(proof, hashlib.sha256(note).digest(), chain, depth_min)
        return VerifiedAnchoredReceipt(
            receipt, existence, _final_at_s(receipt, policy), chain, chosen
        )


@dataclass(frozen=True, slots=True)
class VerifiedAnchoredReceipt:
    """What a two-clock receipt proves.

    final_at_s: the second at which the last cosignature that the quorum needed was made, None where none is asked for. existence:
    the block that shows it existed. chain: the headers, verified; pin: the one that was trusted.
    """

    receipt: VerifiedReceipt
    existence: Existence
    final_at_s: int | None
    chain: HeaderChain
    pin: Pin


def _final_at_s(receipt: VerifiedReceipt, policy: Policy) -> int | None:
    """Return when the quorum was complete, by the cosigners' own clocks; None where the policy asks for none."""
    if policy.quorum == QUORUM_NONE:
        return None
    for time_s in sorted(set(receipt.cosigned_s.values())):
        present = [name for name, at_s in receipt.cosigned_s.items() if at_s <= time_s]
        try:
            policy.check_quorum(present)
        except VerificationError:
            continue
        return time_s
    return None


def under_anchored_note(
    receipt: bytes, note: bytes, path: tuple[bytes, ...], genesis_path: tuple[bytes, ...]
) -> bytes:
    """Return a receipt as it reads under another checkpoint of the same log: the one that was anchored.

    note: that checkpoint with its cosignatures, as it was anchored. path, genesis_path: inclusion proofs of the receipt's leaf and of leaf 0
    in its tree. Nothing is verified here.
    Raises: DecodeError: not a receipt, not a note, or a path that is none.
    """
    proof = LogProof.parse(receipt)
    if proof.extra is None:
        raise DecodeError("the proof carries no receipt record")
    record = replace(ReceiptRecord.decode(proof.extra), genesis_path=genesis_path)
    anchored = Note.parse(note)
    return replace(proof, path=path, checkpoint=anchored, extra=record.encode()).encode()
