"""Making what a new node and a new network start from: keys, certificates, configuration, policy, block 0.

Lives here: the steps that `clearing node init` and test networks share. May not live here: running a node
(runtime.py), where a test network keeps its files (testnet/).

Invariants: private keys are made here and nowhere sent; a policy names every cosigner's key, so it is written once all
of them exist; block 0 is written once, into an empty store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clearing import ledger
from clearing.log.keys import SignatureType, VerifierKey
from clearing.log.policy import Group, Log, Policy, Witness
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action
from node.config import CONFIG_NAME, NodeConfig, ReplicaRole, load_config, write_config
from node.errors import SetupError
from node.files import PUBLIC_MODE, create_file, make_private_directory
from node.keys import KeyFile, Passphrase, SigningKey, create_key_file
from node.pki import (
    AUTHORITY_CERTIFICATE_NAME,
    CERTIFICATE_NAME,
    KEY_NAME,
    Authority,
    Validity,
)
from node.sequencer.cometbft.home import HomeKeys, genesis_document, make_home, read_keys
from node.sequencer.cometbft.home import write_genesis as engine_genesis
from node.store import Store
from node.workers.anchoring.network import Network

KEY_FILE_NAME = "seal.key"
SIGNING_KEY_NAME = "signing.key"
LOG_KEY_NAME = "log.key"
INSTRUCTION_KEY_NAME = "instruction.key"
BITCOIN_KEY_NAME = "bitcoin.key"
POLICY_NAME = "policy"
DATA_NAME = "data"
ENGINE_NAME = "consensus"

_SIGNING = (ReplicaRole.LEADER, ReplicaRole.OPERATOR)


@dataclass(frozen=True, slots=True)
class BitcoinPlace:
    """A Bitcoin node that a node is to anchor in, and when; birthday as in node.toml."""

    url: str
    network: Network
    cookie_path: Path
    birthday: int
    every_s: int
    poll_ms: int


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node is to run and what it is to be."""

    network: str
    name: str
    role: ReplicaRole
    listen: str
    leader_endpoint: str = ""
    leader_name: str = ""
    operators: tuple[str, ...] = ()
    consensus_listen: str = "127.0.0.1:26656"
    bitcoin: BitcoinPlace | None = None


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Public halves of a new node's keys: its cosigner key, on leader and operators the log's, and its node key.

    instruction: 32 bytes, to be registered as the node key of its participant; None on a witness replica, which reports
    nothing. engine: of an operator's consensus engine; its consensus_key goes into the register by SET_VALIDATOR.
    """

    cosigner: VerifierKey
    log: VerifierKey | None
    instruction: bytes | None
    engine: HomeKeys | None = None


def log_origin(network: str) -> str:
    """Return the origin line of the network's log, which is also the name of its key."""
    return f"{network}/log"


def cosigner_name(network: str, node: str) -> str:
    """Return the key name under which a node cosigns."""
    return f"{network}/node/{node}"


def make_node(
    directory: Path,
    place: NodePlace,
    authority: Authority,
    validity: Validity,
    *,
    hosts: Sequence[str],
    passphrase: Passphrase | None = None,
) -> NodeKeys:
    """Make a node's directory: sealed keys, certificate, node.toml; all but the policy, which needs all nodes' keys.

    Without a `passphrase` the keys are sealed by a key file made beside them, for nodes that start unattended.
    Raises: SetupError: a file exists or cannot be written, or a value of `place` is none.
    """
    make_private_directory(directory)
    config = node_config(directory, place, with_key_file=passphrase is None)
    secret: Passphrase | KeyFile
    secret = passphrase or create_key_file(directory / KEY_FILE_NAME)
    cosigner = SigningKey.create(config.signing_key_path, secret)
    log = SigningKey.create(config.log_key_path, secret) if config.log_key_path else None
    instruction = (
        SigningKey.create(config.instruction_key_path, secret)
        if config.instruction_key_path
        else None
    )
    if config.bitcoin_key_path is not None:
        SigningKey.create(config.bitcoin_key_path, secret)
    authority.issue(config.identity, validity, hosts).write(directory)
    create_file(directory / AUTHORITY_CERTIFICATE_NAME, authority.certificate_pem, PUBLIC_MODE)
    write_config(directory / CONFIG_NAME, config)
    return NodeKeys(
        VerifierKey(
            cosigner_name(place.network, place.name),
            SignatureType.COSIGNATURE_ED25519,
            cosigner.public_key,
        ),
        VerifierKey(log_origin(place.network), SignatureType.ED25519, log.public_key)
        if log
        else None,
        instruction.public_key if instruction else None,
        make_home(config.consensus_dir) if config.consensus_dir else None,
    )


def node_config(directory: Path, place: NodePlace, *, with_key_file: bool) -> NodeConfig:
    """Return the configuration of a node that keeps all its files in `directory`.

    Raises: SetupError: a value of `place` is none.
    """
    config = NodeConfig(
        network=place.network,
        node_name=place.name,
        role=place.role,
        data_dir=directory / DATA_NAME,
        listen=place.listen,
        leader_endpoint=place.leader_endpoint,
        leader_name=place.leader_name,
        operators=place.operators,
        consensus_dir=directory / ENGINE_NAME if place.role is ReplicaRole.OPERATOR else None,
        consensus_listen=place.consensus_listen,
        tls_authority_path=directory / AUTHORITY_CERTIFICATE_NAME,
        tls_certificate_path=directory / CERTIFICATE_NAME,
        tls_key_path=directory / KEY_NAME,
        signing_key_path=directory / SIGNING_KEY_NAME,
        log_key_path=directory / LOG_KEY_NAME if place.role in _SIGNING else None,
        instruction_key_path=(
            None if place.role is ReplicaRole.WITNESS else directory / INSTRUCTION_KEY_NAME
        ),
        key_file_path=directory / KEY_FILE_NAME if with_key_file else None,
        policy_path=directory / POLICY_NAME,
    )
    bitcoin = place.bitcoin
    if bitcoin is None:
        return config
    return replace(
        config,
        bitcoin_rpc_url=bitcoin.url,
        bitcoin_network=bitcoin.network,
        bitcoin_cookie_path=bitcoin.cookie_path,
        bitcoin_key_path=directory / BITCOIN_KEY_NAME,
        bitcoin_birthday=bitcoin.birthday,
        anchor_every_s=bitcoin.every_s,
        anchor_poll_ms=bitcoin.poll_ms,
    )


def quorum_policy(
    log: VerifierKey,
    cosigners: Sequence[tuple[str, VerifierKey]],
    required: Sequence[str],
    one_of: Sequence[str],
) -> Policy:
    """Return the policy by which a checkpoint is final: all nodes in `required`, and one in `one_of`.

    cosigners: node name and key of each witness of the policy, in order.
    Raises: DecodeError: a name or key that a policy cannot hold.
    """
    groups = (
        Group("participants", 1, tuple(one_of)),
        Group("quorum", len(required) + 1, (*required, "participants")),
    )
    witnesses = tuple(Witness(name, key) for name, key in cosigners)
    return Policy((Log(log),), witnesses, groups, "quorum")


def operators_policy(
    logs: Sequence[VerifierKey],
    cosigners: Sequence[tuple[str, VerifierKey]],
    operators: Sequence[str],
) -> Policy:
    """Return the policy of a network of several operators: final is what more than two thirds of them have cosigned.

    logs: each operator's key of the log, all under one origin. cosigners: node name and key of each witness, in order,
    operators and others; others cosign for their own sake.
    Raises: DecodeError: a name or key that a policy cannot hold.
    """
    quorum = Group("operators", 2 * len(operators) // 3 + 1, tuple(operators))
    witnesses = tuple(Witness(name, key) for name, key in cosigners)
    return Policy(tuple(map(Log, logs)), witnesses, (quorum,), quorum.name)


@dataclass(frozen=True, slots=True)
class OperatorAddress:
    """Where the others reach an operator: its node and its consensus engine, host:port each."""

    node: str
    engine: str


def connect_operators(
    directories: Mapping[str, Path], addresses: Mapping[str, OperatorAddress]
) -> None:
    """Write into each operator's node.toml where the others are; again after a move.

    directories: of each operator's node, by name; addresses: the same names.
    Raises: SetupError: a configuration is missing, is no operator's, or cannot be written.
    """
    configs = {name: load_config(path / CONFIG_NAME) for name, path in directories.items()}
    ids = {}
    for name, config in configs.items():
        if config.consensus_dir is None:
            raise SetupError(f"{directories[name]} is no operator's: it names no consensus_dir")
        ids[name] = read_keys(config.consensus_dir).node_id
    for name, config in configs.items():
        others = [other for other in configs if other != name]
        connected = replace(
            config,
            operators=tuple(f"{other}={addresses[other].node}" for other in others),
            consensus_peers=tuple(f"{ids[other]}@{addresses[other].engine}" for other in others),
        )
        write_config(directories[name] / CONFIG_NAME, connected, replace=True)


def write_operators_genesis(
    directories: Iterable[Path], time_ms: int, actions: Sequence[Action]
) -> bytes:
    """Write the same genesis.json for each operator's engine and return the network's id, 32 bytes.

    Block 0 comes from it: the operators' databases stay empty until they start.
    Raises: SetupError: one is there; DecodeError: an action is refused, or none makes a validator.
    """
    document = genesis_document(time_ms, actions)
    for directory in directories:
        engine_genesis(directory / ENGINE_NAME, document)
    return ledger.genesis(time_ms, encode_actions(actions)).delta.network_id


def write_genesis(data_dir: Path, time_ms: int, actions: Sequence[Action]) -> bytes:
    """Write block 0 into the leader's new store and return the network's id, 32 bytes.

    time_ms: the first block time. Followers receive block 0 from the leader.
    Raises: SetupError: the store holds a ledger already; DecodeError: an action is refused; StoreError: see node.store.
    """
    result = ledger.genesis(time_ms, encode_actions(actions))
    make_private_directory(data_dir)
    with Store.open(data_dir) as store:
        if store.tip is not None:
            raise SetupError(f"{data_dir} holds a ledger already: give an empty directory")
        store.commit(result)
    return result.delta.network_id
