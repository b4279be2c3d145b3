"""A node and its consensus engine, run as a pair.

Lives here: starting both in order, restarting both when either ends, a clean stop. May not live here:
what a node does (runtime.py), what the engine is told and what its words mean (sequencer/cometbft).

    1. genesis.json must be there; config.toml is written from node.toml
    2. the node starts and serves the application's socket
    3. the engine starts and connects to it
    4. either ends: the other is stopped, and after a pause both start again; the pause doubles from
       PAUSE_S_MIN to PAUSE_S_MAX as long as lives are short
    5. SIGTERM or SIGINT: the node stops first and finishes what it has accepted, then the engine

What ends the supervisor. Whoever starts a pair looks at it, so what is wrong with its node.toml, its
files and settings ends it at once, by a sentence. What may pass by itself (errors.may_pass: a full disk, no
descriptor, a port still taken, a clock not set yet) never does, and once the node has served its
engine nothing does: it runs unattended, and must come back when the disk has room again, or when the
file that somebody has spoiled is whole. Each end is logged with its reason, and with how many lives in
a row were short. A node that opens a large ledger may take as long as it needs.

The engine ends with status 0 when its application is gone, so every end counts the same. An engine
that takes part no more for want of something the machine lacked is ended, so that it starts again;
where it says anything else a person must look: its remedy is logged, and it is left as it stands.

The node is a child that stops when its standard input ends: it never outlives its supervisor. The
engine ends with the node. Process ids are in CONSENSUS_DIR/run/{node,cometbft}.pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from node.config import LogLevel, NodeConfig, load_config
from node.errors import SetupError, may_pass
from node.files import PUBLIC_MODE, replace_file
from node.keys import Passphrase
from node.observability import configure_logging
from node.sequencer.cometbft import binary
from node.sequencer.cometbft.home import (
    EngineSettings,
    Sockets,
    block_zero_of,
    check_validator_state,
    read_keys,
    remove_address_book,
    remove_sockets,
    sockets_of,
    write_config,
)
from node.sequencer.cometbft.words import read_line

_log = structlog.get_logger(__name__)

PAUSE_S_MIN = 0.25
PAUSE_S_MAX = 15.0
SHORT_LIFE_S = 10.0
SLOW_S = 60.0
"""After so long it is said that a node does not serve its engine yet, and again after as long."""

STOP_S = 15.0
_POLL_S = 0.02
_LINE_BYTES_MAX = 1 << 20

EXIT_WRONG_USE = 2
"""The node's own exit status for a file or setting that is not as it must be."""


@dataclass(frozen=True, slots=True)
class PairEnded:
    """How a life ended: who first, why, and whether it was worth its name."""

    who: str
    reason: str
    is_short: bool
    status: int = -1


class Supervisor:
    """Runs one pair until told to stop."""

    def __init__(
        self, config_path: Path, passphrase: Passphrase | None, extra: tuple[str, ...]
    ) -> None:
        """Run the node of `config_path`; `extra` goes to its command line.

        Raises: SetupError: the configuration is not an operator's.
        """
        self._path = config_path
        self._passphrase = passphrase
        self._extra = extra
        self._config = load_config(config_path)
        if self._config.consensus_dir is None:
            raise SetupError(
                f"{config_path}: consensus_dir is missing: only operators have an engine"
            )
        self._home = self._config.consensus_dir
        self._told = asyncio.Event()
        self._program: Path | None = None
        self._has_served = False

    async def run(self) -> None:
        """Run pairs until told to stop.

        Raises: SetupError: what is wrong must be changed before a pair can start; see the module.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        short_lives = 0
        while True:
            ended = await self._live()
            if ended is None:
                return
            if ended.status == EXIT_WRONG_USE and not self._has_served:
                raise SetupError("the node cannot start: its log says what to change")
            short_lives = short_lives + 1 if ended.is_short else 0
            # Beyond what any pause needs, the power is only a large number.
            pause_s = min(PAUSE_S_MIN * 2 ** min(max(short_lives - 1, 0), 16), PAUSE_S_MAX)
            _log.error(
                "pair ended and starts again",
                first=ended.who,
                reason=ended.reason,
                short_lives=short_lives,
                pause_s=pause_s,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), pause_s)
                return

    async def _live(self) -> PairEnded | None:
        """Run a pair; what keeps it from starting is an end like another, unless it must be changed first."""
        try:
            return await self._run_pair()
        except Exception as error:
            if not self._has_served and not may_pass(error):
                raise
            unexpected = None if isinstance(error, SetupError | OSError) else error
            _log.error("pair not started", reason=str(error), exc_info=unexpected)
            return PairEnded("supervisor", str(error), is_short=True)

    async def _run_pair(self) -> PairEnded | None:
        """Run node and engine until one ends or the supervisor is told to stop (None)."""
        started_s = time.monotonic()
        node = engine = relay = None
        told = asyncio.create_task(self._told.wait())
        try:
            sockets = await asyncio.to_thread(self._prepare)
            node = await self._start_node()
            self._write_pid("node", node.pid)
            if await self._is_ready(sockets, node):
                self._has_served = True
                engine = await self._start_engine()
                relay = asyncio.create_task(self._relay(engine))
                self._write_pid(binary.NAME, engine.pid)
            waits = {"node": asyncio.create_task(node.wait())}
            if engine is not None:
                waits["engine"] = asyncio.create_task(engine.wait())
            await asyncio.wait([told, *waits.values()], return_when=asyncio.FIRST_COMPLETED)
            first = next((who for who, task in waits.items() if task.done()), None)
            if told.done() or first is None:
                return None
            status = waits[first].result()
            is_short = time.monotonic() - started_s < SHORT_LIFE_S
        finally:
            told.cancel()
            # The node finishes what it has accepted while its engine still runs.
            for process in (node, engine):
                if process is not None:
                    await _stop(process)
            words = await relay if relay is not None else None
        if words is not None:
            return PairEnded("engine", words, is_short=True)
        ends = f"ended with status {status}"
        return PairEnded(first, ends, is_short, status if first == "node" else -1)

    def _prepare(self) -> Sockets:
        """Check and write what the pair starts from; return its sockets, which nobody serves.

        Raises: SetupError: a file is missing, unfit, or cannot be written.
        """
        read_keys(self._home)
        block_zero_of(self._home)
        check_validator_state(self._home)
        if self._program is None:
            self._program = binary.find_or_build(self._config.cometbft_path, _log.info)
        config = load_config(self._path)
        settings = EngineSettings(
            config.node_name,
            config.consensus_listen,
            config.consensus_peers,
            config.consensus_commit_wait_ms,
            "info" if config.log_level is LogLevel.DEBUG else "error",
        )
        write_config(self._home, settings)
        remove_address_book(self._home)
        sockets = sockets_of(self._home)
        # What a killed pair left would keep the next from listening.
        sockets.abci.unlink(missing_ok=True)
        sockets.rpc.unlink(missing_ok=True)
        return sockets

    async def _start_node(self) -> asyncio.subprocess.Process:
        command = (
            "-m",
            "node.cli.main",
            "node",
            "run",
            "--config",
            str(self._path),
            "--supervised",
        )
        node = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *self._extra,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        secret = self._passphrase.text if self._passphrase else ""
        if node.stdin is not None:
            with contextlib.suppress(ConnectionError):
                node.stdin.write(json.dumps(secret).encode() + b"\n")
                await node.stdin.drain()
        return node

    async def _is_ready(self, sockets: Sockets, node: asyncio.subprocess.Process) -> bool:
        """Wait until the node serves its socket, however long that takes; False where it ended first."""
        said_s = started_s = time.monotonic()
        while node.returncode is None and not self._told.is_set():
            if sockets.abci.exists():
                return True
            now_s = time.monotonic()
            if now_s - said_s > SLOW_S:
                said_s = now_s
                _log.warning(
                    "node does not serve its engine yet: it opens and checks its ledger",
                    waited_s=round(now_s - started_s),
                )
            await asyncio.sleep(_POLL_S)
        return False

    async def _start_engine(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(self._program),
            "start",
            "--home",
            str(self._home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )

    def _write_pid(self, name: str, pid: int) -> None:
        path = self._home / "run" / f"{name}.pid"
        replace_file(path, f"{pid}\n".encode(), PUBLIC_MODE)

    async def _relay(self, engine: asyncio.subprocess.Process) -> str | None:
        """Pass the engine's lines on as this node's, with what to do about those that matter.

        Returns the engine's own reason where it has failed for one that may pass, and was ended for it.
        """
        stream, failed = engine.stdout, None
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                # A line beyond all measure, such as a block in hex: the rest of it comes next.
                continue
            if not line:
                break
            said = read_line(line.decode(errors="replace"))
            advice = {"what_to_do": said.remedy} if said.remedy else {}
            if said.has_failed:
                reason = said.fields.get("engine_err", said.message)
                _log.critical("consensus engine failed", reason=reason, **advice)
                if said.may_pass:
                    failed = reason
                    with contextlib.suppress(ProcessLookupError):
                        engine.kill()
            elif said.message:
                getattr(_log, said.level)("engine: " + said.message, **said.fields, **advice)
        return failed


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process: politely, then not."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        _log.error("process does not stop and is killed", pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def run(config_path: Path, passphrase: Passphrase | None, extra: tuple[str, ...] = ()) -> None:
    """Run the pair of an operator's configuration until SIGTERM or SIGINT; logs go to stderr.

    Raises: SetupError: something must be changed before it can run; the text says what.
    """
    config: NodeConfig = load_config(config_path)
    configure_logging(config.log_level, sys.stderr, node=config.node_name)

    async def supervise() -> None:
        await Supervisor(config_path, passphrase, extra).run()

    try:
        asyncio.run(supervise())
    finally:
        if config.consensus_dir is not None:
            remove_sockets(config.consensus_dir)
    _log.info("pair stopped")
