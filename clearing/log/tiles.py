"""A log as static files that other people's tools can audit (C2SP tlog-tiles).

Lives here: paths, the bytes of tiles and entry bundles, and which of them a growth of the log
makes. May not live here: files; callers write what is yielded, and serve it with anything.

    checkpoint                     the signed note of the log's head
    tile/LEVEL/INDEX[.p/WIDTH]     up to 256 hashes, of complete subtrees of height 8 * LEVEL
    tile/entries/INDEX[.p/WIDTH]   up to 256 leaves, each after its length, 2 bytes big-endian

Invariants: a path's bytes never change, but for `checkpoint`; only full tiles have a hash above.
Source: C2SP tlog-tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from clearing.errors import DecodeError, invariant
from clearing.log.merkle import NodeReader
from clearing.log.text import UINT64_MAX

CHECKPOINT_PATH = "checkpoint"
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
ENTRY_BYTES_MAX = 65_535
_LENGTH_BYTES = 2


class EntryReader(Protocol):
    """Where the leaves of a log are read from."""

    def entries(self, first: int, count: int) -> Sequence[bytes]:
        """Return the bytes of leaves `first` to `first + count - 1`, in order."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of hashes: its level of tiles, its index on it, and its width, 1 to 256 hashes."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """Where the tile stands below the log's prefix."""
        return f"tile/{self.level}/{_index_path(self.index, self.width)}"

    @property
    def entries_path(self) -> str:
        """Where the bundle with the leaves under this tile of level 0 stands."""
        invariant(self.level == 0, "only tiles of level 0 stand over leaves")
        return f"tile/entries/{_index_path(self.index, self.width)}"


def _index_path(index: int, width: int) -> str:
    """Return the index in groups of three digits, all but the last marked, and a partial width."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return "/".join(reversed(groups)) + suffix


def tiles_for(size_from: int, size_to: int) -> Iterator[Tile]:
    """Yield the tiles that exist in the tree of `size_to` leaves and not in that of `size_from`.

    A log that has written its tiles for `size_from` has those of `size_to` after writing these.
    Order: ascending by level, within a level by index; at most the last of a level is partial.

    Raises: DecodeError: sizes not in ascending order below 2**64.
    """
    if not 0 <= size_from <= size_to <= UINT64_MAX:
        raise DecodeError(f"tiles cannot be made from {size_from} to {size_to} leaves")
    level = 0
    while hashes := size_to >> TILE_HEIGHT * level:
        before = size_from >> TILE_HEIGHT * level
        if hashes > before:
            for index in range(before // TILE_WIDTH, hashes // TILE_WIDTH):
                yield Tile(level, index, TILE_WIDTH)
            if hashes % TILE_WIDTH:
                yield Tile(level, hashes // TILE_WIDTH, hashes % TILE_WIDTH)
        level += 1


def tile_bytes(tile: Tile, reader: NodeReader) -> bytes:
    """Return the bytes of a tile: its hashes, 32 bytes each."""
    first = tile.index * TILE_WIDTH
    level = tile.level * TILE_HEIGHT
    return b"".join([reader.node(level, first + i) for i in range(tile.width)])


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return leaves as an entry bundle.

    Raises: DecodeError: a leaf longer than 65,535 bytes, which no bundle can carry.
    """
    parts = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise DecodeError(f"leaf of {len(entry)} bytes is longer than {ENTRY_BYTES_MAX}")
        parts.append(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry)
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the `width` leaves of an entry bundle.

    Raises: DecodeError: cut off, or more or fewer leaves than its path says.
    """
    entries: list[bytes] = []
    start = 0
    while start < len(data):
        body = start + _LENGTH_BYTES
        end = body + int.from_bytes(data[start:body], "big")
        if end > len(data) or body > len(data):
            raise DecodeError(f"entry bundle is cut off in leaf {len(entries)}")
        entries.append(data[body:end])
        start = end
    if len(entries) != width:
        raise DecodeError(f"entry bundle has {len(entries)} leaves, its path says {width}")
    return entries


def export(
    size_from: int, size_to: int, nodes: NodeReader, leaves: EntryReader
) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) of every file that the growth from `size_from` to `size_to` leaves adds.

    Every file is complete as yielded. The caller writes them all before it publishes the checkpoint
    of `size_to`, and removes none before.

    Raises: DecodeError: sizes not ascending, or a leaf too long.
    """
    for tile in tiles_for(size_from, size_to):
        yield tile.path, tile_bytes(tile, nodes)
        if tile.level == 0:
            entries = leaves.entries(tile.index * TILE_WIDTH, tile.width)
            yield tile.entries_path, encode_bundle(entries)
