"""Positions and the state root: against a naive tree, with proofs of presence and of absence, and their cost."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation, VerificationError
from clearing.log import merkle, merkle_array
from clearing.rules.positions import (
    ZERO_LEAF,
    Position,
    PositionPath,
    PositionTree,
    position_seed,
    verify_position,
)
from tests.clearing.log.support import naive_root
from tests.clearing.records.vectors import VECTORS

U192_MAX = (1 << 192) - 1


def _sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _naive_state_root(
    participants: int, assets: int, leaves: dict[tuple[int, int], bytes]
) -> bytes:
    """The definition: one tree over participants, and under each who has any, one over assets."""
    outer = []
    for participant in range(participants):
        inner = [leaves.get((participant, asset), ZERO_LEAF) for asset in range(assets)]
        has_any = any(owner == participant for owner, _ in leaves)
        outer.append(_sha(b"\0", naive_root(inner)) if has_any else ZERO_LEAF)
    return naive_root(outer)


def _leaf(position: Position) -> bytes:
    return _sha(b"\0", position.encode())


def _tree(participants: int, assets: int, positions: list[Position]) -> PositionTree:
    tree = PositionTree(participants, assets)
    leaves = {(each.participant, each.asset): _leaf(each) for each in positions}
    tree.advance(tree.change(participants, assets, leaves))
    return tree


BLOCK = st.tuples(
    st.integers(0, 3),
    st.integers(0, 2),
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 7), st.integers(0, U192_MAX)), max_size=6
    ),
)


@given(st.lists(BLOCK, min_size=1, max_size=6))
def test_the_root_is_the_definition_s_after_any_blocks(blocks) -> None:
    tree, leaves, participants, assets = PositionTree(1, 1), {}, 1, 1
    for more_participants, more_assets, touched in blocks:
        participants, assets = participants + more_participants, assets + more_assets
        changed = {
            (owner % participants, asset % assets): _leaf(
                Position(owner % participants, asset % assets, payable=amount)
            )
            for owner, asset, amount in touched
        }
        before, naive_before = tree.root, dict(leaves)
        change = tree.change(participants, assets, changed)
        assert tree.root == before, "a change is computed, not made"
        leaves.update(changed)
        assert change.root == _naive_state_root(participants, assets, leaves)
        tree.advance(change)
        assert tree.root == change.root
        assert naive_before is not leaves


def test_the_root_of_nothing_is_the_root_over_zero_leaves() -> None:
    assert PositionTree(0, 0).root == merkle.EMPTY_ROOT
    for participants in range(1, 9):
        assert PositionTree(participants, 3).root == naive_root([ZERO_LEAF] * participants)


def test_the_order_in_which_positions_are_named_is_irrelevant() -> None:
    positions = [
        Position(owner, asset, paid=owner + asset) for owner in range(5) for asset in range(3)
    ]
    assert _tree(5, 3, positions).root == _tree(5, 3, positions[::-1]).root


def test_a_change_belongs_to_the_state_it_was_computed_from() -> None:
    tree = _tree(4, 2, [Position(1, 1, payable=5)])
    change = tree.change(4, 2, {(1, 1): bytes(31) + b"\1"})
    tree.advance(tree.change(4, 2, {(1, 1): bytes(31) + b"\2"}))
    with pytest.raises(InvariantViolation, match="another state of the tree"):
        tree.advance(change)


PRESENT = Position(2, 1, payable=300, receivable=100, locked_net=-200, cap=5, salt=b"\7" * 16)
POSITIONS = [PRESENT, Position(2, 0, paid=1), Position(0, 2, received=1), Position(6, 1, payable=2)]
TREE = _tree(7, 3, POSITIONS)


def _verify(position, participant, asset, path, root=TREE.root) -> None:
    verify_position(
        position,
        participant,
        asset,
        participants=7,
        assets=3,
        path=path,
        state_root=root,
    )


def test_every_position_and_every_absence_verifies() -> None:
    present = {(each.participant, each.asset): each for each in POSITIONS}
    for participant in range(7):
        for asset in range(3):
            path = TREE.proof(participant, asset)
            _verify(present.get((participant, asset)), participant, asset, path)


def test_nothing_else_verifies_in_the_place_of_a_position() -> None:
    present = {(each.participant, each.asset): each for each in POSITIONS}
    wrong = [
        None,
        Position(0, 0),
        *POSITIONS,
        replace(PRESENT, payable=301),
        replace(PRESENT, cap=None),
    ]
    for participant in range(7):
        for asset in range(3):
            path = TREE.proof(participant, asset)
            for claim in wrong:
                if claim != present.get((participant, asset)):
                    with pytest.raises(VerificationError):
                        _verify(claim, participant, asset, path)


def _mutations(path: PositionPath):
    for name in ("inner", "outer"):
        hashes = getattr(path, name)
        for at in range(len(hashes)):
            flipped = bytes([hashes[at][0] ^ 1]) + hashes[at][1:]
            yield replace(path, **{name: (*hashes[:at], flipped, *hashes[at + 1 :])})
            yield replace(path, **{name: hashes[:at] + hashes[at + 1 :]})
            yield replace(path, **{name: (*hashes[:at], hashes[at][:31], *hashes[at + 1 :])})
        yield replace(path, **{name: (*hashes, bytes(32))})
        yield replace(path, **{name: (bytes(32), *hashes)})
    yield replace(path, has_positions=not path.has_positions)
    yield replace(path, inner=path.outer, outer=path.inner)


@pytest.mark.parametrize(("participant", "asset"), [(2, 1), (2, 2), (1, 0), (6, 1), (6, 0), (3, 2)])
def test_every_mutation_of_a_proof_is_rejected(participant: int, asset: int) -> None:
    present = {(each.participant, each.asset): each for each in POSITIONS}
    position, path = present.get((participant, asset)), TREE.proof(participant, asset)
    for changed in _mutations(path):
        if changed != path:
            with pytest.raises(VerificationError):
                _verify(position, participant, asset, changed)
    for at in range(32):
        root = bytearray(TREE.root)
        root[at] ^= 0x80
        with pytest.raises(VerificationError):
            _verify(position, participant, asset, path, root=bytes(root))
    for other in range(8):
        if other != participant:
            with pytest.raises(VerificationError):
                _verify(position and replace(position, participant=other), other, asset, path)


def test_every_byte_of_a_position_is_proven() -> None:
    path = TREE.proof(2, 1)
    encoded = PRESENT.encode()
    for at in range(len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 1
        try:
            position = Position.decode(bytes(changed))
        except DecodeError:
            continue
        with pytest.raises(VerificationError):
            _verify(position, 2, 1, path)


def test_an_asset_or_participant_that_is_not_registered_has_no_proof() -> None:
    for participant, asset in ((7, 0), (-1, 0), (2, 3), (1, 3), (2, -1), (1, -1)):
        with pytest.raises(VerificationError):
            TREE.proof(participant, asset)
    with pytest.raises(VerificationError):
        _verify(None, 1, 3, TREE.proof(1, 0))


def test_totals_outside_their_width_are_our_own_defect() -> None:
    good = Position(0, 0)
    for name in ("payable", "receivable", "paid", "received"):
        assert Position.decode(replace(good, **{name: U192_MAX}).encode())
        for value in (-1, U192_MAX + 1):
            with pytest.raises(InvariantViolation, match="position out of range"):
                replace(good, **{name: value}).encode()
    for net in (-(1 << 191), (1 << 191) - 1):
        assert Position.decode(replace(good, locked_net=net).encode()).locked_net == net


@pytest.mark.parametrize(("flag", "cap"), [(2, 0), (0, 1), (255, 1)])
def test_a_cap_stands_beside_its_flag(flag: int, cap: int) -> None:
    data = bytearray(Position(0, 0).encode())
    data[6], data[144] = flag, cap
    with pytest.raises(DecodeError, match="without a cap carries none"):
        Position.decode(bytes(data))


def test_salts_move_on_by_the_secrets_of_a_block() -> None:
    pinned = {
        name: bytes.fromhex(value) for name, value in VECTORS["hashes"]["position_salt"].items()
    }
    position = Position(0, 0, payable=9, salt=pinned["salt"]).salted(pinned["seed"])
    assert position == Position(0, 0, payable=9, salt=pinned["next"])
    bodies = [b"\1" * 40, b"", b"\2" * 16]
    assert position_seed(bodies) == _sha(b"clearing/position-seed/v1\0", b"\1" * 32, b"\2" * 16)


def _hashes_of_a_block(monkeypatch, tree: PositionTree, leaves, assets=None) -> int:
    """Count the node hashes of one change of a tree."""
    made = []
    real = merkle.node_hash
    with monkeypatch.context() as patch:
        patch.setattr(merkle_array, "node_hash", lambda *pair: made.append(1) or real(*pair))
        tree.change(tree.participants, assets or tree.assets, leaves)
    return len(made)


@pytest.mark.parametrize("participants", [64, 1_024, 65_536])
def test_a_block_costs_the_paths_it_touches(monkeypatch, participants: int) -> None:
    tree = PositionTree(participants, 8)
    everybody = {
        (owner, 3): _leaf(Position(owner, 3, paid=1)) for owner in range(0, participants, 7)
    }
    tree.advance(tree.change(participants, 8, everybody))
    depth = (participants - 1).bit_length() + 3
    for touched in (1, 2, 5):
        leaves = {(owner * 7, 3): bytes(32) for owner in range(touched)}
        made = _hashes_of_a_block(monkeypatch, tree, leaves)
        assert 0 < made <= touched * depth
    assert _hashes_of_a_block(monkeypatch, tree, {}) == 0


def test_a_first_position_costs_a_participant_one_small_tree(monkeypatch) -> None:
    tree = PositionTree(1_024, 4_096)
    made = _hashes_of_a_block(monkeypatch, tree, {(77, 4_000): bytes(31) + b"\1"})
    assert made <= 12 * 4 + 10  # a tree of equal leaves, a path in it, and the path above


def test_a_tree_is_not_changed_by_computing_a_change() -> None:
    tree = _tree(7, 3, POSITIONS)
    before = copy.deepcopy((tree.root, tree.proof(2, 1), tree.proof(1, 0)))
    tree.change(9, 4, {(2, 1): bytes(32), (8, 3): bytes(31) + b"\1"})
    assert (tree.root, tree.proof(2, 1), tree.proof(1, 0)) == before
    assert (tree.participants, tree.assets) == (7, 3)


def test_a_position_under_anothers_place_is_refused() -> None:
    """Even where a tree holds it there: whose it is stands in the position, and both must agree."""
    strange = Position(1, 0, payable=5)
    tree = PositionTree(2, 1)
    tree.advance(tree.change(2, 1, {(0, 0): _leaf(strange)}))
    with pytest.raises(VerificationError, match="another one"):
        verify_position(
            strange,
            0,
            0,
            participants=2,
            assets=1,
            path=tree.proof(0, 0),
            state_root=tree.root,
        )
