"""`clearing miner declare|list|report`: mined coin, declared once and used once.

Lives here: the commands. May not live here: proofs (clearing/bitcoin/provenance.py), the report's arithmetic (clearing/rules/mined.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from btclib.exceptions import BTClibException

from clearing.bitcoin.provenance import Claim, Way, claim_message
from clearing.bitcoin.transaction import Outpoint, Transaction, TransactionProof, shown
from clearing.records.instruction import InstructionKind
from clearing.rules.mined import Batch
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.names import Names
from node.cli.options import U32_MAX, AsJson
from node.cli.render import cells, print_json, print_json_rows, stdout, table, utc
from node.cli.session import Access, with_access
from node.files import read_private_text
from node.settlement.blocks import proof_of, transactions_of
from node.settlement.signer import load_keys, sign_message
from node.workers.anchoring.rpc import BitcoinRpc

app = typer.Typer(
    help="Mined coin: declare it with its proof, list it, report it by month.",
    no_args_is_help=True,
)

Rpc = Annotated[str, typer.Option("--rpc", metavar="URL", help="Bitcoin node, http://HOST:PORT.")]
Cookie = Annotated[
    Path | None, typer.Option("--cookie", metavar="FILE", help="Its cookie file.", dir_okay=False)
]


@app.command()
@with_access
def declare(
    access: Access,
    block: Annotated[
        int, typer.Argument(metavar="HEIGHT", help="Block that mined the coin.", min=0, max=U32_MAX)
    ],
    keys: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Your payout key: WIF or extended key.", dir_okay=False),
    ],
    rpc: Rpc,
    cookie: Cookie = None,
    payout: Annotated[
        int | None,
        typer.Option(
            metavar="HEIGHT",
            help="Block of the pool's payout to you; BLOCK is the pool's own.",
            min=0,
            max=U32_MAX,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Declare what a block's coinbase, or a pool's payout of it, paid to your key; the proof is made from the node's blocks.

    It counts when a supervisor's node has attested that it is unspent. The coinbase needs 100 confirmations.
    """
    found = load_keys(read_private_text(keys))
    with BitcoinRpc(rpc, cookie) as node:
        coinbase = proof_of(_block(node, block), 0)
        paying = coinbase
        if payout is not None:
            raw = _block(node, payout)
            paying = proof_of(raw, _payout_position(raw, coinbase.transaction))
    output = _own_output(paying, found)
    outpoint = Outpoint(paying.transaction.txid, output)
    script = paying.transaction.outputs[output].script
    with access.client() as client:
        names = Names(client.registry())
        party = names.registry.participants[names.party_no(access.name)]
        message = claim_message(client.network_id(), outpoint, party.lei, party.licence_no)
        claim = Claim(
            Way.OWN if payout is None else Way.POOL,
            coinbase,
            None if payout is None else paying,
            output,
            sign_message(found[script], script, message),
        )
        recorded = client.instruct(InstructionKind.DECLARE_COIN, claim.encode())
    amount = paying.transaction.outputs[output].amount_sat
    fact = {"batch": recorded.index, "outpoint": str(outpoint), "amount_sat": amount}
    if as_json:
        print_json(fact)
        return
    stdout().print(f"declared [bold]{amount}[/] sat as batch {recorded.index}: {outpoint}")


def _block(node: BitcoinRpc, height: int) -> bytes:
    block_hash = node.block_hash(height)
    if block_hash is None:
        raise WrongUseError("NO_BLOCK", f"the node has no block {height} yet", "Check the height.")
    return node.block(block_hash)


def _own_output(proof: TransactionProof, keys: dict[bytes, Any]) -> int:
    for number, output in enumerate(proof.transaction.outputs):
        if output.script in keys:
            return number
    raise WrongUseError("NOT_PAID", "that transaction pays none of your keys", "Check the block.")


def _payout_position(raw: bytes, coinbase: Transaction) -> int:
    """Return the place of the transaction that spends the pool's coinbase."""
    try:
        for position, one in enumerate(transactions_of(raw)):
            if any(spent.prev_out.tx_id[::-1] == coinbase.txid for spent in one.vin):
                return position
    except BTClibException as error:
        raise CheckFailedError("BAD_BLOCK", str(error), "Ask another node.") from error
    raise WrongUseError("NO_PAYOUT", "that block spends no coin of the pool's", "Check --payout.")


@app.command("list")
@with_access
def list_coin(access: Access, as_json: AsJson = False) -> None:
    """List declared coin: your own, or everybody's for a supervisor."""
    with access.client() as client:
        found, names = client.mined_coin(), Names(client.registry())
    if as_json:
        print_json_rows(batch_fact(*row, names) for row in found.batches)
        return
    columns = ("batch", "miner", "state", "sat", "used", "left", "declared (UTC)")
    view = table("Declared mined coin", columns, ("batch", "sat", "used", "left"))
    for miner, index, batch in found.batches:
        fact = batch_fact(miner, index, batch, names)
        declared = utc(batch.declared_ms)
        state = fact["state"].lower()
        sums = (batch.amount_units, batch.used_units, batch.left_units)
        view.add_row(*cells(index, fact["miner"], state, *sums, declared))
    stdout().print(view)


def batch_fact(miner: int, index: int, batch: Batch, names: Names) -> dict[str, Any]:
    """Return a declaration as JSON; amounts are decimal strings of satoshi."""
    txid, vout = batch.outpoint[:32], int.from_bytes(batch.outpoint[32:], "little")
    return {
        "batch": index,
        "miner": names.party(miner),
        "state": batch.state.name,
        "way": Way(batch.way).name,
        "outpoint": f"{shown(txid)}:{vout}",
        "height": batch.block_height,
        "amount": str(batch.amount_units),
        "used": str(batch.used_units),
        "left": str(batch.left_units),
        "declared_ms": batch.declared_ms,
        "counted_ms": batch.counted_ms or None,
    }


@app.command()
@with_access
def report(access: Access, as_json: AsJson = False) -> None:
    """Report each month of block time: mined, used in foreign trade, remaining at its end, taxable base."""
    with access.client() as client:
        registry = client.registry()
        found, names = client.mined_coin(), Names(registry)
    rows = found.months(registry.bitcoin.tax)
    facts = [
        {
            "miner": names.party(row.miner),
            "region": registry.bitcoin.region_of(row.miner),
            "month": f"{row.month // 100}-{row.month % 100:02}",
            "mined": str(row.mined_units),
            "used": str(row.used_units),
            "remaining": str(row.remaining_units),
            "taxable_base": str(row.taxable_units),
        }
        for row in rows
    ]
    if as_json:
        print_json_rows(facts)
        return
    columns = ("miner", "month", "mined", "used", "remaining", "taxable base")
    view = table("Mined coin by month, satoshi", columns, columns[2:])
    for fact in facts:
        view.add_row(*cells(*(fact[name.replace(" ", "_")] for name in columns)))
    stdout().print(view)
