"""Raw blocks and transactions, read as far as anchoring needs them.

Lives here: parsing with the library's types. May not live here: what follows from a block.

Most blocks hold nothing of ours: a search over the raw bytes says so, a hundred times faster than parsing.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitcoin.core import CBlock, CTransaction
from bitcoin.core.serialize import SerializationError

from node.workers.anchoring.rpc import BadAnswerError

OUTPOINT_BYTES = 36


def outpoint(txid: bytes, index: int) -> bytes:
    """Return an output's name: 32-byte txid in internal order, 4-byte index."""
    return txid + index.to_bytes(4, "little")


def commitment_script(commitment: bytes) -> bytes:
    """Return the script of an anchor's output: OP_RETURN and 32 bytes."""
    return b"\x6a\x20" + commitment


@dataclass(frozen=True, slots=True)
class ScannedBlock:
    """A block of the best chain: height, hash in internal order, bytes."""

    height: int
    block_hash: bytes
    raw: bytes

    @property
    def previous(self) -> bytes:
        """Hash of the block before."""
        return self.raw[4:36]

    @property
    def time_s(self) -> int:
        """The time that the block states, in seconds since 1970."""
        return int.from_bytes(self.raw[68:72], "little")

    def holds(self, needle: bytes) -> bool:
        """Return whether the block's bytes hold `needle`; where not, nothing parsed from it will."""
        return needle in self.raw

    def parsed(self) -> CBlock:
        """Return the block taken apart.

        Raises: BadAnswerError: it is none.
        """
        try:
            return CBlock.deserialize(self.raw)
        except (SerializationError, ValueError, OverflowError, MemoryError) as error:
            raise BadAnswerError(f"the Bitcoin node sends block {self.height} malformed") from error


def spent_outpoints(transaction: CTransaction) -> list[bytes]:
    """Return the outpoints that a transaction spends, in order."""
    return [outpoint(bytes(one.prevout.hash), int(one.prevout.n)) for one in transaction.vin]


def carries(transaction: CTransaction, commitment: bytes) -> bool:
    """Return whether one of a transaction's outputs is the anchor of `commitment`."""
    wanted = commitment_script(commitment)
    return any(bytes(output.scriptPubKey) == wanted for output in transaction.vout)
