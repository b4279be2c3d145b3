"""The gRPC server of a node: all services behind observation and admission, with its limits.

Lives here: options and assembly. May not live here: what is served (the services), credentials and ports (runtime).
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from node.auth import Access, AccessInterceptor
from node.pb.v1 import (
    anchor_pb2,
    anchor_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    participant_pb2,
    participant_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
)
from node.services.anchor import AnchorService
from node.services.audit import AuditService
from node.services.facade import Anchoring, Ledger, Replication
from node.services.operator import OperatorService
from node.services.participant import ParticipantService
from node.services.replication import ReplicationService

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Both ways, both ends: a submission of 50,000 items is 5.1 MB."""

CONCURRENT_RPCS_MAX = 1_000
"""Calls served at once; further ones are RESOURCE_EXHAUSTED at once instead of waiting for memory."""

KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
PING_INTERVAL_MS_MIN = 20_000
"""Clients ping a quiet connection every KEEPALIVE_MS; a server that allows less often would drop them for it."""

MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
)
"""Options of both ends."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two processes on one port would share clients between two ledgers unseen.
    ("grpc.so_reuseport", 0),
)

SERVICES: tuple[str, ...] = tuple(
    service.full_name
    for module in (participant_pb2, audit_pb2, anchor_pb2, operator_pb2, replication_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Full names of our services."""


@dataclass(frozen=True, slots=True)
class NodeServer:
    """A server that is assembled and not yet started, and its health, which the runtime sets."""

    server: grpc.aio.Server
    health: health.aio.HealthServicer

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether the node serves; "" and every service of ours answer alike."""
        status = health_pb2.HealthCheckResponse
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ("", *SERVICES):
            await self.health.set(name, value)


def make_server(
    ledger: Ledger,
    replication: Replication,
    access: Access,
    observer: grpc.aio.ServerInterceptor,
    anchoring: Anchoring | None = None,
) -> NodeServer:
    """Assemble the server; the caller adds a port with credentials, starts and stops it.

    observer: outermost interceptor, which turns refusals into statuses with details (observability.rpc).
    """
    server = grpc.aio.server(
        interceptors=[observer, AccessInterceptor(access)],
        options=list(SERVER_OPTIONS),
        maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX,
    )
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(
        ParticipantService(ledger), server
    )
    audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(ledger), server)
    operator_pb2_grpc.add_OperatorServiceServicer_to_server(OperatorService(ledger), server)
    anchor_pb2_grpc.add_AnchorServiceServicer_to_server(AnchorService(ledger, anchoring), server)
    replication_pb2_grpc.add_ReplicationServiceServicer_to_server(
        ReplicationService(replication), server
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return NodeServer(server, health_servicer)
