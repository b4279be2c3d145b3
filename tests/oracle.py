"""A second, naive model of the ledger: plain dictionaries and Python integers, no columns, no deltas, no bytes.

Lives here: what the rules mean, written down again in the simplest way. It shares enumerations and reject codes with
clearing/, and nothing else: positions are summed anew from the obligations each time they are asked for, a cycle is
a list of obligations, a signature is the name of a key. test_ledger_machine.py compares it with the ledger.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from clearing.errors import RejectCode as R
from clearing.types import (
    OBLIGORS,
    CycleState,
    InstructionState,
    LicenceStatus,
    ObligationState,
    Role,
    SettlementKind,
)

DAY_MS = 86_400_000
GOVERNING = (Role.MINISTRY, Role.CENTRAL_BANK)


@dataclass(frozen=True)
class Party:
    """A participant; `key` names its signing key."""

    name: str
    lei: str
    role: Role
    status: LicenceStatus
    expiry_ms: int
    key: object

    def is_licensed(self, time_ms: int) -> bool:
        """Return whether the licence is in force."""
        return self.status is LicenceStatus.ACTIVE and not 0 < self.expiry_ms <= time_ms


@dataclass(frozen=True)
class Terms:
    """Parameters and timetable."""

    quorum: int
    lifetime_ms: int
    timeout_ms: int
    cut_offs_s: tuple[int, ...] = ()


@dataclass
class Obligation:
    """One item of a submission and where it stands."""

    debtor: int
    creditor: int
    asset: int
    amount: int
    due_ms: int
    faults: tuple[R, ...] = ()
    state: ObligationState = ObligationState.PROPOSED
    cycle: int = 0


@dataclass
class Settlement:
    """One settlement instruction."""

    participant: int
    asset: int
    kind: SettlementKind
    amount: int
    state: InstructionState = InstructionState.PENDING


@dataclass
class Cycle:
    """One cycle with its settlement instructions by number."""

    netted_ms: int
    obligations: int
    state: CycleState = CycleState.NETTED
    instructions: list[Settlement] = field(default_factory=list)

    def waiting(self, *kinds: SettlementKind) -> int:
        """Return how many instructions of these kinds may still be confirmed."""
        open_states = (InstructionState.PENDING, InstructionState.EVIDENCED)
        return sum(each.kind in kinds and each.state in open_states for each in self.instructions)


@dataclass
class Proposal:
    """A proposal with its actions, each (what, values)."""

    created_ms: int
    actions: tuple[tuple[str, tuple[Any, ...]], ...]
    approvals: list[int]
    enacted: bool = False


@dataclass(frozen=True)
class Request:
    """A signed transaction: `leaf` is equal for equal bytes; `what` and `values` say what is asked.

    what: malformed, submit, affirm, reject, rescind, run, evidence, confirm, fail, pledge, propose, approve.
    """

    actor: int
    client_id: bytes
    leaf: bytes
    signed_with: object
    what: str
    values: tuple[Any, ...] = ()
    is_committed: bool = True


@dataclass(frozen=True)
class Answer:
    """What a request gets: its log index, or a code, with the bad items by number."""

    code: R
    index: int = -1
    repeated: bool = False
    bad: tuple[tuple[int, R], ...] = ()


ROLES_OF = {
    **dict.fromkeys(
        ("submit", "affirm", "reject", "rescind", "evidence", "confirm", "fail"), OBLIGORS
    ),
    "run": (Role.CENTRAL_BANK, Role.OPERATOR),
    "pledge": (Role.CENTRAL_BANK,),
    "propose": GOVERNING,
    "approve": GOVERNING,
}
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


class Oracle:
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
        self.cycles: dict[int, Cycle] = {}
        self.proposals: dict[int, Proposal] = {}
        self.liquidity: dict[tuple[int, int], int] = {}
        self.caps: dict[tuple[int, int], int | None] = {}

    def block(self, time_ms: int, requests: Sequence[Request]) -> list[Answer]:
        """Do what falls due, answer the requests in order, and count a SEAL if anything was recorded."""
        self.time_ms, size = time_ms, self.log_size
        self._expire()
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

    def position(self, participant: int, asset: int) -> tuple[int, ...]:
        """Return payable, receivable, provisional net, paid and received, each summed from the beginning."""
        payable = receivable = locked = paid = received = 0
        for each in self.obligations():
            owed = each.amount if each.asset == asset else 0
            if each.state in (ObligationState.AFFIRMED, ObligationState.LOCKED):
                payable += owed if each.debtor == participant else 0
                receivable += owed if each.creditor == participant else 0
            if each.state is ObligationState.LOCKED:
                locked += owed if each.creditor == participant else 0
                locked -= owed if each.debtor == participant else 0
        for cycle in self.cycles.values():
            for each in cycle.instructions:
                if (each.participant, each.asset) != (participant, asset):
                    continue
                if each.state is InstructionState.CONFIRMED:
                    paid += each.amount if each.kind is SettlementKind.PAY_IN else 0
                    paid -= each.amount if each.kind is SettlementKind.REFUND else 0
                    received += each.amount if each.kind is SettlementKind.PAY_OUT else 0
        return payable, receivable, locked, paid, received

    def agent(self) -> int:
        """Return the settlement agent: the first central bank."""
        return next(at for at, party in enumerate(self.parties) if party.role is Role.CENTRAL_BANK)

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
        if request.signed_with != party.key:
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

        def is_own(item: Obligation) -> bool:
            if what == "rescind":
                return actor == submitter
            return actor != submitter and actor in (item.debtor, item.creditor)

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
        index = self._record()
        self._net()
        return Answer(R.OK, index)

    def _nettable(self) -> list[Obligation]:
        licensed = [party.is_licensed(self.time_ms) for party in self.parties]
        return [
            each
            for each in self.obligations()
            if each.state is ObligationState.AFFIRMED
            and licensed[each.debtor]
            and licensed[each.creditor]
        ]

    def _net(self) -> None:
        taken = self._nettable()
        if not taken:
            return
        number = len(self.cycles) + 1
        nets: dict[tuple[int, int], int] = {}
        for each in taken:
            each.state, each.cycle = ObligationState.LOCKED, number
            for party, sign in ((each.debtor, -1), (each.creditor, 1)):
                key = (each.asset, party)
                nets[key] = nets.get(key, 0) + sign * each.amount
        cycle = Cycle(self.time_ms, len(taken))
        for (asset, party), net in sorted(nets.items()):
            if net:
                kind = SettlementKind.PAY_IN if net < 0 else SettlementKind.PAY_OUT
                cycle.instructions.append(Settlement(party, asset, kind, abs(net)))
        self.cycles[number] = cycle
        self._record()
        self._advance_cycle(number)

    def _advance_cycle(self, number: int) -> None:
        cycle = self.cycles[number]
        if cycle.state is CycleState.NETTED and not cycle.waiting(SettlementKind.PAY_IN):
            cycle.state = CycleState.FUNDED
        if cycle.state is CycleState.FUNDED and not cycle.waiting(SettlementKind.PAY_OUT):
            cycle.state = CycleState.SETTLED
            self._release(number, ObligationState.SETTLED)
            self._record()

    def _release(self, number: int, state: ObligationState) -> None:
        for each in self.obligations():
            if each.cycle == number and each.state is ObligationState.LOCKED:
                each.state = state
                each.cycle = number if state is ObligationState.SETTLED else 0

    def _fail_cycle(self, number: int) -> None:
        cycle = self.cycles[number]
        cycle.state = CycleState.FAILED
        self._release(number, ObligationState.AFFIRMED)
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
        payers = {self.agent()}
        if found and found.kind is SettlementKind.PAY_IN:
            payers.add(found.participant)
        states = (InstructionState.PENDING,)
        return self._move(found, number, actor in payers, states, InstructionState.EVIDENCED)

    def _confirm(self, actor: int, number: int, at: int) -> Answer:
        found = self._find(number, at)
        payees = {self.agent()}
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
            may = is_payer or actor == self.agent()
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

    # governance

    def _propose(self, actor: int, actions: tuple[tuple[str, tuple[Any, ...]], ...]) -> Answer:
        code = self._try(actions)[1]
        if code is not R.OK:
            return Answer(code)
        index = self._record()
        self.proposals[index] = Proposal(self.time_ms, actions, [actor])
        self._enact_if_carried(self.proposals[index])
        return Answer(R.OK, index)

    def _approve(self, actor: int, index: int) -> Answer:
        if index not in self.proposals:
            return Answer(R.UNKNOWN_PROPOSAL)
        proposal = self.proposals[index]
        if proposal.enacted or self.time_ms >= proposal.created_ms + self.terms.lifetime_ms:
            return Answer(R.PROPOSAL_CLOSED)
        if actor in proposal.approvals:
            return Answer(R.ALREADY_APPROVED)
        proposal.approvals.append(actor)
        code = self._enact_if_carried(proposal)
        if code is not R.OK:
            proposal.approvals.pop()
            return Answer(code)
        return Answer(R.OK, self._record())

    def _enact_if_carried(self, proposal: Proposal) -> R:
        if len(self.governors() & set(proposal.approvals)) < self.terms.quorum:
            return R.OK
        after, code = self._try(proposal.actions)
        if code is R.OK:
            self.parties, self.assets = after.parties, after.assets
            self.terms, self.caps = after.terms, after.caps
            proposal.enacted = True
        return code

    def _try(self, actions: tuple[tuple[str, tuple[Any, ...]], ...]) -> tuple[Oracle, R]:
        """Return a copy of the registers after the actions, and the first refusal."""
        after = Oracle(self.time_ms, self.parties, self.assets, self.terms)
        after.caps = dict(self.caps)
        for what, values in actions:
            code: R = getattr(after, f"_act_{what}")(*values)
            if code is not R.OK:
                return self, code
        stranded = len(after.governors()) < after.terms.quorum
        return after, R.GOVERNANCE_STRANDED if stranded else R.OK

    def _act_add_participant(self, party: Party) -> R:
        for other in self.parties:
            if other.name == party.name or other.lei == party.lei or other.key == party.key:
                return R.ACTION_DUPLICATE
        self.parties.append(party)
        return R.OK

    def _act_set_licence(self, participant: int, status: int, expiry_ms: int) -> R:
        if participant >= len(self.parties):
            return R.ACTION_UNKNOWN_SUBJECT
        party = self.parties[participant]
        if status not in list(LicenceStatus) or party.status is LicenceStatus.WITHDRAWN:
            return R.ACTION_VALUE
        status = LicenceStatus(status)
        self.parties[participant] = replace(party, status=status, expiry_ms=expiry_ms)
        return R.OK

    def _act_rotate_key(self, participant: int, key: object) -> R:
        if participant >= len(self.parties):
            return R.ACTION_UNKNOWN_SUBJECT
        if any(other.key == key for other in self.parties):
            return R.ACTION_DUPLICATE
        self.parties[participant] = replace(self.parties[participant], key=key)
        return R.OK

    def _act_add_asset(self, name: str) -> R:
        if name in self.assets:
            return R.ACTION_DUPLICATE
        self.assets.append(name)
        return R.OK

    def _act_set_cap(self, participant: int, asset: int, amount: int | None) -> R:
        if participant >= len(self.parties) or asset >= len(self.assets):
            return R.ACTION_UNKNOWN_SUBJECT
        self.caps[participant, asset] = amount
        return R.OK

    def _act_set_parameters(self, quorum: int, lifetime_ms: int, timeout_ms: int) -> R:
        self.terms = Terms(quorum, lifetime_ms, timeout_ms, self.terms.cut_offs_s)
        return R.OK

    def _act_set_timetable(self, cut_offs_s: tuple[int, ...]) -> R:
        if list(cut_offs_s) != sorted(set(cut_offs_s)) or any(at >= 86_400 for at in cut_offs_s):
            return R.ACTION_VALUE
        self.terms = replace(self.terms, cut_offs_s=cut_offs_s)
        return R.OK
