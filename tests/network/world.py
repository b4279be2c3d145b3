"""A network under load, and what must hold of it whenever it is healed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from clearing.log.policy import Policy
from clearing.records.instruction import InstructionKind
from node.cli.consensus import verify_consensus
from node.client import Client
from node.profile import IdentityDirectory
from node.sequencer.cometbft.home import sockets_of
from node.sequencer.cometbft.rpc import EngineRpc
from node.services.facade import NodeStatus
from node.store.fsck import check_directory
from node.testnet import control
from node.testnet.bridge import Bridge
from node.testnet.containers import make_image
from node.testnet.make import make_network
from node.testnet.plan import Engine, Runner, numbered_parties, plan_of
from node.testnet.status import NodeReport, Observer
from tests.network.load import Sender, Watcher
from tests.node import network_kit as kit
from tests.node.kill_kit import kept_checkpoints

START_S = 120.0
SETTLE_S = 120.0
SENDERS = ("p01", "p02", "p03")
PART_WORDS = {"node": "--supervised", "cometbft": "--home"}
"""A word of the command line of each part of an operator, which neither the other nor their supervisor has."""


def kill_command(part: str, pid: str) -> tuple[str, ...]:
    """Return the command that kills the process `pid` if it is that part of an operator.

    A container that has just started has given the pids of its last life to others, its supervisor's threads among them.
    """
    return ("sh", "-c", f"grep -qaF -e {PART_WORDS[part]} /proc/{pid}/cmdline && kill -9 {pid}")


class World:
    """A running network with senders and watchers; a context manager that leaves nothing behind."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        *,
        docker: bool,
        seed: int,
        operators: int | None = None,
    ) -> None:
        """Make the network's files in `path`; entering starts it."""
        self.random = random.Random(seed)
        plan = plan_of(engine, operators)
        self.network = make_network(
            path,
            numbered_parties(len(SENDERS)),
            plan=plan,
            runner=Runner.DOCKER if docker else Runner.PROCESSES,
            relayed=True,
        )
        self.operators = plan.operators
        self.has_engine = engine is Engine.COMETBFT
        self.senders: list[Sender] = []
        self.watchers: list[Watcher] = []
        self._seed = seed

    def __enter__(self) -> Self:
        """Start network, senders and watchers."""
        if self.network.runner is Runner.DOCKER:
            make_image()
        control.start_network(self.network, START_S)
        self.observer = Observer(self.network)
        network_id = self.report(self.operators[0]).network_id
        self.senders = [Sender(self.network, name, network_id, self._seed) for name in SENDERS]
        supervisor = kit.Party(self.network, "regulator", network_id)
        self.governor = kit.Party(self.network, "central-bank", network_id)
        self.watchers = [Watcher(self.network, supervisor, name) for name in self.network.ports]
        for thread in (*self.senders, *self.watchers):
            thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop()

    def stop(self) -> None:
        """End senders and watchers and take the network down."""
        for thread in (*self.senders, *self.watchers):
            thread.ends = True
        for sender in self.senders:
            sender.may.set()
        with suppress(AttributeError):
            self.observer.close()
        control.stop_network(self.network)

    # -- looking

    def reports(self) -> dict[str, NodeReport]:
        """Return how every node stands."""
        return {report.name: report for report in self.observer.nodes()}

    def report(self, name: str) -> NodeStatus:
        """Return the status of a node that answers."""
        status = self.observer.node(name).status
        assert status is not None, f"{name} does not answer"
        return status

    def acknowledged(self) -> int:
        """Return how many submissions were acknowledged so far."""
        return sum(len(sender.acknowledged) for sender in self.senders)

    def final(self) -> int:
        """Return the size of the greatest checkpoint that any node calls final."""
        found = [report.status.final_size for report in self.reports().values() if report.status]
        return max(found, default=0)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Wait until something holds; returns how long it took, in seconds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, f"after {seconds:.0f} s still not: {what}"
            time.sleep(0.1)
        return time.monotonic() - started

    # -- load

    def load(self, *, on: bool, nodes: Sequence[str] = ()) -> None:
        """Let the senders send, to `nodes` or all operators, or hold them."""
        for sender in self.senders:
            sender.nodes = list(nodes or self.operators)
            (sender.may.set if on else sender.may.clear)()

    def works(self, seconds: float = 30, count: int = 5) -> float:
        """Wait until so many more submissions are acknowledged and one of them is final; returns how long it took."""
        before = self.acknowledged()
        took = self.wait(
            "submissions acknowledged", lambda: self.acknowledged() >= before + count, seconds
        )
        floor = max(one.index or 0 for sender in self.senders for one in sender.acknowledged)
        return took + self.wait(
            "what was acknowledged is final", lambda: self.final() > floor, seconds
        )

    # -- what must hold

    def settle(self) -> float:
        """Hold the load and wait until all nodes stand at one head, all of it final; returns how long it took."""
        self.load(on=False)
        took = self.wait("every sender has its answer", self._answered, SETTLE_S)
        return took + self.wait("all nodes at one final head", self._is_one, SETTLE_S)

    def _answered(self) -> bool:
        return all(sender.idle.is_set() for sender in self.senders)

    def _is_one(self) -> bool:
        reports = self.reports().values()
        heads = {(r.status.log_size, r.status.log_root) for r in reports if r.status}
        finals = {r.status.final_size for r in reports if r.status}
        complete = all(r.status and r.is_healthy for r in reports)
        return complete and len(heads) == 1 and finals == {next(iter(heads))[0]}

    def check(self) -> dict[str, object]:
        """Check, on the running and settled network, all that can be checked from outside; returns figures."""
        late = [seconds for sender in self.senders for seconds in sender.late_s]
        assert not late, f"calls that hung past their deadline, seconds: {late}"
        refused = [why for sender in self.senders for why in sender.refused]
        assert not refused, f"refused for good: {refused[:3]}"
        unanswered = [1 for sender in self.senders for one in sender.sent if one.index is None]
        assert not unanswered, f"{len(unanswered)} submissions were never answered"
        proven = self._check_receipts()
        engine_height = self._check_consensus() if self.has_engine else 0
        heads = kit.texts_by_size(set().union(*(watcher.notes for watcher in self.watchers)))
        assert [size for size, texts in heads.items() if len(texts) > 1] == []
        return {
            "acknowledged": self.acknowledged(),
            "repeats": sum(sender.repeats for sender in self.senders),
            "log_size": self.report(self.operators[0]).log_size,
            "final_heads_seen": len(heads),
            "receipts_verified": proven,
            "engine_height": engine_height,
        }

    def _check_receipts(self) -> int:
        """Fetch and verify receipts of some acknowledged submissions; returns how many."""
        count = 0
        for sender in self.senders:
            acknowledged = sender.acknowledged
            chosen = self.random.sample(acknowledged, min(2, len(acknowledged)))
            node = self.random.choice(self.operators)
            identity = IdentityDirectory.open(
                self.network.identity_path(sender.party.identity.profile.name)
            )
            with Client(identity, endpoints=(self.network.endpoint(node),)) as client:
                for one in chosen:
                    client.receipt(one.index, item=0)
                    count += 1
        return count

    def _check_consensus(self) -> int:
        """Check that engine and database of every operator agree, and the validators' signatures over the log."""
        heights = set()
        for name in self.operators:
            status = self.report(name)
            rpc = self.engine(name)
            assert status.engine is not None
            # The newest block's header carries the app hash of what came before it: the same on all.
            height = rpc.status().height
            header = rpc.commit(height)["header"]
            heights.add((header["app_hash"], status.log_root))
            rpc.close()
        assert len({root for _, root in heights}) == 1, heights
        identity = IdentityDirectory.open(self.network.identity_path("regulator"))
        endpoint = self.network.endpoint(self.random.choice(self.operators))
        with Client(identity, endpoints=(endpoint,)) as client:
            size = client.checkpoint().size
            seen = client.memory.seen
            leaves = list(client.leaves(0, size))
            return verify_consensus(leaves, seen.network_id, client.block_commit).engine_height

    def check_stores(self) -> dict[str, object]:
        """Stop the network and check every database: nothing lost, nothing twice, equal bytes, replay gives the same."""
        network, plan = self.network, self.network.plan
        self.stop()
        policy = Policy.parse(network.policy_path.read_bytes())
        digests, notes = {}, set().union(*(watcher.notes for watcher in self.watchers))
        for name in plan.nodes:
            with kit.open_store(network, name) as store:
                with store.snapshot() as view:
                    leaves = [view.leaf(index) for index in range(view.tip.log_size)]
                    notes |= {note for _, note in kept_checkpoints(view)}
                whole = name not in plan.witnesses
                digests[name] = (kit.contents if whole else kit.log_contents)(store)
            self._check_leaves(name, leaves)
        first = digests[plan.operators[0]]
        for name, found in digests.items():
            assert found == {key: first[key] for key in found}, f"{name} holds other bytes"
        for note in notes:
            policy.check(kit.Note.parse(note))
        heads = kit.texts_by_size(notes)
        assert [size for size, texts in heads.items() if len(texts) > 1] == []
        for name in plan.nodes:
            findings = check_directory(kit.config_of(network, name).data_dir, policy)
            assert [str(one) for one in findings if one.is_damage] == [], name
        return {"nodes_equal": len(digests), "final_heads": len(heads), "leaves": len(leaves)}

    def _check_leaves(self, name: str, leaves: list[bytes]) -> None:
        times = Counter(leaves)
        for sender in self.senders:
            for one in sender.acknowledged:
                assert leaves[one.index] == one.submission.leaf, f"{name} lost {one.index}"
                assert times[one.submission.leaf] == 1, f"{name} has {one.index} twice"

    # -- parts of an operator

    def engine(self, name: str) -> EngineRpc:
        """Return the RPC of an operator's consensus engine."""
        return self.engine_at(self.network.node_path(name) / "consensus")

    def engine_at(self, home: Path) -> EngineRpc:
        """Return the RPC of the engine in `home`; a container's socket is its own user's."""
        inside = home / "run" / "rpc.sock"
        return EngineRpc(inside if self.network.bridge is not None else sockets_of(home).rpc)

    def voters(self, name: str) -> set[bytes]:
        """Return the addresses of the validators in force, as the engine of an operator has them."""
        rpc = self.engine(name)
        try:
            return {bytes.fromhex(one["address"]) for one in rpc.validators(rpc.status().height)}
        finally:
            rpc.close()

    def client(self, party: str, *nodes: str) -> Client:
        """Return a client of `party` that asks `nodes`, in order."""
        identity = IdentityDirectory.open(self.network.identity_path(party))
        return Client(identity, endpoints=[self.network.endpoint(name) for name in nodes])

    def kill_part(self, name: str, part: str) -> None:
        """Kill an operator's node or its consensus engine, `part` of PART_WORDS, and leave its supervisor to it."""
        run = self.network.node_path(name) / "consensus" / "run"
        kill = kill_command(part, (run / f"{part}.pid").read_text().strip())
        bridge: Bridge | None = self.network.bridge
        if bridge is not None:
            kill = ("docker", "exec", bridge.container(name), *kill)
        subprocess.run(kill, capture_output=True, check=False)

    def wipe(self, name: str) -> None:
        """Delete what a stopped node holds, except its keys and what it must never forget to have signed."""
        path = self.network.node_path(name)
        for file in (path / "data").glob("data.mdb*"):
            file.unlink()
        engine = path / "consensus" / "data"
        for entry in engine.glob("*") if engine.exists() else ():
            if entry.name == "priv_validator_state.json":
                continue
            subprocess.run(["rm", "-rf", entry], check=True)

    def govern(self, *actions: object) -> None:
        """Have central bank and ministry enact actions."""
        endpoints = [self.network.endpoint(name) for name in self.operators]
        clients = []
        for name in ("central-bank", "ministry"):
            identity = IdentityDirectory.open(self.network.identity_path(name))
            clients.append(Client(identity, endpoints=endpoints))
        proposal = clients[0].propose(list(actions)).index
        clients[1].approve(proposal)
        for client in clients:
            client.close()

    def net(self) -> None:
        """Affirm some of what was submitted, and run a cycle."""
        by_number = {sender.party.number: sender for sender in self.senders}
        for sender in self.senders:
            for one in sender.acknowledged[-2:]:
                for other in by_number.values():
                    if other is not sender:
                        other.affirm(one.index)
        with (
            self.governor.channel(self.network, self.operators[-1]) as channel,
            suppress(Exception),
        ):
            kit.instruct(channel, self.governor.instruction(InstructionKind.RUN_CYCLE))


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
