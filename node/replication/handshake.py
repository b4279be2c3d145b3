"""Whether a leader may write and sign: what its followers hold is heard first.

Lives here: HandshakeRule, the rule that keeps a leader with an old database from making a second
history. May not live here: transport, signing.

A leader whose log is longer than its genesis waits until followers that make the policy's quorum,
itself included, have reported the greatest head they ever cosigned. Each report is compared with
the leader's own log. One head that is ahead of it, or contradicts it, and that the log itself has
signed, means that this database is not the newest: ROLLBACK_DETECTED, and nothing is written or
signed. Any quorum shares a follower with the quorum of every earlier final checkpoint, so nothing
final can be forgotten.
Source: own design; the need for it is C2SP tlog-checkpoint ("a log must not sign a checkpoint
inconsistent with any it signed before").
"""

from __future__ import annotations

import threading
from typing import Protocol

from clearing.errors import VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.services.facade import NodeCondition, NotServingError
from node.store import Store

REMEDY = "stop this node and put back the newest database, or a copy of a full replica's"


class FeedingRule(Protocol):
    """Whether a node may write and sign, and whether it may feed a follower; HandshakeRule is a leader's."""

    @property
    def refusal(self) -> NotServingError | None:
        """Why the node may not write and sign, or None."""

    def detect(self, why: str) -> object:
        """Note that the database is older than what was signed from it."""

    def report(self, name: str, note: bytes) -> None:
        """Take the greatest head that follower `name` ever cosigned, b"" for none.

        Raises: DecodeError, VerificationError, NotServingError: it is not fed.
        """


class HandshakeRule:
    """What followers have reported since this leader started. Safe to call from several threads."""

    def __init__(self, store: Store, policy: Policy, own_name: str, origin: str) -> None:
        """Begin with nobody but the leader itself, `own_name` in the policy."""
        self._store = store
        self._policy = policy
        self._origin = origin
        self._lock = threading.Lock()
        self._witnesses = {witness.name: witness.key for witness in policy.witnesses}
        self._reported = {own_name}
        self._detected: NotServingError | None = None
        tip = store.tip
        # Before the first block nothing can have been forgotten; a leader that is the quorum by
        # itself waits for nobody.
        self._is_complete = (tip is not None and tip.height == 0) or self._is_quorum()

    @property
    def refusal(self) -> NotServingError | None:
        """Why the leader may not write and sign, or None."""
        if self._detected is not None:
            return self._detected
        if self._is_complete:
            return None
        reported = ", ".join(sorted(self._reported))
        return NotServingError(
            NodeCondition.WAITING_FOR_REPLICAS,
            f"heads of {reported} are known; replicas that make the quorum with them must connect "
            "first",
        )

    def detect(self, why: str) -> NotServingError:
        """Note for good that this memory is not the newest; return the refusal that says so."""
        with self._lock:
            if self._detected is None:
                self._detected = NotServingError(
                    NodeCondition.ROLLBACK_DETECTED, f"{why}; {REMEDY}"
                )
            return self._detected

    def report(self, name: str, note: bytes) -> None:
        """Take the greatest head that follower `name` ever cosigned, b"" for none.

        Raises: DecodeError, VerificationError: the note is malformed, or not signed by the log and
        by that follower; NotServingError: ROLLBACK_DETECTED, now or before.
        """
        if note:
            theirs, by_log = self._verified(name, note)
            self._compare(name, theirs, is_evidence=by_log)
        with self._lock:
            self._reported.add(name)
            if not self._is_complete:
                self._is_complete = self._is_quorum()
        if self._detected is not None:
            raise self._detected

    def _is_quorum(self) -> bool:
        try:
            # Only names of witnesses count: the policy knows groups by names of the same kind.
            self._policy.check_quorum(sorted(self._reported & self._witnesses.keys()))
        except VerificationError:
            return False
        return True

    def _verified(self, name: str, data: bytes) -> tuple[Checkpoint, bool]:
        """Return the checkpoint of a follower's note, and whether the log has signed it too."""
        note = Note.parse(data)
        key = self._witnesses.get(name)
        if key is None:
            raise VerificationError(f"{name} is no witness of this network's policy")
        note.verified_by([key])
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin != self._origin:
            raise VerificationError(
                f"the head is of log {checkpoint.origin!r}, this is {self._origin!r}"
            )
        logs = [log.key for log in self._policy.logs]
        names = {(key.name, key.key_id) for key in logs}
        by_log = any((line.name, line.key_id) in names for line in note.signatures)
        if by_log:
            note.verified_by(logs)
        return checkpoint, by_log

    def _compare(self, name: str, theirs: Checkpoint, *, is_evidence: bool) -> None:
        """Hold a follower's head against the log here.

        Without the log's own signature a head that does not fit is no evidence: one follower alone
        must not be able to stop the leader with a head it made up. It is not counted, either.
        """
        with self._store.snapshot() as view:
            tip = view.tip
            size = tip.log_size if tip else 0
            if theirs.size > size:
                why = f"{name} has cosigned {theirs.size} leaves, the log here has {size}"
            elif theirs.size and view.root(theirs.size) != theirs.root:
                why = f"{name} has cosigned another history of {theirs.size} leaves"
            else:
                return
        if not is_evidence:
            raise VerificationError(f"{why}, and the log's signature on it is not shown")
        raise self.detect(why)
