"""A set-off solution: what a proposer says each pair loses, and the potentials that prove it the greatest.

Lives here: the bytes of a SOLVE payload and its parsed arrays. May not live here: whether it holds
(handlers/solutions.py, by netting/certificate.py), how it was found.

The payload is a head and columns of numbers in seven bits a byte (varints.py): for each pair the step from the one before
it, doubled, plus one where only a part of what it owes is lost; the amounts of those, in limbs of 64 bits; for each
potential the step from the participant before it; the potentials, zigzag. A pair that loses all that it owes says no amount,
and potentials that are zero are left out. A pair in a dense book is one byte.
Source: own design; a pair instead of a row keeps it small, since parallel obligations lose in queue order, and of the pairs that
lose anything most lose all: what holds them back is their own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from clearing.codec import Layout, reserved, uint
from clearing.errors import DecodeError
from clearing.netting import wide
from clearing.netting.pairs import PairTotals
from clearing.params import PARTICIPANTS_MAX
from clearing.records import varints

LAYOUT = Layout(
    "set-off solution",
    uint("cycle", 4),
    uint("asset", 2),
    reserved(2),
    uint("pairs", 4),
    uint("potentials", 4),
)
_ID_BITS: Final = np.uint64(PARTICIPANTS_MAX.bit_length() - 1)
_ID: Final = np.uint64(PARTICIPANTS_MAX - 1)
_ONE: Final = np.uint64(1)
_COUNT_MAX: Final = 1 << 23


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
        pairs = self.pairs
        key = pairs.debtor.astype(np.uint64) << _ID_BITS | pairs.creditor.astype(np.uint64)
        part = pairs.amount.any(axis=1)
        amount = pairs.amount[part]
        signed = self.potentials
        zigzag = (signed << 1 ^ signed >> 63).view(np.uint64)
        columns = (
            _steps(key) << _ONE | part.astype(np.uint64),
            *(np.ascontiguousarray(amount[:, limb]) for limb in range(wide.LIMBS)),
            _steps(self.holders.astype(np.uint64)),
            zigzag,
        )
        return head + b"".join(map(varints.encode, columns))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or form; a participant beyond any register; an amount of a part, or a
            potential, that is zero, or an amount that is negative as 192 bits.
        """
        head = LAYOUT.decode(data[: LAYOUT.width])
        rest = np.frombuffer(data, np.uint8)[LAYOUT.width :]
        step, rest = varints.decode(rest, head["pairs"])
        part = (step & _ONE).astype(np.bool_)
        key = _from_steps(step >> _ONE, int(_ID_BITS) * 2)
        amount = wide.zeros(len(key))
        for limb in range(wide.LIMBS):
            amount[part, limb], rest = varints.decode(rest, int(np.count_nonzero(part)))
        step, rest = varints.decode(rest, head["potentials"])
        holders = _from_steps(step, int(_ID_BITS))
        zigzag, rest = varints.decode(rest, head["potentials"])
        if len(rest):
            raise DecodeError("the length of a set-off solution does not match its counts")
        if (wide.sign(amount[part]) <= 0).any() or (zigzag == 0).any():
            raise DecodeError("parts of nothing and potentials of zero are left out")
        totals = PairTotals(
            (key >> _ID_BITS).astype(np.uint32), (key & _ID).astype(np.uint32), amount
        )
        potentials = (zigzag >> _ONE).view(np.int64) ^ -(zigzag & _ONE).view(np.int64)
        return cls(head["cycle"], head["asset"], totals, holders.astype(np.uint32), potentials)


def _steps(ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return how far each number is from the next that could follow the one before it."""
    steps = ascending.copy()
    steps[1:] -= ascending[:-1] + _ONE
    return steps


def _from_steps(steps: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    """Undo `_steps`.

    Raises: DecodeError: a number is not below 2^bits.
    """
    # Each is below 2^bits, so that no sum of fewer than 2^23 of them wraps around.
    limit = np.uint64(1 << bits)
    if len(steps) > _COUNT_MAX or (steps >= limit).any():
        raise DecodeError("a participant is beyond any register")
    numbers = np.cumsum(steps + _ONE, dtype=np.uint64) - _ONE
    if len(numbers) and numbers[-1] >= limit:
        raise DecodeError("a participant is beyond any register")
    return numbers
