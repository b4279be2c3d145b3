"""Protobuf to facade types and back for what nodes tell each other and their operators.

Lives here: total functions between messages of operator.proto and replication.proto and the values of
services/facade.py. May not live here: what wire.py maps, rights, calls.

Names and strictness as in wire.py: `x_message(value)` makes, `x_of(message)` reads or raises DecodeError.
"""

from __future__ import annotations

from clearing.errors import DecodeError
from clearing.params import ITEMS_PER_SUBMISSION_MAX, LEAF_BYTES_MAX, RULES_VERSION
from clearing.records.obligation import ITEM_BYTES, SALT_BYTES
from node.pb.v1 import operator_pb2, replication_pb2
from node.services.facade import (
    ORDERERS,
    BlockPart,
    EngineFacts,
    FinalNote,
    Handshake,
    NodeCondition,
    NodeHead,
    NodeKind,
    NodeStatus,
    RedactedBody,
    ReplicaStatus,
    ShownEntry,
)
from node.wire import HASH_BYTES, checkpoint_message, enum_of, exactly, note_text, path_of


def status_message(status: NodeStatus, software_version: str) -> operator_pb2.GetStatusResponse:
    """Return how a node stands."""
    return operator_pb2.GetStatusResponse(
        name=status.name,
        lei=status.lei,
        kind=operator_pb2.NodeKind.ValueType(status.kind),
        condition=operator_pb2.NodeCondition.ValueType(status.condition),
        condition_detail=status.condition_detail,
        leader_endpoint=status.leader_endpoint,
        network_id=status.network_id,
        origin=status.origin,
        height=status.height,
        time_ms=status.time_ms,
        log_size=status.log_size,
        log_root=status.log_root,
        state_root=status.state_root,
        final_size=status.final_size,
        replicas=[
            operator_pb2.ReplicaStatus(
                name=replica.name,
                kind=operator_pb2.NodeKind.ValueType(replica.kind),
                connected=replica.connected,
                cosigned_size=replica.cosigned_size,
            )
            for replica in status.replicas
        ],
        divergence_report=note_text(status.divergence_report),
        rules_version=RULES_VERSION,
        software_version=software_version,
        store_bytes=status.store_bytes,
        queued_transactions=status.queued_transactions,
        engine=None if status.engine is None else _engine_message(status.engine),
    )


def _engine_message(engine: EngineFacts) -> operator_pb2.EngineStatus:
    return operator_pb2.EngineStatus(
        height=engine.height,
        catching_up=engine.is_catching_up,
        peers=engine.peers,
        power=engine.power,
    )


def _engine_of(message: operator_pb2.EngineStatus) -> EngineFacts:
    return EngineFacts(message.height, message.catching_up, message.peers, message.power)


def status_of(message: operator_pb2.GetStatusResponse) -> NodeStatus:
    """Read how a node stands.

    Raises: DecodeError: a field that is none.
    """
    return NodeStatus(
        name=message.name,
        lei=message.lei,
        kind=enum_of(NodeKind, message.kind, "kind"),
        condition=enum_of(NodeCondition, message.condition, "condition"),
        condition_detail=message.condition_detail,
        leader_endpoint=message.leader_endpoint,
        network_id=exactly(message.network_id, HASH_BYTES, "network_id"),
        origin=message.origin,
        height=message.height,
        time_ms=message.time_ms,
        log_size=message.log_size,
        log_root=exactly(message.log_root, HASH_BYTES, "log_root"),
        state_root=message.state_root,
        final_size=message.final_size,
        replicas=tuple(
            ReplicaStatus(
                replica.name,
                enum_of(NodeKind, replica.kind, "replicas.kind"),
                replica.connected,
                replica.cosigned_size,
            )
            for replica in message.replicas
        ),
        divergence_report=message.divergence_report.encode(),
        store_bytes=message.store_bytes,
        queued_transactions=message.queued_transactions,
        engine=_engine_of(message.engine) if message.HasField("engine") else None,
    )


def handshake_message(handshake: Handshake) -> replication_pb2.StreamBlocksRequest:
    """Return how a follower opens the stream; its name travels in its certificate."""
    return replication_pb2.StreamBlocksRequest(
        from_index=handshake.from_index,
        network_id=handshake.network_id,
        cosigned_note=note_text(handshake.cosigned_note),
        kind=operator_pb2.NodeKind.ValueType(handshake.kind),
    )


def handshake_of(message: replication_pb2.StreamBlocksRequest, node: str) -> Handshake:
    """Read how the follower named `node` opens the stream.

    Raises: DecodeError: a field that is none, or a follower that calls itself leader.
    """
    kind = enum_of(NodeKind, message.kind, "kind")
    if kind in ORDERERS:
        raise DecodeError("kind must be FULL_REPLICA or WITNESS_REPLICA")
    network_id = message.network_id
    if network_id:
        exactly(network_id, HASH_BYTES, "network_id")
    return Handshake(node, kind, message.from_index, network_id, message.cosigned_note.encode())


def piece_message(piece: BlockPart | FinalNote) -> replication_pb2.StreamBlocksResponse:
    """Return a piece of the stream."""
    if isinstance(piece, FinalNote):
        return replication_pb2.StreamBlocksResponse(
            final_checkpoint=checkpoint_message(piece.note, final=True)
        )
    part = replication_pb2.BlockPart(
        height=piece.height,
        first_index=piece.first_index,
        entries=[_entry_message(entry) for entry in piece.entries],
        note=note_text(piece.note),
        last=piece.last,
        consistency=piece.consistency,
    )
    return replication_pb2.StreamBlocksResponse(part=part)


def piece_of(message: replication_pb2.StreamBlocksResponse) -> BlockPart | FinalNote:
    """Read a piece of the stream.

    Raises: DecodeError: neither kind of piece, or a field that is none.
    """
    match message.WhichOneof("piece"):
        case "final_checkpoint":
            return FinalNote(message.final_checkpoint.note.encode())
        case "part":
            part = message.part
            if part.last != bool(part.note):
                raise DecodeError("the last part of a block, and only it, carries the note")
            return BlockPart(
                part.height,
                part.first_index,
                tuple(map(_entry_of, part.entries)),
                part.note.encode(),
                path_of(part.consistency, "consistency"),
            )
        case _:
            raise DecodeError("a piece of the stream is a part of a block or a final checkpoint")


def _entry_message(entry: ShownEntry) -> replication_pb2.BlockEntry:
    message = replication_pb2.BlockEntry(leaf=entry.leaf, public=entry.public)
    if isinstance(entry.shown, RedactedBody):
        message.redacted.CopyFrom(_redacted_message(entry.shown))
    elif entry.shown is not None:
        message.body = entry.shown
    return message


def _redacted_message(body: RedactedBody) -> replication_pb2.RedactedBody:
    return replication_pb2.RedactedBody(
        commitments=body.commitments,
        openings=[
            replication_pb2.ItemOpening(item=item, opening=opening)
            for item, opening in body.openings
        ],
    )


def _entry_of(message: replication_pb2.BlockEntry) -> ShownEntry:
    if not 0 < len(message.leaf) <= LEAF_BYTES_MAX:
        raise DecodeError(f"a leaf is 1 to {LEAF_BYTES_MAX} bytes, got {len(message.leaf)}")
    match message.WhichOneof("shown"):
        case "body":
            return ShownEntry(message.leaf, message.body, message.public)
        case "redacted":
            return ShownEntry(message.leaf, _redacted_of(message.redacted), message.public)
        case _:
            return ShownEntry(message.leaf, None, message.public)


def _redacted_of(message: replication_pb2.RedactedBody) -> RedactedBody:
    count, rest = divmod(len(message.commitments), HASH_BYTES)
    if rest or not 0 < count <= ITEMS_PER_SUBMISSION_MAX:
        raise DecodeError(f"a submission has 1 to {ITEMS_PER_SUBMISSION_MAX} commitments")
    openings = tuple(
        (part.item, exactly(part.opening, SALT_BYTES + ITEM_BYTES, "opening"))
        for part in message.openings
    )
    floor = -1
    for item, _ in openings:
        if not floor < item < count:
            raise DecodeError("openings must ascend and be of items of the submission")
        floor = item
    return RedactedBody(message.commitments, openings)


def node_head_message(head: NodeHead) -> replication_pb2.GetHeadResponse:
    """Return a node's newest head."""
    return replication_pb2.GetHeadResponse(
        note=note_text(head.note),
        height=head.height,
        kind=operator_pb2.NodeKind.ValueType(head.kind),
        condition=operator_pb2.NodeCondition.ValueType(head.condition),
    )


def node_head_of(message: replication_pb2.GetHeadResponse) -> NodeHead:
    """Read a node's newest head.

    Raises: DecodeError: a field that is none.
    """
    return NodeHead(
        message.note.encode(),
        message.height,
        enum_of(NodeKind, message.kind, "kind"),
        enum_of(NodeCondition, message.condition, "condition"),
    )
