"""Limits of the formats and the parameters that governance may change.

Lives here: fixed limits with their reasons, and the `Parameters` record. May not live here: rules that use them.
Relations between the limits are checked when the module is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.codec import Layout, reserved, uint
from clearing.errors import DecodeError, invariant

RULES_VERSION = 1
"""Version of the clearing rules, written into every SEAL; a change of behaviour raises it."""

LEAF_BYTES_MAX = 65_535
"""Greatest log leaf: an entry bundle gives its length two bytes. Source: C2SP tlog-tiles."""

ITEMS_PER_SUBMISSION_MAX = 50_000
"""Greatest number of obligations in one submission: 5.1 MB of records, one gRPC message."""

PAYLOAD_BYTES_MAX = 32_768
"""Greatest payload of one instruction."""

SOLUTION_BYTES_MAX = 4 << 20
"""Greatest payload of a set-off solution, within one message of replication; a pair takes one to three bytes, mostly."""

RANGES_PER_INSTRUCTION_MAX = 4_000
"""Greatest number of item ranges one instruction names: 8 bytes each, within PAYLOAD_BYTES_MAX."""

ACTIONS_PER_PROPOSAL_MAX = 64
"""Greatest number of actions one governance proposal carries."""

PARTICIPANTS_MAX = 1 << 20
"""Greatest registry number of a participant, plus one."""

ASSETS_MAX = 1 << 12
"""Greatest registry number of an asset, plus one."""

SCALE_MAX = 30
"""Greatest number of decimals an asset may have."""

CUT_OFFS_PER_DAY_MAX = 96
"""Greatest number of timetable entries: one every quarter of an hour."""

DAY_S = 86_400
"""Seconds of a day; block time has no leap seconds."""

OPEN_ITEMS_MAX = 1 << 26
"""Greatest number of open obligations: it bounds a cycle's rows, so that sums stay below 2^(128+26) < 2^191."""

SUBMITTER_OPEN_ITEMS_MAX = OPEN_ITEMS_MAX >> 1
"""Greatest limit of one submitter's open obligations that governance may set: nobody fills the book alone."""

SUBMITTER_OPEN_SUBMISSIONS_MAX = 1 << 16
"""Greatest number of open submissions of one submitter, however small: each takes about 2 KB of every replica's memory and
0.1 ms of a cut-off; larger ones make room for as many obligations as governance allows."""

EXPIRED_PER_BLOCK_MAX = 1_000
"""Most submissions of which items lapse in one block; the others follow in the next ones. Due times tend to fall together."""

LAPSE_EVERY_MS = 1_000
"""How often due times of items ask for a block of their own, at whole seconds; any other block takes along what is due."""

MINED_PARTS_MAX = 1_000
"""Most parts of declared coins that one instruction draws on, or gives back: each is a row or two."""

invariant(RANGES_PER_INSTRUCTION_MAX * 8 + 16 <= PAYLOAD_BYTES_MAX, "ranges must fit a payload")
invariant(OPEN_ITEMS_MAX.bit_length() + 128 < 191, "net positions must fit 192 bits with sign")

_LAYOUT = Layout(
    "parameters",
    uint("governance_quorum", 1),
    reserved(3),
    uint("submitter_open_items", 4),
    uint("proposal_lifetime_ms", 8),
    uint("settlement_timeout_ms", 8),
    uint("solution_timeout_ms", 8),
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What governance may set for the whole ledger.

    governance_quorum: approvals of distinct governors (ministry, central bank) that enact a proposal.
    proposal_lifetime_ms: block time after which an unfinished proposal lapses.
    settlement_timeout_ms: block time a cycle has from netting to its last confirmation before it fails.
    solution_timeout_ms: block time proposers have from cut-off to a valid solution of each set-off.
    submitter_open_items: greatest number of open obligations that one submitter has in the book; a submission counts
        whole until all its items have ended.
    """

    governance_quorum: int = 2
    proposal_lifetime_ms: int = 7 * DAY_S * 1000
    settlement_timeout_ms: int = DAY_S * 1000
    solution_timeout_ms: int = 10 * 60 * 1000
    submitter_open_items: int = 1 << 22

    WIDTH: ClassVar[int] = _LAYOUT.width

    def encode(self) -> bytes:
        """Return the canonical 32 bytes."""
        return _LAYOUT.encode(
            governance_quorum=self.governance_quorum,
            submitter_open_items=self.submitter_open_items,
            proposal_lifetime_ms=self.proposal_lifetime_ms,
            settlement_timeout_ms=self.settlement_timeout_ms,
            solution_timeout_ms=self.solution_timeout_ms,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or a parameter outside its range.
        """
        parameters = cls(**_LAYOUT.decode(data))
        # A quorum of none would enact proposals nobody approved.
        if parameters.governance_quorum < 1:
            raise DecodeError("governance_quorum must be at least 1")
        # A time-out of zero would end whatever waits in the block after it began.
        if not (
            parameters.settlement_timeout_ms
            and parameters.proposal_lifetime_ms
            and parameters.solution_timeout_ms
        ):
            raise DecodeError(
                "proposal_lifetime_ms, settlement_timeout_ms and solution_timeout_ms must be above 0"
            )
        # None would shut everybody out; with more than half of the book one would hold more than all others.
        if not 0 < parameters.submitter_open_items <= SUBMITTER_OPEN_ITEMS_MAX:
            raise DecodeError(f"submitter_open_items must be 1 to {SUBMITTER_OPEN_ITEMS_MAX}")
        return parameters
