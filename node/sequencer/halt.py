"""What is kept when a block could not be applied: the block itself, and where the ledger stood.

Lives here: the file of a halted block and its report. May not live here: the decision to stop (the
drivers).

The block is kept so that the defect can be replayed. Layout of the block's file, little-endian: the
header, then each transaction as its length u32 and its bytes (leaf || body), then the evidence
against validators, 56 bytes each.
"""

from __future__ import annotations

import json
from pathlib import Path

from clearing.codec import Layout, raw, split_records, uint
from clearing.errors import DecodeError
from clearing.ledger import Block
from clearing.records.misbehaviour import Misbehaviour
from clearing.records.transaction import Transaction, decode_transaction
from clearing.state import State
from node.files import PRIVATE_MODE, replace_file

REPORT_NAME = "halt.json"
_MAGIC = b"CLRBLOCK"
_HEADER = Layout(
    "halted block",
    raw("magic", 8),
    uint("height", 8),
    uint("time_ms", 8),
    uint("count", 4),
    uint("evidence", 4),
)


def encode_block(block: Block) -> bytes:
    """Return the bytes of a block's file."""
    header = _HEADER.encode(
        magic=_MAGIC,
        height=block.height,
        time_ms=block.time_ms,
        count=len(block.transactions),
        evidence=len(block.evidence),
    )
    parts = [transaction.encode() for transaction in block.transactions]
    framed = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return header + framed + b"".join(evidence.encode() for evidence in block.evidence)


def decode_block(data: bytes) -> Block:
    """Parse the bytes of a block's file.

    Raises: DecodeError: not exactly such a file.
    """
    header = _HEADER.decode(data[: _HEADER.width])
    if header["magic"] != _MAGIC:
        raise DecodeError("not the file of a halted block")
    transactions: list[Transaction] = []
    position = _HEADER.width
    for _ in range(header["count"]):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        if not start <= position <= len(data):
            raise DecodeError("the file of a halted block is cut off")
        transactions.append(decode_transaction(data[start:position]))
    records = split_records(
        data[position:], Misbehaviour.LAYOUT.width, header["evidence"], "evidence"
    )
    evidence = tuple(Misbehaviour.decode(record) for record in records)
    return Block(header["height"], header["time_ms"], tuple(transactions), evidence)


def write_halt_report(directory: Path, block: Block, state: State, reason: str) -> Path:
    """Write the block and a report of where the ledger stood before it; return the report's path.

    Raises: SetupError: a file cannot be written.
    """
    block_path = directory / f"halt-{block.height}.block"
    replace_file(block_path, encode_block(block), PRIVATE_MODE)
    report = {
        "reason": reason,
        "block": block_path.name,
        "block_height": block.height,
        "height": state.height,
        "log_size": state.log_size,
        "log_root": state.log.root.hex(),
        "state_root": state.state_root.hex(),
    }
    path = directory / REPORT_NAME
    replace_file(path, (json.dumps(report, indent=2) + "\n").encode(), PRIVATE_MODE)
    return path
