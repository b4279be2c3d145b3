"""apply(state, block): the one place that sequences the rules.

Lives here: Block, BlockResult, the order of phases in a block, the checks every transaction passes, and the dispatch.
May not live here: a rule (rules/), what a transaction does (handlers/), a format (records/), persistence.

Order of phases: 1. evidence against validators; 2. what falls due by block time: unaffirmed items lapse, set-offs
that nobody solved are given up, unfunded cycles time out, the timetable cuts off; 3. the transactions in the block's order; 4. the set of validators moves;
5. one SEAL leaf, if anything was recorded at all.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clearing.bitcoin.provenance import Claim
from clearing.bitcoin.transaction import TransactionProof
from clearing.errors import DecodeError, RejectCode, VerificationError, invariant
from clearing.handlers import (
    anchors,
    cycles,
    governance,
    legs,
    mined,
    obligations,
    settlements,
    solutions,
    validators,
)
from clearing.handlers.answers import Outcome, refused
from clearing.handlers.chain import parse_headers
from clearing.log import merkle
from clearing.params import LAPSE_EVERY_MS, RULES_VERSION
from clearing.records.instruction import (
    APPROVAL_LAYOUT,
    EVIDENCE_LAYOUT,
    LIQUIDITY_LAYOUT,
    REFERENCE_LAYOUT,
    Instruction,
    InstructionKind,
    ItemSelection,
)
from clearing.records.leaves import GenesisLeaf, LeafKind, SealLeaf, body_hash, leaf_kind
from clearing.records.misbehaviour import Misbehaviour
from clearing.records.settlement import (
    LEG_LAYOUT,
    OFFER_LAYOUT,
    ScriptStatement,
    decode_attested,
    decode_signing,
)
from clearing.records.solution import Solution
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction, actor_of, decode_transaction
from clearing.rows import NoRows, Table, key_request
from clearing.rules.anchors import AnchorReport
from clearing.rules.governance import GENESIS_ACTIONS_MAX, decode_actions, resolve
from clearing.rules.legs import NamedCoins
from clearing.rules.registry import NO_KEY, Participant, Registry, next_cut_off_ms
from clearing.rules.validators import next_set
from clearing.state import Delta, Draft, Entry, State
from clearing.types import OBLIGORS, CycleState, Role

__all__ = [
    "Block",
    "BlockResult",
    "Entry",
    "Outcome",
    "Standing",
    "apply",
    "block_of_entries",
    "first_answer",
    "genesis",
    "next_deadline_ms",
    "screen",
]


@dataclass(frozen=True, slots=True)
class Block:
    """A decided block: what to apply, in order.

    height counts from 1 without gaps (genesis is height 0); time_ms never decreases from block to block. evidence:
    against validators, as the consensus engine agreed on it.
    """

    height: int
    time_ms: int
    transactions: tuple[Transaction, ...]
    evidence: tuple[Misbehaviour, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockResult:
    """Everything that follows from a block; persisting it is the caller's separate step.

    outcomes: one for each transaction, in order. entries: the leaves, in order, from `first_index` on; empty when the
    block changed nothing (then delta.rows is empty too, nothing is sealed and the height is not used up). delta: what
    State.advance takes over once the block is durable; delta.rows are the rows to write, in canonical order.
    nodes: (level, index, hash) of the log's newly complete subtrees, level 0 included. log_root and log_size: of the
    log after the block. state_root: of the positions after the block.
    """

    height: int
    time_ms: int
    first_index: int
    outcomes: tuple[Outcome, ...]
    entries: tuple[Entry, ...]
    delta: Delta
    nodes: tuple[tuple[int, int, bytes], ...]
    log_size: int
    log_root: bytes
    state_root: bytes


_OBLIGORS_ONLY = OBLIGORS
_GOVERNORS = (Role.MINISTRY, Role.CENTRAL_BANK)
_PROPOSERS = (Role.MINISTRY, Role.CENTRAL_BANK, Role.OPERATOR)
_ANCHORERS = (Role.MINISTRY, Role.CENTRAL_BANK, Role.OPERATOR)
_WATCHERS = (Role.MINISTRY, Role.CENTRAL_BANK, Role.OPERATOR)


def _parse_nothing(payload: bytes) -> None:
    if payload:
        raise DecodeError(f"this instruction has no payload, got {len(payload)} bytes")


_PAYLOADS: dict[InstructionKind, Callable[[bytes], Any]] = {
    InstructionKind.AFFIRM: ItemSelection.decode,
    InstructionKind.REJECT: ItemSelection.decode,
    InstructionKind.RESCIND: ItemSelection.decode,
    InstructionKind.RUN_CYCLE: _parse_nothing,
    InstructionKind.EVIDENCE: EVIDENCE_LAYOUT.decode,
    InstructionKind.CONFIRM: REFERENCE_LAYOUT.decode,
    InstructionKind.FAIL: REFERENCE_LAYOUT.decode,
    InstructionKind.SET_LIQUIDITY: LIQUIDITY_LAYOUT.decode,
    InstructionKind.PROPOSE: decode_actions,
    InstructionKind.APPROVE: APPROVAL_LAYOUT.decode,
    InstructionKind.SOLVE: Solution.decode,
    InstructionKind.REPORT_ANCHOR: AnchorReport.decode,
    InstructionKind.SET_SETTLEMENT_SCRIPT: ScriptStatement.decode,
    InstructionKind.NAME_COINS: NamedCoins.decode,
    InstructionKind.OFFER_LEG: OFFER_LAYOUT.decode,
    InstructionKind.REFUSE_LEG: LEG_LAYOUT.decode,
    InstructionKind.REPORT_SIGNING: decode_signing,
    InstructionKind.REPORT_HEADERS: parse_headers,
    InstructionKind.SHOW_TRANSACTION: TransactionProof.decode,
    InstructionKind.RECAST_CYCLE: LEG_LAYOUT.decode,
    InstructionKind.DECLARE_COIN: Claim.decode,
    InstructionKind.ATTEST_COIN: decode_attested,
}


class KeyUse(enum.Enum):
    """Which of a participant's keys signs an instruction."""

    PARTICIPANT = enum.auto()
    """What the participant asks for."""
    NODE = enum.auto()
    """What its node reports from outside the ledger."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Who may give an instruction, by which key, and what it does with the parsed payload.

    needs_licence: whether the licence must be in force.
    """

    roles: tuple[Role, ...]
    needs_licence: bool
    handle: Callable[[Draft, Instruction, Any], Outcome]
    signer: KeyUse = KeyUse.PARTICIPANT


# A suspended or expired licence lets its holder do nothing but finish the settlement of what is locked already.
_RULES: dict[InstructionKind, _Rule] = {
    InstructionKind.AFFIRM: _Rule(_OBLIGORS_ONLY, True, obligations.move_items),
    InstructionKind.REJECT: _Rule(_OBLIGORS_ONLY, True, obligations.move_items),
    InstructionKind.RESCIND: _Rule(_OBLIGORS_ONLY, True, obligations.move_items),
    InstructionKind.RUN_CYCLE: _Rule((Role.CENTRAL_BANK, Role.OPERATOR), True, cycles.run_cycle),
    InstructionKind.EVIDENCE: _Rule(_OBLIGORS_ONLY, False, settlements.move_settlement),
    InstructionKind.CONFIRM: _Rule(_OBLIGORS_ONLY, False, settlements.move_settlement),
    InstructionKind.FAIL: _Rule(_OBLIGORS_ONLY, False, settlements.move_settlement),
    InstructionKind.SET_LIQUIDITY: _Rule((Role.CENTRAL_BANK,), True, settlements.set_liquidity),
    InstructionKind.PROPOSE: _Rule(_GOVERNORS, True, governance.propose),
    InstructionKind.APPROVE: _Rule(_GOVERNORS, True, governance.approve),
    InstructionKind.SOLVE: _Rule(_PROPOSERS, True, solutions.solve, KeyUse.NODE),
    InstructionKind.REPORT_ANCHOR: _Rule(_ANCHORERS, True, anchors.report, KeyUse.NODE),
    InstructionKind.SET_SETTLEMENT_SCRIPT: _Rule(_OBLIGORS_ONLY, True, legs.set_script),
    # A net payer whose licence has ended may still pay what was netted while it was in force.
    InstructionKind.NAME_COINS: _Rule(_OBLIGORS_ONLY, False, legs.name_coins),
    InstructionKind.OFFER_LEG: _Rule((Role.CENTRAL_BANK,), True, legs.offer),
    InstructionKind.REFUSE_LEG: _Rule(_OBLIGORS_ONLY, False, legs.refuse),
    InstructionKind.REPORT_SIGNING: _Rule((Role.CENTRAL_BANK,), True, legs.report_signing),
    InstructionKind.REPORT_HEADERS: _Rule(_WATCHERS, True, mined.report_headers, KeyUse.NODE),
    InstructionKind.SHOW_TRANSACTION: _Rule(_WATCHERS, True, mined.show_transaction, KeyUse.NODE),
    InstructionKind.RECAST_CYCLE: _Rule((Role.CENTRAL_BANK, Role.OPERATOR), True, legs.recast),
    InstructionKind.DECLARE_COIN: _Rule(_OBLIGORS_ONLY, True, mined.declare),
    InstructionKind.ATTEST_COIN: _Rule(_GOVERNORS, True, mined.attest, KeyUse.NODE),
}


def apply(state: State, block: Block) -> BlockResult:
    """Apply one decided block and return everything that follows from it.

    Pure: depends on `state` and `block` only and changes neither. A refused transaction changes nothing.
    Raises: InvariantViolation: a defect, or a block that does not follow `state`; the node must stop, keep the block,
        and report height and root.
    """
    invariant(block.height == state.height + 1, f"block {block.height} after {state.height}")
    invariant(block.time_ms >= state.time_ms, "block time went backwards")
    draft = Draft(state, block.height, block.time_ms)
    for evidence in block.evidence:
        validators.report_misbehaviour(draft, evidence)
    obligations.expire(draft)
    solutions.time_out(draft)
    legs.expire(draft)
    cycles.time_out(draft)
    cycles.run_timetable(draft)
    outcomes = tuple(_execute(draft, transaction) for transaction in block.transactions)
    validators.move_validators(draft)
    return _finish(draft, outcomes)


def genesis(time_ms: int, actions: bytes) -> BlockResult:
    """Return block 0: the GENESIS leaf over `actions` (rules/governance.py) and its SEAL.

    The network's id is the leaf hash of the GENESIS leaf, so it is bound to everything that genesis sets.
    Raises: DecodeError: actions are not canonical, one is refused, or no central bank is registered: genesis has no
        user to answer to.
    """
    draft = Draft(State(NoRows()), 0, time_ms)
    parsed = decode_actions(actions, GENESIS_ACTIONS_MAX)
    draft.registry, caps, code = resolve(draft.registry, parsed, time_ms)
    if code is not RejectCode.OK:
        raise DecodeError(f"genesis is refused: {code.name}")
    # Cycles settle on the accounts of a central bank; a network without one could never settle.
    if draft.registry.settlement_agent(time_ms) is None:
        raise DecodeError("genesis is refused: it must register a central bank in licence")
    leaf = GenesisLeaf(time_ms, body_hash(actions)).encode()
    draft.network_id = merkle.leaf_hash(leaf)
    draft.record(leaf, actions, public=True)
    governance.apply_caps(draft, caps)
    validators.move_validators(draft)
    return _finish(draft, ())


def block_of_entries(entries: Sequence[Entry]) -> Block:
    """Rebuild a block from the leaves and bodies of one sealed block, for a follower or a replay.

    The caller applies it and compares the entries that result, byte for byte, with those it was given.
    Raises: DecodeError: the last leaf is no SEAL, or a transaction is not canonical or lacks its body.
    """
    seal = SealLeaf.decode(entries[-1].leaf) if entries else SealLeaf.decode(b"")
    kinds = (LeafKind.SUBMISSION, LeafKind.INSTRUCTION)
    transactions = tuple(
        decode_transaction(entry.leaf + entry.body)
        for entry in entries
        if leaf_kind(entry.leaf) in kinds
    )
    evidence = tuple(
        Misbehaviour.decode(entry.body)
        for entry in entries
        if leaf_kind(entry.leaf) is LeafKind.MISBEHAVIOUR
    )
    return Block(seal.height, seal.time_ms, transactions, evidence)


def next_deadline_ms(state: State, after_ms: int) -> int | None:
    """Return the first block time after `after_ms` at which time alone asks for a block, or None.

    after_ms: time of the last block that was tried, also if it turned out empty.
    """
    # Due times are the submitter's to choose: a thousand a second would ask for a thousand blocks. What a block has left
    # of items that fell due is the next one's.
    due = [
        max(-(-expiry_ms // LAPSE_EVERY_MS) * LAPSE_EVERY_MS, after_ms + 1)
        for expiry_ms, _ in state.expiries[:1]
    ]
    timeout_ms = state.registry.parameters.settlement_timeout_ms
    solution_ms = state.registry.parameters.solution_timeout_ms
    due += [
        cycle.cut_off_ms + solution_ms
        for _, cycle in sorted(state.cycles.items())
        if cycle.state is CycleState.CUT_OFF and cycle.cut_off_ms + solution_ms > after_ms
    ]
    due += [
        cycle.netted_ms + timeout_ms
        for _, cycle in sorted(state.cycles.items())
        if cycle.state is CycleState.NETTED and cycle.netted_ms + timeout_ms > after_ms
    ]
    due += [deadline for deadline in legs.deadlines(state) if deadline > after_ms]
    cut_off_ms = next_cut_off_ms(state.registry.cut_offs_s, max(after_ms, state.time_ms))
    if cut_off_ms is not None and state.waiting:
        due.append(cut_off_ms)
    registry = state.registry
    due += [
        expiry_ms
        for validator in registry.appointed
        if (expiry_ms := registry.participants[validator.participant].licence_expiry_ms) > after_ms
    ]
    # A set that could not move all the way in one block moves on in the next.
    if registry.validators != next_set(registry.validators, registry.wanted_validators(after_ms)):
        due.append(after_ms + 1)
    return min(due, default=None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What screening reads: registers, network id, the time licences are judged at, and the first answers given.

    known: REQUESTS row of a key, or None.
    """

    registry: Registry
    network_id: bytes
    time_ms: int
    known: Callable[[bytes], bytes | None]


def screen(
    standing: Standing, transaction: Transaction, *, with_commitment: bool
) -> Outcome | None:
    """Return what can be said of a transaction without executing it: a repetition or a refusal; None for nothing yet.

    What passes may still be refused when its turn comes. with_commitment: hash the whole body too.
    """
    admitted = _admit(standing, transaction, with_commitment=with_commitment)
    return admitted if isinstance(admitted, Outcome) else None


def _execute(draft: Draft, transaction: Transaction) -> Outcome:
    """Check one transaction in the order of the reject codes, let its handler act, and remember its first answer."""

    def known(key: bytes) -> bytes | None:
        return draft.get(Table.REQUESTS, key)

    standing = Standing(draft.registry, draft.network_id, draft.time_ms, known)
    admitted = _admit(standing, transaction, with_commitment=True)
    if isinstance(admitted, Outcome):
        return admitted
    if isinstance(transaction, Submission):
        outcome = obligations.submit(draft, transaction)
    else:
        outcome = _RULES[transaction.kind].handle(draft, transaction, admitted.payload)
    if outcome.code is RejectCode.OK:
        key = key_request(actor_of(transaction), transaction.client_id)
        draft.put(Table.REQUESTS, key, outcome.index.to_bytes(8, "big") + _digest(transaction))
    return outcome


def _digest(transaction: Transaction) -> bytes:
    return hashlib.sha256(transaction.leaf).digest()


def first_answer(standing: Standing, transaction: Transaction) -> Outcome | None:
    """Return the first answer to these bytes, or None where they have had none."""
    return _repeated(_request(standing, transaction), transaction)


def _request(standing: Standing, transaction: Transaction) -> bytes | None:
    return standing.known(key_request(actor_of(transaction), transaction.client_id))


def _repeated(row: bytes | None, transaction: Transaction) -> Outcome | None:
    if row is None or row[8:] != _digest(transaction):
        return None
    return Outcome(RejectCode.OK, int.from_bytes(row[:8], "big"), repeated=True)


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A transaction that its handler may look at; payload: an instruction's, parsed."""

    payload: Any


def _admit(
    standing: Standing, transaction: Transaction, *, with_commitment: bool
) -> Outcome | _Admitted:
    """Check what needs no handler, in the order of the reject codes, and return what passed, or the answer."""
    row = _request(standing, transaction)
    # A repetition gets the first answer, whatever has changed since.
    repeated = _repeated(row, transaction)
    if repeated is not None:
        return repeated
    # A payload must be a canonical record of its kind.
    payload = None
    if isinstance(transaction, Instruction):
        try:
            payload = _PAYLOADS[transaction.kind](transaction.payload)
        except DecodeError:
            return refused(RejectCode.MALFORMED)
    actor = standing.registry.participant(actor_of(transaction))
    if actor is None:
        return refused(RejectCode.UNKNOWN_ACTOR)
    code = _authenticity(standing.network_id, transaction, actor, with_commitment=with_commitment)
    if code is not RejectCode.OK:
        return refused(code)
    # The id was used for something else by the same actor.
    if row is not None:
        return refused(RejectCode.EXISTS_DIFFERENT)
    code = _permission(transaction, actor, standing.time_ms)
    return _Admitted(payload) if code is RejectCode.OK else refused(code)


def _key_of(transaction: Transaction, actor: Participant) -> bytes:
    """Return the key of `actor` that must have signed; NO_KEY where its node has none."""
    if isinstance(transaction, Instruction) and _RULES[transaction.kind].signer is KeyUse.NODE:
        return actor.node_key
    return actor.public_key


def _authenticity(
    network_id: bytes, transaction: Transaction, actor: Participant, *, with_commitment: bool
) -> RejectCode:
    key = _key_of(transaction, actor)
    # NO_KEY is a point of small order, under which anybody's signature may verify.
    if key == NO_KEY:
        return RejectCode.BAD_SIGNATURE
    try:
        transaction.verify_signature(network_id, key)
    except VerificationError:
        return RejectCode.BAD_SIGNATURE
    try:
        if with_commitment:
            transaction.verify_commitment()
    except VerificationError:
        return RejectCode.COMMITMENT_MISMATCH
    return RejectCode.OK


def _permission(transaction: Transaction, actor: Participant, time_ms: int) -> RejectCode:
    """Return why `actor` may not do this at block time `time_ms`, or OK."""
    licensed = actor.is_licensed(time_ms)
    rule = None if isinstance(transaction, Submission) else _RULES[transaction.kind]
    if not licensed and (rule is None or rule.needs_licence):
        return RejectCode.NOT_LICENSED
    roles = _OBLIGORS_ONLY if rule is None else rule.roles
    return RejectCode.OK if actor.role in roles else RejectCode.ROLE_NOT_ALLOWED


def _finish(draft: Draft, outcomes: tuple[Outcome, ...]) -> BlockResult:
    """Seal what was recorded, extend the log, and collect the result."""
    state = draft.state
    change, changes = draft.seal()
    nodes: list[tuple[int, int, bytes]] = []
    log = state.log
    if draft.entries:
        seal = SealLeaf(
            height=draft.height,
            time_ms=draft.time_ms,
            first_index=state.log_size,
            rules_version=RULES_VERSION,
            participants=change.participants,
            assets=change.assets,
            state_root=change.root,
            changes_hash=changes,
        )
        draft.record(seal.encode())
        log, nodes = log.append_many([merkle.leaf_hash(entry.leaf) for entry in draft.entries])
    return BlockResult(
        height=draft.height,
        time_ms=draft.time_ms,
        first_index=state.log_size,
        outcomes=outcomes,
        entries=tuple(draft.entries),
        delta=draft.delta(change, log),
        nodes=tuple(nodes),
        log_size=log.size,
        log_root=log.root,
        state_root=change.root,
    )
