"""Units, numbers and small enumerations that every part of the clearing core shares.

Lives here: names for quantities and the enumerations that are written into records. May not live here:
behaviour, limits (params.py), formats (codec.py). Enumeration values are stable and never reused.
"""

from __future__ import annotations

import enum
from typing import NewType

ParticipantNo = NewType("ParticipantNo", int)
"""Registry number of a participant, counted from 0 in order of enactment; never reused."""

AssetNo = NewType("AssetNo", int)
"""Registry number of an asset, counted from 0 in order of enactment; never reused."""

LogIndex = NewType("LogIndex", int)
"""Index of a leaf in the log, counted from 0."""

CycleNo = NewType("CycleNo", int)
"""Number of a netting cycle, counted from 1; 0 means none."""

TimeMs = NewType("TimeMs", int)
"""Milliseconds since 1970-01-01T00:00:00Z, of a block unless said otherwise; 0 means none."""

AMOUNT_MAX = (1 << 128) - 1
"""Greatest amount of one obligation, in the asset's smallest unit."""


class Role(enum.IntEnum):
    """What a participant is licensed as; one role a participant."""

    MINISTRY = 1
    CENTRAL_BANK = 2
    OPERATOR = 3
    BANK = 4
    EXCHANGE = 5
    MINER = 6
    REGULATOR = 7


SUPERVISORS = (Role.MINISTRY, Role.CENTRAL_BANK, Role.REGULATOR)
"""Roles that may see every obligation, position and instruction."""

OBLIGORS = (Role.CENTRAL_BANK, Role.BANK, Role.EXCHANGE, Role.MINER)
"""Roles that may owe and be owed obligations."""


class LicenceStatus(enum.IntEnum):
    """Standing of a licence; whether it has expired is a question of time, not of status."""

    ACTIVE = 1
    SUSPENDED = 2
    WITHDRAWN = 3


class ObligationKind(enum.IntEnum):
    """Why an obligation exists; recorded, and of no influence on netting."""

    TRADE = 1
    FEE = 2
    LOAN = 3
    MARGIN = 4
    CORRECTION = 5


class ObligationState(enum.IntEnum):
    """Where an obligation stands; the moves between the states are `rules.obligations.LIFECYCLE`."""

    PROPOSED = 1
    AFFIRMED = 2
    LOCKED = 3
    PARTLY_DISCHARGED = 4
    SETTLED = 5
    REJECTED = 6
    RESCINDED = 7
    EXPIRED = 8


class CycleState(enum.IntEnum):
    """Where a netting cycle stands; the moves are `rules.cycles.LIFECYCLE`."""

    OPEN = 1
    CUT_OFF = 2
    NETTED = 3
    FUNDED = 4
    SETTLED = 5
    FAILED = 6
    DEADLOCK = 7


class InstructionState(enum.IntEnum):
    """Where a settlement instruction stands; the moves are `rules.settlement.LIFECYCLE`."""

    PENDING = 1
    EVIDENCED = 2
    CONFIRMED = 3
    FAILED = 4
    SUPERSEDED = 5


class SettlementKind(enum.IntEnum):
    """Which way a settlement instruction moves value between a participant and the settlement agent."""

    PAY_IN = 1
    PAY_OUT = 2
    REFUND = 3


class NettingMethod(enum.IntEnum):
    """How an asset's obligations are netted in a cycle; governed per asset."""

    POSITIONS = 1
    GRIDLOCK = 2
    SETOFF = 3


class ResultOutcome(enum.IntEnum):
    """What became of netting one asset in a cycle."""

    NETTED = 1
    AWAITING = 2
    """Cut off for set-off; a proposer's solution is awaited."""
    UNSOLVED = 3
    """No valid solution came in time: nothing was discharged."""
