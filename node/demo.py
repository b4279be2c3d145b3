"""The whole ledger on one machine, once through: five nodes, obligations, a kill, a cycle, settlement, proofs.

Lives here: the steps and what each found out. May not live here: printing (cli/demo.py gives a `Teller`), anything
that only a demonstration can do: every step goes through the client library, real processes and real files.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from clearing.errors import ClearingError, VerificationError
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.receipt import verify_receipt
from clearing.types import InstructionState, SettlementKind
from node.client import Client, Obligation, Recorded
from node.errors import SetupError
from node.profile import IdentityDirectory
from node.provision import DATA_NAME
from node.queries import CycleAssetRow, SettlementFilter, SettlementRow
from node.store.errors import Finding
from node.store.fsck import check_directory
from node.testnet.funding import start_bitcoin
from node.testnet.layout import LocalNetwork
from node.testnet.make import make_network
from node.testnet.plan import AUTHORITIES, LEADER, Party, role_name
from node.testnet.processes import stop_all
from node.testnet.status import NodeReport, leader_of, observed
from node.testnet.trade import Trade

T = TypeVar("T")

SINGLES_MAX = 40
"""Obligations held back to be sent one by one while the leader is killed."""

KILL_AFTER = 10
"""Acknowledgements of those before the kill."""

RECEIPTS_MAX = 5
START_S = 90.0
FINAL_S = 30.0
_THREADS = 8
_DATA_FILE = "data.mdb"


class Teller(Protocol):
    """Hears how the demonstration goes."""

    def step(self, title: str) -> None:
        """A step begins."""

    def say(self, text: str) -> None:
        """Something was found out."""

    def nodes(self, reports: Sequence[NodeReport]) -> None:
        """The network stands like this."""

    def netting(self, assets: Sequence[CycleAssetRow]) -> None:
        """A cycle was netted with this result."""

    def working(self, what: str, done: int, total: int) -> None:
        """Work goes on."""


@dataclass(slots=True)
class Demo:
    """One run; `facts` collects what the steps found out, ready for JSON."""

    path: Path
    parties: Sequence[Party]
    trades: Sequence[Trade]
    tell: Teller
    facts: dict[str, Any] = field(default_factory=dict)
    _clients: dict[str, Client] = field(default_factory=dict)
    _network: LocalNetwork | None = None

    @property
    def network(self) -> LocalNetwork:
        """The network, once it is made.

        Raises: SetupError: it is not.
        """
        if self._network is None:
            raise SetupError("the network is not made yet")
        return self._network

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process and no connection behind."""
        for client in self._clients.values():
            client.close()
        if self._network is not None:
            stop_all(self._network.all_processes())

    def run(self) -> dict[str, Any]:
        """Go through all steps and return the facts.

        Raises: ClearingError, ClientError: a step did not come out as it must.
        """
        started = time.monotonic()
        self._start()
        bulk, singles = self._split()
        recorded = self._submit(bulk)
        recorded += self._kill_and_return(singles)
        self._affirm(recorded)
        cycle = self._net()
        self._settle(cycle)
        self._anchor()
        receipts = self._receipts(recorded)
        self._verify_offline(receipts)
        self._flip()
        self.facts["seconds"] = _seconds(started)
        return self.facts

    # -- steps

    def _start(self) -> None:
        self.tell.step("A network of five nodes, each a process of its own")
        started = time.monotonic()
        total = len(self.parties)
        made: list[str] = []

        def done(name: str) -> None:
            made.append(name)
            self.tell.working("keys and certificates", len(made), total)

        self._network = make_network(self.path, self.parties, done)
        self.tell.say(
            f"certificates, keys and block 0 for {_counted(self.parties)} and {len(AUTHORITIES)} authorities in "
            f"{_seconds(started)} s"
        )
        started = time.monotonic()
        start_bitcoin(self.network)
        for process in self.network.processes():
            process.start()
        with observed(self.network) as observer:
            reports = observer.wait_ready(START_S, self._watch_start)
        self.tell.nodes(reports)
        self.tell.say(f"all five serve and cosign after {_seconds(started)} s")
        self.facts |= {
            "participants": total,
            "nodes": [report.name for report in reports],
            "start_seconds": _seconds(started),
        }

    def _watch_start(self, reports: list[NodeReport]) -> None:
        healthy = sum(report.is_healthy for report in reports)
        self.tell.working("starting nodes", healthy, len(reports))

    def _split(self) -> tuple[dict[str, list[Trade]], list[Trade]]:
        """Return the trades by debtor, and some of the busiest debtor's that are to be sent one by one."""
        by_debtor: dict[str, list[Trade]] = defaultdict(list)
        for trade in self.trades:
            by_debtor[trade.debtor].append(trade)
        busiest = max(by_debtor, key=lambda name: len(by_debtor[name]))
        held = min(SINGLES_MAX, len(by_debtor[busiest]) // 2)
        singles = by_debtor[busiest][len(by_debtor[busiest]) - held :]
        del by_debtor[busiest][len(by_debtor[busiest]) - held :]
        return by_debtor, singles

    def _submit(self, bulk: dict[str, list[Trade]]) -> list[_Sent]:
        self.tell.step("Obligations, signed by who owes them")
        started = time.monotonic()

        def submit(name: str) -> list[_Sent]:
            trades = bulk[name]
            recorded = self._client(name).submit([_obligation(trade) for trade in trades])
            return _sent(name, recorded, trades)

        sent = [one for many in self._all(submit, bulk, "submitting") for one in many]
        count = sum(len(one.trades) for one in sent)
        self.tell.say(
            f"{count:,} obligations in {len(sent)} submissions, one signature each, on disk in {_seconds(started)} s"
        )
        self.facts |= {"obligations": len(self.trades), "submit_seconds": _seconds(started)}
        return sent

    def _kill_and_return(self, singles: Sequence[Trade]) -> list[_Sent]:
        self.tell.step(f"kill -9 of the leader ({LEADER}) while obligations come in")
        with observed(self.network) as observer:
            before = leader_of(observer.nodes())
        sent: list[_Sent] = []
        may_kill = threading.Event()

        def send_all() -> None:
            try:
                for trade in singles:
                    recorded = self._client(trade.debtor).submit([_obligation(trade)])
                    sent.extend(_sent(trade.debtor, recorded, [trade]))
                    if len(sent) >= KILL_AFTER:
                        may_kill.set()
            finally:
                may_kill.set()

        with ThreadPoolExecutor(1) as sender:
            sending = sender.submit(send_all)
            may_kill.wait()
            process = self.network.process(LEADER)
            pid, acknowledged = process.pid(), len(sent)
            process.kill()
            self.tell.say(
                f"process {pid} killed after {acknowledged} more submissions were acknowledged"
            )
            started = time.monotonic()
            pid = process.start()
            sending.result()
        with observed(self.network) as observer:
            reports = observer.wait_ready(START_S)
        self.tell.say(
            f"process {pid} took over its files; the client sent on by itself, {len(sent)} of {len(singles)} recorded"
        )
        self._check_nothing_lost(sent)
        after = leader_of(reports)
        roots = {report.status.log_root for report in reports if report.status}
        if before is None or after is None or after.log_size < before.log_size or len(roots) != 1:
            raise VerificationError("the log did not come back as it was")
        self.tell.say(
            f"every acknowledged one is there once, and five nodes agree again on {after.log_size:,} leaves after "
            f"{_seconds(started)} s"
        )
        self.facts["kill"] = {
            "node": LEADER,
            "acknowledged_before": acknowledged,
            "recorded": len(sent),
            "lost": 0,
            "recovery_seconds": _seconds(started),
        }
        return sent

    def _check_nothing_lost(self, sent: Sequence[_Sent]) -> None:
        """Ask the restarted node for each submission by its client id.

        Raises: VerificationError: one is missing, or recorded elsewhere.
        """
        for one in sent:
            found = self._client(one.submitter).request(one.recorded.client_id)
            if found is None or found.index != one.recorded.index:
                raise VerificationError(f"submission {one.recorded.index} was lost")
        if len({one.recorded.index for one in sent}) != len(sent):
            raise VerificationError("a submission was recorded twice")

    def _affirm(self, sent: Sequence[_Sent]) -> None:
        self.tell.step("Affirmation by the other party")
        started = time.monotonic()
        named: dict[str, list[int]] = defaultdict(list)
        for one in sent:
            for creditor in dict.fromkeys(trade.creditor for trade in one.trades):
                named[creditor].append(one.recorded.index)

        def affirm(name: str) -> int:
            client = self._client(name)
            for index in named[name]:
                client.affirm(index)
            return len(named[name])

        count = sum(self._all(affirm, named, "affirming"))
        self.tell.say(
            f"{len(named)} parties affirmed {len(self.trades):,} obligations with {count} signatures in "
            f"{_seconds(started)} s"
        )
        self.facts |= {"affirmed": len(self.trades), "affirm_seconds": _seconds(started)}

    def _net(self) -> int:
        self.tell.step("A netting cycle")
        started = time.monotonic()
        bank = self._client(LEADER)
        cycle = bank.cycle_begun_by(bank.run_cycle().index)
        found, assets = bank.cycle(cycle, everyone=True)
        names = [asset.name for asset in bank.registry().assets]
        self.tell.say(
            f"cycle {cycle}: {found.cycle.obligations:,} obligations cut off, netted and sealed in "
            f"{_seconds(started)} s"
        )
        self.tell.netting(assets)
        self.facts |= {
            "cycle": cycle,
            "net_seconds": _seconds(started),
            "netting": {
                names[asset.asset]: {
                    "obligations": asset.obligations,
                    "gross": str(asset.gross_units),
                    "net": str(asset.net_units),
                    "saved": str(asset.gross_units - asset.net_units),
                }
                for asset in assets
            },
        }
        return cycle

    def _settle(self, cycle: int) -> None:
        self.tell.step("Settlement through the settlement agent")
        started = time.monotonic()
        bank = self._client(LEADER)
        names = [party.name for party in bank.registry().participants]
        rows = bank.instructions(SettlementFilter(cycle=cycle), everyone=True)
        for kind, what in (
            (SettlementKind.PAY_IN, "pay-ins"),
            (SettlementKind.PAY_OUT, "pay-outs"),
        ):
            chosen = [row for row in rows if row.instruction.kind is kind]
            self._all(lambda row: self._settle_one(row, names), chosen, what)
            payer = "each payer" if kind is SettlementKind.PAY_IN else "the central bank"
            payee = "the central bank" if kind is SettlementKind.PAY_IN else "each payee"
            self.tell.say(f"{len(chosen)} {what}: evidence by {payer}, confirmed by {payee}")
        until = time.monotonic() + FINAL_S
        while True:
            found, _ = bank.cycle(cycle)
            if found.final:
                break
            if time.monotonic() > until:
                raise VerificationError(f"cycle {cycle} did not become final in {FINAL_S:.0f} s")
            time.sleep(0.02)
        head = bank.checkpoint()
        self.tell.say(
            f"cycle {cycle} is settled and final after {_seconds(started)} s: a checkpoint of {head.size:,} leaves "
            f"covers it, cosigned by the quorum"
        )
        self.facts |= {
            "instructions": len(rows),
            "state": found.cycle.state.name,
            "final": found.final,
            "settle_seconds": _seconds(started),
        }

    def _settle_one(self, row: SettlementRow, names: Sequence[str]) -> None:
        """Record evidence as who pays, and confirm as who is paid."""
        participant = self._client(names[row.instruction.participant])
        bank = self._client(LEADER)
        pays_in = row.instruction.kind is SettlementKind.PAY_IN
        payer, payee = (participant, bank) if pays_in else (bank, participant)
        evidence = hashlib.sha256(f"payment {row.cycle}:{row.number}".encode()).digest()
        if row.instruction.state is InstructionState.PENDING:
            payer.evidence(row.cycle, row.number, evidence)
        payee.confirm(row.cycle, row.number)

    def _anchor(self) -> None:
        chain = self.network.bitcoin
        if chain is None:
            return
        # Formats and libraries come with the chain, as the extra `bitcoin`.
        from node.demo_anchor import AnchorDemo  # noqa: PLC0415

        bank = self._client(LEADER)
        demo = AnchorDemo(bank, chain, self.path / "anchors", self.tell, bank.checkpoint().size)
        started = time.monotonic()
        self.facts["anchor"] = demo.run() | {"seconds": _seconds(started)}

    def _receipts(self, sent: Sequence[_Sent]) -> list[bytes]:
        self.tell.step("Receipts, checked with all nodes switched off")
        chosen = sent[:: max(1, len(sent) // RECEIPTS_MAX)][:RECEIPTS_MAX]
        receipts = self._all(
            lambda one: self._client(one.submitter).receipt(one.recorded.index, 0)[0],
            chosen,
            "receipts",
        )
        sizes = ", ".join(f"{len(receipt):,}" for receipt in receipts)
        self.tell.say(f"{len(receipts)} receipts taken, of {sizes} bytes")
        for process in self.network.processes():
            process.kill()
        self.tell.say("all five nodes switched off, as a power cut would")
        return receipts

    def _verify_offline(self, receipts: Sequence[bytes]) -> None:
        policy = Policy.parse(self.network.policy_path.read_bytes())
        started = time.monotonic()
        for receipt in receipts:
            proven = verify_receipt(receipt, policy)
        self.tell.say(
            f"all {len(receipts)} verify with the policy file alone, cosigned by {', '.join(proven.cosigned_s)}, in "
            f"{(time.monotonic() - started) * 1000:.0f} ms"
        )
        self.facts["receipts"] = {"verified": len(receipts)}
        found, tried = flip_receipt(receipts[0], policy)
        if found != tried:
            raise VerificationError("a flipped byte of a receipt went unnoticed")
        self.tell.say(
            f"each of the {tried} bytes of a receipt's record flipped in turn: found {found} times"
        )
        self.facts["receipts"] |= {"bytes_flipped": tried, "found": found}

    def _flip(self) -> None:
        self.tell.step("One byte flipped in a node's database")
        data_dir = self.network.node_path("ministry") / DATA_NAME
        policy = Policy.parse(self.network.policy_path.read_bytes())
        leaf = self._some_leaf(data_dir)
        findings = flip_in_file(data_dir, leaf, lambda: check_directory(data_dir, policy))
        damage = [finding for finding in findings if finding.is_damage]
        if not damage:
            raise VerificationError("a flipped byte in the database went unnoticed")
        self.tell.say(f"clearing audit fsck: {damage[0]}")
        healed = [finding for finding in check_directory(data_dir, policy) if finding.is_damage]
        if healed:
            raise VerificationError(f"the database does not hold: {healed[0]}")
        self.tell.say("flipped back, everything is derived again from the log and holds")
        self.facts["database"] = {
            "node": "ministry",
            "findings": [str(finding) for finding in damage],
            "holds_after": True,
        }

    @staticmethod
    def _some_leaf(data_dir: Path) -> bytes:
        # The kernels come with the store; by now they are there.
        from node.store import Store  # noqa: PLC0415

        with Store.open(data_dir, create=False) as store:
            return store.leaf(2)

    # -- means

    def _client(self, name: str) -> Client:
        if name not in self._clients:
            identity = IdentityDirectory.open(self.network.identity_path(name))
            self._clients[name] = Client(identity, timeout_s=START_S)
        return self._clients[name]

    def _all(self, work: Callable[[Any], T], items: Iterable[Any], what: str) -> list[T]:
        """Do `work` for all items, several at a time, and return the results in order."""
        chosen = list(items)
        results = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for done, result in enumerate(pool.map(work, chosen), 1):
                results.append(result)
                self.tell.working(what, done, len(chosen))
        return results


@dataclass(frozen=True, slots=True)
class _Sent:
    """A recorded submission: who made it, where it is, and the trades in it, in order of items."""

    submitter: str
    recorded: Recorded
    trades: Sequence[Trade]


def _sent(submitter: str, recorded: Sequence[Recorded], trades: Sequence[Trade]) -> list[_Sent]:
    """Return the submissions that `trades` became."""
    sent = []
    start = 0
    for one in recorded:
        sent.append(_Sent(submitter, one, trades[start : start + one.items]))
        start += one.items
    return sent


def _obligation(trade: Trade) -> Obligation:
    return Obligation(
        trade.debtor,
        trade.creditor,
        trade.asset,
        trade.amount,
        due_ms=trade.due_ms,
        priority=trade.priority,
        trade_ref_hash=hashlib.sha256(trade.reference.encode()).digest(),
    )


def _counted(parties: Sequence[Party]) -> str:
    """Return how many participants there are of each role, such as "5 banks, 4 exchanges, 3 miners"."""
    counts = Counter(role_name(party.role) for party in parties)
    return ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in counts.items())


def _seconds(started: float) -> float:
    return round(time.monotonic() - started, 2)


def flip_receipt(receipt: bytes, policy: Policy) -> tuple[int, int]:
    """Flip each byte of a receipt's record in turn; return how often that was found, and how many bytes there are."""
    proof = LogProof.parse(receipt)
    record = proof.extra or b""
    found = 0
    for at in range(len(record)):
        altered = bytearray(record)
        altered[at] ^= 0x01
        try:
            verify_receipt(
                LogProof(proof.index, proof.path, proof.checkpoint, bytes(altered)).encode(), policy
            )
        except ClearingError:
            found += 1
    return found, len(record)


def flip_in_file(data_dir: Path, value: bytes, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Flip one byte of `value` in the database file, return what `check` finds, and flip it back.

    All copies of it are flipped: LMDB copies a page on write, and a freed page that nobody reads
    any more may hold the value before the page in use does.

    Raises: VerificationError: the file does not hold the value.
    """
    path = data_dir / _DATA_FILE
    middle = len(value) // 2
    places = [found.start() + middle for found in re.finditer(re.escape(value), path.read_bytes())]
    if not places:
        raise VerificationError(f"{path} does not hold the leaf")
    with path.open("r+b") as file:
        for flipped in (True, False):
            byte = value[middle] ^ (0x10 if flipped else 0)
            for place in places:
                file.seek(place)
                file.write(bytes([byte]))
            file.flush()
            if flipped:
                findings = check()
    return findings
