# ruff: noqa: N802 - the methods of a servicer are named by the .proto file
"""OperatorService: how a node stands.

Lives here: the handler of operator.proto. May not live here: anything that changes the ledger.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from node.pb.v1 import operator_pb2, operator_pb2_grpc
from node.services.facade import Ledger
from node.wire_nodes import status_message

DISTRIBUTION = "clearing-ledger"


class OperatorService(operator_pb2_grpc.OperatorServiceServicer):
    """The handler; comments in operator.proto say what it promises."""

    def __init__(self, ledger: Ledger) -> None:
        """Serve `ledger`."""
        self._ledger = ledger
        self._version = version(DISTRIBUTION)

    async def GetStatus(self, request: operator_pb2.GetStatusRequest, context: Any) -> Any:
        """Return how the node stands."""
        del request, context
        return status_message(self._ledger.status(), self._version)
