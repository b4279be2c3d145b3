"""Reports of anchors: their bytes, their order, and evidence that every replica checks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentimestamps.core.timestamp import Timestamp, make_merkle_tree

from clearing.bitcoin.anchor import carries, verify_mined
from clearing.bitcoin.next_header import BitcoinNetwork, HeaderError, HeaderFault
from clearing.bitcoin.ots import commitment_of
from clearing.errors import DecodeError, RejectCode
from clearing.rows import Table, key_u32
from clearing.rules.anchors import (
    CHECKPOINTS_MAX,
    LIFECYCLE,
    MINED,
    Anchor,
    AnchorReport,
    AnchorState,
)
from tests.clearing.anchor_kit import after, begin, digest, mined, told, with_node_key
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB

S = AnchorState
R = RejectCode


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40))
def test_the_commitment_is_the_tree_of_stock_opentimestamps(digests: list[bytes]) -> None:
    assert commitment_of(digests) == make_merkle_tree([Timestamp(one) for one in digests]).msg


def test_an_anchor_of_nothing_is_none() -> None:
    with pytest.raises(DecodeError, match="at least one"):
        commitment_of([])


REPORTS = [
    begin(2),
    begin(2, 5, 9),
    after(begin(2), S.BROADCAST, txid=b"\x05" * 32),
    mined(begin(2)),
    mined(begin(2), S.FINAL, 6),
    after(mined(begin(2)), S.REORGED),
    after(mined(begin(2)), S.LOST, txid=b"\x09" * 32),
]


@pytest.mark.parametrize(
    "report", REPORTS, ids=lambda report: f"{report.state.name}{report.sequence}"
)
def test_a_report_has_one_encoding(report: AnchorReport) -> None:
    data = report.encode()
    assert AnchorReport.decode(data) == report
    assert AnchorReport.decode(data).encode() == data
    report.verify()
    for cut in (data[:-1], data + b"\x00", data[:79], b""):
        with pytest.raises(DecodeError):
            AnchorReport.decode(cut)


def test_parts_that_do_not_belong_to_the_state_are_refused() -> None:
    first, shallow = begin(2), mined(begin(2))
    wrong = [
        replace(first, checkpoints=()),
        replace(after(first, S.BROADCAST), checkpoints=((2, digest(2)),)),
        replace(shallow, state=S.BROADCAST),
        replace(shallow, header=b"", proof=None),
        replace(first, checkpoints=tuple((n, bytes(32)) for n in range(CHECKPOINTS_MAX + 1))),
    ]
    for report in wrong:
        with pytest.raises(DecodeError):
            AnchorReport.decode(report.encode())
    for at, value in ((0, 0), (0, 7), (1, 0), (1, 9), (2, 1)):
        data = bytearray(first.encode())
        data[at] = value
        with pytest.raises(DecodeError):
            AnchorReport.decode(bytes(data))


def _net() -> Core:
    return with_node_key(Core())


def _row(net: Core, number: int = 1) -> Anchor:
    row = net.store.get(Table.ANCHORS, key_u32(CB, number))
    assert row is not None
    anchor = Anchor.decode(row)
    assert anchor.encode() == row
    return anchor


def test_the_whole_walk_is_remembered() -> None:
    net = _net()
    report = begin(1, 2)
    walk = [report]
    for state in (
        S.BROADCAST,
        S.SHALLOW,
        S.SHALLOW,
        S.FINAL,
        S.REORGED,
        S.LOST,
        S.BROADCAST,
        S.FINAL,
    ):
        depth = {S.SHALLOW: len(walk), S.FINAL: 6}.get(state, 0)
        made = mined(walk[-1], state, depth) if state in MINED else after(walk[-1], state)
        walk.append(made)
    for report in walk:
        outcome = told(net, report)
        assert outcome.code is R.OK, report.state
        anchor = _row(net)
        assert (anchor.state, anchor.sequence, anchor.depth) == (
            report.state,
            report.sequence,
            report.depth,
        )
        assert anchor.changed_index == outcome.index
        assert bool(anchor.block_hash.strip(b"\0")) == (report.state in MINED)
        if report.state in MINED:
            assert anchor.mined_index == outcome.index
        # The same statement again gets the first answer.
        again = told(net, report)
        assert (again.code, again.index, again.repeated) == (R.OK, outcome.index, True)
    assert (anchor.first_size, anchor.last_size, anchor.checkpoints) == (1, 2, 2)


def test_every_move_that_the_table_does_not_have_is_refused() -> None:
    for origin, target in itertools.product(S, S):
        net = _net()
        report = begin(2)
        for state in _way_to(origin):
            told(net, report)
            if state is not report.state:
                report = mined(report, state) if state in MINED else after(report, state)
        assert told(net, report).code is R.OK
        assert _row(net).state is origin
        tried = mined(report, target, 7) if target in MINED else after(report, target)
        expected = R.OK if LIFECYCLE.allows(origin, target) else R.ANCHOR_STATE
        assert told(net, tried).code is expected, (origin, target)


def _way_to(state: S) -> tuple[S, ...]:
    ways = {
        S.PENDING: (),
        S.BROADCAST: (S.BROADCAST,),
        S.SHALLOW: (S.SHALLOW,),
        S.FINAL: (S.FINAL,),
    }
    return ways.get(state) or {
        S.REORGED: (S.SHALLOW, S.REORGED),
        S.LOST: (S.BROADCAST, S.LOST),
    }.get(state, ())


def test_reports_and_anchors_are_numbered_without_gaps() -> None:
    net = _net()
    assert told(net, begin(2, number=2)).code is R.ANCHOR_ORDER
    assert told(net, begin(2, number=0)).code is R.ANCHOR_ORDER
    first = begin(2)
    assert told(net, after(first, S.BROADCAST)).code is R.ANCHOR_ORDER
    assert told(net, first).code is R.OK
    skipped = after(after(first, S.BROADCAST), S.SHALLOW)
    assert told(net, replace(mined(first), sequence=skipped.sequence)).code is R.ANCHOR_ORDER
    assert told(net, replace(begin(2, 3), number=1)).code is R.ANCHOR_ORDER
    assert told(net, begin(3, number=2)).code is R.OK
    assert told(net, begin(4, number=4)).code is R.ANCHOR_ORDER


def test_checkpoints_go_forward_and_are_committed_to() -> None:
    net = _net()
    size = net.state.log_size
    for wrong in ((3, 2), (2, 2), (size + 1,), (0,)):
        assert told(net, begin(*wrong)).code is R.ANCHOR_CHECKPOINTS, wrong
    assert told(net, replace(begin(2), commitment=digest(3))).code is R.ANCHOR_CHECKPOINTS
    assert told(net, begin(2, size)).code is R.OK
    assert told(net, begin(size, number=2)).code is R.ANCHOR_CHECKPOINTS
    assert told(net, begin(size + 1, number=2)).code is R.OK


def test_evidence_is_checked_by_every_replica() -> None:
    net = _net()
    first = begin(2)
    told(net, first)
    good = mined(first)
    other = mined(begin(3))
    assert good.proof is not None
    wrong = [
        replace(other, commitment=first.commitment),
        replace(good, header=other.header),
        replace(good, header=bytes(80)),
        replace(good, txid=bytes(32)),
        replace(good, depth=0),
        replace(good, network=BitcoinNetwork.MAIN),
        replace(good, proof=replace(good.proof, position=0)),
        replace(good, commitment=other.commitment),
    ]
    # What brings no evidence is of the same network all the same.
    wrong.append(replace(after(first, S.BROADCAST), network=BitcoinNetwork.MAIN))
    for report in wrong:
        assert told(net, report).code is R.ANCHOR_EVIDENCE
    assert told(net, good).code is R.OK


def test_work_is_that_of_the_network() -> None:
    report = mined(begin(2))
    assert report.proof is not None
    verify_mined(BitcoinNetwork.REGTEST, report.header, report.proof, report.commitment)
    with pytest.raises(HeaderError) as caught:
        verify_mined(BitcoinNetwork.MAIN, report.header, report.proof, report.commitment)
    assert caught.value.fault is HeaderFault.BITS
    assert carries(report.proof.transaction, report.commitment)
    assert not carries(report.proof.transaction, bytes(32))
