"""Why a client believes a node: checkpoints judged by policy, each shown to extend the one before.

Lives here: the operations that move a client's memory on, and the check of proofs against it. May not live here: the
memory's file (memory.py), calls themselves (calls.py).

The first operation of a client is `checkpoint`; so every session starts with the demand that the log extends what this
client has seen, whatever node it talks to.
"""

from __future__ import annotations

from collections.abc import Iterable

from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.proof import LogProof
from clearing.position_proof import VerifiedPosition, verify_position_proof
from clearing.receipt import VerifiedReceipt, verify_receipt
from clearing.rules.registry import Registry
from node import wire
from node.client.calls import Call, Operation
from node.client.errors import BadAnswerError, CallError
from node.client.memory import CheckpointMemory, Seen
from node.pb.v1 import audit_pb2, participant_pb2
from node.rpc_errors import Refusal

AUDIT = "/clearing.v1.AuditService/"
PARTICIPANT = "/clearing.v1.ParticipantService/"
OPERATOR = "/clearing.v1.OperatorService/"
ANCHOR = "/clearing.v1.AnchorService/"


class Trust:
    """Operations that verify what a node says against the client's memory."""

    def __init__(self, memory: CheckpointMemory) -> None:
        """Judge by `memory`."""
        self._memory = memory
        self._is_fresh = False
        self.transaction_bytes_max = 0

    @property
    def memory(self) -> CheckpointMemory:
        """What the client remembers."""
        return self._memory

    def ready(self) -> Operation[Seen]:
        """Return what is remembered, after a first checkpoint of this session."""
        if not self._is_fresh:
            yield from self.checkpoint()
        seen = self._memory.seen
        if seen is None:
            raise BadAnswerError("the network has no final checkpoint yet")
        return seen

    def checkpoint(self) -> Operation[Checkpoint]:
        """Fetch the newest final checkpoint and take it over.

        Raises: ForkDetectedError, RollbackDetectedError, BadAnswerError, CallError.
        """
        since = self._memory.seen
        size = 0 if since is None else since.checkpoint.size
        request = audit_pb2.GetCheckpointRequest(since_size=size)
        try:
            answer = yield self._get_checkpoint(request)
        except CallError as error:
            if error.reason != Refusal.ROLLBACK:
                raise
            # The node says that it has less than was seen: its own signed note is the evidence.
            shown = yield self._get_checkpoint(audit_pb2.GetCheckpointRequest())
            note = shown.checkpoint.note.encode()
            self._memory.judge(note)
            raise self._memory.rollback(note) from error
        note = answer.checkpoint.note.encode()
        if since is None:
            network_id = yield from self._proven_network(self._memory.judge(note))
            checkpoint = self._memory.accept(None, note, (), network_id)
        else:
            path = _path(answer.consistency.path)
            checkpoint = self._memory.accept(since, note, path, since.network_id)
        self._is_fresh = True
        return checkpoint

    @staticmethod
    def _get_checkpoint(request: audit_pb2.GetCheckpointRequest) -> Call:
        return Call(f"{AUDIT}GetCheckpoint", request, audit_pb2.GetCheckpointResponse)

    def _proven_network(self, checkpoint: Checkpoint) -> Operation[bytes]:
        """Return the network id, proven: it is the hash of leaf 0 under the checkpoint."""
        request = audit_pb2.GetInclusionProofRequest(index=0, size=checkpoint.size)
        answer = yield Call(
            f"{AUDIT}GetInclusionProof", request, audit_pb2.GetInclusionProofResponse
        )
        network_id = merkle.leaf_hash(answer.leaf)
        path = _path(answer.inclusion.path)
        try:
            merkle.verify_inclusion(network_id, 0, checkpoint.size, path, checkpoint.root)
        except VerificationError as error:
            raise BadAnswerError(f"leaf 0 is not in the log that was signed: {error}") from error
        return network_id

    def registry(self) -> Operation[Registry]:
        """Fetch the registers.

        They are the node's word: what is signed on their ground names numbers, and a wrong number is refused by the
        ledger or shows in the receipt.
        Raises: BadAnswerError: not those of the network that the checkpoint is of.
        """
        seen = yield from self.ready()
        answer = yield Call(
            f"{AUDIT}GetRegistry", audit_pb2.GetRegistryRequest(), audit_pb2.GetRegistryResponse
        )
        if answer.network_id != seen.network_id:
            raise BadAnswerError("the registers are of another network than the log")
        self.transaction_bytes_max = answer.transaction_bytes_max
        try:
            return wire.registry_of(answer)
        except DecodeError as error:
            raise BadAnswerError(f"the registers are malformed: {error}") from error

    def receipt(self, log_index: int, item: int | None) -> Operation[tuple[bytes, VerifiedReceipt]]:
        """Fetch a receipt and verify it, its place in what this client remembers included."""
        seen = yield from self.ready()
        request = participant_pb2.GetReceiptRequest(log_index=log_index)
        if item is not None:
            request.item = item
        answer = yield Call(f"{PARTICIPANT}GetReceipt", request, participant_pb2.GetReceiptResponse)
        data = answer.receipt.encode()
        try:
            verified = verify_receipt(data, self._memory.policy)
        except (DecodeError, VerificationError) as error:
            raise BadAnswerError(f"the receipt does not verify: {error}") from error
        number = None if verified.item is None else verified.item.number
        if (verified.index, number, verified.network_id) != (log_index, item, seen.network_id):
            raise BadAnswerError("the receipt is of something else than was asked for")
        yield from self.reconcile(LogProof.parse(data).checkpoint)
        return data, verified

    def position_proof(
        self, participant: int, asset: int
    ) -> Operation[tuple[bytes, VerifiedPosition]]:
        """Fetch a position proof and verify it, its place in what this client remembers included."""
        seen = yield from self.ready()
        request = audit_pb2.GetPositionProofRequest(participant=participant, asset=asset)
        answer = yield Call(f"{AUDIT}GetPositionProof", request, audit_pb2.GetPositionProofResponse)
        data = answer.proof.encode()
        try:
            verified = verify_position_proof(data, self._memory.policy)
        except (DecodeError, VerificationError) as error:
            raise BadAnswerError(f"the position proof does not verify: {error}") from error
        shown = (verified.participant, verified.asset, verified.network_id)
        if shown != (participant, asset, seen.network_id):
            raise BadAnswerError("the position proof is of something else than was asked for")
        yield from self.reconcile(LogProof.parse(data).checkpoint)
        return data, verified

    def inclusion(self, log_index: int, size: int) -> Operation[tuple[bytes, ...]]:
        """Fetch the inclusion proof of a leaf in the log of `size` leaves; to be verified by the caller."""
        _, path = yield from self.leaf(log_index, size)
        return path

    def leaf(self, log_index: int, size: int) -> Operation[tuple[bytes, tuple[bytes, ...]]]:
        """Fetch a leaf and its inclusion proof in the log of `size` leaves; to be verified by the caller."""
        request = audit_pb2.GetInclusionProofRequest(index=log_index, size=size)
        answer = yield Call(
            f"{AUDIT}GetInclusionProof", request, audit_pb2.GetInclusionProofResponse
        )
        return answer.leaf, _path(answer.inclusion.path)

    def reconcile(self, note: Note) -> Operation[None]:
        """Demand that a proof's checkpoint is of the history remembered, and take it over where it is newer."""
        seen = yield from self.ready()
        size = Checkpoint.parse(note.text).size
        sizes = sorted((size, seen.checkpoint.size))
        path: tuple[bytes, ...] = ()
        if sizes[0] != sizes[1]:
            request = audit_pb2.GetConsistencyProofRequest(old_size=sizes[0], new_size=sizes[1])
            answer = yield Call(
                f"{AUDIT}GetConsistencyProof", request, audit_pb2.GetConsistencyProofResponse
            )
            path = _path(answer.consistency.path)
        if size >= seen.checkpoint.size:
            self._memory.accept(seen, note.encode(), path, seen.network_id)
        else:
            self._memory.check_consistent(seen, note.encode(), path)

    def take_over(self, message: participant_pb2.WatchCheckpointsResponse) -> Checkpoint:
        """Take over a checkpoint from the stream that started at what is remembered."""
        seen = self._memory.seen
        if seen is None:
            raise BadAnswerError("the stream has no start")
        note, path = message.checkpoint.note.encode(), _path(message.consistency.path)
        return self._memory.accept(seen, note, path, seen.network_id)


def _path(hashes: Iterable[bytes]) -> tuple[bytes, ...]:
    try:
        return wire.path_of(hashes, "path")
    except DecodeError as error:
        raise BadAnswerError(f"the proof is malformed: {error}") from error
