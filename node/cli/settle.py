"""`clearing settle`: the Bitcoin leg of a cycle by one transaction; signers may be behind an air gap.

Lives here: the commands. May not live here: the transaction (clearing/bitcoin), checks and signatures (node/settlement).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.bitcoin.provenance import script_message
from clearing.bitcoin.psbt import inputs_of, make_psbt
from clearing.bitcoin.transaction import sha256d
from clearing.records.instruction import InstructionKind
from clearing.records.settlement import (
    LEG_LAYOUT,
    OFFER_LAYOUT,
    SIGNING_LAYOUT,
    ScriptStatement,
)
from clearing.rules.legs import NOBODY, LegState, NamedCoins
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.legs import leg_fact, why_of
from node.cli.names import Names
from node.cli.options import U32_MAX, U64_MAX, AsJson
from node.cli.render import cells, print_json, stdout, table
from node.cli.session import Access, with_access
from node.files import read_private_text, write_output
from node.queries_bitcoin import LegRow
from node.settlement.coordinator import gather
from node.settlement.files import read_coins, read_psbt_file, script_of
from node.settlement.signer import check_cost, cost_of, load_keys, sign_message
from node.settlement.signer import sign as sign_inputs
from node.workers.anchoring.rpc import BitcoinRpc

app = typer.Typer(
    help="Settle Bitcoin nets by one transaction a cycle: scripts, coins, PSBT.",
    no_args_is_help=True,
)
psbt_app = typer.Typer(
    help="The cycle's transaction as a PSBT: coins, create, show, sign, combine, status; or refuse, unsigned, recast.",
    no_args_is_help=True,
)
app.add_typer(psbt_app, name="psbt")

CycleNumber = Annotated[
    int, typer.Argument(metavar="CYCLE", help="Number of the cycle.", min=1, max=U32_MAX)
]
KeyFile = Annotated[
    Path,
    typer.Option(
        "--keys",
        metavar="FILE",
        help="Private keys, one a line: WIF, or an extended key of BIP 84 and BIP 86; readable by you alone.",
        dir_okay=False,
    ),
]
Out = Annotated[Path, typer.Option(metavar="FILE", help="Where the result goes.", dir_okay=False)]


@app.command("script")
@with_access
def script(
    access: Access,
    script_text: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="P2WPKH or P2TR address, or its script in hex.")
    ],
    keys: KeyFile,
    asset: Annotated[str, typer.Option(metavar="ASSET", help="What is paid to it.")] = "BTC",
    as_json: AsJson = False,
) -> None:
    """Register where you are paid, from the next cycle on; signed by the address's key as well (BIP 322)."""
    paid = script_of(script_text)
    found = load_keys(read_private_text(keys))
    if paid not in found:
        raise WrongUseError("NO_KEY", "the key file has no key of that address", "Check both.")
    with access.client() as client:
        names = Names(client.registry())
        number = names.asset_no(asset)
        lei = names.registry.participants[names.party_no(access.name)].lei
        message = script_message(client.network_id(), lei, number)
        statement = ScriptStatement(number, paid, sign_message(found[paid], paid, message))
        recorded = client.instruct(InstructionKind.SET_SETTLEMENT_SCRIPT, statement.encode())
    _told({"script": paid.hex(), "asset": asset, "index": recorded.index}, as_json=as_json)


@psbt_app.command("coins")
@with_access
def coins(
    access: Access,
    cycle: CycleNumber,
    file: Annotated[
        Path,
        typer.Option(
            "--coins",
            metavar="FILE",
            help='JSON: [{"txid", "vout", "amount_sat", "script"}, ...].',
            dir_okay=False,
        ),
    ],
    change: Annotated[str, typer.Option(metavar="ADDRESS", help="Where your change goes.")],
    as_json: AsJson = False,
) -> None:
    """Name the coins that you bring to a cycle's transaction; said again, the new ones count."""
    named = NamedCoins(cycle, script_of(change), read_coins(file))
    with access.client() as client:
        recorded = client.instruct(InstructionKind.NAME_COINS, named.encode())
    _told({"cycle": cycle, "coins": len(named.coins), "index": recorded.index}, as_json=as_json)


@psbt_app.command("create")
@with_access
def create(
    access: Access,
    cycle: CycleNumber,
    out: Out,
    fee_rate: Annotated[
        int,
        typer.Option(
            help="Satoshi per 1,000 virtual bytes; counts while not yet offered.",
            min=1,
            max=U64_MAX,
        ),
    ] = 2_000,
    psbt_version: Annotated[int, typer.Option(help="0, or 2 (BIP 370).")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the unsigned PSBT of a cycle; the settlement agent's first call offers it at --fee-rate.

    Anybody who may see the leg gets the same bytes: nothing in it is the agent's to choose but the fee rate.
    """
    with access.client() as client:
        row = client.leg(cycle)
        if row.leg.state is LegState.WAITING:
            offer = OFFER_LAYOUT.encode(cycle=cycle, fee_rate=fee_rate)
            client.instruct(InstructionKind.OFFER_LEG, offer)
            row = client.leg(cycle)
        names = Names(client.registry())
    template = _template(row, names)
    write_output(out, make_psbt(template, psbt_version).encode() + b"\n")
    _told(leg_fact(row, names) | {"file": str(out)}, as_json=as_json)


def _template(row: LegRow, names: Names) -> Any:
    why = why_of(row, names)
    if why is not None:
        raise WrongUseError("SETTLES_BY_AGENT", why, "Show evidence with `clearing instruction`.")
    template = row.template() if row.leg.fee_rate else None
    if template is None:
        raise WrongUseError("LEG_NOT_READY", f"cycle {row.cycle} was not offered yet", "Wait.")
    if template.transaction.txid != row.leg.txid:
        raise CheckFailedError(
            "EVIDENCE",
            "the node's facts do not give the transaction that the ledger offered",
            "Trust nothing that this node says.",
        )
    return template


@psbt_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PSBT.", dir_okay=False)],
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your keys: says what is yours.", dir_okay=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a PSBT spends and pays; needs no node."""
    psbt = read_psbt_file(file)
    own = frozenset(load_keys(read_private_text(keys))) if keys else frozenset()
    inputs = [
        {
            "outpoint": one.outpoint,
            "amount_sat": one.amount_sat,
            "script": one.script.hex(),
            "signed": one.is_signed,
            "own": one.script in own,
        }
        for one in inputs_of(psbt)
    ]
    outputs = [
        {
            "amount_sat": int(one.value),
            "script": bytes(one.script_pub_key.script).hex(),
            "own": bytes(one.script_pub_key.script) in own,
        }
        for one in psbt.tx.vout
    ]
    fee = sum(one.amount_sat for one in inputs_of(psbt)) - sum(
        int(one.value) for one in psbt.tx.vout
    )
    txid = psbt.tx.id.hex()
    if as_json:
        print_json({"txid": txid, "inputs": inputs, "outputs": outputs, "fee_sat": fee})
        return
    spent = table(f"Spends, fee {fee} sat", ("outpoint", "sat", "signed", "own"), ("sat",))
    for one in inputs:
        spent.add_row(*cells(one["outpoint"], one["amount_sat"], one["signed"], one["own"]))
    paid = table(f"Pays, txid {txid[:16]}", ("script", "sat", "own"), ("sat",))
    for line in outputs:
        paid.add_row(*cells(line["script"], line["amount_sat"], line["own"]))
    stdout().print(spent)
    stdout().print(paid)


@psbt_app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PSBT.", dir_okay=False)],
    keys: KeyFile,
    owes: Annotated[
        int,
        typer.Option(metavar="SAT", help="What you owe in this cycle, see `instructions`.", min=1),
    ],
    fee_max: Annotated[int, typer.Option(metavar="SAT", help="Most that you pay in fees.", min=0)],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Check your own lines and sign them; needs no node, so it may run behind an air gap.

    What is not your own input or change is money that leaves you: it must be what you owe, and a fee within --fee-max.
    """
    psbt = read_psbt_file(file)
    found = load_keys(read_private_text(keys))
    cost = cost_of(psbt, found, owes)
    check_cost(cost, fee_max)
    signed = sign_inputs(psbt, found, owes, fee_max)
    write_output(out, signed.b64encode().encode() + b"\n")
    fact = {
        "signed_inputs": list(cost.own_inputs),
        "owed_sat": owes,
        "fee_own_sat": cost.fee_own_sat,
        "change_sat": cost.change_sat,
        "file": str(out),
    }
    _told(fact, as_json=as_json)


@psbt_app.command("combine")
@with_access
def combine(
    access: Access,
    cycle: CycleNumber,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The payers' answers.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the signed transaction goes, in hex.")
    ] = None,
    broadcast: Annotated[
        bool, typer.Option("--broadcast", help="Tell the ledger, then hand it to --rpc.")
    ] = False,
    rpc: Annotated[str, typer.Option(metavar="URL", help="Bitcoin node, http://HOST:PORT.")] = "",
    cookie: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its cookie file.", dir_okay=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check and combine the payers' answers; when all have signed, the consensus engine checks the transaction.

    Exit code 1 names who has not signed. For the settlement agent, who keeps the result to itself until it is broadcast.
    """
    if broadcast and not rpc:
        raise WrongUseError("USAGE", "--broadcast needs --rpc", "Give the node's URL.")
    with access.client() as client:
        names, row = Names(client.registry()), client.leg(cycle)
        answers = [read_psbt_file(file).b64encode() for file in files]
        gathered = gather(answers, _template(row, names))
        if gathered.missing:
            who = ", ".join(map(names.party, gathered.missing))
            raise CheckFailedError(
                "NOT_SIGNED", f"not signed by {who}", "Ask them before the deadline."
            )
        if out is not None:
            write_output(out, gathered.raw.hex().encode() + b"\n")
        said = None
        if broadcast:
            if row.leg.state is LegState.OFFERED:
                payload = _signing(cycle, 1, NOBODY, sha256d(gathered.raw))
                client.instruct(InstructionKind.REPORT_SIGNING, payload)
            with BitcoinRpc(rpc, cookie) as node:
                said = node.send(gathered.raw) or "accepted"
        row = client.leg(cycle)
    fact = leg_fact(row, names) | {"signed_bytes": len(gathered.raw), "node_says": said}
    _told(fact, as_json=as_json)


def _signing(cycle: int, signed: int, participant: int, transaction_hash: bytes) -> bytes:
    return SIGNING_LAYOUT.encode(
        cycle=cycle, signed=signed, participant=participant, transaction_hash=transaction_hash
    )


@psbt_app.command("status")
@with_access
def status(access: Access, cycle: CycleNumber, as_json: AsJson = False) -> None:
    """Show where a cycle's leg stands, who has named coins, and who made it fail, or why the agent settles it instead."""
    with access.client() as client:
        row, names = client.leg(cycle), Names(client.registry())
    _told(leg_fact(row, names), as_json=as_json)


@psbt_app.command("refuse")
@with_access
def refuse(access: Access, cycle: CycleNumber, as_json: AsJson = False) -> None:
    """Refuse to pay this way: the cycle fails with your name, and can be netted anew without you."""
    with access.client() as client:
        client.instruct(InstructionKind.REFUSE_LEG, LEG_LAYOUT.encode(cycle=cycle))
        row, names = client.leg(cycle), Names(client.registry())
    _told(leg_fact(row, names), as_json=as_json)


@psbt_app.command("unsigned")
@with_access
def unsigned(
    access: Access,
    cycle: CycleNumber,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who has not signed.")],
    as_json: AsJson = False,
) -> None:
    """After the deadline, fail the leg with the name of who has not signed; for the settlement agent."""
    with access.client() as client:
        names = Names(client.registry())
        payload = _signing(cycle, 0, names.party_no(name), bytes(32))
        client.instruct(InstructionKind.REPORT_SIGNING, payload)
        row = client.leg(cycle)
    _told(leg_fact(row, names), as_json=as_json)


@psbt_app.command("recast")
@with_access
def recast(access: Access, cycle: CycleNumber, as_json: AsJson = False) -> None:
    """Net anew without whoever made a cycle's leg fail; for the central bank and operators."""
    with access.client() as client:
        payload = LEG_LAYOUT.encode(cycle=cycle)
        recorded = client.instruct(InstructionKind.RECAST_CYCLE, payload)
        fresh = client.cycle_begun_by(recorded.index)
    _told({"recast": cycle, "cycle": fresh, "index": recorded.index}, as_json=as_json)


def _told(fact: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(fact)
        return
    for name, value in fact.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            stdout().print(f"[bold]{name}[/]")
            for one in value:
                words = ", ".join(f"{key} {found}" for key, found in one.items())
                stdout().print(*cells(f"  {words}"), soft_wrap=True)
        elif value is not None:
            stdout().print(*cells(f"{name:14} {value}"), soft_wrap=True)
