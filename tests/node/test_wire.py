"""The wire carries every value there and back, and reads nothing that no node of ours would write."""

from __future__ import annotations

import enum
from dataclasses import replace

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.params import Parameters
from clearing.rules.bitcoin_terms import BitcoinTerms, Route, TaxRule
from clearing.rules.cycles import Cycle
from clearing.rules.governance import Proposal, encode_actions
from clearing.rules.positions import Position
from clearing.rules.registry import Action, ActionKind, Asset, Cap, Participant, Registry
from clearing.rules.results import AssetResult, ResultRow
from clearing.rules.settlement import SettlementInstruction
from clearing.types import (
    CycleState,
    InstructionState,
    LicenceStatus,
    NettingMethod,
    ObligationKind,
    ObligationState,
    ResultOutcome,
    Role,
    SettlementKind,
)
from node import wire
from node.pb.v1 import operator_pb2, types_pb2
from node.queries import CycleAssetRow, CycleRow, ObligationRow, ProposalRow, SettlementRow
from node.services.facade import NodeCondition, NodeKind
from tests.clearing.bitcoin_net import terms
from tests.ledger_kit import participant

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
U128, U192 = (st.integers(0, (1 << bits) - 1) for bits in (128, 192))
S192 = st.integers(-(1 << 191), (1 << 191) - 1)
HASHES = st.binary(min_size=32, max_size=32)
NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=30)

PARTICIPANTS = st.builds(
    Participant, NAMES, NAMES, st.sampled_from(Role), st.sampled_from(LicenceStatus), HASHES, NAMES, U64
)  # fmt: skip
ASSETS = st.builds(Asset, NAMES, NAMES, NAMES, st.integers(0, 30), st.sampled_from(NettingMethod))
OBLIGATIONS = st.builds(
    ObligationRow, U64, U32, U32, U32, U32, U16, U128, st.sampled_from(ObligationKind), U8, U64,
    HASHES, HASHES, st.sampled_from(ObligationState), U32,
)  # fmt: skip
POSITIONS = st.builds(
    Position, U32, U16, U192, U192, S192, U192, U192, U128, st.none() | U128, st.just(bytes(16))
)
SETTLEMENTS = st.builds(
    SettlementRow,
    U32,
    U32,
    st.builds(
        SettlementInstruction, U32, U16, st.sampled_from(SettlementKind),
        st.sampled_from(InstructionState), U192, HASHES, U64,
    ),
)  # fmt: skip
CYCLES = st.builds(
    CycleRow,
    U32,
    st.builds(
        Cycle, st.sampled_from(CycleState), U64, U64, U64, U32, U32, U32, U32, U64, U64, HASHES
    ),
    st.booleans(),
)
CYCLE_ASSETS = st.builds(
    CycleAssetRow, U16, st.sampled_from(NettingMethod), st.sampled_from(ResultOutcome),
    U64, U192, U192, U192, U192, U64,
    st.lists(st.builds(ResultRow, U32, U192, U192, U192, U192), max_size=5).map(tuple),
)  # fmt: skip
BITCOIN_TERMS = st.builds(
    BitcoinTerms,
    route=st.none() | st.builds(Route, U16, U16, U64, U32),
    miners=st.lists(st.tuples(U32, st.sampled_from(["Irkutsk", "Омск"])), max_size=3).map(tuple),
    tax=st.builds(TaxRule, U32, U32),
)
REGISTRIES = st.builds(
    Registry,
    st.lists(PARTICIPANTS, max_size=3).map(tuple),
    st.lists(ASSETS, max_size=3).map(tuple),
    st.builds(Parameters, U8, U64, U64, U64, U32),
    st.lists(st.integers(0, 86_399), max_size=3).map(tuple),
    bitcoin=BITCOIN_TERMS,
)


@pytest.mark.parametrize(
    ("core", "wired", "prefix"),
    [
        (Role, types_pb2.Role, "ROLE"),
        (LicenceStatus, types_pb2.LicenceStatus, "LICENCE_STATUS"),
        (ObligationKind, types_pb2.ObligationKind, "OBLIGATION_KIND"),
        (ObligationState, types_pb2.ObligationState, "OBLIGATION_STATE"),
        (CycleState, types_pb2.CycleState, "CYCLE_STATE"),
        (NettingMethod, types_pb2.NettingMethod, "NETTING_METHOD"),
        (SettlementKind, types_pb2.SettlementKind, "SETTLEMENT_KIND"),
        (InstructionState, types_pb2.InstructionState, "INSTRUCTION_STATE"),
        (NodeKind, operator_pb2.NodeKind, "NODE_KIND"),
        (NodeCondition, operator_pb2.NodeCondition, "NODE_CONDITION"),
    ],
)
def test_enumerations_are_the_same(
    core: type[enum.IntEnum], wired: EnumTypeWrapper, prefix: str
) -> None:
    expected = {f"{prefix}_{member.name}": member.value for member in core}
    assert dict(wired.items()) == {f"{prefix}_UNSPECIFIED": 0, **expected}


@given(S192)
def test_amounts(units: int) -> None:
    assert wire.amount_of(wire.amount_text(units), "x", signed=True) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-0",
        "00",
        "01",
        "+1",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "1\n",
        "٣",
        "0x1",
        "1_000",
        "-",
        "9" * 61,
    ],
)
def test_amounts_in_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        wire.amount_of(text, "x", signed=True)


def test_a_negative_amount_is_refused_where_none_can_be() -> None:
    with pytest.raises(DecodeError, match="negative"):
        wire.amount_of("-1", "x")


@given(st.integers(0, 1 << 20), PARTICIPANTS)
def test_participants(number: int, party: Participant) -> None:
    message = wire.participant_message(number, party)
    assert (message.number, wire.participant_of(message)) == (number, party)


@given(REGISTRIES, HASHES)
def test_registers(registry: Registry, network_id: bytes) -> None:
    message = wire.registry_message(registry, network_id, None)
    assert wire.registry_of(message) == registry
    assert message.network_id == network_id


def test_registers_with_a_gap_are_refused() -> None:
    registry = Registry((participant("a", Role.BANK, 1), participant("b", Role.BANK, 2)))
    message = wire.registry_message(registry, bytes(32), None)
    message.participants[1].number = 2
    with pytest.raises(DecodeError):
        wire.registry_of(message)


@given(OBLIGATIONS)
def test_obligations(row: ObligationRow) -> None:
    assert wire.obligation_of(wire.obligation_message(row)) == row


@given(POSITIONS)
def test_positions(position: Position) -> None:
    assert wire.position_of(wire.position_message(position)) == position


def test_a_positions_salt_stays_with_the_node() -> None:
    message = wire.position_message(Position(1, 2, salt=b"\xaa" * 16))
    assert b"\xaa\xaa" not in message.SerializeToString()


@given(SETTLEMENTS)
def test_settlement_instructions(row: SettlementRow) -> None:
    assert wire.settlement_of(wire.settlement_message(row)) == row


def test_evidence_that_is_not_there_is_not_shown() -> None:
    item = SettlementInstruction(1, 2, SettlementKind.PAY_IN, InstructionState.PENDING, 3)
    message = wire.settlement_message(SettlementRow(1, 0, item))
    assert message.evidence_hash == b""
    assert wire.settlement_of(message).instruction == item


@given(CYCLES)
def test_cycles(row: CycleRow) -> None:
    assert wire.cycle_of(wire.cycle_message(row)) == row


@given(CYCLE_ASSETS)
def test_results(row: CycleAssetRow) -> None:
    assert wire.cycle_asset_of(wire.cycle_asset_message(row)) == row


def test_a_net_that_is_not_credit_minus_debit_is_refused() -> None:
    result = AssetResult(0, NettingMethod.POSITIONS, 1, (ResultRow(1, 5, 0),))
    row = CycleAssetRow.of(result, result.rows)
    message = wire.cycle_asset_message(row)
    message.positions[0].net_units = "5"
    with pytest.raises(DecodeError):
        wire.cycle_asset_of(message)


NO_CAP = Action(ActionKind.SET_CAP, Cap(1, 2, None))
ACTIONS = (
    Action(ActionKind.ADD_PARTICIPANT, participant("p09", Role.BANK, 9)),
    Action(
        ActionKind.SET_LICENCE,
        {"participant": 3, "status": 2, "licence_no": "L-1", "licence_expiry_ms": 7},
    ),
    Action(ActionKind.ROTATE_KEY, {"participant": 4, "public_key": b"\x0a" * 32}),
    Action(ActionKind.SET_NODE_KEY, {"participant": 4, "node_key": b"\x0b" * 32}),
    Action(ActionKind.SET_VALIDATOR, {"participant": 4, "power": 7, "consensus_key": b"\x0c" * 32}),
    Action(ActionKind.ADD_ASSET, Asset("BTC", "bip122:x/slip44:0", "", 8, NettingMethod.POSITIONS)),
    Action(ActionKind.SET_METHOD, {"asset": 1, "method": 2}),
    Action(ActionKind.SET_PARAMETERS, Parameters()),
    Action(ActionKind.SET_TIMETABLE, (3_600, 7_200)),
    Action(ActionKind.SET_TIMETABLE, ()),
    Action(ActionKind.SET_CAP, Cap(1, 2, 50)),
    NO_CAP,
    *terms(),
    Action(ActionKind.SET_MINER, {"participant": 4, "active": 0, "region": ""}),
    Action(
        ActionKind.SET_ROUTE,
        {"asset": 0, "by_transaction": 0, "depth": 0, "signing_ms": 0, "fee_rate_max": 0},
    ),
)


def test_proposals_carry_their_actions_in_bytes_and_words() -> None:
    assert {action.kind for action in ACTIONS} == set(ActionKind)
    row = ProposalRow(7, Proposal(5, True, (1, 0)), encode_actions(ACTIONS), False)
    message = wire.proposal_message(row)
    assert wire.proposal_of(message) == row
    assert len(set(message.summary)) == len(ACTIONS)
    assert message.summary[1] == "set the licence of participant 3 to SUSPENDED"
    assert message.summary[ACTIONS.index(NO_CAP)].endswith("to none")
    assert wire.proposal_of(wire.proposal_message(replace(row, lapsed=True))).lapsed


MESSAGES = [
    (wire.participant_of, types_pb2.Participant),
    (wire.asset_of, types_pb2.Asset),
    (wire.obligation_of, types_pb2.Obligation),
    (wire.position_of, types_pb2.Position),
    (wire.settlement_of, types_pb2.SettlementInstruction),
    (wire.cycle_of, types_pb2.Cycle),
    (wire.cycle_asset_of, types_pb2.CycleAsset),
]


@pytest.mark.parametrize(("read", "kind"), MESSAGES)
def test_an_empty_message_is_refused(read: object, kind: object) -> None:
    with pytest.raises(DecodeError):
        read(kind())  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        {"state": 0},
        {"state": 10},
        {"kind": 99},
        {"trade_ref_hash": b"short"},
        {"compliance_ref_hash": bytes(33)},
        {"amount_units": "1.5"},
        {"amount_units": "-1"},
    ],
)
def test_an_obligation_with_a_bad_field_is_refused(change: dict[str, object]) -> None:
    row = ObligationRow(1, 0, 2, 2, 3, 0, 5, 1, 0, 0, bytes(32), bytes(32), 1, 0)
    message = wire.obligation_message(row)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(DecodeError):
        wire.obligation_of(message)


def test_repeated_states_count_once_and_in_order() -> None:
    assert wire.enums_of(CycleState, [3, 1, 3], "states") == (CycleState.NETTED, CycleState.OPEN)
    with pytest.raises(DecodeError, match="states"):
        wire.enums_of(CycleState, [3, 0], "states")


@pytest.mark.parametrize("hashes", [[b"x"], [bytes(32)] * 129])
def test_paths_that_are_none_are_refused(hashes: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        wire.path_of(hashes, "path")
