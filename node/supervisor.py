"""A node and its consensus engine, run as a pair.

Lives here: starting both in order, restarting both when either ends, the engine's log, a clean stop.
May not live here: what a node does (runtime.py), what the engine is told (sequencer/cometbft).

    1. genesis.json must be there; config.toml is written from node.toml
    2. the node starts and serves the application's socket
    3. the engine starts and connects to it
    4. either ends: the other is stopped, and after a pause both start again; the pause doubles from
       PAUSE_S_MIN to PAUSE_S_MAX, and SHORT_LIVES_MAX short lives in a row end the supervisor
    5. SIGTERM or SIGINT: the node stops first and finishes what it has accepted, then the engine

The engine ends with status 0 when its application is gone, so every end counts the same. What the
engine reports as CONSENSUS FAILURE it survives as a process and not as a validator: restarting does
not mend that, so it is said, and left to a person.

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
from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.keys import Passphrase
from node.observability import configure_logging
from node.sequencer.cometbft import binary
from node.sequencer.cometbft.home import (
    EngineSettings,
    Sockets,
    block_zero_of,
    read_keys,
    remove_sockets,
    sockets_of,
    write_config,
)

_log = structlog.get_logger(__name__)

PAUSE_S_MIN = 0.25
PAUSE_S_MAX = 15.0
SHORT_LIFE_S = 10.0
SHORT_LIVES_MAX = 10
READY_S = 60.0
STOP_S = 15.0
_POLL_S = 0.02
_LINE_BYTES_MAX = 1 << 20

EXIT_WRONG_USE = 2
"""The node's own exit status for a file or setting that is not as it must be: no restart mends it."""

FAILURE_WORDS = "CONSENSUS FAILURE"
FAILURE_REMEDY = (
    "the engine has stopped taking part, though it runs: this node's work differs from the others', or "
    "its engine got what it cannot obey. Stop the node, keep a copy of its directory, then delete its "
    "database and the engine's data except priv_validator_state.json, and start it: it verifies every "
    "block anew"
)


@dataclass(frozen=True, slots=True)
class PairEnded:
    """How a pair ended: which of the two first, and with which exit status."""

    who: str
    status: int
    lived_s: float


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
        self._program = Path()

    async def run(self) -> str:
        """Run pairs until told to stop; return why it gave up, "" where it was told.

        Raises: SetupError: the pair cannot be started at all.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        # Missing files are said once, not after eight attempts.
        read_keys(self._home)
        block_zero_of(self._home)
        self._program = await asyncio.to_thread(
            binary.find_or_build, self._config.cometbft_path, _log.info
        )
        short_lives = 0
        while True:
            ended = await self._run_pair()
            if ended is None:
                return ""
            if ended.who == "node" and ended.status == EXIT_WRONG_USE:
                return "the node cannot start: its log says what to change"
            is_short = ended.lived_s < SHORT_LIFE_S
            short_lives = short_lives + 1 if is_short else 0
            pause_s = min(PAUSE_S_MIN * 2 ** max(short_lives - 1, 0), PAUSE_S_MAX)
            if short_lives >= SHORT_LIVES_MAX:
                return f"{ended.who} ended {short_lives} times in a row within {SHORT_LIFE_S:.0f} s"
            _log.error(
                "pair ended and starts again",
                first=ended.who,
                status=ended.status,
                lived_s=round(ended.lived_s, 1),
                pause_s=pause_s,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), pause_s)
                return ""

    async def _run_pair(self) -> PairEnded | None:
        """Run node and engine until one ends or the supervisor is told to stop (None)."""
        started_s = time.monotonic()
        sockets = self._prepare()
        node = await self._start_node()
        engine = None
        relay: asyncio.Task[None] | None = None
        told = asyncio.create_task(self._told.wait())
        try:
            if await self._is_ready(sockets, node):
                engine = await self._start_engine()
                relay = asyncio.create_task(self._relay(engine))
            waits = {"node": asyncio.create_task(node.wait())}
            if engine is not None:
                waits["engine"] = asyncio.create_task(engine.wait())
            await asyncio.wait([told, *waits.values()], return_when=asyncio.FIRST_COMPLETED)
            first = next((who for who, task in waits.items() if task.done()), None)
            if told.done() or first is None:
                return None
            return PairEnded(first, waits[first].result(), time.monotonic() - started_s)
        finally:
            told.cancel()
            # The node finishes what it has accepted while its engine still runs.
            await _stop(node)
            if engine is not None:
                await _stop(engine)
            if relay is not None:
                await relay

    def _prepare(self) -> Sockets:
        config = load_config(self._path)
        settings = EngineSettings(
            config.node_name,
            config.consensus_listen,
            config.consensus_peers,
            config.consensus_commit_wait_ms,
            "info" if config.log_level is LogLevel.DEBUG else "error",
        )
        write_config(self._home, settings)
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
        self._write_pid("node", node.pid)
        return node

    async def _is_ready(self, sockets: Sockets, node: asyncio.subprocess.Process) -> bool:
        """Wait until the node serves its socket; False where it ended first or takes too long."""
        end_s = time.monotonic() + READY_S
        while node.returncode is None and not self._told.is_set():
            if sockets.abci.exists():
                return True
            if time.monotonic() > end_s:
                _log.error("node does not serve its engine", waited_s=READY_S)
                return False
            await asyncio.sleep(_POLL_S)
        return False

    async def _start_engine(self) -> asyncio.subprocess.Process:
        engine = await asyncio.create_subprocess_exec(
            self._program,
            "start",
            "--home",
            str(self._home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._write_pid(binary.NAME, engine.pid)
        return engine

    def _write_pid(self, name: str, pid: int) -> None:
        path = self._home / "run" / f"{name}.pid"
        replace_file(path, f"{pid}\n".encode(), PUBLIC_MODE)

    async def _relay(self, engine: asyncio.subprocess.Process) -> None:
        """Pass the engine's lines on as this node's; say what to do about the one that matters."""
        stream = engine.stdout
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                # A line beyond all measure, such as a block in hex: the rest of it comes next.
                continue
            if not line:
                return
            text = line.decode(errors="replace").strip()
            level, message, fields = _parsed(text)
            if FAILURE_WORDS in text:
                _log.critical("consensus engine failed", reason=message, what_to_do=FAILURE_REMEDY)
            elif message:
                getattr(_log, level)("engine: " + message, **fields)


def _parsed(text: str) -> tuple[str, str, dict[str, str]]:
    """Return level, message and fields of a line of the engine's log."""
    try:
        values = json.loads(text)
        level = str(values.pop("level", "info"))
        message = str(values.pop("_msg", values.pop("msg", "")))
    except (ValueError, AttributeError, TypeError):
        return "warning", text[:2_000], {}
    values.pop("ts", None)
    fields = {f"engine_{key.lstrip('_')}": str(value)[:500] for key, value in values.items()}
    return level if level in ("debug", "info", "warning", "error") else "error", message, fields


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

    Raises: SetupError: it cannot run, or gave up; the text says why.
    """
    config: NodeConfig = load_config(config_path)
    configure_logging(config.log_level, sys.stderr, node=config.node_name)

    async def supervise() -> str:
        return await Supervisor(config_path, passphrase, extra).run()

    try:
        reason = asyncio.run(supervise())
    finally:
        if config.consensus_dir is not None:
            remove_sockets(config.consensus_dir)
    if reason:
        raise SetupError(f"{config.node_name} gave up: {reason}")
    _log.info("pair stopped")
