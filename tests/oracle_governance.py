"""The oracle's governance: proposals, approvals, and what each action does to its registers.

Lives here: that part of the oracle's rules alone; it is put together with the rest in oracle.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearing.errors import RejectCode as R
from clearing.types import LicenceStatus, NettingMethod
from tests.oracle_facts import Answer, Party, Proposal, Terms


class GovernedOracle:
    """What governance may change, and how; the rest of the oracle gives time, log and governors."""

    time_ms: int
    parties: list[Party]
    assets: list[str]
    terms: Terms
    proposals: dict[int, Proposal]
    caps: dict[tuple[int, int], int | None]
    methods: dict[int, NettingMethod]
    governors: Any
    _record: Any

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
            self.terms, self.caps, self.methods = after.terms, after.caps, after.methods
            proposal.enacted = True
        return code

    def _try(self, actions: tuple[tuple[str, tuple[Any, ...]], ...]) -> tuple[Any, R]:
        """Return a copy of the registers after the actions, and the first refusal."""
        after = type(self)(self.time_ms, self.parties, self.assets, self.terms)
        after.caps, after.methods = dict(self.caps), dict(self.methods)
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
        self.methods[len(self.assets)] = NettingMethod.POSITIONS
        self.assets.append(name)
        return R.OK

    def _act_set_method(self, asset: int, method: int) -> R:
        if asset >= len(self.assets):
            return R.ACTION_UNKNOWN_SUBJECT
        if method not in list(NettingMethod):
            return R.ACTION_VALUE
        self.methods[asset] = NettingMethod(method)
        return R.OK

    def _act_set_cap(self, participant: int, asset: int, amount: int | None) -> R:
        if participant >= len(self.parties) or asset >= len(self.assets):
            return R.ACTION_UNKNOWN_SUBJECT
        self.caps[participant, asset] = amount
        return R.OK

    def _act_set_parameters(
        self, quorum: int, lifetime_ms: int, timeout_ms: int, solution_ms: int, items: int
    ) -> R:
        cut_offs_s = self.terms.cut_offs_s
        self.terms = Terms(quorum, lifetime_ms, timeout_ms, cut_offs_s, solution_ms, items)
        return R.OK

    def _act_set_timetable(self, cut_offs_s: tuple[int, ...]) -> R:
        if list(cut_offs_s) != sorted(set(cut_offs_s)) or any(at >= 86_400 for at in cut_offs_s):
            return R.ACTION_VALUE
        self.terms = replace(self.terms, cut_offs_s=cut_offs_s)
        return R.OK
