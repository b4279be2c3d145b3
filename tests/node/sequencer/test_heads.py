"""Heads are stored before they are signed, never forked, and final exactly when the policy says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.sequencer import heads as heads_module
from node.services.facade import NodeCondition, NotServingError, UnknownHeadError
from node.store import Head, StoreFullError
from tests.clearing.log.support import SeedSigner, witness_signer
from tests.node.sequencer.heads_kit import (
    FIRST,
    LOG,
    NAMES,
    ORIGIN,
    POLICY,
    SECOND,
    HeadsBench,
    cosigned,
    eventually,
    heads_bench,
)

WAIT_S = 30


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HeadsBench]:
    with heads_bench(tmp_path / "s") as one:
        yield one


def latest(keeper: object) -> Checkpoint:
    return Checkpoint.parse(Note.parse(keeper.latest[1]).text)


# -- signing


def test_nothing_is_signed_before_it_is_allowed(made: HeadsBench) -> None:
    with made.running(allowed=False) as keeper:
        keeper.add_head(made.head())
        with pytest.raises(UnknownHeadError):
            keeper.add_cosignature(cosigned(made.checkpoint(), FIRST)).result(WAIT_S)
        assert keeper.latest is None
        assert made.store.signed_head(ORIGIN) is None
        keeper.allow()
        eventually(lambda: keeper.latest is not None)


def test_the_newest_head_is_signed_by_log_and_leader(made: HeadsBench) -> None:
    head = made.grow(3)
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        note = Note.parse(keeper.latest[1])
        assert [signature.key for signature in note.verified_by([LOG.key])] == [LOG.key]
        assert latest(keeper) == head
        eventually(lambda: keeper.cosigned_sizes == {"leader": head.size})
        assert keeper.final is None


class Spy(SeedSigner):
    """The log's key; looks at what the store remembers at the moment of signing."""

    def __init__(self, made: HeadsBench) -> None:
        super().__init__(ORIGIN, LOG.key.type, bytes(range(32)))
        self.made = made
        self.remembered: list[Head | None] = []

    def sign(self, message: bytes) -> bytes:
        file = (self.made.store.directory / "signed-heads").read_text()
        head = self.made.store.signed_head(ORIGIN)
        assert head is not None
        assert f"{head.size} {head.root.hex()} {ORIGIN}\n" in file
        self.remembered.append(head)
        return super().sign(message)


def test_a_head_is_on_disk_twice_before_it_is_signed(made: HeadsBench) -> None:
    spy = Spy(made)
    head = made.head()
    with made.running(signer=spy) as keeper:
        eventually(lambda: keeper.latest is not None)
    assert spy.remembered == [head]


def test_the_next_head_waits_for_the_round_and_then_takes_the_newest(
    made: HeadsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_module, "ROUND_MS", 3_600_000)
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        first = made.checkpoint()
        for _ in range(3):
            made.grow()
            keeper.add_head(made.head())
        assert latest(keeper) == first
        assert keeper.add_cosignature(cosigned(first, FIRST)).result(WAIT_S) == first.size
        eventually(lambda: latest(keeper) == made.checkpoint())
    assert made.store.signed_head(ORIGIN) == made.head()


def test_a_round_without_quorum_ends_by_time(made: HeadsBench) -> None:
    with made.running() as keeper:
        for _ in range(2):
            head = made.grow()
            keeper.add_head(made.head())
            eventually(lambda head=head: keeper.latest is not None and latest(keeper) == head)
        assert keeper.final is None


def test_a_head_that_shrinks_is_never_signed(made: HeadsBench) -> None:
    made.grow(2)
    greatest = made.head()
    made.store.record_head(ORIGIN, greatest)
    with made.running(allowed=False) as keeper:
        keeper.add_head(Head(2, made.store.node(1, 0)))
        with keeper._changed:
            keeper._may_sign = True
            keeper._changed.notify()
        eventually(lambda: keeper.refusal is not None)
        assert keeper.refusal.condition is NodeCondition.ROLLBACK_DETECTED
        assert keeper.latest is None
    assert len(made.failures) == 1


def test_a_second_root_at_a_size_is_never_signed(made: HeadsBench) -> None:
    with made.running(allowed=False) as keeper:
        keeper.add_head(Head(made.head().size, bytes(32)))
        with keeper._changed:
            keeper._may_sign = True
            keeper._changed.notify()
        eventually(lambda: keeper.refusal is not None)
    assert keeper.refusal.condition is NodeCondition.ROLLBACK_DETECTED
    assert keeper.latest is None


class Failing(SeedSigner):
    """A key whose signatures do not verify: a broken HSM."""

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


def test_a_signer_that_fails_ends_all_signing(made: HeadsBench) -> None:
    with made.running(signer=Failing(ORIGIN, LOG.key.type, bytes(range(32)))) as keeper:
        eventually(lambda: keeper.refusal is not None)
        assert keeper.refusal.condition is NodeCondition.HALTED
        keeper.allow()
        keeper.add_head(Head(made.grow().size, made.head().root))
        assert keeper.latest is None
    assert len(made.failures) == 1


def test_a_full_disk_delays_signing_and_loses_no_cosignature(
    made: HeadsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_module, "STORE_RETRY_MS", 10)
    real, failures = made.store.record_head, ["log", "own", "own"]

    def record_head(name: str, head: Head) -> None:
        if failures and (name == ORIGIN) == (failures[0] == "log"):
            failures.pop(0)
            raise StoreFullError("the disk is nearly full")
        real(name, head)

    monkeypatch.setattr(made.store, "record_head", record_head)
    head = made.grow()
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        assert keeper.refusal is None
        keeper.add_cosignature(cosigned(head, FIRST)).result(WAIT_S)
        eventually(lambda: keeper.final is not None)
        assert keeper.final[0] == head.size
    assert failures == []
    assert made.failures == []


def test_forbidden_means_nothing_more_is_signed(made: HeadsBench) -> None:
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        before = keeper.latest
        keeper.forbid(NotServingError(NodeCondition.ROLLBACK_DETECTED, "old"))
        keeper.allow()
        made.grow()
        keeper.add_head(made.head())
        with pytest.raises(UnknownHeadError):
            keeper.add_cosignature(cosigned(made.checkpoint(), FIRST)).result(WAIT_S)
        assert keeper.latest == before


# -- finality


def test_final_at_quorum_and_not_before(made: HeadsBench) -> None:
    head = made.grow()
    with made.running() as keeper:
        eventually(lambda: keeper.cosigned_sizes.get("leader") == head.size)
        assert keeper.final is None
        assert keeper.add_cosignature(cosigned(head, FIRST)).result(WAIT_S) == head.size
        size, note = keeper.final
        assert keeper.latest == keeper.final
        quorum = POLICY.check(Note.parse(note))
        assert quorum.checkpoint == head
        assert list(quorum.cosignatures) == ["leader", "first"]
        with made.store.snapshot() as view:
            assert view.latest_checkpoint() == (size, note)
        assert len(made.final_seconds) == 1


def test_a_policy_without_witnesses_makes_each_head_final_at_once(made: HeadsBench) -> None:
    with made.running(policy=Policy.of_log(LOG.key)) as keeper:
        eventually(lambda: keeper.final is not None)
        assert keeper.cosigned_sizes == {}


def test_late_and_repeated_cosignatures_are_taken_and_change_nothing(made: HeadsBench) -> None:
    old = made.checkpoint()
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        keeper.add_cosignature(cosigned(old, FIRST)).result(WAIT_S)
        head = made.grow()
        keeper.add_head(made.head())
        eventually(lambda: latest(keeper) == head)
        keeper.add_cosignature(cosigned(head, FIRST)).result(WAIT_S)
        final = keeper.final
        for late in (cosigned(head, SECOND), cosigned(old, SECOND), cosigned(head, FIRST)):
            assert keeper.add_cosignature(late).result(WAIT_S) == head.size
        assert keeper.final == final
        assert keeper.cosigned_sizes == dict.fromkeys(NAMES, head.size)


def test_a_cosignature_of_what_was_never_signed_is_refused(made: HeadsBench) -> None:
    head = made.grow()
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        for unknown in (
            dataclasses.replace(head, size=head.size + 1),
            dataclasses.replace(head, root=bytes(32)),
            dataclasses.replace(head, origin="another.example/log"),
        ):
            with pytest.raises(UnknownHeadError):
                keeper.add_cosignature(cosigned(unknown, FIRST)).result(WAIT_S)
        keeper.add_cosignature(cosigned(head, FIRST)).result(WAIT_S)
        # Also of what lies before the final checkpoint.
        past = cosigned(dataclasses.replace(head, size=2), SECOND)
        with pytest.raises(UnknownHeadError):
            keeper.add_cosignature(past).result(WAIT_S)
        assert "second" not in keeper.cosigned_sizes


def test_a_bad_or_foreign_signature_is_refused(made: HeadsBench) -> None:
    head = made.checkpoint()
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        good = cosigned(head, FIRST)
        broken = dataclasses.replace(good.signatures[0], blob=good.signatures[0].blob[:-1] + b"x")
        for bad in (
            Note(good.text, (broken,)),
            cosigned(head, witness_signer(9)),
            Note(head.text, (cosigned(head, FIRST, by_log=True).signatures[0],)),
        ):
            with pytest.raises(VerificationError):
                keeper.add_cosignature(bad).result(WAIT_S)
        with pytest.raises(DecodeError):
            keeper.add_cosignature(Note("no checkpoint\n", good.signatures)).result(WAIT_S)
        assert keeper.final is None


def test_a_stranger_with_the_same_key_name_is_ignored(made: HeadsBench) -> None:
    head = made.checkpoint()
    stranger = SeedSigner(FIRST.key.name, FIRST.key.type, b"\x77" * 32)
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        with pytest.raises(VerificationError):
            keeper.add_cosignature(cosigned(head, stranger)).result(WAIT_S)


# -- after a restart


def test_a_restart_signs_the_same_head_again_and_goes_on(made: HeadsBench) -> None:
    head = made.grow()
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        before = keeper.latest
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
        assert keeper.latest == before
        keeper.add_cosignature(cosigned(head, FIRST)).result(WAIT_S)
        final = keeper.final
    with made.running() as keeper:
        assert keeper.latest == keeper.final == final
        head = made.grow()
        keeper.add_head(made.head())
        eventually(lambda: latest(keeper) == head)


def test_a_stopped_keeper_refuses(made: HeadsBench) -> None:
    with made.running() as keeper:
        eventually(lambda: keeper.latest is not None)
    with pytest.raises(NotServingError) as refused:
        keeper.add_cosignature(cosigned(made.checkpoint(), FIRST))
    assert refused.value.condition is NodeCondition.STOPPING
