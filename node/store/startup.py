"""What is checked before the node trusts what it finds: cheap enough for every start.

Lives here: opening a store with its checks. May not live here: the full re-derivation (fsck.py).

Checked: the file holds every page it counts; schema; the tip's guard; the number of records of
every table; the last leaves hash to their nodes, their subtrees to the root of the newest block;
its SEAL leaf, seal index and bodies; the bodies of open submissions, from which the open book is
loaded; the signed heads against the file beside the database and against the log. Cost: a few
thousand hashes and two for each open item, whatever the log's size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from clearing.errors import VerificationError
from clearing.rows import Table
from clearing.state import State
from node.errors import SetupError
from node.store import checks, heads, tables
from node.store.environment import StoreSettings
from node.store.errors import (
    Finding,
    FindingKind,
    RollbackDetectedError,
    StoreDamagedError,
)
from node.store.store import Store
from node.store.tables import Database, Head
from node.store.view import View

TAIL_LEAVES = 1024
"""How many of the newest leaves are hashed at a start."""


def open_checked(
    directory: Path,
    settings: StoreSettings | None = None,
    *,
    create: bool = True,
    allow_rollback: bool = False,
) -> Store:
    """Open the store in `directory` and check its tail.

    allow_rollback: for a replica that will catch up from its peers: the store opens although the
    database is older than the heads it signed; `record_head` refuses until the log has caught up.

    Raises: StoreDamagedError: with the findings; RollbackDetectedError: the database is older than
    a signed head; otherwise as Store.open.
    """
    store = Store.open(directory, settings, create=create)
    try:
        check_tail(store)
        if not allow_rollback:
            check_rollback(store)
    except BaseException:
        store.close()
        raise
    return store


def check_tail(store: Store, tail_leaves: int = TAIL_LEAVES) -> None:
    """Check the newest part of a store.

    Raises: StoreDamagedError: with what was found.
    """
    with store.snapshot() as view:
        findings = list(tail_findings(view, tail_leaves))
    if findings:
        raise StoreDamagedError(findings)


def tail_findings(view: View, tail_leaves: int = TAIL_LEAVES) -> Iterator[Finding]:
    """Yield what is wrong with the newest part of a store.

    The module's docstring says what is checked.
    """
    tip, findings = checks.read_tip(view)
    yield from findings
    if tip is None:
        return
    yield from checks.count_findings(view, tip)
    first = max(0, tip.log_size - tail_leaves)
    tree = checks.tree_findings(view, first, tip.log_size, tip.log_root)
    yield from tree
    damaged = [finding.key for finding in tree if finding.table == Database.LEAVES]
    yield from checks.tip_findings(view, tip, damaged)
    before = view.raw(Database.SEALS, tables.u64(tip.height - 1)) if tip.height else None
    first = 0 if before is None else tables.number_of(before) + 1
    yield from checks.seal_findings(view, tip.height, first, tip.log_size)
    open_submissions = (tables.number_of(key) for key, _ in view.items(Table.OPEN))
    older = (index for index in open_submissions if index < first)
    for index in itertools.chain(older, range(first, tip.log_size)):
        if view.raw(Database.LEAVES, tables.u64(index)) is not None:
            yield from checks.body_findings(index, view.record(index), tip.kind)


def check_rollback(store: Store) -> None:
    """Check that the database is not older than the heads that were signed from it.

    Raises: RollbackDetectedError: it is, or the file that would tell is gone; StoreDamagedError:
    the file was altered.
    """
    try:
        in_file = heads.read_heads(store.directory)
    except SetupError as error:
        finding = checks.table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, str(error))
        raise StoreDamagedError([finding]) from error
    with store.snapshot() as view:
        if in_file is None and view.heads():
            raise RollbackDetectedError(
                f"{store.directory / heads.HEADS_FILE} is gone although heads were signed: put it "
                "back, or make this node anew from its peers"
            )
        for name, head in (in_file or {}).items():
            _check_head(view, name, head)


def _check_head(view: View, name: str, head: Head) -> None:
    """Judge by the log, not by the database's own heads: a peer's newer copy is no rollback."""
    remedy = "sign nothing; restore the newest copy, or let the node catch up from its peers"
    try:
        root = view.root(head.size)
    except VerificationError as error:
        size = view.tip.log_size if view.tip else 0
        raise RollbackDetectedError(
            f"{name} has signed {head.size} leaves, the log here has {size}: the database is older "
            f"than that; {remedy}"
        ) from error
    if root != head.root:
        raise RollbackDetectedError(
            f"{name} has signed root {head.root.hex()} at {head.size} leaves, the log here has "
            f"{root.hex()}: it is another history; {remedy}"
        )


def check_state(store: Store, state: State) -> None:
    """Check a state just loaded against the newest SEAL: positions' root, log, height and time.

    Raises: StoreDamagedError: rows were altered.
    """
    tip = store.tip
    findings = []
    if tip is not None:
        if state.state_root != tip.state_root:
            what = (
                f"they lead to state root {state.state_root.hex()}, the newest SEAL has "
                f"{tip.state_root.hex()}"
            )
            findings.append(checks.table_finding(FindingKind.ALTERED, "positions", what))
        if (state.log.size, state.log.root) != (tip.log_size, tip.log_root):
            what = "it does not describe the log that the newest block left"
            findings.append(Finding(FindingKind.ALTERED, "meta", "log", what))
        if (state.height, state.time_ms) != (tip.height, tip.time_ms):
            what = "it does not say the height and time of the newest block"
            findings.append(Finding(FindingKind.ALTERED, "meta", "head", what))
    if findings:
        raise StoreDamagedError(findings)
