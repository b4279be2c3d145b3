"""`clearing audit fsck`: everything in a node's database derived again and compared.

Lives here: the command. May not live here: the checks (node/store/fsck.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.log.policy import Policy
from node.cli.errors import EXIT_CHECK_FAILED, WrongUseError
from node.cli.options import AsJson, NetworkDir, NodeName
from node.cli.render import cells, print_json, progress, stdout, table
from node.files import read_public
from node.provision import DATA_NAME, POLICY_NAME
from node.store.errors import Finding
from node.testnet.layout import LocalNetwork


def fsck(
    data_dir: Annotated[
        Path | None,
        typer.Argument(help="Database of a node that does not run.", file_okay=False),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="The network's policy, to check signatures too.")
    ] = None,
    directory: NetworkDir = None,
    node: NodeName = None,
    as_json: AsJson = False,
) -> None:
    """Re-derive everything in a node's database and name the table and key of each altered byte; exit 1 if there is any.

    With --dir it checks the nodes of a test network, or the one named by --node. A node must be stopped for it.
    """
    # It applies every block again, with the kernels that only this and a running node need.
    from node.store.fsck import check_directory  # noqa: PLC0415

    places = _fsck_places(data_dir, policy, directory, node)
    rows: list[dict[str, Any]] = []
    damaged = 0
    with progress("checking", 1) as bar:
        for name, path, policy_path in places:
            trusted = Policy.parse(read_public(policy_path)) if policy_path else None

            def show(stage: str, done: int, total: int, name: str = name) -> None:
                bar.update(
                    bar.task_ids[0], description=f"{name} {stage}", completed=done, total=total
                )

            for finding in check_directory(path, trusted, show):
                rows.append({"node": name, **_finding_fact(finding)})
                damaged += finding.is_damage
    if as_json:
        print_json(
            {"holds": not damaged, "nodes": [name for name, _, _ in places], "findings": rows}
        )
    else:
        _show_findings(rows, [name for name, _, _ in places], damaged)
    if damaged:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _finding_fact(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "table": finding.table,
        "key": finding.key,
        "what": finding.what,
    }


def _fsck_places(
    data_dir: Path | None, policy: Path | None, directory: Path | None, node: str | None
) -> list[tuple[str, Path, Path | None]]:
    """Return (name, database, policy file) of each node to check."""
    if (data_dir is None) == (directory is None):
        raise WrongUseError(
            "USAGE", "it is not said which database", "Give DATA_DIR, or --dir [--node NAME]."
        )
    if data_dir is not None:
        return [(str(data_dir), data_dir, policy)]
    network = LocalNetwork.open(directory or Path())
    chosen = [node] if node else list(network.ports)
    running = [name for name in chosen if network.process(name).pid() is not None]
    if running:
        raise WrongUseError(
            "STORE_LOCKED",
            f"{', '.join(running)} {'runs' if len(running) == 1 else 'run'}: a database in use is not checked",
            f"Stop first: clearing testnet down --dir {directory}",
        )
    paths = [(name, network.node_path(name)) for name in chosen]
    return [(name, path / DATA_NAME, path / POLICY_NAME) for name, path in paths]


def _show_findings(rows: Sequence[dict[str, Any]], names: Sequence[str], damaged: int) -> None:
    console = stdout()
    if rows:
        shown = table("Findings", ("node", "kind", "table", "key", "what"))
        for row in rows:
            shown.add_row(*cells(*row.values()))
        console.print(shown)
    if damaged:
        console.print(f"[bold red]{damaged} damaged[/]")
        return
    console.print(f"[bold green]holds[/]: {', '.join(names)}", soft_wrap=True)
