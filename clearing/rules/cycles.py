"""Netting cycles: their lifecycle and their record.

Lives here: Cycle. May not live here: which obligations are in a cycle (handlers/cycles.py selects them), what netting
them gave (results.py), settlement instructions (settlement.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Self

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError
from clearing.rules.lifecycle import Lifecycle
from clearing.types import CycleState

LIFECYCLE = Lifecycle(
    "cycle",
    CycleState.OPEN,
    (
        (CycleState.OPEN, CycleState.CUT_OFF, "timetable or operator"),
        (CycleState.CUT_OFF, CycleState.NETTED, "every asset netted, instructions made"),
        (CycleState.NETTED, CycleState.FUNDED, "every pay-in confirmed"),
        (CycleState.NETTED, CycleState.FAILED, "a pay-in fails or times out"),
        (CycleState.FUNDED, CycleState.SETTLED, "every pay-out confirmed"),
        (CycleState.NETTED, CycleState.DEADLOCK, "nothing of it can be discharged"),
    ),
)


@dataclass(frozen=True, slots=True)
class Cycle:
    """One netting cycle from its cut-off on.

    cut_off_ms, netted_ms: block times, the latter 0 while a set-off is awaited. obligations: cut off, whether or not
    they were discharged. pay_ins and pay_outs: settlement instructions of each kind not yet confirmed. agent: on whose accounts
    it settles, to its end. netted_index and ended_index: log
    indexes of its CYCLE_NETTED and CYCLE_ENDED leaves, the latter 0 while it has not ended.
    """

    state: CycleState
    cut_off_ms: int
    netted_ms: int
    obligations: int
    instructions: int
    pay_ins: int
    pay_outs: int
    agent: int
    netted_index: int
    ended_index: int
    result_root: bytes

    LAYOUT: ClassVar[Layout] = Layout(
        "cycle",
        uint("state", 1),
        reserved(7),
        uint("cut_off_ms", 8),
        uint("netted_ms", 8),
        uint("obligations", 8),
        uint("instructions", 4),
        uint("pay_ins", 4),
        uint("pay_outs", 4),
        uint("agent", 4),
        uint("netted_index", 8),
        uint("ended_index", 8),
        raw("result_root", 32),
    )

    def encode(self) -> bytes:
        """Return the canonical 96 bytes."""
        return self.LAYOUT.encode(
            **{field.name: getattr(self, field.name) for field in fields(self)}
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown state.
        """
        values = cls.LAYOUT.decode(data)
        try:
            values["state"] = CycleState(values["state"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)
