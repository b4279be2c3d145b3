"""`clearing verify`: receipts and position proofs, checked with a file and a policy; no node, no network.

Lives here: the command and what it prints. May not live here: the verification itself (clearing.receipt,
clearing.position_proof).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clearing.errors import ClearingError, DecodeError
from clearing.log.keys import VerifierKey
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.position_proof import VerifiedPosition, verify_position_proof
from clearing.receipt import VerifiedItem, VerifiedReceipt, verify_receipt
from clearing.records.instruction import Instruction
from clearing.records.receipt import RecordKind, record_kind
from clearing.records.transaction import actor_of
from node.cli.errors import EXIT_CHECK_FAILED, WrongUseError
from node.cli.options import AsJson
from node.cli.render import cells, print_json, stdout, table, utc

_READ_BYTES_MAX = 4_000_000


def verify(
    file: Annotated[
        Path, typer.Argument(help="Receipt or position proof, as `clearing receipt` wrote it.")
    ],
    policy: Annotated[
        Path | None,
        typer.Option(help="The network's tlog-policy: demands the quorum's cosignatures."),
    ] = None,
    vkey: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The log's verifier key, or a file that holds it: trusts the log's signature alone.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt or a position proof offline; exit 0 when it holds, 1 when it does not.

    Needs no node and no network: only the file, and whom to trust.
    """
    trusted = read_trust(policy, vkey)
    with file.open("rb") as opened:
        data = opened.read(_READ_BYTES_MAX)
    try:
        facts = verified_facts(data, trusted)
    except ClearingError as error:
        _show_refusal(str(error), as_json=as_json)
        raise typer.Exit(EXIT_CHECK_FAILED) from error
    if as_json:
        print_json({"holds": True, **facts})
        return
    _show_facts(facts)


def _show_refusal(reason: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"holds": False, "reason": reason})
        return
    stdout().print(f"[bold red]does not hold:[/] {escape(reason)}", soft_wrap=True)


def read_trust(policy: Path | None, vkey: str | None) -> Policy:
    """Return the policy of a file, or the one that trusts a log's key alone.

    Raises: WrongUseError: not exactly one of the two is given, or it cannot be read.
    """
    if (policy is None) == (vkey is None):
        raise WrongUseError(
            "USAGE", "give either --policy or --vkey", "`--policy DIR/policy` of a test network."
        )
    try:
        if policy is not None:
            return Policy.parse(policy.read_bytes())
        text = vkey or ""
        path = Path(text)
        if "+" not in text or (len(text) < 200 and path.is_file()):
            text = path.read_text("utf-8").strip()
        return Policy.of_log(VerifierKey.parse(text))
    except (DecodeError, UnicodeDecodeError) as error:
        raise WrongUseError(
            "BAD_TRUST", str(error), "Give the policy or vkey file that the network publishes."
        ) from error


def verified_facts(data: bytes, trusted: Policy) -> dict[str, Any]:
    """Verify a receipt or position proof and return what it proves, ready for JSON.

    Raises: DecodeError, VerificationError: it does not hold.
    """
    extra = LogProof.parse(data).extra
    if extra is None:
        raise DecodeError("the proof carries no record of this ledger")
    if record_kind(extra) is RecordKind.POSITION:
        return _position_facts(verify_position_proof(data, trusted))
    return _receipt_facts(verify_receipt(data, trusted))


def _common(kind: str, proven: VerifiedReceipt | VerifiedPosition) -> dict[str, Any]:
    return {
        "kind": kind,
        "network_id": proven.network_id.hex(),
        "checkpoint": {
            "origin": proven.checkpoint.origin,
            "size": proven.checkpoint.size,
            "root": proven.checkpoint.root.hex(),
        },
        "cosigned": dict(proven.cosigned_s),
    }


def _receipt_facts(proven: VerifiedReceipt) -> dict[str, Any]:
    transaction = proven.transaction
    if isinstance(transaction, Instruction):
        what: dict[str, Any] = {
            "index": proven.index,
            "actor": actor_of(transaction),
            "instruction": transaction.kind.name,
        }
        return _common("instruction", proven) | what
    facts = _common("submission" if proven.item is None else "obligation", proven)
    facts |= {"submission": proven.index, "submitter": transaction.submitter}
    if proven.item is None:
        return facts | {"items": transaction.count}
    return facts | _item_facts(proven.item)


def _item_facts(item: VerifiedItem) -> dict[str, Any]:
    return {
        "item": item.number,
        "debtor": item.debtor,
        "creditor": item.creditor,
        "asset": item.asset,
        "amount": str(item.amount_units),
        "due_ms": item.due_ms,
        "trade_ref_hash": item.trade_ref_hash.hex(),
    }


def _position_facts(proven: VerifiedPosition) -> dict[str, Any]:
    facts = _common("position", proven) | {
        "participant": proven.participant,
        "asset": proven.asset,
        "height": proven.seal.height,
        "time_ms": proven.seal.time_ms,
        "exists": proven.position is not None,
    }
    if proven.position is None:
        return facts
    position = proven.position
    return facts | {
        "payable": str(position.payable),
        "receivable": str(position.receivable),
        "locked_net": str(position.locked_net),
        "paid": str(position.paid),
        "received": str(position.received),
    }


def _show_facts(facts: dict[str, Any]) -> None:
    console = stdout()
    console.print("[bold green]holds[/]")
    shown = table("", ("fact", "value"))
    for name, value in facts.items():
        if name == "cosigned":
            text = ", ".join(f"{node} {utc(second * 1000)}" for node, second in value.items())
            shown.add_row("cosigned", *cells(text or "by nobody the trust asks for"))
        elif isinstance(value, dict):
            for inner, detail in value.items():
                shown.add_row(*cells(f"{name} {inner}", detail))
        else:
            shown.add_row(*cells(name, value))
    console.print(shown)
