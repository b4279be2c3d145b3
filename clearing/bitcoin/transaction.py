"""Transactions as the ledger needs them: outpoints, outputs, and a transaction without its witnesses.

Lives here: those values, their parsing, which scripts settle, dust, and the proof that a block holds a transaction. May
not live here: signatures (psbt.py), who pays whom (settlement.py), whether a block counts (headers).

Hashes are in internal byte order, as they are hashed; people see them reversed (`shown`). Invariant: a transaction that
is no longer than a pair of hashes, or reads as one, is refused, so that no inner node of a Merkle tree passes for one.
Source: BIP 141 (weight, witness programs), BIP 341 (taproot outputs), CVE-2017-12842; parsing by btclib.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from btclib.block import merkle_proof
from btclib.exceptions import BTClibException
from btclib.tx import Tx

from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError, VerificationError

MONEY_SAT_MAX = 21_000_000 * 100_000_000
OUTPOINT_BYTES = 36
SCRIPT_BYTES_MAX = 34
INNER_NODE_BYTES = 64
BRANCH_HASHES_MAX = 32

P2WPKH_BYTES = 22
P2TR_BYTES = 34
_P2WPKH_HEAD = b"\x00\x14"
_P2TR_HEAD = b"\x51\x20"

DUST_SAT = {P2WPKH_BYTES: 294, P2TR_BYTES: 330}
"""Outputs below are not relayed. Source: Bitcoin Core src/policy/policy.cpp GetDustThreshold at 3,000 sat/kvB."""


def sha256d(data: bytes) -> bytes:
    """Return SHA-256 of SHA-256."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def shown(hash_: bytes) -> str:
    """Return a hash as Bitcoin shows it: reversed, in hexadecimal."""
    return hash_[::-1].hex()


def is_settlement_script(script: bytes) -> bool:
    """Return whether value may be settled to and from this script: P2WPKH or P2TR.

    Their transactions have an identity that no signature changes.
    """
    return (len(script) == P2WPKH_BYTES and script.startswith(_P2WPKH_HEAD)) or (
        len(script) == P2TR_BYTES and script.startswith(_P2TR_HEAD)
    )


def dust_sat(script: bytes) -> int:
    """Return the least amount that is paid to a settlement script. Raises: KeyError: it is none."""
    return DUST_SAT[len(script)]


@dataclass(frozen=True, slots=True, order=True)
class Outpoint:
    """An output by where it was made: txid (internal order) and index."""

    txid: bytes
    index: int

    def encode(self) -> bytes:
        """Return the 36 bytes that an input holds."""
        return self.txid + self.index.to_bytes(4, "little")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse 36 bytes.

        Raises: DecodeError: not 36.
        """
        if len(data) != OUTPOINT_BYTES:
            raise DecodeError(f"an outpoint is {OUTPOINT_BYTES} bytes, got {len(data)}")
        return cls(data[:32], int.from_bytes(data[32:], "little"))

    def __str__(self) -> str:
        """Return txid:index as Bitcoin shows it."""
        return f"{shown(self.txid)}:{self.index}"


@dataclass(frozen=True, slots=True)
class Output:
    """What an output pays, in satoshi, and to which script."""

    amount_sat: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction without witnesses; raw is that form, whose double SHA-256 is its txid."""

    raw: bytes
    txid: bytes
    inputs: tuple[Outpoint, ...]
    outputs: tuple[Output, ...]
    is_coinbase: bool
    input_scripts: tuple[bytes, ...]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse a transaction whose witnesses have been left out.

        Raises: DecodeError: not exactly one, with witnesses, against Bitcoin's rules for a transaction alone, or so
        short that it may be an inner node of a Merkle tree.
        """
        if len(data) <= INNER_NODE_BYTES:
            raise DecodeError(
                f"a transaction of {len(data)} bytes may be no transaction: {INNER_NODE_BYTES + 1} at least"
            )
        try:
            tx = Tx.parse(data)
            again = tx.serialize(include_witness=False)
        except BTClibException as error:
            raise DecodeError(f"not a transaction: {error}") from error
        if again != data:
            raise DecodeError("not a transaction without its witnesses")
        return cls(
            raw=data,
            txid=sha256d(data),
            inputs=tuple(Outpoint(one.prev_out.tx_id[::-1], one.prev_out.vout) for one in tx.vin),
            outputs=tuple(Output(one.value, one.script_pub_key.script) for one in tx.vout),
            is_coinbase=bool(tx.is_coinbase),
            input_scripts=tuple(one.script_sig for one in tx.vin),
        )


def without_witness(data: bytes) -> bytes:
    """Return a transaction's bytes without witnesses.

    Raises: DecodeError: not a transaction.
    """
    try:
        return bytes(Tx.parse(data).serialize(include_witness=False))
    except BTClibException as error:
        raise DecodeError(f"not a transaction: {error}") from error


def verify_branch(txid: bytes, branch: Sequence[bytes], position: int, merkle_root: bytes) -> None:
    """Check that a block whose header names `merkle_root` holds `txid` at `position`.

    branch: one sibling a level, bottom-up; all hashes in internal order.
    Raises: VerificationError: it does not, or an inner node on the way reads as a transaction.
    """
    if position < 0 or position >> len(branch):
        raise VerificationError(f"a branch of {len(branch)} hashes has no position {position}")
    try:
        merkle_proof.assert_as_valid(
            txid[::-1], [one[::-1] for one in branch], position, merkle_root[::-1]
        )
    except BTClibException as error:
        raise VerificationError(f"the block does not hold the transaction: {error}") from error


PROOF_LAYOUT = Layout(
    "transaction proof",
    raw("block_hash", 32),
    uint("position", 4),
    uint("branch_hashes", 2),
    reserved(2),
    uint("transaction_bytes", 4),
)


@dataclass(frozen=True, slots=True)
class TransactionProof:
    """A transaction and its place in a block: what shows to anyone who has the block's header that it happened."""

    block_hash: bytes
    position: int
    branch: tuple[bytes, ...]
    transaction: Transaction

    def encode(self) -> bytes:
        """Return the canonical bytes: 44, 32 for each hash of the branch, and the transaction's."""
        head = PROOF_LAYOUT.encode(
            block_hash=self.block_hash,
            position=self.position,
            branch_hashes=len(self.branch),
            transaction_bytes=len(self.transaction.raw),
        )
        return head + b"".join(self.branch) + self.transaction.raw

    @classmethod
    def decode_from(cls, data: bytes) -> tuple[Self, bytes]:
        """Parse the canonical bytes at the start of `data` and return what follows them.

        Raises: DecodeError: cut short, too long a branch, or no transaction.
        """
        head = PROOF_LAYOUT.decode(data[: PROOF_LAYOUT.width])
        if head["branch_hashes"] > BRANCH_HASHES_MAX:
            raise DecodeError(f"a branch has at most {BRANCH_HASHES_MAX} hashes")
        start = PROOF_LAYOUT.width
        end = start + 32 * head["branch_hashes"]
        branch = split_records(data[start:end], 32, head["branch_hashes"], "hashes of a branch")
        last = end + head["transaction_bytes"]
        if len(data) < last:
            raise DecodeError("the proof's transaction is cut short")
        proof = cls(
            head["block_hash"], head["position"], tuple(branch), Transaction.decode(data[end:last])
        )
        return proof, data[last:]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: as decode_from, or bytes are left over.
        """
        proof, rest = cls.decode_from(data)
        if rest:
            raise DecodeError(f"{len(rest)} bytes follow the proof")
        return proof

    def verify(self, header: bytes) -> None:
        """Check the proof against the block's header (80 bytes).

        Raises: VerificationError: another block, or the block does not hold the transaction there.
        """
        if sha256d(header) != self.block_hash:
            raise VerificationError("the header is another block's")
        verify_branch(self.transaction.txid, self.branch, self.position, header[36:68])
