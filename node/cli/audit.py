"""`clearing audit verify|proof|query|export|fsck`: what a supervisor or auditor asks, and checks for itself.

Lives here: the commands. May not live here: the checks of a store (fsck.py here and in node/store), proofs (clearing.log).
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from clearing.commit_proof import without_commit
from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.records.leaves import LeafKind, SealLeaf, leaf_kind
from node.cli.consensus import verify_consensus
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.fsck import fsck
from node.cli.names import Names
from node.cli.obligations import AssetFilter, CycleFilter, PartyFilter, SubmissionNo, party_filter
from node.cli.offline import commit_facts, read_proof, verified_checkpoint
from node.cli.options import U64_MAX, AsJson
from node.cli.proofs import LogCopy, WithCommit, newest, with_commit
from node.cli.render import cells, print_json, progress, stdout, table
from node.cli.rows import (
    ASSETS,
    CYCLES,
    INSTRUCTIONS,
    OBLIGATIONS,
    PARTICIPANTS,
    POSITIONS,
    View,
    rows_wanted,
)
from node.cli.session import Access, told_rpc, with_access
from node.client import Client
from node.client.memory import Seen
from node.client.session import TIMEOUT_S, sync_channel
from node.files import replacing, write_output
from node.pb.v1 import audit_pb2
from node.pb.v1.audit_pb2_grpc import AuditServiceStub
from node.queries import ObligationFilter, PositionFilter, SettlementFilter

app = typer.Typer(
    help="Check the ledger: the whole log, single proofs, a node's database.", no_args_is_help=True
)


@app.command()
@with_access
def verify(
    access: Access,
    consensus: Annotated[
        bool,
        typer.Option(
            "--consensus", help="Check the validators' signatures over the log, from genesis on."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the whole log, hash it here, and check it against the newest final checkpoint; exit 1 if it fails.

    Checked: the quorum's signatures; that the checkpoint extends every one seen before; that the leaves lead to its
    root; that blocks follow each other without gaps and end in a SEAL. With --consensus, for a network of several
    operators: that each change of the set of validators, and the newest block, is signed by more than two thirds of
    the power that the log itself names.
    """
    signed: dict[str, int] = {}
    with access.client(timeout_s=120) as client:
        seen = newest(client)
        copy = LogCopy.fetch(client, seen.checkpoint.size, "fetching leaves")
        if consensus:
            found = verify_consensus(copy.leaves, seen.network_id, client.block_commit)
            signed = dataclasses.asdict(found)
    if copy.root != seen.checkpoint.root:
        raise CheckFailedError(
            "ROOT_DIFFERS",
            "the leaves that the node shows do not lead to the root that it has signed",
            "Keep the checkpoint and ask another node; report both to the regulator.",
        )
    kinds, heights = check_blocks(copy.leaves)
    facts = {
        "holds": True,
        "origin": seen.checkpoint.origin,
        "size": seen.checkpoint.size,
        "root": seen.checkpoint.root.hex(),
        "network_id": seen.network_id.hex(),
        "blocks": heights,
        "leaves": {kind.name: count for kind, count in sorted(kinds.items())},
    }
    if consensus:
        facts["consensus"] = signed
    if as_json:
        print_json(facts)
        return
    console = stdout()
    console.print("[bold green]holds[/]")
    shown = table("", ("fact", "value"))
    for name in ("origin", "size", "root", "blocks"):
        shown.add_row(*cells(name, facts[name]))
    for kind, count in sorted(kinds.items()):
        shown.add_row(*cells(f"{kind.name} leaves", f"{count:,}"))
    for name, value in signed.items():
        shown.add_row(*cells(f"consensus: {name.replace('_', ' ')}", f"{value:,}"))
    console.print(shown)


def check_blocks(leaves: Sequence[bytes]) -> tuple[Counter[LeafKind], int]:
    """Check that the leaves are whole blocks, one after the other, and return how many there are of each kind.

    Returns: leaves by kind, and the number of blocks, block 0 included.
    Raises: DecodeError: a leaf is of no kind; VerificationError: a block is cut, or out of order.
    """
    kinds: Counter[LeafKind] = Counter()
    height = first = time_ms = 0
    for index, leaf in enumerate(leaves):
        kind = leaf_kind(leaf)
        kinds[kind] += 1
        if (kind is LeafKind.GENESIS) != (index == 0):
            raise VerificationError(f"leaf {index} is {kind.name}, which stands at the start only")
        if kind is not LeafKind.SEAL:
            continue
        seal = SealLeaf.decode(leaf)
        if (seal.height, seal.first_index) != (height, first) or seal.time_ms < time_ms:
            raise VerificationError(f"the SEAL at leaf {index} does not follow the block before")
        height, first, time_ms = height + 1, index + 1, seal.time_ms
    if first != len(leaves):
        raise VerificationError("the log ends within a block")
    return kinds, height


@app.command()
@with_access
def commit(
    access: Access,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Receipt or position proof to add the commit to, as `clearing` wrote it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the proof with the commit goes; `clearing verify` reads it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the validators have signed of the log, and add it to a proof as further evidence.

    For networks of several operators. Of the newest final checkpoint, or of that of FILE. It is verified here: more than two
    thirds of the power of a set that the log names have signed a header that carries size and root of the log.
    """
    if (file is None) != (out is None):
        raise WrongUseError("USAGE", "FILE and --out go together", "Give both, or neither.")
    with access.client(timeout_s=120) as client:
        carried = b"" if file is None else without_commit(read_proof(file))
        if file is None:
            head = newest(client).checkpoint
        else:
            head = verified_checkpoint(carried, client.memory.policy)
        found, proven = client.commit_proof(head)
    facts = {"size": head.size, "file": str(out) if out else None} | commit_facts(proven)
    if out is not None:
        write_output(out, found.carrying(carried))
    if as_json:
        print_json(facts)
        return
    shown = table(f"Commit of the log of {head.size:,} leaves", ("fact", "value"))
    for name, value in facts.items():
        shown.add_row(*cells(name, "-" if value is None else value))
    stdout().print(shown)


@app.command()
@with_access
def proof(
    access: Access,
    index: Annotated[
        int | None,
        typer.Argument(help="Log index of a leaf whose inclusion is proven.", min=0, max=U64_MAX),
    ] = None,
    position: Annotated[
        str | None,
        typer.Option(metavar="NAME:ASSET", help="Prove a position instead, or its absence."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where a position's proof goes; `clearing verify` reads it.")
    ] = None,
    commit: WithCommit = False,
    as_json: AsJson = False,
) -> None:
    """Prove that a leaf is in the log, or what a party's position is, under the newest final checkpoint.

    The proof is verified here before it is shown.
    """
    if (index is None) == (position is None):
        raise WrongUseError("USAGE", "it is not said what to prove", "Give INDEX or --position.")
    with access.client(timeout_s=120) as client:
        if position is not None:
            _prove_position(client, position, out, commit=commit, as_json=as_json)
        elif index is not None:
            _prove_leaf(access, newest(client), index, as_json=as_json)


def _prove_leaf(access: Access, seen: Seen, index: int, *, as_json: bool) -> None:
    """Show a leaf and its inclusion proof, verified under the checkpoint `seen`."""
    size = seen.checkpoint.size
    with closing(sync_channel(access.identity.tls, access.endpoints[0])) as channel:
        request = audit_pb2.GetInclusionProofRequest(index=index, size=size)
        try:
            answer = AuditServiceStub(channel).GetInclusionProof(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise told_rpc(error) from error
    leaf, path = answer.leaf, tuple(answer.inclusion.path)
    merkle.verify_inclusion(merkle.leaf_hash(leaf), index, size, path, seen.checkpoint.root)
    facts: dict[str, Any] = {
        "index": index,
        "kind": leaf_kind(leaf).name,
        "leaf": leaf.hex(),
        "leaf_hash": merkle.leaf_hash(leaf).hex(),
        "size": size,
        "root": seen.checkpoint.root.hex(),
        "path": [value.hex() for value in path],
        "checkpoint": seen.note.decode(),
    }
    if as_json:
        print_json(facts)
        return
    shown = table(f"Leaf {index}: {facts['kind']}", ("fact", "value"))
    for name in ("leaf_hash", "size", "root"):
        shown.add_row(*cells(name, facts[name]))
    for level, value in enumerate(facts["path"]):
        shown.add_row(*cells(f"path {level}", value))
    stdout().print(shown)


def _prove_position(
    client: Client, text: str, out: Path | None, *, commit: bool, as_json: bool
) -> None:
    party, colon, asset = text.partition(":")
    if not colon:
        raise WrongUseError("BAD_ID", f"{text!r} is no position", "Write NAME:ASSET: p01:BTC.")
    names = Names(client.registry())
    data, proven = client.position_proof(names.party_no(party), names.asset_no(asset))
    data, signed = with_commit(client, data, proven.checkpoint, wanted=commit)
    if out is not None:
        write_output(out, data)
    found = proven.position
    facts: dict[str, Any] = {
        "participant": party,
        "asset": asset,
        "exists": found is not None,
        "height": proven.seal.height,
        "state_root": proven.seal.state_root.hex(),
        "final_size": proven.checkpoint.size,
        "file": str(out) if out else None,
        **signed,
    }
    if found is not None:
        facts |= POSITIONS.fact(found, names)
    if as_json:
        print_json(facts)
        return
    shown = table(f"Position of {party} in {asset}", ("fact", "value"))
    for name, value in facts.items():
        shown.add_row(*cells(name, "-" if value is None else value))
    stdout().print(shown)


class What(enum.StrEnum):
    """What `query` and `export` list."""

    OBLIGATIONS = "obligations"
    POSITIONS = "positions"
    INSTRUCTIONS = "instructions"
    CYCLES = "cycles"
    PARTICIPANTS = "participants"
    ASSETS = "assets"


def _rows(
    client: Client,
    names: Names,
    what: What,
    wanted: ObligationFilter,
    *,
    everyone: bool,
    rows_max: int | None = None,
) -> Any:
    """Return rows of one kind, everybody's or one's own; participants and assets are the register's, all of them."""
    match what:
        case What.OBLIGATIONS:
            return client.obligations(wanted, everyone=everyone, rows_max=rows_max)
        case What.POSITIONS:
            narrowed = PositionFilter(participant=wanted.participant, asset=wanted.asset)
            return client.positions(narrowed, everyone=everyone, rows_max=rows_max)
        case What.INSTRUCTIONS:
            filtered = SettlementFilter(
                participant=wanted.participant, cycle=wanted.cycle, asset=wanted.asset
            )
            return client.instructions(filtered, everyone=everyone, rows_max=rows_max)
        case What.CYCLES:
            return client.cycles(rows_max=rows_max)
        case What.PARTICIPANTS:
            return names.registry.participants
        case What.ASSETS:
            return names.registry.assets


_VIEWS: dict[What, View[Any]] = {
    What.OBLIGATIONS: OBLIGATIONS,
    What.POSITIONS: POSITIONS,
    What.INSTRUCTIONS: INSTRUCTIONS,
    What.CYCLES: CYCLES,
    What.PARTICIPANTS: PARTICIPANTS,
    What.ASSETS: ASSETS,
}


_NARROWED_BY: dict[What, frozenset[str]] = {
    What.OBLIGATIONS: frozenset(("participant", "counterparty", "asset", "cycle", "submission")),
    What.POSITIONS: frozenset(("participant", "asset")),
    What.INSTRUCTIONS: frozenset(("participant", "asset", "cycle")),
}


def check_filters(what: What, given: dict[str, Any]) -> None:
    """Check that every filter that is given narrows what is listed.

    Raises: WrongUseError: one does not; left unsaid, all rows would pass for the narrowed ones.
    """
    narrowing = _NARROWED_BY.get(what, frozenset())
    for name, value in given.items():
        if value is not None and name not in narrowing:
            known = ", ".join(f"--{one}" for one in given if one in narrowing) or "nothing"
            raise WrongUseError(
                "USAGE", f"--{name} does not narrow {what}", f"Leave it out; what does: {known}."
            )


@app.command()
@with_access
def query(
    access: Access,
    what: Annotated[What, typer.Argument(help="What to list.")],
    *,
    participant: PartyFilter = None,
    counterparty: Annotated[
        str | None, typer.Option(metavar="NAME", help="Obligations with this other party.")
    ] = None,
    asset: AssetFilter = None,
    cycle: CycleFilter = None,
    submission: SubmissionNo = None,
    as_json: AsJson = False,
) -> None:
    """List everybody's data (for supervisors), or your own, narrowed by party, asset, cycle or submission."""
    given = {"participant": participant, "counterparty": counterparty, "asset": asset}
    check_filters(what, given | {"cycle": cycle, "submission": submission})
    with access.client(timeout_s=120) as client:
        names = Names(client.registry())
        everyone = names.is_supervisor(access.name)
        wanted = ObligationFilter(
            participant=party_filter(names, participant, everyone=everyone),
            submission=submission,
            counterparty=None if counterparty is None else names.party_no(counterparty),
            asset=None if asset is None else names.asset_no(asset),
            cycle=cycle,
        )
        asked = rows_wanted(as_json=as_json)
        rows = _rows(client, names, what, wanted, everyone=everyone, rows_max=asked)
    _VIEWS[what].show(rows, names, as_json=as_json)


@app.command()
@with_access
def export(
    access: Access,
    directory: Annotated[Path, typer.Argument(help="Directory of the files; made when missing.")],
    as_json: AsJson = False,
) -> None:
    """Write all you may see as CSV files, one for each kind of row, with the checkpoint beside them.

    Amounts are whole numbers of smallest units, names stand in place of registry numbers.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    with access.client(timeout_s=600) as client, progress("exporting", len(What)) as bar:
        seen = newest(client)
        names = Names(client.registry())
        everyone = names.is_supervisor(access.name)
        for what in What:
            rows = _rows(client, names, what, ObligationFilter(), everyone=everyone)
            written[what] = _write_csv(
                directory / f"{what}.csv", [_VIEWS[what].fact(row, names) for row in rows]
            )
            bar.advance(bar.task_ids[0])
    write_output(directory / "checkpoint", seen.note)
    if as_json:
        print_json({"directory": str(directory), "rows": written, "size": seen.checkpoint.size})
        return
    shown = table(f"Written to {directory}", ("file", "rows"), ("rows",))
    for name, count in written.items():
        shown.add_row(*cells(f"{name}.csv", f"{count:,}"))
    stdout().print(shown)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> int:
    with replacing(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return len(rows)


app.command()(fsck)
