"""Evidence that a validator broke the rules of the consensus engine.

Lives here: the record. May not live here: what follows from it (handlers/validators.py).

The engine's own evidence, two conflicting votes, stays in the engine's block `engine_height` or a little later; what
is recorded is what every operator's engine has verified and agreed on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError

NOBODY = (1 << 32) - 1
"""Stands for a participant where the address is no validator's of this ledger."""

_LAYOUT = Layout(
    "misbehaviour",
    uint("kind", 1),
    reserved(3),
    raw("address", 20),
    uint("engine_height", 8),
    uint("time_ms", 8),
    uint("power", 8),
    uint("total_power", 8),
)


class MisbehaviourKind(enum.IntEnum):
    """What a validator did; numbers are the engine's."""

    UNKNOWN = 0
    DUPLICATE_VOTE = 1
    LIGHT_CLIENT_ATTACK = 2


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What the engine says: who (its 20-byte address), at which of the engine's heights, and with which power."""

    kind: MisbehaviourKind
    address: bytes
    engine_height: int
    time_ms: int
    power: int
    total_power: int

    LAYOUT: ClassVar[Layout] = _LAYOUT

    def encode(self) -> bytes:
        """Return the canonical 56 bytes."""
        return _LAYOUT.encode(
            kind=self.kind,
            address=self.address,
            engine_height=self.engine_height,
            time_ms=self.time_ms,
            power=self.power,
            total_power=self.total_power,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown kind.
        """
        values = _LAYOUT.decode(data)
        try:
            values["kind"] = MisbehaviourKind(values["kind"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)
