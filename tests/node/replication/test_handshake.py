"""A leader writes and signs only when a quorum of its followers holds nothing that it has forgotten."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from node.replication.handshake import HandshakeRule
from node.services.facade import NodeCondition, NotServingError
from node.store import Store
from tests.clearing.log.support import witness_signer
from tests.node.sequencer.heads_kit import (
    FIRST,
    LOG,
    ORIGIN,
    POLICY,
    SECOND,
    HeadsBench,
    cosigned,
    heads_bench,
)
from tests.node.store.store_kit import SETTINGS


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HeadsBench]:
    with heads_bench(tmp_path / "s") as one:
        one.grow(2)
        yield one


def handshake(made: HeadsBench, policy: Policy = POLICY) -> HandshakeRule:
    return HandshakeRule(made.store, policy, "leader", ORIGIN)


def waits(rule: HandshakeRule) -> bool:
    refusal = rule.refusal
    return refusal is not None and refusal.condition is NodeCondition.WAITING_FOR_REPLICAS


def detected(rule: HandshakeRule) -> bool:
    refusal = rule.refusal
    return refusal is not None and refusal.condition is NodeCondition.ROLLBACK_DETECTED


def test_a_fresh_ledger_waits_for_nobody(tmp_path: Path) -> None:
    with heads_bench(tmp_path / "s") as fresh:
        assert handshake(fresh).refusal is None


def test_a_restarted_leader_waits_for_the_quorum(made: HeadsBench) -> None:
    rule = handshake(made)
    assert waits(rule)
    assert "leader" in str(rule.refusal)
    rule.report("second", b"")
    assert rule.refusal is None


def test_any_agreeing_head_counts(made: HeadsBench) -> None:
    for checkpoint in (made.checkpoint(), Checkpoint(ORIGIN, 2, made.store.node(1, 0))):
        for by_log in (False, True):
            rule = handshake(made)
            rule.report("first", cosigned(checkpoint, FIRST, by_log=by_log).encode())
            assert rule.refusal is None


def test_names_that_are_no_witnesses_do_not_count(made: HeadsBench) -> None:
    rule = handshake(made)
    for name in ("either", "all-of", "p99", ""):
        rule.report(name, b"")
        assert waits(rule)


def test_the_leader_itself_counts_once(made: HeadsBench) -> None:
    rule = handshake(made)
    rule.report("leader", b"")
    assert waits(rule)


def test_a_leader_that_meets_the_policy_by_itself_waits_for_nobody(made: HeadsBench) -> None:
    assert handshake(made, Policy.of_log(LOG.key)).refusal is None


def ahead(made: HeadsBench) -> Checkpoint:
    return Checkpoint(ORIGIN, made.store.tip.log_size + 3, b"\5" * 32)


def forked(made: HeadsBench) -> Checkpoint:
    return Checkpoint(ORIGIN, 2, b"\5" * 32)


@pytest.mark.parametrize("contradiction", [ahead, forked])
def test_a_signed_head_that_is_ahead_or_another_stops_the_leader_for_good(
    made: HeadsBench, contradiction: object
) -> None:
    rule = handshake(made)
    note = cosigned(contradiction(made), FIRST, by_log=True).encode()
    with pytest.raises(NotServingError) as refused:
        rule.report("first", note)
    assert refused.value.condition is NodeCondition.ROLLBACK_DETECTED
    assert "first" in str(refused.value)
    assert detected(rule)
    # Others that agree do not heal it.
    with pytest.raises(NotServingError):
        rule.report("second", b"")
    assert detected(rule)


def test_it_is_found_after_the_quorum_too(made: HeadsBench) -> None:
    rule = handshake(made)
    rule.report("second", b"")
    with pytest.raises(NotServingError):
        rule.report("first", cosigned(ahead(made), FIRST, by_log=True).encode())
    assert detected(rule)


@pytest.mark.parametrize("contradiction", [ahead, forked])
def test_a_follower_alone_cannot_stop_the_leader(made: HeadsBench, contradiction: object) -> None:
    rule = handshake(made)
    with pytest.raises(VerificationError, match="not shown"):
        rule.report("first", cosigned(contradiction(made), FIRST).encode())
    assert waits(rule)


def test_a_forged_log_signature_stops_nobody(made: HeadsBench) -> None:
    rule = handshake(made)
    head = ahead(made)
    good = sign(head.text, LOG)
    forged = dataclasses.replace(good, blob=bytes(64))
    note = Note(head.text, (forged, *cosigned(head, FIRST).signatures))
    with pytest.raises(VerificationError):
        rule.report("first", note.encode())
    assert waits(rule)


def test_notes_that_are_malformed_anothers_or_of_another_log_do_not_count(made: HeadsBench) -> None:
    rule = handshake(made)
    head = made.checkpoint()
    with pytest.raises(DecodeError):
        rule.report("first", b"no note")
    with pytest.raises(VerificationError):
        rule.report("first", cosigned(head, SECOND).encode())
    with pytest.raises(VerificationError):
        rule.report("first", cosigned(head, witness_signer(9)).encode())
    with pytest.raises(VerificationError, match="no witness"):
        rule.report("p99", cosigned(head, FIRST).encode())
    other = dataclasses.replace(head, origin="other.example/log")
    with pytest.raises(VerificationError, match=r"other\.example"):
        rule.report("first", cosigned(other, FIRST).encode())
    assert waits(rule)


def test_an_old_copy_of_the_leaders_directory_is_found_out(tmp_path: Path) -> None:
    with heads_bench(tmp_path / "new") as made:
        made.grow()
        made.store.close()
        shutil.copytree(tmp_path / "new", tmp_path / "old")
    with Store.open(tmp_path / "new", SETTINGS) as store:
        newest = HeadsBench(store, type(made.net)(store=store))
        note = cosigned(newest.grow(), FIRST, by_log=True).encode()
    with Store.open(tmp_path / "old", SETTINGS) as store:
        rule = HandshakeRule(store, POLICY, "leader", ORIGIN)
        with pytest.raises(NotServingError):
            rule.report("first", note)
        assert detected(rule)
