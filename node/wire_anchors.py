"""Protobuf to values and back for anchors.

Lives here: functions between messages of anchor.proto and the values of anchor_queries.py and services/facade.py. May not
live here: what the other wire modules map, rights, calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.ots import make_proofs
from clearing.errors import DecodeError
from clearing.rules.anchors import AnchorState
from node.anchor_queries import AnchoredNotes, AnchorRow
from node.pb.v1 import anchor_pb2
from node.services.facade import AnchoringAlarm, AnchoringStatus, AnchorVersion
from node.wire import HASH_BYTES, enum_of, exactly


def anchor_message(row: AnchorRow) -> anchor_pb2.Anchor:
    """Return one anchor."""
    return anchor_pb2.Anchor(
        id=row.id,
        participant=row.participant,
        number=row.number,
        state=anchor_pb2.AnchorState.ValueType(row.state),
        network=row.network.name.lower(),
        commitment=row.commitment,
        txid=row.txid,
        block_hash=row.block_hash,
        height=row.height,
        confirmations=row.confirmations,
        log_sizes=row.log_sizes,
        changed_ms=row.changed_ms,
    )


def anchor_of(message: anchor_pb2.Anchor) -> AnchorRow:
    """Read one anchor. Raises: DecodeError: it is none."""
    try:
        network = BitcoinNetwork[message.network.upper()]
    except KeyError as error:
        raise DecodeError(f"network {message.network[:20]!r} is unknown") from error
    return AnchorRow(
        id=message.id,
        participant=message.participant,
        number=message.number,
        state=enum_of(AnchorState, message.state, "state"),
        network=network,
        commitment=exactly(message.commitment, HASH_BYTES, "commitment"),
        txid=exactly(message.txid, HASH_BYTES, "txid"),
        block_hash=message.block_hash and exactly(message.block_hash, HASH_BYTES, "block_hash"),
        height=message.height,
        confirmations=message.confirmations,
        log_sizes=tuple(message.log_sizes),
        changed_ms=message.changed_ms,
    )


@dataclass(frozen=True, slots=True)
class AnchorProofs:
    """An anchor with (log size, note, .ots) of each checkpoint, and its block's header; empty where no block holds it."""

    row: AnchorRow
    notes: tuple[tuple[int, bytes, bytes], ...]
    header: bytes


def proofs_message(found: AnchoredNotes) -> anchor_pb2.GetAnchorProofsResponse:
    """Return an anchor's notes with their proofs, made here."""
    evidence = found.evidence
    proofs = [b""] * len(found.notes)
    if evidence is not None and evidence.proof is not None:
        proofs = list(make_proofs(found.digests, evidence.proof, evidence.height))
    notes = [
        anchor_pb2.AnchoredNote(log_size=size, note=note, proof=proof)
        for size, note, proof in zip(found.row.log_sizes, found.notes, proofs, strict=True)
    ]
    header = found.evidence.header if found.evidence else b""
    return anchor_pb2.GetAnchorProofsResponse(
        anchor=anchor_message(found.row), notes=notes, header=header
    )


def proofs_of(message: anchor_pb2.GetAnchorProofsResponse) -> AnchorProofs:
    """Read an anchor's notes and proofs. Raises: DecodeError: it is none."""
    notes = tuple((one.log_size, one.note, one.proof) for one in message.notes)
    return AnchorProofs(anchor_of(message.anchor), notes, message.header)


def anchoring_message(status: AnchoringStatus | None) -> anchor_pb2.GetAnchoringStatusResponse:
    """Return how a node's anchoring stands; None where it anchors nothing."""
    if status is None:
        return anchor_pb2.GetAnchoringStatusResponse(enabled=False, height=-1)
    return anchor_pb2.GetAnchoringStatusResponse(
        enabled=True,
        network=status.network,
        height=status.height,
        address=status.address,
        descriptors=status.descriptors,
        spendable_sat=status.spendable_sat,
        immature_sat=status.immature_sat,
        outputs=status.outputs,
        due=status.due,
        bumps=status.bumps,
        fees_sat=status.fees_sat,
        alarms=[
            anchor_pb2.AnchoringAlarm(kind=one.kind, since_ms=one.since_ms, detail=one.detail)
            for one in status.alarms
        ],
        versions=[
            anchor_pb2.AnchorVersion(
                number=one.number,
                role=one.role,
                txid=one.txid,
                fee_sat=one.fee_sat,
                vsize=one.vsize,
                hint=one.hint,
            )
            for one in status.versions
        ],
    )


def anchoring_of(message: anchor_pb2.GetAnchoringStatusResponse) -> AnchoringStatus | None:
    """Read how a node's anchoring stands; None where it anchors nothing."""
    if not message.enabled:
        return None
    return AnchoringStatus(
        network=message.network,
        height=message.height,
        address=message.address,
        descriptors=tuple(message.descriptors),
        spendable_sat=message.spendable_sat,
        immature_sat=message.immature_sat,
        outputs=message.outputs,
        due=message.due,
        bumps=message.bumps,
        fees_sat=message.fees_sat,
        alarms=tuple(AnchoringAlarm(one.kind, one.since_ms, one.detail) for one in message.alarms),
        versions=tuple(
            AnchorVersion(one.number, one.role, one.txid, one.fee_sat, one.vsize, one.hint)
            for one in message.versions
        ),
    )
