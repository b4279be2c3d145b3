"""The relay between nodes: carries all bytes both ways, stands still while cut, delays what it loses, tells of the dead."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.testnet.faults import Faults
from node.testnet.layout import INDEX_NAME, NODE, RELAY_NAME, Link, LocalNetwork
from node.testnet.plan import AUTHORITIES, LEADER, NODES
from node.testnet.processes import LOOPBACK, free_ports, stop_all
from node.testnet.relay import RETRANSMIT_S, wait_applied

SOURCE = NODES[1]


class Echo(threading.Thread):
    """Sends back whatever comes, on each connection."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(taken,), daemon=True).start()

    @staticmethod
    def _echo(taken: socket.socket) -> None:
        with taken:
            while data := taken.recv(1 << 16):
                taken.sendall(data)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    """An index with one link, and the relay that carries it to an echo."""
    echo = Echo()
    echo.start()
    link = Link(SOURCE, LEADER, NODE, free_ports(1)[0], echo.port)
    made = replace(
        LocalNetwork(tmp_path, AUTHORITIES, dict.fromkeys(NODES, echo.port)), links=(link,)
    )
    (tmp_path / INDEX_NAME).write_bytes(made.encode())
    (tmp_path / RELAY_NAME).mkdir()
    relay = made.relay
    assert relay is not None
    relay.start()
    wait_applied(made, 0)
    yield made
    stop_all([relay])
    echo.listener.close()


def dial(network: LocalNetwork) -> socket.socket:
    until = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((LOOPBACK, network.links[0].port), timeout=60)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)


def receive(taken: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = taken.recv(1 << 16)
        assert piece
        data += piece
    return data


def apply(network: LocalNetwork, faults: Faults) -> Faults:
    faults.save(network.path)
    wait_applied(network, faults.serial)
    return faults


def hears_nothing(taken: socket.socket, seconds: float) -> bool:
    taken.settimeout(seconds)
    try:
        return not taken.recv(1)
    except TimeoutError:
        return True
    finally:
        taken.settimeout(60)


def test_every_byte_comes_through_in_order(network: LocalNetwork) -> None:
    sent = secrets.token_bytes(3 << 20)
    with dial(network) as taken:
        writer = threading.Thread(target=taken.sendall, args=(sent,))
        writer.start()
        got = receive(taken, len(sent))
        writer.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()


def test_a_cut_way_stands_still_and_goes_on_where_it_stood(network: LocalNetwork) -> None:
    with dial(network) as old:
        old.sendall(b"before")
        assert receive(old, 6) == b"before"
        cut = apply(network, Faults().partitioned([[SOURCE]], NODES))
        old.sendall(b"during")
        with dial(network) as new:
            new.sendall(b"new")
            assert hears_nothing(old, 0.3)
            assert hears_nothing(new, 0.1)
            apply(network, cut.healed())
            assert receive(old, 6) == b"during"
            assert receive(new, 3) == b"new"


def test_a_cut_between_others_is_none_here(network: LocalNetwork) -> None:
    apply(network, Faults().partitioned([["p01"], ["p02"]], NODES))
    with dial(network) as taken:
        taken.sendall(b"x")
        assert receive(taken, 1) == b"x"


def test_loss_delays_and_loses_nothing_for_good(network: LocalNetwork) -> None:
    lossy = apply(network, Faults().losing(LEADER, 30, NODES))
    with dial(network) as taken:
        # Until a piece was lost: that none of 200 is lost has a chance of 1 in 10^31.
        for _ in range(100):
            started = time.monotonic()
            sent = secrets.token_bytes(100)
            taken.sendall(sent)
            assert receive(taken, 100) == sent
            if time.monotonic() - started >= RETRANSMIT_S:
                break
        else:
            pytest.fail("nothing was lost")
        apply(network, lossy.losing(LEADER, 100, NODES))
        taken.sendall(b"x")
        assert hears_nothing(taken, 0.2)


def test_nobody_behind_it_is_heard_of_at_once(network: LocalNetwork) -> None:
    with socket.create_server((LOOPBACK, 0)) as gone:
        port = gone.getsockname()[1]
    relay = network.relay
    assert relay is not None
    stop_all([relay])
    dead = replace(network, links=(replace(network.links[0], target_port=port),))
    (network.path / INDEX_NAME).write_bytes(dead.encode())
    relay.start()
    with dial(dead) as taken:
        assert taken.recv(1) == b""


def test_faults_outlive_the_relay(network: LocalNetwork) -> None:
    relay = network.relay
    assert relay is not None
    cut = apply(network, Faults().partitioned([[SOURCE]], NODES))
    relay.kill()
    relay.start()
    with dial(network) as taken:
        taken.sendall(b"x")
        assert hears_nothing(taken, 0.2)
        apply(network, cut.healed())
        assert receive(taken, 1) == b"x"


def test_it_ends_with_its_directory(network: LocalNetwork) -> None:
    relay = network.relay
    assert relay is not None
    pid = relay.pid()
    assert pid is not None
    shutil.rmtree(network.path)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
