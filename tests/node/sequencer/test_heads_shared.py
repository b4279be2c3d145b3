"""Heads of one operator among several: every head is signed, others' cosignatures meet it, the suspended count for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clearing.errors import VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Group, Log, Policy, Witness
from node.sequencer.heads import BACKLOG, EARLY_KEPT, HeadKeeper, Sharing
from node.services.facade import UnknownHeadError
from node.store import Head
from node.workers.witness import Cosigner
from tests.clearing.log.support import SeedSigner, log_signer, witness_signer
from tests.node.sequencer.heads_kit import ORIGIN, HeadsBench, eventually, heads_bench

NAMES = ("own", "second", "third", "fourth")
OWN_LOG = log_signer()
COSIGNERS = dict(zip(NAMES, (witness_signer(number) for number in (1, 2, 3, 4)), strict=True))
POLICY = Policy(
    (Log(OWN_LOG.key),),
    tuple(Witness(name, signer.key) for name, signer in COSIGNERS.items()),
    (Group("operators", 3, NAMES),),
    "operators",
)
WAIT_S = 30


@dataclass
class Told:
    suspended: set[str] = field(default_factory=set)
    notes: list[bytes] = field(default_factory=list)
    conflicts: list[tuple[str, ...]] = field(default_factory=list)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HeadsBench]:
    with heads_bench(tmp_path / "s") as one:
        yield one


def keeper_of(made: HeadsBench, told: Told) -> HeadKeeper:
    return HeadKeeper(
        made.store,
        POLICY,
        OWN_LOG,
        Cosigner(made.store, COSIGNERS["own"], lambda: 1_700_000_000),
        on_change=lambda: None,
        on_final=made.final_seconds.append,
        on_failure=made.failures.append,
        sharing=Sharing(
            lambda name: name not in told.suspended,
            told.notes.append,
            lambda names, _note: told.conflicts.append(names),
        ),
    )


@pytest.fixture
def keeper(made: HeadsBench, told: Told) -> Iterator[HeadKeeper]:
    keeper = keeper_of(made, told)
    keeper.start()
    keeper.allow()
    yield keeper
    keeper.stop()
    assert made.failures == []


def note_of(checkpoint: Checkpoint, *names: str, by_log: bool = False) -> Note:
    lines = [sign(checkpoint.text, COSIGNERS[name], 1_700_000_000) for name in names]
    if by_log:
        lines.insert(0, sign(checkpoint.text, OWN_LOG))
    return Note(checkpoint.text, tuple(lines))


def signed(keeper: HeadKeeper, size: int) -> bool:
    return keeper.latest is not None and keeper.latest[0] >= size


def test_every_head_is_signed_and_handed_to_the_others(
    made: HeadsBench, told: Told, keeper: HeadKeeper
) -> None:
    sizes = []
    for _ in range(BACKLOG):
        checkpoint = made.grow()
        sizes.append(checkpoint.size)
        keeper.add_head(made.head())
    eventually(lambda: signed(keeper, sizes[-1]))
    # The head that was there before may have been told of too.
    eventually(lambda: any(f"\n{sizes[-1]}\n" in note.decode() for note in told.notes))
    found = [Note.parse(note) for note in told.notes]
    assert [Checkpoint.parse(note.text).size for note in found][-len(sizes) :] == sizes
    # Each carries this node's two signatures.
    for note in found:
        note.verified_by([OWN_LOG.key])
        note.verified_by([COSIGNERS["own"].key])


def test_cosignatures_of_two_others_make_a_head_final(
    made: HeadsBench, told: Told, keeper: HeadKeeper
) -> None:
    checkpoint = made.grow()
    keeper.add_head(made.head())
    eventually(lambda: signed(keeper, checkpoint.size))
    keeper.add_cosignature(note_of(checkpoint, "second")).result(WAIT_S)
    assert keeper.final is None
    assert keeper.add_cosignature(note_of(checkpoint, "third")).result(WAIT_S) == checkpoint.size
    quorum = POLICY.check(Note.parse(keeper.final[1]))
    assert set(quorum.cosignatures) == {"own", "second", "third"}
    # The others hear of it.
    eventually(lambda: keeper.final[1] in told.notes)


def test_what_others_cosigned_first_waits_until_this_node_is_there(
    made: HeadsBench, keeper: HeadKeeper
) -> None:
    eventually(lambda: signed(keeper, made.checkpoint().size))
    checkpoint = made.grow()
    for name in ("second", "third"):
        assert keeper.add_cosignature(note_of(checkpoint, name)).result(WAIT_S) == 0
    assert keeper.cosigned_sizes["third"] == checkpoint.size
    keeper.add_head(made.head())
    eventually(lambda: keeper.final is not None and keeper.final[0] == checkpoint.size)


def test_a_suspended_cosigner_counts_for_nothing_and_is_left_out(
    made: HeadsBench, told: Told, keeper: HeadKeeper
) -> None:
    told.suspended.add("third")
    checkpoint = made.grow()
    keeper.add_head(made.head())
    eventually(lambda: signed(keeper, checkpoint.size))
    for name in ("second", "third"):
        keeper.add_cosignature(note_of(checkpoint, name)).result(WAIT_S)
    assert keeper.final is None
    keeper.add_cosignature(note_of(checkpoint, "fourth")).result(WAIT_S)
    assert set(POLICY.check(Note.parse(keeper.final[1])).cosignatures) == {
        "own",
        "second",
        "fourth",
    }


def test_another_head_of_the_same_size_is_evidence_and_counts_for_nothing(
    made: HeadsBench, told: Told, keeper: HeadKeeper
) -> None:
    checkpoint = made.grow()
    keeper.add_head(made.head())
    eventually(lambda: signed(keeper, checkpoint.size))
    lie = Checkpoint(ORIGIN, checkpoint.size, b"\x66" * 32)
    with pytest.raises(UnknownHeadError):
        keeper.add_cosignature(note_of(lie, "second", "third")).result(WAIT_S)
    assert told.conflicts == [("second", "third")]
    # The same lie told before this node was there.
    later = made.grow()
    early = Checkpoint(ORIGIN, later.size, b"\x67" * 32)
    keeper.add_cosignature(note_of(early, "second", "third")).result(WAIT_S)
    keeper.add_head(made.head())
    eventually(lambda: len(told.conflicts) == 2)
    assert keeper.final is None


def test_a_final_head_that_this_node_passed_over_is_taken_from_another(
    made: HeadsBench, told: Told
) -> None:
    passed = made.grow()
    made.grow()
    keeper = keeper_of(made, told)
    keeper.start()
    keeper.allow()
    try:
        eventually(lambda: signed(keeper, made.checkpoint().size))
        note = note_of(passed, "second", "third", "fourth", by_log=True)
        assert keeper.add_cosignature(note).result(WAIT_S) == passed.size
        assert keeper.final == (passed.size, note.encode())
        # Without the quorum it is none.
        first = Checkpoint(ORIGIN, 1, made.store.node(0, 0))
        keeper.add_cosignature(note_of(first, "second", by_log=True)).result(WAIT_S)
        assert keeper.final[0] == passed.size
    finally:
        keeper.stop()
    assert made.failures == []


def test_a_suspended_operator_cannot_finish_anothers_final_note(
    made: HeadsBench, told: Told, keeper: HeadKeeper
) -> None:
    told.suspended.add("second")
    passed = made.grow()
    made.grow()
    keeper.add_head(made.head())
    eventually(lambda: signed(keeper, made.checkpoint().size))
    note = note_of(passed, "second", "third", "fourth", by_log=True)
    keeper.add_cosignature(note).result(WAIT_S)
    assert keeper.final is None


def test_a_database_older_than_what_was_signed_signs_nothing_until_it_caught_up(
    made: HeadsBench, told: Told
) -> None:
    future = made.grow(3)
    made.store.record_head(ORIGIN, Head(future.size, future.root))
    keeper = keeper_of(made, told)
    assert keeper._signed_size == future.size - 1
    keeper.start()
    keeper.allow()
    try:
        # The same head may be signed again, a smaller one never.
        eventually(lambda: signed(keeper, future.size))
    finally:
        keeper.stop()
    assert made.failures == []


def test_notes_that_come_too_early_are_bounded(made: HeadsBench, keeper: HeadKeeper) -> None:
    for size in range(1_000, 1_000 + EARLY_KEPT + 20):
        checkpoint = Checkpoint(ORIGIN, size, bytes(32))
        keeper.add_cosignature(note_of(checkpoint, "second")).result(WAIT_S)
    kept = sum(map(len, keeper._early.values()))
    assert kept == EARLY_KEPT
    assert min(keeper._early) == 1_000
    other = Checkpoint("another/log", 5_000, bytes(32))
    with pytest.raises(UnknownHeadError):
        keeper.add_cosignature(note_of(other, "second")).result(WAIT_S)


def test_a_forged_cosignature_is_refused(made: HeadsBench, keeper: HeadKeeper) -> None:
    checkpoint = made.grow()
    keeper.add_head(made.head())
    stranger = SeedSigner(COSIGNERS["second"].key.name, COSIGNERS["second"].key.type, b"\x42" * 32)
    note = Note(checkpoint.text, (sign(checkpoint.text, stranger, 1_700_000_000),))
    with pytest.raises(VerificationError):
        keeper.add_cosignature(note).result(WAIT_S)
