"""Load on a network: participants that submit without pause, a creditor that affirms, watchers of what is called final.

Each submission is sent again, the same bytes, to one operator after the other until one acknowledges it; each call has a
deadline, and how long it really took is kept: no client may hang past it.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import grpc

from clearing.records.instruction import InstructionKind, ItemSelection
from clearing.records.submission import Submission
from node.testnet.layout import LocalNetwork
from tests.ledger_kit import item
from tests.node import network_kit as kit

DEADLINE_S = 5.0
LATE_S = 3.0
"""How much later than its deadline a call may return on a machine with more to do than it can."""

RETRYABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@dataclass
class Sent:
    """A submission and, once it was acknowledged, its log index."""

    submission: Submission
    index: int | None = None


class Sender(threading.Thread):
    """One participant that submits, and affirms what others owe it, while it is let."""

    def __init__(self, network: LocalNetwork, name: str, network_id: bytes, seed: int) -> None:
        """Prepare to send as `name`; `let` has it begin."""
        super().__init__(name=f"sender {name}", daemon=True)
        self.party = kit.Party(network, name, network_id)
        self.sent: list[Sent] = []
        self.repeats = 0
        self.late_s: list[float] = []
        self.refused: list[str] = []
        self.nodes = list(network.plan.operators)
        self.may = threading.Event()
        self.idle = threading.Event()
        self.ends = False
        self._network = network
        self._random = random.Random(f"{seed} {name}")
        self._channels: dict[str, grpc.Channel] = {}
        self._others = [
            number
            for number, party in enumerate(network.parties)
            if party.name.startswith("p") and number != self.party.number
        ]

    def run(self) -> None:
        """Send until told to end; a submission under way is brought to its end even where the sender is held."""
        while not self.ends:
            if not self.may.is_set():
                self.idle.set()
                self.may.wait(0.1)
                continue
            self.idle.clear()
            rows = [
                item(
                    self.party.number,
                    self._random.choice(self._others),
                    self._random.randint(1, 1 << 40),
                )
                for _ in range(self._random.randint(1, 20))
            ]
            one = Sent(self.party.submission(*rows))
            self.sent.append(one)
            one.index = self._until_answered(one.submission)
            time.sleep(self._random.uniform(0.02, 0.1))
        self.idle.set()
        for channel in self._channels.values():
            channel.close()

    def _until_answered(self, submission: Submission) -> int | None:
        """Send a submission until it is acknowledged; None where it was refused for good, or the sender ends."""
        node = self._random.choice(self.nodes)
        while not self.ends:
            started = time.monotonic()
            try:
                return kit.submit(self._channel(node), submission, timeout_s=DEADLINE_S)
            except grpc.RpcError as error:
                if error.code() not in RETRYABLE:
                    self.refused.append(f"{error.code().name}: {error.details()}")
                    return None
            finally:
                took = time.monotonic() - started
                if took > DEADLINE_S + LATE_S:
                    self.late_s.append(took)
            self.repeats += 1
            # The nodes to send to may have become others meanwhile.
            nodes = list(self.nodes)
            at = nodes.index(node) + 1 if node in nodes else 0
            node = nodes[at % len(nodes)]
            time.sleep(0.05)
        return None

    def _channel(self, node: str) -> grpc.Channel:
        if node not in self._channels:
            self._channels[node] = self.party.channel(self._network, node)
        return self._channels[node]

    @property
    def acknowledged(self) -> list[Sent]:
        """What was acknowledged so far."""
        return [one for one in list(self.sent) if one.index is not None]

    def affirm(self, index: int) -> bool:
        """Affirm, as a counterparty, all items of a submission; whether it was accepted."""
        instruction = self.party.instruction(InstructionKind.AFFIRM, ItemSelection(index).encode())
        for node in self.nodes:
            try:
                kit.instruct(self._channel(node), instruction, timeout_s=DEADLINE_S)
            except grpc.RpcError:
                continue
            return True
        return False


@dataclass
class Watcher(threading.Thread):
    """Keeps every final checkpoint that a node streams to a supervisor."""

    network: LocalNetwork
    party: kit.Party
    node: str
    notes: set[bytes] = field(default_factory=set)
    ends: bool = False

    def __post_init__(self) -> None:
        """Prepare the thread."""
        super().__init__(name=f"watcher {self.node}", daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Watch until told to end."""
        while not self.ends:
            with self.party.channel(self.network, self.node) as channel:
                try:
                    for note in kit.watch(channel):
                        self.notes.add(note)
                        if self.ends:
                            return
                except grpc.RpcError:
                    time.sleep(0.2)
