"""Receipts: making and verifying the proof that a submission, one of its items, or an instruction is in the log.

Lives here: `make_receipt` for nodes, `verify_receipt` for whoever holds the file and the policy: no node, no network.
May not live here: files, keys, and whether what was recorded is still in force: a receipt proves what was recorded and
when at the latest, not what became of it.

A receipt is a C2SP tlog-proof whose `extra` is a ReceiptRecord. What is verified, in this order: the checkpoint's
signatures by the policy; the leaf's inclusion; leaf 0's inclusion (the network id); the opening against the leaf.
The submitter's own signature needs its registered key, which no receipt carries: `VerifiedReceipt.verify_signature`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import ITEM_BYTES, LAYOUT, SALT_BYTES, commitments_of, opening_of
from clearing.records.receipt import Opened, ReceiptRecord
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction


@dataclass(frozen=True, slots=True)
class VerifiedItem:
    """One opened obligation; parties and asset are registry numbers, due_ms 0 for none."""

    number: int
    kind: int
    priority: int
    debtor: int
    creditor: int
    asset: int
    due_ms: int
    amount_units: int
    trade_ref_hash: bytes
    compliance_ref_hash: bytes

    @classmethod
    def of_record(cls, number: int, record: bytes) -> VerifiedItem:
        """Parse an obligation record.

        Raises: DecodeError: not 102 bytes.
        """
        values = LAYOUT.decode(record)
        del values["version"], values["flags"]
        return cls(number, **values)


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves.

    index: log index of the leaf. transaction: the leaf, parsed; its body is empty, except an instruction's that was
    opened. item: the obligation that was opened, or None. checkpoint: the head under which it is proven.
    cosigned_s: the policy's names of those who cosigned it, each with the second (since 1970) at which it did.
    """

    network_id: bytes
    index: int
    transaction: Transaction
    item: VerifiedItem | None
    checkpoint: Checkpoint
    cosigned_s: Mapping[str, int]

    def verify_signature(self, public_key: bytes) -> None:
        """Check the signature of the party that made the transaction against its Ed25519 key, 32 bytes.

        Raises: VerificationError: it is not by this key for this network.
        """
        self.transaction.verify_signature(self.network_id, public_key)


def item_tree(submission: Submission) -> merkle.HashedLeaves:
    """Return the tree over a submission's commitments: two hashes an item; keep it to open several items.

    Caller: the submission has its body.
    """
    return merkle.HashedLeaves(commitments_of(submission.secret, submission.records))


def make_receipt(
    *,
    network_id: bytes,
    index: int,
    transaction: Transaction,
    checkpoint: Note,
    nodes: merkle.NodeReader,
    item: int | None = None,
    tree: merkle.HashedLeaves | None = None,
) -> bytes:
    """Return the receipt of a transaction of our own log, as the text of a tlog-proof.

    item: the item of a submission to open, with `tree` its item_tree; None opens nothing of a submission. An
    instruction's payload is opened when its body is there. Caller: `transaction` is leaf `index`.
    Raises: VerificationError: the checkpoint does not cover the leaf; DecodeError: no such item, or an item without
        the submission's body and tree.
    """
    size = Checkpoint.parse(checkpoint.text).size
    genesis_path = merkle.inclusion_proof(0, size, nodes)
    record = ReceiptRecord(network_id, transaction.leaf, genesis_path)
    if isinstance(transaction, Instruction):
        if item is not None:
            raise DecodeError("an instruction has no items")
        if transaction.body:
            record = ReceiptRecord(
                network_id, transaction.leaf, genesis_path, Opened.PAYLOAD, transaction.body
            )
    elif item is not None:
        record = _item_record(network_id, transaction, genesis_path, item, tree)
    return LogProof.make(index, checkpoint, nodes, record.encode()).encode()


def _item_record(
    network_id: bytes,
    submission: Submission,
    genesis_path: tuple[bytes, ...],
    item: int,
    tree: merkle.HashedLeaves | None,
) -> ReceiptRecord:
    if not submission.body or tree is None:
        raise DecodeError("an item cannot be opened without its submission's body")
    if not 0 <= item < submission.count:
        raise DecodeError(f"the submission has items 0 to {submission.count - 1}")
    return ReceiptRecord(
        network_id,
        submission.leaf,
        genesis_path,
        Opened.ITEM,
        opening_of(submission.secret, submission.records, item),
        item,
        merkle.inclusion_proof(item, submission.count, tree),
    )


def verify_receipt(data: bytes, policy: Policy) -> VerifiedReceipt:
    """Verify a receipt, offline.

    To trust a log's key alone pass `Policy.of_log(key)`. The network id returned is the one that the log itself
    starts with; compare it where it is known.
    Raises: DecodeError: not a receipt; VerificationError: the policy refuses the checkpoint, the leaf or leaf 0 is
        not under it, or the opening is not what was signed.
    """
    proof = LogProof.parse(data)
    if proof.extra is None:
        raise DecodeError("the proof carries no receipt record")
    record = ReceiptRecord.decode(proof.extra)
    quorum = proof.check(merkle.leaf_hash(record.leaf), policy)
    head = quorum.checkpoint
    # The network id is the leaf hash of leaf 0, so the log itself says which network it is.
    merkle.verify_inclusion(record.network_id, 0, head.size, record.genesis_path, head.root)
    transaction, item = _verify_opening(record)
    cosigned_s = {name: sig.timestamp_s or 0 for name, sig in quorum.cosignatures.items()}
    return VerifiedReceipt(record.network_id, proof.index, transaction, item, head, cosigned_s)


def _verify_opening(record: ReceiptRecord) -> tuple[Transaction, VerifiedItem | None]:
    kind = leaf_kind(record.leaf)
    if kind is LeafKind.INSTRUCTION:
        if record.opened is Opened.ITEM:
            raise VerificationError("an instruction has no items to open")
        instruction = Instruction.of_leaf(record.leaf)
        if record.opened is Opened.PAYLOAD:
            instruction = Instruction.decode(record.leaf + record.opening)
            instruction.verify_commitment()
        return instruction, None
    if kind is not LeafKind.SUBMISSION:
        raise VerificationError(f"a {kind.name} leaf is no party's, it needs no receipt")
    submission = Submission.of_leaf(record.leaf)
    if record.opened is Opened.NOTHING:
        return submission, None
    if record.opened is Opened.PAYLOAD or len(record.opening) != SALT_BYTES + ITEM_BYTES:
        raise VerificationError("the opening is none of an item")
    merkle.verify_inclusion(
        merkle.leaf_hash(record.opening),
        record.item,
        submission.count,
        record.item_path,
        submission.commitment_root,
    )
    return submission, VerifiedItem.of_record(record.item, record.opening[SALT_BYTES:])
