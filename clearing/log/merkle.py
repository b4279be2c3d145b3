"""RFC 6962 Merkle trees: hashes, roots, compact ranges, proofs and their verification.

Lives here: the one tree hash and the one verifier that serve log, submissions and state. May not
live here: storage (a `NodeReader` is passed in), signatures, trees whose leaves change
(merkle_array.py).

    empty root   SHA-256("")
    leaf hash    SHA-256(0x00 || leaf)
    node hash    SHA-256(0x01 || left || right)
    root of n    the leaf hash, if n = 1; else the node hash of the root of the first k leaves and
                 the root of the rest, k being the largest power of two below n

A *node* (level, index) is the root of the complete subtree over the leaves from index << level up
to, not including, (index + 1) << level. It never changes once it exists: stores keep it for ever.
*Packed* hashes are their concatenation in one buffer.
Order of a proof: the leaf's sibling first, the root's child last.
Source: RFC 6962 section 2.1; verification RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from clearing.errors import DecodeError, VerificationError

HASH_BYTES = 32
SIZE_MAX = (1 << 64) - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()
LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"


Node: TypeAlias = tuple[int, int, bytes]
"""(level, index, hash) of a complete subtree."""

Hashes: TypeAlias = bytes | bytearray | memoryview | Sequence[bytes]
"""Hashes in order, packed or one by one."""


class NodeReader(Protocol):
    """Where nodes of complete subtrees are read from: a store, tiles, or `HashedLeaves`."""

    def node(self, level: int, index: int) -> bytes:
        """Return the 32-byte hash of node (level, index), a complete subtree of the tree."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(LEAF_PREFIX + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node with two children."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def _hash_rows(prefix: bytes, rows: bytes | bytearray | memoryview, row_bytes: int) -> bytes:
    """Return the packed SHA-256 hashes of prefix || row, for each row of a buffer.

    The ledger's ingest spends most of its time here. Copying a hasher that has taken the prefix is
    faster than making one a row (OpenSSL 3 looks the algorithm up each time) and saves the
    concatenation.
    """
    copy = hashlib.sha256(prefix).copy
    hashes = []
    for (row,) in struct.iter_unpack(f"{row_bytes}s", rows):
        hasher = copy()
        hasher.update(row)
        hashes.append(hasher.digest())
    return b"".join(hashes)


def leaf_hashes_of_rows(rows: bytes | bytearray | memoryview, row_bytes: int) -> bytes:
    """Return the packed leaf hashes of many leaves of equal length that lie in one buffer.

    `rows` holds n rows of `row_bytes`, at least 1; a memoryview must be contiguous.

    Returns: n * 32 bytes.

    Raises: DecodeError: the buffer is not a whole number of rows.
    """
    if row_bytes < 1 or len(memoryview(rows).cast("B")) % row_bytes:
        raise DecodeError(f"buffer is not a whole number of rows of {row_bytes} bytes")
    return _hash_rows(LEAF_PREFIX, rows, row_bytes)


def packed(hashes: Hashes) -> bytes:
    """Return hashes as one packed buffer.

    Raises: DecodeError: a hash is not 32 bytes, or a buffer not a multiple of 32.
    """
    if isinstance(hashes, bytes | bytearray | memoryview):
        if len(hashes) % HASH_BYTES:
            raise DecodeError("packed hashes must be a multiple of 32 bytes")
        return bytes(hashes)
    if any(len(value) != HASH_BYTES for value in hashes):
        raise DecodeError("a hash must be 32 bytes")
    return b"".join(hashes)


def level_above(level: bytes) -> bytes:
    """Return the packed parents of a packed level; an odd last node stands above itself.

    Carrying the odd one up unhashed gives RFC 6962's tree: its left subtrees are always complete.
    """
    pair_bytes = 2 * HASH_BYTES
    paired = len(level) // pair_bytes * pair_bytes
    if paired == len(level):
        return _hash_rows(NODE_PREFIX, level, pair_bytes)
    return _hash_rows(NODE_PREFIX, level[:paired], pair_bytes) + level[paired:]


def root_of(leaf_hashes: Hashes) -> bytes:
    """Return the root over leaf hashes; of none, the empty root.

    Raises: DecodeError: a hash is not 32 bytes.
    """
    level = packed(leaf_hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > HASH_BYTES:
        level = level_above(level)
    return level


class HashedLeaves:
    """A `NodeReader` over leaf hashes in memory, for proofs in a tree at hand (a submission).

    Raises: DecodeError: a hash is not 32 bytes.
    """

    def __init__(self, leaf_hashes: Hashes) -> None:
        level = packed(leaf_hashes)
        self.size = len(level) // HASH_BYTES
        self._levels = [level]
        while len(level) > HASH_BYTES:
            level = level_above(level)
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """The root over all leaves."""
        return self._levels[-1] or EMPTY_ROOT

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of node (level, index), complete in this tree.

        Raises: VerificationError: the tree has no such node.
        """
        if index < 0 or (index + 1) << level > self.size:
            raise VerificationError(
                f"a tree of {self.size} leaves has no node {index} at level {level}"
            )
        return self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES]


@dataclass(frozen=True, slots=True)
class CompactRange:
    """All that is needed of a tree to append to it: its size and its complete subtrees.

    `edges` has one hash for each bit set in `size` (at most 64), the greatest subtree, leftmost,
    first.

    Raises: DecodeError: a size that is not below 2**64, or edges that do not fit it.
    """

    size: int = 0
    edges: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX:
            raise DecodeError(f"tree size {self.size} is not below 2**64")
        if len(self.edges) != self.size.bit_count() or any(
            len(edge) != HASH_BYTES for edge in self.edges
        ):
            raise DecodeError(
                f"a tree of {self.size} leaves has {self.size.bit_count()} edges of 32 bytes"
            )

    @classmethod
    def read(cls, size: int, reader: NodeReader) -> CompactRange:
        """Return the compact range of the first `size` leaves, from kept nodes."""
        return cls(size, tuple(_subtree_parts(0, size, reader)))

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        return _fold(self.edges)

    def append_many(self, leaf_hashes: Hashes) -> tuple[CompactRange, list[Node]]:
        """Append leaf hashes in order.

        Returns: the new range, and all nodes that became complete, the leaves (level 0) included,
        ascending by level and within a level by index.

        Raises: DecodeError: a hash is not 32 bytes, or the tree would exceed 2**64 - 1 leaves.
        """
        fresh = packed(leaf_hashes)  # the new nodes of a level
        size = self.size + len(fresh) // HASH_BYTES
        old_edges = list(self.edges)  # taken from its end: the smallest subtree first
        new_edges: list[bytes] = []
        nodes: list[Node] = []
        level = 0
        while (first := self.size >> level) != size >> level:  # the levels above stay as they are
            hashes = [fresh[i : i + HASH_BYTES] for i in range(0, len(fresh), HASH_BYTES)]
            nodes += [(level, index, value) for index, value in enumerate(hashes, first)]
            if first & 1:
                fresh = old_edges.pop() + fresh
            if size >> level & 1:
                new_edges.append(fresh[-HASH_BYTES:])
                fresh = fresh[:-HASH_BYTES]
            fresh = level_above(fresh)
            level += 1
        return CompactRange(size, (*old_edges, *reversed(new_edges))), nodes


def _subtree_parts(start: int, end: int, reader: NodeReader) -> list[bytes]:
    """Return the complete subtrees that make up leaves [start, end), the greatest first.

    `start` is a multiple of the smallest power of two that is at least end - start, as in every
    subtree of RFC 6962.
    """
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(reader.node(level, start >> level))
        start += 1 << level
    return parts


def _fold(parts: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees of descending size."""
    if not parts:
        return EMPTY_ROOT
    root = parts[-1]
    for part in reversed(parts[:-1]):
        root = node_hash(part, root)
    return root


def inclusion_proof(index: int, size: int, reader: NodeReader) -> tuple[bytes, ...]:
    """Return the proof that leaf `index` is in the tree of the first `size` leaves.

    Reads at most 126 nodes of a tree below 2**64 leaves.

    Raises: VerificationError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise VerificationError(f"a tree of {size} leaves has no leaf {index}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < middle:
            path.append(_fold(_subtree_parts(middle, end, reader)))
            end = middle
        else:
            path.append(_fold(_subtree_parts(start, middle, reader)))
            start = middle
    return tuple(reversed(path))


def consistency_proof(size1: int, size2: int, reader: NodeReader) -> tuple[bytes, ...]:
    """Return the proof that the first `size1` leaves are a prefix of the first `size2`.

    Empty for equal sizes. Reads at most 127 nodes of a tree below 2**64 leaves.

    Raises: VerificationError: size1 is 0 (nothing to prove; verifiers refuse it) or greater than
    size2.
    """
    if not 0 < size1 <= size2:
        raise VerificationError(f"no consistency proof leads from {size1} to {size2} leaves")
    path = []
    start, end = 0, size2
    while end != size1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if size1 <= middle:
            path.append(_fold(_subtree_parts(middle, end, reader)))
            end = middle
        else:
            path.append(_fold(_subtree_parts(start, middle, reader)))
            start = middle
    if start:  # else the old tree is this subtree, whose root the verifier has
        path.append(_fold(_subtree_parts(start, end, reader)))
    return tuple(reversed(path))


def _check_hashes(hashes: Iterable[bytes], what: str) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise VerificationError(f"{what} must be 32 bytes")


def root_from_inclusion_proof(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a proof leads to from a leaf hash, for comparison with a trusted one.

    Raises: VerificationError: no such leaf, a path of the wrong length, or a hash that is not 32
    bytes.
    """
    if not 0 <= index < size:
        raise VerificationError(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes((leaf, *path), "every hash of an inclusion proof")
    position, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise VerificationError("inclusion proof is too long")
        if position & 1 or position == last:
            root = node_hash(sibling, root)
            while position and not position & 1:  # an odd last node stands above itself
                position >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("inclusion proof is too short")
    return root


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Verify that `leaf`, a leaf hash, is leaf `index` of the tree with `size` and `root`.

    Source: RFC 9162 section 2.1.3.2. Any non-negative integers do.

    Raises: VerificationError: it is not, or the proof is longer or shorter than it must be.
    """
    if root_from_inclusion_proof(leaf, index, size, path) != root:
        raise VerificationError("inclusion proof does not lead to the root")


def verify_consistency(
    size1: int, size2: int, path: Sequence[bytes], root1: bytes, root2: bytes
) -> None:
    """Verify that the tree with `size1` and `root1` is a prefix of that with `size2`, `root2`.

    Source: RFC 9162 section 2.1.4.2. Any positive integers do.

    Raises: VerificationError: it is not; the proof is longer or shorter than it must be; size1 is
    0, which every tree satisfies and no proof can show.
    """
    if not 0 < size1 <= size2:
        raise VerificationError(f"no consistency proof leads from {size1} to {size2} leaves")
    _check_hashes(path, "every hash of a consistency proof")
    if size1 == size2:
        if path or root1 != root2:
            raise VerificationError("trees of equal size must have equal roots and an empty proof")
        return
    hashes = list(path)
    if size1 & (size1 - 1) == 0:  # the old tree is complete: its root is the first hash
        hashes.insert(0, root1)
    if not hashes:
        raise VerificationError("consistency proof is too short")
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise VerificationError("consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("consistency proof is too short")
    if old != root1 or new != root2:
        raise VerificationError("consistency proof does not lead to both roots")
