"""Transfers that settle net positions: through the settlement agent, or at most n-1 between participants.

Lives here: both ways, in fixed order. May not live here: the positions themselves, or instructions and accounts.
Invariants kept: after the transfers every participant has paid or received exactly its position; each transfer is
above zero; the order follows participant numbers and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import InvalidColumns
from clearing.netting.engine import DEFAULT, Engine, jit

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]

AGENT: Final = -1
_ZERO: Final = np.uint64(0)


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """Payments in the order in which they are to be made.

    payer, payee: int64[k], participant numbers, or AGENT. amount: wide array, above zero.
    """

    payer: I64
    payee: I64
    amount: U64


def through_agent(net: U64) -> Transfers:
    """Settle positions through the settlement agent: all pay-ins, then all pay-outs, each by participant number.

    net: wide array of positions that add up to zero; + receives, - pays.

    Returns: one transfer for each position that is not zero; the agent ends at zero.
    Raises: InvalidColumns: the positions do not add up to zero.
    """
    _check_balanced(net)
    sign = wide.sign(net)
    payers, payees = np.flatnonzero(sign < 0), np.flatnonzero(sign > 0)
    return Transfers(
        np.concatenate([payers, np.full(payees.shape[0], AGENT)]),
        np.concatenate([np.full(payers.shape[0], AGENT), payees]),
        np.concatenate([wide.negate(net[payers]), net[payees]]),
    )


def pairwise(net: U64, *, engine: Engine = DEFAULT) -> Transfers:
    """Settle positions by transfers between participants, at most one fewer than there are positions.

    net: wide array of positions that add up to zero; + receives, - pays.

    The lowest payer that still owes pays the lowest payee that is still owed, the lesser of both amounts.
    The fewest possible transfers would be fewer at times; finding them is NP-hard.

    Returns: the transfers, payers and payees each in order of number.
    Raises: InvalidColumns: the positions do not add up to zero.
    """
    _check_balanced(net)
    sign = wide.sign(net)
    payers, payees = np.flatnonzero(sign < 0), np.flatnonzero(sign > 0)
    match = engine.choose(_match, _match_python)
    from_place, to_place, amount = match(wide.negate(net[payers]), net[payees])
    return Transfers(payers[from_place], payees[to_place], amount)


def _check_balanced(net: U64) -> None:
    if wide.total(net) != 0:
        raise InvalidColumns("the positions do not add up to zero: give all of one asset")


def _match_python(owes: U64, owed: U64) -> tuple[I64, I64, U64]:
    """Match with Python integers what `_match` matches."""
    left_from, left_to = wide.to_ints(owes), wide.to_ints(owed)
    found: list[tuple[int, int, int]] = []
    payer, payee = 0, 0
    while payer < len(left_from) and payee < len(left_to):
        amount = min(left_from[payer], left_to[payee])
        found.append((payer, payee, amount))
        left_from[payer] -= amount
        left_to[payee] -= amount
        payer += left_from[payer] == 0
        payee += left_to[payee] == 0
    places = np.array([pair[:2] for pair in found], np.int64).reshape(-1, 2)
    return places[:, 0].copy(), places[:, 1].copy(), wide.from_ints(pair[2] for pair in found)


@jit
def _match(owes: U64, owed: U64) -> tuple[I64, I64, U64]:
    """Match two lists of amounts with equal totals, from the front.

    Returns: (place in owes, place in owed, amount) of each transfer.
    """
    most = owes.shape[0] + owed.shape[0]
    payers = np.empty(most, np.int64)
    payees = np.empty(most, np.int64)
    amounts = np.empty((most, 3), np.uint64)
    found, payer, payee = 0, 0, 0
    while payer < owes.shape[0] and payee < owed.shape[0]:
        payer_first = True
        for limb in range(3):
            if owes[payer, limb] != owed[payee, limb]:
                payer_first = owes[payer, limb] < owed[payee, limb]
        payers[found], payees[found] = payer, payee
        borrow = _ZERO
        rest = _ZERO
        for limb in range(3):
            less = owes[payer, limb] if payer_first else owed[payee, limb]
            more = owed[payee, limb] if payer_first else owes[payer, limb]
            amounts[found, limb] = less
            left = more - less - borrow
            borrow = np.uint64(more < less) | (np.uint64(more == less) & borrow)
            rest |= left
            if payer_first:
                owed[payee, limb] = left
            else:
                owes[payer, limb] = left
        found += 1
        if payer_first or rest == _ZERO:
            payer += 1
        if not payer_first or rest == _ZERO:
            payee += 1
    return payers[:found].copy(), payees[:found].copy(), amounts[:found].copy()
