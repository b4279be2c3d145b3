"""Which anchor a two-clock receipt takes, and how many headers go into it."""

from __future__ import annotations

import pytest

from clearing.bitcoin.headers import Pin
from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork
from clearing.rules.anchors import AnchorState
from node.anchor_queries import AnchorRow
from node.client import NotAnchoredError
from node.client.anchored import DEPTH_KEPT, AnchoredOptions, _chosen, _kept


def row(number: int, sizes: tuple[int, ...], height: int, confirmations: int) -> AnchorRow:
    state = AnchorState.SHALLOW if height else AnchorState.REORGED
    return AnchorRow(
        id=number,
        participant=0,
        number=number,
        state=state,
        network=BitcoinNetwork.REGTEST,
        commitment=bytes(32),
        txid=bytes(32),
        block_hash=bytes(32) if height else b"",
        height=height,
        confirmations=confirmations,
        log_sizes=sizes,
        changed_ms=0,
    )


def test_the_earliest_anchor_that_is_deep_enough_with_the_least_size_that_covers() -> None:
    rows = (
        row(1, (5, 9), 90, 60),  # covers leaves up to 8
        row(2, (12, 14, 20), 120, 30),
        row(3, (11, 25), 110, 40),  # of another node, mined before
        row(4, (30,), 148, 2),
    )
    assert _chosen(rows, 8, 6) == (rows[0], 9)
    assert _chosen(rows, 9, 6) == (rows[2], 11)
    assert _chosen(rows, 11, 6) == (rows[2], 25)
    assert _chosen(rows, 25, 2) == (rows[3], 30)
    # The size is the number of leaves: the last leaf it covers is one less.
    for index, depth in ((25, 6), (30, 1), (5, 61)):
        with pytest.raises(NotAnchoredError, match=f"covers leaf {index} yet"):
            _chosen(rows, index, depth)


def test_an_anchor_in_no_block_is_none() -> None:
    with pytest.raises(NotAnchoredError, match="anchor 7 is REORGED"):
        _chosen((row(7, (9,), 0, 0),), 3, 1)
    with pytest.raises(NotAnchoredError, match="none has been made"):
        _chosen((), 3, 1)


def test_a_days_headers_are_kept_and_what_the_pin_needs() -> None:
    headers = bytes(HEADER_BYTES * 1_000)
    for options, height, last in (
        (AnchoredOptions(), 100, 100 + DEPTH_KEPT - 1),
        (AnchoredOptions(depth_min=500), 100, 599),
        (AnchoredOptions(pin=Pin(700, b"")), 100, 700),
        (AnchoredOptions(pin=Pin(50, b"")), 100, 100 + DEPTH_KEPT - 1),
        (AnchoredOptions(), 950, 999),
    ):
        assert len(_kept(headers, 0, height, options)) == (last + 1) * HEADER_BYTES
