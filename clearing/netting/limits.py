"""What each participant may owe on balance: its liquidity and its net debit cap.

Lives here: the limits, which of the two binds, and how much is missing. May not live here: any method that
settles within them.
Invariant kept: liquidity and cap are two limits with two reasons, even where a method uses only the lesser.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import InvalidColumns

U64: TypeAlias = NDArray[np.uint64]
U8: TypeAlias = NDArray[np.uint8]
I64: TypeAlias = NDArray[np.int64]


class Reason(enum.IntEnum):
    """Why an obligation, or a participant, is not settled; the numbers are part of hashed results."""

    LIQUIDITY = 1
    CAP = 2
    COUNTERCLAIM = 3
    CYCLE = 4
    EXCLUDED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """The greatest net debit each participant may reach in one asset.

    liquidity, cap: wide arrays uint64[participants, 3] in [0, 2^128); an entry of cap that is wide.MAX is no cap.
    """

    liquidity: U64
    cap: U64

    @classmethod
    def of(
        cls, participants: int, liquidity: Mapping[int, int], caps: Mapping[int, int] | None = None
    ) -> Limits:
        """Build limits from amounts by participant number; absent liquidity is zero, an absent cap is none.

        Raises: InvalidColumns: an unknown participant, or an amount outside 0..2^128-1.
        """
        caps = {} if caps is None else caps
        for name, given in (("liquidity", liquidity), ("cap", caps)):
            for participant, amount in given.items():
                if not 0 <= participant < participants:
                    raise InvalidColumns(f"{name} of participant {participant}: no such number")
                if not 0 <= amount < 1 << 128:
                    raise InvalidColumns(f"{name} of participant {participant}: give 0 to 2^128-1")
        return cls(
            wide.from_ints(liquidity.get(number, 0) for number in range(participants)),
            wide.from_ints(caps.get(number, wide.MAX) for number in range(participants)),
        )

    @property
    def participants(self) -> int:
        """Number of participants."""
        return int(self.liquidity.shape[0])

    def allowed(self) -> U64:
        """The lesser of liquidity and cap, by participant, as a wide array."""
        return minimum(self.liquidity, self.cap)

    def short(self, participant: NDArray[np.integer], debit: U64) -> tuple[U8, U64]:
        """Say which limit stands against net debits that exceed the lesser one, and by how much.

        participant: integers[k]. debit: wide array of k net debits.

        Returns: (reason, missing): Reason numbers uint8[k], LIQUIDITY where both limits are equal, and the
        wide amounts by which the lesser limit would have to grow.
        """
        liquidity, cap = self.liquidity[participant], self.cap[participant]
        capped = wide.compare(cap, liquidity) < 0
        reason = np.where(capped, Reason.CAP, Reason.LIQUIDITY).astype(np.uint8)
        return reason, wide.subtract(debit, np.where(capped[:, np.newaxis], cap, liquidity))

    def breached(self, net: U64) -> tuple[I64, U8, U64]:
        """Find the participants whose positions go beyond their limits.

        net: wide array of net positions, by participant number.

        Returns: (participant, reason, missing), in order of number; as `short`.
        """
        debit = wide.negate(net)
        found = np.flatnonzero(wide.compare(debit, self.allowed()) > 0)
        return (found, *self.short(found, debit[found]))


def minimum(a: U64, b: U64) -> U64:
    """Take the lesser of each pair of wide entries; either side may have one entry, used for all."""
    return np.where((wide.compare(a, b) < 0)[:, np.newaxis], a, b)
