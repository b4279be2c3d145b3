"""The README's example, as it stands there; test_client.py runs it beside a directory of identities."""

from pathlib import Path

from node.client import Client, Obligation

with Client.open("identities/p01") as client:
    owed = [Obligation("p01", "p02", "BTC", amount_units=150_000_000, priority=9)]
    (recorded,) = client.submit(owed)  # on the leader's disk when this returns
    receipt, proven = client.receipt(recorded.index, item=0)  # final at quorum, verified
    Path("obligation.tlog-proof").write_bytes(receipt)  # `clearing verify` needs no node
    for position in client.positions():
        print(position.asset, position.payable, position.receivable)
