"""`clearing testnet up|down|status`: a network of nodes on this machine.

Lives here: these commands and the JSON of `status`. May not live here: the commands that disturb it (faults.py), making,
starting and asking (node/testnet).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.rules.registry import Registry
from node.cli import faults as disturbing
from node.cli import mining
from node.cli.errors import WrongUseError
from node.cli.faults import Dir, faults_facts, faults_sentence
from node.cli.options import AsJson
from node.cli.render import cells, notice, print_json, progress, stdout, table
from node.cli.rows import asset_fact, participant_fact, words
from node.client import Client, ClientError
from node.pki import CERTIFICATE_NAME
from node.profile import IdentityDirectory
from node.services.facade import NodeKind
from node.testnet.compose import REGULATOR
from node.testnet.faults import Faults
from node.testnet.layout import LocalNetwork
from node.testnet.plan import (
    ASSETS,
    AUTHORITIES,
    NETWORK_NAME,
    OPERATORS_DEFAULT,
    PARTICIPANTS_DEFAULT,
    PARTICIPANTS_MAX,
    PARTICIPANTS_MIN,
    Engine,
    Plan,
    Runner,
    numbered_parties,
    operator_parties,
    plan_of,
    role_name,
)
from node.testnet.status import ASKED_AS, NodeReport, followed, observed

app = typer.Typer(
    help="A network of nodes on this machine: authorities, banks, operators; and faults on demand.",
    no_args_is_help=True,
)

READY_S = 120.0
_REGISTRY_TIMEOUT_S = 3.0

disturbing.add_to(app)
mining.add_to(app)


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
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Who orders: one operator (embedded; the default of processes), or several."
        ),
    ] = None,
    operators: Annotated[
        int | None,
        typer.Option(
            help=f"Number of operators; {OPERATORS_DEFAULT} if left out. Means --engine cometbft."
        ),
    ] = None,
    docker: Annotated[
        bool, typer.Option("--docker", help="Nodes in containers, with a network of their own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the network if there is none, start its nodes, and wait until what they record becomes final.

    Run again on a network that is down, it starts it again with all it holds.
    """
    runner = Runner.DOCKER if docker else Runner.PROCESSES
    chosen = engine or (Engine.COMETBFT if operators or docker else Engine.EMBEDDED)
    plan = plan_of(chosen, operators)
    if LocalNetwork.exists(directory):
        network = LocalNetwork.open(directory)
        has = len(network.parties) - len(AUTHORITIES) - len(operator_parties(network.plan))
        if participants not in (None, has):
            raise WrongUseError(
                "USAGE",
                f"the network in {directory} has {has} participants",
                "Leave --participants out, or give another --dir for a new network.",
            )
        if (engine or operators) and plan != network.plan:
            raise WrongUseError(
                "USAGE",
                f"the network in {directory} has {len(network.plan.operators)} operators, {network.plan.engine}",
                "Leave --engine and --operators out, or give another --dir for a new network.",
            )
        if docker and network.runner is not runner:
            raise WrongUseError(
                "USAGE",
                f"the nodes of the network in {directory} are processes",
                "Leave --docker out, or give another --dir for a new network.",
            )
    else:
        network = create(directory, participants or PARTICIPANTS_DEFAULT, plan, runner)
    network = start(network)
    _report(network, as_json=as_json)


def create(
    directory: Path, participants: int, plan: Plan, runner: Runner = Runner.PROCESSES
) -> LocalNetwork:
    """Make a network with numbered participants, with a progress bar.

    Raises: SetupError: the directory holds something else, or cannot be written.
    """
    # The sequencer's kernels come with it, and only making and running a network needs them.
    from node.testnet.make import make_network  # noqa: PLC0415

    parties = numbered_parties(participants)
    total = len(plan.nodes) + len(AUTHORITIES) + len(operator_parties(plan)) + len(parties)
    with progress("keys and certificates", total) as bar:
        return make_network(
            directory,
            parties,
            lambda _: bar.advance(bar.task_ids[0]),
            plan=plan,
            runner=runner,
            relayed=True,
        )


def start(network: LocalNetwork) -> LocalNetwork:
    """Start the nodes that do not run and wait until the network is ready; returns it with the ports it has now.

    Raises: SetupError: a node ends, or it takes too long; what was started is stopped again.
    """
    from node.testnet.containers import make_image  # noqa: PLC0415 - as above
    from node.testnet.control import start_network  # noqa: PLC0415
    from node.testnet.make import claim_ports  # noqa: PLC0415

    network = claim_ports(network)
    if network.runner is Runner.DOCKER:
        with progress("building the image", 1):
            make_image()
    with progress("starting nodes", len(network.ports)) as bar:

        def show(reports: list[NodeReport]) -> None:
            healthy = sum(report.is_healthy for report in reports)
            bar.update(bar.task_ids[0], completed=healthy)

        start_network(network, READY_S, show)
    return network


@app.command()
def down(directory: Dir, as_json: AsJson = False) -> None:
    """Stop all nodes of the network and its Bitcoin chain, and end all faults; what they hold stays, `up` starts them again."""
    from node.testnet.control import stop_network  # noqa: PLC0415 - as above

    network = LocalNetwork.open(directory)
    with progress("stopping nodes", 1):
        stopped = stop_network(network)
    if as_json:
        print_json({"network": NETWORK_NAME, "stopped": stopped})
        return
    stdout().print(f"stopped {', '.join(stopped) or 'nothing: no node was running'}")


@app.command()
def status(directory: Dir, as_json: AsJson = False) -> None:
    """Show how each node stands, who takes part, and what is cleared.

    The URL of the Bitcoin test chain carries user and password of its RPC, so that stock tools can use it: they guard
    coins of no value. Do not publish what this prints for a network that others can reach.
    """
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
    sizes = [report.status.log_size for report in reports if report.status]
    finals = [report.status.final_size for report in reports if report.status]
    longest = max(sizes, default=0)
    return {
        "network": NETWORK_NAME,
        "engine": network.plan.engine,
        "runner": network.runner,
        "policy": str(network.policy_path.resolve()),
        "bitcoin": network.bitcoin.facts() if network.bitcoin else None,
        "finality_lag_leaves": longest - max(finals, default=0) if sizes else None,
        "faults": faults_facts(Faults.load(network.path)),
        "nodes": [_node_fact(network, report, roots[report.name], longest) for report in reports],
        "participants": participants,
        "assets": assets,
    }


def _node_fact(
    network: LocalNetwork, report: NodeReport, state_root: bytes | None, longest: int
) -> dict[str, Any]:
    """Return one node; `longest` is the size of the longest log of the network, in leaves."""
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
        "address": network.listens(report.name),
        "certificate": str((network.node_path(report.name) / CERTIFICATE_NAME).resolve()),
        "follows": followed(network, report) or None,
        "paused": report.paused,
        "condition": words(status.condition.name) if status else None,
        "detail": status.condition_detail if status else None,
        "behind_leaves": longest - status.log_size if status else None,
        "finality_lag_leaves": status.log_size - status.final_size if status else None,
    }


def _show(network: LocalNetwork, reports: list[NodeReport]) -> None:
    columns = ("node", "follows", "endpoint", "pid", "condition", "log", "behind", "final", "root")
    shown = table(
        f"Network {NETWORK_NAME}, {network.plan.engine}", columns, ("pid", "log", "behind", "final")
    )
    longest = max([report.status.log_size for report in reports if report.status], default=0)
    for report in reports:
        status = report.status
        condition = "[green]serving[/]" if report.is_healthy else "[bold red]down[/]"
        if report.paused:
            condition = "[yellow]paused[/]"
        elif status and not report.is_healthy:
            condition = f"[yellow]{words(status.condition.name)}[/]"
        elif report.pid is not None and not status:
            condition = "[bold red]does not answer[/]"
        sizes = ("-", "-", "-")
        if status:
            sizes = (f"{status.log_size}", f"{longest - status.log_size}", f"{status.final_size}")
        root = status.log_root.hex()[:12] if status else "-"
        shown.add_row(
            *cells(
                report.name, followed(network, report) or "-", report.endpoint, report.pid or "-"
            ),
            condition,
            *cells(*sizes, root),
        )
    console = stdout()
    console.print(shown)
    for report in reports:
        if report.status and report.status.condition_detail:
            said = f"{report.name}: {report.status.condition_detail}"
            console.print(said, markup=False, soft_wrap=True)
    faults = Faults.load(network.path)
    if faults.groups or faults.loss_percent or faults.lies:
        console.print(f"faults:  {faults_sentence(faults)}", markup=False, soft_wrap=True)
    names = ", ".join(party.name for party in network.parties[:16])
    more = f" and {len(network.parties) - 16} more" if len(network.parties) > 16 else ""
    console.print(f"parties: {names}{more}", soft_wrap=True)
    console.print(f"policy:  {network.policy_path}", soft_wrap=True)
    if network.bridge is not None:
        _show_containers(network)
    if network.bitcoin:
        console.print(f"bitcoin: {network.bitcoin.facts()['rpc_url']}", soft_wrap=True)
    console.print(f"try:     clearing obligations --dir {network.path} --as p01", soft_wrap=True)


def _show_containers(network: LocalNetwork) -> None:
    """Print where each container is and which certificate it shows, and how the regulator asks."""
    shown = table("", ("container", "published at", "address", "certificate"))
    bridge = network.bridge
    if bridge is None:
        return
    for name in network.ports:
        certificate = network.node_path(name) / CERTIFICATE_NAME
        shown.add_row(
            *cells(
                bridge.container(name), network.endpoint(name), network.listens(name), certificate
            )
        )
    console = stdout()
    console.print(shown)
    desk = bridge.container(REGULATOR)
    asks = f"docker exec {desk} clearing audit query obligations --identity /identity"
    console.print(f"regulator: {asks}", soft_wrap=True)
