"""What a client remembers of the log: its last verified checkpoint, and evidence when a node contradicts it.

Lives here: CheckpointMemory and its file. May not live here: calls.

Invariants: the file holds only what the policy accepted; it never goes back; it is replaced whole. Whoever deletes it
trusts the next node anew, so it belongs on the disk of the party that checks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.client.errors import BadAnswerError, ForkDetectedError, RollbackDetectedError
from node.errors import SetupError
from node.files import PRIVATE_MODE, create_file, make_private_directory, read_text, replace_file

CHECKPOINT_NAME = "checkpoint.json"
EVIDENCE_NAME = "evidence"


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that the policy accepted, as the note that says so, and the network that the log is of."""

    checkpoint: Checkpoint
    note: bytes
    network_id: bytes


class CheckpointMemory:
    """The last verified checkpoint, in a directory of the client's own; may be used from several threads."""

    def __init__(self, directory: Path, policy: Policy) -> None:
        """Read what is remembered in `directory`, which is made when missing.

        Raises: SetupError: the file is there and cannot be understood, or the policy does not accept it.
        """
        make_private_directory(directory)
        self._directory = directory
        self._policy = policy
        self._lock = threading.Lock()
        self._seen = self._load()

    @property
    def policy(self) -> Policy:
        """The policy by which checkpoints are judged."""
        return self._policy

    @property
    def seen(self) -> Seen | None:
        """What is remembered, or None before the first checkpoint."""
        return self._seen

    def _load(self) -> Seen | None:
        path = self._directory / CHECKPOINT_NAME
        if not path.exists():
            return None
        try:
            kept = json.loads(read_text(path))
            note = str(kept["note"]).encode()
            checkpoint = self._policy.check(Note.parse(note)).checkpoint
            return Seen(checkpoint, note, bytes.fromhex(kept["network_id"]))
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            DecodeError,
            VerificationError,
        ) as error:
            raise SetupError(
                f"{path} is not a checkpoint that the policy accepts ({error}): restore it, or move it away to "
                "trust the network anew"
            ) from error

    def judge(self, note: bytes) -> Checkpoint:
        """Return the checkpoint of a note that the policy accepts.

        Raises: BadAnswerError: it does not.
        """
        try:
            return self._policy.check(Note.parse(note)).checkpoint
        except (DecodeError, VerificationError) as error:
            raise BadAnswerError(f"the checkpoint is not accepted: {error}") from error

    def accept(
        self, since: Seen | None, note: bytes, path: Sequence[bytes], network_id: bytes
    ) -> Checkpoint:
        """Take over a checkpoint with the proof that it extends `since`, which was remembered when it was asked for.

        since: None before the first checkpoint. network_id: proven under this checkpoint by the caller, or since's.
        Raises: BadAnswerError: the policy refuses it; ForkDetectedError: it does not extend `since`, or is of
            another network; RollbackDetectedError: it is smaller.
        """
        checkpoint = self.judge(note)
        if since is not None:
            if checkpoint.size < since.checkpoint.size:
                raise self.rollback(note)
            self._verify(since.checkpoint, checkpoint, path, since.note, note)
        with self._lock:
            now = self._seen
            # Another thread may have remembered more in the meantime; it is never replaced by less.
            if now is None or checkpoint.size > now.checkpoint.size:
                if now is not None and network_id != now.network_id:
                    raise ForkDetectedError(
                        f"the log is of network {network_id.hex()} and was of {now.network_id.hex()}",
                        self._keep(now.note, note),
                    )
                self._store(Seen(checkpoint, note, network_id))
        return checkpoint

    def check_consistent(self, seen: Seen, note: bytes, path: Sequence[bytes]) -> Checkpoint:
        """Check a checkpoint, not greater than `seen`, which is or was remembered, by the proof that `seen` extends it.

        Raises: BadAnswerError: the policy refuses it; ForkDetectedError: it is not extended.
        """
        checkpoint = self.judge(note)
        self._verify(checkpoint, seen.checkpoint, path, seen.note, note)
        return checkpoint

    def _verify(
        self, old: Checkpoint, new: Checkpoint, path: Sequence[bytes], seen: bytes, shown: bytes
    ) -> None:
        try:
            merkle.verify_consistency(old.size, new.size, path, old.root, new.root)
        except VerificationError as error:
            raise ForkDetectedError(
                f"sizes {old.size} and {new.size} of the log are not of one history ({error})",
                self._keep(seen, shown),
            ) from error

    def rollback(self, shown: bytes) -> RollbackDetectedError:
        """Return the error for a node that shows a note smaller than the one remembered; both are kept.

        Caller: something is remembered.
        """
        remembered = b"" if self._seen is None else self._seen.note
        return RollbackDetectedError(
            "the node's log is shorter than it was", self._keep(remembered, shown)
        )

    def _store(self, seen: Seen) -> None:
        text = json.dumps({"network_id": seen.network_id.hex(), "note": seen.note.decode()})
        replace_file(self._directory / CHECKPOINT_NAME, text.encode() + b"\n", PRIVATE_MODE)
        self._seen = seen

    def _keep(self, remembered: bytes, shown: bytes) -> Path:
        """Write both notes to a new file and return it; the same two notes are written once."""
        text = json.dumps({"remembered": remembered.decode(), "shown": shown.decode()}, indent=1)
        digest = merkle.leaf_hash(text.encode()).hex()[:16]
        path = self._directory / f"{EVIDENCE_NAME}-{digest}.json"
        if not path.exists():
            create_file(path, text.encode() + b"\n", PRIVATE_MODE)
        return path
