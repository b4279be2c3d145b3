"""Anchors over independent nodes, two of them cut apart by network for a reorganisation of 6 against 8 blocks.

btcd is built by .ci/run; Bitcoin Core takes part where bitcoind is on PATH. The proofs are shown to stock `ots`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.rules.anchors import AnchorState
from node.workers.anchoring.book import Role
from node.workers.anchoring.engine import Engine
from node.workers.anchoring.network import Network
from node.workers.anchoring.policy import AlarmKind
from node.workers.anchoring.proofs import proofs_of
from tests.node.workers.anchoring.anchoring_kit import (
    FUNDED,
    POLICY,
    START_S,
    Paper,
    keyring,
    note_of,
    theft_of,
)
from tests.node.workers.anchoring.nodes_kit import KINDS, NodeProcess, ots_verify, shim

pytestmark = pytest.mark.slow

SIZE = 9
NOTE = note_of(SIZE)


@pytest.fixture(params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two nodes, connected, 110 blocks high, all rewards so far the wallet's."""
    ring = keyring()
    nodes: list[NodeProcess] = []
    try:
        nodes.append(request.param(tmp_path / "a", ring.address(FUNDED[0])))
        nodes.append(request.param(tmp_path / "b", "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"))
        first, second = nodes
        first.mine(110)
        second.connect(first)
        second.wait_same_tip(first)
        yield first, second
    finally:
        for node in nodes:
            node.stop()


def _engine(tmp_path: Path, node: NodeProcess, ledger: Paper, now: list[int]) -> Engine:
    return Engine(
        tmp_path / "anchoring",
        keyring(),
        node.rpc,
        ledger,
        network=Network.REGTEST,
        policy=POLICY,
        birthday=0,
        now_s=lambda: now[0],
    )


def _step(engine: Engine, *, now: bool = False) -> AnchorState | None:
    while engine.step(now=now)[0]:
        pass
    anchors = list(engine.desk.book)
    return anchors[-1].state if anchors else None


def _export(engine: Engine, tmp_path: Path) -> Path:
    (anchor,) = engine.desk.book
    proof = tmp_path / "checkpoint.note.ots"
    proof.with_suffix("").write_bytes(NOTE)
    proof.write_bytes(proofs_of(anchor)[0])
    return proof


def _check_ots(node: NodeProcess, proof: Path, height: int | None) -> None:
    with shim(node.rpc_port) as url:
        code, words = ots_verify(url, proof)
        if height is None:
            assert code == 1, words
            return
        assert code == 0, words
        assert f"Bitcoin block {height} attests existence" in words
        # One changed byte of the note, and of the proof.
        note = proof.with_suffix("")
        note.write_bytes(NOTE.replace(b"a", b"b", 1))
        assert ots_verify(url, proof)[0] == 1
        note.write_bytes(NOTE)
        whole = proof.read_bytes()
        altered = bytearray(whole)
        altered[len(whole) // 2] ^= 1
        proof.write_bytes(altered)
        assert ots_verify(url, proof)[0] == 1
        proof.write_bytes(whole)


def test_the_whole_walk_over_a_partition(
    pair: tuple[NodeProcess, NodeProcess], tmp_path: Path
) -> None:
    first, second = pair
    now = [START_S]
    ledger = Paper(sizes=[SIZE])
    engine = _engine(tmp_path, first, ledger, now)
    second.cut()
    assert _step(engine, now=True) is AnchorState.BROADCAST
    (anchor,) = engine.desk.book
    first.mine(1)
    assert _step(engine) is AnchorState.SHALLOW
    first.mine(5)
    assert _step(engine) is AnchorState.FINAL
    proof = _export(engine, tmp_path)
    _check_ots(first, proof, 111)
    # On the other side of the cut the same coin is spent, and eight blocks are mined.
    assert second.rpc.send(theft_of(engine, anchor)) == ""
    second.mine(8)
    second.connect(first)
    first.wait_same_tip(second)
    assert first.rpc.block_count() == 118
    assert _step(engine) is AnchorState.BROADCAST
    _check_ots(first, proof, None)
    (anchor,) = engine.desk.book
    assert len(anchor.versions) == 2
    first.mine(6)
    assert _step(engine) is AnchorState.FINAL
    (anchor,) = engine.desk.book
    said = [statement.payload.decode().split()[1] for statement in anchor.statements]
    assert said == [
        "PENDING",
        "BROADCAST",
        "SHALLOW",
        "FINAL",
        "REORGED",
        "LOST",
        "BROADCAST",
        "FINAL",
    ]
    _check_ots(first, _export(engine, tmp_path), 119)


def test_a_partition_that_only_takes_the_block_back(
    pair: tuple[NodeProcess, NodeProcess], tmp_path: Path
) -> None:
    first, second = pair
    ledger = Paper(sizes=[SIZE])
    now = [START_S]
    engine = _engine(tmp_path, first, ledger, now)
    second.cut()
    assert _step(engine, now=True) is AnchorState.BROADCAST
    first.mine(6)
    assert _step(engine) is AnchorState.FINAL
    second.mine(8)
    second.connect(first)
    first.wait_same_tip(second)
    assert _step(engine) is AnchorState.REORGED
    assert {alarm.kind for alarm in engine.standing.alarms} >= {AlarmKind.REORGANISED}
    now[0] += POLICY.rebroadcast_s
    _step(engine)
    first.mine(6)
    assert _step(engine) is AnchorState.FINAL
    (anchor,) = engine.desk.book
    assert len(anchor.versions) == 1


def test_replacements_and_children_are_taken(
    pair: tuple[NodeProcess, NodeProcess], tmp_path: Path
) -> None:
    first, _ = pair
    now = [START_S]
    engine = _engine(tmp_path, first, Paper(sizes=[SIZE]), now)
    _step(engine, now=True)
    for _ in range(3):
        now[0] += POLICY.bump_after_s
        _step(engine)
    (anchor,) = engine.desk.book
    assert [version.role for version in anchor.versions] == [
        *(Role.ANCHOR, Role.REPLACEMENT, Role.REPLACEMENT, Role.CHILD)
    ]
    held = first.rpc.call("getrawmempool")
    assert sorted(held) == sorted(one.signed.txid[::-1].hex() for one in anchor.versions[-2:])
    first.mine(1)
    assert _step(engine) is AnchorState.SHALLOW
    (anchor,) = engine.desk.book
    assert anchor.place is not None
    assert anchor.place.txid == anchor.newest.signed.txid
    assert engine.standing.spendable_sat > 0
