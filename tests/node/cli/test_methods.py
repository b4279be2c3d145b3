"""Cycles by gridlock and by set-off through the commands: governed, pledged, netted, explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.testnet.control import stop_network
from tests.node.cli.network_kit import Net, answers, facts, ok, refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A network that nets BTC by gridlock and ETH by set-off, once governance has said so."""
    made = Net(tmp_path_factory.mktemp("methods") / "n")
    ok("testnet", "up", "--dir", made.path, "--participants", "3")
    actions = [
        {"action": "set-method", "asset": "BTC", "method": "gridlock"},
        {"action": "set-method", "asset": "ETH", "method": "setoff"},
    ]
    proposed = facts("governance", "propose", "-", *made.as_("ministry"), stdin=json.dumps(actions))
    ok("governance", "approve", str(proposed["proposal"]), *made.as_("central-bank"))
    yield made
    stop_network(made.layout)


def test_a_cycle_tells_what_each_method_did_and_why_says_what_would_help(
    net: Net, tmp_path: Path
) -> None:
    pledged = facts("instruction", "pledge", "p01", "BTC", "30", *net.as_("central-bank"))
    assert pledged["liquidity"] == "30"
    index = net.submit(
        tmp_path,
        "p01",
        "a1,p01,p02,BTC,100",
        "a2,p01,p02,BTC,60",
        "a3,p02,p01,BTC,70",
        "a4,p01,p02,ETH,9",
        "a5,p02,p01,ETH,4",
    )["submission"]
    before = facts("why", f"{index}:0", *net.as_("p01"))
    assert (before["state"], before["settles"], before["change"]) == ("PROPOSED", False, None)
    ok("affirm", "--all", *net.as_("p02"))
    assert facts("why", f"{index}:0", *net.as_("p02"))["settles"]
    shown = facts("cycle", "run", *net.as_("central-bank"))
    btc, eth = shown["assets"]["BTC"], shown["assets"]["ETH"]
    assert (btc["method"], btc["value"], btc["liquidity_used"]) == ("gridlock", "170", "30")
    assert btc["positions"] == {"p01": "-90", "p02": "90"}
    assert btc["movements"] == {"p01": "-30", "p02": "30"}
    assert btc["unsettled"] == [
        {"id": f"{index}:1", "reason": "LIQUIDITY", "participant": "p01", "short": "60"}
    ]
    assert (eth["method"], eth["value"], eth["liquidity_used"]) == ("setoff", "8", "0")
    assert eth["unsettled"] == [
        {"id": f"{index}:3", "reason": "CYCLE", "participant": "p01", "short": "5"}
    ]
    assert (eth["certificate"]["bound"], eth["certificate"]["gap"]) == ("8", "0")
    net.settle(shown["cycle"])
    states = [row["state"] for row in facts("obligations", *net.as_("p01"))]
    assert states == ["SETTLED", "AFFIRMED", "SETTLED", "PARTLY_DISCHARGED", "SETTLED"]
    reason = facts("why", f"{index}:1", *net.as_("regulator"))
    assert (reason["reason"], reason["participant"], reason["short"]) == ("LIQUIDITY", "p01", "30")
    assert reason["change"] == {"participant": "p01", "liquidity": "30", "cap": "0"}
    ok("instruction", "pledge", "p01", "BTC", "60", *net.as_("central-bank"))
    assert facts("why", f"{index}:1", *net.as_("p01"))["settles"]
    rest = facts("why", f"{index}:3", *net.as_("p02"))
    assert (rest["reason"], rest["short"]) == ("CYCLE", "5")
    assert rest["change"] == {"participant": "p01", "liquidity": "5", "cap": "0"}
    with answers() as heard:
        told = ok("why", f"{index}:3", *net.as_("p01"))
    # Of five obligations one is asked about, and nothing else of them is fetched.
    assert [type(one).__name__ for one in heard[-2:]] == [
        "GetRegistryResponse",
        "GetReasonResponse",
    ]
    assert "0.000000000000000005 more" in told
    assert "Netted by setoff" in told
    assert "p01 pledges" in told
    own = facts("cycle", "show", "1", *net.as_("p03"))["assets"]["BTC"]
    assert (own["unsettled"], own["positions"]) == ([], {})
    assert "for want of" in ok("cycle", "show", "1", *net.as_("p01"))


def test_nobody_asks_why_of_others_or_of_nothing(net: Net) -> None:
    assert refused(1, "why", "2:0", *net.as_("p03"))["code"] == "NOT_FOUND"
    assert refused(1, "why", "999999:0", *net.as_("regulator"))["code"] == "NOT_FOUND"
    assert refused(1, "why", "2:999", *net.as_("regulator"))["code"] == "NOT_FOUND"
    for wrong in ("2", "a:b", ":", f"{1 << 64}:0", "2:-1"):
        assert refused(2, "why", wrong, *net.as_("p01"))["code"] == "BAD_ID"
    for wrong in ("1.5", str(1 << 128), "x", "\u0663"):
        arguments = ("instruction", "pledge", "p01", "BTC", wrong)
        assert refused(2, *arguments, *net.as_("central-bank"))["code"] == "BAD_AMOUNT"
