"""Headers from a Bitcoin node: one chain from a height to the tip, also while the node's chain moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearing.bitcoin.headers import genesis_pin, verify_chain
from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork
from node.workers.anchoring.headers import HeaderSource
from node.workers.anchoring.rpc import BitcoinError
from tests.node.workers.anchoring.anchoring_kit import Town


def test_headers_are_one_chain_from_the_height_to_the_tip(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        source = HeaderSource(town.rpc)
        tip = town.rpc.block_count()
        headers = source.read(0)
        network = BitcoinNetwork.REGTEST
        chain = verify_chain(network, 0, headers, genesis_pin(network))
        assert chain.tip_height == tip
        assert source.read(tip) == headers[-HEADER_BYTES:]
        assert source.read(tip + 1) == b""
        # Asked again after more blocks, what is kept and what is new fit together.
        town.chain.mine(3)
        longer = source.read(5)
        assert longer.startswith(headers[5 * HEADER_BYTES :])
        assert len(longer) == (tip + 3 - 5 + 1) * HEADER_BYTES
        # After a reorganisation nothing of the losing branch is left in the answer.
        town.rpc.call("generatebranch", tip, 6)
        forked = source.read(0)
        assert verify_chain(network, 0, forked, genesis_pin(network)).tip_height == tip + 6
        assert forked[: (tip + 1) * HEADER_BYTES] == headers


def test_a_node_that_is_gone_has_a_name(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        source = HeaderSource(town.rpc)
        town.unserve()
        with pytest.raises(BitcoinError):
            source.read(0)
        town.serve(town.port)
