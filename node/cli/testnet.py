"""`clearing testnet up|down|status`: a network of five node processes on this machine.

Lives here: the commands and the JSON of `status`. May not live here: making, starting and asking (node/testnet).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.rules.registry import Registry
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.options import AsJson
from node.cli.render import cells, notice, print_json, progress, stdout, table
from node.cli.rows import asset_fact, participant_fact, words
from node.client import Client, ClientError
from node.profile import IdentityDirectory
from node.services.facade import NodeKind
from node.testnet.layout import LocalNetwork
from node.testnet.plan import (
    ASSETS,
    AUTHORITIES,
    NETWORK_NAME,
    NODES,
    PARTICIPANTS_DEFAULT,
    PARTICIPANTS_MAX,
    PARTICIPANTS_MIN,
    numbered_parties,
    role_name,
)
from node.testnet.processes import stop_all
from node.testnet.status import ASKED_AS, NodeReport, observed

app = typer.Typer(
    help="A network of five nodes on this machine: ministry, central bank, two banks, an exchange.",
    no_args_is_help=True,
)

READY_S = 120.0
_REGISTRY_TIMEOUT_S = 3.0

Dir = Annotated[
    Path, typer.Option("--dir", help="Directory of the network; `up` makes it.", file_okay=False)
]


@app.command()
def up(
    directory: Dir,
    participants: Annotated[
        int | None,
        typer.Option(
            help=f"Number of participants, p01 and on; {PARTICIPANTS_DEFAULT} if left out.",
            min=PARTICIPANTS_MIN,
            max=PARTICIPANTS_MAX,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the network if there is none, start its nodes, and wait until what they record becomes final.

    Run again on a network that is down, it starts it again with all it holds.
    """
    if LocalNetwork.exists(directory):
        network = LocalNetwork.open(directory)
        has = len(network.parties) - len(AUTHORITIES)
        if participants not in (None, has):
            raise WrongUseError(
                "USAGE",
                f"the network in {directory} has {has} participants",
                "Leave --participants out, or give another --dir for a new network.",
            )
    else:
        network = create(directory, participants or PARTICIPANTS_DEFAULT)
    network = start(network)
    _report(network, as_json=as_json)


def create(directory: Path, participants: int) -> LocalNetwork:
    """Make a network with numbered participants, with a progress bar.

    Raises: SetupError: the directory holds something else, or cannot be written.
    """
    # The sequencer's kernels come with it, and only making and running a network needs them.
    from node.testnet.make import make_network  # noqa: PLC0415

    parties = numbered_parties(participants)
    total = len(NODES) + len(AUTHORITIES) + len(parties)
    with progress("keys and certificates", total) as bar:
        return make_network(directory, parties, lambda _: bar.advance(bar.task_ids[0]))


def start(network: LocalNetwork) -> LocalNetwork:
    """Start the nodes that do not run and wait until the network is ready; returns it with the ports it has now.

    Raises: SetupError: a node ends, or it takes too long; what was started is stopped again.
    """
    from node.testnet.make import claim_ports  # noqa: PLC0415 - as above

    network = claim_ports(network)
    started = [process for process in network.processes() if process.pid() is None]
    chain = network.bitcoin
    to_stop = [process for process in network.all_processes() if process.pid() is None]
    try:
        if chain is not None:
            chain.start()
        for process in started:
            process.start()
        with observed(network) as observer, progress("starting nodes", len(NODES)) as bar:

            def show(reports: list[NodeReport]) -> None:
                healthy = sum(report.is_healthy for report in reports)
                bar.update(bar.task_ids[0], completed=healthy)

            observer.wait_ready(READY_S, show)
    except BaseException:
        stop_all(to_stop)
        raise
    return network


@app.command()
def down(directory: Dir, as_json: AsJson = False) -> None:
    """Stop all nodes of the network and its Bitcoin chain; what they hold stays, `up` starts them again."""
    network = LocalNetwork.open(directory)
    with progress("stopping nodes", 1):
        stopped = stop_all(network.processes())
        stop_all([network.bitcoin.process] if network.bitcoin else [])
    left = [process.name for process in network.all_processes() if process.pid() is not None]
    if left:
        raise CheckFailedError("STILL_RUNNING", f"{', '.join(left)} did not stop", "Try again.")
    if as_json:
        print_json({"network": NETWORK_NAME, "stopped": stopped})
        return
    stdout().print(f"stopped {', '.join(stopped) or 'nothing: no node was running'}")


@app.command()
def status(directory: Dir, as_json: AsJson = False) -> None:
    """Show how each node stands, who takes part, and what is cleared."""
    _report(LocalNetwork.open(directory), as_json=as_json)


def _report(network: LocalNetwork, *, as_json: bool) -> None:
    with observed(network) as observer:
        reports = observer.nodes()
        roots = {report.name: observer.state_root(report) for report in reports}
    if as_json:
        print_json(status_facts(network, reports, roots, _registry(network, reports)))
        return
    _show(network, reports)


def _registry(network: LocalNetwork, reports: list[NodeReport]) -> Registry | None:
    """Return the register as a node has it now, or None where none answers."""
    identity = IdentityDirectory.open(network.identity_path(ASKED_AS))
    asked = [
        report.endpoint
        for report in reports
        if report.status and report.status.kind is not NodeKind.WITNESS_REPLICA
    ]
    if not asked:
        return None
    with Client(identity, endpoints=asked, timeout_s=_REGISTRY_TIMEOUT_S) as client:
        try:
            return client.registry()
        except ClientError as error:
            notice(f"the register could not be read ({error}); participants are shown as made")
            return None


def status_facts(
    network: LocalNetwork,
    reports: list[NodeReport],
    roots: Mapping[str, bytes | None],
    registry: Registry | None,
) -> dict[str, Any]:
    """Return what `testnet status --json` prints; without a register, parties and assets are shown as made."""
    if registry is None:
        participants = [
            {
                "name": party.name,
                "lei": party.lei,
                "role": role_name(party.role),
                "status": "active",
            }
            for party in network.parties
        ]
        assets = [asset_fact(asset) for asset in ASSETS]
    else:
        participants = [participant_fact(party) for party in registry.participants]
        assets = [asset_fact(asset) for asset in registry.assets]
    return {
        "network": NETWORK_NAME,
        "policy": str(network.policy_path.resolve()),
        "bitcoin": network.bitcoin.facts() if network.bitcoin else None,
        "nodes": [_node_fact(network, report, roots[report.name]) for report in reports],
        "participants": participants,
        "assets": assets,
    }


def _node_fact(
    network: LocalNetwork, report: NodeReport, state_root: bytes | None
) -> dict[str, Any]:
    party = network.party(report.name)
    status = report.status
    return {
        "name": report.name,
        "role": role_name(party.role),
        "lei": party.lei,
        "endpoint": report.endpoint,
        "pid": report.pid,
        "healthy": report.is_healthy,
        "height": status.height if status else None,
        "log_size": status.log_size if status else None,
        "log_root": status.log_root.hex() if status else None,
        "state_root": state_root.hex() if state_root else None,
        "final_size": status.final_size if status else None,
    }


def _show(network: LocalNetwork, reports: list[NodeReport]) -> None:
    columns = ("node", "endpoint", "pid", "condition", "log", "final", "log root")
    shown = table(f"Network {NETWORK_NAME}", columns, ("pid", "log", "final"))
    for report in reports:
        status = report.status
        condition = "[green]serving[/]" if report.is_healthy else "[bold red]down[/]"
        if status and not report.is_healthy:
            condition = f"[yellow]{words(status.condition.name)}[/]"
        sizes = (status.log_size, status.final_size) if status else ("-", "-")
        root = status.log_root.hex()[:12] if status else "-"
        shown.add_row(
            *cells(report.name, report.endpoint, report.pid or "-"),
            condition,
            *cells(*sizes, root),
        )
    console = stdout()
    console.print(shown)
    names = ", ".join(party.name for party in network.parties[:16])
    more = f" and {len(network.parties) - 16} more" if len(network.parties) > 16 else ""
    console.print(f"parties: {names}{more}", soft_wrap=True)
    console.print(f"policy:  {network.policy_path}", soft_wrap=True)
    if network.bitcoin:
        console.print(f"bitcoin: {network.bitcoin.facts()['rpc_url']}", soft_wrap=True)
    console.print(f"try:     clearing obligations --dir {network.path} --as p01", soft_wrap=True)
