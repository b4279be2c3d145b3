"""`clearing receipt` and `clearing tiles export`: proofs to take away.

Lives here: the commands. May not live here: verification (offline.py, clearing.receipt), the files of a tiles tree
(node/tiles_export.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import VerifierKey
from node.cli.bitcoin import HEADERS_TIMEOUT_S, header_source, parse_pin
from node.cli.errors import WrongUseError
from node.cli.offline import anchored_facts, commit_facts, show_clocks
from node.cli.options import AsJson
from node.cli.render import literal, print_json, progress, stderr, stdout
from node.cli.session import Access, with_access
from node.client import Client
from node.client.anchored import AnchoredOptions
from node.client.memory import Seen
from node.files import write_output
from node.tiles_export import export_tiles

tiles_app = typer.Typer(
    help="The log as static files that other people's tools audit.", no_args_is_help=True
)


def parse_receipt_id(text: str) -> tuple[int, int | None]:
    """Return log index and item (None for a whole leaf) of SUBMISSION or SUBMISSION:ITEM.

    Raises: WrongUseError: anything else.
    """
    index, colon, item = text.partition(":")
    parts = ((index, 20), (item, 10)) if colon else ((index, 20),)
    if not all(one.isascii() and one.isdigit() and len(one) < size for one, size in parts):
        raise WrongUseError(
            "BAD_ID",
            f"{text!r} is no submission or item",
            "Write SUBMISSION or SUBMISSION:ITEM, such as 17 or 17:0.",
        )
    return int(index), int(item) if colon else None


Anchored = Annotated[
    bool,
    typer.Option(
        "--anchored",
        help="Add the second clock: the Bitcoin anchor that covers the record, its timestamp proof and the headers.",
    ),
]
Depth = Annotated[
    int, typer.Option(min=1, max=100_000, help="With --anchored: confirmations to demand.")
]
BitcoinHeader = Annotated[
    str | None,
    typer.Option(
        metavar="HEIGHT:HASH",
        help="With --anchored: a Bitcoin block that you trust, which the headers must hold.",
    ),
]
BitcoinNode = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="With --anchored: take the headers from a Bitcoin node of yours, http://user:password@host:port, "
        "not from the ledger's.",
    ),
]


WithCommit = Annotated[
    bool,
    typer.Option(
        "--commit",
        help="Add the validators' commit over the log's head, on a network of several operators.",
    ),
]


@with_access
def receipt(
    access: Access,
    what: Annotated[
        str,
        typer.Argument(
            metavar="SUBMISSION[:ITEM]", help="Log index of a submission, and an item of it."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the receipt goes; standard output if left out."),
    ] = None,
    anchored: Anchored = False,
    depth: Depth = 6,
    bitcoin_header: BitcoinHeader = None,
    bitcoin_node: BitcoinNode = None,
    commit: WithCommit = False,
    as_json: AsJson = False,
) -> None:
    """Take a receipt: a file that proves for ever, offline, what was recorded.

    With an item it opens that obligation; without, it proves the submission as a whole. It waits until a quorum has
    made the record final, and is verified before it is written. An anchored receipt proves besides by which Bitcoin
    block the record existed; with a commit, that more than two thirds of the validators' power have signed the log's head.
    """
    index, item = parse_receipt_id(what)
    if as_json and out is None:
        raise WrongUseError("USAGE", "--json needs --out", "Name the receipt's file.")
    if not anchored and (bitcoin_header or bitcoin_node):
        raise WrongUseError(
            "USAGE", "--bitcoin-header and --bitcoin-node go with --anchored", "Add --anchored."
        )
    facts: dict[str, Any] = {"submission": index, "item": item, "file": str(out)}
    if anchored:
        with access.client(timeout_s=HEADERS_TIMEOUT_S) as client:
            data, head, more = _anchored(client, (index, item), depth, bitcoin_header, bitcoin_node)
            data, signed = with_commit(client, data, head, wanted=commit)
        facts |= more | signed
    else:
        with access.client() as client:
            data, proven = client.receipt(index, item)
            head = proven.checkpoint
            data, signed = with_commit(client, data, head, wanted=commit)
        facts |= signed
    if out is None:
        sys.stdout.write(data.decode())
        return
    write_output(out, data)
    if as_json:
        print_json(facts | {"bytes": len(data), "final_size": head.size})
        return
    policy = access.identity.profile.policy_path
    console = stdout()
    console.print(f"[green]written[/] {literal(str(out))}, {len(data):,} bytes", soft_wrap=True)
    if anchored:
        show_clocks(facts)
    checked = f"check it with: clearing verify {out} --policy {policy}"
    console.print(checked, markup=False, soft_wrap=True)


def _anchored(
    client: Client, what: tuple[int, int | None], depth: int, header: str | None, node: str | None
) -> tuple[bytes, Checkpoint, dict[str, Any]]:
    """Return an anchored receipt, its checkpoint, and both its times as facts."""
    pin = None if header is None else parse_pin(header)
    source = None if node is None else header_source(node)
    options = AnchoredOptions(depth_min=depth, pin=pin, headers=source)
    data, proven = client.anchored_receipt(*what, options)
    facts = anchored_facts(proven)
    clocks = {name: facts[name] for name in ("final_at_s", "existed_by")}
    return data, proven.receipt.checkpoint, clocks


def with_commit(
    client: Client, proof: bytes, head: Checkpoint, *, wanted: bool
) -> tuple[bytes, dict[str, Any]]:
    """Return a proof with the validators' commit over its checkpoint before it, and the facts of that; as it is unless wanted."""
    if not wanted:
        return proof, {}
    commit, proven = client.commit_proof(head)
    return commit.carrying(proof), {"commit": commit_facts(proven)}


@dataclass(frozen=True, slots=True)
class LogCopy:
    """A whole log, fetched leaf by leaf and hashed here: what an auditor needs to trust nobody's nodes.

    nodes: (level, index) to hash of every complete subtree. root: of all the leaves.
    """

    leaves: Sequence[bytes]
    nodes: Mapping[tuple[int, int], bytes]
    root: bytes

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree.

        Raises: VerificationError: the log has none there.
        """
        found = self.nodes.get((level, index))
        if found is None:
            raise VerificationError(f"the log has no complete subtree {level}/{index}")
        return found

    def entries(self, start: int, count: int) -> Sequence[bytes]:
        """Return leaves in order."""
        return self.leaves[start : start + count]

    @classmethod
    def fetch(cls, client: Client, size: int, what: str) -> LogCopy:
        """Fetch and hash the first `size` leaves, with a progress bar called `what`."""
        leaves: list[bytes] = []
        nodes: dict[tuple[int, int], bytes] = {}
        log = merkle.CompactRange()
        with progress(what, size) as bar:
            for chunk in _chunks(client.leaves(0, size)):
                log, made = log.append_many([merkle.leaf_hash(leaf) for leaf in chunk])
                nodes |= {(level, index): value for level, index, value in made}
                leaves += chunk
                bar.advance(bar.task_ids[0], len(chunk))
        return cls(leaves, nodes, log.root)


_CHUNK_LEAVES = 1024


def _chunks(leaves: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for leaf in leaves:
        chunk.append(leaf)
        if len(chunk) == _CHUNK_LEAVES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def newest(client: Client) -> Seen:
    """Return the newest final checkpoint with its note, verified to extend what this client has seen.

    Raises: ClientError: as `Client.checkpoint`; VerificationError: there is none yet.
    """
    client.checkpoint()
    seen = client.memory.seen
    if seen is None:
        raise VerificationError("the network has no final checkpoint yet")
    return seen


def log_key(access: Access, client: Client) -> VerifierKey:
    """Return the log's key as the identity's own policy has it.

    Raises: WrongUseError: the policy lists several logs.
    """
    logs = client.memory.policy.logs
    if len(logs) != 1:
        raise WrongUseError(
            "POLICY",
            f"the policy of {access.name} lists {len(logs)} logs",
            "Give one with one log.",
        )
    return logs[0].key


@tiles_app.command("export")
@with_access
def export(
    access: Access,
    directory: Annotated[
        Path, typer.Argument(help="Directory of the tree; made, or brought up to date.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write the log as a C2SP tlog-tiles tree, with its public key beside it, for other people's tools.

    Every leaf is fetched, hashed here, and compared with the newest final checkpoint before a file is written.
    """
    with access.client(timeout_s=120) as client:
        seen = newest(client)
        copy = LogCopy.fetch(client, seen.checkpoint.size, "fetching leaves")
        key = log_key(access, client)
    with progress("writing tiles", 1) as bar:

        def show(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        made = export_tiles(directory, seen.note, key, copy, copy, progress=show)
    facts: dict[str, Any] = {
        "directory": str(directory),
        "size": made.size,
        "size_before": made.size_before,
        "files": made.files_written,
        "vkey": str(made.vkey_path),
        "origin": seen.checkpoint.origin,
    }
    if as_json:
        print_json(facts)
        return
    stdout().print(
        f"[green]written[/] {made.files_written} files for {made.size:,} leaves to {literal(str(directory))}",
        soft_wrap=True,
    )
    told = f"origin {seen.checkpoint.origin}, public key in {made.vkey_path}"
    stderr().print(told, markup=False, soft_wrap=True)
