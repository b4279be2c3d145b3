"""`clearing anchor` on a running test network: made, mined, exported, verified by stock ots, reorganised, made good."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.config import load_config
from node.testnet.bitcoin import BitcoinChain
from node.testnet.processes import stop_all
from node.workers.anchoring.rpc import BitcoinRpc
from tests.node.cli.network_kit import Net, facts, ok, refused
from tests.node.workers.anchoring.nodes_kit import ots_verify, wait_for

pytestmark = pytest.mark.slow

KEYS = {"id", "state", "txid", "block_hash", "height", "confirmations", "log_sizes"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A network of its own: what is mined here concerns nobody else."""
    net = Net(tmp_path_factory.mktemp("anchors") / "n")
    ok("testnet", "up", "--dir", net.path, "--participants", "3")
    yield net
    stop_all(net.layout.all_processes())


@pytest.fixture
def rpc(own: Net) -> Iterator[BitcoinRpc]:
    chain = own.layout.bitcoin
    assert chain is not None
    with chain.rpc() as client:
        yield client


def _chain(net: Net) -> BitcoinChain:
    chain = net.layout.bitcoin
    assert chain is not None
    return chain


def _anchors(net: Net, name: str = "p01", *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = facts("anchor", "list", *net.as_(name), *more)
    return found


def _last(net: Net, state: str) -> Callable[[], bool]:
    return lambda: [one["state"] for one in _anchors(net)][-1:] == [state]


def test_from_now_to_a_proof_that_survives_a_reorganisation(
    own: Net, rpc: BitcoinRpc, tmp_path: Path
) -> None:
    assert facts("anchor", "now", *own.as_("central-bank"))["due"] >= 1
    wait_for("the anchor is sent", _last(own, "BROADCAST"))
    (sent,) = _anchors(own)
    assert set(sent) == KEYS
    assert (sent["block_hash"], sent["height"], sent["confirmations"]) == (None, None, 0)
    assert sent["txid"] in rpc.call("getrawmempool")
    number = str(sent["id"])
    refused(1, "anchor", "export", number, "--out", tmp_path, *own.as_("p01"))
    status = facts("anchor", "status", *own.as_("regulator"))
    assert [one["txid"] for one in status["versions"]] == [sent["txid"]]
    assert status["alarms"] == []
    assert status["balance_sat"] > 0

    fork = rpc.block_count()
    rpc.call("generate", 6)
    wait_for("the anchor is final", _last(own, "FINAL"))
    (final,) = _anchors(own)
    assert (final["height"], final["confirmations"]) == (fork + 1, 6)
    assert rpc.call("getblockhash", final["height"]) == final["block_hash"]
    url = facts("testnet", "status", "--dir", own.path)["bitcoin"]["rpc_url"]
    files = facts("anchor", "export", number, "--out", tmp_path, *own.as_("p02"))["files"]
    assert len(files) == len(final["log_sizes"])
    proof = Path(files[0]["proof"])
    for file in files:
        assert ots_verify(url, Path(file["proof"]))[0] == 0
    # One changed byte, of the note or of its proof, and stock ots refuses.
    for changed in (proof.with_suffix(""), proof):
        whole = changed.read_bytes()
        middle = len(whole) // 2
        changed.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        assert ots_verify(url, proof)[0] == 1
        changed.write_bytes(whole)
    assert facts("anchor", "verify", "--bitcoin-node", url, *own.as_("p01"))["holds"] is True
    # Every full replica has the anchor and can prove it.
    assert _anchors(own, "ministry", "--node", "ministry") == [final]
    other = tmp_path / "ministry"
    ok("anchor", "export", number, "--out", other, *own.as_("ministry"), "--node", "ministry")
    assert (other / proof.name).read_bytes() == proof.read_bytes()

    rpc.call("generatebranch", fork, 8)
    wait_for("the anchor is reorganised", _last(own, "REORGED"))
    assert ots_verify(url, proof)[0] == 1
    assert refused(1, "anchor", "verify", number, *own.as_("p01"))["code"] == "ANCHOR_DOES_NOT_HOLD"
    alarms = facts("anchor", "status", *own.as_("ministry"), "--node", "central-bank")["alarms"]
    assert "REORGANISED" in {one["kind"] for one in alarms}

    rpc.call("generate", 6)
    wait_for("the anchor is final again", _last(own, "FINAL"))
    ok("anchor", "export", number, "--out", tmp_path, *own.as_("p02"))
    assert ots_verify(url, proof)[0] == 0
    shown = facts("anchor", "show", number, *own.as_("p01"))
    assert shown["participant"] == "central-bank"
    assert shown["network"] == "regtest"


def test_a_leader_killed_while_it_anchors_goes_on(own: Net, rpc: BitcoinRpc) -> None:
    before = len(_anchors(own))
    leader = own.layout.process("central-bank")
    facts("anchor", "now", *own.as_("central-bank"))
    wait_for("a second anchor is begun", lambda: len(_anchors(own)) > before)
    leader.kill()
    assert facts("testnet", "status", "--dir", own.path)["nodes"][0]["healthy"] is False
    rpc.call("generate", 1)
    ok("testnet", "up", "--dir", own.path)
    # Whether or not it was sent before the kill, it is sent now, and mined once.
    wait_for("it is sent or mined", lambda: _anchors(own)[-1]["state"] in ("BROADCAST", "SHALLOW"))
    rpc.call("generate", 6)
    wait_for("it is final", _last(own, "FINAL"))
    rows = _anchors(own)
    assert len(rows) == before + 1
    sizes = [size for one in rows for size in one["log_sizes"]]
    assert sizes == sorted(set(sizes))


def test_the_chain_down_is_an_alarm_and_nothing_else(own: Net) -> None:
    chain = _chain(own)
    chain.process.kill()

    def alarmed() -> bool:
        alarms = facts("anchor", "status", *own.as_("central-bank"))["alarms"]
        return "NODE_UNREACHABLE" in {one["kind"] for one in alarms}

    wait_for("the node says so", alarmed)
    assert facts("testnet", "status", "--dir", own.path)["bitcoin"]["height"] is None
    assert facts("obligations", *own.as_("p01")) == []
    chain.start()
    wait_for("it is over", lambda: not alarmed())


def test_mining_on_demand_on_a_branch_and_on_an_interval(own: Net, rpc: BitcoinRpc) -> None:
    where = ("--dir", own.path)
    height = rpc.block_count()
    assert facts("testnet", "mine", "2", *where)["height"] == height + 2
    branch = facts("testnet", "mine", "3", "--branch-from", str(height), *where)
    assert (branch["height"], len(branch["hashes"])) == (height + 3, 3)
    assert rpc.call("getbestblockhash") == branch["hashes"][-1]
    assert refused(2, "testnet", "mine", "--branch-from", "99999", *where)["code"] == "REFUSED"
    assert facts("testnet", "mine", "0", "--every", "1", *where)["every_s"] == 1
    wait_for("a block comes by itself", lambda: rpc.block_count() > height + 3)
    assert facts("testnet", "mine", "0", "--every", "0", *where)["every_s"] == 0


def test_who_may_ask_for_what(own: Net) -> None:
    assert refused(1, "anchor", "status", *own.as_("p01"))["code"] == "NOT_AUTHORISED"
    assert refused(1, "anchor", "now", *own.as_("p01"))["code"] == "NOT_AUTHORISED"
    assert refused(2, "anchor", "show", "999", *own.as_("p01"))["code"] == "UNKNOWN_ANCHOR"
    ministry = (*own.as_("ministry"), "--node", "ministry")
    assert refused(1, "anchor", "status", *ministry)["code"] == "NOT_ANCHORING"


def test_a_node_gets_its_wallet_afterwards(own: Net, tmp_path: Path) -> None:
    chain = _chain(own)
    node = tmp_path / "node"
    shutil.copytree(
        own.layout.node_path("central-bank"), node, ignore=shutil.ignore_patterns("data")
    )
    (node / "bitcoin.key").unlink()
    config = node / "node.toml"
    text = config.read_text()
    lines = [line for line in text.split("\n") if not line.startswith("bitcoin_")]
    config.write_text("\n".join(lines))
    asked = ("anchor", "init", "--config", node, "--bitcoin-node", chain.url)
    before = config.read_text()
    # Of another network, and without the password: nothing is changed.
    cookie = ("--cookie", chain.cookie_path)
    assert refused(1, *asked, *cookie)["code"] == "BITCOIN_NODE"
    assert refused(1, *asked, "--network", "regtest")["code"] == "BITCOIN_NODE"
    assert config.read_text() == before
    assert not (node / "bitcoin.key").exists()
    made = facts(*asked, *cookie, "--network", "regtest")
    assert made["made"] is True
    assert made["address"].startswith("bcrt1p")
    assert load_config(config).bitcoin_rpc_url == chain.url
    again = facts(*asked, *cookie, "--network", "regtest")
    assert (again["made"], again["address"]) == (False, made["address"])
    follower = own.layout.node_path("p01")
    told = ("anchor", "init", "--config", follower, "--bitcoin-node", chain.url)
    assert "leader or an operator" in refused(2, *told, *cookie, "--network", "regtest")["message"]
