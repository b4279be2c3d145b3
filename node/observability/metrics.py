"""Prometheus metrics of a node, and the small HTTP server that shows them.

Lives here: every metric's name, unit and meaning. May not live here: decisions by metrics.

Invariants: own registry, so that two nodes in one process stay apart; labels come from fixed sets
(methods served, gRPC's status codes), never from what a client sent; no metric is per participant
or asset.
Source: Prometheus naming rules (base units, _total).
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from node.errors import SetupError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one node; callers say what happened, names and units are chosen here.

    `registry` is what the HTTP server shows.
    """

    def __init__(self) -> None:
        """Make all metrics, at zero."""
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._rpcs = Counter(
            "clearing_rpcs",
            "RPCs ended, by method and gRPC status code.",
            ("method", "code"),
            registry=registry,
        )
        self._rpc_seconds = Histogram(
            "clearing_rpc_seconds",
            "Duration of RPCs; of streams, from open to end.",
            ("method", "code"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._rpcs_open = Gauge(
            "clearing_rpcs_open", "RPCs being served now, streams included.", registry=registry
        )
        self._incidents = Counter(
            "clearing_incidents",
            "Unexpected exceptions in RPCs; each is in the log by its id.",
            registry=registry,
        )
        self._blocks = Counter(
            "clearing_blocks", "Blocks committed since start-up.", registry=registry
        )
        self._items = Counter(
            "clearing_items", "Obligations committed since start-up.", registry=registry
        )
        self._commit_seconds = Histogram(
            "clearing_commit_seconds",
            "Duration of a block's write, fsync included.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._log_size = Gauge("clearing_log_size_leaves", "Leaves in the log.", registry=registry)
        self._final_size = Gauge(
            "clearing_final_size_leaves",
            "Leaves covered by the latest final checkpoint.",
            registry=registry,
        )
        self._finality_lag = Gauge(
            "clearing_finality_lag_leaves", "Leaves not yet final.", registry=registry
        )
        self._finality_seconds = Histogram(
            "clearing_finality_seconds",
            "From a block's commit to its quorum.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._map_used = Gauge(
            "clearing_map_used_bytes", "Used part of the database map.", registry=registry
        )
        self._map_size = Gauge(
            "clearing_map_size_bytes", "Size of the database map.", registry=registry
        )
        self._disk_free = Gauge(
            "clearing_disk_free_bytes",
            "Free bytes of the data directory's disk.",
            registry=registry,
        )
        self._make_anchoring_gauges()

    def _make_anchoring_gauges(self) -> None:
        registry = self.registry
        self._anchors_due = Gauge(
            "clearing_anchors_due_checkpoints",
            "Final checkpoints that wait for an anchor in Bitcoin.",
            registry=registry,
        )
        self._anchor_alarms = Gauge(
            "clearing_anchor_alarms",
            "Alarms of anchoring that stand; `clearing anchor status` says which.",
            registry=registry,
        )
        self._anchor_balance = Gauge(
            "clearing_anchor_wallet_satoshi",
            "What the anchor wallet can spend.",
            registry=registry,
        )

    def anchoring(self, due: int, alarms: int, spendable_sat: int) -> None:
        """Show how anchoring stands."""
        self._anchors_due.set(due)
        self._anchor_alarms.set(alarms)
        self._anchor_balance.set(spendable_sat)

    def rpc_opened(self) -> None:
        """Count an RPC as being served."""
        self._rpcs_open.inc()

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """Count an RPC that `rpc_opened` announced; `method` must be one that the node serves."""
        self._rpcs_open.dec()
        self._rpcs.labels(method, code).inc()
        self._rpc_seconds.labels(method, code).observe(seconds)

    def incident(self) -> None:
        """Count an unexpected exception."""
        self._incidents.inc()

    def block_committed(self, items: int, seconds: float) -> None:
        """Count a durable block of `items` obligations whose write took `seconds`."""
        self._blocks.inc()
        self._items.inc(items)
        self._commit_seconds.observe(seconds)

    def heads(self, log_size: int, final_size: int) -> None:
        """Show the log's size and the part of it that is final, both in leaves."""
        self._log_size.set(log_size)
        self._final_size.set(final_size)
        self._finality_lag.set(log_size - final_size)

    def block_final(self, seconds: float) -> None:
        """Count a block that reached its quorum `seconds` after it was durable."""
        self._finality_seconds.observe(seconds)

    def storage(self, map_used_bytes: int, map_size_bytes: int, disk_free_bytes: int) -> None:
        """Show how full the database map and the disk are."""
        self._map_used.set(map_used_bytes)
        self._map_size.set(map_size_bytes)
        self._disk_free.set(disk_free_bytes)


class MetricsServer:
    """Serves metrics over plain HTTP, from a thread of its own, until closed.

    `port` is the port that it listens on. A context manager.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises: SetupError: the address cannot be had."""
        try:
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise SetupError(
                f"metrics_host, metrics_port: cannot listen on {host}:{port}: {error.strerror}; choose another"
            ) from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
