"""`clearing governance propose|approve|list`: how the register, the assets and the parameters change.

Lives here: the commands. May not live here: the JSON of actions (actions.py), what they do (clearing.rules).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.rules.governance import decode_actions
from node.cli.actions import parse_actions
from node.cli.errors import WrongUseError
from node.cli.names import Names
from node.cli.options import U64_MAX, AsJson, read_standard_input
from node.cli.render import cells, print_json, print_json_rows, stdout, table, utc
from node.cli.session import Access, with_access
from node.client import Client
from node.files import read_text
from node.queries import ProposalRow
from node.wire import action_text

app = typer.Typer(
    help="Change the register: propose, approve; by default ministry and central bank both.",
    no_args_is_help=True,
)


@app.command()
@with_access
def propose(
    access: Access,
    file: Annotated[
        str, typer.Argument(help="Actions as a JSON list; - reads them from standard input.")
    ],
    as_json: AsJson = False,
) -> None:
    """Propose actions; proposing is the proposer's approval, and the quorum's last approval enacts them.

    The forms:\n
    {"action": "add-participant", "name", "lei", "role", "public_key"[, "licence_no"][, "licence_expiry"]}\n
    {"action": "set-licence", "participant", "status": "active"|"suspended"|"withdrawn"[, "licence_no"][, "licence_expiry"]}\n
    {"action": "rotate-key", "participant", "public_key"}\n
    {"action": "set-node-key", "participant", "node_key"}\n
    {"action": "set-validator", "participant", "consensus_key", "power"}\n
    {"action": "remove-validator", "participant"}\n
    {"action": "add-asset", "name", "caip19", "scale"[, "dti"][, "method"]}\n
    {"action": "set-method", "asset", "method"}\n
    {"action": "set-parameters"[, "governance_quorum"][, "proposal_lifetime_ms"][, "settlement_timeout_ms"]
    [, "solution_timeout_ms"][, "submitter_open_items"]}\n
    {"action": "set-timetable", "cut_offs": ["11:00", "16:30"]}\n
    {"action": "set-cap", "participant", "asset", "amount": "UNITS" or null}\n
    {"action": "set-bitcoin-chain", "network": "main"|"testnet4"|"signet"|"regtest", "height", "header": HEX}\n
    {"action": "set-route", "asset", "depth", "signing_ms", "fee_rate_max"}, {"action": "end-route", "asset"}\n
    {"action": "set-miner", "participant", "region"}, {"action": "remove-miner", "participant"}\n
    {"action": "add-payout-script" or "remove-payout-script", "participant", "kind": "miner"|"pool", "script"}\n
    {"action": "set-tax-rule", "remaining_ppm", "used_ppm"}
    """
    text = read_standard_input() if file == "-" else read_text(Path(file))
    with access.client() as client:
        actions = parse_actions(text, client.registry())
        recorded = client.propose(actions)
        _show_one(client, recorded.index, as_json=as_json)


@app.command()
@with_access
def approve(
    access: Access,
    proposal: Annotated[
        int, typer.Argument(metavar="N", help="Log index of it.", min=0, max=U64_MAX)
    ],
    as_json: AsJson = False,
) -> None:
    """Approve a proposal; the approval that reaches the quorum enacts it."""
    with access.client() as client:
        client.approve(proposal)
        _show_one(client, proposal, as_json=as_json)


@app.command("list")
@with_access
def list_proposals(access: Access, as_json: AsJson = False) -> None:
    """List all proposals with who approved them."""
    with access.client() as client:
        names = Names(client.registry())
        rows = client.proposals()
    if as_json:
        print_json_rows(proposal_fact(row, names) for row in rows)
        return
    shown = table("Proposals", ("proposal", "made (UTC)", "state", "approved by", "actions"))
    for row in rows:
        fact = proposal_fact(row, names)
        approvals, actions = ", ".join(fact["approvals"]), "\n".join(fact["actions"])
        made = utc(row.proposal.created_ms)
        shown.add_row(*cells(row.log_index, made, fact["state"].lower(), approvals, actions))
    stdout().print(shown)


def proposal_fact(row: ProposalRow, names: Names) -> dict[str, Any]:
    """Return a proposal as JSON."""
    state = "ENACTED" if row.proposal.enacted else "LAPSED" if row.lapsed else "OPEN"
    return {
        "proposal": row.log_index,
        "state": state,
        "approvals": [names.party(number) for number in row.proposal.approvals],
        "created_ms": row.proposal.created_ms,
        "actions": [action_text(action) for action in decode_actions(row.actions)],
    }


def _show_one(client: Client, index: int, *, as_json: bool) -> None:
    names = Names(client.registry())
    # A node of before this filter answers with all.
    found = [row for row in client.proposals(index) if row.log_index == index]
    if not found:
        raise WrongUseError("UNKNOWN_PROPOSAL", f"no proposal {index}", "See `governance list`.")
    fact = proposal_fact(found[0], names)
    if as_json:
        print_json(fact)
        return
    by = ", ".join(fact["approvals"])
    stdout().print(f"proposal [bold]{index}[/] is {fact['state'].lower()}, approved by {by}")
    for action in fact["actions"]:
        stdout().print(*cells(f"  {action}"), soft_wrap=True)
