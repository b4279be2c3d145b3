"""What an operator sees of a running node: JSON logs, Prometheus metrics, every RPC counted.

Lives here: logs.py, metrics.py, rpc.py. May not live here: anything that decides; a node that
nobody observes behaves the same.
"""

from __future__ import annotations

from node.observability.logs import configure_logging, get_logger
from node.observability.metrics import Metrics, MetricsServer
from node.observability.rpc import RpcObserver

__all__ = ["Metrics", "MetricsServer", "RpcObserver", "configure_logging", "get_logger"]
