"""Trees: against RFC 6962's definitions written out, published vectors, and mutations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.log.merkle import (
    EMPTY_ROOT,
    CompactRange,
    HashedLeaves,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes_of_rows,
    node_hash,
    root_from_inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.clearing.log.support import (
    GOLDEN,
    VECTORS,
    NodeStore,
    naive_consistency,
    naive_leaf,
    naive_path,
    naive_root,
    unb64,
    unb64_all,
)

SIZE = 257
LEAVES = [naive_leaf(number) for number in range(SIZE)]
ROOTS = [naive_root(LEAVES[:size]) for size in range(SIZE + 1)]
TREE = HashedLeaves(LEAVES)


def case_id(case: dict[str, object]) -> str:
    return str(case["desc"])


@pytest.mark.parametrize("case", VECTORS["hashes"], ids=case_id)
def test_hashes_are_as_published(case):
    computed = {
        "empty": lambda: EMPTY_ROOT,
        "leaf": lambda: leaf_hash(case["data_utf8"].encode()),
        "node": lambda: node_hash(case["left_utf8"].encode(), case["right_utf8"].encode()),
    }[case["kind"]]()
    assert computed.hex() == case["hex"]


def test_roots_are_as_published_for_the_eight_leaves_of_certificate_transparency():
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in GOLDEN["rfc6962_leaves_hex"]]
    roots = [root_of(leaves[:size]).hex() for size in range(1, 9)]
    assert roots == GOLDEN["rfc6962_roots"]


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda tree: tree["source"])
def test_roots_of_a_signed_log(tree):
    leaves = [leaf_hash(leaf.encode()) for leaf in tree["leaves_utf8"]]
    assert leaves == unb64_all(tree["leaf_hashes_b64"])
    appended = CompactRange()
    for size, root in enumerate(unb64_all(tree["root_by_size_b64"])):
        assert root_of(leaves[:size]) == root
        assert appended.root == root
        appended, _ = appended.append_many(leaves[size : size + 1])


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=case_id)
def test_inclusion_vector(case):
    arguments = (
        unb64(case["leaf_hash_b64"]),
        case["leaf_index"],
        case["tree_size"],
        unb64_all(case["proof_b64"]),
        unb64(case["root_b64"]),
    )
    if case["valid"]:
        verify_inclusion(*arguments)
    else:
        with pytest.raises(VerificationError):
            verify_inclusion(*arguments)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=case_id)
def test_consistency_vector(case):
    arguments = (
        case["size1"],
        case["size2"],
        unb64_all(case["proof_b64"]),
        unb64(case["root1_b64"]),
        unb64(case["root2_b64"]),
    )
    if case["valid"]:
        verify_consistency(*arguments)
    else:
        with pytest.raises(VerificationError):
            verify_consistency(*arguments)


def test_golden_tree_has_its_root_and_proofs():
    tree = HashedLeaves([leaf_hash(leaf.encode()) for leaf in GOLDEN["leaves"]])
    assert tree.root == unb64(GOLDEN["note"].split("\n")[2])
    assert list(inclusion_proof(2, 3, tree)) == unb64_all(GOLDEN["inclusion_2_of_3"])
    assert list(consistency_proof(2, 3, tree)) == unb64_all(GOLDEN["consistency_2_to_3"])


def test_all_ways_to_a_root_agree_with_the_definition_at_all_sizes():
    for size in range(SIZE + 1):
        leaves = LEAVES[:size]
        assert root_of(leaves) == ROOTS[size]
        assert root_of(b"".join(leaves)) == ROOTS[size]
        assert HashedLeaves(leaves).root == ROOTS[size]
        assert CompactRange().append_many(leaves)[0].root == ROOTS[size]
        assert CompactRange.read(size, TREE).root == ROOTS[size]


def test_proofs_are_those_of_the_definition_at_all_sizes_to_64():
    for size in range(1, 65):
        for other in range(size):
            path = inclusion_proof(other, size, TREE)
            assert list(path) == naive_path(other, LEAVES[:size])
            path = consistency_proof(other + 1, size, TREE)
            assert list(path) == naive_consistency(other + 1, LEAVES[:size])


def test_every_proof_verifies_at_all_sizes():
    for size in range(1, SIZE + 1, 1):
        step = 1 if size <= 64 or size >= SIZE - 2 else 17
        for other in range(0, size, step):
            path = inclusion_proof(other, size, TREE)
            verify_inclusion(LEAVES[other], other, size, path, ROOTS[size])
            path = consistency_proof(other + 1, size, TREE)
            verify_consistency(other + 1, size, path, ROOTS[other + 1], ROOTS[size])


@given(st.lists(st.integers(0, 40), max_size=12))
def test_appending_in_any_portions_gives_the_same_tree_and_each_node_once(portions):
    tree, store = CompactRange(), NodeStore()
    for portion in portions:
        leaves = [naive_leaf(number) for number in range(tree.size, tree.size + portion)]
        tree, nodes = tree.append_many(leaves)
        assert [node[:2] for node in nodes] == sorted(node[:2] for node in nodes)
        store.add(nodes)
        assert CompactRange.read(tree.size, store) == tree
    size = sum(portions)
    leaves = [naive_leaf(number) for number in range(size)]
    assert tree.root == naive_root(leaves)
    complete = {(level, i) for level in range(10) for i in range(size >> level)}
    assert set(store.nodes) == complete
    for level, index in complete:
        subtree = leaves[index << level : (index + 1) << level]
        assert store.node(level, index) == naive_root(subtree)


class UniformNodes:
    """The nodes of a tree of any size whose leaves are alike, to try 2**64 leaves."""

    def __init__(self, leaf: bytes) -> None:
        self.levels = [leaf]
        for _ in range(70):
            self.levels.append(node_hash(self.levels[-1], self.levels[-1]))

    def node(self, level: int, index: int) -> bytes:
        return self.levels[level]


@given(st.data())
def test_proofs_hold_for_trees_of_more_than_2_to_the_63_leaves(data):
    nodes = UniformNodes(naive_leaf(0))
    size = data.draw(st.integers(1 << 63, (1 << 64) - 1), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    root = CompactRange.read(size, nodes).root
    path = inclusion_proof(index, size, nodes)
    verify_inclusion(naive_leaf(0), index, size, path, root)
    with pytest.raises(VerificationError):
        verify_inclusion(naive_leaf(1), index, size, path, root)
    size1 = data.draw(st.integers(1, size), "size1")
    root1 = CompactRange.read(size1, nodes).root
    path = consistency_proof(size1, size, nodes)
    verify_consistency(size1, size, path, root1, root)
    with pytest.raises(VerificationError):
        verify_consistency(size1, size, path, naive_leaf(1), root)


def test_verification_takes_integers_of_any_size():
    index = 1 << 200
    nodes = UniformNodes(naive_leaf(0))
    path = [naive_leaf(number) for number in range(200)]
    root = root_from_inclusion_proof(naive_leaf(7), index - 1, index, path)
    verify_inclusion(naive_leaf(7), index - 1, index, path, root)
    with pytest.raises(VerificationError):
        verify_inclusion(naive_leaf(7), index - 1, 2 * index, path, root)
    assert nodes.node(64, 0) == root_from_inclusion_proof(
        naive_leaf(0), 5, 1 << 64, [nodes.node(level, 0) for level in range(64)]
    )


def mutations(path: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Paths that differ from `path` by one flip, drop, addition, or swap of neighbours."""
    position = st.integers(0, max(len(path) - 1, 0))
    hashes = st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([*path, EMPTY_ROOT]))

    def flipped(at: int, bit: int) -> list[bytes]:
        changed = (int.from_bytes(path[at], "big") ^ (1 << bit)).to_bytes(32, "big")
        return [*path[:at], changed, *path[at + 1 :]]

    added = st.builds(
        lambda at, value: [*path[:at], value, *path[at:]], st.integers(0, len(path)), hashes
    )
    if not path:
        return added
    return st.one_of(
        added,
        st.builds(flipped, position, st.integers(0, 255)),
        position.map(lambda at: path[:at] + path[at + 1 :]),
        position.map(lambda at: [*path[:at], *path[at : at + 2][::-1], *path[at + 2 :]]),
        position.map(lambda at: [*path[:at], path[at][:-1], *path[at + 1 :]]),
        position.map(lambda at: [*path[:at], path[at] + b"\0", *path[at + 1 :]]),
    ).filter(lambda changed: changed != path)


@settings(max_examples=300)
@given(st.data())
def test_inclusion_rejects_every_mutation_of_its_path(data):
    size = data.draw(st.integers(1, SIZE), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    path = list(inclusion_proof(index, size, TREE))
    changed = data.draw(mutations(path), "path")
    with pytest.raises(VerificationError):
        verify_inclusion(LEAVES[index], index, size, changed, ROOTS[size])


@settings(max_examples=300)
@given(st.data())
def test_consistency_rejects_every_mutation_of_its_path(data):
    size2 = data.draw(st.integers(1, SIZE), "size2")
    size1 = data.draw(st.integers(1, size2), "size1")
    path = list(consistency_proof(size1, size2, TREE))
    changed = data.draw(mutations(path), "path")
    with pytest.raises(VerificationError):
        verify_consistency(size1, size2, changed, ROOTS[size1], ROOTS[size2])


def test_a_proof_shows_its_leaf_at_its_index_only():
    for size in range(1, 34):
        for index in range(size):
            path = inclusion_proof(index, size, TREE)
            for other in range(-2, size + 2):
                if other != index:
                    with pytest.raises(VerificationError):
                        verify_inclusion(LEAVES[index], other, size, path, ROOTS[size])


@settings(max_examples=300)
@given(st.data())
def test_proofs_reject_other_roots_and_sizes_that_lead_another_way(data):
    size2 = data.draw(st.integers(2, SIZE), "size2")
    size1 = data.draw(st.integers(1, size2 - 1), "size1")
    other = data.draw(st.integers(0, SIZE), "other")
    path = consistency_proof(size1, size2, TREE)
    root1, root2 = ROOTS[size1], ROOTS[size2]
    if other != size1:
        with pytest.raises(VerificationError):
            verify_consistency(size1, size2, path, ROOTS[other], root2)
        with pytest.raises(VerificationError):
            verify_consistency(other, size2, path, ROOTS[other], root2)
    if other != size2:
        with pytest.raises(VerificationError):
            verify_consistency(size1, size2, path, root1, ROOTS[other])
        with pytest.raises(VerificationError):
            verify_consistency(size1, other, path, root1, ROOTS[other])
        inclusion = inclusion_proof(size1, size2, TREE)
        with pytest.raises(VerificationError):
            verify_inclusion(LEAVES[size1], size1, other, inclusion, ROOTS[other])


def test_consistency_from_nothing_is_always_refused():
    for size in (0, 1, 8):
        with pytest.raises(VerificationError):
            verify_consistency(0, size, [], EMPTY_ROOT, ROOTS[size])
        with pytest.raises(VerificationError):
            consistency_proof(0, size, TREE)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (9, 3)])
def test_a_proof_of_a_leaf_that_is_not_there_cannot_be_made(index, size):
    with pytest.raises(VerificationError, match=f"no leaf {index}"):
        inclusion_proof(index, size, TREE)


def test_a_proof_back_in_time_cannot_be_made():
    with pytest.raises(VerificationError):
        consistency_proof(5, 4, TREE)


def test_nodes_beyond_the_leaves_at_hand_are_refused():
    tree = HashedLeaves(LEAVES[:5])
    for level, index in [(0, 5), (1, 2), (3, 0), (90, 0), (0, -1)]:
        with pytest.raises(VerificationError):
            tree.node(level, index)


@given(st.integers(1, 90), st.integers(0, 20), st.data())
def test_rows_hash_like_single_leaves(row_bytes, count, data):
    rows = data.draw(st.binary(min_size=row_bytes * count, max_size=row_bytes * count))
    single = [leaf_hash(rows[i * row_bytes : (i + 1) * row_bytes]) for i in range(count)]
    for buffer in (rows, bytearray(rows), memoryview(rows)):
        assert leaf_hashes_of_rows(buffer, row_bytes) == b"".join(single)


@pytest.mark.parametrize(("rows", "row_bytes"), [(b"12345", 2), (b"", 0), (b"1", 0), (b"1", -1)])
def test_rows_that_do_not_fill_the_buffer_are_refused(rows, row_bytes):
    with pytest.raises(DecodeError):
        leaf_hashes_of_rows(rows, row_bytes)


@pytest.mark.parametrize("hashes", [b"1" * 33, [b"1" * 32, b"1" * 31], [b""]])
def test_hashes_of_other_lengths_are_refused(hashes):
    for use in (root_of, HashedLeaves, CompactRange().append_many):
        with pytest.raises(DecodeError):
            use(hashes)


@pytest.mark.parametrize(
    ("size", "edges"),
    [
        (1, ()),
        (0, (b"1" * 32,)),
        (3, (b"1" * 32,)),
        (1, (b"1",)),
        (-1, ()),
        (1 << 64, (b"1" * 32,)),
    ],
)
def test_a_compact_range_whose_edges_do_not_fit_its_size_is_refused(size, edges):
    with pytest.raises(DecodeError):
        CompactRange(size, edges)


def test_a_tree_ends_below_2_to_the_64_leaves():
    full = CompactRange.read((1 << 64) - 1, UniformNodes(naive_leaf(0)))
    assert len(full.edges) == 64
    with pytest.raises(DecodeError):
        full.append_many([naive_leaf(0)])
