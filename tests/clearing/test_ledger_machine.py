"""The ledger against the oracle: arbitrary requests, valid, invalid, and valid ones that became invalid meanwhile.

After every block outcomes, states, positions, cycles, settlement instructions, proposals and registers are compared;
the block is applied a second time from the store alone; at the end the log is replayed, byte for byte.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clearing import ledger
from clearing.errors import DecodeError, RejectCode
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.transaction import decode_transaction
from clearing.types import AMOUNT_MAX, InstructionState, NettingMethod, Role, SettlementKind
from tests.clearing.core_kit import dump
from tests.clearing.machine_kit import ROLES, Twin, Twins, new_party
from tests.ledger_kit import CB, GENESIS_MS, MINISTRY, P01, P02, P03, P04
from tests.oracle_facts import Obligation, Terms

MINISTRY_2, OPERATOR, NOBODY = 7, 8, 30
ANYBODY = st.one_of(st.integers(0, len(ROLES) + 1), st.just(NOBODY))
OBLIGORS = st.sampled_from([P01, P02, P03, P04, CB])


def mostly(usual: Any, other: st.SearchStrategy[Any], *, times: int = 10) -> st.SearchStrategy[Any]:
    """Draw `usual`, and once in so many times something else."""
    return st.integers(1, times).flatmap(lambda at: other if at == times else st.just(usual))


STRANGER = mostly(None, ANYBODY)
AMOUNT = st.one_of(st.integers(1, 9), st.sampled_from([1 << 64, (1 << 127) + 1, AMOUNT_MAX]))
DELAY_MS = mostly(0, st.sampled_from([1, 5_000, 30_000, 90_000]), times=4)
NUMBER = st.integers(0, 1 << 16)
FAULTS = mostly((), st.sampled_from([(300,), (301,), (302,), (300, 301)]), times=40)
RANGES = st.one_of(
    st.just(()),
    st.lists(st.integers(0, 7), max_size=6, unique=True).map(
        lambda drawn: tuple(zip(sorted(drawn)[::2], sorted(drawn)[1::2], strict=False))
    ),
    st.integers(0, 6).map(lambda at: ((at, at),)),
)
ACTION = st.one_of(
    st.tuples(
        st.just("set_licence"),
        st.tuples(st.integers(0, 9), st.sampled_from([1, 1, 2, 2, 3, 7]), DELAY_MS),
    ),
    st.tuples(
        st.just("rotate_key"),
        st.tuples(st.integers(0, 9), st.tuples(st.sampled_from(["p01", "p02"]), st.integers(0, 3))),
    ),
    st.tuples(
        st.just("add_participant"),
        st.builds(new_party, st.integers(0, 3), st.sampled_from(Role)).map(lambda party: (party,)),
    ),
    st.tuples(st.just("add_asset"), st.sampled_from(["XA", "XB"]).map(lambda name: (name,))),
    st.tuples(
        st.just("set_cap"),
        st.tuples(st.integers(0, 9), st.integers(0, 3), st.one_of(st.none(), AMOUNT)),
    ),
    st.tuples(
        st.just("set_parameters"),
        st.tuples(
            st.integers(1, 4),
            st.just(120_000),
            st.sampled_from([50_000, 90_000]),
            st.sampled_from([30_000, 70_000]),
            st.sampled_from([3, 12, 1 << 22]),
        ),
    ),
    st.tuples(st.just("set_method"), st.tuples(st.integers(0, 3), st.integers(0, 4))),
    st.tuples(st.just("set_method"), st.tuples(st.integers(0, 2), st.integers(1, 3))),
    st.tuples(
        st.just("set_timetable"),
        st.lists(st.integers(80_000, 80_120), max_size=3).map(lambda drawn: (tuple(drawn),)),
    ),
)


class LedgerMachine(RuleBasedStateMachine):
    """Queues requests, seals blocks, and lets time pass."""

    twins: Twins

    @initialize(
        quorum=st.integers(1, 3),
        cut_offs_s=st.sampled_from([(), (80_060,), (80_030, 80_100)]),
        methods=st.tuples(*[st.sampled_from(NettingMethod)] * 3),
        items=st.sampled_from([5, 1 << 22]),
    )
    def start(
        self,
        quorum: int,
        cut_offs_s: tuple[int, ...],
        methods: tuple[NettingMethod, ...],
        items: int,
    ) -> None:
        """Genesis is at second 80,000 of its day."""
        terms = Terms(quorum, 120_000, 90_000, cut_offs_s, submitter_items=items)
        self.twins = Twins(terms, methods)
        self.oracle = self.twins.oracle
        self.time_ms = GENESIS_MS
        self.queue: list[Twin] = []
        self.sent: list[Twin] = []

    def _send(self, twin: Twin, *, wait: bool) -> None:
        self.queue.append(twin)
        self.sent.append(twin)
        if not wait or len(self.queue) == 5:
            self.seal(1_000)

    @rule(after_ms=st.sampled_from([0, 1, 1_000, 20_000, 60_000, 86_400_000]))
    def seal(self, after_ms: int) -> None:
        """Let time pass and seal what is queued."""
        self.time_ms += after_ms
        queue, self.queue = self.queue, []
        self.twins.block(self.time_ms, queue)

    @rule(early_ms=st.integers(0, 1))
    def sleep(self, early_ms: int) -> None:
        """Let time pass to the next deadline, or just short of it, when nothing may happen."""
        self.seal(0)
        deadline_ms = ledger.next_deadline_ms(self.twins.state, self.time_ms)
        blocks = len(self.twins.results)
        self.seal((deadline_ms or self.time_ms + 10**9) - 1 - self.time_ms)
        # Due times ask for a block at whole seconds; what is due before is taken along.
        early = (entry for result in self.twins.results[blocks:] for entry in result.entries)
        assert {leaf_kind(entry.leaf) for entry in early} <= {LeafKind.EXPIRED, LeafKind.SEAL}
        if deadline_ms and not early_ms:
            self.seal(1)

    @rule(
        actor=OBLIGORS,
        stranger=STRANGER,
        rows=st.lists(
            st.tuples(OBLIGORS, st.booleans(), st.integers(0, 3), AMOUNT, DELAY_MS, FAULTS),
            min_size=1,
            max_size=6,
        ),
        broken=mostly(None, st.sampled_from(["zero", "nobody", "others", "asset"])),
        wait=st.booleans(),
    )
    def submit(
        self, actor: int, stranger: int | None, rows, broken: str | None, *, wait: bool
    ) -> None:
        """Submit obligations, mostly good ones."""
        actor = actor if stranger is None else stranger
        items = []
        for other, owes, asset, amount, delay_ms, faults in rows:
            parties = (actor, other) if owes else (other, actor)
            due_ms = delay_ms and self.time_ms + delay_ms
            known = min(asset, len(self.oracle.assets) - 1)
            codes = tuple(map(RejectCode, faults))
            items.append(Obligation(*parties, known, amount, due_ms, codes))
        if broken == "zero":
            items[-1].amount = 0
        elif broken == "nobody":
            items[-1].debtor = NOBODY
        elif broken == "others":
            items[-1].debtor, items[-1].creditor = P03, P04
        elif broken == "asset":
            items[-1].asset = 9
        self._send(self.twins.submit(actor, items), wait=wait)

    @rule(
        other=st.sampled_from([P01, P02, P03, P04]),
        amounts=st.lists(AMOUNT, min_size=1, max_size=3),
        asset=st.integers(0, 2),
    )
    def owe(self, other: int, amounts: list[int], asset: int) -> None:
        """Submit and affirm in one block, to and fro, so that there is something to net and to set off."""
        debtor = P01 if other != P01 else P02
        items = [
            Obligation(*((other, debtor) if at % 2 else (debtor, other)), asset, amount, 0)
            for at, amount in enumerate(amounts)
        ]
        index = self.oracle.log_size + len(self.queue)
        self._send(self.twins.submit(debtor, items), wait=True)
        self._send(self.twins.instruct(other, "affirm", index, ()), wait=False)

    @precondition(lambda self: self.oracle.submissions)
    @rule(
        what=st.sampled_from(["affirm", "affirm", "affirm", "reject", "rescind"]),
        number=NUMBER,
        at=st.integers(0, 5),
        stranger=STRANGER,
        ranges=RANGES,
        wait=st.booleans(),
    )
    def select(self, what: str, number: int, at: int, stranger, ranges, *, wait: bool) -> None:
        """Affirm, reject or rescind, mostly as the party that may."""
        index = list(self.oracle.submissions)[number % len(self.oracle.submissions)]
        submitter, items = self.oracle.submissions[index]
        item, actor = items[at % len(items)], submitter
        if what != "rescind":
            actor = item.creditor if item.debtor == submitter else item.debtor
        actor = actor if stranger is None else stranger
        self._send(self.twins.instruct(actor, what, index, ranges), wait=wait)

    @rule(actor=mostly(CB, st.sampled_from([OPERATOR, P01, MINISTRY]), times=3), wait=st.booleans())
    def run_cycle(self, actor: int, *, wait: bool) -> None:
        """Cut off and net."""
        self._send(self.twins.instruct(actor, "run"), wait=wait)

    @precondition(lambda self: any(cycle.awaits for cycle in self.oracle.cycles.values()))
    @rule(number=NUMBER, how=st.sampled_from(["right", "right", "less", "more", "unproven"]))
    def solve(self, number: int, how: str) -> None:
        """Propose the right solution of an awaited set-off, or a wrong one."""
        self.seal(0)
        awaited = self.twins.solutions()
        if not awaited:
            return
        cycle, asset, losses, proven, potentials = awaited[number % len(awaited)]
        if how == "less" and losses:
            # One unit less of one pair is a loss to somebody, which must be covered, or is no set-off at all.
            pair, losses = losses[0], losses[1:]
            losses = (*((*pair[:2], pair[2] - 1),) * (pair[2] > 1), *losses)
            proven = False
        elif how == "more" and losses:
            losses, proven = ((*losses[0][:2], losses[0][2] + (1 << 140)), *losses[1:]), False
        elif how == "unproven" and losses:
            # So high a price of somebody who pays cannot be one at which it would.
            changed = list(potentials)
            changed[losses[0][0]] += 1 << 40
            potentials, proven = tuple(changed), False
        values = (cycle, asset, losses, proven, potentials)
        self._send(self.twins.instruct(CB, "solve", *values), wait=False)

    @precondition(lambda self: self.oracle.cycles)
    @rule(
        what=st.sampled_from(["evidence", "confirm", "fail"]),
        cycle=st.integers(0, 3),
        number=st.integers(0, 5),
        stranger=STRANGER,
        wait=st.booleans(),
    )
    def move(self, what: str, cycle: int, number: int, stranger: int | None, *, wait: bool) -> None:
        """Move a settlement instruction, possible or not."""
        cycle = max(0, len(self.oracle.cycles) - cycle)
        found = self.oracle._find(cycle, number)
        actor = stranger if stranger is not None else (found.participant if found else P01)
        self._send(self.twins.instruct(actor, what, cycle, number), wait=wait)

    @precondition(lambda self: self.oracle.cycles)
    @rule(cycle=NUMBER, steps=st.integers(1, 12))
    def settle(self, cycle: int, steps: int) -> None:
        """Take the next steps of a cycle as the agent, pay-ins first."""
        for _ in range(steps):
            number = cycle % len(self.oracle.cycles) + 1
            instructions = self.oracle.cycles[number].instructions
            open_ones = [
                (each.kind is SettlementKind.PAY_OUT, at)
                for at, each in enumerate(instructions)
                if each.state in (InstructionState.PENDING, InstructionState.EVIDENCED)
            ]
            if not open_ones:
                return
            at = min(open_ones)[1]
            is_pending = instructions[at].state is InstructionState.PENDING
            what = "evidence" if is_pending else "confirm"
            self._send(self.twins.instruct(CB, what, number, at), wait=False)

    @rule(
        actor=st.sampled_from([CB, CB, CB, P01]),
        participant=ANYBODY,
        asset=st.integers(0, 4),
        amount=st.one_of(st.just(0), AMOUNT),
        wait=st.booleans(),
    )
    def pledge(self, actor: int, participant: int, asset: int, amount: int, *, wait: bool) -> None:
        """Record liquidity."""
        self._send(self.twins.instruct(actor, "pledge", participant, asset, amount), wait=wait)

    @rule(
        actor=st.sampled_from([CB, MINISTRY, MINISTRY_2, P01]),
        actions=st.lists(ACTION, min_size=1, max_size=2),
        wait=st.booleans(),
    )
    def propose(self, actor: int, actions: list[tuple[str, Any]], *, wait: bool) -> None:
        """Propose governance actions; times in them are relative."""
        made = []
        for what, values in actions:
            has_expiry = what == "set_licence" and values[2]
            made.append((what, (*values[:2], self.time_ms + values[2]) if has_expiry else values))
        self._send(self.twins.instruct(actor, "propose", tuple(made)), wait=wait)

    @precondition(lambda self: self.oracle.proposals)
    @rule(
        actor=st.sampled_from([CB, CB, MINISTRY, MINISTRY_2, MINISTRY_2, P01]),
        number=NUMBER,
        wait=st.booleans(),
    )
    def approve(self, actor: int, number: int, *, wait: bool) -> None:
        """Approve a proposal, or what is none."""
        indexes = [*self.oracle.proposals, number]
        self._send(self.twins.instruct(actor, "approve", indexes[number % len(indexes)]), wait=wait)

    @precondition(lambda self: self.sent)
    @rule(number=NUMBER, how=st.sampled_from(["again", "renewed", "same id"]), wait=st.booleans())
    def repeat(self, number: int, how: str, *, wait: bool) -> None:
        """Send an earlier request again: the same bytes, the same wish, or another wish under its id."""
        twin = self.sent[number % len(self.sent)]
        if how == "renewed":
            twin = self.twins.renewed(twin)
        elif how == "same id":
            actor = twin.request.actor
            last = [each for each in self.sent if each.request.actor == actor][-1]
            twin = self.twins.renewed(last, twin.request.client_id)
        self._send(twin, wait=wait)

    @precondition(lambda self: self.sent)
    @rule(number=NUMBER, how=st.sampled_from(["signature", "body", "payload"]), wait=st.booleans())
    def damage(self, number: int, how: str, *, wait: bool) -> None:
        """Send an earlier wish, signed anew and then damaged; or sign a payload that is none."""
        twin = self.sent[number % len(self.sent)]
        if how == "payload":
            self._send(self.twins.instruct(twin.request.actor, "malformed"), wait=wait)
            return
        damaged = self.twins.damaged(self.twins.renewed(twin), in_signature=how == "signature")
        self._send(damaged, wait=wait)

    def teardown(self) -> None:
        """Seal what is left, and replay the whole log."""
        if hasattr(self, "twins"):
            self.seal(1_000)
            self.twins.replay()


def test_the_ledger_is_what_the_oracle_says() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=30, stateful_step_count=30)
    )


@pytest.mark.slow
def test_the_ledger_is_what_the_oracle_says_in_long_runs() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=100, stateful_step_count=100)
    )


def _actions(chance: random.Random, amounts: list[int]) -> list[tuple[str, Any]]:
    """Return governance actions of which a walk proposes one."""
    licence = (chance.randrange(6), chance.choice([1, 1, 2, 3]), chance.choice([0, 50_000]))
    return [
        *[("set_licence", licence)] * 4,
        ("rotate_key", (chance.randrange(10), ("p01", chance.randrange(99)))),
        ("set_cap", (chance.randrange(9), chance.randrange(3), chance.choice([None, *amounts]))),
        ("add_participant", (new_party(chance.randrange(6), chance.choice(list(Role))),)),
        ("add_asset", (chance.choice(["XA", "XB"]),)),
        *[("set_method", (chance.randrange(3), chance.randrange(1, 4)))] * 3,
    ]


def _steps(chance: random.Random) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the steps of a random walk: how often each is taken, and with what."""
    obligors, amounts = [P01, P02, P03, P04, CB], [1, 2, 3, 7, 1 << 64, AMOUNT_MAX]
    actor = chance.choice(obligors)
    stranger = chance.choice([None] * 9 + [chance.randrange(len(ROLES) + 2)])
    wait, number = chance.random() < 0.5, chance.randrange(1 << 16)
    some = [chance.randrange(8) for _ in range(2)]
    rows = [
        (
            chance.choice(obligors),
            chance.random() < 0.5,
            chance.randrange(3),
            chance.choice(amounts),
            chance.choice([0, 0, 0, 5_000, 90_000]),
            (),
        )
        for _ in range(chance.randrange(1, 7))
    ]
    rows = [row for row in rows if row[0] != actor] or rows[:1]
    actions = _actions(chance, amounts)
    ranges = chance.choice([(), (), ((0, 0),), ((min(some), max(some)),)])
    select = {"number": number, "at": some[0], "stranger": stranger, "ranges": ranges, "wait": wait}
    what = chance.choice(["evidence", "confirm", "fail"])
    move = {"cycle": chance.randrange(3), "number": chance.randrange(6), "stranger": stranger}
    governor = chance.choice([CB, MINISTRY, MINISTRY_2])
    broken = chance.choice([None] * 9 + ["zero", "nobody", "others", "asset"])
    damage = chance.choice(["signature", "body", "payload"])
    repeat = chance.choice(["again", "renewed", "same id"])
    return {
        "sleep": (4, {"early_ms": chance.randrange(2)}),
        "seal": (5, {"after_ms": chance.choice([0, 1_000, 20_000, 60_000])}),
        "submit": (
            10,
            {
                "actor": actor,
                "stranger": stranger,
                "rows": rows,
                "broken": broken,
                "wait": wait,
            },
        ),
        "owe": (
            6,
            {
                "other": P02,
                "amounts": chance.choices(amounts, k=chance.randrange(1, 4)),
                "asset": chance.randrange(3),
            },
        ),
        "select": (
            20,
            {"what": chance.choice(["affirm", "affirm", "reject", "rescind"]), **select},
        ),
        "run_cycle": (5, {"actor": chance.choice([CB, OPERATOR]), "wait": wait}),
        "solve": (
            9,
            {"number": number, "how": chance.choice(["right"] * 4 + ["less", "more", "unproven"])},
        ),
        "move": (12, {"what": what, **move, "wait": wait}),
        "settle": (8, {"cycle": number, "steps": chance.randrange(1, 9)}),
        "pledge": (2, {"actor": CB, "participant": actor, "asset": 1, "amount": 7, "wait": wait}),
        "propose": (5, {"actor": governor, "actions": [chance.choice(actions)], "wait": wait}),
        "approve": (6, {"actor": governor, "number": number, "wait": wait}),
        "repeat": (6, {"number": number, "how": repeat, "wait": wait}),
        "damage": (2, {"number": number, "how": damage, "wait": wait}),
    }


def _walk(seed: int, steps: int) -> None:
    """Walk without hypothesis, which prefers short runs of few rules: far, and evenly through all of them."""
    chance = random.Random(seed)
    machine = LedgerMachine()
    machine.start(
        quorum=chance.choice([1, 2]),
        cut_offs_s=chance.choice([(), (80_060,)]),
        methods=tuple(chance.choice(list(NettingMethod)) for _ in range(3)),
        items=chance.choice([8, 1 << 22]),
    )
    machine.owe(P02, [5], 0)
    for _ in range(steps):
        options = _steps(chance)
        names = [
            name
            for name in options
            if (machine.oracle.cycles or name not in ("move", "settle"))
            and (name != "solve" or any(c.awaits for c in machine.oracle.cycles.values()))
            and (machine.oracle.proposals or name != "approve")
        ]
        name = chance.choices(names, [options[each][0] for each in names])[0]
        getattr(machine, name)(**options[name][1])
    machine.teardown()


@pytest.mark.parametrize("seed", range(8))
def test_a_random_walk_keeps_the_two_together(seed: int) -> None:
    _walk(seed, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 125))
def test_a_long_random_walk_keeps_the_two_together(seed: int) -> None:
    _walk(seed, 400)


@given(offset=st.integers(0, 400), bit=st.integers(0, 7), is_item=st.booleans())
def test_a_flipped_bit_anywhere_is_refused_without_a_trace(
    offset: int, bit: int, *, is_item
) -> None:
    twins = Twins(Terms(2, 120_000, 90_000))
    good = twins.submit(P01, [Obligation(P01, P02, 0, 5, 0)])
    twins.block(GENESIS_MS + 1, [good])
    made = good if is_item else twins.instruct(P02, "affirm", 2, ())
    data = bytearray(twins.renewed(made).transaction.encode())
    data[offset % len(data)] ^= 1 << bit
    try:
        transaction = decode_transaction(bytes(data))
    except DecodeError:
        return
    before = dump(twins.state)
    block = ledger.Block(twins.state.height + 1, GENESIS_MS + 2, (transaction,))
    result = ledger.apply(twins.state, block)
    assert 0 < result.outcomes[0].code < RejectCode.EXISTS_DIFFERENT
    assert (result.entries, result.delta.rows) == ((), ())
    assert dump(twins.state) == before
