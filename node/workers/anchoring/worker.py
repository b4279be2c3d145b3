"""The anchoring worker of a node: steps the engine in a thread, and tells the ledger what came of it.

Lives here: the loop, and reports on their way to the ledger. May not live here: what is done in a step (engine.py).

Reports of an anchor reach the ledger one after the other and each until it has answered; what was said before a kill is
said again in the same bytes. The node never waits for Bitcoin, and stops at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from clearing.errors import DecodeError, RejectCode, VerificationError
from clearing.records.instruction import InstructionKind
from clearing.rules.anchors import MINED
from node.errors import SetupError
from node.services.facade import (
    AnchoringAlarm,
    AnchoringStatus,
    AnchorVersion,
    NodeRefusalError,
    OutcomeUnknownError,
)
from node.workers.anchoring.book import Anchor
from node.workers.anchoring.engine import Engine, Standing
from node.workers.anchoring.headers import HeaderSource
from node.workers.anchoring.policy import Alarm, AlarmKind
from node.workers.anchoring.rpc import BitcoinError
from node.workers.clerk import Clerk

_log = structlog.get_logger(__name__)

DAMAGED_RETRY_S = 60.0


def wall_s() -> int:
    """Return the wall clock in whole seconds since 1970."""
    return int(time.time())


class AnchoringWorker:
    """Anchors the log of one node. All methods on the event loop; `standing` from any thread."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        clerk: Clerk,
        poll_s: float,
        headers: HeaderSource,
    ) -> None:
        """Prepare; `run` runs it.

        make_engine: opens the worker's files, called on a thread. poll_s: seconds between two looks at the chain. headers:
        where others' questions for headers go.
        """
        self._headers = headers
        self._make_engine = make_engine
        self._clerk = clerk
        self._poll_s = poll_s
        self._engine: Engine | None = None
        self._wake = asyncio.Event()
        self._now = False
        self._trouble: Alarm | None = None
        self._step: asyncio.Future[tuple[bool, bool]] | None = None

    @property
    def standing(self) -> Standing | None:
        """How anchoring stands after the last step, or None before its files are open."""
        return self._engine.standing if self._engine else None

    def tip_height(self) -> int:
        """Return the height up to which the chain was read, -1 before the first block."""
        return self._engine.standing.height if self._engine else -1

    def status(self) -> AnchoringStatus:
        """Return how anchoring stands after the last step; the worker's own alarm first."""
        own = (self._trouble,) if self._trouble else ()
        stands = self.standing
        if stands is None:
            return AnchoringStatus("", -1, "", (), 0, 0, 0, 0, 0, 0, tuple(map(_alarm, own)), ())
        return AnchoringStatus(
            network=stands.network.value,
            height=stands.height,
            address=stands.address,
            descriptors=stands.descriptors,
            spendable_sat=stands.spendable_sat,
            immature_sat=stands.immature_sat,
            outputs=stands.outputs,
            due=stands.due,
            bumps=stands.bumps,
            fees_sat=stands.fees_sat,
            alarms=tuple(map(_alarm, (*own, *stands.alarms))),
            versions=tuple(
                AnchorVersion(
                    anchor.number,
                    version.role.value,
                    version.signed.txid,
                    version.signed.fee_sat,
                    version.signed.vsize,
                    version.hint,
                )
                for anchor in stands.anchors
                if anchor.state not in MINED
                for version in anchor.versions
            ),
        )

    async def bitcoin_headers(self, start_height: int) -> bytes:
        """Return block headers from `start_height` on, as the Bitcoin node has them now, each on the one before.

        Raises: VerificationError: the Bitcoin node cannot be asked now.
        """
        try:
            return await asyncio.to_thread(self._headers.read, start_height)
        except BitcoinError as error:
            raise VerificationError(f"the Bitcoin node cannot be asked: {error}") from error

    def anchor_now(self) -> int:
        """Anchor what is due without waiting for the policy, as soon as no other anchor is on its way."""
        self._now = True
        self._wake.set()
        return self._engine.standing.due if self._engine else 0

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                try:
                    pause_s = await self._round()
                except (SetupError, DecodeError) as error:
                    self._alarm(AlarmKind.FILES_DAMAGED, f"anchoring stands still: {error}")
                    pause_s = DAMAGED_RETRY_S
                # The node's work is the ledger: whatever happens to its anchors must not end it, nor go unseen.
                except Exception as error:  # noqa: BLE001 - see above; it is logged whole
                    _log.exception("anchoring failed")
                    self._alarm(
                        AlarmKind.FAILED,
                        f"anchoring begins anew after {type(error).__name__}: {error}",
                    )
                    self._engine = None
                    pause_s = DAMAGED_RETRY_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                self._wake.clear()
        finally:
            if self._engine is not None:
                self._engine.stop()
            self._headers.abort()
            # Told to end early, it ends at once; nothing of it outlives the node.
            if self._step is not None:
                await asyncio.gather(self._step, return_exceptions=True)

    async def _round(self) -> float:
        """Make one step and tell the ledger what there is to tell; returns how long to pause."""
        if self._engine is None:
            self._engine = await asyncio.to_thread(self._make_engine)
        engine = self._engine
        # What nobody would hear of is not paid for.
        if not self._clerk.may_speak():
            self._alarm(
                AlarmKind.LEDGER_REFUSES,
                "this node's key is not registered as its participant's node key: have governance set it",
            )
            return self._poll_s
        # Cancelled while a thread steps, `run` waits for the thread: nobody else touches the files meanwhile.
        self._step = asyncio.ensure_future(asyncio.to_thread(engine.step, now=self._now))
        more, is_done = await asyncio.shield(self._step)
        if is_done:
            self._now = False
        self._trouble = None
        for anchor in engine.untold():
            await self._tell(engine, anchor)
        return 0 if more else self._poll_s

    async def _tell(self, engine: Engine, anchor: Anchor) -> None:
        for position, statement in enumerate(anchor.statements):
            if statement.told:
                continue
            try:
                outcome = await self._clerk.state(InstructionKind.REPORT_ANCHOR, statement.payload)
            except (NodeRefusalError, OutcomeUnknownError, SetupError) as error:
                # The ledger will not listen now: later reports of this anchor would be out of order.
                self._alarm(
                    AlarmKind.LEDGER_REFUSES, f"the ledger does not take reports now: {error}"
                )
                return
            if outcome.code is not RejectCode.OK:
                self._alarm(
                    AlarmKind.LEDGER_REFUSES,
                    f"the ledger refuses the report that anchor {anchor.number} is {statement.state.name}: "
                    f"{outcome.code.name}; is this node's key registered as its participant's node key?",
                )
                return
            await asyncio.to_thread(engine.tell, anchor.number, position, 0)

    def _alarm(self, kind: AlarmKind, detail: str) -> None:
        if self._trouble is None or (self._trouble.kind, self._trouble.detail) != (kind, detail):
            _log.warning("anchoring alarm", alarm=kind.value, detail=detail)
            self._trouble = Alarm(kind, wall_s(), detail)


def _alarm(alarm: Alarm) -> AnchoringAlarm:
    return AnchoringAlarm(alarm.kind.value, alarm.since_s * 1_000, alarm.detail)
