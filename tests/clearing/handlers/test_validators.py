"""Validators block by block: what governance, licences, dates and evidence take, and who stays meanwhile."""

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
from tests.ledger_kit import CB, MINISTRY, P01, ROLES

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
@pytest.mark.parametrize("first", [True, False])
def test_a_licence_that_is_taken_ends_the_cosignature_at_once_and_the_vote_when_four_others_are_there(
    net: Core, status: LicenceStatus, *, first: bool
) -> None:
    if first:
        net.enact(appoint(FIFTH))
    net.enact(licence(CULPRIT, status))
    assert not counts(net)
    if not first:
        assert in_force(net) == FOUR
        net.enact(appoint(FIFTH))
        net.block()
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)


def test_what_governance_asks_of_the_validators_themselves_is_refused_where_it_cannot_be(
    net: Core,
) -> None:
    gone = appoint(CULPRIT, 0, bytes(32))
    assert net.propose(MINISTRY, gone).code is R.VALIDATORS_TOO_FEW
    assert net.propose(MINISTRY, gone, appoint(FIFTH)).code is R.VALIDATORS_CHANGE_TOO_GREAT
    net.enact(appoint(FIFTH))
    index = net.propose(MINISTRY, gone).index
    net.suspend(OTHER)
    # Approved when too few would be left: refused, open still, and carried once there are enough.
    assert net.approve(CB, index).code is R.VALIDATORS_TOO_FEW
    net.set_licence(OTHER, LicenceStatus.ACTIVE)
    assert net.approve(CB, index).code is R.OK
    assert in_force(net) == (CB, MINISTRY, OTHER, FIFTH)


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


def test_a_key_that_was_given_up_is_never_anothers_and_late_evidence_names_who_held_it(
    net: Core,
) -> None:
    given_up, fresh = vkey(CULPRIT), vkey(99)
    net.enact(appoint(FIFTH))
    net.enact(appoint(CULPRIT, key=fresh))
    net.enact(appoint(FIFTH, 0, bytes(32)))
    net.reload()
    # The old one of a validator in force, that of one removed, in one proposal with others, in every order.
    for key in (given_up, vkey(FIFTH)):
        for actions in (
            (appoint(OTHER, key=key),),
            (licence(P01, LicenceStatus.SUSPENDED), appoint(OTHER, key=key)),
            (appoint(OTHER, key=key), licence(P01, LicenceStatus.SUSPENDED)),
        ):
            assert net.propose(MINISTRY, *actions).code is R.VALIDATOR_KEY_TAKEN
    # Its holder may have it back.
    net.enact(appoint(CULPRIT, key=given_up))
    net.enact(appoint(CULPRIT, key=fresh))
    net.enact(appoint(FIFTH))
    assert LeafKind.MISBEHAVIOUR in votes_twice(net, CULPRIT)
    suspended = [one.participant for one in net.state.registry.appointed if one.suspended]
    assert suspended == [CULPRIT]


def test_a_key_that_found_a_holder_between_proposal_and_approval_is_refused_then(net: Core) -> None:
    key = vkey(99)
    index = net.propose(MINISTRY, appoint(FIFTH, key=key)).index
    net.enact(appoint(OTHER, key=key))
    net.enact(appoint(OTHER))
    assert net.approve(CB, index).code is R.VALIDATOR_KEY_TAKEN
    assert in_force(net) == FOUR
