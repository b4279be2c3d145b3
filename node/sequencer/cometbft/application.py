"""The application that the consensus engine replicates: ABCI calls over a Machine.

Lives here: what each call does. May not live here: the socket (server.py), clients (driver.py),
rules (the core).

    Info              the engine's height up to which this node is durable, and the app hash there
    InitChain         block 0 from genesis.json; again and again the same
    CheckTx           form, signature and standing, on a read snapshot; after each block only whether it
                      is recorded meanwhile
    PrepareProposal   the fair order of transactions.py; an empty block first where the chain stood still
    ProcessProposal   form only, so that every honest proposal is accepted by everybody
    FinalizeBlock     `Machine.apply`: computes, changes nothing; again: the same
    Commit            one write transaction: the block and the engine's height; then clients are told

Invariants: nothing that a transaction contains raises: each has a code, so no block is poison; a
result for every transaction, in order; validator updates are the difference of two sets that the
core has guarded; the app hash is a function of the log alone; what cannot be made durable is tried
again, never passed over; a defect ends the node.

Block time is the engine's: the median of the validators' clocks by power, when they voted on the
block before. On a chain that stood still that lies in the past: the proposer then proposes one empty
block first, whose votes carry the present. So no block's time lies more than STILL_MS behind its
proposal.
Source: CometBFT v0.39, spec/abci/abci++_methods.md, abci++_app_requirements.md, bft-time.md.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from clearing import ledger
from clearing.consensus.commit import app_hash, chain_id
from clearing.errors import DecodeError, InvariantViolation, RejectCode, invariant
from clearing.ledger import Block, BlockResult, Outcome, Standing
from clearing.records.instruction import Instruction
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction
from clearing.rows import Table
from clearing.rules.validators import Validators
from node.pb.abci import abci_pb2 as abci
from node.sequencer.clock import wall_ms
from node.sequencer.cometbft import transactions
from node.sequencer.cometbft.home import APP_VERSION, read_block_zero
from node.sequencer.cometbft.transactions import Tick
from node.sequencer.driver import Machine
from node.store import StoreBusyError, StoreFullError

_log = structlog.get_logger(__name__)

STILL_MS = 5_000
"""A chain without a block for so long gets an empty block before the next with transactions."""

MARK_EVERY = 256
"""Blocks that change nothing cost no write; at the latest after so many the height is written down."""

RETRY_S = 1.0
CODESPACE = "clearing"
CODE_RECORDED = 1
CODE_NOT_DUE = 2


@dataclass(frozen=True, slots=True)
class _Pending:
    """A block that was computed and waits for Commit."""

    height: int
    block: Block
    result: BlockResult
    outcomes: tuple[tuple[bytes, Outcome], ...]
    items: int


@dataclass(frozen=True, slots=True)
class Events:
    """Whom the application tells, by the engine's consensus thread; none may block.

    on_block: a block with entries is durable: result, items, seconds of the write. on_outcomes: what
    became of the transactions of a durable block, by SHA-256 of their bytes. on_full: why the disk
    takes nothing now, or None once it does again.
    """

    on_block: Callable[[BlockResult, int, float], None]
    on_outcomes: Callable[[tuple[tuple[bytes, Outcome], ...]], None]
    on_full: Callable[[str | None], None]


class Application:
    """The ledger as the engine's application.

    Calls of one connection come one after the other; those of the four may come at once.
    """

    def __init__(self, machine: Machine, events: Events) -> None:
        """Stand on `machine`, whose store may be empty: then block 0 comes with InitChain."""
        self._machine = machine
        self._events = events
        with machine.store.snapshot() as view:
            self.height = view.ordered
        self._marked = self.height
        self._pending: _Pending | None = None
        self._tried_ms = machine.state.time_ms
        self._committed_s: float | None = None
        self._ends = threading.Event()
        self.deadline_ms: int | None = None
        self._set_deadline()

    def end(self) -> None:
        """Give up waiting for the disk: the node stops."""
        self._ends.set()

    @property
    def pending_block(self) -> Block | None:
        """The block computed last and not yet durable, for the report of a halt."""
        return self._pending.block if self._pending else None

    # -- the four connections

    def info(self, request: abci.RequestInfo) -> abci.ResponseInfo:
        """Say how far this node is durable; the engine replays what comes after."""
        _log.info("consensus engine connected", version=request.version, height=self.height)
        return abci.ResponseInfo(
            data="clearing",
            app_version=APP_VERSION,
            last_block_height=self.height,
            last_block_app_hash=self._app_hash() if self.height else b"",
        )

    def init_chain(self, request: abci.RequestInitChain) -> abci.ResponseInitChain:
        """Begin with block 0, durably; the engine may ask again until its first block is committed.

        Raises: DecodeError: genesis.json is not of this ledger, or of another network.
        """
        time_ms, actions = read_block_zero(request.app_state_bytes)
        result = ledger.genesis(time_ms, actions)
        network_id = result.delta.network_id
        # Validators that the register does not know could never be governed.
        theirs = {(update.pub_key.ed25519, update.power) for update in request.validators}
        ours = {(v.consensus_key, v.power) for v in result.delta.registry.validators}
        if theirs != ours or not ours or request.chain_id != chain_id(network_id):
            raise DecodeError(
                "genesis.json contradicts itself: its chain id and validators must be those of its "
                "block 0; make it anew from the same actions"
            )
        if self._machine.store.tip is None:
            self._machine.commit(result)
        state = self._machine.state
        # A database of another network, or one that has gone on without the engine.
        if state.network_id != network_id or state.height != 0:
            raise DecodeError(
                f"the database holds block {state.height} of network {state.network_id.hex()}, "
                f"genesis.json begins {network_id.hex()}: they do not belong together"
            )
        self._set_deadline()
        return abci.ResponseInitChain(app_hash=self._app_hash())

    def query(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        """Refuse: the ledger is asked through its own services, which know who may see what."""
        return abci.ResponseQuery(
            code=1, log=f"no path {request.path!r}: ask the node's services", codespace=CODESPACE
        )

    def check_tx(self, request: abci.RequestCheckTx) -> abci.ResponseCheckTx:
        """Return code 0 for what may be queued; takes no lock and reads one snapshot."""
        try:
            found = transactions.decode(request.tx)
        except DecodeError as error:
            return _checked(RejectCode.MALFORMED, str(error))
        if isinstance(found, Tick):
            is_due = found.deadline_ms == self.deadline_ms and wall_ms() >= found.deadline_ms
            return _checked(0 if is_due else CODE_NOT_DUE, "" if is_due else "nothing is due")
        outcome = self.screen(found, thorough=request.type == abci.NEW)
        if outcome is None:
            return abci.ResponseCheckTx()
        if outcome.repeated:
            return _checked(CODE_RECORDED, f"recorded at index {outcome.index}")
        return _checked(outcome.code, outcome.code.name)

    def screen(self, transaction: Transaction, *, thorough: bool) -> Outcome | None:
        """Return a first answer that is known already, or a refusal that is certain by now, or None.

        thorough: verify the signature too. Safe to call from any thread.
        """
        state, store = self._machine.state, self._machine.store
        standing = Standing(
            state.registry,
            state.network_id,
            state.time_ms,
            lambda key: store.get(Table.REQUESTS, key),
        )
        if thorough:
            return ledger.screen(standing, transaction, with_commitment=False)
        return ledger.first_answer(standing, transaction)

    def prepare_proposal(
        self, request: abci.RequestPrepareProposal
    ) -> abci.ResponsePrepareProposal:
        """Propose transactions in the fair order, or nothing where the block's time would be old."""
        still_s = STILL_MS / 1000
        if self._committed_s is None or time.monotonic() - self._committed_s > still_s:
            # The empty block's commit ends the standstill: what is left out comes right after it.
            return abci.ResponsePrepareProposal()
        chosen = transactions.fair_order(request.txs, request.max_tx_bytes)
        return abci.ResponsePrepareProposal(txs=chosen)

    def process_proposal(
        self, request: abci.RequestProcessProposal
    ) -> abci.ResponseProcessProposal:
        """Accept every proposal whose transactions parse: what depends on nothing but its bytes."""
        accepted = all(transactions.is_canonical(data) for data in request.txs)
        status = abci.ResponseProcessProposal
        return status(status=status.ACCEPT if accepted else status.REJECT)

    def finalize_block(self, request: abci.RequestFinalizeBlock) -> abci.ResponseFinalizeBlock:
        """Compute everything that follows from a decided block, and keep it for Commit.

        Raises: InvariantViolation: a block that is not the next, or a defect: the node must stop.
        """
        invariant(
            request.height == self.height + 1,
            f"the engine's block {request.height} came after {self.height}",
        )
        state = self._machine.state
        decoded = [_decoded(data) for data in request.txs]
        block = Block(
            state.height + 1,
            max(state.time_ms, _milliseconds(request.time)),
            tuple(found for found in decoded if isinstance(found, Submission | Instruction)),
            tuple(map(_misbehaviour, request.misbehavior)),
        )
        result = self._machine.apply(block)
        outcomes = iter(result.outcomes)
        answers = [
            next(outcomes) if isinstance(found, Submission | Instruction) else found
            for found in decoded
        ]
        invariant(next(outcomes, None) is None, "every transaction has an outcome")
        codes = [answer.code if isinstance(answer, Outcome) else answer for answer in answers]
        invariant(len(codes) == len(request.txs), "every transaction has a result")
        self._pending = _Pending(
            request.height,
            block,
            result,
            tuple(
                (hashlib.sha256(data).digest(), answer)
                for data, answer in zip(request.txs, answers, strict=True)
                if isinstance(answer, Outcome)
            ),
            sum(t.count if isinstance(t, Submission) else 1 for t in block.transactions),
        )
        updates = validator_updates(state.registry.validators, result.delta.registry.validators)
        return abci.ResponseFinalizeBlock(
            tx_results=[abci.ExecTxResult(code=int(code)) for code in codes],
            validator_updates=[
                abci.ValidatorUpdate(pub_key=abci.PublicKey(ed25519=key), power=power)
                for key, power in updates
            ],
            app_hash=app_hash(result.log_size, result.log_root),
        )

    def commit(self, _: abci.RequestCommit) -> abci.ResponseCommit:
        """Make the computed block durable, then tell who waits; keep all of the engine's blocks.

        Raises: InvariantViolation: no block was computed; StoreError: the disk failed.
        """
        pending = self._pending
        if pending is None:
            raise InvariantViolation(f"the block after the engine's {self.height} was lost")
        started_s = time.perf_counter()
        if pending.result.entries:
            self._durably(lambda: self._machine.commit(pending.result, ordered=pending.height))
            self._marked = pending.height
        elif pending.height - self._marked >= MARK_EVERY:
            self._durably(lambda: self._machine.store.mark_ordered(pending.height))
            self._marked = pending.height
        self._pending, self.height = None, pending.height
        self._tried_ms = pending.block.time_ms
        self._committed_s = time.monotonic()
        self._set_deadline()
        if pending.result.entries:
            took_s = time.perf_counter() - started_s
            self._events.on_block(pending.result, pending.items, took_s)
        self._events.on_outcomes(pending.outcomes)
        return abci.ResponseCommit(retain_height=0)

    # -- helpers of the consensus connection

    def _durably(self, write: Callable[[], None]) -> None:
        """Write, waiting for room where the disk is full: the chain goes on without this node."""
        while True:
            try:
                write()
                self._events.on_full(None)
                return
            except (StoreFullError, StoreBusyError) as error:
                if self._ends.is_set():
                    raise
                _log.error("block waits for the disk", reason=str(error))
                self._events.on_full(str(error))
                self._ends.wait(RETRY_S)

    def _app_hash(self) -> bytes:
        state = self._machine.state
        return app_hash(state.log_size, state.log.root)

    def _set_deadline(self) -> None:
        state = self._machine.state
        after_ms = max(self._tried_ms, state.time_ms)
        self.deadline_ms = ledger.next_deadline_ms(state, after_ms) if state.height >= 0 else None


def validator_updates(before: Validators, after: Validators) -> list[tuple[bytes, int]]:
    """Return what turns one set into another for the engine: (key, power), power 0 for one who goes.

    Each key at most once, only keys of `before` removed: the engine dies of anything else.
    """
    old = {validator.consensus_key: validator.power for validator in before}
    new = {validator.consensus_key: validator.power for validator in after}
    invariant(len(old) == len(before) and len(new) == len(after), "validators' keys are distinct")
    updates = [(key, new[key]) for key in sorted(new) if old.get(key) != new[key]]
    return updates + [(key, 0) for key in sorted(old) if key not in new]


def _checked(code: int, log: str) -> abci.ResponseCheckTx:
    return abci.ResponseCheckTx(code=int(code), log=log, codespace=CODESPACE)


def _decoded(data: bytes) -> Transaction | RejectCode:
    """Return a transaction, or the code of what is none: OK for a tick."""
    try:
        found = transactions.decode(data)
    except DecodeError:
        return RejectCode.MALFORMED
    return RejectCode.OK if isinstance(found, Tick) else found


def _milliseconds(moment: abci.Timestamp) -> int:
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def _misbehaviour(found: abci.Misbehavior) -> Misbehaviour:
    known = {kind.value for kind in MisbehaviourKind}
    return Misbehaviour(
        MisbehaviourKind(found.type if found.type in known else 0),
        # Exactly what the record holds, whatever an engine may send.
        found.validator.address[:20].ljust(20, b"\0"),
        max(found.height, 0),
        max(_milliseconds(found.time), 0),
        max(found.validator.power, 0),
        max(found.total_voting_power, 0),
    )
