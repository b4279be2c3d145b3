"""A cycle's Bitcoin net paid by one transaction, and mined coin declared, by command on a network and a chain of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from embit import script

from clearing.bitcoin.transaction import Transaction, without_witness
from node.config import load_config, write_config
from node.settlement.blocks import proof_of
from node.testnet.bitcoin import BitcoinChain
from node.testnet.control import stop_network
from tests.clearing.bitcoin.bitcoin_kit import REGTEST_GENESIS, key, wpkh
from tests.node.cli.network_kit import Net, facts, ok, refused, run

pytestmark = pytest.mark.slow

OWED_SAT = 1_000_000
FEE_MAX_SAT = 9_000
REMAINING_PPM = 900_000
"""Not the default rule, so that a report shows which one it went by."""
REGTEST = {"bech32": "bcrt"}
WAIT_S = 30


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A network without anchors whose BTC nets settle by transaction, two blocks deep, and where p03 is a miner."""
    made = Net(tmp_path_factory.mktemp("settlement") / "n")
    ok("testnet", "up", "--dir", made.path, "--participants", "3")
    only_watches(made)
    header = REGTEST_GENESIS.hex()
    route = {"depth": 2, "signing_ms": 3_600_000, "fee_rate_max": 100_000}
    payout = {"participant": "p03", "kind": "miner", "script": address("p03")}
    actions = [
        {"action": "set-bitcoin-chain", "network": "regtest", "height": 0, "header": header},
        {"action": "set-route", "asset": "BTC", **route},
        {"action": "set-miner", "participant": "p03", "region": "Irkutsk"},
        {"action": "add-payout-script", **payout},
        {"action": "set-tax-rule", "remaining_ppm": REMAINING_PPM, "used_ppm": 0},
    ]
    proposed = facts("governance", "propose", "-", *made.as_("ministry"), stdin=json.dumps(actions))
    ok("governance", "approve", str(proposed["proposal"]), *made.as_("central-bank"))
    yield made
    stop_network(made.layout)


def only_watches(net: Net) -> None:
    """Take the leader's anchor wallet away: it follows the chain all the same."""
    leader = net.layout.node_path("central-bank") / "node.toml"
    ok("testnet", "stop", "central-bank", "--dir", net.path)
    write_config(leader, replace(load_config(leader), bitcoin_key_path=None), replace=True)
    ok("testnet", "start", "central-bank", "--dir", net.path)


def address(name: str) -> str:
    return str(script.Script(wpkh(name)).address(REGTEST))


def chain_of(net: Net) -> BitcoinChain:
    chain = net.layout.bitcoin
    assert chain is not None
    return chain


def node_options(net: Net) -> tuple[str | Path, ...]:
    chain = chain_of(net)
    return ("--rpc", chain.url, "--cookie", chain.cookie_path)


def mine(net: Net, blocks: int) -> None:
    ok("testnet", "mine", str(blocks), "--dir", net.path)


def key_file(tmp_path: Path, name: str) -> Path:
    file = tmp_path / f"{name}.keys"
    file.write_text(key(name).wif())
    file.chmod(0o600)
    return file


def coinbase_to(net: Net, name: str) -> tuple[int, Transaction]:
    """Mine one block whose reward goes to a name's key: (its height, its coinbase)."""
    chain = chain_of(net)
    chain.mine(1, address(name))
    with chain.rpc() as rpc:
        height = rpc.block_count()
        block_hash = rpc.block_hash(height)
        assert block_hash is not None
        return height, proof_of(rpc.block(block_hash), 0).transaction


def until(look: Callable[[], Any], wanted: Any) -> None:
    end = time.monotonic() + WAIT_S
    while (seen := look()) != wanted:
        assert time.monotonic() < end, f"{seen} after {WAIT_S} s, not {wanted}"
        time.sleep(0.1)


def check_version_2(
    net: Net, leg: tuple[str, str], files: tuple[Path, Path], options: tuple[str | Path, ...]
) -> None:
    """Go the same way by BIP 370: other bytes, the same transaction.

    leg: cycle and txid. files: unsigned and signed PSBT of version 0. options: what `sign` is told.
    """
    (cycle, txid), (unsigned, signed) = leg, files
    second, answer = unsigned.with_name("unsigned.v2"), unsigned.with_name("signed.v2")
    made = ("settle", "psbt", "create", cycle, "--out", second, "--psbt-version", "2")
    ok(*made, *net.as_("p01"))
    assert second.read_bytes() != unsigned.read_bytes()
    show = ("settle", "psbt", "show")
    assert facts(*show, second) == facts(*show, unsigned)
    ok("settle", "psbt", "sign", second, *options, "--out", answer)
    for number, given in enumerate((signed, answer)):
        file = unsigned.with_name(f"{number}.hex")
        ok("settle", "psbt", "combine", cycle, given, "--out", file, *net.as_("central-bank"))
        raw = without_witness(bytes.fromhex(file.read_text()))
        assert Transaction.decode(raw).txid == bytes.fromhex(txid)[::-1]


def test_a_cycle_settles_by_the_transaction_that_its_payer_signs(net: Net, tmp_path: Path) -> None:
    _, coinbase = coinbase_to(net, "p01")
    coin = coinbase.outputs[0]
    mine(net, 100)
    payee_keys, keys = key_file(tmp_path, "p02"), key_file(tmp_path, "p01")
    wrong = ("settle", "script", address("p02"), "--keys", keys)
    assert refused(2, *wrong, *net.as_("p02"))["code"] == "NO_KEY"
    ok("settle", "script", address("p02"), "--keys", payee_keys, *net.as_("p02"))
    net.submit(tmp_path, "p01", f"b1,p01,p02,BTC,{OWED_SAT}")
    ok("affirm", "--all", *net.as_("p02"))
    cycle = str(facts("cycle", "run", *net.as_("central-bank"))["cycle"])

    def status() -> dict[str, Any]:
        told: dict[str, Any] = facts("settle", "psbt", "status", cycle, *net.as_("p01"))
        return told

    waiting = status()
    (payer,), (payee,) = waiting["payers"], waiting["payees"]
    assert waiting["state"] == "WAITING"
    assert (payer["participant"], payer["owes_sat"], payer["coins"]) == ("p01", OWED_SAT, [])
    assert (payee["participant"], payee["script"]) == ("p02", wpkh("p02").hex())

    outpoint = {"txid": coinbase.txid[::-1].hex(), "vout": 0}
    coins = tmp_path / "coins.json"
    row = {**outpoint, "amount_sat": coin.amount_sat, "script": address("p01")}
    coins.write_text(json.dumps([row]))
    named = ("--coins", coins, "--change", address("p01"))
    ok("settle", "psbt", "coins", cycle, *named, *net.as_("p01"))

    unsigned, signed = tmp_path / "unsigned.psbt", tmp_path / "signed.psbt"
    made = ("settle", "psbt", "create", cycle, "--out")
    offered = facts(*made, unsigned, *net.as_("central-bank"))
    assert offered["state"] == "OFFERED"
    ok(*made, tmp_path / "again.psbt", *net.as_("p01"))
    assert (tmp_path / "again.psbt").read_bytes() == unsigned.read_bytes()

    shown = facts("settle", "psbt", "show", unsigned, "--keys", keys)
    assert (shown["txid"], shown["fee_sat"]) == (offered["txid"], offered["fee_sat"])
    assert [(one["own"], one["signed"]) for one in shown["inputs"]] == [(True, False)]
    assert (OWED_SAT, False) in [(one["amount_sat"], one["own"]) for one in shown["outputs"]]

    combine = ("settle", "psbt", "combine", cycle)
    told = refused(1, *combine, unsigned, *net.as_("central-bank"))
    assert (told["code"], "p01" in told["message"]) == ("NOT_SIGNED", True)
    limits = ("--owes", str(OWED_SAT), "--fee-max", str(FEE_MAX_SAT))
    cost = facts("settle", "psbt", "sign", unsigned, "--keys", keys, *limits, "--out", signed)
    assert cost["fee_own_sat"] == offered["fee_sat"] <= FEE_MAX_SAT
    check_version_2(net, (cycle, offered["txid"]), (unsigned, signed), (*limits, "--keys", keys))
    sent = (*combine, signed, "--broadcast", *node_options(net))
    broadcast = facts(*sent, *net.as_("central-bank"))
    assert (broadcast["state"], broadcast["node_says"]) == ("BROADCAST", "accepted")

    mine(net, 1)
    until(lambda: status()["state"], "MINED")
    mine(net, 1)
    until(lambda: status()["state"], "CONFIRMED")
    told_of = facts("cycle", "show", cycle, *net.as_("p01"))
    assert told_of["state"] == "SETTLED"
    assert told_of["leg"] | {"txid": offered["txid"], "why": None, "cause": None} == told_of["leg"]
    states = [one["state"] for one in facts("obligations", *net.as_("p02"))]
    assert states == ["SETTLED"]
    with chain_of(net).rpc() as rpc:
        txid = bytes.fromhex(offered["txid"])[::-1]
        outputs = [rpc.output(txid, number) for number in range(len(shown["outputs"]))]
    assert (OWED_SAT, wpkh("p02")) in [(one.amount_sat, one.script) for one in outputs if one]


def test_a_miner_declares_its_coin_once_and_it_is_reported(net: Net, tmp_path: Path) -> None:
    height, coinbase = coinbase_to(net, "p03")
    amount = coinbase.outputs[0].amount_sat
    keys = key_file(tmp_path, "p03")
    declare = ("miner", "declare", str(height), "--keys", keys, *node_options(net))
    mine(net, 98)

    def listed() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = facts("miner", "list", *net.as_("p03"))
        return rows

    # The ledger learns of the block by a watch: until then it does not know it, and then it is too young.
    until(lambda: refused(1, *declare, *net.as_("p03"))["code"], "COIN_IMMATURE")
    mine(net, 1)
    until(lambda: run(*declare, *net.as_("p03")).exit_code, 0)
    outpoint = f"{coinbase.txid[::-1].hex()}:0"
    until(lambda: [row["state"] for row in listed()], ["COUNTED"])
    (batch,) = listed()
    assert (batch["outpoint"], batch["miner"], batch["height"]) == (outpoint, "p03", height)
    assert (batch["amount"], batch["left"], batch["used"]) == (str(amount), str(amount), "0")
    assert facts("miner", "list", *net.as_("p01")) == []
    (month,) = facts("miner", "report", *net.as_("regulator"))
    assert (month["miner"], month["used"]) == ("p03", "0")
    assert (month["mined"], month["remaining"]) == (str(amount), str(amount))
    # By the region and the rule that governance set, not by what would hold without one.
    taxable = amount * REMAINING_PPM // 1_000_000
    assert (month["region"], month["taxable_base"]) == ("Irkutsk", str(taxable))
    assert refused(1, *declare, *net.as_("p03"))["code"] == "COIN_DECLARED"
    assert len(listed()) == 1


def test_a_payee_without_a_script_is_named_and_the_agent_settles(net: Net, tmp_path: Path) -> None:
    net.submit(tmp_path, "p01", f"a1,p01,p03,BTC,{OWED_SAT}")
    ok("affirm", "--all", *net.as_("p03"))
    ran = facts("cycle", "run", *net.as_("central-bank"))
    cycle = str(ran["cycle"])
    assert (ran["leg"]["state"], ran["leg"]["cause"]) == ("BY_AGENT", "NO_SCRIPT")
    assert ran["leg"]["culprit"] == "p03"
    why = facts("settle", "psbt", "status", cycle, *net.as_("p03"))["why"]
    assert "p03 registered no script" in why
    assert why in ok("cycle", "show", cycle, *net.as_("p03")).replace("\n", "")
    named = refused(2, "settle", "psbt", "create", cycle, "--out", tmp_path / "x", *net.as_("p01"))
    assert (named["code"], why in named["message"]) == ("SETTLES_BY_AGENT", True)
    log = net.layout.node_path("central-bank") / "node.log"
    until(lambda: "go through the settlement agent" in log.read_text(), wanted=True)
    net.settle(int(cycle))
    net.wait_final(int(cycle))
    assert "leg" not in facts("cycle", "show", "1", *net.as_("p03"))


def test_who_refuses_is_named_and_the_cycle_is_recast_without_it(net: Net, tmp_path: Path) -> None:
    net.submit(tmp_path, "p01", f"r1,p01,p02,BTC,{OWED_SAT}")
    net.submit(tmp_path, "p03", f"r2,p03,p02,BTC,{OWED_SAT}")
    ok("affirm", "--all", *net.as_("p02"))
    cycle = str(facts("cycle", "run", *net.as_("central-bank"))["cycle"])
    who = refused(1, "settle", "psbt", "refuse", cycle, *net.as_("p02"))
    assert who["code"] == "NOT_A_PAYER"
    told = facts("settle", "psbt", "refuse", cycle, *net.as_("p03"))
    assert (told["state"], told["cause"], told["culprit"]) == ("FAILED", "REFUSED", "p03")
    shown = facts("cycle", "show", cycle, *net.as_("regulator"))
    assert (shown["state"], shown["leg"]["culprit"]) == ("FAILED", "p03")
    fresh = facts("settle", "psbt", "recast", cycle, *net.as_("central-bank"))["cycle"]
    status = facts("settle", "psbt", "status", str(fresh), *net.as_("p01"))
    assert status["state"] == "WAITING"
    assert [one["participant"] for one in status["payers"]] == ["p01"]
    assert [one["amount_sat"] for one in status["payees"]] == [OWED_SAT]
    told = facts("settle", "psbt", "refuse", str(fresh), *net.as_("p01"))
    assert (told["state"], told["culprit"]) == ("FAILED", "p01")
