"""The pinned records (tests/vectors/records.json), each with its parser in the code.

Lives here: loading, a naive encoder that knows field widths and nothing else, and the table of parsers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearing import state
from clearing.codec import Layout
from clearing.netting import wide
from clearing.params import Parameters
from clearing.records import (
    instruction,
    leaves,
    misbehaviour,
    obligation,
    receipt,
    redacted,
    solution,
    submission,
)
from clearing.rules import (
    cycles,
    governance,
    obligations,
    positions,
    registry,
    results,
    settlement,
    validators,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "records.json").read_text("utf-8")
)


@dataclass(frozen=True)
class Record:
    """One pinned record: its fields as (name, bytes, kind, value), and its bytes."""

    record: str
    case: str
    fields: tuple[tuple[str, int, str, str], ...]
    data: bytes

    def naive_bytes(self) -> bytes:
        """Return the bytes that the fields mean."""
        return b"".join(_naive_field(width, kind, value) for _, width, kind, value in self.fields)

    def values(self) -> dict[str, Any]:
        """Return the values by field name; of a repeated name, the first."""
        return {
            name: read_value(kind, value)
            for name, _, kind, value in reversed(self.fields)
            if kind != "zero"
        }

    def zero_offsets(self) -> list[int]:
        """Return the offset of each reserved byte."""
        offsets, start = [], 0
        for _, width, kind, _ in self.fields:
            offsets += range(start, start + width) if kind == "zero" else []
            start += width
        return offsets


def read_value(kind: str, value: str) -> int | str | bytes:
    """Return a value as Python holds it."""
    if kind in ("uint", "int"):
        return int(value)
    return value if kind == "text" else bytes.fromhex(value)


def _naive_field(width: int, kind: str, value: str) -> bytes:
    if kind in ("uint", "int"):
        number = int(value) % (1 << (8 * width))
        return bytes((number >> (8 * place)) % 256 for place in range(width))
    data = value.encode() if kind == "text" else bytes.fromhex(value)
    return data + bytes(width - len(data))


RECORDS = [
    Record(row["record"], row["case"], tuple(map(tuple, row["fields"])), bytes.fromhex(row["hex"]))
    for row in VECTORS["records"]
]


def _layout(layout: Layout) -> Callable[[bytes], bytes]:
    return lambda data: layout.encode(**layout.decode(data))


def _record(kind: Any) -> Callable[[bytes], bytes]:
    return lambda data: kind.decode(data).encode()


def _unsettled(data: bytes) -> bytes:
    rows = results.decode_unsettled(data)
    return results.encode_unsettled(
        np.array([row.item for row in rows], np.int64),
        np.array([row.reason for row in rows], np.uint8),
        np.array([row.participant for row in rows], np.int64),
        wide.from_ints([row.short_units for row in rows]),
    )


REENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "obligation": _layout(obligation.LAYOUT),
    "submission leaf": _layout(submission.LAYOUT),
    "instruction leaf": _layout(instruction.LAYOUT),
    "item selection": _record(instruction.ItemSelection),
    "settlement reference": _layout(instruction.REFERENCE_LAYOUT),
    "settlement evidence": _layout(instruction.EVIDENCE_LAYOUT),
    "pledged liquidity": _layout(instruction.LIQUIDITY_LAYOUT),
    "approval": _layout(instruction.APPROVAL_LAYOUT),
    "genesis leaf": _record(leaves.GenesisLeaf),
    "cycle-cut-off leaf": _record(leaves.CycleCutOffLeaf),
    "cycle-netted leaf": _record(leaves.CycleNettedLeaf),
    "cycle-ended leaf": _record(leaves.CycleEndedLeaf),
    "expired leaf": _record(leaves.ExpiredLeaf),
    "seal leaf": _record(leaves.SealLeaf),
    "validators leaf": _record(leaves.ValidatorsLeaf),
    "misbehaviour leaf": _record(leaves.MisbehaviourLeaf),
    "validator": _record(validators.Validator),
    "misbehaviour": _record(misbehaviour.Misbehaviour),
    "participant": _record(registry.Participant),
    "asset": _record(registry.Asset),
    "parameters": _record(Parameters),
    "timetable": lambda data: registry.encode_timetable(registry.decode_timetable(data)),
    "actions": lambda data: governance.encode_actions(governance.decode_actions(data)),
    "proposal": _record(governance.Proposal),
    "item states": _record(obligations.ItemStates),
    "position": _record(positions.Position),
    "cycle": _record(cycles.Cycle),
    "remainders": _record(obligations.Remainders),
    "asset result": _record(results.AssetResult),
    "unsettled obligations": _unsettled,
    "set-off solution": _record(solution.Solution),
    "settlement instruction": _record(settlement.SettlementInstruction),
    "head": _layout(state._HEAD),
    "receipt record": _record(receipt.ReceiptRecord),
    "position record": _record(receipt.PositionRecord),
    "redacted submission": _record(redacted.RedactedSubmission),
}
"""Parse, then encode again: the identity on canonical bytes, a DecodeError on all others."""

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "genesis leaf": leaves.GenesisLeaf.decode,
    "cycle-netted leaf": leaves.CycleNettedLeaf.decode,
    "cycle-ended leaf": leaves.CycleEndedLeaf.decode,
    "expired leaf": leaves.ExpiredLeaf.decode,
    "seal leaf": leaves.SealLeaf.decode,
    "validators leaf": leaves.ValidatorsLeaf.decode,
    "misbehaviour leaf": leaves.MisbehaviourLeaf.decode,
    "validator": validators.Validator.decode,
    "misbehaviour": misbehaviour.Misbehaviour.decode,
    "participant": registry.Participant.decode,
    "asset": registry.Asset.decode,
    "parameters": Parameters.decode,
    "position": positions.Position.decode,
    "cycle": cycles.Cycle.decode,
    "settlement instruction": settlement.SettlementInstruction.decode,
}
"""Records whose values are attributes of the same names."""
