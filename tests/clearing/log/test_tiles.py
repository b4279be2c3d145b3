"""Tiles: published bytes, paths, and enumeration against the definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation
from clearing.log.merkle import HashedLeaves
from clearing.log.tiles import (
    Tile,
    decode_bundle,
    encode_bundle,
    export,
    tile_bytes,
    tiles_for,
)
from tests.clearing.log.support import VECTORS, naive_leaf, naive_root, sha256, unb64

SIZES = st.one_of(
    st.integers(0, 1000), st.integers(0, 300_000), st.sampled_from([256, 65_536, 65_792])
)


class Entries:
    """An `EntryReader` over leaves at hand."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves

    def entries(self, first: int, count: int) -> list[bytes]:
        return self.leaves[first : first + count]


def definition(size: int) -> set[Tile]:
    """All tiles of a tree, as tlog-tiles defines them."""
    tiles = set()
    for level in range(8):
        full, rest = divmod(size // 256**level, 256)
        tiles |= {Tile(level, index, 256) for index in range(full)}
        tiles |= {Tile(level, full, rest)} if rest else set()
    return tiles


@pytest.mark.parametrize("case", VECTORS["tiles"], ids=lambda case: case["source"])
def test_tiles_are_byte_for_byte_those_of_published_logs(case):
    if "entry_bundles" in case:
        (bundle,) = case["entry_bundles"].values()
        leaves = decode_bundle(unb64(bundle), case["size"])
        tree = HashedLeaves([sha256(b"\x00" + leaf) for leaf in leaves])
        files = dict(export(0, case["size"], tree, Entries(leaves)))
        assert files == {
            path: unb64(data) for path, data in (case["tiles"] | case["entry_bundles"]).items()
        }
    else:  # the leaves were not published: take their hashes from level 0
        level0 = b"".join(
            unb64(case["tiles"][path]) for path in sorted(case["tiles"]) if "tile/0/" in path
        )
        tree = HashedLeaves(level0)
        files = {tile.path: tile_bytes(tile, tree) for tile in tiles_for(0, case["size"])}
        assert files == {path: unb64(data) for path, data in case["tiles"].items()}
    assert tree.root == unb64(case["root_b64"])


def test_the_example_of_the_specification():
    tiles = list(tiles_for(0, 70_000))
    assert [(t.level, t.width) for t in tiles if t.width < 256] == [(0, 112), (1, 17), (2, 1)]
    assert sum(t.level == 0 and t.width == 256 for t in tiles) == 273
    assert sum(t.level == 1 and t.width == 256 for t in tiles) == 1
    assert [tile.path for tile in tiles_for(0, 256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_for(0, 0)) == []


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (Tile(3, 0, 256), "tile/3/000"),
        (Tile(0, 999, 5), "tile/0/999.p/5"),
        (Tile(0, 1000, 256), "tile/0/x001/000"),
        (Tile(1, 1_000_000, 255), "tile/1/x001/x000/000.p/255"),
    ],
)
def test_paths(tile, path):
    assert tile.path == path
    if tile.level == 0:
        assert tile.entries_path == path.replace("tile/0/", "tile/entries/")
    else:
        with pytest.raises(InvariantViolation):
            tile.entries_path  # noqa: B018 - reading it is the test


@given(SIZES, SIZES)
def test_growth_adds_exactly_the_tiles_that_were_not_there(size_a, size_b):
    size_from, size_to = sorted((size_a, size_b))
    tiles = list(tiles_for(size_from, size_to))
    assert set(tiles) == definition(size_to) - definition(size_from)
    assert tiles == sorted(tiles, key=lambda tile: (tile.level, tile.index))


def test_the_last_tiles_of_the_greatest_tree():
    size = (1 << 64) - 1
    assert list(tiles_for(size - 300, size)) == [
        Tile(0, (1 << 56) - 2, 256),
        Tile(0, (1 << 56) - 1, 255),
        Tile(1, (1 << 48) - 1, 255),
    ]


@pytest.mark.parametrize(("size_from", "size_to"), [(2, 1), (-1, 1), (0, 1 << 64)])
def test_sizes_that_are_no_growth_are_refused(size_from, size_to):
    with pytest.raises(DecodeError):
        list(tiles_for(size_from, size_to))


def test_every_hash_of_a_tile_is_the_root_of_its_range():
    size = 600
    leaves = [naive_leaf(number) for number in range(size)]
    tree = HashedLeaves(leaves)
    for tile in tiles_for(0, size):
        width = 256**tile.level
        hashes = tile_bytes(tile, tree)
        assert len(hashes) == 32 * tile.width
        for i in range(tile.width):
            first = (tile.index * 256 + i) * width
            assert hashes[32 * i : 32 * i + 32] == naive_root(leaves[first : first + width])


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_round_trip(leaves):
    assert decode_bundle(encode_bundle(leaves), len(leaves)) == leaves


@given(st.binary(max_size=40), st.integers(0, 5))
def test_bundles_that_are_read_are_written_alike(data, width):
    try:
        leaves = decode_bundle(data, width)
    except DecodeError:
        return
    assert encode_bundle(leaves) == data


def test_a_leaf_has_at_most_65535_bytes():
    longest = bytes(65_535)
    assert decode_bundle(encode_bundle([longest]), 1) == [longest]
    with pytest.raises(DecodeError):
        encode_bundle([longest + b"\0"])


@pytest.mark.parametrize(
    ("data", "width"),
    [(b"\0", 1), (b"\0\x05abc", 1), (b"\0\x01a", 2), (b"\0\x01a", 0), (b"\0\x01a\0", 1), (b"", 1)],
)
def test_bundles_cut_off_or_miscounted_are_refused(data, width):
    with pytest.raises(DecodeError):
        decode_bundle(data, width)


def test_exporting_in_steps_leaves_the_files_of_exporting_at_once():
    leaves = [str(number).encode() for number in range(600)]
    tree = HashedLeaves([naive_leaf(number) for number in range(600)])
    stepped: dict[str, bytes] = {}
    for size_from, size_to in [(0, 3), (3, 256), (256, 257), (257, 257), (257, 600)]:
        for path, data in export(size_from, size_to, tree, Entries(leaves)):
            assert path not in stepped, "files never change"
            stepped[path] = data
    at_once = dict(export(0, 600, tree, Entries(leaves)))
    assert stepped.items() >= at_once.items()
