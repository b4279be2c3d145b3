"""The methods of netting by definition, over lists of obligations and Python integers.

Lives here: the greatest set of gridlock, a set-off told by pairs, and whether a set-off is the greatest. It shares nothing with
clearing/netting: slow searches, one step at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.oracle_facts import Obligation

Losses = list[tuple[Obligation, int]]


def greatest_in_queue_order(
    queued: Sequence[Obligation], allowed: Sequence[int]
) -> list[Obligation]:
    """Return what settles: from all of it, the last of anybody who would pay too much is taken out, one after the other."""
    stays = list(queued)
    while True:
        nets = [0] * len(allowed)
        for each in stays:
            nets[each.debtor] -= each.rest
            nets[each.creditor] += each.rest
        broke = next((at for at, net in enumerate(nets) if -net > allowed[at]), None)
        if broke is None:
            return stays
        last = max(at for at, each in enumerate(stays) if each.debtor == broke)
        del stays[last]


def loss_by_pairs(
    held: Sequence[Obligation], pairs: Sequence[tuple[int, int, int]], allowed: Sequence[int]
) -> Losses | None:
    """Return what each obligation loses when pairs lose so much, oldest first; None where that may not be."""
    left = {(debtor, creditor): amount for debtor, creditor, amount in pairs}
    losses: Losses = []
    nets = [0] * len(allowed)
    for each in held:
        pair = (each.debtor, each.creditor)
        loses = min(each.rest, left.get(pair, 0))
        if pair in left:
            left[pair] -= loses
        losses.append((each, loses))
        nets[each.debtor] -= loses
        nets[each.creditor] += loses
    if any(left.values()) or any(-net > most for net, most in zip(nets, allowed, strict=True)):
        return None
    return losses


def is_greatest(losses: Losses, allowed: Sequence[int]) -> bool:
    """Return whether no change of the losses discharges more: no circle of changes gains.

    Node `money` stands for all balances: who is paid gives there, who pays takes from there, within what it is allowed.
    """
    money = len(allowed)
    nets = [0] * len(allowed)
    for each, loses in losses:
        nets[each.debtor] -= loses
        nets[each.creditor] += loses
    arcs: list[tuple[int, int, int]] = []
    for each, loses in losses:
        if loses < each.rest:
            arcs.append((each.debtor, each.creditor, 1))
        if loses:
            arcs.append((each.creditor, each.debtor, -1))
    for party, net in enumerate(nets):
        arcs.append((party, money, 0))
        if -net < allowed[party]:
            arcs.append((money, party, 0))
    gains = [0] * (money + 1)
    for _ in range(money + 1):
        changed = False
        for origin, target, gain in arcs:
            if gains[origin] + gain > gains[target]:
                gains[target] = gains[origin] + gain
                changed = True
        if not changed:
            return True
    return False
