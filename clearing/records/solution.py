"""A set-off solution: what a proposer says each pair loses, and the potentials that prove it the greatest.

Lives here: the bytes of a SOLVE payload and its parsed arrays. May not live here: whether it holds
(handlers/solutions.py, by netting/certificate.py), how it was found.

The payload: head (16 bytes), pairs (32 each), potentials (12 each). Potentials that are zero are left out.
Source: own design; a pair instead of a row keeps it small, since parallel obligations lose in queue order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from clearing.codec import Layout, reserved, sint, uint
from clearing.errors import DecodeError
from clearing.netting import wide
from clearing.netting.pairs import PairTotals

LAYOUT = Layout(
    "set-off solution",
    uint("cycle", 4),
    uint("asset", 2),
    reserved(2),
    uint("pairs", 4),
    uint("potentials", 4),
)
PAIR_LAYOUT = Layout(
    "discharged pair", uint("debtor", 4), uint("creditor", 4), uint("amount_units", 24)
)
POTENTIAL_LAYOUT = Layout("potential", uint("participant", 4), sint("potential", 8))

_PAIR = np.dtype([("debtor", "<u4"), ("creditor", "<u4"), ("amount", "<u8", 3)])
_POTENTIAL = np.dtype([("participant", "<u4"), ("potential", "<i8")])


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A proposer's set-off of one asset in one cycle.

    holders: uint32[k], ascending, participants whose potential is not zero; potentials: int64[k].
    """

    cycle: int
    asset: int
    pairs: PairTotals
    holders: npt.NDArray[np.uint32]
    potentials: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, cycle: int, asset: int, pairs: PairTotals, potentials: npt.NDArray[np.int64]
    ) -> Self:
        """Build a solution from potentials by registry number."""
        holders = np.flatnonzero(potentials)
        return cls(cycle, asset, pairs, holders.astype(np.uint32), potentials[holders])

    def all_potentials(self, participants: int) -> npt.NDArray[np.int64]:
        """Return one potential a participant, int64[participants].

        Raises: DecodeError: a holder is not below `participants`.
        """
        if len(self.holders) and int(self.holders[-1]) >= participants:
            raise DecodeError(f"participant {int(self.holders[-1])} is not registered")
        potentials = np.zeros(participants, np.int64)
        potentials[self.holders] = self.potentials
        return potentials

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = LAYOUT.encode(
            cycle=self.cycle,
            asset=self.asset,
            pairs=len(self.pairs.debtor),
            potentials=len(self.holders),
        )
        pairs = np.zeros(len(self.pairs.debtor), _PAIR)
        for name in ("debtor", "creditor", "amount"):
            pairs[name] = getattr(self.pairs, name)
        potentials = np.zeros(len(self.holders), _POTENTIAL)
        potentials["participant"], potentials["potential"] = self.holders, self.potentials
        return head + pairs.tobytes() + potentials.tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length; pairs or holders not ascending, each once; an amount or potential of zero,
            or an amount that is negative as 192 bits.
        """
        head = LAYOUT.decode(data[: LAYOUT.width])
        end = LAYOUT.width + head["pairs"] * _PAIR.itemsize
        if len(data) != end + head["potentials"] * _POTENTIAL.itemsize:
            raise DecodeError("the length of a set-off solution does not match its counts")
        pairs = np.frombuffer(data, _PAIR, head["pairs"], LAYOUT.width)
        entries = np.frombuffer(data, _POTENTIAL, head["potentials"], end)
        totals = PairTotals(
            pairs["debtor"].astype(np.uint32),
            pairs["creditor"].astype(np.uint32),
            pairs["amount"].astype(np.uint64),
        )
        holders = entries["participant"].astype(np.uint32)
        potentials = entries["potential"].astype(np.int64)
        keys = totals.keys
        if (keys[1:] <= keys[:-1]).any() or (holders[1:] <= holders[:-1]).any():
            raise DecodeError("pairs and potentials must ascend, each once")
        if (wide.sign(totals.amount) <= 0).any() or (potentials == 0).any():
            raise DecodeError("pairs that lose nothing and potentials of zero are left out")
        return cls(head["cycle"], head["asset"], totals, holders, potentials)
