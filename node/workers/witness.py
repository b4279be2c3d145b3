"""Cosigning: this node's statement that it has seen a head of the log and everything before it.

Lives here: Cosigner, the only maker of this node's cosignatures. May not live here: what must have
been checked before (replication), collecting others' cosignatures (sequencer/heads.py).

Invariants: a head is stored, twice and flushed, before its cosignature exists; never two roots at
one size, never a smaller size than before; the store refuses a head that is not that of its own
log.
Source: C2SP tlog-witness, tlog-cosignature.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer, VerifierKey
from clearing.log.note import Signature, sign
from node.store import Head, Store


def wall_s() -> int:
    """Return the wall clock in whole seconds since 1970."""
    return int(time.time())


class Cosigner:
    """Cosigns heads of the log in `store` with this node's own key. Safe from several threads."""

    def __init__(self, store: Store, signer: Signer, now_s: Callable[[], int] = wall_s) -> None:
        """Cosign with `signer`, a key that serves nothing else; `now_s` gives the time to state."""
        self._store = store
        self._signer = signer
        self._now_s = now_s
        self._lock = threading.Lock()

    @property
    def key(self) -> VerifierKey:
        """The public half of this node's cosigner key."""
        return self._signer.key

    @property
    def head(self) -> Head | None:
        """The greatest head that was ever recorded to be cosigned, or None."""
        return self._store.signed_head(self.key.name)

    @property
    def report_signer(self) -> Signer:
        """The key itself, for a statement under another origin than the log's."""
        return self._signer

    def cosign_again(self, origin: str) -> tuple[Checkpoint, Signature] | None:
        """Return the greatest head ever recorded, cosigned anew to tell others of it, or None.

        `origin` is the log's. It needs no new record: the same statement is made again.
        """
        with self._lock:
            head = self.head
            if head is None:
                return None
            checkpoint = Checkpoint(origin, head.size, head.root)
            return checkpoint, sign(checkpoint.text, self._signer, self._now_s())

    def cosign(self, checkpoint: Checkpoint) -> Signature:
        """Store the head durably, then cosign it. The same head may be cosigned again.

        Caller's duty: the log has signed `checkpoint`, and the store's log leads to its root.
        Raises: RollbackDetectedError: a greater head was cosigned before, or the store's log does
        not reach that one; ForkDetectedError: another root was cosigned at this size, or the
        store's log has another; StoreError, SetupError: the head could not be stored, and nothing
        was signed.
        """
        with self._lock:
            self._store.record_head(self.key.name, Head(checkpoint.size, checkpoint.root))
            return sign(checkpoint.text, self._signer, self._now_s())
