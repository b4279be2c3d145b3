# ruff: noqa: N802 - the methods of a servicer are named by the .proto file
"""ReplicationService: the wire side of replication.

Lives here: the handlers of replication.proto. May not live here: what is streamed and to whom what is shown
(node/replication), who may call (auth.py).

Invariant: a follower's name is that of its certificate, never one that it sends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from clearing.errors import DecodeError, VerificationError
from node.auth import caller
from node.pb.v1 import replication_pb2, replication_pb2_grpc
from node.rpc_errors import Refusal, refusal
from node.services.common import bad_request
from node.services.facade import Replication
from node.wire_nodes import handshake_of, node_head_message, piece_message


class ReplicationService(replication_pb2_grpc.ReplicationServiceServicer):
    """The handlers; comments in replication.proto say what each call promises."""

    def __init__(self, replication: Replication) -> None:
        """Serve `replication`."""
        self._replication = replication

    async def StreamBlocks(
        self, request: replication_pb2.StreamBlocksRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Stream blocks to the follower."""
        del context
        with bad_request():
            handshake = handshake_of(request, caller().identity.name)
        async with aclosing(self._replication.stream(handshake)) as pieces:
            # The handshake is judged before the first piece; what fails later is not the follower's fault.
            with _bad_note():
                first = await anext(pieces)
            yield piece_message(first)
            async for piece in pieces:
                yield piece_message(piece)

    async def AddCosignature(
        self, request: replication_pb2.AddCosignatureRequest, context: Any
    ) -> Any:
        """Take the follower's cosignature."""
        del context
        name = caller().identity.name
        with _bad_note():
            final_size = await self._replication.add_cosignature(name, request.note.encode())
        return replication_pb2.AddCosignatureResponse(final_size=final_size)

    async def GetHead(self, request: replication_pb2.GetHeadRequest, context: Any) -> Any:
        """Return this node's head."""
        del request, context
        return node_head_message(self._replication.head())


@contextmanager
def _bad_note() -> Iterator[None]:
    """Turn what is wrong with a follower's note into BAD_REQUEST."""
    try:
        yield
    except (DecodeError, VerificationError) as error:
        raise refusal(Refusal.BAD_REQUEST, str(error)) from error
