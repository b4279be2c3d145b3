"""Requests made twice: as a signed transaction for the ledger, and as what it means for the oracle.

Lives here: building both from the same drawn values, and comparing the two ledgers. May not live here: what is drawn
(test_ledger_machine.py) or what the right answer is (tests/oracle.py).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing import ledger
from clearing.handlers import solutions
from clearing.identifiers import make_lei
from clearing.memory import MemoryStore
from clearing.netting import wide
from clearing.netting.engine import Engine
from clearing.netting.pairs import PairTotals, pair_totals
from clearing.netting.setoff import set_off
from clearing.params import Parameters
from clearing.records import instruction as ins
from clearing.records.solution import Solution
from clearing.records.submission import SIGNATURE_BYTES, make_submission
from clearing.records.transaction import Transaction
from clearing.rows import Table, key_position, key_u32, key_u64
from clearing.rules import cycles, governance, obligations, positions, results, settlement
from clearing.rules.registry import Action, ActionKind, Asset, Cap
from clearing.state import State
from clearing.types import CycleState, LicenceStatus, NettingMethod, Role, SettlementKind
from tests import ledger_kit as kit
from tests.oracle import Oracle
from tests.oracle_facts import Cycle, Obligation, Party, Request, Terms

ROLES = (*kit.ROLES, ("ministry-2", Role.MINISTRY), ("operator", Role.OPERATOR))
Kind = ins.InstructionKind
KINDS = {
    "affirm": Kind.AFFIRM,
    "reject": Kind.REJECT,
    "rescind": Kind.RESCIND,
    "run": Kind.RUN_CYCLE,
    "evidence": Kind.EVIDENCE,
    "confirm": Kind.CONFIRM,
    "fail": Kind.FAIL,
    "pledge": Kind.SET_LIQUIDITY,
    "propose": Kind.PROPOSE,
    "approve": Kind.APPROVE,
    "solve": Kind.SOLVE,
    "malformed": Kind.APPROVE,
}
NODE_KEY = ("node of the central bank", 0)
FAULTY_FIELDS = {300: {"version": 2}, 301: {"kind": 9}, 302: {"flags": 1}}


class Twin(NamedTuple):
    """One transaction and what it means."""

    transaction: Transaction
    request: Request


@functools.cache
def private_key(key: tuple[str, int]) -> Ed25519PrivateKey:
    """Return the key that a name has in a generation."""
    return kit.seeded_key(*key)


@functools.cache
def public_key(key: tuple[str, int]) -> bytes:
    """Return the public half of it."""
    return private_key(key).public_key().public_bytes_raw()


def new_party(serial: int, role: Role) -> Party:
    """Return a participant that may be registered later; few serials, so that some are duplicates."""
    name = f"new{serial}"
    lei = make_lei(f"NEW{serial:015d}")
    return Party(name, lei, role, LicenceStatus.ACTIVE, 0, (name, 0))


class Twins:
    """The ledger and the oracle side by side."""

    def __init__(self, terms: Terms, methods: tuple[NettingMethod, ...] = ()) -> None:
        parameters = _parameters(terms)
        actions = kit.genesis_actions(ROLES, parameters, terms.cut_offs_s)
        heard = {"participant": kit.CB, "node_key": public_key(NODE_KEY)}
        further = [Action(ActionKind.SET_NODE_KEY, heard)]
        for asset, method in enumerate(methods):
            further.append(Action(ActionKind.SET_METHOD, {"asset": asset, "method": method}))
        actions += governance.encode_actions(further)
        self.store = MemoryStore()
        self.results = [ledger.genesis(kit.GENESIS_MS, actions)]
        self.store.commit(*self.results)
        self.state = State.load(self.store)
        self.restarted = State.load(self.store)
        parties = [
            Party(name, make_lei(f"TEST{at:014d}"), role, LicenceStatus.ACTIVE, 0, (name, 0))
            for at, (name, role) in enumerate(ROLES)
        ]
        parties[kit.CB] = replace(parties[kit.CB], node_key=NODE_KEY)
        self.oracle = Oracle(kit.GENESIS_MS, parties, [asset[0] for asset in kit.ASSETS], terms)
        self.oracle.methods.update(enumerate(methods))
        self._serial = 0

    def fresh(self, width: int) -> bytes:
        """Return bytes that no earlier call returned."""
        self._serial += 1
        return hashlib.sha256(self._serial.to_bytes(8, "big")).digest()[:width]

    def key_of(self, actor: int) -> tuple[str, int]:
        """Return the key that is registered for an actor now; somebody unknown signs with a key of nobody's."""
        known = actor < len(self.oracle.parties)
        return self.oracle.parties[actor].key if known else ("nobody", 0)

    def submit(self, actor: int, items: list[Obligation], client_id: bytes | None = None) -> Twin:
        """Sign obligations."""
        key = self.key_of(actor)
        made = make_submission(
            network_id=self.state.network_id,
            submitter=actor,
            client_id=client_id or self.fresh(16),
            secret=self.fresh(32),
            records=b"".join(map(_record, items)),
            sign=private_key(key).sign,
        )
        return Twin(made, Request(actor, made.client_id, made.leaf, key, "submit", (tuple(items),)))

    def instruct(self, actor: int, what: str, *values: Any, client_id: bytes | None = None) -> Twin:
        """Sign an instruction."""
        is_node = what == "solve" and actor == kit.CB
        key = NODE_KEY if is_node else self.key_of(actor)
        made = ins.make_instruction(
            network_id=self.state.network_id,
            kind=KINDS[what],
            actor=actor,
            client_id=client_id or self.fresh(16),
            salt=self.fresh(16),
            payload=_payload(what, values),
            sign=private_key(key).sign,
        )
        return Twin(made, Request(actor, made.client_id, made.leaf, key, what, values))

    def solutions(self) -> list[tuple[Any, ...]]:
        """Return what solves each awaited set-off: cycle, asset, losses by pair, that they are the greatest, potentials."""
        found = []
        for problem in solutions.awaited(self.state):
            participants = len(self.state.registry.participants)
            best = set_off(problem.columns, participants, problem.liquidity, engine=Engine.PORTABLE)
            totals = pair_totals(problem.columns, best.discharged_lo, best.discharged_hi)
            losses = zip(
                totals.debtor.tolist(),
                totals.creditor.tolist(),
                wide.to_ints(totals.amount),
                strict=True,
            )
            potentials = tuple(best.potentials.tolist())
            found.append((problem.cycle, problem.asset, tuple(losses), True, potentials))
        return found

    def renewed(self, twin: Twin, client_id: bytes | None = None) -> Twin:
        """Sign the same wish again, with today's key and another or the given id."""
        request = twin.request
        if request.what == "submit":
            return self.submit(request.actor, list(request.values[0]), client_id)
        return self.instruct(request.actor, request.what, *request.values, client_id=client_id)

    def damaged(self, twin: Twin, *, in_signature: bool) -> Twin:
        """Flip one bit: the last of the signature, or the first of the body, which is secret or salt."""
        leaf, body = bytearray(twin.transaction.leaf), bytearray(twin.transaction.body)
        if in_signature:
            leaf[-SIGNATURE_BYTES] ^= 1
        else:
            body[0] ^= 1
        made = type(twin.transaction).decode(bytes(leaf + body))
        if in_signature:
            return Twin(
                made, replace(twin.request, leaf=made.leaf, signed_with="a damaged signature")
            )
        return Twin(made, replace(twin.request, is_committed=False))

    def block(self, time_ms: int, twins: list[Twin]) -> None:
        """Apply a block to both and compare everything; also from the store alone, as after a restart."""
        block = ledger.Block(
            self.state.height + 1, time_ms, tuple(twin.transaction for twin in twins)
        )
        result = ledger.apply(self.state, block)
        restarted = ledger.apply(self.restarted, block)
        assert restarted.outcomes == result.outcomes
        assert restarted.entries == result.entries
        assert restarted.delta.rows == result.delta.rows
        answers = self.oracle.block(time_ms, [twin.request for twin in twins])
        for outcome, answer in zip(result.outcomes, answers, strict=True):
            assert (outcome.code, outcome.index, outcome.repeated) == (
                answer.code,
                answer.index,
                answer.repeated,
            )
            assert outcome.items == answer.bad
        if result.entries:
            self.store.commit(result)
            self.state.advance(result.delta)
            self.results.append(result)
            self.restarted = State.load(self.store)
        assert self.restarted.state_root == self.state.state_root == result.state_root
        assert list(self.restarted.open) == list(self.state.open)
        assert list(self.restarted.cycles) == list(self.state.cycles)
        assert self.restarted.expiries == self.state.expiries
        self.compare()

    def compare(self) -> None:
        """Compare what the two remember, row by row."""
        oracle, state = self.oracle, self.state
        assert state.log_size == oracle.log_size
        assert state.open_items == oracle.open_items()
        held = oracle.open_items_by_submitter()
        assert state.open_items_of == self.restarted.open_items_of == held
        assert state.last_cycle == len(oracle.cycles)
        registered = [
            (party.name, party.role, party.status, party.licence_expiry_ms, party.public_key)
            for party in state.registry.participants
        ]
        assert registered == [
            (party.name, party.role, party.status, party.expiry_ms, public_key(party.key))
            for party in oracle.parties
        ]
        assert [asset.name for asset in state.registry.assets] == oracle.assets
        self._compare_submissions()
        self._compare_cycles()
        self._compare_positions()
        for index, proposal in oracle.proposals.items():
            row = governance.Proposal.decode(self._row(Table.PROPOSALS, key_u64(index)))
            assert (row.enacted, row.approvals) == (proposal.enacted, tuple(proposal.approvals))

    def _row(self, table: Table, key: bytes) -> bytes:
        value = self.store.get(table, key)
        assert value is not None, (table, key)
        return value

    def _compare_submissions(self) -> None:
        for index, (submitter, items) in self.oracle.submissions.items():
            row = obligations.ItemStates.decode(self._row(Table.SUBMISSIONS, key_u64(index)))
            assert row.submitter == submitter
            assert row.states.tolist() == [item.state for item in items]
            assert row.cycles.tolist() == [item.cycle for item in items]
            left = row.remainders
            amounts = [
                lo + (hi << 64) for lo, hi in zip(left.lo.tolist(), left.hi.tolist(), strict=True)
            ]
            assert dict(zip(left.items.tolist(), amounts, strict=True)) == {
                at: item.rest for at, item in enumerate(items) if 0 < item.paid < item.amount
            }

    def _compare_cycles(self) -> None:
        for number, cycle in self.oracle.cycles.items():
            row = cycles.Cycle.decode(self._row(Table.CYCLES, key_u32(number)))
            assert (row.state, row.cut_off_ms, row.netted_ms, row.obligations) == (
                cycle.state,
                cycle.cut_off_ms,
                cycle.netted_ms,
                cycle.obligations,
            )
            values = (
                results.AssetResult.decode(value).value
                for _, value in self.store.scan(Table.CYCLE_RESULTS, key_u32(number))
            )
            assert sum(values) == cycle.value
            assert (row.pay_ins, row.pay_outs) == _waiting(cycle)
            assert row.instructions == len(cycle.instructions)
            for at, each in enumerate(cycle.instructions):
                value = self._row(Table.SETTLEMENTS, key_u32(number, at))
                kept = settlement.SettlementInstruction.decode(value)
                assert (kept.participant, kept.asset, kept.kind, kept.state, kept.amount_units) == (
                    each.participant,
                    each.asset,
                    each.kind,
                    each.state,
                    each.amount,
                )
        assert self.store.count(Table.UNSETTLED) == sum(
            any(_waiting(cycle)) or cycle.state is CycleState.CUT_OFF
            for cycle in self.oracle.cycles.values()
        )

    def _compare_positions(self) -> None:
        for participant in range(len(self.oracle.parties)):
            for asset in range(len(self.oracle.assets)):
                value = self.store.get(Table.POSITIONS, key_position(participant, asset))
                row = positions.Position(participant, asset)
                if value is not None:
                    row = positions.Position.decode(value)
                kept = (row.payable, row.receivable, row.locked_net, row.paid, row.received)
                assert kept == self.oracle.position(participant, asset)
                assert row.liquidity == self.oracle.liquidity.get((participant, asset), 0)
                assert row.cap == self.oracle.caps.get((participant, asset))

    def replay(self) -> None:
        """Build the ledger again out of its entries, and compare every byte."""
        store = MemoryStore()
        store.commit(self.results[0])
        state = State.load(store)
        for result in self.results[1:]:
            again = ledger.apply(state, ledger.block_of_entries(result.entries))
            assert again.entries == result.entries
            assert (again.log_root, again.state_root) == (result.log_root, result.state_root)
            store.commit(again)
            state.advance(again.delta)
        for table in Table:
            assert list(store.scan(table)) == list(self.store.scan(table))


def _parameters(terms: Terms) -> Parameters:
    spans_ms = (terms.lifetime_ms, terms.timeout_ms, terms.solution_ms)
    return Parameters(terms.quorum, *spans_ms, terms.submitter_items)


def _waiting(cycle: Cycle) -> tuple[int, int]:
    pay_outs = cycle.waiting(SettlementKind.PAY_OUT, SettlementKind.REFUND)
    return cycle.waiting(SettlementKind.PAY_IN), pay_outs


def _record(each: Obligation) -> bytes:
    fields = {"due_ms": each.due_ms}
    for fault in each.faults:
        fields.update(FAULTY_FIELDS[fault])
    return kit.item(each.debtor, each.creditor, each.amount, each.asset, **fields)


def _payload(what: str, values: tuple[Any, ...]) -> bytes:
    if what in ("affirm", "reject", "rescind"):
        return ins.ItemSelection(*values).encode()
    if what in ("evidence", "confirm", "fail"):
        reference = {"cycle": values[0], "number": values[1]}
        if what == "evidence":
            return ins.EVIDENCE_LAYOUT.encode(evidence_hash=b"\7" * 32, **reference)
        return ins.REFERENCE_LAYOUT.encode(**reference)
    if what == "solve":
        cycle, asset, losses, _, potentials = values
        debtors, creditors, amounts = zip(*losses, strict=True) if losses else ((), (), ())
        totals = PairTotals(
            np.array(debtors, np.uint32), np.array(creditors, np.uint32), wide.from_ints(amounts)
        )
        return Solution.of(cycle, asset, totals, np.array(potentials, np.int64)).encode()
    if what == "pledge":
        named = dict(zip(("participant", "asset", "amount_units"), values, strict=True))
        return ins.LIQUIDITY_LAYOUT.encode(**named)
    if what == "propose":
        return governance.encode_actions([_action(*action) for action in values[0]])
    if what == "approve":
        return ins.APPROVAL_LAYOUT.encode(proposal=values[0])
    return b"\1" * 7 if what == "malformed" else b""


def _action(what: str, values: tuple[Any, ...]) -> Action:
    kind = ActionKind[what.upper()]
    match what:
        case "add_participant":
            (party,) = values
            return Action(
                kind,
                kit.Participant(
                    party.name,
                    party.lei,
                    party.role,
                    party.status,
                    public_key(party.key),
                    "",
                    party.expiry_ms,
                ),
            )
        case "set_licence":
            named = dict(zip(("participant", "status", "licence_expiry_ms"), values, strict=True))
            return Action(kind, {**named, "licence_no": ""})
        case "rotate_key":
            return Action(kind, {"participant": values[0], "public_key": public_key(values[1])})
        case "add_asset":
            caip19 = f"eip155:{100 + ord(values[0][-1])}/slip44:60"
            return Action(kind, Asset(values[0], caip19, "", 8, NettingMethod.POSITIONS))
        case "set_cap":
            return Action(kind, Cap(*values))
        case "set_parameters":
            return Action(kind, Parameters(*values))
        case "set_method":
            return Action(kind, dict(zip(("asset", "method"), values, strict=True)))
        case _:
            return Action(kind, values[0])
