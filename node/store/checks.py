"""Single checks that start-up and fsck share: tree, bodies, seals, the node's own records.

Lives here: each check as a generator of findings over one View. May not live here: which checks run
when.

A check names the record that is wrong, not those that merely depend on it: a node whose children
and parent agree with each other is the odd one out; a leaf is, when node and parent agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from clearing.errors import ClearingError, DecodeError, VerificationError
from clearing.log import merkle
from clearing.records.instruction import Instruction
from clearing.records.leaves import HASHED_BODIES, LeafKind, SealLeaf, body_hash, leaf_kind
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from node.store import tables
from node.store.errors import Finding, FindingKind
from node.store.tables import Database, Name, ReplicaKind, Tip, u64
from node.store.view import Record, View

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as a long check goes on."""


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def altered(name: Name, key: bytes, what: str) -> Finding:
    """Return the finding that a record's bytes are not what they must be."""
    return Finding(FindingKind.ALTERED, name, tables.key_text(name, key), what)


def missing(name: Name, key: bytes, what: str) -> Finding:
    """Return the finding that a record is not there."""
    return Finding(FindingKind.MISSING, name, tables.key_text(name, key), what)


def surplus(name: Name, key: bytes, what: str) -> Finding:
    """Return the finding that a record must not be there."""
    return Finding(FindingKind.SURPLUS, name, tables.key_text(name, key), what)


def table_finding(kind: FindingKind, name: str, what: str) -> Finding:
    """Return a finding about a whole table or file."""
    return Finding(kind, name, "", what)


# -- the tree


@dataclass(slots=True)
class _Subtree:
    """A complete subtree as stored.

    `ok` says whether its stored hash agrees with what is directly below it.
    """

    level: int
    index: int
    value: bytes | None
    ok: bool

    @property
    def key(self) -> bytes:
        return u64(tables.node_position(self.level, self.index))


class _TreeWalk:
    """Visits leaves in order, and every subtree as it becomes complete; its stack is 64 at most."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.stack: list[_Subtree] = []
        self.findings: list[Finding] = []

    def leaf(self, index: int) -> None:
        """Check leaf `index` and the subtrees that it completes."""
        self.stack.append(self._load_leaf(index))
        while self.stack[-1].index & 1:
            right = self.stack.pop()
            left = self.stack.pop() if self.stack else None
            # A subtree from before the first leaf visited: judged by its own children only.
            if left is None or (left.level, left.index) != (right.level, right.index - 1):
                if left is not None:
                    self.stack.append(left)
                left = self.load(right.level, right.index - 1)
            self.stack.append(self._parent(left, right))

    def load(self, level: int, index: int) -> _Subtree:
        """Return a subtree, checked one level down."""
        if level == 0:
            return self._load_leaf(index)
        value = self._node(level, index)
        children = [self._node(level - 1, 2 * index + side) for side in (0, 1)]
        below = [child for child in children if child is not None]
        ok = value is None or len(below) < 2 or value == merkle.node_hash(*below)
        return _Subtree(level, index, value, ok)

    def _load_leaf(self, index: int) -> _Subtree:
        leaf = self.view.raw(Database.LEAVES, u64(index))
        if leaf is None:
            self.findings.append(missing(Database.LEAVES, u64(index), "the log goes on without it"))
        value = self._node(0, index)
        ok = leaf is None or value is None or merkle.leaf_hash(leaf) == value
        return _Subtree(0, index, value, ok)

    def _node(self, level: int, index: int) -> bytes | None:
        key = u64(tables.node_position(level, index))
        value = self.view.raw(Database.NODES, key)
        if value is None:
            self.findings.append(missing(Database.NODES, key, "the log has this complete subtree"))
        elif len(value) != merkle.HASH_BYTES:
            self.findings.append(altered(Database.NODES, key, f"it has {len(value)} bytes"))
            return None
        return value

    def _parent(self, left: _Subtree, right: _Subtree) -> _Subtree:
        parent = _Subtree(left.level + 1, left.index >> 1, None, True)
        parent.value = self._node(parent.level, parent.index)
        if left.value is None or right.value is None or parent.value is None:
            self.judge(left, right, agrees_above=None)
            return parent
        agrees = merkle.node_hash(left.value, right.value) == parent.value
        explained = self.judge(left, right, agrees_above=agrees)
        parent.ok = agrees or explained
        return parent

    def judge(self, *subtrees: _Subtree, agrees_above: bool | None) -> bool:
        """Report those of `subtrees` that disagree with what is below them.

        Returns whether there were any.

        agrees_above: whether what is above agrees with them; then what is below is at fault. None:
        unknown.
        """
        suspects = [subtree for subtree in subtrees if not subtree.ok]
        for subtree in suspects:
            if agrees_above is False:
                what = "it agrees neither with what is below it nor with what is above it"
                self.findings.append(altered(Database.NODES, subtree.key, what))
            elif subtree.level == 0:
                what = "it does not hash to its node"
                self.findings.append(altered(Database.LEAVES, u64(subtree.index), what))
            else:
                what = "the two subtrees below do not hash to it"
                self.findings.append(altered(Database.NODES, subtree.key, what))
        return bool(suspects)


def tree_findings(
    view: View, first: int, size: int, root: bytes, progress: Progress = silent
) -> list[Finding]:
    """Return what is wrong with leaves `first` to `size - 1` and the tree above them.

    Every complete subtree that ends among them is checked, and the root of all `size` leaves.
    """
    walk = _TreeWalk(view)
    for index in range(first, size):
        walk.leaf(index)
        if not index & 0x3FF:
            progress("log", index - first, size - first)
    on_stack = {(subtree.level, subtree.index): subtree for subtree in walk.stack}
    peaks, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            index = start >> level
            peaks.append(on_stack.get((level, index)) or walk.load(level, index))
            start += 1 << level
    values = [peak.value for peak in peaks if peak.value is not None]
    if len(values) == len(peaks):
        found = merkle.CompactRange(size, tuple(values)).root
        if not walk.judge(*peaks, agrees_above=found == root) and found != root:
            what = (
                f"the subtrees of {size} leaves lead to root {found.hex()}, the newest block has "
                f"{root.hex()}"
            )
            walk.findings.append(table_finding(FindingKind.DAMAGED, Database.NODES, what))
    return list(dict.fromkeys(walk.findings))


# -- bodies


def may_have_body(leaf: bytes) -> bool:
    """Return whether a leaf commits to a body; False for what is none of our leaves."""
    try:
        kind = leaf_kind(leaf)
    except DecodeError:
        return False
    return kind in (*HASHED_BODIES, LeafKind.SUBMISSION, LeafKind.INSTRUCTION)


def verify_body(leaf: bytes, body: bytes) -> None:
    """Check a whole body against the commitment in its leaf.

    Raises: DecodeError: leaf or body are malformed; VerificationError: the body is not what the
    leaf commits to.
    """
    kind = leaf_kind(leaf)
    if kind in HASHED_BODIES:
        if HASHED_BODIES[kind].decode(leaf).body_hash != body_hash(body):
            raise VerificationError("the body does not match its SHA-256 in the leaf")
    elif kind is LeafKind.SUBMISSION:
        Submission.decode(leaf + body).verify_commitment()
    elif kind is LeafKind.INSTRUCTION:
        Instruction.decode(leaf + body).verify_commitment()
    else:
        raise DecodeError(f"a {kind.name} leaf has no body")


def body_findings(index: int, record: Record, kind: ReplicaKind) -> Iterator[Finding]:
    """Check what is held of one leaf's body.

    A witness may hold less, a full replica must hold all.
    """
    key = u64(index)
    name = Database.PUBLIC if record.public else Database.BODIES
    try:
        if record.body:
            verify_body(record.leaf, record.body)
        elif may_have_body(record.leaf) and kind is ReplicaKind.FULL:
            yield missing(name, key, "a full replica holds every body")
    except ClearingError as error:
        yield altered(name, key, str(error))
    try:
        if record.redacted:
            RedactedSubmission.decode(record.redacted).verify(Submission.of_leaf(record.leaf))
    except ClearingError as error:
        yield altered(Database.REDACTED, key, str(error))


# -- seals and tip


def seal_findings(view: View, height: int, first: int, end: int) -> Iterator[Finding]:
    """Check that leaves `first` to `end - 1` end in the SEAL of block `height`, and the index."""
    key = u64(height)
    stored = view.raw(Database.SEALS, key)
    if stored is None:
        yield missing(Database.SEALS, key, f"block {height} ends at leaf {end - 1}")
    elif stored != u64(end - 1):
        yield altered(Database.SEALS, key, f"block {height} ends at leaf {end - 1}")
    leaf = view.raw(Database.LEAVES, u64(end - 1)) or b""
    try:
        seal = SealLeaf.decode(leaf)
    except DecodeError as error:
        yield altered(
            Database.LEAVES, u64(end - 1), f"it must be the SEAL of block {height}: {error}"
        )
        return
    if (seal.height, seal.first_index) != (height, first):
        what = (
            f"it seals block {seal.height} from leaf {seal.first_index}, expected {height} "
            f"from {first}"
        )
        yield altered(Database.LEAVES, u64(end - 1), what)


def tip_findings(view: View, tip: Tip, damaged_leaves: Collection[str]) -> Iterator[Finding]:
    """Check the tip against the SEAL leaf of its block, unless that one is damaged itself."""
    key = u64(tip.log_size - 1)
    if tables.key_text(Database.LEAVES, key) in damaged_leaves:
        return
    try:
        seal = SealLeaf.decode(view.raw(Database.LEAVES, key) or b"")
    except DecodeError as error:
        yield altered(Database.LEAVES, key, f"it must be the newest SEAL: {error}")
        return
    if (seal.height, seal.time_ms, seal.state_root) != (tip.height, tip.time_ms, tip.state_root):
        what = "it does not say what the newest SEAL leaf says"
        yield altered(Database.STORE, tables.KEY_TIP, what)


def count_findings(view: View, tip: Tip) -> Iterator[Finding]:
    """Compare the number of records of every table with what the newest block left."""
    expected: dict[Name, int] = {
        Database.LEAVES: tip.log_size,
        Database.NODES: tables.node_count(tip.log_size),
        Database.SEALS: tip.height + 1,
    }
    value = view.raw(Database.STORE, tables.KEY_COUNTS)
    try:
        if value is None:
            yield missing(Database.STORE, tables.KEY_COUNTS, "every block writes it")
        else:
            payload = tables.unguarded(Database.STORE, tables.KEY_COUNTS, value)
            expected = {**tables.decode_counts(payload), **expected}
    except DecodeError as error:
        yield altered(Database.STORE, tables.KEY_COUNTS, str(error))
    for name, count in expected.items():
        found = view.count(name)
        if found != count:
            kind = FindingKind.MISSING if found < count else FindingKind.SURPLUS
            what = f"{found} records, the newest block left {count}"
            yield table_finding(kind, name, what)


def read_tip(view: View) -> tuple[Tip | None, list[Finding]]:
    """Return the tip, or None with the findings that say why there is none."""
    value = view.raw(Database.STORE, tables.KEY_TIP)
    if value is None:
        filled = [
            name for name in (Database.LEAVES, Database.NODES, Database.SEALS) if view.count(name)
        ]
        if not filled:
            return None, []
        what = f"{filled[0]} has records, and no block wrote where the store stands"
        return None, [missing(Database.STORE, tables.KEY_TIP, what)]
    try:
        return Tip.decode(tables.unguarded(Database.STORE, tables.KEY_TIP, value)), []
    except ClearingError as error:
        return None, [altered(Database.STORE, tables.KEY_TIP, str(error))]
