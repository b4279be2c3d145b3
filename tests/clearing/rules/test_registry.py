"""The registers: what an action changes, which values it may carry, and the timetable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, RejectCode
from clearing.identifiers import make_lei
from clearing.params import CUT_OFFS_PER_DAY_MAX, DAY_S, Parameters
from clearing.rules import registry as registers
from clearing.rules.registry import (
    NO_KEY,
    Action,
    ActionKind,
    Asset,
    Cap,
    Participant,
    Registry,
    decode_timetable,
    encode_timetable,
    is_weak_key,
    next_cut_off_ms,
)
from clearing.rules.validators import POWER_MAX, Validator
from clearing.types import LicenceStatus, NettingMethod, Role
from tests import ledger_kit as kit

PARTIES = tuple(kit.participant(name, role, at) for at, (name, role) in enumerate(kit.ROLES))
ASSETS = tuple(
    Asset(name, caip19, dti, scale, NettingMethod.POSITIONS)
    for name, caip19, dti, scale in kit.ASSETS
)
REGISTER = Registry(PARTIES, ASSETS)
NEW_PARTY = kit.participant("p05", Role.BANK, 99)
NEW_ASSET = Asset(
    "LTC", "bip122:12a765e31ffd4059bada1e25190f6e98/slip44:2", "", 8, NettingMethod.POSITIONS
)
DAY_MS = DAY_S * 1000


def _apply(
    kind: ActionKind, subject: Any, register: Registry = REGISTER
) -> tuple[Registry, RejectCode]:
    return register.with_action(Action(kind, subject))


def _licence(participant: int, status: int, expiry_ms: int = 0) -> dict[str, Any]:
    return {
        "participant": participant,
        "status": status,
        "licence_no": "L-new",
        "licence_expiry_ms": expiry_ms,
    }


def test_every_action_changes_what_it_names_and_nothing_else() -> None:
    grown, code = _apply(ActionKind.ADD_PARTICIPANT, NEW_PARTY)
    assert (code, grown) == (0, replace(REGISTER, participants=(*PARTIES, NEW_PARTY)))
    grown, code = _apply(ActionKind.ADD_ASSET, NEW_ASSET)
    assert (code, grown) == (0, replace(REGISTER, assets=(*ASSETS, NEW_ASSET)))
    changed, code = _apply(ActionKind.SET_LICENCE, _licence(2, LicenceStatus.SUSPENDED, 77))
    suspended = replace(
        PARTIES[2], status=LicenceStatus.SUSPENDED, licence_no="L-new", licence_expiry_ms=77
    )
    assert (code, changed.participants) == (0, (*PARTIES[:2], suspended, *PARTIES[3:]))
    changed, code = _apply(ActionKind.ROTATE_KEY, {"participant": 3, "public_key": b"\7" * 32})
    rotated = replace(PARTIES[3], public_key=b"\7" * 32)
    assert (code, changed.participants) == (0, (*PARTIES[:3], rotated, *PARTIES[4:]))
    changed, code = _apply(ActionKind.SET_NODE_KEY, {"participant": 3, "node_key": b"\7" * 32})
    heard = replace(PARTIES[3], node_key=b"\7" * 32)
    assert (code, changed.participants) == (0, (*PARTIES[:3], heard, *PARTIES[4:]))
    silent = {"participant": 3, "node_key": NO_KEY}
    assert changed.with_action(Action(ActionKind.SET_NODE_KEY, silent)) == (REGISTER, 0)
    assert _apply(ActionKind.SET_METHOD, {"asset": 1, "method": 1}) == (REGISTER, 0)
    parameters = Parameters(1, 2, 3)
    assert _apply(ActionKind.SET_PARAMETERS, parameters) == (
        replace(REGISTER, parameters=parameters),
        0,
    )
    assert _apply(ActionKind.SET_TIMETABLE, (1, 2)) == (replace(REGISTER, cut_offs_s=(1, 2)), 0)
    assert _apply(ActionKind.SET_CAP, Cap(2, 0, 5)) == (REGISTER, 0)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (ActionKind.SET_LICENCE, _licence(7, 1)),
        (ActionKind.SET_LICENCE, _licence(7, 9)),
        (ActionKind.ROTATE_KEY, {"participant": 7, "public_key": bytes(32)}),
        (ActionKind.ROTATE_KEY, {"participant": 7, "public_key": PARTIES[0].public_key}),
        (ActionKind.SET_NODE_KEY, {"participant": 7, "node_key": PARTIES[0].public_key}),
        (ActionKind.SET_METHOD, {"asset": 3, "method": 1}),
        (ActionKind.SET_METHOD, {"asset": 3, "method": 9}),
        (ActionKind.SET_CAP, Cap(7, 0, 1)),
        (ActionKind.SET_CAP, Cap(2, 3, None)),
    ],
)
def test_an_unknown_subject_is_told_first(kind: ActionKind, subject: Any) -> None:
    assert _apply(kind, subject) == (REGISTER, RejectCode.ACTION_UNKNOWN_SUBJECT)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, name="p01")),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, lei=PARTIES[6].lei)),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, public_key=PARTIES[6].public_key)),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, name="p01", lei="not an LEI")),
        (ActionKind.ROTATE_KEY, {"participant": 2, "public_key": PARTIES[3].public_key}),
        (ActionKind.ROTATE_KEY, {"participant": 2, "public_key": PARTIES[2].public_key}),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, node_key=PARTIES[6].public_key)),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, node_key=NEW_PARTY.public_key)),
        (ActionKind.SET_NODE_KEY, {"participant": 2, "node_key": PARTIES[3].public_key}),
        (ActionKind.SET_NODE_KEY, {"participant": 2, "node_key": PARTIES[2].public_key}),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, name="ETH")),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, caip19=ASSETS[0].caip19)),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, name="ETH", scale=200)),
    ],
)
def test_a_duplicate_is_told_before_a_wrong_value(kind: ActionKind, subject: Any) -> None:
    assert _apply(kind, subject) == (REGISTER, RejectCode.ACTION_DUPLICATE)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        *(
            (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, lei=lei))
            for lei in ("", "ABC", "0" * 20)
        ),
        (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, lei=NEW_PARTY.lei.lower())),
        *(
            (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, name=name))
            for name in (
                "",
                "two words",
                "a,b",
                "a:b",
                "a/b",
                "a;b",
                "a'b",
                'a"b',
                "a\\b",
                "é",
                "a\n",
            )
        ),
        (ActionKind.SET_LICENCE, _licence(2, 0)),
        (ActionKind.SET_LICENCE, _licence(2, 4)),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, caip19="")),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, caip19="eip155:01/slip44:60")),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, caip19=ASSETS[2].caip19.replace("dac", "DAC"))),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, dti="X9J9K872Z")),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, name="L TC")),
        (ActionKind.ADD_ASSET, replace(NEW_ASSET, scale=31)),
        (ActionKind.SET_METHOD, {"asset": 0, "method": 0}),
        (ActionKind.SET_METHOD, {"asset": 0, "method": 4}),
        (ActionKind.SET_TIMETABLE, (10, 10)),
        (ActionKind.SET_TIMETABLE, (20, 10)),
        (ActionKind.SET_TIMETABLE, (0, DAY_S)),
    ],
)
def test_a_value_outside_its_range_is_refused(kind: ActionKind, subject: Any) -> None:
    assert _apply(kind, subject) == (REGISTER, RejectCode.ACTION_VALUE)


def test_a_withdrawn_licence_stays_withdrawn() -> None:
    register, _ = _apply(ActionKind.SET_LICENCE, _licence(2, LicenceStatus.WITHDRAWN))
    for status in LicenceStatus:
        change = _licence(2, status)
        assert _apply(ActionKind.SET_LICENCE, change, register)[1] is RejectCode.ACTION_VALUE


def test_the_registers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "PARTICIPANTS_MAX", len(PARTIES))
    monkeypatch.setattr(registers, "ASSETS_MAX", len(ASSETS))
    assert _apply(ActionKind.ADD_PARTICIPANT, NEW_PARTY)[1] is RejectCode.ACTION_VALUE
    assert _apply(ActionKind.ADD_ASSET, NEW_ASSET)[1] is RejectCode.ACTION_VALUE


def test_a_licence_is_in_force_while_active_and_before_its_expiry() -> None:
    party = replace(PARTIES[2], licence_expiry_ms=1_000)
    assert [party.is_licensed(time_ms) for time_ms in (0, 999, 1_000, 1_001)] == [1, 1, 0, 0]
    assert replace(party, licence_expiry_ms=0).is_licensed(1 << 63)
    for status in (LicenceStatus.SUSPENDED, LicenceStatus.WITHDRAWN):
        assert not replace(party, status=status).is_licensed(0)


def test_participants_are_found_by_what_identifies_them() -> None:
    for number, party in enumerate(PARTIES):
        assert REGISTER.participant(number) is party
        assert REGISTER.by_lei(party.lei) == number
        assert REGISTER.by_name(party.name) == number
        assert REGISTER.by_key(party.public_key) == number
    assert [REGISTER.asset_by_name(asset.name) for asset in ASSETS] == [0, 1, 2]
    assert REGISTER.participant(-1) is REGISTER.participant(len(PARTIES)) is None
    assert REGISTER.by_lei(make_lei("9" * 18)) is REGISTER.by_name("nobody") is None
    assert REGISTER.by_key(bytes(32)) is REGISTER.asset_by_name("XRP") is None


def test_the_agent_is_the_first_central_bank_and_governors_are_those_in_licence() -> None:
    assert REGISTER.settlement_agent(0) == kit.CB
    assert Registry().settlement_agent(0) is None
    second = kit.participant("second-cb", Role.CENTRAL_BANK, 50)
    both, _ = _apply(ActionKind.ADD_PARTICIPANT, second)
    until = Action(ActionKind.SET_LICENCE, _licence(kit.CB, 1, 500))
    dated, _ = both.with_action(until)
    assert [dated.settlement_agent(at) for at in (0, 499, 500)] == [kit.CB, kit.CB, len(PARTIES)]
    assert REGISTER.governors(0) == (kit.CB, kit.MINISTRY)
    register, _ = _apply(ActionKind.SET_LICENCE, _licence(kit.MINISTRY, 1, 500))
    assert register.governors(499) == (kit.CB, kit.MINISTRY)
    assert register.governors(500) == (kit.CB,)


@pytest.mark.parametrize(("role", "status"), [(0, 1), (8, 1), (4, 0), (4, 4)])
def test_an_unknown_role_or_status_is_no_participant(role: int, status: int) -> None:
    data = bytearray(PARTIES[2].encode())
    data[52], data[53] = role, status
    with pytest.raises(DecodeError):
        Participant.decode(bytes(data))


def test_an_unknown_method_is_no_asset() -> None:
    data = bytearray(ASSETS[0].encode())
    data[218] = 4
    with pytest.raises(DecodeError):
        Asset.decode(bytes(data))


def _naive_next_cut_off(cut_offs_s: tuple[int, ...], after_ms: int) -> int | None:
    days = range(after_ms // DAY_MS, after_ms // DAY_MS + 2)
    return min(
        (
            day * DAY_MS + second * 1000
            for day in days
            for second in cut_offs_s
            if day * DAY_MS + second * 1000 > after_ms
        ),
        default=None,
    )


@given(
    st.sets(st.integers(0, DAY_S - 1), max_size=5),
    st.integers(0, 1 << 45),
    st.sampled_from([0, 1, 999, 1000, DAY_MS - 1]),
)
def test_the_next_cut_off_is_strictly_later(seconds: set[int], day: int, offset_ms: int) -> None:
    cut_offs_s, after_ms = tuple(sorted(seconds)), day * DAY_MS // 1000 + offset_ms
    found = next_cut_off_ms(cut_offs_s, after_ms)
    assert found == _naive_next_cut_off(cut_offs_s, after_ms)
    assert decode_timetable(encode_timetable(cut_offs_s)) == cut_offs_s


def test_a_timetable_has_at_most_a_cut_off_every_quarter_of_an_hour() -> None:
    most = tuple(range(CUT_OFFS_PER_DAY_MAX))
    assert decode_timetable(encode_timetable(most)) == most
    with pytest.raises(DecodeError, match="at most 96"):
        encode_timetable((*most, 96))
    too_long = (97).to_bytes(4, "little") + bytes(4 * 97)
    for data in (b"", bytes(3), too_long, encode_timetable(most)[:-1]):
        with pytest.raises(DecodeError):
            decode_timetable(data)


WEAK = [
    bytes.fromhex(key)
    for key in (
        "00" * 32,
        "00" * 31 + "80",
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ec" + "ff" * 30 + "7f",
        "edff" + "ff" * 29 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
]


def _validator(participant: int, **changed: Any) -> dict[str, Any]:
    key = bytes([participant + 1]) * 32
    return {"participant": participant, "power": 10, "consensus_key": key} | changed


def test_a_validator_is_appointed_changed_and_removed() -> None:
    register, code = _apply(ActionKind.SET_VALIDATOR, _validator(kit.CB))
    assert (register.appointed, code) == ((Validator(kit.CB, 10, b"\1" * 32),), RejectCode.OK)
    changed, code = _apply(ActionKind.SET_VALIDATOR, _validator(kit.CB, power=POWER_MAX), register)
    assert (changed.appointed[0].power, code) == (POWER_MAX, RejectCode.OK)
    gone = _validator(kit.CB, power=0, consensus_key=NO_KEY)
    assert _apply(ActionKind.SET_VALIDATOR, gone, register) == (REGISTER, RejectCode.OK)


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        (_validator(9), RejectCode.ACTION_UNKNOWN_SUBJECT),
        (_validator(kit.CB, power=0, consensus_key=NO_KEY), RejectCode.ACTION_VALUE),
        (_validator(kit.MINISTRY, power=0), RejectCode.ACTION_VALUE),
        (_validator(kit.CB, power=POWER_MAX + 1), RejectCode.ACTION_VALUE),
        (_validator(kit.CB, consensus_key=NO_KEY), RejectCode.ACTION_VALUE),
        (_validator(kit.CB, consensus_key=b"\1" + bytes(31)), RejectCode.ACTION_VALUE),
        (_validator(kit.P01), RejectCode.VALIDATOR_ROLE),
        (_validator(kit.REGULATOR), RejectCode.VALIDATOR_ROLE),
    ],
)
def test_what_is_no_appointment_is_refused(subject: dict[str, Any], code: RejectCode) -> None:
    register = replace(REGISTER, appointed=(Validator(kit.MINISTRY, 10, b"\2" * 32),))
    assert _apply(ActionKind.SET_VALIDATOR, subject, register) == (register, code)


def test_wanted_is_who_is_appointed_licensed_and_not_suspended() -> None:
    """And a new appointment ends a suspension."""
    register = REGISTER
    for number in (kit.CB, kit.MINISTRY):
        register, _ = _apply(ActionKind.SET_VALIDATOR, _validator(number), register)
    both = register.appointed
    assert register.wanted_validators(0) == both
    register, _ = _apply(ActionKind.SET_LICENCE, _licence(kit.MINISTRY, 1, 500), register)
    assert [register.wanted_validators(time_ms) for time_ms in (499, 500)] == [both, both[:1]]
    suspended = register.with_suspended(kit.CB)
    assert suspended.appointed == (replace(both[0], suspended=True), both[1])
    assert suspended.wanted_validators(0) == both[1:]
    assert suspended.with_suspended(kit.CB) is suspended
    assert register.with_suspended(kit.P01) is register
    again, _ = _apply(ActionKind.SET_VALIDATOR, _validator(kit.CB), suspended)
    assert again.appointed == both


def test_whose_cosignature_counts() -> None:
    """A date that passed does no harm to who is there by office; a suspension, of whichever kind, does to everybody."""
    operator = replace(kit.participant("operator", Role.OPERATOR, 50), licence_expiry_ms=500)
    register, _ = _apply(ActionKind.ADD_PARTICIPANT, operator)
    register, _ = _apply(ActionKind.SET_LICENCE, _licence(kit.CB, 1, 500), register)
    assert [register.may_cosign("operator", time_ms) for time_ms in (499, 500)] == [True, False]
    assert [register.may_cosign("central-bank", time_ms) for time_ms in (499, 500)] == [True, True]
    assert not register.may_cosign("nobody", 0)
    for status in (LicenceStatus.SUSPENDED, LicenceStatus.WITHDRAWN):
        ended, _ = _apply(ActionKind.SET_LICENCE, _licence(kit.CB, status, 500), register)
        assert not ended.may_cosign("central-bank", 0)
        assert not ended.may_cosign("central-bank", 500)
    register, _ = _apply(ActionKind.SET_VALIDATOR, _validator(kit.CB), register)
    assert register.may_cosign("central-bank", 0)
    assert not register.with_suspended(kit.CB).may_cosign("central-bank", 0)


def test_a_key_is_somebodys_once_whatever_it_signs() -> None:
    """A consensus key that were a participant's too would let its validator's machine sign for the participant."""
    validator = {"participant": kit.CB, "power": 10, "consensus_key": b"\7" * 32}
    register, code = _apply(ActionKind.SET_VALIDATOR, validator)
    assert code is RejectCode.OK
    in_force = replace(register, appointed=(), validators=register.appointed)
    for known in (register, in_force):
        for kind, subject in (
            (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, public_key=b"\7" * 32)),
            (ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, node_key=b"\7" * 32)),
            (ActionKind.ROTATE_KEY, {"participant": 2, "public_key": b"\7" * 32}),
            (ActionKind.SET_NODE_KEY, {"participant": 2, "node_key": b"\7" * 32}),
        ):
            assert _apply(kind, subject, known) == (known, RejectCode.ACTION_DUPLICATE)
        another = validator | {"participant": kit.MINISTRY}
        assert _apply(ActionKind.SET_VALIDATOR, another, known)[1] is RejectCode.VALIDATOR_KEY_TAKEN
    stronger = _apply(ActionKind.SET_VALIDATOR, validator | {"power": 11}, register)
    assert (stronger[0].appointed[0].power, stronger[1]) == (11, RejectCode.OK)
    for party in (PARTIES[2], PARTIES[kit.CB]):
        own = validator | {"consensus_key": party.public_key}
        assert _apply(ActionKind.SET_VALIDATOR, own)[1] is RejectCode.VALIDATOR_KEY_TAKEN


@pytest.mark.parametrize("key", WEAK)
def test_keys_for_which_anybody_can_sign_are_refused(key: bytes) -> None:
    assert is_weak_key(key)
    refused = (REGISTER, RejectCode.ACTION_VALUE)
    assert _apply(ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, public_key=key)) == refused
    assert _apply(ActionKind.ROTATE_KEY, {"participant": 2, "public_key": key}) == refused
    if key != NO_KEY:
        assert _apply(ActionKind.ADD_PARTICIPANT, replace(NEW_PARTY, node_key=key)) == refused
        assert _apply(ActionKind.SET_NODE_KEY, {"participant": 2, "node_key": key}) == refused


def test_weak_keys_are_weak_and_real_keys_are_not() -> None:
    """Under a point of order 8 or less a fixed signature verifies for about one message in eight, or in one."""
    identity = (1).to_bytes(32, "little")
    forged = 0
    for key in WEAK[:3]:
        for number in range(64):
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(
                    identity + bytes(32), bytes([number])
                )
            except InvalidSignature:
                continue
            forged += 1
    assert forged > 64
    assert not any(is_weak_key(party.public_key) for party in PARTIES)
