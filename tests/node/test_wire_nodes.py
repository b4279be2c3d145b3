"""What nodes tell each other comes back as it went, and half a message is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from node import wire_nodes
from node.pb.v1 import operator_pb2, replication_pb2
from node.services.facade import (
    BlockPart,
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

U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (32, 64))
HASHES = st.binary(min_size=32, max_size=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NOTES = TEXTS.map(str.encode)
KINDS = st.sampled_from(NodeKind)
CONDITIONS = st.sampled_from(NodeCondition)
STATUSES = st.builds(
    NodeStatus, TEXTS, TEXTS, KINDS, CONDITIONS, TEXTS, TEXTS, HASHES, TEXTS, U64, U64, U64, HASHES,
    HASHES | st.just(b""), U64,
    st.lists(st.builds(ReplicaStatus, TEXTS, KINDS, st.booleans(), U64), max_size=3).map(tuple),
    NOTES, U64, U32,
)  # fmt: skip


@st.composite
def redacted(draw: st.DrawFn) -> RedactedBody:
    count = draw(st.integers(1, 5))
    items = sorted(draw(st.sets(st.integers(0, count - 1))))
    openings = tuple((item, draw(st.binary(min_size=118, max_size=118))) for item in items)
    return RedactedBody(draw(st.binary(min_size=32 * count, max_size=32 * count)), openings)


ENTRIES = st.builds(
    ShownEntry,
    st.binary(min_size=1, max_size=40),
    st.none() | st.binary(max_size=40) | redacted(),
    st.booleans(),
)
PARTS = st.builds(
    BlockPart,
    U64,
    U64,
    st.lists(ENTRIES, max_size=4).map(tuple),
    NOTES,
    st.lists(HASHES, max_size=4).map(tuple),
)


@given(STATUSES)
def test_status(status: NodeStatus) -> None:
    message = wire_nodes.status_message(status, "1.2.3")
    assert wire_nodes.status_of(message) == status
    assert message.software_version == "1.2.3"


@given(
    st.builds(
        Handshake,
        st.just("ministry"),
        st.sampled_from([NodeKind.FULL_REPLICA, NodeKind.WITNESS_REPLICA]),
        U64,
        HASHES | st.just(b""),
        NOTES,
    )
)
def test_handshake(handshake: Handshake) -> None:
    message = wire_nodes.handshake_message(handshake)
    assert wire_nodes.handshake_of(message, "ministry") == handshake


@pytest.mark.parametrize(
    "message",
    [
        replication_pb2.StreamBlocksRequest(),
        replication_pb2.StreamBlocksRequest(kind=operator_pb2.NODE_KIND_LEADER),
        replication_pb2.StreamBlocksRequest(kind=operator_pb2.NODE_KIND_FULL_REPLICA, network_id=b"x"),
    ],
)  # fmt: skip
def test_a_handshake_that_is_none_is_refused(message: replication_pb2.StreamBlocksRequest) -> None:
    with pytest.raises(DecodeError):
        wire_nodes.handshake_of(message, "ministry")


@given(PARTS | st.builds(FinalNote, NOTES))
def test_pieces(piece: BlockPart | FinalNote) -> None:
    data = wire_nodes.piece_message(piece).SerializeToString()
    assert wire_nodes.piece_of(replication_pb2.StreamBlocksResponse.FromString(data)) == piece


def part(*entries: replication_pb2.BlockEntry) -> replication_pb2.StreamBlocksResponse:
    return replication_pb2.StreamBlocksResponse(part=replication_pb2.BlockPart(entries=entries))


def opening(item: int, size: int = 118) -> replication_pb2.ItemOpening:
    return replication_pb2.ItemOpening(item=item, opening=bytes(size))


def body(
    commitments: int, *openings: replication_pb2.ItemOpening
) -> replication_pb2.StreamBlocksResponse:
    shown = replication_pb2.RedactedBody(commitments=bytes(commitments), openings=openings)
    return part(replication_pb2.BlockEntry(leaf=b"x", redacted=shown))


@pytest.mark.parametrize(
    "message",
    [
        replication_pb2.StreamBlocksResponse(),
        replication_pb2.StreamBlocksResponse(part=replication_pb2.BlockPart(last=True)),
        replication_pb2.StreamBlocksResponse(part=replication_pb2.BlockPart(note="x")),
        replication_pb2.StreamBlocksResponse(part=replication_pb2.BlockPart(consistency=[b"x"])),
        part(replication_pb2.BlockEntry()),
        part(replication_pb2.BlockEntry(leaf=bytes(65_536))),
        body(0),
        body(31),
        body(50_001 * 32),
        body(64, opening(2)),
        body(64, opening(1), opening(1)),
        body(64, opening(1), opening(0)),
        body(64, opening(0, 117)),
    ],
)
def test_a_piece_that_is_none_is_refused(message: replication_pb2.StreamBlocksResponse) -> None:
    with pytest.raises(DecodeError):
        wire_nodes.piece_of(message)


@given(st.builds(NodeHead, NOTES, U64, KINDS, CONDITIONS))
def test_heads(head: NodeHead) -> None:
    assert wire_nodes.node_head_of(wire_nodes.node_head_message(head)) == head


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        message = replication_pb2.StreamBlocksResponse.FromString(data)
    except Exception:  # noqa: BLE001 - protobuf's own refusal, of whatever type it is in this version
        return
    try:
        wire_nodes.piece_of(message)
    except DecodeError:
        return
