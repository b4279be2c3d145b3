"""A node that lies: `python -m tests.network.liar HOW --config FILE`, in the place of `clearing node run`.

HOW is
- state: from its next block on it tells its consensus engine a wrong app hash; a follower cosigns a wrong root.
- heads: beside each head that it signs, it signs a second one of the same size and hands that to the others.

It lives in the tests and in no package: nothing of the product can be told to lie. Everything else of it is the product's.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from node.cli.main import main as run
from node.config import CONFIG_NAME, ReplicaRole, load_config
from node.replication.link import Link
from node.sequencer.cometbft import application
from node.sequencer.heads import HeadKeeper
from node.workers.witness import Cosigner

WAYS = ("state", "heads")


def lie_about_state() -> None:
    """Give wrong app hashes after what the node holds when it starts, which its engine knows already."""
    honest = application.app_hash
    first: list[int] = []

    def lying(log_size: int, log_root: bytes) -> bytes:
        first.append(log_size)
        told = honest(log_size, log_root)
        return told if log_size <= first[0] else hashlib.sha256(b"lie" + told).digest()

    application.app_hash = lying
    lie_to_leader()


def lie_to_leader() -> None:
    """Cosign, as a follower, another root than the leader's."""
    cosigners: list[Cosigner] = []
    made = Cosigner.__init__

    def remember(self: Cosigner, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        cosigners.append(self)

    honest = Link.add_cosignature

    async def lying(self: Link, note: bytes) -> int:
        return await honest(self, second_head(note, cosigners[-1].report_signer))

    Cosigner.__init__ = remember
    Link.add_cosignature = lying


def lie_about_heads() -> None:
    """Hand a second head, signed by all keys of this node, to whoever gets the first from it."""
    made = HeadKeeper.__init__

    def lying(self: HeadKeeper, *arguments: Any, **named: Any) -> None:
        sharing = named.get("sharing")
        if sharing is not None:
            honest = sharing.on_note

            def both(note: bytes) -> None:
                honest(note)
                honest(second_head(note, self._signer, self._cosigner.report_signer))

            named["sharing"] = replace(sharing, on_note=both)
        made(self, *arguments, **named)

    HeadKeeper.__init__ = lying
    lie_to_leader()


def second_head(note: bytes, *signers: Any) -> bytes:
    """Return a head of the same size as that of `note` with another root, signed by `signers`."""
    told = Checkpoint.parse(Note.parse(note).text)
    other = Checkpoint(told.origin, told.size, hashlib.sha256(b"second" + told.root).digest())
    times = {True: (1_700_000_000,), False: ()}
    lines = [sign(other.text, signer, *times["node" in signer.key.name]) for signer in signers]
    return Note(other.text, tuple(lines)).encode()


def lie_in_the_child(how: str) -> None:
    """Have the supervisor start this module where it would start the node."""
    honest = asyncio.create_subprocess_exec

    async def start(program: Any, *arguments: Any, **named: Any) -> Any:
        words = list(arguments)
        if "node.cli.main" in words:
            at = words.index("node.cli.main")
            # -m node.cli.main node run --config FILE --supervised
            words[at : at + 3] = ["tests.network.liar", how]
        return await honest(program, *words, **named)

    asyncio.create_subprocess_exec = start


def main(arguments: list[str]) -> None:
    """Run a node that lies as the first argument says; the others are those of `clearing node run`."""
    how, rest = arguments[0], arguments[1:]
    if how not in WAYS:
        raise SystemExit(f"there is no lie {how!r}: {', '.join(WAYS)}")
    if "--supervised" in rest or not _is_operator(rest):
        {"state": lie_about_state, "heads": lie_about_heads}[how]()
    else:
        lie_in_the_child(how)
    sys.argv = ["clearing", "node", "run", *rest]
    run()


def _is_operator(arguments: list[str]) -> bool:
    path = Path(arguments[arguments.index("--config") + 1])
    return load_config(path / CONFIG_NAME if path.is_dir() else path).role is ReplicaRole.OPERATOR


if __name__ == "__main__":
    main(sys.argv[1:])
