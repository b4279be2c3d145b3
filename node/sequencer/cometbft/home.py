"""The consensus engine's directory: its keys, genesis.json and config.toml.

Lives here: what is in that directory and how it is made; the tuning, each value with its reason.
May not live here: running the engine (node/supervisor.py), where a test network keeps things.

    HOME/config/node_key.json             key of the engine's peer-to-peer identity; its hash is the node id
    HOME/config/priv_validator_key.json   the validator's key, in plain text: the engine reads it itself
    HOME/data/priv_validator_state.json   what it has voted for last: never copy, restore or roll back
    HOME/config/genesis.json              the same bytes on every operator
    HOME/config/config.toml               written anew at each start, from node.toml
    HOME/data/                            blocks and votes; with the key and its state kept, it may be
                                          deleted (together with the node's database) and is synced anew
    HOME/run/                             the two sockets and process ids, while the pair runs

Order: `make_home` on every operator; their keys go into the register (SET_VALIDATOR) by the genesis
actions; `write_genesis` with the same actions and time on every operator; `write_config` at each
start, which the supervisor does.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing import ledger
from clearing.consensus.commit import chain_id
from clearing.consensus.validators import address_of
from clearing.errors import DecodeError
from clearing.ledger import BlockResult
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action
from node.errors import SetupError, may_pass
from node.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    create_file,
    make_private_directory,
    read_text,
    replace_file,
)

APP_VERSION = 1
"""Version of this application as the engine's headers carry it; genesis.json must state the same."""

TRANSACTION_BYTES_MAX = 512 * 1024
"""Greatest transaction: a larger one makes a proposer's turn too long. Clients split submissions."""

BLOCK_BYTES_MAX = 4 << 20
"""Greatest block: blocks are bound by copying; 15 of the greatest transactions fit."""

COMMIT_WAIT_MS = 200
"""Pause after a block, in which more transactions gather: measured, the least that keeps the CPU idle
enough for the next block to be large."""

STAND_STILL_S = 5
"""Longest time a lagging peer is not dialled again after a partition."""

_NODE_KEY = "config/node_key.json"
_VALIDATOR_KEY = "config/priv_validator_key.json"
_VALIDATOR_STATE = "data/priv_validator_state.json"
_GENESIS = "config/genesis.json"
_CONFIG = "config/config.toml"
_ADDRESS_BOOK = "config/addrbook.json"
_RUN = "run"
_SOCKETS = ("abci.sock", "rpc.sock")
_SOCKET_PATH_BYTES_MAX = 100  # 108 with the terminating zero on Linux, 104 elsewhere
_PUBLIC_TYPE = "tendermint/PubKeyEd25519"
_PRIVATE_TYPE = "tendermint/PrivKeyEd25519"


@dataclass(frozen=True, slots=True)
class HomeKeys:
    """Public halves of an engine's keys: id of its peer-to-peer key, and the validator's, 32 bytes."""

    node_id: str
    consensus_key: bytes


@dataclass(frozen=True, slots=True)
class Sockets:
    """The unix sockets between a node and its engine: `abci` is served by the node, `rpc` by the engine."""

    abci: Path
    rpc: Path


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What config.toml says beyond the tuning.

    listen: host:port of the peer-to-peer protocol. peers: NODE_ID@host:port of the other operators'.
    """

    moniker: str
    listen: str
    peers: Sequence[str]
    commit_wait_ms: int = COMMIT_WAIT_MS
    log_level: str = "error"


def make_home(home: Path) -> HomeKeys:
    """Make an engine's directory with fresh keys.

    Raises: SetupError: it holds keys already, or cannot be written.
    """
    for directory in (home, home / "config", home / "data", home / _RUN):
        make_private_directory(directory)
    node_key, validator_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    _create_json(home / _NODE_KEY, {"priv_key": _private(node_key)})
    public = validator_key.public_key().public_bytes_raw()
    _create_json(
        home / _VALIDATOR_KEY,
        {
            "address": address_of(public).hex().upper(),
            "pub_key": _public(public),
            "priv_key": _private(validator_key),
        },
    )
    _create_json(home / _VALIDATOR_STATE, {"height": "0", "round": 0, "step": 0})
    return HomeKeys(address_of(node_key.public_key().public_bytes_raw()).hex(), public)


def read_keys(home: Path) -> HomeKeys:
    """Return the public halves of the keys in an engine's directory.

    Raises: SetupError: a file is missing or not of that form.
    """
    try:
        node_key = json.loads(read_text(home / _NODE_KEY))["priv_key"]["value"]
        validator = json.loads(read_text(home / _VALIDATOR_KEY))["pub_key"]["value"]
        # The engine keeps an Ed25519 key as seed || public key.
        public = base64.b64decode(node_key, validate=True)[32:]
        return HomeKeys(address_of(public).hex(), base64.b64decode(validator, validate=True))
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{home}: not the keys of a consensus engine: {error!r}") from error


def check_validator_state(home: Path) -> None:
    """Check that what the validator has voted for last is remembered.

    Raises: SetupError: it is not; the text says how to go on without ever voting twice.
    """
    path = home / _VALIDATOR_STATE
    try:
        state = json.loads(read_text(path))
        # The engine keeps a height as text, round and step as numbers.
        int(state["height"]), int(state["round"]), int(state["step"])
    except (SetupError, ValueError, KeyError, TypeError) as error:
        if may_pass(error):
            raise
        raise SetupError(
            f"{path} is missing or damaged ({error}): without it this validator could vote twice. Never put an old copy "
            "back. Have governance appoint a new key, or write into it "
            '{"height": "H", "round": 0, "step": 0}, where H is greater by 2 or more than the engine height that '
            "`clearing node status` shows on every other operator: the validator votes again from there on"
        ) from error


def remove_address_book(home: Path) -> None:
    """Remove the engine's list of peers, which it makes anew from config.toml: a damaged one would keep it from starting."""
    (home / _ADDRESS_BOOK).unlink(missing_ok=True)


def block_zero(time_ms: int, actions: Sequence[Action]) -> BlockResult:
    """Return block 0 of these actions.

    Raises: DecodeError: an action is refused.
    """
    return ledger.genesis(time_ms, encode_actions(actions))


def genesis_document(time_ms: int, actions: Sequence[Action]) -> bytes:
    """Return genesis.json: chain, parameters, the validators that `actions` register, and block 0.

    time_ms: the first block time. The same arguments give the same bytes.
    Raises: DecodeError: an action is refused, or no validator is among them.
    """
    body = encode_actions(actions)
    result = ledger.genesis(time_ms, body)
    validators = result.delta.registry.validators
    if not validators:
        raise DecodeError(
            "genesis registers no validator: several operators need SET_VALIDATOR for each"
        )
    names = result.delta.registry.participants
    document: dict[str, Any] = {
        "genesis_time": _rfc3339(time_ms),
        "chain_id": chain_id(result.delta.network_id),
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(BLOCK_BYTES_MAX), "max_gas": "-1"},
            # Three weeks: longer than any dispute about a settlement is open.
            "evidence": {
                "max_age_num_blocks": "1000000",
                "max_age_duration": str(21 * 86_400 * 10**9),
                "max_bytes": "1048576",
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(APP_VERSION)},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": address_of(validator.consensus_key).hex().upper(),
                "pub_key": _public(validator.consensus_key),
                "power": str(validator.power),
                "name": names[validator.participant].name,
            }
            for validator in validators
        ],
        "app_hash": "",
        "app_state": {
            "time_ms": str(time_ms),
            "actions": base64.b64encode(body).decode(),
        },
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def read_block_zero(app_state: bytes) -> tuple[int, bytes]:
    """Return time and actions of block 0 from genesis.json's app_state.

    The engine sends the file's own bytes at first and its own spelling of them on a replay: the
    JSON is read, never hashed.
    Raises: DecodeError: not what `genesis_document` writes.
    """
    try:
        state = json.loads(app_state)
        return int(state["time_ms"]), base64.b64decode(state["actions"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise DecodeError(f"the genesis file carries no block 0 of ours: {error!r}") from error


def write_genesis(home: Path, document: bytes) -> None:
    """Write genesis.json into an engine's directory.

    Raises: SetupError: one is there, or it cannot be written.
    """
    create_file(home / _GENESIS, document, PUBLIC_MODE)


def block_zero_of(home: Path) -> BlockResult:
    """Return block 0 as the directory's genesis.json begins with it.

    Raises: SetupError: there is none, or it is not of ours.
    """
    path = home / _GENESIS
    try:
        state = json.loads(read_text(path))["app_state"]
        time_ms, actions = read_block_zero(json.dumps(state).encode())
        return ledger.genesis(time_ms, actions)
    except (ValueError, KeyError, TypeError, DecodeError) as error:
        raise SetupError(f"{path}: not a genesis file of this ledger: {error}") from error


def sockets_of(home: Path) -> Sockets:
    """Return where the pair's sockets are: in HOME/run.

    A path too long for a socket gives way to a private directory below the system's for temporary
    files, the same at each call.
    Raises: SetupError: it cannot be made, or others may reach it.
    """
    run = _run_directory(home)
    make_private_directory(run)
    found = run.stat()
    # Whoever else may reach it could pose as the node or as its engine.
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SetupError(f"{run} must belong to this user and be closed to others: chmod 700 it")
    return Sockets(*(run / name for name in _SOCKETS))


def remove_sockets(home: Path) -> None:
    """Remove what a stopped pair has left of its sockets, and their directory where it is not in `home`."""
    run = _run_directory(home)
    for name in _SOCKETS:
        (run / name).unlink(missing_ok=True)
    if not run.is_relative_to(home.absolute()):
        # Whatever else lies there is not ours.
        with contextlib.suppress(OSError):
            run.rmdir()


def _run_directory(home: Path) -> Path:
    run = home.absolute() / _RUN
    if len(os.fsencode(run / _SOCKETS[0])) <= _SOCKET_PATH_BYTES_MAX:
        return run
    name = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"clearing-{os.getuid()}-{name}"


def write_config(home: Path, settings: EngineSettings) -> None:
    """Write config.toml, replacing what is there.

    Raises: SetupError: it cannot be written.
    """
    sockets = sockets_of(home)
    tables: dict[str, dict[str, str | int | bool]] = {
        "": {
            "proxy_app": f"unix://{sockets.abci}",
            "moniker": settings.moniker,
            "abci": "socket",
            "db_backend": "goleveldb",
            "log_format": "json",
            "log_level": settings.log_level,
        },
        "rpc": {
            # A socket in a private directory: the engine's RPC knows no rights.
            "laddr": f"unix://{sockets.rpc}",
            "max_body_bytes": 4_000_000,
            # A transaction comes in the address, as hex: half the CPU of base64 in JSON.
            "max_header_bytes": 2 * TRANSACTION_BYTES_MAX + 65_536,
        },
        "p2p": {
            "laddr": f"tcp://{settings.listen}",
            "persistent_peers": ",".join(settings.peers),
            "persistent_peers_max_dial_period": f"{STAND_STILL_S}s",
            # Operators know each other by their configuration and accept nobody else's gossip.
            "pex": False,
            "addr_book_strict": False,
            "allow_duplicate_ip": True,
            "flush_throttle_timeout": "10ms",
            "max_packet_msg_payload_size": 65_536,
            "send_rate": 50_000_000,
            "recv_rate": 50_000_000,
        },
        "mempool": {
            "type": "flood",
            "size": 2_000,
            "max_tx_bytes": TRANSACTION_BYTES_MAX,
            "max_txs_bytes": 268_435_456,
            "cache_size": 20_000,
            # A proposer that lacks the only transaction proposes nothing, and the others wait for its
            # turn to pass: every operator must get each one directly.
            "experimental_max_gossip_connections_to_persistent_peers": 0,
        },
        "consensus": {
            "timeout_propose": "3s",
            "timeout_prevote": "1s",
            "timeout_precommit": "1s",
            "timeout_commit": f"{settings.commit_wait_ms}ms",
            "peer_gossip_sleep_duration": "10ms",
            "create_empty_blocks": False,
            # Any other value keeps validators that restart together from ever starting.
            "double_sign_check_height": 0,
        },
        "tx_index": {"indexer": "null"},
    }
    replace_file(home / _CONFIG, _toml(tables).encode(), PUBLIC_MODE)


def _toml(tables: dict[str, dict[str, str | int | bool]]) -> str:
    lines = ["# Written at each start from node.toml, by this node's supervisor: edit that file."]
    for table, values in tables.items():
        lines += ["", f"[{table}]"] if table else [""]
        # JSON's strings, integers and booleans are TOML's.
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _create_json(path: Path, value: dict[str, Any]) -> None:
    create_file(path, (json.dumps(value, indent=1) + "\n").encode(), PRIVATE_MODE)


def _public(key: bytes) -> dict[str, str]:
    return {"type": _PUBLIC_TYPE, "value": base64.b64encode(key).decode()}


def _private(key: Ed25519PrivateKey) -> dict[str, str]:
    whole = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return {"type": _PRIVATE_TYPE, "value": base64.b64encode(whole).decode()}


def _rfc3339(time_ms: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ms // 1000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"
