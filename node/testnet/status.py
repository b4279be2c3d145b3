"""How a test network stands: every node asked, and what scripts are told.

Lives here: asking all nodes at once, waiting until the network can make things final. May not live here: starting and
stopping (processes.py), printing (cli).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from clearing.errors import DecodeError
from clearing.records.leaves import SealLeaf
from node.client import Client, ClientError
from node.errors import SetupError
from node.profile import IdentityDirectory
from node.services.facade import NodeCondition, NodeStatus
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER

ASKED_AS = "central-bank"
"""The party that asks: a supervisor, whom every node answers."""

STATUS_TIMEOUT_S = 2.0
READY_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node of a test network; `pid` None where no process runs, `status` None where it does not answer.

    paused: it runs but stands still, and was not asked.
    """

    name: str
    endpoint: str
    pid: int | None
    status: NodeStatus | None
    paused: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, answers, and does its part."""
        return self.status is not None and self.status.condition is NodeCondition.SERVING


class Observer:
    """Asks the nodes of one network, over connections that are kept."""

    def __init__(self, network: LocalNetwork, timeout_s: float = STATUS_TIMEOUT_S) -> None:
        """Prepare to ask as ASKED_AS; nothing is sent yet.

        Raises: SetupError: a file of that identity is not as it must be.
        """
        self._network = network
        identity = IdentityDirectory.open(network.identity_path(ASKED_AS))
        self._clients = {
            name: Client(identity, endpoints=(network.endpoint(name),), timeout_s=timeout_s)
            for name in network.ports
        }
        self._pool = ThreadPoolExecutor(len(self._clients))

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for client in self._clients.values():
            client.close()

    def node(self, name: str) -> NodeReport:
        """Return how one node stands; asks only where a process runs."""
        process = self._network.process(name)
        pid, paused = process.pid(), process.is_paused()
        status = None
        if pid is not None and not paused:
            try:
                status = self._clients[name].status()
            except ClientError:
                status = None
        return NodeReport(name, self._network.endpoint(name), pid, status, paused)

    def nodes(self) -> list[NodeReport]:
        """Return how all nodes stand, in the network's order, asked at the same time."""
        return list(self._pool.map(self.node, self._network.ports))

    def state_root(self, report: NodeReport) -> bytes | None:
        """Return the state root after the node's newest block, or None where it does not answer.

        A witness replica computes none; what it holds and cosigns is the SEAL leaf that ends the block and says it.
        """
        status = report.status
        if status is None or not status.log_size:
            return None
        if status.state_root:
            return status.state_root
        try:
            (seal,) = self._clients[report.name].leaves(status.log_size - 1, status.log_size)
            return SealLeaf.decode(seal).state_root
        except (ClientError, DecodeError, ValueError):
            return None

    def wait_ready(
        self, seconds: float, done: Callable[[list[NodeReport]], None] | None = None
    ) -> list[NodeReport]:
        """Wait until all nodes are healthy and everything recorded is final; `done` is told each look.

        Raises: SetupError: a node ended, or it takes longer than `seconds`.
        """
        until = time.monotonic() + seconds
        while True:
            reports = self.nodes()
            if done:
                done(reports)
            if is_ready(reports):
                return reports
            ended = [report.name for report in reports if report.pid is None]
            if ended:
                process = self._network.process(ended[0])
                raise SetupError(
                    f"node {ended[0]} ended while it started: {process.last_words()}; more is in {process.log_file}"
                )
            if time.monotonic() > until:
                late = [report.name for report in reports if not report.is_healthy]
                raise SetupError(
                    f"the network is not ready after {seconds:.0f} s; waiting for {', '.join(late) or 'finality'}: look "
                    f"at the logs in {self._network.path / 'nodes'}"
                )
            time.sleep(READY_POLL_S)


def is_ready(reports: list[NodeReport]) -> bool:
    """Return whether every node is healthy and has all that the leader has recorded, as final."""
    sizes = {report.status.log_size for report in reports if report.status}
    finals = {report.status.final_size for report in reports if report.status}
    return all(report.is_healthy for report in reports) and len(sizes) == 1 and finals == sizes


def followed(network: LocalNetwork, report: NodeReport) -> str:
    """Return the operator from which a node receives its blocks now, or would first try to; "" for an operator."""
    preferred = network.plan.followed(report.name)
    if not preferred or report.status is None:
        return preferred
    for target in network.plan.dialled(report.name):
        if network.dialled(report.name, target) == report.status.leader_endpoint:
            return target
    return preferred


def leader_of(reports: list[NodeReport]) -> NodeStatus | None:
    """Return the leader's status, or None where it does not answer."""
    return next((report.status for report in reports if report.name == LEADER), None)


@contextmanager
def observed(network: LocalNetwork) -> Iterator[Observer]:
    """Give an Observer of `network` for the time of the `with` block."""
    observer = Observer(network)
    try:
        yield observer
    finally:
        observer.close()
