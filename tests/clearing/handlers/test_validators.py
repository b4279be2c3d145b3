"""Validators block by block: what governance may take, what evidence and dates take, and who stays meanwhile."""

from __future__ import annotations

import pytest

from clearing import ledger
from clearing.consensus.validators import address_of
from clearing.errors import RejectCode as R
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from clearing.rules.registry import Action
from clearing.types import LicenceStatus, Role
from tests.clearing.core_kit import Core, licence
from tests.clearing.test_reject_codes import appoint, vkey
from tests.ledger_kit import CB, MINISTRY, ROLES

OPERATORS = tuple(range(len(ROLES), len(ROLES) + 3))
CAST = (*ROLES, *((f"operator-{number}", Role.OPERATOR) for number in OPERATORS))
FOUR = (CB, MINISTRY, *OPERATORS[:2])
CULPRIT, OTHER, FIFTH = OPERATORS
NAME = f"operator-{CULPRIT}"


@pytest.fixture
def net() -> Core:
    """Four validators of equal power."""
    net = Core(roles=CAST)
    net.enact(*map(appoint, FOUR))
    assert in_force(net) == FOUR
    return net


def in_force(net: Core) -> tuple[int, ...]:
    return tuple(validator.participant for validator in net.state.registry.validators)


def counts(net: Core) -> bool:
    """Return whether the culprit's cosignature counts now."""
    return net.state.registry.may_cosign(NAME, net.time_ms)


def votes_twice(net: Core, participant: int) -> list[LeafKind]:
    """Apply a block with the engine's evidence against a validator and return the kinds of its leaves."""
    address = address_of(vkey(participant))
    found = Misbehaviour(MisbehaviourKind.DUPLICATE_VOTE, address, 7, net.time_ms, 10, 40)
    net.time_ms += 1_000
    block = ledger.Block(net.state.height + 1, net.time_ms, (), (found,))
    result = ledger.apply(net.state, block)
    net.store.commit(result)
    net.state.advance(result.delta)
    return [leaf_kind(entry.leaf) for entry in result.entries]


@pytest.mark.parametrize("status", [LicenceStatus.SUSPENDED, LicenceStatus.WITHDRAWN])
def test_the_licence_of_the_fourth_is_taken_once_a_fifth_is_appointed(
    net: Core, status: LicenceStatus
) -> None:
    ends = licence(CULPRIT, status)
    assert net.propose(MINISTRY, ends).code is R.VALIDATORS_TOO_FEW
    # Both at once would change half of the power.
    assert net.propose(MINISTRY, ends, appoint(FIFTH)).code is R.VALIDATORS_CHANGE_TOO_GREAT
    assert counts(net)
    net.enact(appoint(FIFTH))
    net.enact(ends)
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)
    assert not counts(net)


def test_an_approval_is_refused_where_the_set_has_shrunk_since_the_proposal(net: Core) -> None:
    net.enact(appoint(FIFTH))
    first = net.propose(MINISTRY, licence(CULPRIT, LicenceStatus.SUSPENDED)).index
    net.suspend(OTHER)
    assert net.approve(CB, first).code is R.VALIDATORS_TOO_FEW
    assert counts(net)
    # The same proposal stays open, and is carried once there are five again.
    net.set_licence(OTHER, LicenceStatus.ACTIVE)
    assert net.approve(CB, first).code is R.OK
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)


def test_a_licence_may_not_be_taken_where_another_then_has_a_third(net: Core) -> None:
    net.enact(appoint(FIFTH, power=13))
    strong = licence(CULPRIT, LicenceStatus.SUSPENDED)
    assert net.propose(MINISTRY, strong).code is R.OK
    net.enact(appoint(FIFTH, power=19))
    assert net.propose(MINISTRY, strong).code is R.VALIDATOR_TOO_STRONG


def test_a_licence_that_ends_no_validator_is_no_matter_of_the_guards(net: Core) -> None:
    votes_twice(net, CULPRIT)
    # Three are wanted now: neither whom evidence suspended nor who never was one makes them fewer.
    net.suspend(FIFTH)
    net.suspend(CULPRIT)
    assert net.propose(MINISTRY, licence(OTHER, LicenceStatus.SUSPENDED)).code is (
        R.VALIDATORS_TOO_FEW
    )


def test_a_date_that_passes_ends_the_cosignature_and_the_vote_when_another_has_come(
    net: Core,
) -> None:
    net.set_licence(CULPRIT, LicenceStatus.ACTIVE, net.time_ms + 10_000)
    assert counts(net)
    net.time_ms += 10_000
    net.suspend(FIFTH)
    assert (counts(net), in_force(net)) == (False, FOUR)
    net.set_licence(FIFTH, LicenceStatus.ACTIVE)
    net.enact(appoint(FIFTH))
    net.block()
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)


@pytest.mark.parametrize("first", [True, False])
def test_evidence_removes_one_of_five_at_once_and_one_of_four_when_a_fifth_has_come(
    net: Core, *, first: bool
) -> None:
    join: list[Action] = [appoint(FIFTH)]
    if first:
        net.enact(*join)
    kinds = votes_twice(net, CULPRIT)
    moved = [LeafKind.VALIDATORS] if first else []
    assert kinds == [LeafKind.MISBEHAVIOUR, *moved, LeafKind.SEAL]
    assert not counts(net)
    if not first:
        assert in_force(net) == FOUR
        net.enact(*join)
        net.block()
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)
