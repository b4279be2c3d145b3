"""The commands of participants on a real network: submit, affirm, net, settle; JSON key by key as the issue has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from node.cli.reasons import UNSETTLED_ROWS_MAX
from node.cli.rows import TABLE_ROWS_MAX
from node.client.calls import Call
from node.client.reads import Reader
from tests.node.cli.network_kit import HEADER, Net, answers, facts, ok, refused

pytestmark = pytest.mark.slow


def test_submit_says_where_and_how_many(net: Net, tmp_path: Path) -> None:
    submitted = net.submit(tmp_path, "p01", "a1,p01,p02,BTC,1", "a2,p03,p01,USDT,2")
    assert set(submitted) == {"submission", "items", "state"}
    assert submitted["items"] == 2
    assert submitted["state"] in {"RECORDED", "CHECKPOINTED"}
    rows = facts("obligations", "--submission", str(submitted["submission"]), *net.as_("p01"))
    assert rows == [
        {
            "submission": submitted["submission"],
            "item": 0,
            "debtor": "p01",
            "creditor": "p02",
            "asset": "BTC",
            "amount": "1",
            "priority": 0,
            "due_ms": None,
            "state": "PROPOSED",
            "cycle": None,
        },
        {
            "submission": submitted["submission"],
            "item": 1,
            "debtor": "p03",
            "creditor": "p01",
            "asset": "USDT",
            "amount": "2",
            "priority": 0,
            "due_ms": None,
            "state": "PROPOSED",
            "cycle": None,
        },
    ]
    ok("rescind", "--submission", str(submitted["submission"]), *net.as_("p01"))


def test_a_wrong_file_is_refused_whole(net: Net, tmp_path: Path) -> None:
    before = facts("obligations", *net.as_("regulator"))
    file = tmp_path / "wrong.csv"
    file.write_text(HEADER + "a1,p01,p02,BTC,5\na2,p01,p99,BTC,5\na3,p01,p02,BTC,-5\n")
    error = refused(2, "submit", file, *net.as_("p01"))
    assert error["code"] == "BAD_FILE"
    assert error["count"] == 2
    assert [(row["line"], row["column"], row["code"]) for row in error["details"]] == [
        (3, "creditor", "UNKNOWN_PARTICIPANT"),
        (4, "amount", "AMOUNT_SIGN"),
    ]
    assert facts("obligations", *net.as_("regulator")) == before


def test_what_the_ledger_refuses_is_told_by_line(net: Net, tmp_path: Path) -> None:
    file = tmp_path / "late.csv"
    file.write_text(
        "id,debtor,creditor,asset,amount,due\na1,p01,p02,BTC,5,\nlate,p01,p02,BTC,5,2001-01-01\n"
    )
    error = refused(1, "submit", file, *net.as_("p01"))
    assert [(row["line"], row["id"], row["code"]) for row in error["details"]] == [
        (3, "late", "DUE_PASSED")
    ]
    assert "nothing of the file is recorded" in error["message"]


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_is_none(net: Net, tmp_path: Path, name: str) -> None:
    assert refused(2, "submit", tmp_path / name, *net.as_("p01"))["code"] == "FILE"


def test_an_empty_file_submits_nothing(net: Net, tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text(HEADER)
    assert refused(2, "submit", file, *net.as_("p01"))["code"] == "EMPTY_FILE"


def test_affirm_reject_and_rescind_by_items(net: Net, tmp_path: Path) -> None:
    rows = [f"x{i},p01,p02,BTC,{i + 1}" for i in range(6)]
    index = str(net.submit(tmp_path, "p01", *rows)["submission"])

    def states() -> list[str]:
        found = facts("obligations", "--submission", index, *net.as_("p02"))
        return [row["state"] for row in found]

    affirmed = facts("affirm", "--submission", index, "--items", "0-1,3", *net.as_("p02"))
    assert affirmed["items"] == 3
    assert [row["submission"] for row in affirmed["submissions"]] == [int(index)]
    facts("reject", "--submission", index, "--items", "2", *net.as_("p02"))
    facts("rescind", "--submission", index, "--items", "3-4", *net.as_("p01"))
    assert states() == ["AFFIRMED", "AFFIRMED", "REJECTED", "RESCINDED", "RESCINDED", "PROPOSED"]
    assert refused(1, "affirm", "--submission", index, "--items", "2", *net.as_("p02"))["code"] in {
        "ITEM_STATE",
        "NOTHING_SELECTED",
    }
    assert refused(1, "affirm", "--submission", "999999", *net.as_("p02"))["code"] == (
        "UNKNOWN_SUBMISSION"
    )
    facts("rescind", "--all", *net.as_("p01"))
    assert states().count("RESCINDED") == 5


def test_cycle_list_and_show(net: Net, settled: tuple[int, int]) -> None:
    cycle, index = settled
    listed = facts("cycle", "list", *net.as_("p04"))
    assert listed[cycle - 1] == {"cycle": cycle, "state": "SETTLED", "final": True}
    shown = facts("cycle", "show", str(cycle), *net.as_("regulator"))
    assert set(shown) == {"cycle", "state", "final", "assets"}
    kept = ("obligations", "gross", "net", "positions")
    assert {name: {key: asset[key] for key in kept} for name, asset in shown["assets"].items()} == {
        "BTC": {
            "obligations": 2,
            "gross": "900",
            "net": "500",
            "positions": {"p01": "-500", "p02": "500"},
        },
        "ETH": {
            "obligations": 1,
            "gross": str(10**24),
            "net": str(10**24),
            "positions": {"p01": str(-(10**24)), "p03": str(10**24)},
        },
        "USDT": {
            "obligations": 1,
            "gross": "1",
            "net": "1",
            "positions": {"p01": "1", "p03": "-1"},
        },
    }
    btc = shown["assets"]["BTC"]
    assert (btc["method"], btc["outcome"], btc["ratio"]) == ("positions", "netted", "0.444444")
    assert (btc["value"], btc["liquidity_used"]) == ("900", "500")
    assert btc["movements"] == btc["positions"]
    assert btc["transfers"] == [
        {"from": "p01", "to": "settlement agent", "amount": "500"},
        {"from": "settlement agent", "to": "p02", "amount": "500"},
    ]
    assert btc["unsettled"] == []
    assert "certificate" not in btc
    own = facts("cycle", "show", str(cycle), *net.as_("p02"))
    assert own["assets"]["BTC"]["positions"] == {"p02": "500"}
    rows = facts("obligations", "--submission", str(index), *net.as_("p01"))
    assert {(row["state"], row["cycle"]) for row in rows} == {("SETTLED", cycle)}
    assert refused(1, "cycle", "show", "99", *net.as_("p01"))["code"] == "NOT_FOUND"
    table = ok("cycle", "show", str(cycle), *net.as_("regulator"))
    assert "1,000,000" in table
    assert "44.4 %" in table


def test_an_unaffirmed_obligation_stays_open(net: Net, tmp_path: Path) -> None:
    index = str(net.submit(tmp_path, "p01", "a,p01,p02,BTC,5", "b,p01,p03,BTC,7")["submission"])
    facts("affirm", "--submission", index, *net.as_("p02"))
    run_ = facts("cycle", "run", *net.as_("central-bank"))
    assert run_["state"] == "NETTED"
    assert run_["assets"]["BTC"]["obligations"] == 1
    rows = facts("obligations", "--submission", index, *net.as_("p01"))
    assert [(row["state"], row["cycle"]) for row in rows] == [
        ("LOCKED", run_["cycle"]),
        ("PROPOSED", None),
    ]
    assert refused(1, "cycle", "run", *net.as_("central-bank"))["code"] == "NOTHING_TO_NET"
    assert refused(1, "cycle", "run", *net.as_("p01"))["code"] == "ROLE_NOT_ALLOWED"
    facts("instruction", "fail", f"{run_['cycle']}:0", *net.as_("p01"))
    rows = facts("obligations", "--submission", index, *net.as_("p01"))
    assert [row["state"] for row in rows] == ["AFFIRMED", "PROPOSED"]
    facts("rescind", "--submission", index, *net.as_("p01"))


def test_settlement_instructions_move_as_their_parties_say(net: Net, tmp_path: Path) -> None:
    index = str(net.submit(tmp_path, "p01", "a,p01,p02,USDT,5")["submission"])
    facts("affirm", "--submission", index, *net.as_("p02"))
    cycle = facts("cycle", "run", *net.as_("central-bank"))["cycle"]
    pay_in, pay_out = f"{cycle}:0", f"{cycle}:1"
    document = tmp_path / "payment.txt"
    document.write_text("paid")
    assert refused(1, "instruction", "confirm", pay_in, *net.as_("p02"))["code"] == "NOT_A_PARTY"
    assert refused(1, "instruction", "confirm", pay_out, *net.as_("p02"))["code"] == "NOT_FUNDED"
    done = facts("instruction", "evidence", pay_in, "--file", document, *net.as_("p01"))
    assert [(row["instruction"], row["state"]) for row in done] == [(pay_in, "EVIDENCED")]
    row = facts("instructions", "--cycle", str(cycle), *net.as_("p01"))[0]
    assert row == {
        "instruction": pay_in,
        "cycle": cycle,
        "number": 0,
        "kind": "PAY_IN",
        "participant": "p01",
        "asset": "USDT",
        "amount": "5",
        "state": "EVIDENCED",
        "evidence": hashlib.sha256(b"paid").hexdigest(),
    }
    facts("instruction", "confirm", pay_in, *net.as_("central-bank"))
    digest = hashlib.sha256(b"txid").hexdigest()
    facts("instruction", "evidence", pay_out, "--hash", digest, *net.as_("central-bank"))
    facts("instruction", "confirm", pay_out, *net.as_("p02"))
    assert facts("cycle", "show", str(cycle), *net.as_("p01"))["state"] == "SETTLED"
    error = refused(1, "instruction", "confirm", pay_out, *net.as_("p02"))
    assert error["code"] == "INSTRUCTION_STATE"
    for wrong in (("--hash", "zz"), ("--hash", digest, "--text", "t")):
        refused(2, "instruction", "evidence", pay_out, *wrong, *net.as_("p01"))


def test_positions_hold_what_the_cycle_moved(net: Net, settled: tuple[int, int]) -> None:
    rows = {row["asset"]: row for row in facts("positions", *net.as_("p01"))}
    assert set(rows["ETH"]) == {
        *("participant", "asset", "payable", "receivable", "locked_net"),
        *("paid", "received", "liquidity", "cap"),
    }
    assert rows["ETH"]["paid"] == str(10**24)
    assert "1,000,000.000000000000000000" in ok("positions", *net.as_("p01"))


def test_identity_and_endpoint_in_place_of_a_directory(net: Net) -> None:
    identity = net.path / "identities" / "p01"
    endpoint = net.layout.endpoint("central-bank")
    own = facts("obligations", *net.as_("p01"))
    assert facts("obligations", "--identity", identity) == own
    assert facts("obligations", "--identity", identity, "--endpoint", endpoint) == own
    refused(2, "obligations", "--identity", identity, "--endpoint", "nowhere")
    refused(2, "obligations", "--identity", net.path / "identities" / "p77")
    # A follower names the leader, and the client goes there.
    follower = net.layout.endpoint("p02")
    assert facts("obligations", "--identity", identity, "--endpoint", follower) == own


def test_more_rows_than_a_submission_holds_become_several(net: Net, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_text(HEADER + "".join(f"x{n},p02,p03,USDT,{n + 1}\n" for n in range(50_001)))
    submitted = facts("submit", file, *net.as_("p02"))
    assert submitted["items"] == 50_001
    assert [one["items"] for one in submitted["submissions"]] == [50_000, 1]
    last = submitted["submissions"][1]["submission"]
    rows = facts("obligations", "--submission", str(last), *net.as_("p03"))
    assert [(row["item"], row["amount"]) for row in rows] == [(0, "50001")]
    rescinded = [
        facts("rescind", "--submission", str(one["submission"]), *net.as_("p02"))["items"]
        for one in submitted["submissions"]
    ]
    assert rescinded == [50_000, 1]


def test_a_table_asks_for_no_more_than_it_shows(net: Net, tmp_path: Path) -> None:
    index = str(
        net.submit(tmp_path, "p02", *(f"t{n},p02,p03,USDT,1" for n in range(210)))["submission"]
    )
    asked = ("--submission", index, *net.as_("p02"))
    for command in (("obligations",), ("audit", "query", "obligations")):
        with answers() as heard:
            shown = ok(*command, *asked)
        assert sum(len(getattr(one, "obligations", ())) for one in heard) == TABLE_ROWS_MAX + 1
        assert "the first 200 rows; there are more, and --json prints all" in shown
        assert (f"{index}:199 " in shown, f"{index}:200 " in shown) == (True, False)
        assert len(facts(*command, *asked)) == 210
    for limit in (1, TABLE_ROWS_MAX):
        with answers() as heard:
            shown = ok("obligations", "--limit", str(limit), *asked)
        assert sum(len(getattr(one, "obligations", ())) for one in heard) == limit
        assert "there are more" not in shown
    assert "there are more" in ok("obligations", "--limit", "205", *asked)
    assert len(facts("obligations", "--limit", "205", *asked)) == 205
    ok("rescind", "--submission", index, *net.as_("p02"))


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (("positions",), "positions"),
        (("instructions",), "instructions"),
        (("cycle", "list"), "cycles"),
        (("audit", "query", "positions"), "positions"),
        (("audit", "query", "instructions"), "instructions"),
        (("audit", "query", "cycles"), "cycles"),
        (("cycle", "show", "1"), "obligations"),
    ],
    ids=" ".join,
)
def test_so_do_all_tables(
    net: Net,
    settled: tuple[int, int],
    command: tuple[str, ...],
    rows: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def counted(reader: Reader, call: Call, field: str, read: Any, rows_max: int | None) -> Any:
        if field == rows:
            asked.append(rows_max or 0)
        return as_before(reader, call, field, read, rows_max)

    as_before = Reader._pages
    monkeypatch.setattr(Reader, "_pages", counted)
    ok(*command, *net.as_("central-bank"))
    facts(*command, *net.as_("central-bank"))
    assert asked == [(UNSETTLED_ROWS_MAX if rows == "obligations" else TABLE_ROWS_MAX) + 1, 0]


def test_nothing_waits_in_the_outbox(net: Net) -> None:
    assert facts("resume", *net.as_("p01")) == []
