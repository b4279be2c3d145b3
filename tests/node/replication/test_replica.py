"""A replica keeps what is right, byte for byte, and nothing of what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.records.leaves import LeafKind, SealLeaf, leaf_kind
from clearing.records.redacted import RedactedSubmission
from clearing.state import State
from node.replication.divergence import DivergenceError
from node.replication.replica import FullReplica, ReceivedBlock, Replica, WitnessReplica
from node.replication.source import Rights
from node.services.facade import RedactedBody, ShownEntry
from node.store import ReplicaKind, Store
from tests.ledger_kit import P01, P02
from tests.node.network_kit import contents, log_contents
from tests.node.replication.replication_kit import (
    ALL,
    leader_store,
    received,
    relabelled,
    signed_note,
)
from tests.node.sequencer.heads_kit import ORIGIN
from tests.node.store.store_kit import SETTINGS

WITNESS = Rights(P02, sees_all=False)


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with leader_store(tmp_path_factory.mktemp("leader") / "s") as filled:
        yield filled


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "replica", SETTINGS) as empty:
        yield empty


def blocks_for(kind: type[Replica], leader: Store) -> list[ReceivedBlock]:
    return received(leader, ALL if kind is FullReplica else WITNESS)


def height_with(blocks: list[ReceivedBlock], kind: LeafKind, *, shown: type) -> tuple[int, int]:
    """Return height and place in its block of the first leaf of a kind that is shown in a form."""
    for block in blocks:
        for place, entry in enumerate(block.entries):
            if leaf_kind(entry.leaf) is kind and isinstance(entry.shown, shown):
                return block.height, place
    raise AssertionError(kind)


# -- what is right


@pytest.mark.parametrize("by_block", [False, True])
def test_a_full_replica_reaches_the_leaders_bytes(
    leader: Store,
    store: Store,
    by_block: bool,
) -> None:
    replica = FullReplica(store)
    for block in received(leader, ALL, by_block=by_block):
        replica.take(block)
    assert contents(store) == contents(leader)
    assert store.tip == leader.tip
    with leader.snapshot() as view:
        expected = State.load(view)
    assert replica.registry == expected.registry
    assert replica.machine.state.state_root == expected.state_root


def test_a_replica_resumes_at_any_height(leader: Store, tmp_path: Path) -> None:
    for kind in (FullReplica, WitnessReplica):
        blocks = blocks_for(kind, leader)
        for block in blocks:
            with Store.open(tmp_path / kind.__name__, SETTINGS) as store:
                kind(store).take(block)
        with Store.open(tmp_path / kind.__name__, SETTINGS) as store:
            assert log_contents(store) == log_contents(leader)


def test_a_witness_has_the_log_its_bodies_and_the_registers(leader: Store, store: Store) -> None:
    replica = WitnessReplica(store)
    blocks = received(leader, WITNESS)
    for block in blocks:
        replica.take(block)
    assert log_contents(store) == log_contents(leader)
    assert store.tip.kind is ReplicaKind.WITNESS
    assert dataclasses.replace(store.tip, kind=ReplicaKind.FULL) == leader.tip
    with leader.snapshot() as view:
        assert replica.registry == State.load(view).registry
    with store.snapshot() as view:
        records = view.records(0, view.tip.log_size)
    for record, entry in zip(
        records, (entry for block in blocks for entry in block.entries), strict=True
    ):
        redacted = isinstance(entry.shown, RedactedBody)
        assert record.body == (b"" if redacted else entry.shown or b"")
        assert bool(record.redacted) == redacted
        if redacted:
            parsed = RedactedSubmission.decode(record.redacted)
            assert (parsed.commitments, parsed.openings) == (
                entry.shown.commitments,
                entry.shown.openings,
            )


# -- what is not next


@pytest.mark.parametrize("kind", [FullReplica, WitnessReplica])
def test_only_the_next_block_is_taken(leader: Store, store: Store, kind: type[Replica]) -> None:
    replica = kind(store)
    blocks = blocks_for(kind, leader)
    replica.take(blocks[0])
    before = contents(store)
    for wrong in (blocks[0], blocks[2], dataclasses.replace(blocks[1], entries=())):
        with pytest.raises(DecodeError, match="is next"):
            replica.take(wrong)
    assert contents(store) == before
    replica.take(blocks[1])


# -- what is not signed


def without_last(block: ReceivedBlock) -> ReceivedBlock:
    return dataclasses.replace(block, entries=block.entries[:-1])


def with_byte_flipped(block: ReceivedBlock) -> ReceivedBlock:
    leaf = block.entries[0].leaf
    entry = dataclasses.replace(block.entries[0], leaf=leaf[:-1] + bytes([leaf[-1] ^ 1]))
    return dataclasses.replace(block, entries=(entry, *block.entries[1:]))


def under_another_head(block: ReceivedBlock) -> ReceivedBlock:
    head = Checkpoint(ORIGIN, block.checkpoint.size, bytes(32))
    return dataclasses.replace(block, checkpoint=head, note=signed_note(head.size, head.root))


def with_another_proof(block: ReceivedBlock) -> ReceivedBlock:
    return dataclasses.replace(block, consistency=(bytes(32), *block.consistency[1:]))


def without_proof(block: ReceivedBlock) -> ReceivedBlock:
    return dataclasses.replace(block, consistency=())


def under_a_smaller_head(block: ReceivedBlock) -> ReceivedBlock:
    head = Checkpoint(ORIGIN, block.first_index, bytes(32))
    return dataclasses.replace(block, checkpoint=head)


@pytest.mark.parametrize("kind", [FullReplica, WitnessReplica])
@pytest.mark.parametrize(
    "altered",
    [
        without_last,
        with_byte_flipped,
        under_another_head,
        with_another_proof,
        without_proof,
        under_a_smaller_head,
    ],
)
def test_nothing_is_kept_that_the_signed_head_does_not_cover(
    leader: Store,
    store: Store,
    kind: type[Replica],
    altered: Callable[[ReceivedBlock], ReceivedBlock],
) -> None:
    replica = kind(store)
    blocks = blocks_for(kind, leader)
    replica.take(blocks[0])
    before = contents(store)
    with pytest.raises(DivergenceError, match="do not lead to the head") as error:
        replica.take(altered(blocks[1]))
    assert error.value.divergence.height == 1
    assert contents(store) == before
    replica.take(blocks[1])


# -- what the log has signed and is wrong all the same: a lying leader


def lying(
    leader: Store, blocks: list[ReceivedBlock], at: int, place: int, leaf: bytes
) -> ReceivedBlock:
    leaves = [entry.leaf for entry in blocks[at].entries]
    leaves[place] = leaf
    return relabelled(leader, blocks, at, leaves)


def take_all(replica: Replica, blocks: list[ReceivedBlock], end: int) -> None:
    for block in blocks[:end]:
        replica.take(block)


def test_a_full_replica_finds_any_altered_seal(leader: Store, store: Store) -> None:
    replica = FullReplica(store)
    blocks = received(leader)
    take_all(replica, blocks, 3)
    before = contents(store)
    seal = SealLeaf.decode(blocks[3].entries[-1].leaf)
    place = len(blocks[3].entries) - 1
    for change in (
        {"state_root": bytes(32)},
        {"changes_hash": bytes(32)},
        {"participants": seal.participants + 1},
        {"rules_version": seal.rules_version + 1},
        {"first_index": seal.first_index + 1},
    ):
        leaf = dataclasses.replace(seal, **change).encode()
        with pytest.raises(DivergenceError, match="another leaf") as error:
            replica.take(lying(leader, blocks, 3, place, leaf))
        found = error.value.divergence
        assert (found.height, found.leaf) == (3, blocks[3].first_index + place)
        assert found.received == merkle.leaf_hash(leaf)
        assert found.computed == merkle.leaf_hash(blocks[3].entries[place].leaf)
    assert contents(store) == before
    replica.take(blocks[3])


@pytest.mark.parametrize("change", [{"height": 9}, {"time_ms": 1}])
def test_a_block_that_cannot_be_applied_is_a_divergence_too(
    leader: Store, store: Store, change: dict[str, int]
) -> None:
    replica = FullReplica(store)
    blocks = received(leader)
    take_all(replica, blocks, 3)
    seal = SealLeaf.decode(blocks[3].entries[-1].leaf)
    leaf = dataclasses.replace(seal, **change).encode()
    with pytest.raises(DivergenceError, match="does not apply"):
        replica.take(lying(leader, blocks, 3, len(blocks[3].entries) - 1, leaf))


NOT_IN_HISTORY = (
    LeafKind.EXPIRED,
    LeafKind.CYCLE_CUT_OFF,
    LeafKind.VALIDATORS,
    LeafKind.MISBEHAVIOUR,
)
IN_HISTORY = [kind for kind in LeafKind if kind not in NOT_IN_HISTORY]


@pytest.mark.parametrize("kind", IN_HISTORY)
def test_a_full_replica_finds_an_altered_leaf_of_any_kind(
    leader: Store, store: Store, kind: LeafKind
) -> None:
    blocks = received(leader)
    places = [
        (block.height, place)
        for block in blocks
        for place, entry in enumerate(block.entries)
        if leaf_kind(entry.leaf) is kind
    ]
    height, place = places[-1]
    replica = FullReplica(store)
    take_all(replica, blocks, height)
    leaf = blocks[height].entries[place].leaf
    with pytest.raises(DivergenceError) as error:
        replica.take(lying(leader, blocks, height, place, leaf[:-1] + bytes([leaf[-1] ^ 1])))
    assert error.value.divergence.height == height


def with_shown(block: ReceivedBlock, place: int, shown: object) -> ReceivedBlock:
    entries = list(block.entries)
    entries[place] = ShownEntry(entries[place].leaf, shown, entries[place].public)
    return dataclasses.replace(block, entries=tuple(entries))


@pytest.mark.parametrize("leaf", [LeafKind.SUBMISSION, LeafKind.INSTRUCTION, LeafKind.GENESIS])
@pytest.mark.parametrize("kind", [FullReplica, WitnessReplica])
def test_an_altered_body_is_found(
    leader: Store, store: Store, kind: type[Replica], leaf: LeafKind
) -> None:
    blocks = blocks_for(kind, leader)
    height, place = height_with(blocks, leaf, shown=bytes)
    replica = kind(store)
    take_all(replica, blocks, height)
    body = blocks[height].entries[place].shown
    for altered in (body[:-1] + bytes([body[-1] ^ 1]), body + b"\0", body[:-1]):
        with pytest.raises(DivergenceError):
            replica.take(with_shown(blocks[height], place, altered))
    replica.take(blocks[height])


def test_a_full_replica_refuses_withheld_and_redacted_bodies(leader: Store, store: Store) -> None:
    blocks = received(leader)
    height, place = height_with(blocks, LeafKind.SUBMISSION, shown=bytes)
    replica = FullReplica(store)
    take_all(replica, blocks, height)
    partly = received(leader, Rights(P01, sees_all=False))
    some = next(e.shown for b in partly for e in b.entries if isinstance(e.shown, RedactedBody))
    for shown in (None, some):
        with pytest.raises(DivergenceError):
            replica.take(with_shown(blocks[height], place, shown))


def test_a_witness_finds_an_altered_redaction(leader: Store, store: Store) -> None:
    blocks = received(leader, WITNESS)
    height, place = height_with(blocks, LeafKind.SUBMISSION, shown=RedactedBody)
    replica = WitnessReplica(store)
    take_all(replica, blocks, height)
    shown = blocks[height].entries[place].shown
    item, opening = shown.openings[0]
    for altered in (
        dataclasses.replace(shown, commitments=bytes(len(shown.commitments))),
        dataclasses.replace(shown, openings=((item, opening[:-1] + b"\xff"),)),
        dataclasses.replace(shown, commitments=shown.commitments + bytes(32)),
    ):
        with pytest.raises(DivergenceError) as error:
            replica.take(with_shown(blocks[height], place, altered))
        assert error.value.divergence.leaf == blocks[height].first_index + place
    replica.take(blocks[height])


def test_a_witness_refuses_a_body_where_none_can_be(leader: Store, store: Store) -> None:
    blocks = received(leader, WITNESS)
    replica = WitnessReplica(store)
    with pytest.raises(DivergenceError, match="SEAL leaf has no body"):
        replica.take(with_shown(blocks[0], len(blocks[0].entries) - 1, b"body"))


@pytest.mark.parametrize("change", [{"height": 9}, {"first_index": 1}, {"time_ms": 1}])
def test_a_witness_checks_what_every_seal_must_say(
    leader: Store, store: Store, change: dict[str, int]
) -> None:
    replica = WitnessReplica(store)
    blocks = received(leader, WITNESS)
    take_all(replica, blocks, 3)
    seal = SealLeaf.decode(blocks[3].entries[-1].leaf)
    leaf = dataclasses.replace(seal, **change).encode()
    with pytest.raises(DivergenceError):
        replica.take(lying(leader, blocks, 3, len(blocks[3].entries) - 1, leaf))


def test_a_witness_takes_no_block_without_its_seal(leader: Store, store: Store) -> None:
    replica = WitnessReplica(store)
    blocks = received(leader, WITNESS)
    replica.take(blocks[0])
    leaves = [entry.leaf for entry in blocks[1].entries]
    with pytest.raises(DivergenceError, match="ends in its SEAL"):
        replica.take(relabelled(leader, blocks, 1, [*leaves[:-1], leaves[0]]))
