"""`clearing node init|run|status` and `clearing doctor`: one node, as its operator sees it.

Lives here: the commands. May not live here: what a node is made of (node/provision.py), the node itself (runtime.py),
what a healthy one looks like (doctor.py).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.log.policy import Policy
from clearing.rules.registry import Registry
from node import doctor as examination
from node.cli.actions import parse_actions
from node.cli.errors import EXIT_CHECK_FAILED, CheckFailedError, WrongUseError, as_cli_error
from node.cli.options import U64_MAX, AsJson, ask_passphrase
from node.cli.render import cells, print_json, stdout, table
from node.cli.session import Access, with_access
from node.config import CONFIG_NAME, NodeConfig, ReplicaRole, load_config
from node.errors import SetupError, may_pass
from node.files import PUBLIC_MODE, create_file, read_given, read_text
from node.keys import Passphrase
from node.pki import Authority, Validity
from node.provision import DATA_NAME, POLICY_NAME, NodeKeys, NodePlace, make_node, write_genesis
from node.sequencer.cometbft.home import block_zero, genesis_document
from node.services.facade import NodeCondition

app = typer.Typer(help="Make, run and watch one node.", no_args_is_help=True)

Operators = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=HOST:PORT", help="An operator of a network of several; repeat for each."
    ),
]
EngineListen = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where an operator's engine meets the others.")
]
ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config", metavar="FILE", help="The node's node.toml, or the directory that holds it."
    ),
]


def config_path(path: Path) -> Path:
    """Return the configuration file of an option that names it or its directory."""
    return path / CONFIG_NAME if path.is_dir() else path


def passphrase_of(config: NodeConfig) -> Passphrase | None:
    """Ask for the passphrase of a node's keys where no key file opens them."""
    if config.key_file_path is not None:
        return None
    return ask_passphrase(f"the keys of {config.node_name}")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="New directory of the node.", file_okay=False)],
    *,
    name: Annotated[str, typer.Option(help="Name of the node: that of its participant.")],
    network: Annotated[str, typer.Option(help="Name of the network.")],
    role: Annotated[ReplicaRole, typer.Option(help="What the node does in its network.")],
    authority: Annotated[
        Path, typer.Option(help="Directory of the network's authority; made if it is missing.")
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the node serves.")] = (
        "127.0.0.1:7400"
    ),
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or IP address by which others dial it; repeat for several."),
    ] = None,
    leader_endpoint: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the leader serves; for followers.")
    ] = "",
    leader_name: Annotated[str, typer.Option(help="Node name of the leader; for followers.")] = "",
    operator: Operators = None,
    consensus_listen: EngineListen = "127.0.0.1:26656",
    policy: Annotated[
        Path | None,
        typer.Option(help="The network's policy; add it later as DIRECTORY/policy if left out."),
    ] = None,
    genesis: Annotated[
        Path | None,
        typer.Option(help="Actions that begin the ledger, as JSON; for the leader."),
    ] = None,
    by_passphrase: Annotated[
        bool,
        typer.Option(
            "--ask-passphrase",
            help="Seal the keys by a passphrase instead of a key file beside them.",
        ),
    ] = False,
    days: Annotated[int, typer.Option(help="Validity of the certificate.", min=1, max=3650)] = 365,
    as_json: AsJson = False,
) -> None:
    """Make a node's directory: sealed keys, certificate, node.toml; for the leader also block 0.

    Prints the verifier keys that the network's policy must list, and the node key that the register must hold before
    the ledger believes what the node reports from outside. Of an operator also its engine's node id, for the others'
    consensus_peers, and its consensus key, for the register.
    """
    _check_genesis(role, genesis)
    passphrase = ask_passphrase("the new keys", confirm=True) if by_passphrase else None
    trusted = Policy.parse(read_given(policy)) if policy else None
    actions = parse_actions(read_text(genesis), Registry()) if genesis else []
    issuer = _authority(authority, network, days)
    dialled = (leader_endpoint, leader_name, tuple(operator or ()))
    place = NodePlace(network, name, role, listen, *dialled, consensus_listen)
    keys = make_node(
        directory,
        place,
        issuer,
        Validity.days_from_now(days),
        hosts=host or [listen.rpartition(":")[0].strip("[]")],
        passphrase=passphrase,
    )
    if trusted:
        create_file(directory / POLICY_NAME, trusted.encode(), PUBLIC_MODE)
    facts = {"node": name, "directory": str(directory), **_public_facts(keys)}
    if actions:
        network_id = write_genesis(directory / DATA_NAME, time.time_ns() // 10**6, actions)
        facts["network_id"] = network_id.hex()
    _show_facts(facts, as_json=as_json)


def _public_facts(keys: NodeKeys) -> dict[str, Any]:
    """Return what others must be told of a new node's keys."""
    return {
        "cosigner_vkey": keys.cosigner.vkey,
        "log_vkey": keys.log.vkey if keys.log else None,
        "node_key": keys.instruction.hex() if keys.instruction else None,
        "network_id": None,
        "engine_node_id": keys.engine.node_id if keys.engine else None,
        "consensus_key": keys.engine.consensus_key.hex() if keys.engine else None,
    }


@app.command()
def genesis(
    actions: Annotated[
        Path, typer.Argument(help="Actions that begin the ledger, as JSON.", dir_okay=False)
    ],
    out: Annotated[
        Path, typer.Option(help="Where the file goes; on each operator: consensus/config/.")
    ] = Path("genesis.json"),
    time_ms: Annotated[
        int | None,
        typer.Option(help="First block time, ms since 1970; now if left out.", min=0, max=U64_MAX),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the genesis.json of a network of several operators; the same file goes to each of them.

    The actions must appoint at least four validators: {"action": "set-validator", ...} with the consensus keys that
    `node init --role operator` printed.
    """
    begun_ms = time.time_ns() // 10**6 if time_ms is None else time_ms
    parsed = parse_actions(read_text(actions), Registry())
    create_file(out, genesis_document(begun_ms, parsed), PUBLIC_MODE)
    network_id = block_zero(begun_ms, parsed).delta.network_id
    _show_facts(
        {"file": str(out), "network_id": network_id.hex(), "time_ms": begun_ms}, as_json=as_json
    )


def _check_genesis(role: ReplicaRole, genesis: Path | None) -> None:
    if (role is ReplicaRole.LEADER) != (genesis is not None):
        raise WrongUseError(
            "USAGE",
            "--genesis goes with --role leader, and is needed there",
            "The leader begins the ledger; followers receive it from the leader.",
        )


def _authority(directory: Path, network: str, days: int) -> Authority:
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        return Authority.create(directory, network, Validity.days_from_now(max(3650, days + 1)))
    return Authority.load(directory)


def _show_facts(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    shown = table("", ("fact", "value"))
    for name, value in facts.items():
        if value is not None:
            shown.add_row(*cells(name, value))
    stdout().print(shown)


@app.command()
def run(
    config: ConfigPath = Path(CONFIG_NAME),
    confirm_time: Annotated[
        bool,
        typer.Option(
            "--confirm-time", help="Vouch for this machine's clock, where the node doubts it."
        ),
    ] = False,
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="Run under a supervisor.")
    ] = False,
) -> None:
    """Run a node until it is told to stop (SIGTERM or ^C); it logs JSON lines to stderr.

    An operator's node runs with its consensus engine beside it, both restarted when either ends. A node that cannot
    start ends with 2 where a file or setting must be changed first, with 1 where the cause may pass by itself: a full
    disk, a port that is taken, a clock that is not set yet.
    """
    path = config_path(config)
    loaded = load_config(path)
    if loaded.role is ReplicaRole.OPERATOR and not supervised:
        from node.supervisor import run as run_pair  # noqa: PLC0415 - only operators need it

        extra = ("--confirm-time",) if confirm_time else ()
        run_pair(path, passphrase_of(loaded), extra)
        return
    # It loads the kernels, which only a running node needs.
    from node.runtime import run as run_node  # noqa: PLC0415

    passphrase = _handed_passphrase() if supervised else passphrase_of(loaded)
    try:
        run_node(path, passphrase=passphrase, confirm_time=confirm_time)
    except (SetupError, OSError) as error:
        shown = as_cli_error(error)
        if shown is None or not may_pass(error):
            raise
        # Who watches over a node need not try wrong use again; this it must.
        raise CheckFailedError(shown.code, shown.sentence, shown.remedy) from error


def _handed_passphrase() -> Passphrase | None:
    """Read what the supervisor hands over, and stop this process when the supervisor is gone."""
    text = json.loads(sys.stdin.readline() or '""')

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
    return Passphrase(text) if text else None


@app.command()
@with_access
def status(access: Access, as_json: AsJson = False) -> None:
    """Show how a node stands; exit 1 unless it serves. For supervisors, operators, and who runs the node."""
    with access.client() as client:
        found = client.status()
    facts = {
        "name": found.name,
        "lei": found.lei,
        "kind": found.kind.name,
        "condition": found.condition.name,
        "detail": found.condition_detail,
        "leader_endpoint": found.leader_endpoint,
        "network_id": found.network_id.hex(),
        "origin": found.origin,
        "height": found.height,
        "time_ms": found.time_ms,
        "log_size": found.log_size,
        "log_root": found.log_root.hex(),
        "state_root": found.state_root.hex() or None,
        "final_size": found.final_size,
        "store_bytes": found.store_bytes,
        "queued": found.queued_transactions,
        "engine": found.engine
        and {
            "height": found.engine.height,
            "catching_up": found.engine.is_catching_up,
            "peers": found.engine.peers,
            "power": found.engine.power,
        },
        "replicas": [
            {
                "name": replica.name,
                "kind": replica.kind.name,
                "connected": replica.connected,
                "cosigned_size": replica.cosigned_size,
            }
            for replica in found.replicas
        ],
    }
    _show_standing(facts, as_json=as_json)
    if found.condition is not NodeCondition.SERVING:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _show_standing(facts: dict[str, Any], *, as_json: bool) -> None:
    """Show a node's facts; where they are read by people, its engine in a line and its replicas in a table."""
    if as_json:
        print_json(facts)
        return
    engine, replicas = facts.pop("engine"), facts.pop("replicas")
    told = engine and ", ".join(f"{name} {value}" for name, value in engine.items())
    shown = {name: value for name, value in facts.items() if value != ""}
    _show_facts({**shown, "engine": told}, as_json=False)
    if replicas:
        listed = table("Replicas", ("name", "kind", "connected", "cosigned"), ("cosigned",))
        for replica in replicas:
            joined = "yes" if replica["connected"] else "no"
            kind = replica["kind"].partition("_")[0].lower()
            listed.add_row(*cells(replica["name"], kind, joined, replica["cosigned_size"]))
        stdout().print(listed)


@app.command()
def health(config: ConfigPath = Path(CONFIG_NAME), as_json: AsJson = False) -> None:
    """Ask the node of this configuration, with its own certificate, whether it serves; exit 1 unless it does."""
    from node.health import check_health  # noqa: PLC0415 - it loads gRPC

    loaded = load_config(config_path(config))
    answer = check_health(loaded)
    _show_facts({"name": loaded.node_name, "health": answer}, as_json=as_json)
    if answer != "SERVING":
        raise typer.Exit(EXIT_CHECK_FAILED)


def doctor(
    config: ConfigPath = Path(CONFIG_NAME),
    as_json: AsJson = False,
) -> None:
    """Check a node's files, certificate, keys, clock, disk and libraries; exit 1 if anything is wrong.

    Run it before a node is started, or when one behaves oddly.
    """
    loaded = load_config(config_path(config))
    findings = examination.examine(
        loaded, dt.datetime.now(dt.UTC), _store_facts(loaded), passphrase_of(loaded)
    )
    if as_json:
        print_json([{"check": one.name, "ok": one.ok, "finding": one.sentence} for one in findings])
    else:
        shown = table(f"Node {loaded.node_name}", ("check", "", "finding"))
        for one in findings:
            mark = "[green]ok[/]" if one.ok else "[bold red]WRONG[/]"
            shown.add_row(one.name, mark, *cells(one.sentence))
        stdout().print(shown)
    if not all(one.ok for one in findings):
        raise typer.Exit(EXIT_CHECK_FAILED)


def _store_facts(config: NodeConfig) -> examination.StoreFacts | examination.StoreUnread:
    """Return what is known of a node's database, or why nothing is."""
    from node.store import Store, StoreError, StoreLockedError  # noqa: PLC0415 - as above
    from node.store.datafile import DATA_FILE  # noqa: PLC0415 - as above

    if not (config.data_dir / DATA_FILE).exists():
        return examination.NO_STORE
    try:
        with Store.open(config.data_dir, create=False) as store:
            usage, tip = store.usage(), store.tip
    except StoreLockedError:
        return examination.StoreUnread(
            ok=True,
            sentence="a running process has the database open; `clearing node status` asks it",
        )
    except (StoreError, SetupError) as error:
        return examination.StoreUnread(ok=False, sentence=str(error))
    if tip is None:
        return examination.NO_STORE
    return examination.StoreFacts(tip.time_ms, usage.used_bytes, usage.map_bytes)
