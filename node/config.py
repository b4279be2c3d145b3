"""The configuration of one node: every key with its unit, default and reason.

Lives here: `NodeConfig` and its file, node.toml. May not live here: secrets (only their paths),
ledger parameters that governance sets (clearing.params), or anything read from the environment.
Invariant: a NodeConfig in hand has been checked, whether it came from a file or from code.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from pathlib import Path

from clearing.errors import DecodeError
from node.errors import SetupError
from node.files import PUBLIC_MODE, create_file, read_text, replace_file
from node.identity import Identity, IdentityKind, check_network_name, check_node_name
from node.settings import (
    PORT_MAX,
    about,
    between,
    check_dialled_endpoint,
    check_endpoint,
    check_rpc_url,
    check_settings,
    parse_settings,
    render_settings,
)
from node.tls import TlsFiles
from node.workers.anchoring.network import Network

CONFIG_NAME = "node.toml"

_MIB = 1 << 20
_GIB = 1 << 30
_TIB = 1 << 40


def check_operator(text: str) -> None:
    """Accept NAME=host:port. Raises: DecodeError: any other shape."""
    name, separator, endpoint = text.partition("=")
    if not separator:
        raise DecodeError(f"must be NAME=host:port, got {text[:80]!r}")
    check_node_name(name)
    check_dialled_endpoint(endpoint)


def check_engine_peer(text: str) -> None:
    """Accept NODE_ID@host:port. Raises: DecodeError: any other shape."""
    node_id, separator, endpoint = text.partition("@")
    if not separator or re.fullmatch("[0-9a-f]{40}", node_id) is None:
        raise DecodeError(f"must be 40 hex digits@host:port, got {text[:80]!r}")
    check_dialled_endpoint(endpoint)


class ReplicaRole(enum.StrEnum):
    """What a node does in its network."""

    LEADER = "leader"
    """Orders blocks, holds the log's own key; one in a network."""
    OPERATOR = "operator"
    """One of several that order blocks together, beside its consensus engine; signs the log by a key of its own."""
    FULL = "full"
    """Sees every body, applies every block again, cosigns what it recomputed."""
    WITNESS = "witness"
    """Sees all hashes and its own bodies, cosigns what is consistent."""


class LogLevel(enum.StrEnum):
    """From which weight on events are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything that one node must be told; relative paths count from the process's directory.

    Raises: SetupError: a value out of its range, or settings that contradict each other; it names
    the key.
    """

    network: str = field(
        metadata=about(
            "Name of the network, as its certificates carry it.", check=check_network_name
        )
    )
    node_name: str = field(
        metadata=about(
            "Name of this node: the registry's name of the participant that runs it.",
            check=check_node_name,
        )
    )
    role: ReplicaRole = field(
        metadata=about(
            '"leader" orders blocks alone, "operator" with others, "full" applies them again, "witness" checks hashes alone.'
        )
    )
    data_dir: Path = field(
        metadata=about("Directory of the database; a local disk that keeps what fsync promised.")
    )
    listen: str = field(
        default="127.0.0.1:7400",
        metadata=about(
            "Address on which the node serves, host:port; port 0 takes a free one.",
            check=check_endpoint,
        ),
    )
    leader_endpoint: str = field(
        default="",
        metadata=about(
            "Address of the leader, host:port; followers need it.", check=check_dialled_endpoint
        ),
    )
    leader_name: str = field(
        default="",
        metadata=about(
            "Node name of the leader, which its certificate must prove; followers need it.",
            check=check_node_name,
        ),
    )
    operators: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Operators of a network of several, NAME=host:port: an operator lists the others; a follower lists those it follows, the first that answers.",
            check=check_operator,
        ),
    )
    consensus_dir: Path | None = field(
        default=None,
        metadata=about(
            "Directory of the consensus engine, its keys, blocks and votes; operators need it, on a local disk."
        ),
    )
    consensus_listen: str = field(
        default="127.0.0.1:26656",
        metadata=about(
            "Address on which the consensus engine meets the other operators' engines, host:port.",
            check=check_dialled_endpoint,
        ),
    )
    consensus_peers: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "The other operators' engines, NODE_ID@host:port; `clearing doctor` and `node init` print a node's id.",
            check=check_engine_peer,
        ),
    )
    consensus_commit_wait_ms: int = field(
        default=200,
        metadata=about(
            "Pause of the engine after a block, in which more transactions gather; the same on all operators.",
            unit="milliseconds",
            check=between(0, 60_000),
        ),
    )
    cometbft_path: Path | None = field(
        default=None,
        metadata=about(
            "The consensus engine's program; without it, the one on PATH, or one built once by Go."
        ),
    )
    tls_authority_path: Path = field(
        metadata=about("Certificates of the authorities that peers are trusted by, PEM.")
    )
    tls_certificate_path: Path = field(metadata=about("This node's certificate, PEM, ECDSA P-256."))
    tls_key_path: Path = field(metadata=about("The certificate's private key, PEM, mode 0600."))
    signing_key_path: Path = field(
        metadata=about(
            "The sealed Ed25519 key by which this node cosigns checkpoints, and nothing else."
        )
    )
    log_key_path: Path | None = field(
        default=None,
        metadata=about(
            "The sealed Ed25519 key that signs the log; the leader needs the one, each operator its own, others none."
        ),
    )
    instruction_key_path: Path | None = field(
        default=None,
        metadata=about(
            "The sealed Ed25519 key that signs what this node reports from outside the ledger, registered as the "
            "participant's node key; without it the node reports nothing."
        ),
    )
    key_file_path: Path | None = field(
        default=None,
        metadata=about(
            "The key file that opens the sealed keys, mode 0600; without it start-up asks for a passphrase."
        ),
    )
    policy_path: Path = field(
        metadata=about("The network's C2SP tlog-policy: log key, witnesses and quorum of finality.")
    )
    block_items_max: int = field(
        default=100_000,
        metadata=about(
            "A block is closed when it holds this many items.",
            unit="obligations and instructions",
            check=between(1, 10_000_000),
        ),
    )
    block_wait_ms_max: int = field(
        default=20,
        metadata=about(
            "A block is closed this long after its first item: latency against items for one fsync.",
            unit="milliseconds",
            check=between(0, 10_000),
        ),
    )
    map_size_bytes: int = field(
        default=_GIB,
        metadata=about(
            "Size of the database map at first; it grows by itself.",
            unit="bytes",
            check=between(16 * _MIB, 64 * _TIB),
        ),
    )
    free_disk_bytes_min: int = field(
        default=256 * _MIB,
        metadata=about(
            "Below this much free disk the node refuses new entries, and keeps serving reads.",
            unit="bytes",
            check=between(16 * _MIB, 64 * _TIB),
        ),
    )
    metrics_host: str = field(
        default="127.0.0.1",
        metadata=about(
            "Address on which Prometheus metrics are served, without TLS: keep it off public networks."
        ),
    )
    metrics_port: int = field(
        default=0,
        metadata=about(
            "Port of the Prometheus metrics; 0 serves none.", check=between(0, PORT_MAX)
        ),
    )
    bitcoin_rpc_url: str = field(
        default="",
        metadata=about(
            "JSON-RPC of a Bitcoin node, http://host:port without user and password; without it no chain is followed and nothing anchored.",
            check=check_rpc_url,
        ),
    )
    bitcoin_network: Network = field(
        default=Network.MAIN,
        metadata=about('Bitcoin network of that node: "main", "testnet4", "signet" or "regtest".'),
    )
    bitcoin_cookie_path: Path | None = field(
        default=None,
        metadata=about(
            "A file with user:password of the Bitcoin node, mode 0600, such as the cookie that it writes."
        ),
    )
    bitcoin_key_path: Path | None = field(
        default=None,
        metadata=about(
            "The sealed key from which the anchor wallet's keys are derived; without it the chain is followed and nothing anchored. "
            "One operator anchors: several would pay for the same checkpoints."
        ),
    )
    bitcoin_birthday: int = field(
        default=-1,
        metadata=about(
            "First block that may hold a coin of the anchor wallet; -1 for the tip when it is first used.",
            unit="block height",
            check=between(-1, 100_000_000),
        ),
    )
    anchor_every_checkpoints: int = field(
        default=1_000,
        metadata=about(
            "An anchor is made when so many final checkpoints wait for one.",
            unit="checkpoints",
            check=between(1, 1_000_000),
        ),
    )
    anchor_every_s: int = field(
        default=3_600,
        metadata=about(
            "An anchor is made when a final checkpoint has waited so long for one.",
            unit="seconds",
            check=between(1, 31_536_000),
        ),
    )
    anchor_depth: int = field(
        default=6,
        metadata=about(
            "Blocks from the one that holds an anchor on, itself counted, that make the anchor final.",
            unit="blocks",
            check=between(1, 1_000),
        ),
    )
    anchor_fee_rate_fallback: int = field(
        default=5_000,
        metadata=about(
            "Fee rate where the Bitcoin node has no estimate.",
            unit="satoshi per 1,000 virtual bytes",
            check=between(1_100, 10_000_000),
        ),
    )
    anchor_fee_rate_max: int = field(
        default=200_000,
        metadata=about(
            "Greatest fee rate: while the market asks for more, anchors wait and an alarm says so.",
            unit="satoshi per 1,000 virtual bytes",
            check=between(1_100, 10_000_000),
        ),
    )
    anchor_fee_sat_max: int = field(
        default=200_000,
        metadata=about(
            "Most that one anchor may cost with all its fee bumps.",
            unit="satoshi",
            check=between(1_000, 100_000_000),
        ),
    )
    anchor_bump_after_s: int = field(
        default=3_600,
        metadata=about(
            "An anchor that waits so long for a block pays more, up to four replacements and two children.",
            unit="seconds",
            check=between(1, 31_536_000),
        ),
    )
    anchor_poll_ms: int = field(
        default=10_000,
        metadata=about(
            "How often the Bitcoin node is asked for new blocks.",
            unit="milliseconds",
            check=between(10, 3_600_000),
        ),
    )
    log_level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=about('Least weight of events logged: "debug", "info", "warning" or "error".'),
    )

    def __post_init__(self) -> None:
        """Check each setting, then what they say together."""
        check_settings(self)
        self._check_bitcoin()
        if self.role is ReplicaRole.LEADER:
            # A leader that followed another would be two histories in the making.
            if self.leader_endpoint or self.leader_name:
                raise SetupError(
                    'leader_endpoint, leader_name: the leader follows nobody; remove them, or set role = "full"'
                )
            if self.log_key_path is None:
                raise SetupError(
                    "log_key_path: the leader signs the log's checkpoints; name the log's sealed key"
                )
            return
        if self.role is ReplicaRole.OPERATOR:
            self._check_operator()
            return
        if not self.operators and not (self.leader_endpoint and self.leader_name):
            raise SetupError(
                "leader_endpoint, leader_name: a follower needs both; name the leader's address and node name, or list operators"
            )
        # A second holder of the log's key could sign a second history.
        if self.log_key_path is not None:
            raise SetupError("log_key_path: only the leader holds the log's key; remove it here")

    def _check_bitcoin(self) -> None:
        if not self.bitcoin_rpc_url:
            return
        # Statements about the chain are ordered where they are made.
        if self.role not in (ReplicaRole.LEADER, ReplicaRole.OPERATOR):
            raise SetupError(
                "bitcoin_rpc_url: the leader or an operator follows the Bitcoin chain; remove it here"
            )
        if self.instruction_key_path is None:
            raise SetupError(
                "instruction_key_path: who follows the Bitcoin chain needs a key to report by; name it, or remove bitcoin_rpc_url"
            )
        if self.anchor_fee_rate_fallback > self.anchor_fee_rate_max:
            raise SetupError(
                "anchor_fee_rate_fallback: more than anchor_fee_rate_max; nothing would ever be anchored"
            )

    def _check_operator(self) -> None:
        # Nobody leads where several order.
        if self.leader_endpoint or self.leader_name:
            raise SetupError(
                "leader_endpoint, leader_name: an operator follows nobody; list the others under operators"
            )
        if self.log_key_path is None:
            raise SetupError("log_key_path: an operator signs the log by a key of its own; name it")
        if self.consensus_dir is None:
            raise SetupError("consensus_dir: an operator needs its consensus engine's directory")

    @property
    def leaders(self) -> tuple[tuple[str, str], ...]:
        """Name and host:port of each node that a follower may follow, in order of preference."""
        if self.leader_endpoint:
            return ((self.leader_name, self.leader_endpoint),)
        return self.other_operators

    @property
    def other_operators(self) -> tuple[tuple[str, str], ...]:
        """Name and host:port of each operator that this node knows."""
        pairs = (entry.split("=", 1) for entry in self.operators)
        return tuple((name, endpoint) for name, endpoint in pairs)

    @property
    def identity(self) -> Identity:
        """The identity that this node's certificate must name."""
        return Identity(self.network, IdentityKind.NODE, self.node_name)

    @property
    def tls(self) -> TlsFiles:
        """The node's TLS files."""
        return TlsFiles(self.tls_authority_path, self.tls_certificate_path, self.tls_key_path)


def parse_config(text: str, *, source: str, base: Path) -> NodeConfig:
    """Read TOML; `source` names it in errors, relative paths count from `base`.

    Raises: SetupError: with the key's name and what to write.
    """
    return parse_settings(NodeConfig, text, source=source, base=base)


def load_config(path: Path) -> NodeConfig:
    """Read a node's configuration file; relative paths in it count from its own directory.

    Raises: SetupError: missing, not UTF-8, or as `parse_config`.
    """
    return parse_config(read_text(path), source=str(path), base=path.parent)


def write_config(path: Path, config: NodeConfig, *, replace: bool = False) -> None:
    """Write a configuration file, every key explained; paths under its directory are relative.

    An existing file is kept unless `replace`.
    Raises: SetupError: the file exists, or cannot be written.
    """
    text = render_settings(
        config, heading="Configuration of one node of the clearing ledger.", base=path.parent
    )
    (replace_file if replace else create_file)(path, text.encode(), PUBLIC_MODE)
