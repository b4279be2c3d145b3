"""A Merkle tree whose leaves change: the building block of the state root.

Lives here: `MerkleArray`, an RFC 6962 tree over n leaves with all its levels in memory, and
`Overlay`, the nodes that an update changes. May not live here: what a leaf means, storage.
Invariants: the root is RFC 6962's over the leaves (a node without a right sibling stands above
itself), so merkle.py verifies the proofs; an update costs the paths touched, whatever n is.
Source: own design (DESIGN, section 5): with RFC 6962 trees one verifier serves log and state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearing.errors import VerificationError, invariant
from clearing.log.merkle import EMPTY_ROOT, HASH_BYTES, Hashes, level_above, node_hash, packed


@dataclass(frozen=True, slots=True)
class Overlay:
    """What an update changes in a `MerkleArray`: the new nodes of each level, and the new root.

    `base_root` is the root of the array that the update was computed from; `levels[k]` maps indexes
    of nodes on level k to their new hashes, ascending; level 0 are the leaves.
    """

    base_root: bytes
    root: bytes
    levels: tuple[Mapping[int, bytes], ...]


class MerkleArray:
    """An RFC 6962 tree over `size` leaf hashes.

    Reading is `root`, `leaf` and `proof`; `update` computes and changes nothing; `apply` changes.
    Equal subtrees that `grown` made are one object each: memory is 16 bytes a leaf, and about 180
    more for each leaf that was ever changed.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Hashes = b"") -> None:
        """Build the tree over leaf hashes.

        Raises: DecodeError: a hash is not 32 bytes.
        """
        level = packed(leaf_hashes)
        self._levels = [_split(level)]
        while len(level) > HASH_BYTES:
            level = level_above(level)
            self._levels.append(_split(level))

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """The root over all leaves; of none, the empty root."""
        return self._levels[-1][0] if self.size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at `index`.

        Raises: VerificationError: there is no such leaf.
        """
        self._check_index(index)
        return self._levels[0][index]

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of leaf `index`, for `merkle.verify_inclusion`.

        Raises: VerificationError: there is no such leaf.
        """
        self._check_index(index)
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):  # else the node stands above itself
                path.append(level[sibling])
            index >>= 1
        return tuple(path)

    def update(self, changes: Mapping[int, bytes]) -> Overlay:
        """Compute what changing leaves does, without changing them.

        `changes` maps indexes below `size` to new 32-byte leaf hashes; their order is irrelevant.

        Raises: InvariantViolation: an index or a hash out of range: callers know their own tree.
        """
        for index, value in changes.items():
            invariant(0 <= index < self.size, f"a tree of {self.size} leaves has no leaf {index}")
            invariant(len(value) == HASH_BYTES, f"new hash of leaf {index} is not 32 bytes")
        changed = dict(sorted(changes.items()))  # neighbours in memory are read together
        levels = [changed]
        for level in self._levels[:-1]:
            changed = _parents(level, changed)
            levels.append(changed)
        return Overlay(self.root, changed.get(0, self.root), tuple(levels))

    def apply(self, overlay: Overlay) -> None:
        """Take over an update.

        Raises: InvariantViolation: the update was computed from another state than the present.
        """
        invariant(
            overlay.base_root == self.root and len(overlay.levels) == len(self._levels),
            "overlay belongs to another state of the tree",
        )
        for level, changed in zip(self._levels, overlay.levels, strict=True):
            for index, value in changed.items():
                level[index] = value

    def grown(self, size: int, leaf: bytes) -> MerkleArray:
        """Return a copy with `size` leaves, all new ones having the leaf hash `leaf`.

        Costs a copy and a few hashes a level, because equal leaves make equal subtrees.

        Raises: InvariantViolation: `size` is below the present one, or the hash is not 32 bytes.
        """
        invariant(size >= self.size, f"a tree of {self.size} leaves cannot grow to {size}")
        invariant(len(leaf) == HASH_BYTES, "a leaf hash must be 32 bytes")
        level = self._levels[0] + [leaf] * (size - self.size)
        levels = [level]
        old = self.size  # nodes of this level that lie wholly over old leaves
        while len(level) > 1:
            old >>= 1
            leaf = node_hash(leaf, leaf)  # from here on the node over new leaves only
            kept = self._levels[len(levels)][:old] if old else []
            level = _grown_level(level, kept, leaf)
            levels.append(level)
        tree = MerkleArray()
        tree._levels = levels
        return tree

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise VerificationError(f"a tree of {self.size} leaves has no leaf {index}")


def _split(level: bytes) -> list[bytes]:
    return [level[start : start + HASH_BYTES] for start in range(0, len(level), HASH_BYTES)]


def _parent(level: Sequence[bytes], index: int) -> bytes:
    """Return the parent of nodes 2 * index and, if there is one, 2 * index + 1 of a level."""
    pair = level[2 * index : 2 * index + 2]
    return node_hash(*pair) if len(pair) == 2 else pair[0]


def _parents(level: Sequence[bytes], changed: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return the new parents of the changed nodes of a level, by index, ascending as those are."""
    parents: dict[int, bytes] = {}
    last = len(level) - 1
    for index, value in changed.items():
        if index & 1:
            if index - 1 not in changed:
                parents[index >> 1] = node_hash(level[index - 1], value)
        elif index < last:
            parents[index >> 1] = node_hash(value, changed.get(index + 1) or level[index + 1])
        else:
            parents[index >> 1] = value
    return parents


def _grown_level(below: Sequence[bytes], kept: list[bytes], uniform: bytes) -> list[bytes]:
    """Return the level above `below`, of which the first nodes, `kept`, are known already.

    Of the others only two can differ from `uniform`: the first, which may lie over old and new
    leaves, and the last, which may be incomplete.
    """
    first, size = len(kept), (len(below) + 1) // 2
    level = kept + [uniform] * (size - first)
    if first < size:
        level[first] = _parent(below, first)
        level[-1] = _parent(below, size - 1)
    return level
