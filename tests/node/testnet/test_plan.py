"""The cast of a test network: names, roles, identifiers, assets."""

from __future__ import annotations

import pytest

from clearing.errors import RejectCode
from clearing.identifiers import check_lei
from clearing.rules.governance import decode_actions, encode_actions, resolve
from clearing.rules.registry import Action, ActionKind, Participant, Registry
from clearing.types import LicenceStatus, Role
from node.errors import SetupError
from node.identity import check_node_name
from node.testnet.plan import (
    ASSETS,
    AUTHORITIES,
    NODES,
    Engine,
    named_parties,
    numbered_parties,
    operator_parties,
    plan_of,
    role_name,
)


def test_the_first_three_and_the_rotation() -> None:
    parties = numbered_parties(9)
    assert [party.name for party in parties] == [f"p0{number}" for number in range(1, 10)]
    assert [role_name(party.role) for party in parties] == [
        "bank",
        "bank",
        "exchange",
        "bank",
        "exchange",
        "miner",
        "bank",
        "exchange",
        "miner",
    ]


def test_a_network_of_three_has_no_more() -> None:
    assert [party.name for party in numbered_parties(3)] == ["p01", "p02", "p03"]


def test_leis_have_right_check_digits_differ_and_stay_the_same() -> None:
    parties = [*AUTHORITIES, *numbered_parties(1_000)]
    for party in parties:
        check_lei(party.lei)
        check_node_name(party.name)
    assert len({party.lei for party in parties}) == len(parties)
    assert parties == [*AUTHORITIES, *numbered_parties(1_000)]
    assert parties[3].lei == "TEST00P0000000000172"


def test_five_nodes_are_parties() -> None:
    names = {party.name for party in [*AUTHORITIES, *numbered_parties(3)]}
    assert set(NODES) <= names


def test_assets_as_published() -> None:
    assert [(asset.name, asset.scale, asset.dti, asset.caip19) for asset in ASSETS] == [
        ("BTC", 8, "4H95J0R2X", "bip122:000000000019d6689c085ae165831e93/slip44:0"),
        ("ETH", 18, "X9J9K872S", "eip155:1/slip44:60"),
        ("USDT", 6, "", "eip155:1/erc20:0xdac17f958d2ee523a2206206994597c13d831ec7"),
    ]


@pytest.mark.parametrize("count", [3, 40])
def test_the_rules_take_the_cast_as_genesis(count: int) -> None:
    registered = [
        Participant(
            party.name, party.lei, party.role, LicenceStatus.ACTIVE, bytes([7, i] * 16), "L", 0
        )
        for i, party in enumerate([*AUTHORITIES, *numbered_parties(count)])
    ]
    actions = [
        *(Action(ActionKind.ADD_PARTICIPANT, party) for party in registered),
        *(Action(ActionKind.ADD_ASSET, asset) for asset in ASSETS),
    ]
    registry, caps, code = resolve(Registry(), decode_actions(encode_actions(actions)), 1)
    assert (code, caps) == (RejectCode.OK, ())
    assert registry.settlement_agent(0) == 0
    assert registry.participants[0].role is Role.CENTRAL_BANK


def test_names_of_a_back_office_become_registrable() -> None:
    names = [
        "Nordbank AG",
        "nordbank-ag",
        "Økonomibanken",
        "中国银行",
        "5493001KJTIIGC8Y1R12",
        "central-bank",
        "x" * 60,
        "--",
    ]
    parties = named_parties(names, 1)
    assert [party.name for party in parties] == [
        "nordbank-ag",
        "nordbank-ag-2",
        "konomibanken",
        "party",
        "5493001kjtiigc8y1r12",
        "central-bank-2",
        "x" * 24,
        "party-2",
    ]
    assert parties[4].lei == "5493001KJTIIGC8Y1R12"
    for party in parties:
        check_node_name(party.name)
        check_lei(party.lei)
    assert [role_name(party.role) for party in parties[:4]] == ["bank", "exchange", "miner", "bank"]


def test_several_operators_are_the_authorities_and_licensed_ones() -> None:
    plan = plan_of(Engine.COMETBFT)
    assert plan.operators == ("central-bank", "ministry", "operator-1", "operator-2")
    assert plan.nodes == (*plan.operators, "p01", "p02")
    assert [party.role for party in operator_parties(plan)] == [Role.OPERATOR] * 2
    assert operator_parties(plan_of(Engine.EMBEDDED)) == []
    assert plan_of(Engine.EMBEDDED).nodes == NODES


@pytest.mark.parametrize(("engine", "count"), [("embedded", 4), ("cometbft", 3), ("cometbft", 11)])
def test_a_number_of_operators_that_cannot_be_is_refused(engine: str, count: int) -> None:
    with pytest.raises(SetupError, match=f"--operators {count}"):
        plan_of(Engine(engine), count)


def test_followers_are_spread_over_the_operators_and_operators_follow_nobody() -> None:
    plan = plan_of(Engine.COMETBFT)
    assert [plan.followed(name) for name in plan.nodes] == [
        "",
        "",
        "",
        "",
        "central-bank",
        "ministry",
    ]
    assert plan.dialled("ministry") == ("central-bank", "operator-1", "operator-2")
    assert plan.dialled("p02") == ("ministry", "operator-1", "operator-2", "central-bank")
    assert plan_of(Engine.EMBEDDED).followed("p03") == "central-bank"
