"""The commands of auditors and governors on a real network: proofs, queries, tiles, governance, any RPC."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest

from clearing.log.keys import VerifierKey
from node.testnet.plan import NODES
from tests.node.cli.network_kit import Net, facts, ok, refused, run

pytestmark = pytest.mark.slow


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


def test_one_operator_alone_has_no_commit_to_add(
    net: Net, settled: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "proof"
    ask = ("receipt", str(settled[1]), "--commit", "--out", file, *net.as_("p01"))
    error = refused(1, *ask)
    assert (error["code"], "no validators sign" in error["message"]) == ("NOT_FOUND", True)
    assert not file.exists()
    assert refused(1, "audit", "commit", *net.as_("regulator"))["code"] == "NOT_FOUND"
    error = refused(2, "audit", "commit", "--out", file, *net.as_("regulator"))
    assert error["code"] == "USAGE"


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
    refused(2, "audit", "query", "obligations", "--participant", "p03", *net.as_("p01"))
    refused(2, "audit", "query", "cycles", "--cycle", "1", *net.as_("regulator"))
    refused(2, "audit", "query", "positions", "--submission", "1", *net.as_("regulator"))
    refused(2, "obligations", "--state", "lost", *net.as_("p01"))
    refused(2, "obligations", "--asset", "DOGE", *net.as_("p01"))
    out = tmp_path / "export"
    exported = facts("audit", "export", out, *net.as_("regulator"))
    for what, count in exported["rows"].items():
        with (out / f"{what}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count == len(facts("audit", "query", what, *net.as_("regulator")))
    assert (out / "checkpoint").read_text().startswith("testnet.clearing.example/log\n")


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
    lines = ok("call", "GetLeaves", '{"end_index": 2}', *net.as_("p02")).splitlines()
    assert sum(len(json.loads(line)["leaves"]) for line in lines) == 2
    for method in ("QueryPositions", "GetStatus", "GetHead"):
        done = run("call", method, *net.as_("p01"), "--node", "central-bank")
        assert done.exit_code == 1
        assert "NOT_AUTHORISED" in done.stderr


def test_call_tells_errors_as_json_where_json_is_asked_for(net: Net) -> None:
    assert facts("call", "GetStatus", *net.as_("regulator"))["name"] == "central-bank"
    assert refused(1, "call", "QueryPositions", *net.as_("p01"))["code"] == "NOT_AUTHORISED"
    assert refused(2, "call", "NoSuch", *net.as_("p01"))["code"] == "UNKNOWN_METHOD"
    bad = refused(2, "call", "GetLeaves", '{"nosuch": 1}', *net.as_("p01"))
    assert bad["remedy"] == "Fields of GetLeavesRequest: start_index, end_index."
    lines = ok("call", "GetLeaves", '{"end_index": 2}', "--json", *net.as_("p02")).splitlines()
    assert sum(len(json.loads(line)["leaves"]) for line in lines) == 2


def test_node_status_and_doctor(net: Net) -> None:
    status = facts("node", "status", "--node", "ministry", *net.as_("regulator"))
    assert (status["kind"], status["condition"]) == ("FULL_REPLICA", "SERVING")
    leader = facts("node", "status", *net.as_("central-bank"))
    assert {replica["name"] for replica in leader["replicas"]} == set(NODES) - {"central-bank"}
    shown = ok("node", "status", *net.as_("central-bank"))
    assert re.search(r"^ministry +full +yes +[0-9]+ *$", shown, re.MULTILINE)
    found = run("doctor", "--config", net.path / "nodes" / "p02", "--json")
    findings = {row["check"]: row["ok"] for row in json.loads(found.stdout)}
    assert findings["certificate"]
    # The node runs and has its database: that is said, and is no fault.
    assert "a running process has the database open" in found.stdout
    assert findings["map_use"]
    assert findings["signing_keys"]
    assert findings["private_files"]
