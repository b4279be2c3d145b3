"""What the parts of anchoring share: book, alarms, bounds, clock, and the ledger's side.

Lives here: Desk, and the one way in which an anchor's state changes. May not live here: when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from clearing.rules.anchors import AnchorState
from node.workers.anchoring.book import Anchor, Book, Statement
from node.workers.anchoring.policy import AlarmKind, Alarms, AnchorPolicy

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """A checkpoint that is final and not anchored: log size and SHA-256 of its note."""

    size: int
    digest: bytes


class Reporting(Protocol):
    """What anchoring needs of the ledger; the bytes of commitments and reports are its affair."""

    def due(self, after: int, at_most: int) -> Sequence[Due]:
        """Return final checkpoints of more than `after` leaves, ascending."""

    def is_news(self, after: int, size: int) -> bool:
        """Return whether leaves `after` to `size` - 1 record anything besides anchoring itself."""

    def last(self) -> tuple[int, int]:
        """Return number and greatest log size of the last anchor that the ledger knows of this node, zeros for none."""

    def commitment(self, digests: Sequence[bytes]) -> bytes:
        """Return the 32 bytes that anchor these digests."""

    def payload(self, anchor: Anchor) -> bytes:
        """Return the report of an anchor's state, to be signed."""


@dataclass(slots=True)
class Desk:
    """Shared by tracking and spending; all on one thread."""

    book: Book
    policy: AnchorPolicy
    ledger: Reporting
    now_s: Callable[[], int]
    alarms: Alarms = field(default_factory=Alarms)

    def alarm(self, kind: AlarmKind, detail: str, anchor: int = 0) -> None:
        """Raise or keep an alarm; a new one is logged."""
        if self.alarms.raise_(kind, detail, self.now_s(), anchor):
            _log.warning("anchoring alarm", alarm=kind.value, detail=detail, anchor=anchor)

    def change(self, anchor: Anchor, state: AnchorState, tip_height: int) -> Anchor:
        """Store an anchor's new state together with the report of it, in one write."""
        changed = replace(anchor, state=state, depth=anchor.confirmations(tip_height))
        payload = self.ledger.payload(changed)
        _log.info("anchor", number=anchor.number, state=state.name, confirmations=changed.depth)
        statements = (*changed.statements, Statement(state, payload))
        return self.book.put(replace(changed, statements=statements))
