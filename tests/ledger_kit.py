"""A small network for tests of the core: seeded keys, a genesis, and one method a user's act.

Lives here: what many tests build. It uses the real apply, records and signatures; rows are kept by MemoryStore.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing import ledger
from clearing.handlers import solutions
from clearing.identifiers import make_lei
from clearing.memory import MemoryStore
from clearing.netting.engine import Engine
from clearing.netting.pairs import pair_totals, stated
from clearing.netting.setoff import set_off
from clearing.params import Parameters
from clearing.records import instruction as ins
from clearing.records.obligation import encode_item
from clearing.records.solution import Solution
from clearing.records.submission import Submission, make_submission
from clearing.records.transaction import Transaction
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Asset, Participant
from clearing.state import State
from clearing.types import LicenceStatus, NettingMethod, ObligationKind, Role

GENESIS_MS = 1_700_000_000_000
ROLES = (
    ("central-bank", Role.CENTRAL_BANK),
    ("ministry", Role.MINISTRY),
    ("p01", Role.BANK),
    ("p02", Role.BANK),
    ("p03", Role.EXCHANGE),
    ("p04", Role.MINER),
    ("regulator", Role.REGULATOR),
)
CB, MINISTRY, P01, P02, P03, P04, REGULATOR = range(7)
ASSETS = (
    ("BTC", "bip122:000000000019d6689c085ae165831e93/slip44:0", "4H95J0R2X", 8),
    ("ETH", "eip155:1/slip44:60", "X9J9K872S", 18),
    ("USDT", "eip155:1/erc20:0xdac17f958d2ee523a2206206994597c13d831ec7", "", 6),
)
BTC, ETH, USDT = range(3)


def seeded_key(name: str, generation: int = 0) -> Ed25519PrivateKey:
    """Return the key that a name always has in tests."""
    seed = hashlib.sha256(f"test key {name} {generation}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def participant(name: str, role: Role, number: int, expiry_ms: int = 0) -> Participant:
    """Return a licensed participant with a valid LEI and a seeded key."""
    return Participant(
        name=name,
        lei=make_lei(f"TEST{number:014d}"),
        role=role,
        status=LicenceStatus.ACTIVE,
        public_key=seeded_key(name).public_key().public_bytes_raw(),
        licence_no=f"L-{number:04d}",
        licence_expiry_ms=expiry_ms,
    )


def genesis_actions(
    roles: tuple[tuple[str, Role], ...] = ROLES,
    parameters: Parameters | None = None,
    cut_offs_s: tuple[int, ...] = (),
) -> bytes:
    """Return the canonical actions that register everybody."""
    actions = [
        Action(ActionKind.ADD_PARTICIPANT, participant(name, role, number))
        for number, (name, role) in enumerate(roles)
    ]
    actions += [
        Action(ActionKind.ADD_ASSET, Asset(name, caip19, dti, scale, NettingMethod.POSITIONS))
        for name, caip19, dti, scale in ASSETS
    ]
    actions.append(Action(ActionKind.SET_PARAMETERS, parameters or Parameters()))
    actions.append(Action(ActionKind.SET_TIMETABLE, cut_offs_s))
    return encode_actions(actions)


def item(debtor: int, creditor: int, amount: int, asset: int = BTC, **fields: int) -> bytes:
    """Return one obligation record with plain defaults."""
    values: dict[str, object] = {
        "version": 1,
        "kind": ObligationKind.TRADE,
        "flags": 0,
        "priority": 0,
        "due_ms": 0,
        "trade_ref_hash": bytes(32),
        "compliance_ref_hash": bytes(32),
    }
    values.update(fields)
    return encode_item(debtor=debtor, creditor=creditor, amount_units=amount, asset=asset, **values)


@dataclass
class Net:
    """One ledger in memory, driven block by block."""

    roles: tuple[tuple[str, Role], ...] = ROLES
    parameters: Parameters | None = None
    cut_offs_s: tuple[int, ...] = ()
    store: MemoryStore = field(default_factory=MemoryStore)
    results: list[ledger.BlockResult] = field(default_factory=list)
    serial: int = 0

    def __post_init__(self) -> None:
        result = ledger.genesis(
            GENESIS_MS, genesis_actions(self.roles, self.parameters, self.cut_offs_s)
        )
        self.store.commit(result)
        self.results.append(result)
        self.state = State.load(self.store)
        self.time_ms = GENESIS_MS
        self.generation: dict[int, int] = {}

    def fresh(self, what: str, width: int) -> bytes:
        """Return bytes that no earlier call returned, the same in every run."""
        self.serial += 1
        return hashlib.sha256(f"{what} {self.serial}".encode()).digest()[:width]

    def key(self, actor: int) -> Ed25519PrivateKey:
        """Return the key that `actor` signs with now."""
        return seeded_key(self.roles[actor][0], self.generation.get(actor, 0))

    def submission(
        self, submitter: int, *records: bytes, client_id: bytes | None = None
    ) -> Submission:
        """Sign records as one submission."""
        return make_submission(
            network_id=self.state.network_id,
            submitter=submitter,
            client_id=client_id or self.fresh("client", 16),
            secret=self.fresh("secret", 32),
            records=b"".join(records),
            sign=self.key(submitter).sign,
        )

    def instruction(
        self, kind: ins.InstructionKind, actor: int, payload: bytes = b""
    ) -> ins.Instruction:
        """Sign one instruction."""
        return ins.make_instruction(
            network_id=self.state.network_id,
            kind=kind,
            actor=actor,
            client_id=self.fresh("client", 16),
            salt=self.fresh("salt", 16),
            payload=payload,
            sign=self.key(actor).sign,
        )

    def node_key(self, actor: int) -> Ed25519PrivateKey:
        """Return the key that the node of `actor` signs with, once governance has set it."""
        return seeded_key(f"node of {self.roles[actor][0]}")

    def govern(self, *actions: Action) -> None:
        """Let ministry and central bank enact actions."""
        payload = encode_actions(actions)
        proposal = self.one(self.instruction(ins.InstructionKind.PROPOSE, MINISTRY, payload))
        assert proposal.code == 0, proposal
        approval = ins.APPROVAL_LAYOUT.encode(proposal=proposal.index)
        outcome = self.one(self.instruction(ins.InstructionKind.APPROVE, CB, approval))
        assert outcome.code == 0, outcome

    def set_node_key(self, actor: int = CB) -> None:
        """Have the node of `actor` believed."""
        key = self.node_key(actor).public_key().public_bytes_raw()
        subject = {"participant": actor, "node_key": key}
        self.govern(Action(ActionKind.SET_NODE_KEY, subject))

    def set_method(self, asset: int, method: NettingMethod) -> None:
        """Have an asset netted by `method` from the next cut-off on."""
        self.govern(Action(ActionKind.SET_METHOD, {"asset": asset, "method": method}))

    def solution(self, place: int = 0) -> Solution:
        """Return a solution of the set-off that is awaited at `place`, found by the package's own solver."""
        problem = solutions.awaited(self.state)[place]
        found = set_off(
            problem.columns,
            len(self.state.registry.participants),
            problem.liquidity,
            engine=Engine.PORTABLE,
        )
        pairs = pair_totals(problem.columns, found.discharged_lo, found.discharged_hi)
        told = stated(problem.columns, pairs)
        return Solution.of(problem.cycle, problem.asset, told, found.potentials)

    def proposal_of(
        self, solution: Solution, actor: int = CB, key: Ed25519PrivateKey | None = None
    ) -> ins.Instruction:
        """Sign a solution with the key of the node of `actor`, or another."""
        return ins.make_instruction(
            network_id=self.state.network_id,
            kind=ins.InstructionKind.SOLVE,
            actor=actor,
            client_id=self.fresh("client", 16),
            salt=self.fresh("salt", 16),
            payload=solution.encode(),
            sign=(key or self.node_key(actor)).sign,
        )

    def solve(self, solution: Solution | None = None) -> ledger.Outcome:
        """Have the central bank's node propose a solution, by default the right one."""
        return self.one(self.proposal_of(solution or self.solution()))

    def block(self, *transactions: Transaction, after_ms: int = 1000) -> ledger.BlockResult:
        """Apply one block `after_ms` after the last, commit it and move on."""
        self.time_ms += after_ms
        block = ledger.Block(self.state.height + 1, self.time_ms, transactions)
        result = ledger.apply(self.state, block)
        if result.entries:
            self.store.commit(result)
            self.state.advance(result.delta)
            self.results.append(result)
        return result

    def one(self, transaction: Transaction, after_ms: int = 1000) -> ledger.Outcome:
        """Apply one transaction in a block of its own."""
        return self.block(transaction, after_ms=after_ms).outcomes[0]

    def submit(self, submitter: int, *records: bytes) -> int:
        """Submit and return the log index; the submission must be good."""
        outcome = self.one(self.submission(submitter, *records))
        assert outcome.code == 0, outcome
        return outcome.index

    def select(
        self, kind: ins.InstructionKind, actor: int, submission: int, *ranges: tuple[int, int]
    ) -> ledger.Outcome:
        """Affirm, reject or rescind."""
        payload = ins.ItemSelection(submission, ranges).encode()
        return self.one(self.instruction(kind, actor, payload))

    def affirm(self, actor: int, submission: int, *ranges: tuple[int, int]) -> ledger.Outcome:
        """Affirm items of a submission."""
        return self.select(ins.InstructionKind.AFFIRM, actor, submission, *ranges)

    def run_cycle(self, actor: int = CB) -> ledger.Outcome:
        """Cut off and net now."""
        return self.one(self.instruction(ins.InstructionKind.RUN_CYCLE, actor))

    def settlement(
        self, kind: ins.InstructionKind, actor: int, cycle: int, number: int
    ) -> ledger.Outcome:
        """Show evidence for, confirm or fail a settlement instruction."""
        values = {"cycle": cycle, "number": number}
        if kind is ins.InstructionKind.EVIDENCE:
            payload = ins.EVIDENCE_LAYOUT.encode(evidence_hash=b"\x11" * 32, **values)
        else:
            payload = ins.REFERENCE_LAYOUT.encode(**values)
        return self.one(self.instruction(kind, actor, payload))

    def settle(self, cycle: int) -> None:
        """Evidence and confirm every open instruction of a cycle as the agent, pay-ins first."""
        for _ in range(2):
            for key, value in list(
                self.store.scan(ledger.Table.SETTLEMENTS, cycle.to_bytes(4, "big"))
            ):
                if value[7] == 1:
                    number = int.from_bytes(key[4:], "big")
                    self.settlement(ins.InstructionKind.EVIDENCE, CB, cycle, number)
                    self.settlement(ins.InstructionKind.CONFIRM, CB, cycle, number)
