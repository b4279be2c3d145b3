"""When an anchor is made, what it may cost, and what an operator is alarmed of.

Lives here: the bounds and the alarms. May not live here: acting by them (engine.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from clearing.rules.anchors import CHECKPOINTS_MAX
from node.workers.anchoring import rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorPolicy:
    """The bounds of anchoring; fee rates in satoshi per 1,000 virtual bytes.

    every_checkpoints, every_s: an anchor is made when so many checkpoints are due, or one is due for so long.
    depth: confirmations that make an anchor FINAL. target_blocks: what the node's fee estimate is asked for.
    fee_rate_fallback, fee_rate_max: where the node has no estimate; never more than the latter.
    fee_sat_max: what one anchor may cost with all its bumps. bump_after_s: at least so long between two bumps.
    replacements_max, children_max: how many bumps of each kind. rebroadcast_s: how often it is handed over again.
    batch_max: checkpoints that one anchor covers at most. on_their_way_max: anchors that no block holds yet, at most.
    """

    every_checkpoints: int = 1_000
    every_s: int = 3_600
    depth: int = 6
    target_blocks: int = 6
    fee_rate_fallback: int = 5_000
    fee_rate_max: int = 200_000
    fee_sat_max: int = 200_000
    bump_after_s: int = 3_600
    replacements_max: int = 4
    children_max: int = 2
    rebroadcast_s: int = 60
    batch_max: int = CHECKPOINTS_MAX
    on_their_way_max: int = 4

    def is_due(self, waiting: int, waited_s: int) -> bool:
        """Return whether so many checkpoints, the first of which has waited so long, call for an anchor."""
        enough = min(self.every_checkpoints, self.batch_max)
        return waiting >= enough or waited_s >= self.every_s

    def may_begin(self, waiting: int, on_their_way: int) -> bool:
        """Return whether one more anchor may be begun: the first always, others while more wait than one anchor covers."""
        if not on_their_way:
            return True
        return waiting >= self.batch_max and on_their_way < self.on_their_way_max


class AlarmKind(enum.StrEnum):
    """What an operator must know; each stands as long as its cause does."""

    NODE_UNREACHABLE = "NODE_UNREACHABLE"
    NODE_CREDENTIALS = "NODE_CREDENTIALS"
    NODE_WRONG_NETWORK = "NODE_WRONG_NETWORK"
    NODE_PRUNED = "NODE_PRUNED"
    NODE_LAGGING = "NODE_LAGGING"
    NODE_ANSWERS = "NODE_ANSWERS"
    """The node answers what no Bitcoin node should."""
    WALLET_EMPTY = "WALLET_EMPTY"
    RESERVE_LOW = "RESERVE_LOW"
    """No spendable output is left for the next anchor."""
    FEE_TOO_HIGH = "FEE_TOO_HIGH"
    """The market asks for more than the bound; the anchor waits."""
    BUMPS_EXHAUSTED = "BUMPS_EXHAUSTED"
    """Number or total of the fee bumps is at its bound; the anchor waits unchanged."""
    NOT_ACCEPTED = "NOT_ACCEPTED"
    """The node does not keep the anchor's transaction; it is handed over again and again."""
    REORGANISED = "REORGANISED"
    """An anchor was in a block that is gone."""
    INPUT_LOST = "INPUT_LOST"
    """An anchor's input is spent by another transaction, or gone; it is anchored again once that is certain."""
    LEDGER_REFUSES = "LEDGER_REFUSES"
    """The ledger refuses what this node reports: its node key is not registered, or the report is out of order."""
    FAILED = "FAILED"
    """The worker met what it does not know; it begins anew, and its log holds the report."""
    FILES_DAMAGED = "FILES_DAMAGED"
    """The worker's own files were altered; nothing is done until they are restored."""


ALARM_OF = {
    rpc.UnreachableError: AlarmKind.NODE_UNREACHABLE,
    rpc.CredentialsError: AlarmKind.NODE_CREDENTIALS,
    rpc.WrongNetworkError: AlarmKind.NODE_WRONG_NETWORK,
    rpc.PrunedError: AlarmKind.NODE_PRUNED,
    rpc.LaggingError: AlarmKind.NODE_LAGGING,
    rpc.BadAnswerError: AlarmKind.NODE_ANSWERS,
    rpc.CallRefusedError: AlarmKind.NODE_ANSWERS,
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: what, since when (seconds since 1970), and a sentence; `anchor` its number, 0 for none."""

    kind: AlarmKind
    since_s: int
    detail: str
    anchor: int = 0


class Alarms:
    """The alarms that stand; one a kind and anchor, with the time of its beginning."""

    def __init__(self) -> None:
        """Begin with none."""
        self._standing: dict[tuple[AlarmKind, int], Alarm] = {}

    def raise_(self, kind: AlarmKind, detail: str, now_s: int, anchor: int = 0) -> bool:
        """Raise or keep an alarm; returns whether it is new."""
        before = self._standing.get((kind, anchor))
        since = before.since_s if before else now_s
        self._standing[kind, anchor] = Alarm(kind, since, detail, anchor)
        return before is None

    def clear(self, kind: AlarmKind, anchor: int = 0) -> None:
        """End an alarm."""
        self._standing.pop((kind, anchor), None)

    def clear_node(self, but: AlarmKind | None = None) -> None:
        """End the alarms about the Bitcoin node, all or all but one kind."""
        for kind in set(ALARM_OF.values()) - {but}:
            self.clear(kind)

    def standing(self) -> list[Alarm]:
        """Return the alarms that stand, the oldest first."""
        return sorted(self._standing.values(), key=lambda one: (one.since_s, one.kind, one.anchor))
