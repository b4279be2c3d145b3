"""What a block orders: a submission or an instruction, told apart by the second byte.

Lives here: the union and its parser. May not live here: anything about either kind.
"""

from __future__ import annotations

from clearing.errors import DecodeError
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.submission import Submission

Transaction = Submission | Instruction


def decode_transaction(data: bytes) -> Transaction:
    """Parse the bytes of one transaction, `leaf || body`.

    Raises: DecodeError: neither a canonical submission nor a canonical instruction.
    """
    kind = leaf_kind(data)
    if kind is LeafKind.SUBMISSION:
        return Submission.decode(data)
    if kind is LeafKind.INSTRUCTION:
        return Instruction.decode(data)
    raise DecodeError(f"a {kind.name} leaf is written by the ledger itself and is no transaction")


def actor_of(transaction: Transaction) -> int:
    """Return the registry number of the party that signed."""
    return transaction.submitter if isinstance(transaction, Submission) else transaction.actor
