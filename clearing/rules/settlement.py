"""Settlement instructions: pay-ins to and pay-outs from the settlement agent, and refunds when a cycle fails.

Lives here: the record of an instruction, its lifecycle, who may move it, and how a cycle's results become
instructions. May not live here: the cycle's own lifecycle (cycles.py) or how value moves outside the ledger.

Invariants: per cycle and asset the pay-ins sum to the pay-outs; numbers start at 0 and follow asset, then participant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.codec import Layout, raw, uint
from clearing.errors import DecodeError
from clearing.rules.lifecycle import Lifecycle
from clearing.types import InstructionState, SettlementKind

LIFECYCLE = Lifecycle(
    "settlement instruction",
    InstructionState.PENDING,
    (
        (InstructionState.PENDING, InstructionState.EVIDENCED, "payer or agent shows evidence"),
        (InstructionState.EVIDENCED, InstructionState.CONFIRMED, "payee or agent confirms"),
        (InstructionState.PENDING, InstructionState.FAILED, "payer or agent gives up"),
        (InstructionState.EVIDENCED, InstructionState.FAILED, "agent finds the evidence void"),
        (InstructionState.PENDING, InstructionState.SUPERSEDED, "the cycle fails"),
        (InstructionState.EVIDENCED, InstructionState.PENDING, "the Bitcoin chain reorganises"),
    ),
)


@dataclass(frozen=True, slots=True)
class SettlementInstruction:
    """One movement of value between a participant and the settlement agent, of `amount_units` in one asset.

    evidence_hash: SHA-256 of the evidence shown (a txid, a statement), zero before. moved_ms: block time of the last move.
    """

    participant: int
    asset: int
    kind: SettlementKind
    state: InstructionState
    amount_units: int
    evidence_hash: bytes = bytes(32)
    moved_ms: int = 0

    LAYOUT: ClassVar[Layout] = Layout(
        "settlement instruction",
        uint("participant", 4),
        uint("asset", 2),
        uint("kind", 1),
        uint("state", 1),
        uint("amount_units", 24),
        raw("evidence_hash", 32),
        uint("moved_ms", 8),
    )

    def encode(self) -> bytes:
        """Return the canonical 72 bytes."""
        return b"".join(
            (
                self.participant.to_bytes(4, "little"),
                self.asset.to_bytes(2, "little"),
                bytes((self.kind, self.state)),
                self.amount_units.to_bytes(24, "little"),
                self.evidence_hash,
                self.moved_ms.to_bytes(8, "little"),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or an unknown kind or state.
        """
        values = cls.LAYOUT.decode(data)
        try:
            values["kind"] = SettlementKind(values["kind"])
            values["state"] = InstructionState(values["state"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)

    def payer(self, agent: int) -> int:
        """Return who pays: the participant for a pay-in, else the settlement agent."""
        return self.participant if self.kind is SettlementKind.PAY_IN else agent

    def payee(self, agent: int) -> int:
        """Return who is paid: the settlement agent for a pay-in, else the participant."""
        return agent if self.kind is SettlementKind.PAY_IN else self.participant


def instructions_of(
    nets: Sequence[tuple[int, int, int]], time_ms: int
) -> tuple[SettlementInstruction, ...]:
    """Return the instructions of a cycle from its (asset, participant, net) rows, in that order; zero nets need none."""
    return tuple(
        SettlementInstruction(
            participant=participant,
            asset=asset,
            kind=SettlementKind.PAY_IN if net < 0 else SettlementKind.PAY_OUT,
            state=InstructionState.PENDING,
            amount_units=abs(net),
            moved_ms=time_ms,
        )
        for asset, participant, net in nets
        if net
    )


def may_evidence(instruction: SettlementInstruction, actor: int, agent: int) -> bool:
    """Return whether `actor` may show evidence: who pays, or the settlement agent."""
    return actor in (instruction.payer(agent), agent)


def may_confirm(instruction: SettlementInstruction, actor: int, agent: int) -> bool:
    """Return whether `actor` may confirm: who is paid, or the settlement agent."""
    return actor in (instruction.payee(agent), agent)


def may_fail(instruction: SettlementInstruction, actor: int, agent: int) -> bool:
    """Return whether `actor` may give up: who pays, while nothing is evidenced; the settlement agent always.

    A pay-out or refund cannot fail: the agent holds the value and owes it until it is paid.
    """
    if instruction.kind is not SettlementKind.PAY_IN:
        return False
    is_payer = actor == instruction.participant and instruction.state is InstructionState.PENDING
    return is_payer or actor == agent
