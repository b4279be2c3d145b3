"""`python -m node.testnet.relay DIR`: carries what the nodes of a test network send each other, as far as faults allow.

Lives here: one TCP relay for all links of a network. May not live here: which faults are on (faults.py), which links there
are (layout.py), anything that knows what it carries: it sees TLS.

On loopback nothing is ever lost or cut, and cutting it in the kernel takes root. So each node dials a port of this process
for each node that it dials, and faults are brought about here, at the ways, without any privilege:

- a cut way stands still: what was sent stays in the buffers of the sender's system, connections stay open, new ones are
  taken and go nowhere, as behind a router that drops packets. Healed, it goes on where it stood, as TCP does.
- a lossy way delays: each piece is lost with the given probability, and sent again after RETRANSMIT_S, then twice that, as
  TCP does; what comes behind it waits.

faults.json is looked at every POLL_S; what has been applied stands in relay/applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from pathlib import Path

from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.testnet.faults import FAULTS_NAME, Faults
from node.testnet.layout import RELAY_NAME, Link, LocalNetwork
from node.testnet.processes import LOOPBACK

APPLIED_NAME = "applied"
POLL_S = 0.02
PIECE_BYTES = 64 << 10
RETRANSMIT_S = 0.2
RETRANSMIT_S_MAX = 6.4
_APPLY_S_MAX = 10.0


class Way:
    """One link: takes connections on its port and carries them to its target."""

    def __init__(self, link: Link, source: random.Random) -> None:
        """Prepare; `source` decides what is lost."""
        self.link = link
        self._random = source
        self._open = asyncio.Event()
        self._open.set()
        self._lost = 0.0
        self._carrying: set[asyncio.Task[None]] = set()

    def apply(self, faults: Faults) -> None:
        """Cut or open the way and set what it loses."""
        source, target = self.link.source, self.link.target
        self._lost = faults.lost(source, target)
        if faults.is_cut(source, target) or self._lost >= 1:
            self._open.clear()
        else:
            self._open.set()

    async def serve(self) -> asyncio.Server:
        """Begin to take connections.

        Raises: OSError: the port is taken.
        """
        return await asyncio.start_server(
            self._take, LOOPBACK, self.link.port, limit=PIECE_BYTES, backlog=64
        )

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open.wait()
            onward = await asyncio.open_connection(
                LOOPBACK, self.link.target_port, limit=PIECE_BYTES
            )
        except OSError:
            # Nobody listens: the dialler hears of it at once, as it would without us.
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, onward[1])),
            asyncio.create_task(self._pump(onward[0], writer)),
        ]
        try:
            # Either direction may end first; a broken one breaks both.
            await asyncio.gather(*pumps)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, onward[1]):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until its end."""
        while True:
            await self._open.wait()
            piece = await reader.read(PIECE_BYTES)
            # It may have been cut while nothing came: then what came now is not let through.
            await self._open.wait()
            if not piece:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            await self._retransmit()
            writer.write(piece)
            await writer.drain()

    async def _retransmit(self) -> None:
        """Wait as long as a lost piece takes to come through."""
        pause_s = RETRANSMIT_S
        while self._lost and self._random.random() < self._lost:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRANSMIT_S_MAX)
            await self._open.wait()


async def carry(directory: Path) -> None:
    """Carry all links of the network in `directory` until told to stop, or the directory is gone.

    Raises: SetupError: no network, or a port is taken.
    """
    network = LocalNetwork.open(directory)
    source = random.Random()  # noqa: S311 - loss, not a secret
    ways = [Way(link, source) for link in network.links]
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with contextlib.AsyncExitStack() as stack:
        serial = _apply(network, ways, -1)
        for way in ways:
            try:
                stack.callback((await way.serve()).close)
            except OSError as error:
                raise SetupError(
                    f"port {way.link.port} is used by another program: {error.strerror}"
                ) from error
        print("carrying", flush=True)  # noqa: T201 - its log
        seen = 0
        while not told.is_set() and network.path.exists():
            changed = _changed(network.path)
            if changed != seen:
                seen, serial = changed, _apply(network, ways, serial)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), POLL_S)


def _changed(directory: Path) -> int:
    """Return a number that differs after each change of faults.json."""
    try:
        found = (directory / FAULTS_NAME).stat()
    except FileNotFoundError:
        return 0
    return hash((found.st_mtime_ns, found.st_ino))


def _apply(network: LocalNetwork, ways: list[Way], serial: int) -> int:
    """Apply the faults that are on now and say so; returns their serial."""
    faults = Faults.load(network.path)
    for way in ways:
        way.apply(faults)
    if faults.serial != serial:
        applied = network.path / RELAY_NAME / APPLIED_NAME
        replace_file(applied, f"{faults.serial}\n".encode(), PUBLIC_MODE)
    return faults.serial


def wait_applied(network: LocalNetwork, serial: int) -> None:
    """Wait until the network's relay has applied the faults of that serial.

    Raises: SetupError: it does not run.
    """
    relay = network.relay
    if relay is None:
        raise SetupError(
            f"the nodes in {network.path} reach each other directly: make the network with `clearing testnet up`"
        )
    applied = network.path / RELAY_NAME / APPLIED_NAME
    until = time.monotonic() + _APPLY_S_MAX
    while not applied.exists() or int(applied.read_text() or "-1") < serial:
        if relay.pid() is None or time.monotonic() > until:
            raise SetupError(
                f"the relay of {network.path} does not run: start it with `clearing testnet up --dir {network.path}`; the "
                "fault is on then"
            )
        time.sleep(POLL_S / 2)


if __name__ == "__main__":
    try:
        asyncio.run(carry(Path(sys.argv[1])))
    except SetupError as refused:
        raise SystemExit(str(refused)) from None
