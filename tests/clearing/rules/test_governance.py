"""Actions as bytes, proposals, approvals, and that governance cannot strand itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, RejectCode
from clearing.params import ACTIONS_PER_PROPOSAL_MAX, Parameters
from clearing.rules.governance import Proposal, decode_actions, encode_actions, resolve
from clearing.rules.registry import Action, ActionKind, Cap, Registry
from clearing.types import LicenceStatus, Role
from tests import ledger_kit as kit

PARTIES = tuple(kit.participant(name, role, at) for at, (name, role) in enumerate(kit.ROLES))
REGISTER = Registry(PARTIES, (), Parameters(2, 1000, 1000))
CAP = Action(ActionKind.SET_CAP, Cap(2, 0, 5))


def _rotate(participant: int, key: int) -> Action:
    subject = {"participant": participant, "public_key": bytes([key]) * 32}
    return Action(ActionKind.ROTATE_KEY, subject)


def _licence(participant: int, status: LicenceStatus, expiry_ms: int = 0) -> Action:
    values = {"participant": participant, "status": status, "licence_no": ""}
    return Action(ActionKind.SET_LICENCE, {**values, "licence_expiry_ms": expiry_ms})


@given(
    st.lists(st.sampled_from([CAP, _rotate(2, 1), _licence(3, LicenceStatus.ACTIVE)]), min_size=1)
)
def test_lists_of_actions_come_back_in_order(actions: list[Action]) -> None:
    encoded = encode_actions(actions)
    assert decode_actions(encoded) == tuple(actions)
    assert encoded == b"".join(encode_actions([action]) for action in actions)


def test_the_number_of_actions_is_limited() -> None:
    most = encode_actions([CAP] * ACTIONS_PER_PROPOSAL_MAX)
    assert len(decode_actions(most)) == ACTIONS_PER_PROPOSAL_MAX
    with pytest.raises(DecodeError, match="at most 64 actions"):
        decode_actions(most + encode_actions([CAP]))
    assert len(decode_actions(most * 2, 128)) == 128


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "at least one action"),
        ("00000000", "action kind 0 is unknown"),
        ("63000000", "action kind 99 is unknown"),
        ("03000000", "rotate key is 36 bytes, got 0"),
        ("03002400", "cut short"),
        ("03010000", "reserved bytes"),
        ("030024", "action is 4 bytes, got 3"),
        ("08001800" + "02000000 0000 00 00 01" + "00" * 15, "a removed cap carries no amount"),
        ("08001800" + "02000000 0000 02 00" + "00" * 16, "a removed cap carries no amount"),
        ("06002000" + "00" * 32, "governance_quorum must be at least 1"),
    ],
)
def test_what_is_no_list_of_actions_is_refused(data: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        decode_actions(bytes.fromhex(data))


@pytest.mark.parametrize(
    "data",
    [
        "00" * 12 + "00000000",  # approvals without a count
        "00" * 8 + "00 00 0200" + "00000000",  # one approval of two
        "00" * 8 + "02 00 0000",  # enacted twice
    ],
)
def test_what_is_no_proposal_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        Proposal.decode(bytes.fromhex(data))


def test_actions_are_resolved_in_order_and_all_or_none() -> None:
    changed, caps, code = resolve(REGISTER, (_rotate(2, 1), _rotate(3, 2)), 0)
    assert (code, caps) == (0, ())
    assert [changed.participants[at].public_key[0] for at in (2, 3)] == [1, 2]
    # the second action sees what the first did
    assert resolve(REGISTER, (_rotate(2, 1), _rotate(3, 1)), 0) == (
        REGISTER,
        (),
        RejectCode.ACTION_DUPLICATE,
    )
    # the first refusal decides, also where a later one has a lower number
    both = (_licence(2, LicenceStatus.WITHDRAWN), _licence(2, LicenceStatus.ACTIVE), _rotate(99, 1))
    assert resolve(REGISTER, both, 0)[2] is RejectCode.ACTION_VALUE


def test_caps_are_handed_back_in_order() -> None:
    add_asset = decode_actions(kit.genesis_actions(), 1 << 20)[len(PARTIES)]
    register, _ = REGISTER.with_action(add_asset)
    first, second = Cap(2, 0, 5), Cap(2, 0, None)
    actions = (Action(ActionKind.SET_CAP, first), Action(ActionKind.SET_CAP, second))
    assert resolve(register, actions, 0) == (register, (first, second), RejectCode.OK)


def test_genesis_actions_come_back() -> None:
    actions = decode_actions(kit.genesis_actions(), 1 << 20)
    assert encode_actions(actions) == kit.genesis_actions()
    assert tuple(action.subject for action in actions[: len(PARTIES)]) == PARTIES


@pytest.mark.parametrize(
    "action",
    [
        _licence(kit.CB, LicenceStatus.SUSPENDED),
        _licence(kit.MINISTRY, LicenceStatus.WITHDRAWN),
        _licence(kit.MINISTRY, LicenceStatus.ACTIVE, 500),
        Action(ActionKind.SET_PARAMETERS, Parameters(3, 1000, 1000)),
    ],
)
def test_governance_may_not_strand_itself(action: Action) -> None:
    assert resolve(REGISTER, (action,), 500) == (REGISTER, (), RejectCode.GOVERNANCE_STRANDED)


def test_a_lower_quorum_or_another_governor_makes_room() -> None:
    suspend = _licence(kit.CB, LicenceStatus.SUSPENDED)
    lower = Action(ActionKind.SET_PARAMETERS, Parameters(1, 1000, 1000))
    second_ministry = kit.participant("ministry-2", Role.MINISTRY, 50)
    add = Action(ActionKind.ADD_PARTICIPANT, second_ministry)
    assert resolve(REGISTER, (suspend, lower), 0)[2] is RejectCode.OK
    assert resolve(REGISTER, (suspend, add), 0)[2] is RejectCode.OK


def test_a_proposal_is_carried_by_governors_who_are_in_licence_now() -> None:
    proposal = Proposal(0, enacted=False, approvals=(kit.CB, kit.MINISTRY))
    assert proposal.is_carried(REGISTER, 0)
    expiring, _ = REGISTER.with_action(_licence(kit.CB, LicenceStatus.ACTIVE, 500))
    assert proposal.is_carried(expiring, 499)
    assert not proposal.is_carried(expiring, 500)
    assert not Proposal(0, enacted=False, approvals=(kit.CB, kit.P01)).is_carried(REGISTER, 0)


def test_a_proposal_takes_approvals_while_open_one_a_governor() -> None:
    proposal = Proposal(100, enacted=False, approvals=(kit.CB,))
    assert proposal.refusal(kit.MINISTRY, REGISTER, 1_099) is RejectCode.OK
    assert proposal.refusal(kit.MINISTRY, REGISTER, 1_100) is RejectCode.PROPOSAL_CLOSED
    assert proposal.refusal(kit.CB, REGISTER, 100) is RejectCode.ALREADY_APPROVED
    assert proposal.refusal(kit.CB, REGISTER, 1_100) is RejectCode.PROPOSAL_CLOSED
    enacted = Proposal(100, enacted=True, approvals=(kit.CB, kit.MINISTRY))
    assert enacted.refusal(kit.CB, REGISTER, 100) is RejectCode.PROPOSAL_CLOSED
