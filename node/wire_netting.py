"""Protobuf to core types and back for what netting left over and why.

Lives here: total functions between the messages on unsettled obligations in types.proto and their values. May not live
here: what wire.py maps, rights, calls. Names and strictness as in wire.py.
"""

from __future__ import annotations

from clearing.errors import DecodeError
from clearing.handlers.reasons import Explanation
from clearing.netting.limits import Reason
from clearing.netting.relief import Change
from clearing.types import NettingMethod, ObligationState
from node.netting_queries import UnsettledRow
from node.pb.v1 import types_pb2
from node.wire import amount_of, amount_text, enum_of


def unsettled_message(row: UnsettledRow) -> types_pb2.UnsettledObligation:
    """Return an obligation that a cycle did not discharge wholly."""
    return types_pb2.UnsettledObligation(
        submission=row.submission,
        item=row.item,
        asset=row.asset,
        reason=types_pb2.UnsettledReason.ValueType(row.reason),
        participant=row.participant,
        short_units=amount_text(row.short_units),
    )


def unsettled_of(message: types_pb2.UnsettledObligation) -> UnsettledRow:
    """Read an obligation that a cycle did not discharge wholly.

    Raises: DecodeError: a field that is none.
    """
    return UnsettledRow(
        message.submission,
        message.item,
        message.asset,
        enum_of(Reason, message.reason, "reason"),
        message.participant,
        amount_of(message.short_units, "short_units"),
    )


def reason_message(found: Explanation) -> types_pb2.Reason:
    """Return why an obligation is not discharged."""
    message = types_pb2.Reason(
        state=types_pb2.ObligationState.ValueType(found.state),
        asset=found.asset,
        method=types_pb2.NettingMethod.ValueType(found.method),
        settles=found.settles,
        reason=types_pb2.UnsettledReason.ValueType(found.reason or 0),
        participant=found.participant,
        short_units=amount_text(found.short_units),
    )
    if found.change is not None:
        message.relief.participant = found.change.participant
        message.relief.liquidity_units = amount_text(found.change.liquidity)
        message.relief.cap_units = amount_text(found.change.cap)
    return message


def reason_of(message: types_pb2.Reason) -> Explanation:
    """Read why an obligation is not discharged.

    Raises: DecodeError: a field that is none, or what binds beside an obligation that settles.
    """
    if message.settles and (message.reason or message.HasField("relief")):
        raise DecodeError("an obligation that settles has no reason not to")
    change = None
    if message.HasField("relief"):
        change = Change(
            message.relief.participant,
            amount_of(message.relief.liquidity_units, "liquidity_units"),
            amount_of(message.relief.cap_units, "cap_units"),
        )
    return Explanation(
        state=enum_of(ObligationState, message.state, "state"),
        asset=message.asset,
        method=enum_of(NettingMethod, message.method, "method"),
        settles=message.settles,
        reason=enum_of(Reason, message.reason, "reason") if message.reason else None,
        participant=message.participant,
        short_units=amount_of(message.short_units, "short_units"),
        change=change,
    )
