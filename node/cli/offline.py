"""`clearing verify`: receipts and position proofs, checked with a file and a policy; no node, no network.

Lives here: the command and what it prints. May not live here: the verification itself (clearing.receipt,
clearing.anchored_receipt, clearing.position_proof, clearing.commit_proof).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearing.commit_proof import CommitProof, VerifiedCommit, has_commit_proof
from clearing.errors import ClearingError, DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import VerifierKey
from clearing.log.merkle import HASH_BYTES
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.position_proof import VerifiedPosition, verify_position_proof
from clearing.receipt import VerifiedItem, VerifiedReceipt, verify_receipt
from clearing.records.instruction import Instruction
from clearing.records.receipt import RecordKind, record_kind
from clearing.records.transaction import actor_of
from node.cli.bitcoin import header_source, parse_pin
from node.cli.errors import EXIT_CHECK_FAILED, WrongUseError
from node.cli.options import AsJson
from node.cli.render import cells, literal, print_json, stdout, table, utc
from node.files import read_given

if TYPE_CHECKING:
    from clearing.anchored_receipt import VerifiedAnchoredReceipt

_READ_BYTES_MAX = 6_200_001
_ANCHORED = b"clearing/anchored-receipt@"

_NO_COST = {
    "regtest": "a regtest chain costs nothing to make: its times prove nothing to others",
    "signet": "a signet chain costs little to make: its block signatures are not in headers and were not checked",
    "testnet4": "a testnet4 chain costs little to make: its times prove little to others",
}


@dataclass(frozen=True, slots=True)
class BitcoinTrust:
    """What a verifier asks of the Bitcoin side of an anchored receipt; None asks for nothing in particular."""

    header: str | None = None
    network: str | None = None
    depth_min: int = 6
    node_url: str | None = None


ValidatorsHash = Annotated[
    str | None,
    typer.Option(
        metavar="HASH",
        help="Demand the validators' commit besides, by the set with this hash; `any` for whichever the log names.",
    ),
]


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
    bitcoin_header: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHT:HASH",
            help="Anchored receipts: a Bitcoin block that you trust, which the chain of headers must hold; the "
            "genesis block if left out.",
        ),
    ] = None,
    bitcoin_network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Anchored receipts: demand main, testnet4, signet or regtest."
        ),
    ] = None,
    bitcoin_node: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Anchored receipts: ask a Bitcoin node of yours, http://user:password@host:port, whether a chain with more "
            "work has another block there.",
        ),
    ] = None,
    validators: ValidatorsHash = None,
    depth: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Anchored receipts: confirmations to demand."),
    ] = 6,
    as_json: AsJson = False,
) -> None:
    """Check a receipt, an anchored receipt or a position proof offline; exit 0 when it holds, 1 when it does not.

    Needs no node and no network, unless --bitcoin-node names one: only the file, and whom to trust. An anchored receipt shows two times: when the quorum had made
    the record final, by its own clocks, and the Bitcoin block by which it existed. A file that carries the validators' commit shows
    besides how much of their power has signed the log's head; the commit is checked wherever there is one.
    """
    trusted = read_trust(policy, vkey)
    bitcoin = BitcoinTrust(bitcoin_header, bitcoin_network, depth, bitcoin_node)
    wanted = _wanted_set(validators)
    data = read_proof(file)
    try:
        facts = verified_facts(data, trusted, bitcoin, wanted)
    except ClearingError as error:
        _show_refusal(str(error), as_json=as_json)
        raise typer.Exit(EXIT_CHECK_FAILED) from error
    if as_json:
        print_json({"holds": True, **facts})
        return
    _show_facts(facts)


@dataclass(frozen=True, slots=True)
class SetTrust:
    """That a commit is demanded: of the set with this hash, or of any that the log names."""

    validators_hash: bytes | None


def _wanted_set(text: str | None) -> SetTrust | None:
    if text is None or text == "any":
        return None if text is None else SetTrust(None)
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != HASH_BYTES:
        raise WrongUseError(
            "BAD_HASH",
            f"{text!r} is no hash of a set of validators",
            "Give the 64 hexadecimal digits of a VALIDATORS leaf, or `any`.",
        )
    return SetTrust(found)


def _show_refusal(reason: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"holds": False, "reason": reason})
        return
    stdout().print(f"[bold red]does not hold:[/] {literal(reason)}", soft_wrap=True)


def read_proof(file: Path) -> bytes:
    """Return the bytes of a proof's file; of a longer one than any proof is, enough to be refused."""
    with file.open("rb") as opened:
        return opened.read(_READ_BYTES_MAX)


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
            return Policy.parse(read_given(policy))
        text = vkey or ""
        path = Path(text)
        if "+" not in text or (len(text) < 200 and path.is_file()):
            text = read_given(path).decode().strip()
        return Policy.of_log(VerifierKey.parse(text))
    except (DecodeError, UnicodeDecodeError) as error:
        raise WrongUseError(
            "BAD_TRUST", str(error), "Give the policy or vkey file that the network publishes."
        ) from error


def verified_facts(
    data: bytes,
    trusted: Policy,
    bitcoin: BitcoinTrust | None = None,
    wanted: SetTrust | None = None,
) -> dict[str, Any]:
    """Verify a receipt, anchored or not, or a position proof and return what it proves, ready for JSON.

    A commit of the validators that the file carries is verified too; `wanted` demands one.
    Raises: DecodeError, VerificationError: it does not hold. WrongUseError: `bitcoin` cannot be read.
    """
    if not has_commit_proof(data):
        if wanted is not None:
            raise VerificationError("the file carries no commit of the validators")
        return _proof_facts(data, trusted, bitcoin)
    commit, proof = CommitProof.split(data)
    facts = _proof_facts(proof, trusted, bitcoin)
    trusted_set = None if wanted is None else wanted.validators_hash
    head, network_id = _checkpoint_in(facts), bytes.fromhex(facts["network_id"])
    return facts | {"commit": commit_facts(commit.verify(network_id, head, trusted_set))}


def verified_checkpoint(proof: bytes, trusted: Policy) -> Checkpoint:
    """Verify a proof that carries no commit, of an anchored receipt the receipt alone, and return its checkpoint.

    Raises: DecodeError, VerificationError: it does not hold.
    """
    if proof.startswith(_ANCHORED):
        # Which Bitcoin block to trust is for whoever reads the file; see verified_facts.
        from clearing.anchored_receipt import AnchoredReceipt  # noqa: PLC0415

        proof = AnchoredReceipt.parse(proof).receipt
    return _checkpoint_in(verified_facts(proof, trusted))


def _checkpoint_in(facts: dict[str, Any]) -> Checkpoint:
    head = facts["checkpoint"]
    return Checkpoint(head["origin"], head["size"], bytes.fromhex(head["root"]))


def commit_facts(proven: VerifiedCommit) -> dict[str, Any]:
    """Return what a commit of the validators proves, ready for JSON."""
    return {
        "engine_height": proven.engine_height,
        "time_s": proven.time_s,
        "validators_index": proven.validators_index,
        "validators_hash": proven.validators.validators_hash.hex(),
        "power": proven.power,
        "total_power": proven.validators.total_power,
    }


def _proof_facts(data: bytes, trusted: Policy, bitcoin: BitcoinTrust | None) -> dict[str, Any]:
    if data.startswith(_ANCHORED):
        return _anchored_facts(data, trusted, bitcoin or BitcoinTrust())
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


def _anchored_facts(data: bytes, trusted: Policy, bitcoin: BitcoinTrust) -> dict[str, Any]:
    # Formats of Bitcoin are not loaded for receipts that have nothing to do with it.
    from clearing.anchored_receipt import AnchoredReceipt, network_of  # noqa: PLC0415
    from clearing.bitcoin.headers import verify_chain, verify_not_outweighed  # noqa: PLC0415

    try:
        network = None if bitcoin.network is None else network_of(bitcoin.network)
    except DecodeError as error:
        raise WrongUseError(
            "BAD_NETWORK", str(error), "Give the network that you trust."
        ) from error
    pin = None if bitcoin.header is None else parse_pin(bitcoin.header)
    file = AnchoredReceipt.parse(data)
    proven = file.verify(trusted, pin=pin, network=network, depth_min=bitcoin.depth_min)
    if bitcoin.node_url is not None:
        headers = header_source(bitcoin.node_url)(file.start_height)
        other = verify_chain(file.network, file.start_height, headers, proven.pin)
        verify_not_outweighed(proven.chain, other, proven.existence.height)
    return anchored_facts(proven)


def anchored_facts(proven: VerifiedAnchoredReceipt) -> dict[str, Any]:
    """Return what an anchored receipt proves, ready for JSON."""
    from clearing.anchored_receipt import network_name  # noqa: PLC0415

    existence, network = proven.existence, network_name(proven.chain.network)
    facts = _receipt_facts(proven.receipt)
    facts["final_at_s"] = proven.final_at_s
    facts["existed_by"] = {
        "time_s": existence.time_s,
        "median_time_s": existence.median_time_s,
        "network": network,
        "height": existence.height,
        "block_hash": existence.block_hash[::-1].hex(),
        "confirmations": existence.depth,
        "trusted_header": str(proven.pin),
        "warning": _NO_COST.get(network),
    }
    return facts


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
        elif name in ("final_at_s", "existed_by"):
            continue
        elif isinstance(value, dict):
            for inner, detail in value.items():
                shown.add_row(*cells(f"{name} {inner}", detail))
        else:
            shown.add_row(*cells(name, value))
    console.print(shown)
    if "existed_by" in facts:
        show_clocks(facts)


def show_clocks(facts: dict[str, Any]) -> None:
    """Print the two times of an anchored receipt, and what each is worth."""
    console, by, final_at_s = stdout(), facts["existed_by"], facts["final_at_s"]
    final = "not shown: the trust asks for no cosignatures"
    if final_at_s is not None:
        final = f"{utc(final_at_s * 1000)}, when the quorum of cosignatures was complete"
    console.print(f"[bold]final at[/]    {final}", soft_wrap=True)
    console.print(
        f"[bold]existed by[/]  {utc(by['time_s'] * 1000)}, block {by['height']:,} of Bitcoin {by['network']}, "
        f"{by['confirmations']:,} confirmations",
        soft_wrap=True,
    )
    if by["median_time_s"] is not None:
        median = utc(by["median_time_s"] * 1000)
        console.print(f"            median of eleven blocks {median}", soft_wrap=True)
    console.print(f"            from trusted block {by['trusted_header']}", soft_wrap=True)
    if by["warning"]:
        console.print(f"[yellow]note[/]        {literal(by['warning'])}", soft_wrap=True)
