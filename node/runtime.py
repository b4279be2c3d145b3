"""One node, put together, started in order and stopped in order: the only place that wires.

Lives here: from configuration to a running node and back. May not live here: anything that is more
than wiring.

Start: files and keys checked; store opened, its tail checked; the ledger loaded; then the server,
so that status and reads are answered; then ordering or following. Stop: no new work, what was
accepted is finished, then the reverse. A defect or a failed disk stops the node with an error, and
so does a second process on the same directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import importlib
import itertools
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from clearing.errors import ClearingError, InvariantViolation
from clearing.log.policy import Policy
from node.auth import Access
from node.broadcast import Broadcast
from node.config import NodeConfig, ReplicaRole, load_config
from node.errors import PassingError, SetupError
from node.files import read_public
from node.identity import node_server_name
from node.keys import CosignerSigner, KeyFile, LogSigner, Passphrase, Secret, SigningKey
from node.observability import Metrics, MetricsServer, RpcObserver, configure_logging
from node.replication.follower import Follower
from node.replication.leader import Leader
from node.replication.link import Link
from node.replication.member import Membership
from node.replication.operators import Operator
from node.replication.replica import FullReplica, Replica, WitnessReplica
from node.sequencer.clock import BlockClock
from node.sequencer.cometbft.driver import CometSequencer
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX, block_zero_of, sockets_of
from node.sequencer.driver import Machine
from node.sequencer.embedded import EmbeddedSequencer, Limits
from node.services.facade import NodeKind
from node.services.server import NodeServer, make_server
from node.store import RollbackDetectedError, Store, StoreSettings
from node.store.heads import HEADS_FILE
from node.store.startup import check_rollback, check_state, open_checked
from node.workers.clerk import Clerk
from node.workers.witness import Cosigner

if TYPE_CHECKING:
    from node.workers.anchoring.worker import AnchoringWorker

_log = structlog.get_logger(__name__)

Work = Callable[[], Coroutine[None, None, None]]
"""Begins what runs beside the ledger until it is cancelled."""

STOP_GRACE_S = 2.0
"""How long calls under way may go on when the node stops; streams end with it."""

OBSERVE_EVERY_S = 1.0

BEGIN_ANEW_S_MIN = 1.0
BEGIN_ANEW_S_MAX = 60.0
"""Pauses before work beside the ledger that failed begins anew."""

QUIET_S = 30.0
"""How long a follower of several operators waits for a word of one before it follows the next."""

_KINDS = {
    ReplicaRole.LEADER: NodeKind.LEADER,
    ReplicaRole.OPERATOR: NodeKind.OPERATOR,
    ReplicaRole.FULL: NodeKind.FULL_REPLICA,
    ReplicaRole.WITNESS: NodeKind.WITNESS_REPLICA,
}


class NodeHaltedError(ClearingError):
    """A defect or a failed disk stopped the node; its log and its directory hold the report."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a node is made of besides its data: policy, origin of the log, and its keys.

    instruction: signs what the node reports from outside; None where it reports nothing. bitcoin: what the anchor wallet's keys
    are derived from; None where the node anchors nothing.
    """

    policy: Policy
    origin: str
    cosigner: CosignerSigner
    log: LogSigner | None
    instruction: SigningKey | None
    bitcoin: SigningKey | None = None


def open_trust(config: NodeConfig, passphrase: Passphrase | None) -> Trust:
    """Open policy and keys and check that they belong together.

    Raises: SetupError, DecodeError: a file is missing or unfit, a key does not open, or the policy
    does not list it.
    """
    policy = Policy.parse(read_public(config.policy_path))
    origins = {log.key.name for log in policy.logs}
    # Operators sign the one log, each by a key of its own; a leader has the log's only key.
    if len(origins) != 1 or (config.role is ReplicaRole.LEADER and len(policy.logs) != 1):
        raise SetupError(
            f"{config.policy_path} lists {len(policy.logs)} logs of {len(origins)} origins: it must "
            "list one, or for several operators each one's key under the same origin"
        )
    (origin,) = origins
    secret: Secret | None = KeyFile(config.key_file_path) if config.key_file_path else passphrase
    if secret is None:
        raise SetupError(f"{config.signing_key_path} needs a passphrase, or name key_file_path")
    listed = {witness.name: witness.key for witness in policy.witnesses}.get(config.node_name)
    if listed is None:
        raise SetupError(
            f"{config.policy_path} has no witness {config.node_name}: have this node's key put "
            "into the policy"
        )
    cosigner = CosignerSigner(SigningKey.load(config.signing_key_path, secret), listed.name)
    # A cosignature by another key than the listed one would count for nobody.
    if cosigner.key != listed:
        raise SetupError(
            f"{config.signing_key_path} is not the key of {config.node_name} in "
            f"{config.policy_path}: restore the pair"
        )
    log = None
    if config.log_key_path is not None:
        log = LogSigner(SigningKey.load(config.log_key_path, secret), origin)
        if log.key not in [listed_log.key for listed_log in policy.logs]:
            raise SetupError(
                f"{config.log_key_path} is not the log's key in {config.policy_path}: restore the "
                "pair"
            )
    instruction = None
    if config.instruction_key_path is not None:
        instruction = SigningKey.load(config.instruction_key_path, secret)
    bitcoin = None
    if config.bitcoin_rpc_url and config.bitcoin_key_path is not None:
        bitcoin = SigningKey.load(config.bitcoin_key_path, secret)
    return Trust(policy, origin, cosigner, log, instruction, bitcoin)


def open_store(config: NodeConfig) -> tuple[Store, RollbackDetectedError | None]:
    """Open and check the node's store; say whether it is older than what was signed from it.

    Raises: StoreError: it is locked, damaged or of another version, or a follower cannot know what
    it signed; SetupError: a leader's store is empty.
    """
    settings = StoreSettings(
        map_bytes=config.map_size_bytes, free_bytes_min=config.free_disk_bytes_min
    )
    is_leader = config.role is ReplicaRole.LEADER
    store = open_checked(config.data_dir, settings, create=not is_leader, allow_rollback=True)
    # A leader without block 0 has no network to lead.
    if is_leader and store.tip is None:
        store.close()
        raise SetupError(
            f"{config.data_dir} holds no ledger: make one with `clearing node init --role leader`"
        )
    try:
        check_rollback(store)
    except RollbackDetectedError as error:
        # A follower that knows what it signed may catch up with it; one that does not would tell
        # a restarted leader less than it has signed, and so must not follow.
        follows = config.role in (ReplicaRole.FULL, ReplicaRole.WITNESS)
        if follows and not (config.data_dir / HEADS_FILE).exists():
            store.close()
            raise
        _log.critical("rollback detected", reason=str(error))
        return store, error
    except BaseException:
        store.close()
        raise
    return store, None


class Runtime:
    """A running node: made by `start`, ended by `stop`.

    config, member, port: what it was told, the ledger as it holds it, where it serves. clerk: signs
    what its workers report, None where it reports nothing. halted: set when the node must stop
    because of `halt_reason`.
    """

    def __init__(self, config: NodeConfig) -> None:
        """Begin with nothing running; must be called on the event loop that the node shall use."""
        self.config = config
        self.member: Leader | Follower
        self.clerk: Clerk | None = None
        self.port = 0
        self.halted = asyncio.Event()
        self.halt_reason = ""
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics()
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    async def start(
        cls,
        config: NodeConfig,
        *,
        passphrase: Passphrase | None = None,
        confirm_time: bool = False,
    ) -> Runtime:
        """Start a node and return it once it serves.

        confirm_time: the operator vouches for this machine's clock (sequencer/clock.py).
        Raises: SetupError, DecodeError, StoreError: nothing is left running; the text says what to
        do.
        """
        runtime = cls(config)
        try:
            await runtime._start(passphrase, confirm_time=confirm_time)
        except BaseException:
            await runtime.stop()
            raise
        return runtime

    async def stop(self) -> None:
        """Take nothing new, finish what was accepted, end everything; again: do nothing."""
        await self._stack.aclose()

    def halt(self, reason: str) -> None:
        """Have the node stop because of `reason`; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._halt, reason)

    def _halt(self, reason: str) -> None:
        self.halt_reason = self.halt_reason or reason
        self.halted.set()

    async def _start(self, passphrase: Passphrase | None, *, confirm_time: bool) -> None:
        config = self.config
        config.tls.check(dt.datetime.now(dt.UTC))
        trust = open_trust(config, passphrase)
        store, rollback = await asyncio.to_thread(open_store, config)
        self._stack.callback(store.close)
        if trust.instruction is not None:
            self.clerk = Clerk(trust.instruction, config.node_name, lambda: self.member)
        membership = Membership(
            config.node_name,
            _KINDS[config.role],
            trust.origin,
            next((endpoint for _, endpoint in config.leaders), "")
            if config.role is not ReplicaRole.OPERATOR
            else "",
            TRANSACTION_BYTES_MAX if config.operators else 0,
        )
        begin: Callable[[], None]
        if trust.log is not None and config.role is ReplicaRole.OPERATOR:
            operator = self._operator(membership, store, trust, trust.log)
            self.member = operator
            begin = functools.partial(self._operate, operator, rollback)
        elif trust.log is not None:
            leader = self._leader(membership, store, trust, trust.log, confirm_time=confirm_time)
            self.member = leader
            begin = functools.partial(self._lead, leader, rollback)
        else:
            follower = self._follower(membership, store, trust)
            self.member = follower
            begin = functools.partial(self._follow, follower)
        worker = self._anchoring(store, trust)
        server = await self._serve(trust, worker)
        begin()
        if worker is not None:
            self._run_beside("anchoring", worker.run)
        if config.bitcoin_rpc_url and self.clerk is not None:
            self._run_beside("chain watch", self._chain_watch(store))
        await server.set_serving(serving=True)
        self._observe(store, worker)
        tip = store.tip
        _log.info(
            "node started",
            role=config.role,
            port=self.port,
            height=tip.height if tip else -1,
            log_size=tip.log_size if tip else 0,
        )

    def _leader(
        self,
        membership: Membership,
        store: Store,
        trust: Trust,
        log: LogSigner,
        *,
        confirm_time: bool,
    ) -> Leader:
        machine = Machine(store)
        check_state(store, machine.state)
        clock = BlockClock(machine.state.time_ms, confirmed=confirm_time)
        behind_ms = clock.behind_ms(machine.state.time_ms)
        if behind_ms:
            _log.warning("clock is behind the newest block", behind_ms=behind_ms)
        limits = Limits(
            block_items=self.config.block_items_max, gather_ms=self.config.block_wait_ms_max
        )
        return Leader(
            membership,
            machine,
            Broadcast(self._loop),
            policy=trust.policy,
            signer=log,
            cosigner=Cosigner(store, trust.cosigner),
            make_driver=lambda hooks: EmbeddedSequencer(
                machine, clock, store.directory, hooks, limits
            ),
            metrics=self._metrics,
            on_halt=self.halt,
        )

    def _operator(
        self, membership: Membership, store: Store, trust: Trust, log: LogSigner
    ) -> Operator:
        home = self.config.consensus_dir
        if home is None:
            raise SetupError("consensus_dir: an operator needs its consensus engine's directory")
        machine = Machine(store)
        check_state(store, machine.state)
        # So that a new operator knows who may ask it before its engine has brought the first block.
        if store.tip is None:
            machine.commit(block_zero_of(home))
        return Operator(
            membership,
            machine,
            Broadcast(self._loop),
            policy=trust.policy,
            signer=log,
            cosigner=Cosigner(store, trust.cosigner),
            make_driver=lambda hooks: CometSequencer(
                machine, sockets_of(home), store.directory, hooks
            ),
            metrics=self._metrics,
            on_halt=self.halt,
            connects={
                name: functools.partial(self._link, name, endpoint, trust)
                for name, endpoint in self.config.other_operators
            },
        )

    def _link(self, name: str, endpoint: str, trust: Trust) -> Link:
        return Link(
            endpoint,
            node_server_name(self.config.network, name),
            self.config.tls,
            policy=trust.policy,
            origin=trust.origin,
        )

    def _follower(self, membership: Membership, store: Store, trust: Trust) -> Follower:
        config = self.config
        replica: Replica
        if membership.kind is NodeKind.FULL_REPLICA:
            replica = FullReplica(store)
            check_state(store, replica.machine.state)
        else:
            replica = WitnessReplica(store)
        targets = itertools.cycle(config.leaders)

        def connect() -> Link:
            # One that does not answer, or refuses, is followed by the next.
            name, endpoint = next(targets)
            follower.point_to(endpoint)
            return self._link(name, endpoint, trust)

        follower = Follower(
            membership,
            store,
            Broadcast(self._loop),
            replica=replica,
            cosigner=Cosigner(store, trust.cosigner),
            policy=trust.policy,
            connect=connect,
            on_halt=self.halt,
            quiet_s=QUIET_S if len(config.leaders) > 1 else None,
        )
        return follower

    def _lead(self, leader: Leader, rollback: RollbackDetectedError | None) -> None:
        leader.start(rollback)
        if self.clerk is not None:
            self._run_beside("proposer", leader.proposer(self.clerk).run)
        self._stack.callback(leader.end_waits)
        self._stack.push_async_callback(asyncio.to_thread, leader.stop)

    def _operate(self, operator: Operator, rollback: RollbackDetectedError | None) -> None:
        self._lead(operator, rollback)
        self._run_beside("heads to operators", operator.peers.run)

    def _follow(self, follower: Follower) -> None:
        self._stack.callback(follower.end_waits)
        self._stack.push_async_callback(follower.close)
        self._run_beside("follower", follower.run)

    def _run_beside(self, name: str, work: Work) -> None:
        """Run `work` until it ends or the node stops."""
        task = asyncio.create_task(_kept(name, work, self.halt))

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    def _anchoring(self, store: Store, trust: Trust) -> AnchoringWorker | None:
        """Return the worker that anchors in Bitcoin, not running yet; None where none is configured."""
        config = self.config
        if trust.bitcoin is None or self.clerk is None:
            return None
        try:
            # Keys and formats come with the extra `bitcoin`, and take long to load.
            anchoring = importlib.import_module("node.workers.anchoring.assembly")
        except ImportError as error:
            raise SetupError(
                f"bitcoin_rpc_url: anchoring needs the extra `bitcoin` ({error}): install it, or remove the setting"
            ) from error
        worker: AnchoringWorker = anchoring.make_worker(
            config,
            trust.bitcoin,
            store,
            self.clerk,
            lambda: self.member.registry.by_name(config.node_name),
        )
        return worker

    def _chain_watch(self, store: Store) -> Work:
        """Return what follows the Bitcoin chain for settlement and mined coin, with or without anchoring."""
        watching = importlib.import_module("node.workers.chain_watch")
        rpc = importlib.import_module("node.workers.anchoring.rpc")
        config = self.config
        watch = watching.ChainWatch(
            rpc.BitcoinRpc(config.bitcoin_rpc_url, config.bitcoin_cookie_path),
            self.clerk,
            store,
            lambda: self.member.registry,
        )
        return functools.partial(watch.run, config.anchor_poll_ms / 1_000)

    async def _serve(self, trust: Trust, anchoring: AnchoringWorker | None) -> NodeServer:
        config, member = self.config, self.member
        observer = RpcObserver(self._metrics, lambda error: self.halt(f"{error}"))
        access = Access(
            network=config.network,
            node_lei=member.own_lei,
            peers=frozenset(witness.name for witness in trust.policy.witnesses),
            registry=lambda: (member.registry, member.time_ms),
        )
        server = make_server(member, member, access, observer, anchoring)
        credentials = config.tls.server_credentials(
            lambda error: _log.error("renewed certificate not used", reason=str(error))
        )
        try:
            self.port = server.server.add_secure_port(config.listen, credentials)
        except RuntimeError as error:
            raise PassingError(
                f"listen: cannot serve on {config.listen}: {error}; end what holds it, or choose another address"
            ) from error
        await server.server.start()

        async def end() -> None:
            await server.set_serving(serving=False)
            await server.server.stop(STOP_GRACE_S)

        self._stack.push_async_callback(end)
        return server

    def _observe(self, store: Store, anchoring: AnchoringWorker | None) -> None:
        if self.config.metrics_port:
            self._stack.enter_context(
                MetricsServer(self._metrics, self.config.metrics_host, self.config.metrics_port)
            )

        async def observe() -> None:
            while True:
                usage = store.usage()
                tip, final = store.tip, self.member.final
                self._metrics.heads(tip.log_size if tip else 0, final[0] if final else 0)
                self._metrics.storage(usage.used_bytes, usage.map_bytes, usage.free_bytes)
                if anchoring is not None:
                    stands = anchoring.status()
                    self._metrics.anchoring(stands.due, len(stands.alarms), stands.spendable_sat)
                await asyncio.sleep(OBSERVE_EVERY_S)

        self._run_beside("metrics", observe)


async def _kept(name: str, work: Work, halt: Callable[[str], None]) -> None:
    """Run `work`; where it fails it is said and begins anew: the ledger is none the worse. A defect of ours halts the node."""
    pause_s = BEGIN_ANEW_S_MIN
    while True:
        try:
            return await work()
        except InvariantViolation as error:
            _log.exception("defect in work beside the ledger", work=name)
            return halt(f"{name}: {error}")
        except Exception:  # noqa: BLE001 - see above; it is logged whole
            _log.exception(
                "work beside the ledger failed and begins anew", work=name, pause_s=pause_s
            )
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, BEGIN_ANEW_S_MAX)


async def _run(config: NodeConfig, passphrase: Passphrase | None, *, confirm_time: bool) -> str:
    """Run a node until it is told to stop or must; return why it must, "" where it was told."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    runtime = await Runtime.start(config, passphrase=passphrase, confirm_time=confirm_time)
    waits = [asyncio.create_task(event.wait()) for event in (told, runtime.halted)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await runtime.stop()
    _log.info("node stopped", reason=runtime.halt_reason or "told to")
    return runtime.halt_reason


def run(
    config_path: Path, *, passphrase: Passphrase | None = None, confirm_time: bool = False
) -> None:
    """Run the node of a configuration file until SIGTERM or SIGINT; it logs JSON lines to stderr.

    passphrase: opens the sealed keys where the configuration names no key file. confirm_time: see
    Runtime.start.
    Raises: SetupError, DecodeError, StoreError: it cannot start; NodeHaltedError: it had to stop.
    """
    config = load_config(config_path)
    configure_logging(config.log_level, sys.stderr, node=config.node_name)
    reason = asyncio.run(_run(config, passphrase, confirm_time=confirm_time))
    if reason:
        raise NodeHaltedError(f"the node stopped: {reason}; its log and directory hold the report")
