"""Anchors as the ledger's own chain of headers has them: the same on every replica, whoever reported what."""

from __future__ import annotations

from clearing.errors import RejectCode
from clearing.rows import Table
from clearing.rules.anchors import AnchorReport, AnchorState
from node.anchor_queries import anchors, depth_in_headers
from tests.clearing.anchor_kit import after, begin, mined, stated
from tests.clearing.bitcoin_net import Bitcoin, node_key
from tests.clearing.core_kit import Core

KEY = node_key("central-bank")


class View:
    """Committed rows with the bodies of reports, as much of a node's store as the queries ask for."""

    def __init__(self, net: Core, first: AnchorReport) -> None:
        self._net = net
        self._first = first

    def scan(self, table: Table, prefix: bytes = b""):
        return self._net.store.scan(table, prefix)

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._net.store.get(table, key)

    def leaf(self, _: int) -> bytes:
        return stated(self._net, self._first, key=KEY).leaf

    def body(self, _: int) -> bytes:
        return bytes(16) + self._first.encode()


def test_confirmations_are_those_of_the_ledgers_headers() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    first = begin(1, 2)
    chain = bitcoin.chain

    def tell(report: AnchorReport) -> AnchorReport:
        assert net.one(stated(net, report, key=KEY)).code is RejectCode.OK
        return report

    def depth() -> int | None:
        (row,), _ = anchors(View(net, first), 0, 10)
        return depth_in_headers(net.store, net.state.registry, row)

    sent = tell(after(tell(first), AnchorState.BROADCAST, txid=bytes(32)))
    # In no block yet: the chain can say nothing.
    assert depth() is None
    before = chain.fork(chain.height)
    tell(mined(sent, AnchorState.FINAL, depth=99, chain=chain))
    # Its node says 99 confirmations of a block that the ledger's headers do not have.
    assert depth() == 0
    bitcoin.report()
    assert depth() == 1
    chain.blocks(2)
    bitcoin.report()
    assert depth() == 3
    # A longer branch without it, whoever still calls it final.
    before.blocks(4, salt=1)
    bitcoin.report(before, 0)
    assert depth() == 0


def test_without_a_chain_of_that_network_it_is_the_nodes_word() -> None:
    net = Core()
    bitcoin = Bitcoin(net)
    first = begin(1, 2)
    sent = after(first, AnchorState.BROADCAST, txid=bytes(32))
    for report in (first, sent, mined(sent, chain=bitcoin.chain)):
        assert net.one(stated(net, report, key=KEY)).code is RejectCode.OK
    (row,), _ = anchors(View(net, first), 0, 10)
    assert depth_in_headers(net.store, net.state.registry, row) == 0
    bare = Core().state.registry
    assert depth_in_headers(net.store, bare, row) is None
