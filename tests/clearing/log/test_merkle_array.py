"""Arrays of changing leaves: against the naive tree, at every size and after any changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation, VerificationError
from clearing.log.merkle import EMPTY_ROOT, verify_inclusion
from clearing.log.merkle_array import MerkleArray
from tests.clearing.log.support import naive_leaf, naive_path, naive_root

ZERO = bytes(32)


def test_root_and_proofs_are_the_definition_s_at_all_sizes_to_257():
    leaves = [naive_leaf(number) for number in range(257)]
    for size in range(258):
        array = MerkleArray(leaves[:size])
        assert array.size == size
        assert array.root == naive_root(leaves[:size])
    for size in range(1, 40):
        array = MerkleArray(leaves[:size])
        for index in range(size):
            assert array.leaf(index) == leaves[index]
            assert list(array.proof(index)) == naive_path(index, leaves[:size])
            verify_inclusion(leaves[index], index, size, array.proof(index), array.root)


def test_growing_is_building_anew_at_all_sizes_to_70():
    leaves = [naive_leaf(number) for number in range(70)]
    for size in range(70):
        for more in range(size, 70):
            grown = MerkleArray(leaves[:size]).grown(more, ZERO)
            built = MerkleArray(leaves[:size] + [ZERO] * (more - size))
            assert grown.root == built.root
            for index in range(0, more, 3):
                assert grown.proof(index) == built.proof(index)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.dictionaries(st.integers(0, 200), st.binary(min_size=32, max_size=32), max_size=20),
        ),
        max_size=6,
    )
)
def test_any_history_of_growth_and_updates_is_the_tree_over_the_leaves_left(history):
    leaves: list[bytes] = []
    array = MerkleArray()
    for more, changes in history:
        before = array
        array = array.grown(array.size + more, ZERO)
        assert before.root == naive_root(leaves)
        leaves += [ZERO] * more
        fitting = {index % len(leaves): value for index, value in changes.items() if leaves}
        overlay = array.update(fitting)
        assert array.root == naive_root(leaves), "update must not change the array"
        for index, value in fitting.items():
            leaves[index] = value
        assert overlay.root == naive_root(leaves)
        array.apply(overlay)
        assert array.root == overlay.root
        for index in range(0, len(leaves), 7):
            assert list(array.proof(index)) == naive_path(index, leaves)


@given(st.dictionaries(st.integers(0, 99), st.binary(min_size=32, max_size=32)), st.randoms())
def test_the_order_of_changes_is_irrelevant(changes, random):
    array = MerkleArray().grown(100, ZERO)
    shuffled = list(changes.items())
    random.shuffle(shuffled)
    first, second = array.update(changes), array.update(dict(shuffled))
    assert first == second
    assert [list(level) for level in first.levels] == [sorted(level) for level in second.levels]


def test_an_update_names_only_the_nodes_on_its_paths():
    array = MerkleArray().grown(1_000_000, ZERO)
    overlay = array.update({123_456: naive_leaf(1), 999_999: naive_leaf(2)})
    assert sum(len(level) for level in overlay.levels) <= 2 * 21
    array.apply(overlay)
    for index, leaf in ((123_456, naive_leaf(1)), (999_999, naive_leaf(2)), (5, ZERO)):
        verify_inclusion(leaf, index, 1_000_000, array.proof(index), array.root)


def test_an_empty_array_has_the_empty_root_and_no_proofs():
    array = MerkleArray()
    assert array.root == EMPTY_ROOT
    assert array.update({}).root == EMPTY_ROOT
    for use in (array.proof, array.leaf):
        with pytest.raises(VerificationError):
            use(0)


def test_an_overlay_of_another_state_is_not_applied():
    array = MerkleArray().grown(10, ZERO)
    stale = array.update({1: naive_leaf(1)})
    array.apply(array.update({2: naive_leaf(2)}))
    root = array.root
    with pytest.raises(InvariantViolation):
        array.apply(stale)
    with pytest.raises(InvariantViolation):
        MerkleArray().apply(stale)
    assert array.root == root


@pytest.mark.parametrize("changes", [{10: ZERO}, {-1: ZERO}, {0: b"short"}, {0: b""}])
def test_changes_out_of_range_are_our_own_defect(changes):
    with pytest.raises(InvariantViolation):
        MerkleArray().grown(10, ZERO).update(changes)


@pytest.mark.parametrize(("size", "leaf"), [(9, ZERO), (11, b"short")])
def test_growth_out_of_range_is_our_own_defect(size, leaf):
    with pytest.raises(InvariantViolation):
        MerkleArray().grown(10, ZERO).grown(size, leaf)


@pytest.mark.parametrize("index", [-1, 10])
def test_a_leaf_that_is_not_there_has_no_proof(index):
    array = MerkleArray().grown(10, ZERO)
    for use in (array.proof, array.leaf):
        with pytest.raises(VerificationError):
            use(index)


def test_hashes_of_other_lengths_are_refused():
    with pytest.raises(DecodeError):
        MerkleArray(b"1" * 33)
