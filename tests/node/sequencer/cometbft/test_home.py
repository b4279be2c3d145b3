"""The engine's directory: what is in it, and that the same arguments make the same genesis."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest

from clearing import ledger
from clearing.errors import DecodeError
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Asset
from clearing.types import NettingMethod, Role
from node.errors import SetupError
from node.sequencer.cometbft import home as engine
from node.sequencer.cometbft.home import (
    EngineSettings,
    block_zero_of,
    genesis_document,
    make_home,
    read_block_zero,
    read_keys,
    remove_sockets,
    sockets_of,
    write_config,
    write_genesis,
)
from tests.ledger_kit import ASSETS, GENESIS_MS, ROLES, participant, seeded_key

CAST = (*ROLES, ("operator-1", Role.OPERATOR), ("operator-2", Role.OPERATOR))
VALIDATORS = (0, 1, 7, 8)


def actions(*numbers: int) -> list[Action]:
    made = [
        Action(ActionKind.ADD_PARTICIPANT, participant(name, role, number))
        for number, (name, role) in enumerate(CAST)
    ]
    name, caip19, dti, scale = ASSETS[0]
    asset = Asset(name, caip19, dti, scale, NettingMethod.POSITIONS)
    made.append(Action(ActionKind.ADD_ASSET, asset))
    for number in numbers or VALIDATORS:
        key = seeded_key(f"validator {number}").public_key().public_bytes_raw()
        subject = {"participant": number, "power": 10, "consensus_key": key}
        made.append(Action(ActionKind.SET_VALIDATOR, subject))
    return made


def test_a_home_has_fresh_keys_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = make_home(tmp_path / "home")
    assert read_keys(tmp_path / "home") == made
    assert make_home(tmp_path / "other") != made
    assert len(made.node_id) == 40
    for name in ("config/node_key.json", "config/priv_validator_key.json"):
        mode = (tmp_path / "home" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    with pytest.raises(SetupError):
        make_home(tmp_path / "home")


def test_the_genesis_is_a_function_of_time_and_actions(tmp_path: Path) -> None:
    document = genesis_document(GENESIS_MS, actions())
    assert document == genesis_document(GENESIS_MS, actions())
    values = json.loads(document)
    expected = ledger.genesis(GENESIS_MS, encode_actions(actions()))
    assert values["chain_id"] == f"clearing-{expected.delta.network_id.hex()[:32]}"
    assert len(values["chain_id"]) <= 50
    assert values["genesis_time"] == "2023-11-14T22:13:20.000Z"
    assert [one["name"] for one in values["validators"]] == [CAST[n][0] for n in VALIDATORS]
    assert values["consensus_params"]["version"]["app"] == str(engine.APP_VERSION)
    make_home(tmp_path)
    write_genesis(tmp_path, document)
    assert block_zero_of(tmp_path).delta.network_id == expected.delta.network_id
    # The engine spells the JSON anew when it replays.
    spelled = json.dumps(values["app_state"], separators=(",", ":"), sort_keys=True).encode()
    assert read_block_zero(spelled) == (GENESIS_MS, encode_actions(actions()))


def test_a_genesis_without_validators_is_refused() -> None:
    with pytest.raises(DecodeError, match="SET_VALIDATOR"):
        genesis_document(GENESIS_MS, actions()[: len(CAST)])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"time_ms": "x", "actions": ""}', b"\xff"])
def test_an_app_state_of_others_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="no block 0 of ours"):
        read_block_zero(data)


def test_what_is_no_genesis_file_of_ours_is_said(tmp_path: Path) -> None:
    make_home(tmp_path)
    with pytest.raises(SetupError):
        block_zero_of(tmp_path)
    (tmp_path / "config/genesis.json").write_text("{}")
    with pytest.raises(SetupError, match=r"genesis\.json: not a genesis file"):
        block_zero_of(tmp_path)


def test_the_configuration_is_toml_and_says_where_the_sockets_are(tmp_path: Path) -> None:
    make_home(tmp_path)
    settings = EngineSettings("ministry", "127.0.0.1:26656", ["a" * 40 + "@10.0.0.2:26656"], 150)
    write_config(tmp_path, settings)
    written = tomllib.loads((tmp_path / "config/config.toml").read_text())
    sockets = sockets_of(tmp_path)
    assert written["proxy_app"] == f"unix://{sockets.abci}"
    assert written["rpc"]["laddr"] == f"unix://{sockets.rpc}"
    assert written["consensus"]["timeout_commit"] == "150ms"
    assert written["consensus"]["create_empty_blocks"] is False
    assert written["consensus"]["double_sign_check_height"] == 0
    assert written["p2p"]["persistent_peers"] == settings.peers[0]
    assert written["mempool"]["max_tx_bytes"] == engine.TRANSACTION_BYTES_MAX
    write_config(tmp_path, settings)


def test_a_path_too_long_for_a_socket_gives_way_to_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    made = sockets_of(deep)
    assert len(str(made.abci)) < 100
    assert sockets_of(deep) == made
    assert sockets_of(tmp_path / ("y" * 120)) != made
    assert stat.S_IMODE(made.abci.parent.stat().st_mode) == 0o700
    made.abci.touch()
    remove_sockets(deep)
    remove_sockets(deep)
    assert not made.abci.parent.exists()
    remove_sockets(tmp_path / ("y" * 120))


def test_sockets_go_and_their_directory_where_it_is_nobody_elses(tmp_path: Path) -> None:
    made = sockets_of(tmp_path)
    for path in (made.abci, made.rpc, made.abci.with_name("node.pid")):
        path.touch()
    remove_sockets(tmp_path)
    assert [path.name for path in made.abci.parent.iterdir()] == ["node.pid"]
    # What somebody else put into the directory stays, and so does the directory.
    deep = tmp_path / ("x" * 120)
    other = sockets_of(deep).abci.with_name("notes")
    other.touch()
    remove_sockets(deep)
    assert other.exists()
    other.unlink()
    remove_sockets(deep)
    assert not other.parent.exists()
