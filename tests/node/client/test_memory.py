"""What a client remembers: it never goes back, and contradictions leave evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from node.client.errors import (
    BadAnswerError,
    EvidenceError,
    ForkDetectedError,
    RollbackDetectedError,
)
from node.client.memory import CHECKPOINT_NAME, CheckpointMemory, Seen
from node.errors import SetupError
from tests.proof_kit import COSIGNED_S, COSIGNER, LOG, POLICY, STRANGER

NETWORK_ID = b"\x05" * 32


class History:
    """One history of a log: heads and proofs at any size."""

    def __init__(self, name: str, common: int = 0) -> None:
        leaves = [f"common {n}" if n < common else f"{name} {n}" for n in range(40)]
        self.tree = merkle.HashedLeaves([merkle.leaf_hash(leaf.encode()) for leaf in leaves])

    def note(self, size: int, *, cosigned: bool = True) -> bytes:
        text = Checkpoint(LOG.key.name, size, merkle.CompactRange.read(size, self.tree).root).text
        signatures = [sign(text, LOG)]
        if cosigned:
            signatures.append(sign(text, COSIGNER, COSIGNED_S))
        return Note(text, tuple(signatures)).encode()

    def path(self, old: int, new: int) -> tuple[bytes, ...]:
        return merkle.consistency_proof(old, new, self.tree)


A, B = History("a"), History("b", common=5)


def remembering(directory: Path, size: int) -> tuple[CheckpointMemory, Seen]:
    memory = CheckpointMemory(directory, POLICY)
    memory.accept(None, A.note(size), (), NETWORK_ID)
    assert memory.seen is not None
    return memory, memory.seen


def evidence_of(error: EvidenceError) -> tuple[bytes, bytes]:
    kept = json.loads(error.evidence.read_text())
    assert error.evidence.stat().st_mode & 0o777 == 0o600
    return kept["remembered"].encode(), kept["shown"].encode()


def test_it_moves_on_and_survives_the_process(tmp_path: Path) -> None:
    memory, seen = remembering(tmp_path, 3)
    memory.accept(seen, A.note(7), A.path(3, 7), NETWORK_ID)
    memory.accept(memory.seen, A.note(7), (), NETWORK_ID)
    again = CheckpointMemory(tmp_path, POLICY)
    assert again.seen is not None
    assert (again.seen.checkpoint.size, again.seen.network_id) == (7, NETWORK_ID)
    assert again.seen.note == A.note(7)
    assert (tmp_path / CHECKPOINT_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [4, 8, 9, 40])
def test_another_history_is_a_fork(tmp_path: Path, size: int) -> None:
    memory, seen = remembering(tmp_path, 8)
    history = History("c")
    if size < 8:
        with pytest.raises(ForkDetectedError) as caught:
            memory.check_consistent(seen, history.note(size), A.path(size, 8))
    else:
        path = history.path(8, size)
        with pytest.raises(ForkDetectedError) as caught:
            memory.accept(seen, history.note(size), path, NETWORK_ID)
    assert evidence_of(caught.value) == (A.note(8), history.note(size))
    assert memory.seen == seen
    again = CheckpointMemory(tmp_path, POLICY)
    assert again.seen == seen


def test_a_fork_after_a_common_start_is_found_by_who_saw_the_other_branch(tmp_path: Path) -> None:
    common = History("a", common=5)
    memory = CheckpointMemory(tmp_path, POLICY)
    memory.accept(None, common.note(5), (), NETWORK_ID)
    # Whoever saw only the common start follows either branch, and is bound to it from then on.
    memory.accept(memory.seen, B.note(9), B.path(5, 9), NETWORK_ID)
    with pytest.raises(ForkDetectedError):
        memory.accept(memory.seen, common.note(12), common.path(9, 12), NETWORK_ID)


def test_a_shorter_history_is_a_rollback(tmp_path: Path) -> None:
    memory, seen = remembering(tmp_path, 8)
    with pytest.raises(RollbackDetectedError) as caught:
        memory.accept(seen, A.note(7), A.path(7, 8), NETWORK_ID)
    assert evidence_of(caught.value) == (A.note(8), A.note(7))
    assert memory.seen == seen
    # The same contradiction shown twice is one piece of evidence.
    with pytest.raises(RollbackDetectedError):
        memory.accept(seen, A.note(7), A.path(7, 8), NETWORK_ID)
    assert len(list(tmp_path.glob("evidence-*"))) == 1


def test_an_older_checkpoint_of_the_same_history_is_consistent(tmp_path: Path) -> None:
    memory, seen = remembering(tmp_path, 8)
    assert memory.check_consistent(seen, A.note(3), A.path(3, 8)).size == 3
    assert memory.seen == seen


def test_two_threads_that_asked_at_once_do_not_see_a_rollback(tmp_path: Path) -> None:
    memory, seen = remembering(tmp_path, 3)
    memory.accept(seen, A.note(9), A.path(3, 9), NETWORK_ID)
    assert memory.accept(seen, A.note(7), A.path(3, 7), NETWORK_ID).size == 7
    assert memory.seen is not None
    assert memory.seen.checkpoint.size == 9


def test_another_network_under_the_same_log_is_a_fork(tmp_path: Path) -> None:
    memory, seen = remembering(tmp_path, 3)
    with pytest.raises(ForkDetectedError, match="network"):
        memory.accept(seen, A.note(7), A.path(3, 7), bytes(32))


@pytest.mark.parametrize(
    "note",
    [
        A.note(5, cosigned=False),
        A.note(5).replace(b"\n5\n", b"\n6\n"),
        Note("x\n", (sign("x\n", STRANGER),)).encode(),
        b"",
        b"\xff",
    ],
)
def test_what_the_policy_refuses_is_not_remembered(tmp_path: Path, note: bytes) -> None:
    memory = CheckpointMemory(tmp_path, POLICY)
    with pytest.raises(BadAnswerError):
        memory.accept(None, note, (), NETWORK_ID)
    assert memory.seen is None
    assert not (tmp_path / CHECKPOINT_NAME).exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", "{}", '{"note": 5, "network_id": ""}', '{"note": "x", "network_id": "zz"}',
        json.dumps({"note": A.note(3, cosigned=False).decode(), "network_id": "00" * 32}),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_stops_the_client(tmp_path: Path, text: str) -> None:
    (tmp_path / CHECKPOINT_NAME).write_text(text)
    with pytest.raises(SetupError, match=CHECKPOINT_NAME):
        CheckpointMemory(tmp_path, POLICY)


def test_a_new_policy_judges_what_is_remembered(tmp_path: Path) -> None:
    remembering(tmp_path, 3)
    CheckpointMemory(tmp_path, Policy.of_log(LOG.key))
    with pytest.raises(SetupError):
        CheckpointMemory(tmp_path, Policy.of_log(STRANGER.key))
