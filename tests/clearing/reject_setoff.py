"""Solutions of set-offs that must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clearing.errors import RejectCode as R
from clearing.netting import wide
from clearing.netting.pairs import PairTotals
from clearing.records.solution import Solution
from clearing.records.transaction import Transaction
from clearing.types import NettingMethod
from tests.clearing.core_kit import Core
from tests.clearing.reject_kit import case
from tests.ledger_kit import BTC, CB, ETH, P01, P02, P03, item


def awaiting(net: Core) -> Core:
    """Have a cycle wait for the set-off of a circle of three and of a bilateral pair."""
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    index = net.submit(
        P01, item(P01, P02, 9), item(P03, P01, 6), item(P02, P01, 4), item(P01, P02, 1)
    )
    other = net.submit(P02, item(P02, P03, 7))
    net.affirm(P02, index)
    net.affirm(P03, index)
    net.affirm(P03, other)
    net.run_cycle()
    return net


def pairs(*losses: tuple[int, int, int]) -> PairTotals:
    """Return what pairs lose, from (debtor, creditor, amount) in order."""
    debtors, creditors, amounts = zip(*losses, strict=True)
    return PairTotals(
        np.array(debtors, np.uint32), np.array(creditors, np.uint32), wide.from_ints(amounts)
    )


def saying(net: Core, *losses: tuple[int, int, int]) -> Transaction:
    """Return a signed solution with the right potentials and other losses."""
    return net.proposal_of(replace(net.solution(), pairs=pairs(*losses)))


@case(R.MALFORMED)
def solution_with_pairs_out_of_order(net: Core) -> Transaction:
    return saying(awaiting(net), (P02, P01, 4), (P01, P02, 4))


@case(R.SOLUTION_INVALID)
def a_pair_that_loses_all_that_it_owes_for_nothing(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 0))


@case(R.SOLUTION_INVALID)
def a_pair_that_owes_nothing_loses_all_of_it(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 4), (P01, P03, 0), (P02, P01, 4))


@case(R.BAD_SIGNATURE)
def solution_signed_by_the_participant(net: Core) -> Transaction:
    return awaiting(net).proposal_of(net.solution(), key=net.key(CB))


@case(R.ROLE_NOT_ALLOWED)
def solution_of_a_bank(net: Core) -> Transaction:
    net.set_node_key(P01)
    return awaiting(net).proposal_of(net.solution(), actor=P01)


@case(R.NO_SOLUTION_AWAITED)
def solution_for_no_cycle(net: Core) -> Transaction:
    net.set_node_key()
    return net.proposal_of(Solution.of(1, BTC, pairs((P01, P02, 1)), np.zeros(3, np.int64)))


@case(R.NO_SOLUTION_AWAITED)
def solution_of_another_asset(net: Core) -> Transaction:
    return awaiting(net).proposal_of(replace(net.solution(), asset=ETH))


@case(R.NO_SOLUTION_AWAITED)
def a_second_solution(net: Core) -> Transaction:
    solution = awaiting(net).solution()
    assert net.solve(solution).code is R.OK
    return net.proposal_of(solution)


@case(R.SOLUTION_INVALID)
def a_pair_that_loses_more_than_it_owes(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 11), (P02, P01, 5), (P02, P03, 6), (P03, P01, 6))


@case(R.SOLUTION_INVALID)
def a_pair_that_owes_nothing(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 4), (P01, P03, 1), (P02, P01, 4))


@case(R.SOLUTION_INVALID)
def money_that_nobody_pledged(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 10), (P02, P01, 4))


@case(R.SOLUTION_INVALID)
def a_potential_of_nobody(net: Core) -> Transaction:
    stranger = np.array([999_999], np.uint32)
    return awaiting(net).proposal_of(
        replace(net.solution(), holders=stranger, potentials=np.array([1], np.int64))
    )


@case(R.SOLUTION_NOT_OPTIMAL)
def a_smaller_set_off(net: Core) -> Transaction:
    return saying(awaiting(net), (P01, P02, 4), (P02, P01, 4))


@case(R.SOLUTION_NOT_OPTIMAL)
def the_greatest_set_off_with_potentials_that_do_not_prove_it(net: Core) -> Transaction:
    holders, potentials = np.array([P01], np.uint32), np.array([5], np.int64)
    return awaiting(net).proposal_of(
        replace(net.solution(), holders=holders, potentials=potentials)
    )
