"""The commands on a real network of five processes, as a script runs them; JSON shapes key by key as the issue has them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clearing.log.keys import VerifierKey
from clearing.log.policy import Policy
from node.cli import main
from node.testnet.layout import LocalNetwork
from node.testnet.plan import NODES
from node.testnet.processes import stop_all

pytestmark = pytest.mark.slow

RUNNER = CliRunner()
HEADER = "id,debtor,creditor,asset,amount\n"


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return RUNNER.invoke(
        main.app, [str(one) for one in arguments], prog_name="clearing", input=stdin
    )


def ok(*arguments: str | Path, stdin: str | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


def facts(*arguments: str | Path, stdin: str | None = None) -> Any:
    return json.loads(ok(*arguments, "--json", stdin=stdin))


def refused(exit_code: int, *arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == exit_code, done.output
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["code"] in done.stderr
    return error


class Net:
    """One network, and the options that name a party of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def as_(self, name: str) -> tuple[str, ...]:
        return ("--dir", str(self.path), "--as", name)

    @property
    def layout(self) -> LocalNetwork:
        return LocalNetwork.open(self.path)

    def submit(self, tmp_path: Path, name: str, *rows: str) -> dict[str, Any]:
        file = tmp_path / f"{name}-{time.monotonic_ns()}.csv"
        file.write_text(HEADER + "".join(f"{row}\n" for row in rows))
        submitted: dict[str, Any] = facts("submit", file, *self.as_(name))
        return submitted

    def settle(self, cycle: int) -> None:
        for kind in ("PAY_IN", "PAY_OUT"):
            rows = facts("instructions", "--cycle", str(cycle), *self.as_("central-bank"))
            ids = [row["instruction"] for row in rows if row["kind"] == kind]
            ok("instruction", "evidence", *ids, *self.as_("central-bank"))
            ok("instruction", "confirm", *ids, *self.as_("central-bank"))

    def wait_final(self, cycle: int) -> None:
        until = time.monotonic() + 30
        while not facts("cycle", "list", *self.as_("p01"))[cycle - 1]["final"]:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    path = tmp_path_factory.mktemp("testnet") / "n"
    made = facts("testnet", "up", "--dir", path, "--participants", "4")
    assert [node["healthy"] for node in made["nodes"]] == [True] * 5
    yield Net(path)
    stop_all(LocalNetwork.open(path).processes())


@pytest.fixture(scope="module")
def settled(net: Net, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """One cycle, settled and final: (its number, the log index of its submission)."""
    index = net.submit(
        tmp_path_factory.mktemp("settled"),
        "p01",
        "a1,p01,p02,BTC,700",
        "a2,p02,p01,BTC,200",
        f"a3,p01,p03,ETH,{10**24}",
        "a4,p03,p01,USDT,1",
    )["submission"]
    for name in ("p02", "p03"):
        ok("affirm", "--all", *net.as_(name))
    cycle = facts("cycle", "run", *net.as_("central-bank"))["cycle"]
    net.settle(cycle)
    net.wait_final(cycle)
    return cycle, index


def test_status_is_what_scripts_rely_on(net: Net) -> None:
    status = facts("testnet", "status", "--dir", net.path)
    assert set(status) == {"network", "policy", "nodes", "participants", "assets"}
    assert [node["name"] for node in status["nodes"]] == list(NODES)
    assert [node["role"] for node in status["nodes"]] == [
        "central-bank",
        "ministry",
        "bank",
        "bank",
        "exchange",
    ]
    for node in status["nodes"]:
        assert set(node) == {
            *("name", "role", "lei", "endpoint", "pid", "healthy"),
            *("height", "log_size", "log_root", "state_root", "final_size"),
        }
        os.kill(node["pid"], 0)
        assert node["healthy"] is True
        assert len(bytes.fromhex(node["log_root"])) == 32
        assert node["endpoint"].startswith("127.0.0.1:")
    assert len({node["log_root"] for node in status["nodes"]}) == 1
    assert len({node["state_root"] for node in status["nodes"]}) == 1
    assert len(bytes.fromhex(status["nodes"][0]["state_root"])) == 32
    assert [set(party) for party in status["participants"]] == [
        {"name", "lei", "role", "status"}
    ] * 7
    assert {party["name"]: party["role"] for party in status["participants"]} == {
        "central-bank": "central-bank",
        "ministry": "ministry",
        "regulator": "regulator",
        "p01": "bank",
        "p02": "bank",
        "p03": "exchange",
        "p04": "bank",
    }
    assert [(a["name"], a["scale"]) for a in status["assets"]] == [
        ("BTC", 8),
        ("ETH", 18),
        ("USDT", 6),
    ]
    assert all(set(asset) == {"name", "caip19", "scale"} for asset in status["assets"])
    Policy.parse(Path(status["policy"]).read_bytes())


def test_up_again_changes_nothing_and_another_size_is_refused(net: Net) -> None:
    before = facts("testnet", "status", "--dir", net.path)
    again = facts("testnet", "up", "--dir", net.path)
    assert [node["pid"] for node in again["nodes"]] == [node["pid"] for node in before["nodes"]]
    error = refused(2, "testnet", "up", "--dir", net.path, "--participants", "9")
    assert "4 participants" in error["message"]


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
    assert shown["assets"] == {
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


def test_receipts_verify_offline_and_altered_ones_do_not(
    net: Net, settled: tuple[int, int], tmp_path: Path
) -> None:
    _, index = settled
    item, whole = tmp_path / "item.proof", tmp_path / "whole.proof"
    ok("receipt", f"{index}:2", "--out", item, *net.as_("p03"))
    ok("receipt", str(index), "--out", whole, *net.as_("p01"))
    policy = net.path / "policy"
    proven = facts("verify", item, "--policy", policy)
    assert proven["holds"] is True
    assert (proven["submission"], proven["item"], proven["amount"]) == (index, 2, str(10**24))
    assert {"central-bank", "ministry"} <= set(proven["cosigned"])
    assert facts("verify", whole, "--policy", policy)["items"] == 4
    for trust in (net.path / "log.vkey", (net.path / "log.vkey").read_text().strip()):
        assert facts("verify", item, "--vkey", trust)["holds"] is True
    data = item.read_bytes()
    altered = tmp_path / "altered.proof"
    start = data.index(b"extra ") + 6
    for at in (*range(start, start + 40, 7), data.index(b"index ") + 6):
        changed = bytearray(data)
        changed[at] = ord("B") if changed[at] != ord("B") else ord("C")
        altered.write_bytes(changed)
        done = run("verify", altered, "--policy", policy, "--json")
        assert done.exit_code == 1, at
        assert json.loads(done.stdout)["holds"] is False
    altered.write_bytes(data[:-30])
    assert run("verify", altered, "--policy", policy).exit_code == 1
    altered.write_bytes(b"")
    assert run("verify", altered, "--policy", policy).exit_code == 1
    error = refused(1, "receipt", f"{index}:0", "--out", item, *net.as_("p04"))
    assert error["code"] == "NOT_FOUND"


def test_wrong_trust_is_wrong_use(net: Net, tmp_path: Path) -> None:
    proof = tmp_path / "x"
    proof.write_text("x")
    policy = net.path / "policy"
    refused(2, "verify", proof)
    refused(2, "verify", proof, "--policy", policy, "--vkey", "k")
    refused(2, "verify", proof, "--vkey", "log+00000000+AAAA")
    refused(2, "verify", proof, "--policy", proof)
    refused(2, "verify", tmp_path / "none", "--policy", policy)


def test_position_proofs_verify_offline(net: Net, settled: tuple[int, int], tmp_path: Path) -> None:
    proof = tmp_path / "position.proof"
    shown = facts("audit", "proof", "--position", "p01:ETH", "--out", proof, *net.as_("p01"))
    assert (shown["exists"], shown["paid"]) == (True, str(10**24))
    proven = facts("verify", proof, "--policy", net.path / "policy")
    assert (proven["kind"], proven["paid"]) == ("position", str(10**24))
    absent = facts("audit", "proof", "--position", "p04:ETH", *net.as_("p04"))
    assert absent["exists"] is False
    error = refused(1, "audit", "proof", "--position", "p01:ETH", *net.as_("p02"))
    assert error["code"] in {"NOT_AUTHORISED", "NOT_FOUND"}


def test_audit_verifies_the_whole_log_and_single_leaves(net: Net) -> None:
    for name in ("regulator", "p04"):
        verified = facts("audit", "verify", *net.as_(name))
        assert verified["holds"] is True
        assert sum(verified["leaves"].values()) == verified["size"]
        assert verified["leaves"]["GENESIS"] == 1
        assert verified["leaves"]["SEAL"] == verified["blocks"]
    shown = facts("audit", "proof", "0", *net.as_("p02"))
    assert (shown["index"], shown["kind"]) == (0, "GENESIS")
    assert hashlib.sha256(b"\0" + bytes.fromhex(shown["leaf"])).hexdigest() == shown["leaf_hash"]
    assert refused(1, "audit", "proof", "99999999", *net.as_("p02"))["code"] == "NOT_FOUND"
    refused(2, "audit", "proof", *net.as_("p02"))


def test_queries_and_exports_agree(net: Net, settled: tuple[int, int], tmp_path: Path) -> None:
    everybody = facts("audit", "query", "obligations", *net.as_("regulator"))
    own = facts("audit", "query", "obligations", *net.as_("p03"))
    assert own == [row for row in everybody if "p03" in (row["debtor"], row["creditor"])]
    assert facts("obligations", *net.as_("ministry")) == everybody
    narrowed = facts(
        "obligations", "--participant", "p03", "--state", "settled", *net.as_("regulator")
    )
    assert narrowed == [row for row in own if row["state"] == "SETTLED"]
    refused(2, "obligations", "--participant", "p03", *net.as_("p01"))
    refused(2, "obligations", "--state", "lost", *net.as_("p01"))
    refused(2, "obligations", "--asset", "DOGE", *net.as_("p01"))
    out = tmp_path / "export"
    exported = facts("audit", "export", out, *net.as_("regulator"))
    for what, count in exported["rows"].items():
        with (out / f"{what}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count == len(facts("audit", "query", what, *net.as_("regulator")))
    assert (out / "checkpoint").read_text().startswith("testnet.clearing.example/log\n")


def test_positions_hold_what_the_cycle_moved(net: Net, settled: tuple[int, int]) -> None:
    rows = {row["asset"]: row for row in facts("positions", *net.as_("p01"))}
    assert set(rows["ETH"]) == {
        *("participant", "asset", "payable", "receivable", "locked_net"),
        *("paid", "received", "liquidity", "cap"),
    }
    assert rows["ETH"]["paid"] == str(10**24)
    assert "1,000,000.000000000000000000" in ok("positions", *net.as_("p01"))


def test_tiles_are_exported_and_brought_up_to_date(net: Net, tmp_path: Path) -> None:
    tiles = tmp_path / "tiles"
    first = facts("tiles", "export", tiles, *net.as_("regulator"))
    assert first["size_before"] == 0
    key = VerifierKey.parse((tiles / "log.vkey").read_text().strip())
    assert key.name == first["origin"] == "testnet.clearing.example/log"
    assert (tiles / "checkpoint").read_text().splitlines()[1] == str(first["size"])
    net.submit(tmp_path, "p01", "a,p01,p02,BTC,5")
    second = facts("tiles", "export", tiles, *net.as_("p02"))
    assert second["size_before"] == first["size"] <= second["size"]


def test_governance_suspends_at_the_second_approval(net: Net, tmp_path: Path) -> None:
    def actions(status: str) -> Path:
        file = tmp_path / f"{status}.json"
        rows = [{"action": "set-licence", "participant": "p04", "status": status}]
        file.write_text(json.dumps(rows))
        return file

    for status in ("suspended", "active"):
        made = facts("governance", "propose", actions(status), *net.as_("ministry"))
        assert (made["state"], made["approvals"]) == ("OPEN", ["ministry"])
        error = refused(1, "governance", "approve", str(made["proposal"]), *net.as_("ministry"))
        assert error["code"] == "ALREADY_APPROVED"
        done = facts("governance", "approve", str(made["proposal"]), *net.as_("central-bank"))
        assert (done["state"], done["approvals"]) == ("ENACTED", ["ministry", "central-bank"])
        parties = facts("testnet", "status", "--dir", net.path)["participants"]
        assert {party["name"]: party["status"] for party in parties}["p04"] == status
    assert facts("governance", "list", *net.as_("p01"))[-1] == done
    error = refused(1, "governance", "propose", actions("active"), *net.as_("p01"))
    assert error["code"] == "ROLE_NOT_ALLOWED"


def test_call_reaches_every_service(net: Net) -> None:
    registry = json.loads(ok("call", "GetRegistry", *net.as_("p01")))
    assert registry["assets"][0]["name"] == "BTC"
    status = ok("call", "OperatorService/GetStatus", "-", *net.as_("regulator"), stdin="{}")
    assert json.loads(status)["name"] == "central-bank"
    lines = ok("call", "GetLeaves", '{"end_index": 3}', *net.as_("p02")).splitlines()
    assert sum(len(json.loads(line)["leaves"]) for line in lines) == 3
    for method in ("QueryPositions", "GetStatus", "GetHead"):
        done = run("call", method, *net.as_("p01"), "--node", "central-bank")
        assert done.exit_code == 1
        assert "NOT_AUTHORISED" in done.stderr


def test_node_status_and_doctor(net: Net) -> None:
    status = facts("node", "status", "--node", "ministry", *net.as_("regulator"))
    assert (status["kind"], status["condition"]) == ("FULL_REPLICA", "SERVING")
    leader = facts("node", "status", *net.as_("central-bank"))
    assert {replica["name"] for replica in leader["replicas"]} == set(NODES) - {"central-bank"}
    found = run("doctor", "--config", net.path / "nodes" / "p02", "--json")
    findings = {row["check"]: row["ok"] for row in json.loads(found.stdout)}
    assert findings["certificate"]
    assert findings["signing_keys"]
    assert findings["private_files"]


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


def test_a_lost_node_is_reported_and_comes_back(net: Net) -> None:
    victim = net.layout.process("p03")
    os.kill(victim.pid() or 0, signal.SIGKILL)
    victim.wait_stopped(10)
    status = facts("testnet", "status", "--dir", net.path)
    lost = {node["name"]: node for node in status["nodes"]}["p03"]
    assert (lost["healthy"], lost["pid"], lost["log_size"]) == (False, None, None)
    assert facts("cycle", "list", *net.as_("p01"))
    again = facts("testnet", "up", "--dir", net.path)
    assert all(node["healthy"] for node in again["nodes"])
    assert len({node["log_root"] for node in again["nodes"]}) == 1


def test_down_leaves_nothing_running_and_up_brings_everything_back(net: Net) -> None:
    before = facts("testnet", "status", "--dir", net.path)
    down = facts("testnet", "down", "--dir", net.path)
    assert sorted(down["stopped"]) == sorted(NODES)
    for node in before["nodes"]:
        with pytest.raises(ProcessLookupError):
            os.kill(node["pid"], 0)
    assert facts("testnet", "down", "--dir", net.path)["stopped"] == []
    stopped = facts("testnet", "status", "--dir", net.path)
    assert not any(node["healthy"] for node in stopped["nodes"])
    assert [party["name"] for party in stopped["participants"]] == [
        party["name"] for party in before["participants"]
    ]
    error = refused(1, "obligations", *net.as_("p01"))
    assert error["code"] in {"UNAVAILABLE", "DEADLINE"}
    checked = facts("audit", "fsck", "--dir", net.path)
    assert checked["holds"] is True
    assert checked["nodes"] == list(NODES)
    up = facts("testnet", "up", "--dir", net.path)
    assert {node["log_root"] for node in up["nodes"]} == {before["nodes"][0]["log_root"]}


def test_a_running_database_is_not_checked(net: Net) -> None:
    error = refused(2, "audit", "fsck", "--dir", net.path, "--node", "p01")
    assert error["code"] == "STORE_LOCKED"
    assert "testnet down" in error["remedy"]


def test_the_installed_command_is_the_same(net: Net) -> None:
    command = Path(sys.executable).parent / "clearing"
    done = subprocess.run(
        [command, "cycle", "list", *net.as_("p01"), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == facts("cycle", "list", *net.as_("p01"))
