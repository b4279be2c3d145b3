"""Making a network of several operators by hand: `node init --role operator`, `node genesis`, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import structlog

from node.config import load_config
from node.sequencer.cometbft.home import block_zero_of, read_keys
from tests.ledger_kit import participant
from tests.node.cli.network_kit import facts, ok, refused, run
from tests.node.sequencer.cometbft.test_home import CAST

NETWORK = "operators.example"
NAMES = ("central-bank", "ministry", "operator-1", "operator-2")


@pytest.fixture
def operators(tmp_path: Path) -> dict[str, dict[str, Any]]:
    made = {}
    for place, name in enumerate(NAMES):
        others = [f"{other}=10.0.0.{n}:7400" for n, other in enumerate(NAMES) if other != name]
        made[name] = facts(
            "node", "init", tmp_path / name, "--name", name, "--network", NETWORK,
            "--role", "operator", "--authority", tmp_path / "authority",
            "--consensus-listen", f"127.0.0.1:{26656 + place}",
            *(part for other in others for part in ("--operator", other)),
        )  # fmt: skip
    return made


def actions(operators: dict[str, dict[str, Any]], count: int = 4) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, (name, role) in enumerate(CAST):
        party = participant(name, role, number)
        rows.append(
            {
                "action": "add-participant",
                "name": name,
                "lei": party.lei,
                "role": role.name.lower().replace("_", "-"),
                "public_key": party.public_key.hex(),
            }
        )
    rows += [
        {
            "action": "set-validator",
            "participant": name,
            "consensus_key": operators[name]["consensus_key"],
            "power": 10,
        }
        for name in NAMES[:count]
    ]
    return rows


def test_four_operators_are_made_by_hand(
    tmp_path: Path, operators: dict[str, dict[str, Any]]
) -> None:
    for name, made in operators.items():
        config = load_config(tmp_path / name / "node.toml")
        keys = read_keys(config.consensus_dir)
        assert made["engine_node_id"] == keys.node_id
        assert made["consensus_key"] == keys.consensus_key.hex()
        assert made["log_vkey"]
        assert len(config.other_operators) == 3
    file = tmp_path / "actions.json"
    file.write_text(json.dumps(actions(operators)))
    out = tmp_path / "genesis.json"
    said = facts("node", "genesis", file, "--out", out, "--time-ms", "1700000000000")
    for name in NAMES:
        home = tmp_path / name / "consensus"
        shutil.copy(out, home / "config" / "genesis.json")
        result = block_zero_of(home)
        assert result.delta.network_id.hex() == said["network_id"]
        assert len(result.delta.registry.validators) == 4
    # Doctor says whether the engine is there, and names the node id.
    text = ok(
        "node", "genesis", file, "--out", tmp_path / "again.json", "--time-ms", "1700000000000"
    )
    assert said["network_id"] in text
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()


def test_a_genesis_of_three_is_refused(
    tmp_path: Path, operators: dict[str, dict[str, Any]]
) -> None:
    file = tmp_path / "actions.json"
    file.write_text(json.dumps(actions(operators, 3)))
    error = refused(2, "node", "genesis", file, "--out", tmp_path / "genesis.json")
    assert "VALIDATORS_TOO_FEW" in error["message"]
    assert not (tmp_path / "genesis.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--operator", "no-endpoint"), "NAME=host:port"),
        (("--leader-endpoint", "10.0.0.1:7400"), "follows nobody"),
        (("--consensus-listen", "10.0.0.1"), "consensus_listen"),
    ],
)
def test_settings_that_do_not_fit_an_operator_are_named(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    error = refused(
        2, "node", "init", tmp_path / "n", "--name", "ministry", "--network", NETWORK,
        "--role", "operator", "--authority", tmp_path / "authority", *options,
    )  # fmt: skip
    assert says in error["message"]


def test_an_operator_without_its_genesis_is_told_so(
    tmp_path: Path, operators: dict[str, dict[str, Any]]
) -> None:
    try:
        done = run("node", "run", "--config", tmp_path / NAMES[0] / "node.toml")
    finally:
        structlog.reset_defaults()
    assert done.exit_code == 2
    assert "genesis.json" in done.stderr
    assert operators
