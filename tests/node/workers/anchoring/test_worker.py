"""The worker's loop: reports reach a real ledger in order, and whatever goes wrong is an alarm, never the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import RejectCode
from clearing.ledger import Outcome
from clearing.records.transaction import Transaction
from clearing.rows import Table, key_u32
from clearing.rules.anchors import Anchor, AnchorState
from clearing.rules.registry import Action, ActionKind, Registry
from node.keys import SigningKey
from node.services.facade import NodeCondition, NotServingError
from node.workers.anchoring import worker as module
from node.workers.anchoring.engine import Engine
from node.workers.anchoring.headers import HeaderSource
from node.workers.anchoring.ledgerside import LedgerSide
from node.workers.anchoring.network import Network
from node.workers.anchoring.policy import AlarmKind
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.anchoring.worker import AnchoringWorker
from node.workers.clerk import Clerk
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB
from tests.node.workers.anchoring.anchoring_kit import CREDENTIALS, POLICY, Paper, Town, keyring

KEY = SigningKey.from_seed(b"\x07" * 32)


class Reported(Paper):
    """Checkpoints of a test, reported as a node reports its own."""

    def __init__(self) -> None:
        super().__init__()
        side = LedgerSide(None, Network.REGTEST, lambda: None)  # type: ignore[arg-type]
        self.payload = side.payload  # type: ignore[method-assign]


class Node:
    """A real ledger in memory, as a node's member offers it; `down` refuses."""

    def __init__(self) -> None:
        self.core = Core()
        self.down = False

    @property
    def network_id(self) -> bytes:
        return self.core.state.network_id

    @property
    def registry(self) -> Registry:
        return self.core.state.registry

    async def submit(self, transaction: Transaction) -> Outcome:
        if self.down:
            raise NotServingError(NodeCondition.DISK_FULL, "the disk is full")
        return self.core.one(transaction)

    def register(self) -> None:
        subject = {"participant": CB, "node_key": KEY.public_key}
        self.core.enact(Action(ActionKind.SET_NODE_KEY, subject))

    def anchor(self) -> Anchor | None:
        row = self.core.store.get(Table.ANCHORS, key_u32(CB, 1))
        return None if row is None else Anchor.decode(row)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path, ledger=Reported()) as made:
        yield made


class Work:
    """A worker on a node and a chain, run as long as a test needs."""

    def __init__(self, town: Town, node: Node) -> None:
        self.town, self.node = town, node
        clerk = Clerk(KEY, "central-bank", lambda: node)
        self.worker = AnchoringWorker(self.engine, clerk, 0.01, HeaderSource(town.rpc))

    def engine(self) -> Engine:
        town = self.town
        return Engine(
            town.path / "work",
            keyring(),
            town.rpc,
            town.ledger,
            network=Network.REGTEST,
            policy=POLICY,
            birthday=0,
            now_s=lambda: town.now,
        )

    @property
    def alarms(self) -> set[str]:
        return {alarm.kind for alarm in self.worker.status().alarms}

    async def until(self, holds: object) -> None:
        async with asyncio.timeout(20):
            while not holds():  # type: ignore[operator]  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.01)

    def run(self, scenario: object) -> None:
        async def both() -> None:
            task = asyncio.create_task(self.worker.run())
            try:
                await scenario()  # type: ignore[operator]
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(both())


def test_every_change_reaches_the_ledger_in_order(town: Town) -> None:
    node = Node()
    node.register()
    work = Work(town, node)
    town.ledger.add(2)

    async def scenario() -> None:
        work.worker.anchor_now()
        await work.until(lambda: node.anchor() and node.anchor().state is AnchorState.BROADCAST)
        town.chain.mine(2)
        await work.until(lambda: node.anchor().state is AnchorState.SHALLOW)
        assert node.anchor().depth in (1, 2)
        town.chain.mine(4)
        await work.until(lambda: node.anchor().state is AnchorState.FINAL)
        await work.until(lambda: not work.worker.status().versions)
        assert work.worker.tip_height() == town.chain.kernel.height

    work.run(scenario)
    assert not work.alarms


def test_nothing_is_paid_for_that_the_ledger_would_not_hear_of(town: Town) -> None:
    node = Node()
    work = Work(town, node)
    town.ledger.add(2)

    async def scenario() -> None:
        work.worker.anchor_now()
        await work.until(lambda: work.alarms == {AlarmKind.LEDGER_REFUSES})
        await asyncio.sleep(0.1)
        assert not len(town.chain.mempool)
        node.register()
        await work.until(lambda: node.anchor() and node.anchor().state is AnchorState.BROADCAST)
        await work.until(lambda: not work.alarms)

    work.run(scenario)


def test_reports_wait_for_a_ledger_that_does_not_serve(town: Town) -> None:
    node = Node()
    node.register()
    node.down = True
    work = Work(town, node)
    town.ledger.add(2)

    async def scenario() -> None:
        work.worker.anchor_now()
        await work.until(lambda: AlarmKind.LEDGER_REFUSES in work.alarms)
        town.chain.mine(7)
        await work.until(lambda: work.worker.tip_height() == town.chain.kernel.height)
        assert node.anchor() is None
        node.down = False
        await work.until(lambda: node.anchor() and node.anchor().state is AnchorState.FINAL)
        await work.until(lambda: not work.worker._engine.untold())

    work.run(scenario)
    assert [one.told for one in work.engine().desk.book.anchor(1).statements] == [
        True
    ] * node.anchor().sequence + [True]


def test_a_refused_report_is_an_alarm(town: Town) -> None:
    node = Node()
    node.register()
    work = Work(town, node)
    # A checkpoint that the ledger's log has not reached.
    town.ledger.add(10_000)

    async def scenario() -> None:
        work.worker.anchor_now()
        await work.until(lambda: AlarmKind.LEDGER_REFUSES in work.alarms)
        (alarm,) = [
            one for one in work.worker.status().alarms if one.kind == AlarmKind.LEDGER_REFUSES
        ]
        assert RejectCode.ANCHOR_CHECKPOINTS.name in alarm.detail

    work.run(scenario)


def test_damaged_files_and_defects_are_alarms_and_it_goes_on(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DAMAGED_RETRY_S", 0.05)
    node = Node()
    node.register()
    work = Work(town, node)
    directory = town.path / "work"
    directory.mkdir()
    (directory / "wallet").write_bytes(b"no wallet\n")

    async def scenario() -> None:
        await work.until(lambda: work.alarms == {AlarmKind.FILES_DAMAGED})
        (directory / "wallet").unlink()
        await work.until(lambda: not work.alarms and work.worker.standing is not None)
        monkeypatch.setattr(Engine, "step", lambda *_, **__: 1 // 0)
        await work.until(lambda: AlarmKind.FAILED in work.alarms)
        monkeypatch.undo()
        monkeypatch.setattr(module, "DAMAGED_RETRY_S", 0.05)
        await work.until(lambda: not work.alarms)

    work.run(scenario)


def test_it_stops_while_the_node_hangs(town: Town) -> None:
    node = Node()
    node.register()
    # A node that hangs would be waited for ten minutes: the test's own patience is far shorter.
    town.rpc.close()
    town.rpc = BitcoinRpc(f"http://{CREDENTIALS}@127.0.0.1:{town.port}", timeout_s=600)
    work = Work(town, node)

    async def scenario() -> None:
        await work.until(lambda: work.worker.tip_height() == town.chain.kernel.height)
        town.chain.lock.acquire()
        await asyncio.sleep(0.1)

    try:
        # Ends only once the thread that waits for the node has ended.
        work.run(scenario)
    finally:
        town.chain.lock.release()
    assert not work.alarms
