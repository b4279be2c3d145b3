"""Runs over whole files: laws that hold for every method and option, and the worked cases of Project Ubin."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given

from clearing.netting.engine import Engine
from clearing.netting.result import Method
from node.netting.obligation_file import read_cells
from node.netting.run import Options, Paying
from node.netting.table import AGENT_NAME, ObligationTable
from node.netting.verify import check_document
from tests.node.netting.document_kit import (
    ENGINES,
    Row,
    csv_of,
    document_of,
    limits_of,
    runs,
    written,
)

UBIN = json.loads(
    (pathlib.Path(__file__).parents[2] / "vectors" / "ubin_netting.json").read_text()
)["cases"]


@given(runs())
def test_every_result_conserves_and_is_paid_out(run: tuple[ObligationTable, Options]) -> None:
    table, options = run
    document = document_of(table, options)
    ids, amounts = table.ids.strings(), table.columns.amounts()
    amount_of = dict(zip(ids, amounts, strict=True))
    assert list(document["assets"]) == sorted(set(table.assets))
    seen = []
    for claim in document["assets"].values():
        unsettled = {entry["id"] for entry in claim["unsettled"]}
        own = [*claim["settled"], *unsettled]
        seen += own
        assert len(set(own)) == len(own) == claim["obligations"]
        assert int(claim["gross"]) == sum(amount_of[i] for i in own)
        positions = {name: int(amount) for name, amount in claim["positions"].items()}
        movements = {name: int(amount) for name, amount in claim["movements"].items()}
        assert sum(positions.values()) == sum(movements.values()) == 0
        assert list(positions) == list(movements) == sorted(positions)
        moving = claim.get("discharged", {i: amount_of[i] for i in claim["settled"]})
        assert int(claim["value"]) == sum(int(amount) for amount in moving.values())
        assert all(0 < int(amount) <= amount_of[i] for i, amount in moving.items())
        left = dict(movements)
        for transfer in claim["transfers"]:
            for name, sign in ((transfer["from"], 1), (transfer["to"], -1)):
                left[name] = left.get(name, 0) + sign * int(transfer["amount"])
        assert not any(left.values())
        if options.paying is Paying.PAIRWISE:
            assert len(claim["transfers"]) <= max(0, len(positions) - 1)
            assert AGENT_NAME not in left
    assert sorted(seen) == sorted(ids)


@given(runs())
def test_every_document_passes_its_check(run: tuple[ObligationTable, Options]) -> None:
    table, options = run
    check_document(table, written(table, options))


@given(runs())
def test_every_engine_writes_the_same_document(run: tuple[ObligationTable, Options]) -> None:
    table, options = run
    documents = [document_of(table, options, engine) for engine in ENGINES]
    for document in documents:
        document.pop("engine")
    assert all(document == documents[0] for document in documents)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", UBIN, ids=lambda case: case["id"])
def test_the_worked_cases_of_ubin(case: dict[str, Any], engine: Engine) -> None:
    queue = sorted(case["queue"], key=lambda payment: payment["order"])
    rows = [Row(p["payer"], p["payee"], "SGD", p["amount"]) for p in queue]
    table = read_cells(csv_of(rows))
    balances = limits_of({("SGD", name): amount for name, amount in case["balances"].items()})
    claim = document_of(table, Options(Method.GRIDLOCK, liquidity=balances), engine)["assets"][
        "SGD"
    ]
    best = case["greatest_fifo_set"]
    named = {f"r{number}": payment["id"] for number, payment in enumerate(queue)}
    assert sorted(named[i] for i in claim["settled"]) == sorted(best["settled"])
    assert claim["value"] == str(best["value"])
    closing = {n: case["balances"][n] + int(claim["movements"][n]) for n in claim["movements"]}
    assert closing == best["closing"]
    for money, key in ((None, "without_money"), (balances, "with_balances")):
        options = Options(Method.SETOFF, liquidity=money)
        claim = document_of(table, options, engine)["assets"]["SGD"]
        assert claim["value"] == str(case[f"setoff_value_{key}"])
        assert claim["certificate"]["gap"] == "0"


ROWS = [
    Row("A", "B", "BTC", 10),
    Row("B", "C", "BTC", 7),
    Row("C", "A", "BTC", 5),
    Row("A", "B", "BTC", 2, priority=9),
    Row("B", "A", "BTC", 4),
    Row("A", "B", "ETH", 2**128 - 1),
]


def claim_of(method: Method, **options: Any) -> dict[str, Any]:
    """Net ROWS and return what is said of BTC."""
    table = read_cells(csv_of(ROWS))
    return dict(document_of(table, Options(method, **options))["assets"]["BTC"])


def test_positions_key_by_key() -> None:
    assert claim_of(Method.POSITIONS) == {
        "obligations": 5,
        "gross": "28",
        "net": "3",
        "ratio": "0.892857",
        "liquidity_needed": "3",
        "liquidity_used": "3",
        "positions": {"A": "-3", "B": "1", "C": "2"},
        "movements": {"A": "-3", "B": "1", "C": "2"},
        "settled": ["r0", "r1", "r2", "r3", "r4"],
        "unsettled": [],
        "value": "28",
        "transfers": [
            {"from": "A", "to": AGENT_NAME, "amount": "3"},
            {"from": AGENT_NAME, "to": "B", "amount": "1"},
            {"from": AGENT_NAME, "to": "C", "amount": "2"},
        ],
    }


def test_pairwise_transfers_go_from_name_to_name() -> None:
    assert claim_of(Method.POSITIONS, paying=Paying.PAIRWISE)["transfers"] == [
        {"from": "A", "to": "B", "amount": "1"},
        {"from": "A", "to": "C", "amount": "2"},
    ]


def test_bilateral_key_by_key() -> None:
    claim = claim_of(Method.BILATERAL)
    assert {key: claim[key] for key in ("net", "value", "settled", "transfers")} == {
        "net": "3",
        "value": "8",
        "settled": ["r3", "r4"],
        "transfers": [],
    }
    assert claim["movements"] == {"A": "0", "B": "0", "C": "0"}
    assert claim["discharged"] == {"r0": "2", "r3": "2", "r4": "4"}
    assert claim["pairs"] == [
        {"debtor": "A", "creditor": "B", "net": "8", "set_off_each_way": "4"},
        {"debtor": "C", "creditor": "A", "net": "5", "set_off_each_way": "0"},
        {"debtor": "B", "creditor": "C", "net": "7", "set_off_each_way": "0"},
    ]
    assert claim["unsettled"] == [
        {"id": "r0", "reason": "COUNTERCLAIM", "participant": "B", "short": "8"},
        {"id": "r1", "reason": "COUNTERCLAIM", "participant": "C", "short": "7"},
        {"id": "r2", "reason": "COUNTERCLAIM", "participant": "A", "short": "5"},
    ]


def test_a_pair_that_owes_each_other_the_same_names_the_lesser_first() -> None:
    table = read_cells(csv_of([Row("b", "A", "BTC", 5), Row("A", "b", "BTC", 5)]))
    claim = document_of(table, Options(Method.BILATERAL))["assets"]["BTC"]
    expected = {"debtor": "A", "creditor": "b", "net": "0", "set_off_each_way": "5"}
    assert claim["pairs"] == [expected]


def test_gridlock_names_whose_cover_is_missing_and_how_much() -> None:
    limits = limits_of({("BTC", "A"): 2, ("BTC", "B"): 50, ("ETH", "A"): 1})
    claim = claim_of(Method.GRIDLOCK, liquidity=limits)
    assert claim["liquidity"] == {"A": "2", "B": "50"}
    # A pays 2 first, for its priority; with 9 coming in, 11 of cover let the 10 go, and A has 2 + 9 - 2 = 9.
    assert claim["settled"] == ["r1", "r2", "r3", "r4"]
    assert claim["value"] == "18"
    assert claim["movements"] == {"A": "7", "B": "-9", "C": "2"}
    assert claim["unsettled"] == [
        {"id": "r0", "reason": "LIQUIDITY", "participant": "A", "short": "1"}
    ]


def test_gridlock_tells_a_cap_from_cover() -> None:
    limits = limits_of({("BTC", name): 50 for name in "ABC"})
    claim = claim_of(Method.GRIDLOCK, liquidity=limits, caps=limits_of({("BTC", "A"): 2}))
    assert claim["caps"] == {"A": "2"}
    assert claim["unsettled"] == [{"id": "r0", "reason": "CAP", "participant": "A", "short": "1"}]


def test_bypass_reports_what_it_settled_alone_and_the_whole() -> None:
    limits = limits_of({("BTC", "B"): 8})
    claim = claim_of(Method.GRIDLOCK, liquidity=limits, bypass=True)
    # B pays 7 to C; C pays 5 to A; A pays 2 to B, first of its queue; B has 3 and waits for 4.
    assert claim["bypass"] == {"settled": ["r1", "r2", "r3"], "value": "14"}
    assert set(claim["bypass"]["settled"]) <= set(claim["settled"])


def test_setoff_key_by_key() -> None:
    claim = claim_of(Method.SETOFF)
    assert claim["value"] == "23"
    assert claim["discharged"] == {"r0": "7", "r1": "5", "r2": "5", "r3": "2", "r4": "4"}
    assert claim["settled"] == ["r2", "r3", "r4"]
    assert claim["unsettled"] == [
        {"id": "r0", "reason": "CYCLE", "participant": "A", "short": "3"},
        {"id": "r1", "reason": "CYCLE", "participant": "B", "short": "2"},
    ]
    certificate = claim["certificate"]
    assert (certificate["bound"], certificate["gap"]) == ("23", "0")
    q = certificate["potentials"]
    bound = sum(
        row.amount * max(0, 1 - q[row.debtor] + q[row.creditor])
        for row in ROWS
        if row.asset == "BTC"
    )
    assert bound == 23


def test_setoff_uses_liquidity_as_money() -> None:
    claim = claim_of(Method.SETOFF, liquidity=limits_of({("BTC", "A"): 100}))
    assert claim["value"] == "28"
    assert claim["movements"] == {"A": "-3", "B": "1", "C": "2"}
    assert claim["liquidity_used"] == "3"
    certificate = claim["certificate"]
    assert all(q >= 0 for q in certificate["potentials"].values())


def test_the_excluded_drop_out_with_all_their_obligations() -> None:
    claim = claim_of(Method.POSITIONS, exclude=frozenset({"C"}))
    assert claim["excluded"] == ["C"]
    assert claim["rounds"] == [{"out": ["C"], "short": []}]
    assert claim["positions"] == {"A": "-3", "B": "1", "C": "2"}
    assert claim["movements"] == {"A": "-8", "B": "8", "C": "0"}
    assert claim["settled"] == ["r0", "r3", "r4"]
    assert claim["unsettled"] == [
        {"id": "r1", "reason": "EXCLUDED", "participant": "C", "short": "0"},
        {"id": "r2", "reason": "EXCLUDED", "participant": "C", "short": "0"},
    ]
    assert claim["value"] == "16"


def test_who_falls_short_without_the_excluded_drops_out_in_the_next_round() -> None:
    limits = limits_of({("BTC", "A"): 7, ("BTC", "B"): 1})
    claim = claim_of(Method.POSITIONS, exclude=frozenset({"C"}), liquidity=limits)
    assert claim["rounds"] == [
        {"out": ["C"], "short": [{"participant": "A", "reason": "LIQUIDITY", "missing": "1"}]},
        {"out": ["A"], "short": []},
    ]
    assert claim["settled"] == []
    reasons = [
        (entry["participant"], entry["reason"], entry["short"]) for entry in claim["unsettled"]
    ]
    assert reasons == [
        ("A", "LIQUIDITY", "1"),
        ("C", "EXCLUDED", "0"),
        ("C", "EXCLUDED", "0"),
        ("A", "LIQUIDITY", "1"),
        ("A", "LIQUIDITY", "1"),
    ]


def test_positions_with_limits_say_who_falls_short_and_settle_all_the_same() -> None:
    claim = claim_of(Method.POSITIONS, caps=limits_of({("BTC", "A"): 1}))
    short = [{"participant": "A", "reason": "CAP", "missing": "2"}]
    assert claim["rounds"] == [{"out": [], "short": short}]
    assert len(claim["settled"]) == 5


def test_a_file_without_rows_gives_a_document_without_assets() -> None:
    table = read_cells(b"id,debtor,creditor,asset,amount\n")
    for method in Method:
        document = document_of(table, Options(method))
        assert document["assets"] == {}
        assert check_document(table, written(table, Options(method))).hash == document["hash"]


def test_equal_files_in_another_order_have_the_same_positions_and_hash() -> None:
    table, turned = (read_cells(csv_of(rows)) for rows in (ROWS, ROWS[::-1]))
    assert (
        document_of(table, Options())["hash"] == document_of(turned, Options(), ENGINES[0])["hash"]
    )
