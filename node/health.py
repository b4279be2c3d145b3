"""Whether a node answers, as whoever watches its process asks: gRPC's own health check, with the node's own certificate.

Lives here: one call. May not live here: what makes a node healthy (runtime.py says it to the server).
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node.config import NodeConfig
from node.identity import node_server_name

TIMEOUT_S = 5.0


def check_health(config: NodeConfig, timeout_s: float = TIMEOUT_S) -> str:
    """Return what the node that listens as `config` says: SERVING, NOT_SERVING; or why there is no answer.

    Raises: SetupError: its certificate is not as it must be.
    """
    options = (
        (
            "grpc.ssl_target_name_override",
            node_server_name(config.network, config.node_name),
        ),
    )
    with grpc.secure_channel(
        config.listen, config.tls.channel_credentials(), options=options
    ) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
