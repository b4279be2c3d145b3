"""A second, naive model of the ledger: plain dictionaries and Python integers, no columns, no deltas, no bytes.

Lives here: what the rules mean, written down again in the simplest way. It shares enumerations and reject codes with
clearing/, and nothing else: positions are summed anew from the obligations each time they are asked for, a cycle is
a list of obligations, a signature is the name of a key. test_ledger_machine.py compares it with the ledger.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

from clearing.errors import RejectCode as R
from clearing.types import (
    OBLIGORS,
    CycleState,
    InstructionState,
    NettingMethod,
    ObligationState,
    Role,
    SettlementKind,
)
from tests.oracle_facts import (
    Answer,
    Cycle,
    Obligation,
    Party,
    Proposal,
    Request,
    Settlement,
    Terms,
)
from tests.oracle_governance import GovernedOracle
from tests.oracle_netting import greatest_in_queue_order, is_greatest, loss_by_pairs

DAY_MS = 86_400_000
GOVERNING = (Role.MINISTRY, Role.CENTRAL_BANK)


ROLES_OF = {
    **dict.fromkeys(
        ("submit", "affirm", "reject", "rescind", "evidence", "confirm", "fail"), OBLIGORS
    ),
    "run": (Role.CENTRAL_BANK, Role.OPERATOR),
    "pledge": (Role.CENTRAL_BANK,),
    "propose": GOVERNING,
    "approve": GOVERNING,
    "solve": (*GOVERNING, Role.OPERATOR),
}
WAITING = (ObligationState.AFFIRMED, ObligationState.PARTLY_DISCHARGED)
WITHOUT_LICENCE = ("evidence", "confirm", "fail")
ORIGINS = {
    "affirm": (ObligationState.PROPOSED,),
    "reject": (ObligationState.PROPOSED,),
    "rescind": (ObligationState.PROPOSED, ObligationState.AFFIRMED),
}
TARGETS = {
    "affirm": ObligationState.AFFIRMED,
    "reject": ObligationState.REJECTED,
    "rescind": ObligationState.RESCINDED,
}
ENDS = (
    ObligationState.SETTLED,
    ObligationState.REJECTED,
    ObligationState.RESCINDED,
    ObligationState.EXPIRED,
)


class Oracle(GovernedOracle):
    """The ledger's memory and its rules, block by block."""

    def __init__(
        self, time_ms: int, parties: Sequence[Party], assets: Sequence[str], terms: Terms
    ) -> None:
        """Start after genesis: two leaves, GENESIS and SEAL."""
        self.time_ms = self.sealed_ms = time_ms
        self.parties = list(parties)
        self.assets = list(assets)
        self.terms = terms
        self.log_size = 2
        self.requests: dict[tuple[int, bytes], tuple[bytes, int]] = {}
        self.submissions: dict[int, tuple[int, list[Obligation]]] = {}
        self.held: dict[int, int] = {}
        self.cycles: dict[int, Cycle] = {}
        self.proposals: dict[int, Proposal] = {}
        self.liquidity: dict[tuple[int, int], int] = {}
        self.caps: dict[tuple[int, int], int | None] = {}
        self.methods = dict.fromkeys(range(len(assets)), NettingMethod.POSITIONS)

    def block(self, time_ms: int, requests: Sequence[Request]) -> list[Answer]:
        """Do what falls due, answer the requests in order, and count a SEAL if anything was recorded."""
        self.time_ms, size = time_ms, self.log_size
        self.held = self.open_items_by_submitter()
        self._expire()
        self._give_up()
        self._time_out()
        self._timetable()
        answers = [self._answer(request) for request in requests]
        if self.log_size > size:
            self.log_size += 1
            self.sealed_ms = time_ms
        return answers

    # what can be read off

    def obligations(self) -> Iterator[Obligation]:
        """Yield every obligation, in order of submission and item."""
        for _, items in self.submissions.values():
            yield from items

    def open_items(self) -> int:
        """Return the items of submissions that have not ended, ended items of theirs included."""
        lists = [items for _, items in self.submissions.values()]
        return sum(len(items) for items in lists if any(item.state not in ENDS for item in items))

    def open_items_by_submitter(self) -> dict[int, int]:
        """Return the same by who submitted them; nobody has none."""
        held: dict[int, int] = {}
        for submitter, items in self.submissions.values():
            if any(item.state not in ENDS for item in items):
                held[submitter] = held.get(submitter, 0) + len(items)
        return held

    def position(self, participant: int, asset: int) -> tuple[int, ...]:
        """Return payable, receivable, provisional net, paid and received, each summed from the beginning."""
        payable = receivable = locked = paid = received = 0
        for each in self.obligations():
            owed = each.rest if each.asset == asset else 0
            if each.state in (*WAITING, ObligationState.LOCKED):
                payable += owed if each.debtor == participant else 0
                receivable += owed if each.creditor == participant else 0
            if each.state is ObligationState.LOCKED and each.asset == asset:
                locked += each.loses if each.creditor == participant else 0
                locked -= each.loses if each.debtor == participant else 0
        for cycle in self.cycles.values():
            for each in cycle.instructions:
                if (each.participant, each.asset) != (participant, asset):
                    continue
                if each.state is InstructionState.CONFIRMED:
                    paid += each.amount if each.kind is SettlementKind.PAY_IN else 0
                    paid -= each.amount if each.kind is SettlementKind.REFUND else 0
                    received += each.amount if each.kind is SettlementKind.PAY_OUT else 0
        return payable, receivable, locked, paid, received

    def agent(self) -> int | None:
        """Return who settles what is cut off now: the first central bank in licence."""
        for at, party in enumerate(self.parties):
            if party.role is Role.CENTRAL_BANK and party.is_licensed(self.time_ms):
                return at
        return None

    def governors(self) -> set[int]:
        """Return the governors in licence."""
        return {
            at
            for at, party in enumerate(self.parties)
            if party.role in GOVERNING and party.is_licensed(self.time_ms)
        }

    # what falls due

    def _record(self) -> int:
        self.log_size += 1
        return self.log_size - 1

    def _expire(self) -> None:
        for _, items in self.submissions.values():
            late = [
                item
                for item in items
                if item.state is ObligationState.PROPOSED and 0 < item.due_ms <= self.time_ms
            ]
            for item in late:
                item.state = ObligationState.EXPIRED
            if late:
                self._record()

    def _time_out(self) -> None:
        for number, cycle in self.cycles.items():
            late = self.time_ms >= cycle.netted_ms + self.terms.timeout_ms
            if cycle.state is CycleState.NETTED and late:
                self._fail_cycle(number)

    def _timetable(self) -> None:
        day = self.sealed_ms - self.sealed_ms % DAY_MS
        times = [
            start + second * 1000
            for start in range(day, self.time_ms + 1, DAY_MS)
            for second in self.terms.cut_offs_s
        ]
        if any(self.sealed_ms < cut_off_ms <= self.time_ms for cut_off_ms in times):
            self._net()

    # what is asked

    def _answer(self, request: Request) -> Answer:
        known = self.requests.get((request.actor, request.client_id))
        if known is not None and known[0] == request.leaf:
            return Answer(R.OK, known[1], repeated=True)
        code = self._refusal(request, is_id_used=known is not None)
        if code is not R.OK:
            return Answer(code)
        answer: Answer = getattr(self, f"_{request.what}")(request.actor, *request.values)
        if answer.code is R.OK:
            self.requests[request.actor, request.client_id] = (request.leaf, answer.index)
        return answer

    def _refusal(self, request: Request, *, is_id_used: bool) -> R:
        if request.what == "malformed":
            return R.MALFORMED
        if request.actor >= len(self.parties):
            return R.UNKNOWN_ACTOR
        party = self.parties[request.actor]
        key = party.node_key if request.what == "solve" else party.key
        if request.signed_with != key:
            return R.BAD_SIGNATURE
        if not request.is_committed:
            return R.COMMITMENT_MISMATCH
        if is_id_used:
            return R.EXISTS_DIFFERENT
        if request.what not in WITHOUT_LICENCE and not party.is_licensed(self.time_ms):
            return R.NOT_LICENSED
        return R.OK if party.role in ROLES_OF[request.what] else R.ROLE_NOT_ALLOWED

    # obligations

    def _submit(self, actor: int, items: tuple[Obligation, ...]) -> Answer:
        codes = [min(self._item_faults(actor, item), default=R.OK) for item in items]
        bad = tuple((at, code) for at, code in enumerate(codes) if code)
        if bad:
            return Answer(min(code for _, code in bad), bad=bad)
        # What ends in this block makes room in the next.
        if self.held.get(actor, 0) + len(items) > self.terms.submitter_items:
            return Answer(R.SUBMITTER_BOOK_FULL)
        self.held[actor] = self.held.get(actor, 0) + len(items)
        index = self._record()
        self.submissions[index] = (actor, deepcopy(list(items)))
        return Answer(R.OK, index)

    def _item_faults(self, actor: int, item: Obligation) -> list[R]:
        faults = list(item.faults)
        parties = (item.debtor, item.creditor)
        known = [self.parties[each] for each in parties if each < len(self.parties)]
        if item.debtor == item.creditor:
            faults.append(R.SAME_PARTY)
        if actor not in parties:
            faults.append(R.SUBMITTER_NOT_PARTY)
        if len(known) < 2 or any(party.role not in OBLIGORS for party in known):
            faults.append(R.UNKNOWN_PARTICIPANT)
        if not all(party.is_licensed(self.time_ms) for party in known):
            faults.append(R.PARTICIPANT_NOT_LICENSED)
        if item.asset >= len(self.assets):
            faults.append(R.UNKNOWN_ASSET)
        if item.amount == 0:
            faults.append(R.ZERO_AMOUNT)
        if 0 < item.due_ms <= self.time_ms:
            faults.append(R.DUE_PASSED)
        return faults

    def _move_items(
        self, what: str, actor: int, index: int, ranges: tuple[tuple[int, int], ...]
    ) -> Answer:
        if index not in self.submissions:
            return Answer(R.UNKNOWN_SUBMISSION)
        submitter, items = self.submissions[index]
        # Of what is closed, only whom the submission names is remembered, not in which item.
        is_closed = all(item.state in ENDS for item in items)

        def is_own(item: Obligation) -> bool:
            if what == "rescind":
                return actor == submitter
            concerned = items if is_closed else [item]
            return actor != submitter and any(
                actor in (each.debtor, each.creditor) for each in concerned
            )

        named = [at for first, last in ranges for at in range(first, last + 1)]
        if not ranges:
            every = range(len(items))
            named = [at for at in every if is_own(items[at]) and items[at].state in ORIGINS[what]]
        bad = []
        for at in named:
            if at < len(items) and not is_own(items[at]):
                bad.append((at, R.NOT_A_PARTY))
            elif at < len(items) and items[at].state not in ORIGINS[what]:
                bad.append((at, R.ITEM_STATE))
        codes = {code for _, code in bad} | {R.UNKNOWN_ITEM for at in named if at >= len(items)}
        if not named:
            return Answer(R.NOTHING_SELECTED)
        if codes:
            code = min(codes)
            return Answer(code, bad=() if code is R.UNKNOWN_ITEM else tuple(bad))
        for at in named:
            items[at].state = TARGETS[what]
        return Answer(R.OK, self._record())

    _affirm = functools.partialmethod(_move_items, "affirm")
    _reject = functools.partialmethod(_move_items, "reject")
    _rescind = functools.partialmethod(_move_items, "rescind")

    # cycles and settlement

    def _run(self, _: int) -> Answer:
        if not self._nettable():
            return Answer(R.NOTHING_TO_NET)
        if self.agent() is None:
            return Answer(R.NO_SETTLEMENT_AGENT)
        index = self._record()
        self._net()
        return Answer(R.OK, index)

    def _nettable(self) -> list[Obligation]:
        licensed = [party.is_licensed(self.time_ms) for party in self.parties]
        return [
            each
            for each in self.obligations()
            if each.state in WAITING and licensed[each.debtor] and licensed[each.creditor]
        ]

    def _net(self) -> None:
        taken, agent = self._nettable(), self.agent()
        if not taken or agent is None:
            return
        number = len(self.cycles) + 1
        cycle = Cycle(self.time_ms, len(taken), agent)
        self.cycles[number] = cycle
        for asset in sorted({each.asset for each in taken}):
            here = [each for each in taken if each.asset == asset]
            method = self.methods[asset]
            if method is NettingMethod.GRIDLOCK:
                here = greatest_in_queue_order(here, self._allowed(asset))
            if method is NettingMethod.SETOFF:
                cycle.awaits.add(asset)
            for each in here:
                each.state, each.cycle = ObligationState.LOCKED, number
            if method is not NettingMethod.SETOFF:
                self._discharge(cycle, [(each, each.rest) for each in here])
        if cycle.awaits:
            self._record()
        self._complete(number)

    def _allowed(self, asset: int) -> list[int]:
        """Return the most that each party may pay on balance in one more cycle."""
        allowed = []
        for party in range(len(self.parties)):
            committed = max(0, -self.position(party, asset)[2])
            limit = self.liquidity.get((party, asset), 0)
            cap = self.caps.get((party, asset))
            limit = limit if cap is None else min(limit, cap)
            allowed.append(max(0, limit - committed))
        return allowed

    @staticmethod
    def _discharge(cycle: Cycle, losses: list[tuple[Obligation, int]]) -> None:
        for each, loses in losses:
            each.loses = loses
            cycle.value += loses
            for party, sign in ((each.debtor, -1), (each.creditor, 1)):
                key = (each.asset, party)
                cycle.moves[key] = cycle.moves.get(key, 0) + sign * loses

    def _complete(self, number: int) -> None:
        cycle = self.cycles[number]
        if cycle.awaits:
            return
        cycle.state, cycle.netted_ms = CycleState.NETTED, self.time_ms
        for (asset, party), net in sorted(cycle.moves.items()):
            if net:
                kind = SettlementKind.PAY_IN if net < 0 else SettlementKind.PAY_OUT
                cycle.instructions.append(Settlement(party, asset, kind, abs(net)))
        self._record()
        if not cycle.value:
            cycle.state = CycleState.DEADLOCK
            self._record()
            return
        self._advance_cycle(number)

    def _solve(
        self,
        _: int,
        number: int,
        asset: int,
        pairs: tuple[tuple[int, int, int], ...],
        is_proven: bool,
        potentials: tuple[int, ...],
    ) -> Answer:
        """Take a set-off told by pairs; whether its potentials prove it, who made the request says."""
        del potentials
        cycle = self.cycles.get(number)
        if cycle is None or asset not in cycle.awaits:
            return Answer(R.NO_SOLUTION_AWAITED)
        held = [each for each in self._held_by(number) if each.asset == asset]
        allowed = self._allowed(asset)
        losses = loss_by_pairs(held, pairs, allowed)
        if losses is None:
            return Answer(R.SOLUTION_INVALID)
        if not is_proven:
            return Answer(R.SOLUTION_NOT_OPTIMAL)
        assert is_greatest(losses, allowed), "the ledger's own solver was outdone"
        index = self._record()
        for each, loses in losses:
            if not loses:
                self._give_back(each)
        self._discharge(cycle, [(each, loses) for each, loses in losses if loses])
        cycle.awaits.discard(asset)
        self._complete(number)
        return Answer(R.OK, index)

    def _give_up(self) -> None:
        for number, cycle in self.cycles.items():
            late = self.time_ms >= cycle.cut_off_ms + self.terms.solution_ms
            if cycle.state is not CycleState.CUT_OFF or not late:
                continue
            for each in self._held_by(number):
                if each.asset in cycle.awaits:
                    self._give_back(each)
            cycle.awaits.clear()
            self._complete(number)

    @staticmethod
    def _give_back(each: Obligation) -> None:
        each.state = ObligationState.PARTLY_DISCHARGED if each.paid else ObligationState.AFFIRMED
        each.cycle = each.loses = 0

    def _advance_cycle(self, number: int) -> None:
        cycle = self.cycles[number]
        if cycle.state is CycleState.NETTED and not cycle.waiting(SettlementKind.PAY_IN):
            cycle.state = CycleState.FUNDED
        if cycle.state is CycleState.FUNDED and not cycle.waiting(SettlementKind.PAY_OUT):
            cycle.state = CycleState.SETTLED
            for each in self._held_by(number):
                each.paid, each.loses = each.paid + each.loses, 0
                if each.rest:
                    self._give_back(each)
                else:
                    each.state = ObligationState.SETTLED
            self._record()

    def _held_by(self, number: int) -> list[Obligation]:
        return [
            each
            for each in self.obligations()
            if each.cycle == number and each.state is ObligationState.LOCKED
        ]

    def _fail_cycle(self, number: int) -> None:
        cycle = self.cycles[number]
        cycle.state = CycleState.FAILED
        for each in self._held_by(number):
            self._give_back(each)
        self._record()
        for each in list(cycle.instructions):
            if each.state is InstructionState.PENDING:
                each.state = InstructionState.SUPERSEDED
            elif each.state is InstructionState.CONFIRMED:
                self._refund(cycle, each)

    @staticmethod
    def _refund(cycle: Cycle, paid: Settlement) -> None:
        fresh = replace(paid, kind=SettlementKind.REFUND, state=InstructionState.PENDING)
        cycle.instructions.append(fresh)

    def _find(self, number: int, at: int) -> Settlement | None:
        instructions = self.cycles[number].instructions if number in self.cycles else []
        return instructions[at] if at < len(instructions) else None

    def _evidence(self, actor: int, number: int, at: int) -> Answer:
        found = self._find(number, at)
        payers = {self.cycles[number].agent} if found else set()
        if found and found.kind is SettlementKind.PAY_IN:
            payers.add(found.participant)
        states = (InstructionState.PENDING,)
        return self._move(found, number, actor in payers, states, InstructionState.EVIDENCED)

    def _confirm(self, actor: int, number: int, at: int) -> Answer:
        found = self._find(number, at)
        payees = {self.cycles[number].agent} if found else set()
        if found and found.kind is not SettlementKind.PAY_IN:
            payees.add(found.participant)
        states = (InstructionState.EVIDENCED,)
        answer = self._move(found, number, actor in payees, states, InstructionState.CONFIRMED)
        if answer.code is R.OK and found:
            cycle = self.cycles[number]
            if cycle.state is not CycleState.FAILED:
                self._advance_cycle(number)
            elif found.kind is SettlementKind.PAY_IN:
                self._refund(cycle, found)
        return answer

    def _fail(self, actor: int, number: int, at: int) -> Answer:
        found = self._find(number, at)
        may = False
        if found and found.kind is SettlementKind.PAY_IN:
            is_payer = actor == found.participant and found.state is InstructionState.PENDING
            may = is_payer or actor == self.cycles[number].agent
        states = (InstructionState.PENDING, InstructionState.EVIDENCED)
        answer = self._move(found, number, may, states, InstructionState.FAILED)
        if answer.code is R.OK and self.cycles[number].state is not CycleState.FAILED:
            self._fail_cycle(number)
        return answer

    def _move(
        self,
        found: Settlement | None,
        number: int,
        is_party: bool,
        origins: tuple[InstructionState, ...],
        target: InstructionState,
    ) -> Answer:
        if found is None:
            return Answer(R.UNKNOWN_INSTRUCTION)
        if not is_party:
            return Answer(R.NOT_A_PARTY)
        is_funded = self.cycles[number].state is not CycleState.NETTED
        if found.kind is SettlementKind.PAY_OUT and not is_funded:
            return Answer(R.NOT_FUNDED)
        if found.state not in origins:
            return Answer(R.INSTRUCTION_STATE)
        found.state = target
        return Answer(R.OK, self._record())

    def _pledge(self, actor: int, participant: int, asset: int, amount: int) -> Answer:
        if actor != self.agent():
            return Answer(R.NOT_A_PARTY)
        if participant >= len(self.parties):
            return Answer(R.UNKNOWN_PARTICIPANT)
        if asset >= len(self.assets):
            return Answer(R.UNKNOWN_ASSET)
        self.liquidity[participant, asset] = amount
        return Answer(R.OK, self._record())
