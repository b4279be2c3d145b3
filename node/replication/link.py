"""A follower's connection to its leader: pieces of the stream put together, cosignatures sent back.

Lives here: Link over gRPC with mutual TLS, and the assembly of blocks from parts. May not live
here: what a block is worth (replica.py), when to connect (follower.py).

Invariants: a note is passed on only after the log's signature on it has been verified; what is
assembled is bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.pb.v1 import replication_pb2, replication_pb2_grpc
from node.replication.replica import ReceivedBlock
from node.services.facade import BlockPart, FinalNote, Handshake, RedactedBody, ShownEntry
from node.tls import TlsFiles
from node.wire_nodes import handshake_message, piece_of

MESSAGE_BYTES_MAX = 16 << 20
BLOCK_BYTES_MAX = 256 << 20
"""More than any honest block: a greater one is refused before it exhausts this node's memory."""

KEEPALIVE_MS = 25_000
"""A quiet connection is probed this often; servers refuse pings faster than every 20 s."""

COSIGNATURE_TIMEOUT_S = 10

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_retries", 0),
    # Each link is a connection of its own: after a restart the old one's back-off must not delay
    # the new one.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A head that the log has signed, for a follower that has all of its leaves already."""

    note: bytes
    checkpoint: Checkpoint


Received = ReceivedBlock | Announcement | FinalNote


def verified_checkpoint(policy: Policy, origin: str, note: bytes) -> Checkpoint:
    """Return the checkpoint of a note that a log of the policy has signed under `origin`.

    Raises: DecodeError: not a signed checkpoint; VerificationError: not signed by the log, or
    another log's.
    """
    parsed = Note.parse(note)
    parsed.verified_by([log.key for log in policy.logs])
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != origin:
        raise VerificationError(
            f"the note is of log {checkpoint.origin!r}, this network's is {origin!r}"
        )
    return checkpoint


@dataclass(slots=True)
class Assembler:
    """Puts blocks together from their parts."""

    policy: Policy
    origin: str
    _entries: list[ShownEntry] = field(default_factory=list)
    _first: BlockPart | None = None
    _bytes: int = 0

    def add(self, part: BlockPart) -> ReceivedBlock | Announcement | None:
        """Take the next part; return what it completes, or None.

        Raises: DecodeError: not the next part of the block, or a block too large;
        VerificationError: the note is not signed by the log.
        """
        first = self._first or part
        if (part.height, part.first_index) != (
            first.height,
            first.first_index + len(self._entries),
        ):
            raise DecodeError(f"a part of block {part.height} is out of order")
        self._first = first
        self._entries += part.entries
        self._bytes += sum(map(_size_of, part.entries))
        if self._bytes > BLOCK_BYTES_MAX:
            raise DecodeError(f"block {part.height} is larger than {BLOCK_BYTES_MAX} bytes")
        if not part.last:
            return None
        checkpoint = verified_checkpoint(self.policy, self.origin, part.note)
        entries, self._entries = tuple(self._entries), []
        self._first, self._bytes = None, 0
        if not entries:
            return Announcement(part.note, checkpoint)
        return ReceivedBlock(
            first.height, first.first_index, entries, part.note, checkpoint, part.consistency
        )


def _size_of(entry: ShownEntry) -> int:
    shown = entry.shown
    if isinstance(shown, RedactedBody):
        return len(entry.leaf) + len(shown.commitments) + 122 * len(shown.openings)
    return len(entry.leaf) + len(shown or b"")


class Link:
    """One connection to the leader; use it as an async context manager."""

    def __init__(
        self, endpoint: str, server_name: str, tls: TlsFiles, *, policy: Policy, origin: str
    ) -> None:
        """Prepare a connection to `endpoint`, whose certificate must carry `server_name`.

        server_name: see identity.node_server_name.
        Raises: SetupError: a TLS file is missing or unfit.
        """
        self._policy = policy
        self._origin = origin
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", server_name))
        self._channel = grpc.aio.secure_channel(
            endpoint, tls.channel_credentials(), options=options
        )
        self._stub: replication_pb2_grpc.ReplicationServiceAsyncStub = (
            replication_pb2_grpc.ReplicationServiceStub(self._channel)
        )

    async def __aenter__(self) -> Self:
        """Return the link; it connects at the first call."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self._channel.close()

    async def receive(self, handshake: Handshake) -> AsyncIterator[Received]:
        """Yield what the leader sends, from the handshake's index on, until the connection ends.

        Raises: grpc.RpcError: the leader is away or refuses; DecodeError, VerificationError: what
        it sends is not the protocol, or a note is not signed by the log.
        """
        assembler = Assembler(self._policy, self._origin)
        call = self._stub.StreamBlocks(handshake_message(handshake))
        async for message in call:
            piece = piece_of(message)
            if isinstance(piece, FinalNote):
                yield piece
                continue
            received = assembler.add(piece)
            if received is not None:
                yield received

    async def add_cosignature(self, note: bytes) -> int:
        """Hand the leader a cosigned head; return the size of its greatest final checkpoint.

        Raises: grpc.RpcError: the leader is away or refuses.
        """
        request = replication_pb2.AddCosignatureRequest(note=note.decode())
        response = await self._stub.AddCosignature(request, timeout=COSIGNATURE_TIMEOUT_S)
        return response.final_size
