"""Protobuf to core types and back: the only module that maps the wire.

Lives here: total functions between messages of clearing.v1 and values of the core, of queries and of the facade. May
not live here: rights, calls, defaults of a query (services), refusals (rpc_errors.py).

Names: `x_message(value)` makes a message, `x_of(message)` reads one. Reading is strict: a message that no node or
client of ours would make raises DecodeError with the field's name, and nothing else. Enumerations have the same
numbers on both sides (tests/node/test_wire.py compares them).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Any, TypeAlias, TypeVar

from clearing.errors import DecodeError, InvariantViolation
from clearing.log import merkle
from clearing.params import Parameters
from clearing.rules.bitcoin_terms import BitcoinTerms
from clearing.rules.cycles import Cycle
from clearing.rules.governance import Proposal, decode_actions
from clearing.rules.positions import Position
from clearing.rules.registry import KEY_BYTES, Action, ActionKind, Asset, Participant, Registry
from clearing.rules.results import ResultRow
from clearing.rules.settlement import SettlementInstruction
from clearing.rules.validators import Validator
from clearing.types import (
    CycleState,
    InstructionState,
    LicenceStatus,
    NettingMethod,
    ObligationKind,
    ObligationState,
    ResultOutcome,
    Role,
    SettlementKind,
)
from node.pb.v1 import audit_pb2, types_pb2
from node.queries import CycleAssetRow, CycleRow, ObligationRow, ProposalRow, SettlementRow
from node.services.facade import Tip
from node.wire_bitcoin import BITCOIN_ACTIONS, bitcoin_action_text

RegistryMessage: TypeAlias = audit_pb2.GetRegistryResponse
E = TypeVar("E", bound=enum.IntEnum)

HASH_BYTES = merkle.HASH_BYTES
AMOUNT_DIGITS_MAX = 60
"""Of a net over all obligations there can be: below 2^192, 58 digits."""

_AMOUNT = re.compile(r"0|-?[1-9][0-9]*")


def amount_text(units: int) -> str:
    """Return an amount in smallest units as the wire's decimal string."""
    return str(units)


def amount_of(text: str, field: str, *, signed: bool = False) -> int:
    """Read a decimal string in its one spelling.

    Raises: DecodeError: empty, signed where it may not be, leading zeros, other characters, or far too long.
    """
    if len(text) > AMOUNT_DIGITS_MAX or not _AMOUNT.fullmatch(text):
        raise DecodeError(
            f"{field} must be a decimal integer without leading zeros, got {text[:80]!r}"
        )
    units = int(text)
    if units < 0 and not signed:
        raise DecodeError(f"{field} must not be negative")
    return units


def enum_of(kind: type[E], number: int, field: str) -> E:
    """Read an enumeration value.

    Raises: DecodeError: unspecified, or unknown to this version.
    """
    try:
        return kind(number)
    except ValueError as error:
        raise DecodeError(f"{field}: {kind.__name__} has no value {number}") from error


def enums_of(kind: type[E], numbers: Iterable[int], field: str) -> tuple[E, ...]:
    """Read a repeated enumeration, in order, each once.

    Raises: DecodeError: as `enum_of`.
    """
    return tuple(dict.fromkeys(enum_of(kind, number, field) for number in numbers))


def exactly(data: bytes, width: int, field: str) -> bytes:
    """Return `data` if it has `width` bytes.

    Raises: DecodeError: it has not.
    """
    if len(data) != width:
        raise DecodeError(f"{field} must be {width} bytes, got {len(data)}")
    return data


def optional(message: Any, field: str) -> Any:
    """Return a field's value, or None where it was left out."""
    return getattr(message, field) if message.HasField(field) else None


def note_text(note: bytes) -> str:
    """Return a signed note as the wire's text; notes are UTF-8 by their format."""
    return note.decode()


def participant_message(number: int, party: Participant) -> types_pb2.Participant:
    """Return a registered participant."""
    return types_pb2.Participant(
        number=number,
        name=party.name,
        lei=party.lei,
        role=types_pb2.Role.ValueType(party.role),
        status=types_pb2.LicenceStatus.ValueType(party.status),
        public_key=party.public_key,
        licence_no=party.licence_no,
        licence_expiry_ms=party.licence_expiry_ms,
        node_key=party.node_key,
    )


def participant_of(message: types_pb2.Participant) -> Participant:
    """Read a registered participant; its number is its place in the register.

    Raises: DecodeError: a field that is none.
    """
    return Participant(
        message.name,
        message.lei,
        enum_of(Role, message.role, "role"),
        enum_of(LicenceStatus, message.status, "status"),
        exactly(message.public_key, 32, "public_key"),
        message.licence_no,
        message.licence_expiry_ms,
        exactly(message.node_key, 32, "node_key"),
    )


def asset_message(number: int, asset: Asset) -> types_pb2.Asset:
    """Return a registered asset."""
    return types_pb2.Asset(
        number=number,
        name=asset.name,
        caip19=asset.caip19,
        dti=asset.dti,
        scale=asset.scale,
        method=types_pb2.NettingMethod.ValueType(asset.method),
    )


def asset_of(message: types_pb2.Asset) -> Asset:
    """Read a registered asset; its number is its place in the register.

    Raises: DecodeError: a field that is none.
    """
    method = enum_of(NettingMethod, message.method, "method")
    return Asset(message.name, message.caip19, message.dti, message.scale, method)


def registry_message(
    registry: Registry, network_id: bytes, tip: Tip | None, transaction_bytes_max: int = 0
) -> RegistryMessage:
    """Return everything that governance has set, and how large a transaction may be."""
    parameters = registry.parameters
    return audit_pb2.GetRegistryResponse(
        network_id=network_id,
        participants=(
            participant_message(number, party) for number, party in enumerate(registry.participants)
        ),
        assets=(asset_message(number, asset) for number, asset in enumerate(registry.assets)),
        governance_quorum=parameters.governance_quorum,
        proposal_lifetime_ms=parameters.proposal_lifetime_ms,
        settlement_timeout_ms=parameters.settlement_timeout_ms,
        solution_timeout_ms=parameters.solution_timeout_ms,
        submitter_open_items=parameters.submitter_open_items,
        cut_offs_s=registry.cut_offs_s,
        as_of=head_message(tip),
        appointed=map(_validator_message, registry.appointed),
        validators=map(_validator_message, registry.validators),
        transaction_bytes_max=transaction_bytes_max,
        bitcoin_terms=registry.bitcoin.encode(),
    )


def _validator_message(validator: Validator) -> types_pb2.Validator:
    return types_pb2.Validator(
        participant=validator.participant,
        power=validator.power,
        consensus_key=validator.consensus_key,
        suspended=validator.suspended,
    )


def _validator_of(message: types_pb2.Validator) -> Validator:
    key = exactly(message.consensus_key, KEY_BYTES, "consensus_key")
    return Validator(message.participant, message.power, key, message.suspended)


def registry_of(message: RegistryMessage) -> Registry:
    """Read everything that governance has set.

    Raises: DecodeError: a field that is none, or registers that are not numbered without gaps.
    """
    for rows in (message.participants, message.assets):
        if [row.number for row in rows] != list(range(len(rows))):
            raise DecodeError("registers are numbered from 0 without gaps")
    return Registry(
        tuple(map(participant_of, message.participants)),
        tuple(map(asset_of, message.assets)),
        Parameters(
            message.governance_quorum,
            message.proposal_lifetime_ms,
            message.settlement_timeout_ms,
            message.solution_timeout_ms,
            message.submitter_open_items,
        ),
        tuple(message.cut_offs_s),
        tuple(map(_validator_of, message.appointed)),
        tuple(map(_validator_of, message.validators)),
        BitcoinTerms.decode(message.bitcoin_terms),
    )


def head_message(tip: Tip | None) -> types_pb2.LedgerHead:
    """Return the moment that an answer describes."""
    if tip is None:
        return types_pb2.LedgerHead()
    return types_pb2.LedgerHead(height=tip.height, time_ms=tip.time_ms, log_size=tip.log_size)


def checkpoint_message(note: bytes, *, final: bool) -> types_pb2.Checkpoint:
    """Return a signed checkpoint."""
    return types_pb2.Checkpoint(note=note_text(note), final=final)


def consistency_message(
    old_size: int, new_size: int, path: tuple[bytes, ...]
) -> types_pb2.ConsistencyProof:
    """Return a consistency proof."""
    return types_pb2.ConsistencyProof(old_size=old_size, new_size=new_size, path=path)


def path_of(hashes: Iterable[bytes], field: str) -> tuple[bytes, ...]:
    """Read the hashes of a proof.

    Raises: DecodeError: one is not 32 bytes, or there are more than any tree needs.
    """
    path = tuple(exactly(value, HASH_BYTES, field) for value in hashes)
    if len(path) > 2 * 64:
        raise DecodeError(f"{field} has {len(path)} hashes")
    return path


def obligation_message(row: ObligationRow) -> types_pb2.Obligation:
    """Return an obligation with its state."""
    return types_pb2.Obligation(
        submission=row.submission,
        item=row.item,
        submitter=row.submitter,
        debtor=row.debtor,
        creditor=row.creditor,
        asset=row.asset,
        amount_units=amount_text(row.amount_units),
        kind=types_pb2.ObligationKind.ValueType(row.kind),
        priority=row.priority,
        due_ms=row.due_ms,
        trade_ref_hash=row.trade_ref_hash,
        compliance_ref_hash=row.compliance_ref_hash,
        state=types_pb2.ObligationState.ValueType(row.state),
        cycle=row.cycle,
    )


def obligation_of(message: types_pb2.Obligation) -> ObligationRow:
    """Read an obligation with its state.

    Raises: DecodeError: a field that is none.
    """
    return ObligationRow(
        submission=message.submission,
        item=message.item,
        submitter=message.submitter,
        debtor=message.debtor,
        creditor=message.creditor,
        asset=message.asset,
        amount_units=amount_of(message.amount_units, "amount_units"),
        kind=enum_of(ObligationKind, message.kind, "kind"),
        priority=message.priority,
        due_ms=message.due_ms,
        trade_ref_hash=exactly(message.trade_ref_hash, 32, "trade_ref_hash"),
        compliance_ref_hash=exactly(message.compliance_ref_hash, 32, "compliance_ref_hash"),
        state=enum_of(ObligationState, message.state, "state"),
        cycle=message.cycle,
    )


def position_message(position: Position) -> types_pb2.Position:
    """Return a position; its salt stays with the node, only a position proof shows it."""
    message = types_pb2.Position(
        participant=position.participant,
        asset=position.asset,
        payable_units=amount_text(position.payable),
        receivable_units=amount_text(position.receivable),
        locked_net_units=amount_text(position.locked_net),
        paid_units=amount_text(position.paid),
        received_units=amount_text(position.received),
        liquidity_units=amount_text(position.liquidity),
    )
    if position.cap is not None:
        message.cap_units = amount_text(position.cap)
    return message


def position_of(message: types_pb2.Position) -> Position:
    """Read a position, its salt zero.

    Raises: DecodeError: a field that is none.
    """
    cap = amount_of(message.cap_units, "cap_units") if message.HasField("cap_units") else None
    return Position(
        participant=message.participant,
        asset=message.asset,
        payable=amount_of(message.payable_units, "payable_units"),
        receivable=amount_of(message.receivable_units, "receivable_units"),
        locked_net=amount_of(message.locked_net_units, "locked_net_units", signed=True),
        paid=amount_of(message.paid_units, "paid_units"),
        received=amount_of(message.received_units, "received_units"),
        liquidity=amount_of(message.liquidity_units, "liquidity_units"),
        cap=cap,
    )


def settlement_message(row: SettlementRow) -> types_pb2.SettlementInstruction:
    """Return a settlement instruction; evidence is shown once there is some."""
    item = row.instruction
    return types_pb2.SettlementInstruction(
        cycle=row.cycle,
        number=row.number,
        kind=types_pb2.SettlementKind.ValueType(item.kind),
        participant=item.participant,
        asset=item.asset,
        amount_units=amount_text(item.amount_units),
        state=types_pb2.InstructionState.ValueType(item.state),
        evidence_hash=item.evidence_hash if any(item.evidence_hash) else b"",
        moved_ms=item.moved_ms,
    )


def settlement_of(message: types_pb2.SettlementInstruction) -> SettlementRow:
    """Read a settlement instruction.

    Raises: DecodeError: a field that is none.
    """
    item = SettlementInstruction(
        participant=message.participant,
        asset=message.asset,
        kind=enum_of(SettlementKind, message.kind, "kind"),
        state=enum_of(InstructionState, message.state, "state"),
        amount_units=amount_of(message.amount_units, "amount_units"),
        evidence_hash=exactly(message.evidence_hash or bytes(32), 32, "evidence_hash"),
        moved_ms=message.moved_ms,
    )
    return SettlementRow(message.cycle, message.number, item)


def cycle_message(row: CycleRow) -> types_pb2.Cycle:
    """Return a cycle."""
    found = row.cycle
    return types_pb2.Cycle(
        cycle=row.number,
        state=types_pb2.CycleState.ValueType(found.state),
        final=row.final,
        cut_off_ms=found.cut_off_ms,
        netted_ms=found.netted_ms,
        netted_index=found.netted_index,
        ended_index=found.ended_index,
        obligations=found.obligations,
        instructions=found.instructions,
        pay_ins_open=found.pay_ins,
        pay_outs_open=found.pay_outs,
        agent=found.agent,
        result_root=found.result_root,
    )


def cycle_of(message: types_pb2.Cycle) -> CycleRow:
    """Read a cycle.

    Raises: DecodeError: a field that is none.
    """
    found = Cycle(
        state=enum_of(CycleState, message.state, "state"),
        cut_off_ms=message.cut_off_ms,
        netted_ms=message.netted_ms,
        obligations=message.obligations,
        instructions=message.instructions,
        pay_ins=message.pay_ins_open,
        pay_outs=message.pay_outs_open,
        agent=message.agent,
        netted_index=message.netted_index,
        ended_index=message.ended_index,
        result_root=exactly(message.result_root, HASH_BYTES, "result_root"),
    )
    return CycleRow(message.cycle, found, message.final)


def cycle_asset_message(row: CycleAssetRow) -> types_pb2.CycleAsset:
    """Return one asset of a cycle's result."""
    return types_pb2.CycleAsset(
        asset=row.asset,
        method=types_pb2.NettingMethod.ValueType(row.method),
        outcome=types_pb2.ResultOutcome.ValueType(row.outcome),
        obligations=row.obligations,
        gross_units=amount_text(row.gross_units),
        net_units=amount_text(row.net_units),
        value_units=amount_text(row.value_units),
        liquidity_used_units=amount_text(row.liquidity_used_units),
        solution_index=row.solution_index,
        positions=[
            types_pb2.CyclePosition(
                participant=shown.participant,
                debit_units=amount_text(shown.debit),
                credit_units=amount_text(shown.credit),
                net_units=amount_text(shown.net),
                kept_debit_units=amount_text(shown.kept_debit),
                kept_credit_units=amount_text(shown.kept_credit),
                potential=row.potentials.get(shown.participant, 0),
            )
            for shown in row.rows
        ],
    )


def cycle_asset_of(message: types_pb2.CycleAsset) -> CycleAssetRow:
    """Read one asset of a cycle's result.

    Raises: DecodeError: a field that is none, or a net that is not credit - debit.
    """
    return CycleAssetRow(
        asset=message.asset,
        method=enum_of(NettingMethod, message.method, "method"),
        outcome=enum_of(ResultOutcome, message.outcome, "outcome"),
        obligations=message.obligations,
        gross_units=amount_of(message.gross_units, "gross_units"),
        net_units=amount_of(message.net_units, "net_units"),
        value_units=amount_of(message.value_units, "value_units"),
        liquidity_used_units=amount_of(message.liquidity_used_units, "liquidity_used_units"),
        solution_index=message.solution_index,
        rows=tuple(map(_result_row_of, message.positions)),
        potentials={one.participant: one.potential for one in message.positions if one.potential},
    )


def _result_row_of(message: types_pb2.CyclePosition) -> ResultRow:
    debit = amount_of(message.debit_units, "debit_units")
    row = ResultRow(
        message.participant,
        debit,
        amount_of(message.credit_units, "credit_units"),
        amount_of(message.kept_debit_units, "kept_debit_units"),
        amount_of(message.kept_credit_units, "kept_credit_units"),
    )
    if amount_of(message.net_units, "net_units", signed=True) != row.net:
        raise DecodeError("net_units must be credit_units - debit_units")
    return row


def proposal_message(row: ProposalRow) -> audit_pb2.Proposal:
    """Return a governance proposal; `row.actions` are canonical, the summary is for people."""
    return audit_pb2.Proposal(
        log_index=row.log_index,
        actions=row.actions,
        summary=[action_text(action) for action in decode_actions(row.actions)],
        approvals=row.proposal.approvals,
        created_ms=row.proposal.created_ms,
        enacted=row.proposal.enacted,
        lapsed=row.lapsed,
    )


def proposal_of(message: audit_pb2.Proposal) -> ProposalRow:
    """Read a governance proposal; its summary is made of the actions anew where it is needed."""
    proposal = Proposal(message.created_ms, message.enacted, tuple(message.approvals))
    return ProposalRow(message.log_index, proposal, message.actions, message.lapsed)


def action_text(action: Action) -> str:
    """Return a governance action as one line for people."""
    subject = action.subject
    if action.kind in BITCOIN_ACTIONS:
        return bitcoin_action_text(action)
    match action.kind:
        case ActionKind.ADD_PARTICIPANT:
            return f"register {subject.role.name} {subject.name}, LEI {subject.lei}"
        case ActionKind.ADD_ASSET:
            return f"register asset {subject.name}, {subject.caip19}, scale {subject.scale}"
        case ActionKind.SET_LICENCE:
            status = LicenceStatus(subject["status"]).name
            return f"set the licence of participant {subject['participant']} to {status}"
        case ActionKind.ROTATE_KEY:
            key = subject["public_key"].hex()
            return f"set the signing key of participant {subject['participant']} to {key}"
        case ActionKind.SET_NODE_KEY:
            key = subject["node_key"].hex()
            return f"set the node key of participant {subject['participant']} to {key}"
        case ActionKind.SET_VALIDATOR if subject["power"] == 0:
            return f"remove the validator of participant {subject['participant']}"
        case ActionKind.SET_VALIDATOR:
            key = subject["consensus_key"].hex()
            return f"appoint participant {subject['participant']} as validator with power {subject['power']} and key {key}"
        case ActionKind.SET_METHOD:
            method = NettingMethod(subject["method"]).name
            return f"net asset {subject['asset']} by {method}"
        case ActionKind.SET_PARAMETERS:
            return f"set the parameters: {subject}"
        case ActionKind.SET_TIMETABLE:
            return f"cut cycles off at second {', '.join(map(str, subject)) or 'none'} of the day"
        case ActionKind.SET_CAP:
            limit = "none" if subject.amount_units is None else f"{subject.amount_units} units"
            return f"set the net debit cap of participant {subject.participant} in asset {subject.asset} to {limit}"
    raise InvariantViolation(f"no words for an action of kind {action.kind.name}")
