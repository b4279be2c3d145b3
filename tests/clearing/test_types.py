"""Numbers that are written into records never change: a new member gets a new number, an old one keeps its own."""

from __future__ import annotations

import enum

import pytest

from clearing import types
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.provenance import Way
from clearing.errors import InvariantViolation, invariant
from clearing.records.instruction import InstructionKind
from clearing.records.leaves import LeafKind
from clearing.records.receipt import Opened, RecordKind
from clearing.rows import Table
from clearing.rules.bitcoin_terms import PayoutKind
from clearing.rules.legs import LegCause, LegState
from clearing.rules.mined import BatchState
from clearing.rules.registry import ActionKind

FROZEN: dict[type[enum.IntEnum], str] = {
    types.Role: "MINISTRY CENTRAL_BANK OPERATOR BANK EXCHANGE MINER REGULATOR",
    types.LicenceStatus: "ACTIVE SUSPENDED WITHDRAWN",
    types.ObligationKind: "TRADE FEE LOAN MARGIN CORRECTION",
    types.ObligationState: (
        "PROPOSED AFFIRMED LOCKED PARTLY_DISCHARGED SETTLED REJECTED RESCINDED EXPIRED"
    ),
    types.CycleState: "OPEN CUT_OFF NETTED FUNDED SETTLED FAILED DEADLOCK",
    types.InstructionState: "PENDING EVIDENCED CONFIRMED FAILED SUPERSEDED",
    types.SettlementKind: "PAY_IN PAY_OUT REFUND",
    types.NettingMethod: "POSITIONS GRIDLOCK SETOFF",
    InstructionKind: (
        "AFFIRM REJECT RESCIND RUN_CYCLE EVIDENCE CONFIRM FAIL SET_LIQUIDITY PROPOSE APPROVE SOLVE"
        " REPORT_ANCHOR=20"
        " SET_SETTLEMENT_SCRIPT=30 NAME_COINS OFFER_LEG REFUSE_LEG REPORT_SIGNING REPORT_HEADERS SHOW_TRANSACTION"
        " RECAST_CYCLE DECLARE_COIN ATTEST_COIN"
    ),
    LeafKind: "GENESIS SUBMISSION INSTRUCTION CYCLE_NETTED CYCLE_ENDED EXPIRED SEAL CYCLE_CUT_OFF VALIDATORS=10 MISBEHAVIOUR",
    ActionKind: (
        "ADD_PARTICIPANT SET_LICENCE ROTATE_KEY ADD_ASSET SET_METHOD SET_PARAMETERS SET_TIMETABLE SET_CAP SET_NODE_KEY"
        " SET_VALIDATOR=15"
        " SET_BITCOIN_CHAIN=30 SET_ROUTE SET_MINER SET_PAYOUT_SCRIPT SET_TAX_RULE"
    ),
    RecordKind: "RECEIPT POSITION",
    LegState: "WAITING OFFERED BROADCAST MINED CONFIRMED FAILED BY_AGENT",
    LegCause: "NONE=0 REFUSED NO_COINS NOT_SIGNED SPENT NOT_OFFERED TIMED_OUT CYCLE_FAILED "
    "NO_SCRIPT DUST TOO_MANY TOO_MUCH",
    BatchState: "DECLARED COUNTED VOID",
    PayoutKind: "MINER POOL",
    BitcoinNetwork: "MAIN TESTNET4 SIGNET REGTEST",
    Way: "OWN POOL",
}
"""Members from number 1 on, NAME=NUMBER where a gap was left to others."""


@pytest.mark.parametrize("kind", FROZEN, ids=lambda kind: kind.__name__)
def test_the_numbers_of_members_are_frozen(kind: type[enum.IntEnum]) -> None:
    expected, number = {}, 0
    for word in FROZEN[kind].split():
        name, _, given = word.partition("=")
        number = int(given) if given else number + 1
        expected[name] = number
    assert {member.name: member.value for member in kind} == expected


def test_what_an_opening_opens_is_numbered_from_zero() -> None:
    assert {member.name: member.value for member in Opened} == {
        "NOTHING": 0,
        "ITEM": 1,
        "PAYLOAD": 2,
    }


def test_the_names_of_tables_are_frozen_because_seals_hash_them() -> None:
    assert [table.value for table in Table] == [
        *("meta", "parameters", "participants", "assets", "proposals", "requests", "submissions"),
        *("open", "parties", "positions", "cycles", "cycle_members", "cycle_results"),
        *("cycle_unsettled", "cycle_remainders", "settlements", "anchors"),
        *(
            "legs",
            "leg_coins",
            "scripts",
            "coins",
            "bitcoin_headers",
            "bitcoin_chain",
        ),
        *("batches", "draws", "unsettled"),
    ]


def test_who_supervises_and_who_owes() -> None:
    roles = types.Role
    assert types.SUPERVISORS == (roles.MINISTRY, roles.CENTRAL_BANK, roles.REGULATOR)
    assert types.OBLIGORS == (roles.CENTRAL_BANK, roles.BANK, roles.EXCHANGE, roles.MINER)
    assert types.AMOUNT_MAX == 2**128 - 1


def test_an_invariant_stops_with_its_reason() -> None:
    invariant(True, "never seen")
    with pytest.raises(InvariantViolation, match=r"^seen$"):
        invariant(False, "seen")
