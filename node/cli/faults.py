"""`clearing testnet kill|stop|start|pause|resume|partition|heal|loss|lie`: a test network disturbed on demand.

Lives here: these commands. May not live here: bringing a fault about (node/testnet).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.options import AsJson
from node.cli.render import print_json, stdout
from node.testnet.faults import Faults
from node.testnet.layout import LocalNetwork

Dir = Annotated[
    Path, typer.Option("--dir", help="Directory of the network; `up` makes it.", file_okay=False)
]

_PANEL = "Faults on demand"

Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of the node.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `clearing testnet`."""
    for command in (kill, stop, start, pause, resume, partition, heal, loss, lie):
        app.command(rich_help_panel=_PANEL)(command)


def kill(node: Node, directory: Dir, as_json: AsJson = False) -> None:
    """End a node at once (SIGKILL), as a power cut would; `start` brings it back."""
    from node.testnet.control import stop_node  # noqa: PLC0415 - the sequencer's kernels come with it

    ran = stop_node(LocalNetwork.open(directory), node, at_once=True)
    _tell({"node": node, "ran": ran}, f"{node} {'killed' if ran else 'did not run'}", as_json)


def stop(node: Node, directory: Dir, as_json: AsJson = False) -> None:
    """Ask a node to end, and wait until it has; `start` brings it back."""
    from node.testnet.control import stop_node  # noqa: PLC0415 - as above

    ran = stop_node(LocalNetwork.open(directory), node)
    _tell({"node": node, "ran": ran}, f"{node} {'stopped' if ran else 'did not run'}", as_json)


def start(node: Node, directory: Dir, as_json: AsJson = False) -> None:
    """Start a node that does not run; it catches up by itself."""
    from node.testnet.control import start_node  # noqa: PLC0415 - as above

    pid = start_node(LocalNetwork.open(directory), node).pid()
    _tell({"node": node, "pid": pid}, f"{node} runs as process {pid}", as_json)


def pause(node: Node, directory: Dir, as_json: AsJson = False) -> None:
    """Have a node stand still where it is, its connections open; `resume` has it go on."""
    _pause(node, directory, as_json, paused=True)


def resume(node: Node, directory: Dir, as_json: AsJson = False) -> None:
    """Have a paused node go on."""
    _pause(node, directory, as_json, paused=False)


def _pause(node: str, directory: Path, as_json: bool, *, paused: bool) -> None:
    from node.testnet.control import pause_node  # noqa: PLC0415 - as above

    pause_node(LocalNetwork.open(directory), node, paused=paused)
    _tell({"node": node, "paused": paused}, f"{node} {'paused' if paused else 'resumed'}", as_json)


def partition(
    sides: Annotated[
        list[str],
        typer.Argument(
            metavar="A,B [C,D]...",
            help="Nodes of each side, with commas; one side alone is cut off from all others.",
        ),
    ],
    directory: Dir,
    as_json: AsJson = False,
) -> None:
    """Split the network: nodes of different sides do not hear each other until `heal`."""
    from node.testnet import control  # noqa: PLC0415 - as above

    groups = [[name for name in side.split(",") if name] for side in sides]
    _change(directory, as_json, lambda network: control.partition(network, groups))


def heal(directory: Dir, as_json: AsJson = False) -> None:
    """Open all ways between nodes, and lose nothing any more."""
    from node.testnet import control  # noqa: PLC0415 - as above

    _change(directory, as_json, control.heal)


def loss(
    node: Node,
    percent: Annotated[int, typer.Argument(min=0, max=100, help="0 ends it.")],
    directory: Dir,
    as_json: AsJson = False,
) -> None:
    """Lose a part of what a node and the others send each other."""
    from node.testnet import control  # noqa: PLC0415 - as above

    _change(directory, as_json, lambda network: control.lose(network, node, percent))


def lie(
    node: Node,
    directory: Dir,
    how: Annotated[
        str,
        typer.Option(help='"state": it computes another state; "heads": it signs a second head.'),
    ] = "state",
    stop: Annotated[bool, typer.Option("--stop", help="Make it honest again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restart a node as one that lies; only from the repository, whose tests hold that build."""
    from node.testnet import control  # noqa: PLC0415 - as above

    how = "" if stop else how
    control.lie(LocalNetwork.open(directory), node, how)
    _tell({"node": node, "lies": how}, f"{node} {f'lies: {how}' if how else 'is honest'}", as_json)


def _change(directory: Path, as_json: bool, change: Callable[[LocalNetwork], Faults]) -> None:
    faults = change(LocalNetwork.open(directory))
    _tell(faults_facts(faults), faults_sentence(faults), as_json)


def faults_facts(faults: Faults) -> dict[str, Any]:
    """Return the faults as `--json` prints them."""
    return {
        "partition": [list(group) for group in faults.groups],
        "loss_percent": dict(faults.loss_percent),
        "lies": dict(faults.lies),
    }


def faults_sentence(faults: Faults) -> str:
    """Return the faults as people read them."""
    split = " | ".join(",".join(group) for group in faults.groups)
    said = [f"split {split}"] if split else []
    said += [f"{name} loses {percent} %" for name, percent in faults.loss_percent.items()]
    said += [f"{name} lies ({how})" for name, how in faults.lies.items()]
    return "; ".join(said) or "no fault is on"


def _tell(facts: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        stdout().print(sentence, markup=False, soft_wrap=True)
