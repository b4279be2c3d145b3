"""A node's configuration: strict, explained, and contradictions refused by name."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from node.config import LogLevel, NodeConfig, ReplicaRole, load_config, parse_config, write_config
from node.errors import SetupError

DIRECTORY = Path("/srv/node")
RPC_URL = "http://127.0.0.1:8332"


def leader(**changes: Any) -> NodeConfig:
    """Return a leader's configuration, with `changes`."""
    values: dict[str, Any] = {
        "network": "clearing.example",
        "node_name": "central-bank",
        "role": ReplicaRole.LEADER,
        "data_dir": DIRECTORY / "data",
        "tls_authority_path": DIRECTORY / "ca.pem",
        "tls_certificate_path": DIRECTORY / "cert.pem",
        "tls_key_path": DIRECTORY / "key.pem",
        "signing_key_path": DIRECTORY / "signing.key",
        "log_key_path": DIRECTORY / "log.key",
        "policy_path": DIRECTORY / "policy",
    }
    return NodeConfig(**{**values, **changes})


def follower(**changes: Any) -> NodeConfig:
    """Return a follower's configuration, with `changes`."""
    values: dict[str, Any] = {
        "node_name": "ministry",
        "role": ReplicaRole.FULL,
        "log_key_path": None,
        "leader_endpoint": "127.0.0.1:7400",
        "leader_name": "central-bank",
    }
    return leader(**{**values, **changes})


def test_written_configuration_is_read_back_also_after_the_directory_moved(tmp_path: Path) -> None:
    for number, config in enumerate(
        (leader(), follower(metrics_port=9100, log_level=LogLevel.DEBUG))
    ):
        first = tmp_path / f"first{number}"
        first.mkdir()
        moved = {
            key: first / value.name
            for key, value in dataclasses.asdict(config).items()
            if isinstance(value, Path)
        }
        config = dataclasses.replace(config, **moved)  # noqa: PLW2901 - the same configuration in another place
        write_config(first / "node.toml", config)
        assert load_config(first / "node.toml") == config
        second = first.rename(tmp_path / f"second{number}")
        assert load_config(second / "node.toml").tls_key_path == second / "key.pem"


def test_configuration_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    write_config(path, leader())
    with pytest.raises(SetupError, match="not overwritten"):
        write_config(path, follower())
    write_config(path, follower(), replace=True)
    assert load_config(path) == follower()


def test_every_key_has_a_sentence_and_numbers_have_a_unit(tmp_path: Path) -> None:
    write_config(tmp_path / "node.toml", leader())
    text = (tmp_path / "node.toml").read_text()
    table = tomllib.loads(text)
    for field in dataclasses.fields(NodeConfig):
        assert field.metadata["sentence"].endswith(".")
        assert field.name in table
        assert f"# {field.metadata['sentence']}" in text
        if isinstance(table[field.name], int) and field.name != "metrics_port":
            assert f"Unit: {field.metadata['unit']}" in text
            assert field.metadata["check"] is not None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"network": "Clearing Example"}, "network: a network's name"),
        ({"node_name": "a/b"}, "node_name: a node's name"),
        ({"listen": "7400"}, "listen: must be host:port"),
        ({"block_items_max": 0}, "block_items_max: must be 1 to"),
        ({"block_wait_ms_max": -1}, "block_wait_ms_max: must be 0 to"),
        ({"map_size_bytes": 4096}, "map_size_bytes: must be"),
        ({"free_disk_bytes_min": 0}, "free_disk_bytes_min: must be"),
        ({"metrics_port": 65536}, "metrics_port: must be 0 to 65535"),
        ({"log_key_path": None}, "log_key_path: the leader signs"),
        ({"leader_endpoint": "a:1"}, "leader_endpoint, leader_name: the leader follows nobody"),
        ({"leader_name": "ministry"}, "leader_endpoint, leader_name: the leader follows nobody"),
        ({"bitcoin_rpc_url": RPC_URL}, "instruction_key_path: who follows the Bitcoin chain"),
        (
            {
                "bitcoin_rpc_url": RPC_URL,
                "instruction_key_path": DIRECTORY / "instruction.key",
                "anchor_fee_rate_fallback": 90_000,
                "anchor_fee_rate_max": 80_000,
            },
            "anchor_fee_rate_fallback: more than",
        ),
    ],
)
def test_unfit_leaders_are_refused_by_key(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        leader(**changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"leader_endpoint": ""}, "a follower needs both"),
        ({"leader_name": ""}, "a follower needs both"),
        ({"leader_endpoint": "a:0"}, "leader_endpoint: must name the port"),
        ({"leader_name": "A"}, "leader_name: a node's name"),
        ({"log_key_path": DIRECTORY / "log.key"}, "only the leader holds the log's key"),
        ({"bitcoin_rpc_url": RPC_URL}, "the leader or an operator follows the Bitcoin chain"),
        (
            {"role": ReplicaRole.WITNESS, "log_key_path": DIRECTORY / "log.key"},
            "only the leader holds",
        ),
    ],
)
def test_unfit_followers_are_refused_by_key(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        follower(**changes)


def test_a_node_may_follow_the_chain_without_a_wallet() -> None:
    watching = leader(bitcoin_rpc_url=RPC_URL, instruction_key_path=DIRECTORY / "instruction.key")
    assert watching.bitcoin_key_path is None


def test_file_errors_name_the_file_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing\.toml does not exist"):
        load_config(tmp_path / "nothing.toml")
    write_config(tmp_path / "node.toml", leader())
    text = (tmp_path / "node.toml").read_text()
    with pytest.raises(
        SetupError,
        match=r"node\.toml: role: must be one of \"leader\", \"operator\", \"full\", \"witness\"",
    ):
        parse_config(
            text.replace('role = "leader"', 'role = "boss"'), source="node.toml", base=tmp_path
        )
    with pytest.raises(SetupError, match=r"unknown key 'listn': did you mean listen"):
        parse_config(text.replace("\nlisten =", "\nlistn ="), source="node.toml", base=tmp_path)


def test_identity_and_tls_follow_from_the_keys() -> None:
    config = follower()
    assert config.identity.uri == "spiffe://clearing.example/node/ministry"
    assert config.tls.key == DIRECTORY / "key.pem"
