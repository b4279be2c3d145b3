"""Metrics say what happened, and are served to a stock HTTP client."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.errors import SetupError
from node.observability import Metrics, MetricsServer


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_blocks_and_items_are_counted() -> None:
    metrics = Metrics()
    metrics.block_committed(10_000, 0.004)
    metrics.block_committed(1, 0.2)
    assert value(metrics, "clearing_blocks_total") == 2
    assert value(metrics, "clearing_items_total") == 10_001
    assert value(metrics, "clearing_commit_seconds_count") == 2
    assert value(metrics, "clearing_commit_seconds_bucket", le="0.005") == 1
    assert value(metrics, "clearing_commit_seconds_bucket", le="0.25") == 2


def test_heads_show_the_lag_of_finality() -> None:
    metrics = Metrics()
    metrics.heads(120, 100)
    metrics.block_final(0.3)
    assert value(metrics, "clearing_log_size_leaves") == 120
    assert value(metrics, "clearing_final_size_leaves") == 100
    assert value(metrics, "clearing_finality_lag_leaves") == 20
    assert value(metrics, "clearing_finality_seconds_count") == 1


def test_anchoring_is_shown() -> None:
    metrics = Metrics()
    metrics.anchoring(7, 2, 123_456)
    shown = {
        name: metrics.registry.get_sample_value(name)
        for name in (
            "clearing_anchors_due_checkpoints",
            "clearing_anchor_alarms",
            "clearing_anchor_wallet_satoshi",
        )
    }
    assert list(shown.values()) == [7, 2, 123_456]


def test_storage_is_shown() -> None:
    metrics = Metrics()
    metrics.storage(1, 2, 3)
    assert value(metrics, "clearing_map_used_bytes") == 1
    assert value(metrics, "clearing_map_size_bytes") == 2
    assert value(metrics, "clearing_disk_free_bytes") == 3


def test_rpcs_are_counted_by_method_and_code() -> None:
    metrics = Metrics()
    metrics.rpc_opened()
    metrics.rpc_opened()
    assert value(metrics, "clearing_rpcs_open") == 2
    metrics.rpc_ended("/a/B", "OK", 0.02)
    metrics.incident()
    assert value(metrics, "clearing_rpcs_open") == 1
    assert value(metrics, "clearing_rpcs_total", method="/a/B", code="OK") == 1
    assert value(metrics, "clearing_rpc_seconds_count", method="/a/B", code="OK") == 1
    assert value(metrics, "clearing_incidents_total") == 1


def test_two_nodes_of_one_process_stay_apart() -> None:
    first, second = Metrics(), Metrics()
    first.block_committed(1, 0)
    assert value(second, "clearing_blocks_total") == 0


def test_metrics_are_served_until_closed() -> None:
    metrics = Metrics()
    metrics.heads(7, 5)
    with MetricsServer(metrics, "127.0.0.1", 0) as server:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.port}/metrics", timeout=20
        ) as answer:
            text = answer.read().decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["clearing_log_size_leaves"].samples[0].value == 7
        assert families["clearing_finality_lag_leaves"].samples[0].value == 2
        assert all(family.documentation for family in families.values())
        # The port is taken: a second server says so, by the keys of the configuration.
        with pytest.raises(SetupError, match="metrics_host, metrics_port: cannot listen"):
            MetricsServer(metrics, "127.0.0.1", server.port)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=20)


def test_unknown_host_is_refused() -> None:
    with pytest.raises(SetupError, match="cannot listen"):
        MetricsServer(Metrics(), "host.invalid", 0)
