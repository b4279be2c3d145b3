"""What people type: item ranges, ids, JSON actions, method names; each mistake is wrong use with a remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clearing.errors import RejectCode
from clearing.identifiers import make_lei
from clearing.params import Parameters
from clearing.rules.governance import decode_actions, encode_actions, resolve
from clearing.rules.registry import ActionKind, Asset, Cap, Participant, Registry
from clearing.types import AMOUNT_MAX, LicenceStatus, NettingMethod, Role
from node.cli.actions import parse_actions
from node.cli.call import find_method, read_request, services
from node.cli.cycles import parse_id
from node.cli.errors import WrongUseError
from node.cli.names import Names
from node.cli.obligations import parse_ranges
from node.cli.proofs import parse_receipt_id
from node.testnet.plan import ASSETS, AUTHORITIES, numbered_parties

LEI = make_lei("TEST00X00000000099")
KEY = "07" * 32


def registry() -> Registry:
    parties = [*AUTHORITIES, *numbered_parties(3)]
    return Registry(
        tuple(
            Participant(p.name, p.lei, p.role, LicenceStatus.ACTIVE, bytes([n]) * 32, f"L{n}", 7)
            for n, p in enumerate(parties)
        ),
        ASSETS,
    )


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("7", ((7, 7),)),
        ("0-99", ((0, 99),)),
        ("150-160, 0-99,120", ((0, 99), (120, 120), (150, 160))),
    ],
)
def test_item_ranges(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text) == ranges


@pytest.mark.parametrize(
    "text", ["", "-", "a", "1-", "-1", "5-1", "0-9,9-12", "1,1", "1.5", "9999999999", "٣"]
)
def test_wrong_item_ranges(text: str) -> None:
    with pytest.raises(WrongUseError, match="item ranges"):
        parse_ranges(text)


def test_ids() -> None:
    assert parse_id("12:0") == (12, 0)
    assert parse_receipt_id("17") == (17, None)
    assert parse_receipt_id("17:3") == (17, 3)


@pytest.mark.parametrize("text", ["", ":", "1", "1:", ":1", "a:1", "1:1:1", "-1:0", "1:-1"])
def test_wrong_ids(text: str) -> None:
    with pytest.raises(WrongUseError) as caught:
        parse_id(text)
    assert "CYCLE:NUMBER" in caught.value.remedy


@pytest.mark.parametrize(
    "text", ["", ":", "1:", ":1", "a", "1:1:1", "-1", "9" * 20, "1:" + "9" * 10]
)
def test_wrong_receipt_ids(text: str) -> None:
    with pytest.raises(WrongUseError):
        parse_receipt_id(text)


ACTIONS: list[tuple[dict[str, Any], ActionKind, Any]] = [
    (
        {"name": "p09", "lei": LEI, "role": "bank", "public_key": KEY, "licence_no": "L9"},
        ActionKind.ADD_PARTICIPANT,
        Participant("p09", LEI, Role.BANK, LicenceStatus.ACTIVE, bytes([7]) * 32, "L9", 0),
    ),
    (
        {"participant": "p01", "status": "suspended"},
        ActionKind.SET_LICENCE,
        {"participant": 3, "status": LicenceStatus.SUSPENDED, "licence_no": "L3"}
        | {"licence_expiry_ms": 7},
    ),
    (
        {"participant": AUTHORITIES[1].lei, "status": "active", "licence_expiry": "1970-01-02"},
        ActionKind.SET_LICENCE,
        {"participant": 1, "status": LicenceStatus.ACTIVE, "licence_no": "L1"}
        | {"licence_expiry_ms": 2 * 86_400_000 - 1},
    ),
    (
        {"participant": "p02", "public_key": KEY},
        ActionKind.ROTATE_KEY,
        {"participant": 4, "public_key": bytes([7]) * 32},
    ),
    (
        {"name": "DAI", "caip19": "eip155:1/erc20:0x" + "0" * 40, "scale": 18},
        ActionKind.ADD_ASSET,
        Asset("DAI", "eip155:1/erc20:0x" + "0" * 40, "", 18, NettingMethod.POSITIONS),
    ),
    (
        {"asset": "ETH", "method": "positions"},
        ActionKind.SET_METHOD,
        {"asset": 1, "method": NettingMethod.POSITIONS},
    ),
    (
        {"settlement_timeout_ms": 5_000},
        ActionKind.SET_PARAMETERS,
        Parameters(settlement_timeout_ms=5_000),
    ),
    (
        {"submitter_open_items": 50_000},
        ActionKind.SET_PARAMETERS,
        Parameters(submitter_open_items=50_000),
    ),
    (
        {"cut_offs": ["16:30", "11:00", "11:00", "23:59:59"]},
        ActionKind.SET_TIMETABLE,
        (39_600, 59_400, 86_399),
    ),
    ({"cut_offs": []}, ActionKind.SET_TIMETABLE, ()),
    (
        {"participant": "p03", "asset": "BTC", "amount": str(AMOUNT_MAX)},
        ActionKind.SET_CAP,
        Cap(5, 0, AMOUNT_MAX),
    ),
    ({"participant": "p03", "asset": "BTC", "amount": None}, ActionKind.SET_CAP, Cap(5, 0, None)),
]


@pytest.mark.parametrize(("fields", "kind", "subject"), ACTIONS)
def test_actions_are_read_and_carried_out(
    fields: dict[str, Any], kind: ActionKind, subject: Any
) -> None:
    name = kind.name.lower().replace("_", "-")
    (action,) = parse_actions(json.dumps([{"action": name, **fields}]), registry())
    assert (action.kind, action.subject) == (kind, subject)
    assert decode_actions(encode_actions([action])) == (action,)
    assert resolve(registry(), [action], 1)[2] is RejectCode.OK


def test_an_action_sees_what_those_before_it_did() -> None:
    rows = [
        {"action": "add-participant", "name": "n", "lei": LEI, "role": "miner", "public_key": KEY},
        {"action": "set-cap", "participant": "n", "asset": "BTC", "amount": "5"},
    ]
    actions = parse_actions(json.dumps(rows), registry())
    assert actions[1].subject == Cap(6, 0, 5)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "not a list"),
        ("[]", "not a list"),
        ("[1]", "not a list"),
        ("[{}]", "action must be a text"),
        ('[{"action": "abolish"}]', "action must be one of add-participant"),
        ('[{"action": "set-timetable"}]', "cut_offs must be a list"),
        ('[{"action": "set-timetable", "cut_offs": ["25:00"]}]', "HH:MM"),
        ('[{"action": "set-timetable", "cut_offs": [], "x": 1}]', "unknown field 'x'"),
        ('[{"action": "set-cap", "participant": "p99"}]', "no participant 'p99'"),
        ('[{"action": "set-cap", "participant": "p01", "asset": "X"}]', "no asset 'X'"),
        (
            '[{"action": "set-cap", "participant": "p01", "asset": "BTC", "amount": 5}]',
            "amount must",
        ),
        (
            '[{"action": "set-cap", "participant": "p01", "asset": "BTC", "amount": "-5"}]',
            "amount must",
        ),
        ('[{"action": "rotate-key", "participant": "p01", "public_key": "zz"}]', "64 hex"),
        ('[{"action": "set-licence", "participant": "p01", "status": "dead"}]', "one of active"),
        ('[{"action": "set-parameters", "governance_quorum": true}]', "whole number"),
        ('[{"action": "set-parameters", "governance_quorum": -1}]', "whole number"),
        (
            '[{"action": "set-licence", "participant": "p01", "status": "active", "licence_expiry": "soon"}]',
            "licence_expiry must",
        ),
    ],
)
def test_wrong_actions(text: str, match: str) -> None:
    with pytest.raises(WrongUseError, match=match):
        parse_actions(text, registry())


def test_names_both_ways() -> None:
    names = Names(registry())
    assert names.party_no("p01") == names.party_no(numbered_parties(1)[0].lei) == 3
    assert names.asset_no("BTC") == names.asset_no("4H95J0R2X") == names.asset_no(ASSETS[0].caip19)
    assert (names.party(3), names.party(99)) == ("p01", "#99")
    assert (names.asset_name(1), names.asset_name(99)) == ("ETH", "#99")
    assert names.scaled(150_000_000, 0) == "1.50000000"
    assert names.is_supervisor("regulator")
    assert not names.is_supervisor("p01")
    with pytest.raises(WrongUseError, match="no participant 'p77'"):
        names.party_no("p77")
    with pytest.raises(WrongUseError, match="no asset 'DOGE'"):
        names.asset_no("DOGE")


def test_every_method_is_found_by_each_of_its_names() -> None:
    methods = [method for service in services() for method in service.methods]
    assert len(methods) > 20
    for method in methods:
        service = method.containing_service
        for name in (
            method.name,
            f"{service.name}/{method.name}",
            f"{service.name}.{method.name}",
            f"/{service.full_name}/{method.name}",
        ):
            assert find_method(name) is method


def test_an_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(WrongUseError) as caught:
        find_method("Transmute")
    assert "AuditService/GetRegistry" in caught.value.remedy


def test_requests_are_json_of_the_message() -> None:
    method = find_method("GetCycle")
    assert read_request(method, '{"cycle": 7}').cycle == 7
    assert read_request(method, "").cycle == 0
    for text in ("{", '{"cycle": "x"}', '{"wheel": 1}', "[]", "7"):
        with pytest.raises(WrongUseError) as caught:
            read_request(method, text)
        assert "cycle" in caught.value.remedy
