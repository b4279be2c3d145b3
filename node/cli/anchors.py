"""`clearing anchor list|show|export|verify|status|now`: checkpoints in Bitcoin, and proofs that stock tools verify.

Lives here: the commands. May not live here: anchoring (node/workers/anchoring), checking (node/anchor_check.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.bitcoin.headers import HeaderChain, Pin, first_height, genesis_pin, verify_chain
from clearing.bitcoin.next_header import HEADER_BYTES, header_hash
from clearing.errors import DecodeError, VerificationError
from node.anchor_check import check_anchor
from node.anchor_queries import AnchorRow
from node.cli import anchor_init
from node.cli.bitcoin import HEADERS_TIMEOUT_S, header_source, parse_pin
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.options import U64_MAX, AsJson
from node.cli.render import cells, counted, print_json, print_json_rows, stdout, table, utc
from node.cli.session import Access, with_access
from node.client import Client, NotFoundError
from node.client.anchored import HeaderReader
from node.files import PUBLIC_MODE, make_private_directory, replace_file
from node.wire_anchors import AnchorProofs

app = typer.Typer(
    help="Checkpoints anchored in Bitcoin: how they stand, and their OpenTimestamps proofs.",
    no_args_is_help=True,
)

anchor_init.add_to(app)

AnchorId = Annotated[
    int, typer.Argument(metavar="ID", help="Id of an anchor, see `list`.", min=0, max=U64_MAX)
]


@app.command("list")
@with_access
def list_anchors(access: Access, as_json: AsJson = False) -> None:
    """List all anchors, the oldest first, as the ledger has them."""
    with access.client() as client:
        rows = client.anchors()
    if as_json:
        print_json_rows(anchor_fact(row) for row in rows)
        return
    columns = ("id", "state", "confirmations", "height", "checkpoints", "up to", "txid")
    shown = table("Anchors", columns, ("id", "confirmations", "height", "checkpoints", "up to"))
    for row in rows:
        fact = anchor_fact(row)
        height, txid = fact["height"] or "-", (fact["txid"] or "-")[:16]
        sizes = (len(row.log_sizes), row.log_sizes[-1])
        shown.add_row(
            *cells(row.id, row.state.name.lower(), row.confirmations, height, *sizes, txid)
        )
    stdout().print(shown)


def anchor_fact(row: AnchorRow) -> dict[str, Any]:
    """Return an anchor as `list --json` prints it; hashes as Bitcoin shows them, null where there is none."""
    return {
        "id": row.id,
        "state": row.state.name,
        "txid": row.txid[::-1].hex() if any(row.txid) else None,
        "block_hash": row.block_hash[::-1].hex() if row.block_hash else None,
        "height": row.height or None,
        "confirmations": row.confirmations,
        "log_sizes": list(row.log_sizes),
    }


@app.command()
@with_access
def show(access: Access, anchor: AnchorId, as_json: AsJson = False) -> None:
    """Show one anchor: its checkpoints, its commitment, and where it was mined."""
    with access.client() as client:
        found = _proofs(client, anchor)
        participants = client.registry().participants
    row = found.row
    fact = anchor_fact(row) | {
        "network": row.network.name.lower(),
        "participant": participants[row.participant].name,
        "number": row.number,
        "commitment": row.commitment.hex(),
        "header": found.header.hex() or None,
        "changed_ms": row.changed_ms,
    }
    if as_json:
        print_json(fact)
        return
    console = stdout()
    console.print(f"[bold]anchor {row.id}[/]: {row.state.name.lower()} on {fact['network']}")
    for name in ("txid", "block_hash", "height", "confirmations", "commitment", "participant"):
        console.print(
            f"  {name:14} {fact[name] if fact[name] is not None else '-'}", soft_wrap=True
        )
    console.print(f"  {'log sizes':14} {', '.join(map(str, row.log_sizes))}", soft_wrap=True)
    console.print(f"  {'changed':14} {utc(row.changed_ms)}")


def _proofs(client: Client, anchor: int) -> AnchorProofs:
    try:
        return client.anchor_proofs(anchor)
    except NotFoundError as error:
        raise WrongUseError(
            "UNKNOWN_ANCHOR", str(error), "See `clearing anchor list`; ask the node that anchors."
        ) from error


@app.command()
@with_access
def export(
    access: Access,
    anchor: AnchorId,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where the files go; made when missing.", file_okay=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Write each checkpoint's note as NAME.note and its proof as NAME.note.ots, for stock `ots verify`.

    Run again after a reorganisation: each file is replaced whole, for a proof of a block that is gone is wrong.
    """
    with access.client() as client:
        found = _proofs(client, anchor)
    if not found.header:
        raise CheckFailedError(
            "NOT_MINED",
            f"anchor {anchor} is {found.row.state.name}: no block holds it, so there is nothing to prove yet",
            "Wait until it is SHALLOW or FINAL; `clearing anchor status` says what it waits for.",
        )
    make_private_directory(out)
    written = []
    for size, note, proof in found.notes:
        path = out / f"checkpoint-{size:012d}.note"
        replace_file(path, note, PUBLIC_MODE)
        replace_file(path.with_name(f"{path.name}.ots"), proof, PUBLIC_MODE)
        written.append(path)
    if as_json:
        facts = [{"note": str(path), "proof": f"{path}.ots"} for path in written]
        print_json({"id": anchor, "network": found.row.network.name.lower(), "files": facts})
        return
    for path in written:
        stdout().print(f"{path} and its .ots", markup=False, soft_wrap=True)


@app.command()
@with_access
def verify(
    access: Access,
    anchor: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            help="Id of an anchor; all that are mined if left out.",
            min=0,
            max=U64_MAX,
        ),
    ] = None,
    bitcoin_node: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Take the headers from a Bitcoin node of yours, http://user:password@host:port, not from the ledger's.",
        ),
    ] = None,
    bitcoin_header: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHT:HASH",
            help="A Bitcoin block that you trust, which the headers must hold.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify anchors: notes by the network's policy, proofs to the block's header, the headers that it stands among.

    Every rule that headers alone show is checked: proof of work, difficulty, times. Exit code 1 where anything fails.
    That the chain is the best one is the word of whoever gave the headers: ask a node of yours, or name a block.
    """
    pin = None if bitcoin_header is None else parse_pin(bitcoin_header)
    source = None if bitcoin_node is None else header_source(bitcoin_node)
    with access.client(timeout_s=HEADERS_TIMEOUT_S) as client:
        chains = Chains(source or client.bitcoin_headers, pin)
        chosen = [anchor] if anchor is not None else [r.id for r in client.anchors() if r.height]
        facts = [_checked(client, number, chains) for number in chosen]
    failed = [one for one in facts if not one["holds"]]
    if as_json and not failed:
        print_json({"anchors": facts, "holds": True})
    elif not as_json:
        for one in facts:
            stdout().print(
                f"[green]✓[/] anchor {one['id']}: {one['notes']} notes hold"
                if one["holds"]
                else f"[bold red]✗[/] anchor {one['id']}: {one['why']}",
                soft_wrap=True,
            )
    if failed:
        raise CheckFailedError(
            "ANCHOR_DOES_NOT_HOLD",
            f"{len(failed)} of {len(facts)} do not hold: {failed[0]['why']}",
            "See `clearing anchor show`.",
            [{"id": one["id"], "why": one["why"]} for one in failed],
            len(failed),
        )


class Chains:
    """Verified chains of headers by the height at which they begin, each fetched once."""

    def __init__(self, read: HeaderReader, pin: Pin | None) -> None:
        """Read headers by `read`; each chain must hold `pin`, or begin at genesis where that is None and it can."""
        self._read = read
        self._pin = pin
        self._known: dict[int, HeaderChain | None] = {}

    def of(self, row: AnchorRow) -> HeaderChain | None:
        """Return the chain that should hold an anchor's block, None where the ledger's node has no Bitcoin node.

        Raises: HeaderError: the headers do not hold.
        """
        start = first_height(row.network, row.height)
        if start not in self._known:
            self._known[start] = self._fetched(row, start)
        return self._known[start]

    def _fetched(self, row: AnchorRow, start: int) -> HeaderChain | None:
        try:
            headers = self._read(start)
        except NotFoundError:
            return None
        pin = self._pin or genesis_pin(row.network)
        if self._pin is None and start:
            pin = Pin(start, header_hash(headers[:HEADER_BYTES]))
        return verify_chain(row.network, start, headers, pin)


def _checked(client: Client, number: int, chains: Chains) -> dict[str, Any]:
    found = _proofs(client, number)
    try:
        chain = chains.of(found.row) if found.header else None
        confirmations = check_anchor(found, client.memory.policy, chain)
    except (DecodeError, VerificationError) as error:
        return {"id": number, "holds": False, "why": str(error)}
    return {
        "id": number,
        "holds": True,
        "notes": len(found.notes),
        "confirmations": confirmations if chain else None,
    }


@app.command()
@with_access
def status(access: Access, as_json: AsJson = False) -> None:
    """Show how the node's anchoring stands: wallet, bumps, what is due, alarms. For supervisors and operators."""
    with access.client() as client:
        found = client.anchoring()
    if found is None:
        raise CheckFailedError(
            "NOT_ANCHORING",
            "this node anchors nothing",
            "Set bitcoin_rpc_url in node.toml, or ask another --node.",
        )
    fact = {
        "network": found.network,
        "height": found.height,
        "address": found.address,
        "descriptors": list(found.descriptors),
        "balance_sat": found.spendable_sat,
        "immature_sat": found.immature_sat,
        "outputs": found.outputs,
        "due": found.due,
        "bumps": found.bumps,
        "fees_sat": found.fees_sat,
        "alarms": [
            {"kind": a.kind, "since_ms": a.since_ms, "detail": a.detail} for a in found.alarms
        ],
        "versions": [
            {
                "number": v.number,
                "role": v.role,
                "txid": v.txid[::-1].hex(),
                "fee_sat": v.fee_sat,
                "vsize": v.vsize,
                "hint": v.hint,
            }
            for v in found.versions
        ],
    }
    if as_json:
        print_json(fact)
        return
    console = stdout()
    console.print(f"{found.network}, read up to block {found.height}")
    console.print(
        f"balance  {found.spendable_sat:,} satoshi in {found.outputs} outputs; fund {found.address}",
        soft_wrap=True,
    )
    console.print(
        f"due      {found.due} checkpoints; {found.bumps} bumps, {found.fees_sat:,} satoshi of fees"
    )
    for alarm in found.alarms:
        console.print(
            f"[bold red]{alarm.kind}[/] since {utc(alarm.since_ms)}: {alarm.detail}", soft_wrap=True
        )
    if not found.alarms:
        console.print("[green]no alarms[/]")


@app.command()
@with_access
def now(access: Access, as_json: AsJson = False) -> None:
    """Anchor what is due without waiting for the policy, as soon as no other anchor is on its way."""
    with access.client() as client:
        due = client.anchor_now()
    if as_json:
        print_json({"due": due})
        return
    stdout().print(
        f"{counted(due, 'checkpoint')} to anchor; `clearing anchor list` shows the anchor once it is made"
    )
