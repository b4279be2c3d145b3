"""The file of a halted block has one encoding, and what is cut or longer is refused."""

from __future__ import annotations

import dataclasses

import pytest

from clearing.errors import DecodeError
from clearing.ledger import Block
from clearing.records.instruction import InstructionKind
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from node.sequencer.halt import decode_block, encode_block
from tests.ledger_kit import CB, P01, P02, Net, item

NET = Net()
BLOCK = Block(
    7,
    1_700_000_000_123,
    (
        NET.submission(P01, item(P01, P02, 5), item(P02, P01, 6)),
        NET.instruction(InstructionKind.RUN_CYCLE, CB),
    ),
)


EVIDENCE = Misbehaviour(MisbehaviourKind.DUPLICATE_VOTE, b"\x07" * 20, 5, 6, 7, 8)


@pytest.mark.parametrize(
    "block",
    [
        BLOCK,
        Block(1, 5, ()),
        Block(1, 5, (), (EVIDENCE, EVIDENCE)),
        dataclasses.replace(BLOCK, evidence=(EVIDENCE,)),
    ],
)
def test_a_block_is_read_back_equal(block: Block) -> None:
    assert decode_block(encode_block(block)) == block


def test_the_layout_is_header_then_length_and_bytes() -> None:
    data = encode_block(BLOCK)
    assert data[:8] == b"CLRBLOCK"
    assert int.from_bytes(data[8:16], "little") == 7
    assert int.from_bytes(data[24:28], "little") == 2
    first = BLOCK.transactions[0].encode()
    assert data[32:36] == len(first).to_bytes(4, "little")
    assert data[36 : 36 + len(first)] == first


def test_bytes_that_are_no_block_are_refused() -> None:
    data = encode_block(BLOCK)
    for cut in range(len(data)):
        with pytest.raises(DecodeError):
            decode_block(data[:cut])
    for wrong in (data + b"\0", b"x" + data[1:], data[:36] + b"\x63" + data[37:]):
        with pytest.raises(DecodeError):
            decode_block(wrong)
