"""`clearing receipt --anchored` on a network that anchors in its own chain: made, verified offline, gone after a reorganisation."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clearing.anchored_receipt import AnchoredReceipt
from clearing.log.proof import LogProof
from node.workers.anchoring.rpc import BitcoinRpc
from tests.node.cli.network_kit import Net, facts, ok, refused, run

WAIT_S = 60


def covering(net: Net, index: int) -> dict[str, Any] | None:
    rows = facts("anchor", "list", *net.as_("central-bank"))
    return next((row for row in rows if row["log_sizes"][-1] > index), None)


def wait_for(
    net: Net, index: int, *states: str, depth: int = 0, but: str | None = None
) -> dict[str, Any]:
    """Wait until the anchor stands so, in another block than `but`."""
    until = time.monotonic() + WAIT_S
    while True:
        row = covering(net, index)
        is_there = row is not None and row["state"] in states and row["confirmations"] >= depth
        if row is not None and is_there and row["block_hash"] != (but or ""):
            return row
        assert time.monotonic() < until, row
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("settled")  # whose cycle would take these obligations too
def test_an_anchored_receipt_is_made_verified_and_outlives_no_reorganisation(
    net: Net, tmp_path: Path
) -> None:
    chain = net.layout.bitcoin
    assert chain is not None
    rpc = BitcoinRpc(chain.url, chain.cookie_path)
    index = net.submit(tmp_path, "p01", "t1,p01,p02,BTC,701", "t2,p01,p03,BTC,702")["submission"]
    file, item = tmp_path / "two-clocks", f"{index}:1"
    ask = ("receipt", item, "--anchored", "--out", file, *net.as_("p01"))
    ok("receipt", item, "--out", tmp_path / "final", *net.as_("p01"))
    assert refused(1, *ask)["code"] == "NOT_ANCHORED"
    # An anchor that other tests left unmined would keep this one waiting.
    rpc.call("generate", 1)
    ok("anchor", "now", *net.as_("central-bank"))
    wait_for(net, index, "BROADCAST")
    rpc.call("generate", 6)
    anchor = wait_for(net, index, "SHALLOW", "FINAL", depth=6)
    made = facts(*ask)
    policy = ("--policy", net.path / "policy")
    proven = facts("verify", file, *policy)
    assert (proven["amount"], proven["existed_by"]) == ("702", made["existed_by"])
    assert proven["existed_by"]["block_hash"] == anchor["block_hash"]
    assert proven["final_at_s"] <= int(time.time())
    # One's own Bitcoin node gives the same headers, and a block that it names may be demanded.
    user = chain.cookie_path.read_text()
    pin = f"{anchor['height']}:{anchor['block_hash']}"
    own = tmp_path / "own"
    node = f"http://{user}@127.0.0.1:{chain.port}"
    ok(*ask[:3], "--out", own, "--bitcoin-node", node, "--bitcoin-header", pin, *net.as_("p03"))
    assert own.read_bytes() == file.read_bytes()
    assert facts("verify", own, *policy, "--bitcoin-header", pin)["holds"] is True
    # The timestamp in it is one that the stock library's client reads, of the very note in it.
    parsed = AnchoredReceipt.parse(file.read_bytes())
    note = tmp_path / "note"
    note.write_bytes(LogProof.parse(parsed.receipt).checkpoint.encode())
    (tmp_path / "note.ots").write_bytes(parsed.ots)
    ots = (Path(sys.executable).with_name("ots"), "--no-cache", "--no-default-whitelist")
    told = subprocess.run(
        [*ots, "--btc-regtest", "--bitcoin-node", node, "verify", tmp_path / "note.ots"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    # After a reorganisation the old file still is what it was, and no new one is made until it is anchored again.
    rpc.call("generatebranch", anchor["height"] - 1, 8)
    rpc.call("generate", 1)
    again = wait_for(net, index, "SHALLOW", "FINAL", depth=1, but=anchor["block_hash"])
    assert facts("verify", file, *policy)["holds"] is True
    told_by_node = run("verify", file, *policy, "--bitcoin-node", node, "--json")
    assert told_by_node.exit_code == 1
    assert "LESS_WORK" in told_by_node.stdout
    assert refused(1, *ask, "--depth", "100")["code"] == "NOT_ANCHORED"
    renewed = facts(*ask, "--depth", "1")
    assert renewed["existed_by"]["block_hash"] == again["block_hash"]
    demands = (*policy, "--bitcoin-node", node, "--depth", "1")
    assert facts("verify", file, *demands)["existed_by"]["height"] == again["height"]
    rpc.close()


def test_wrong_use_of_anchored_receipts_is_told(net: Net, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r", *net.as_("p01"))
    assert (
        refused(2, "receipt", "2:0", "--bitcoin-header", "0:" + "0" * 64, *out)["code"] == "USAGE"
    )
    error = refused(2, "receipt", "2:0", "--anchored", "--bitcoin-header", "nothing", *out)
    assert error["code"] == "BAD_HEADER"
    # A node of one's own that does not answer is told before anything is written.
    assert not (tmp_path / "r").exists()
