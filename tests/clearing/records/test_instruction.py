"""Instructions: pinned bytes, signature, commitment; selections of items."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.params import PAYLOAD_BYTES_MAX, RANGES_PER_INSTRUCTION_MAX
from clearing.records.instruction import (
    LEAF_BYTES,
    RANGE_LAYOUT,
    SELECTION_LAYOUT,
    Instruction,
    InstructionKind,
    ItemSelection,
    make_instruction,
)
from tests.clearing.records.vectors import VECTORS

SIGNED = VECTORS["signed"]
NETWORK_ID = bytes.fromhex(SIGNED["network_id"])
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SIGNED["seed"]))
PUBLIC_KEY = bytes.fromhex(SIGNED["public_key"])
PINNED = {
    name: bytes.fromhex(value)
    for name, value in SIGNED["instruction"].items()
    if isinstance(value, str)
}
WHOLE = PINNED["leaf"] + PINNED["salt"] + PINNED["payload"]


def _made(payload: bytes, kind: InstructionKind = InstructionKind.AFFIRM) -> Instruction:
    return make_instruction(
        network_id=NETWORK_ID,
        kind=kind,
        actor=3,
        client_id=PINNED["client_id"],
        salt=PINNED["salt"],
        payload=payload,
        sign=KEY.sign,
    )


def test_making_one_gives_the_pinned_bytes() -> None:
    made = _made(PINNED["payload"])
    assert made.encode() == WHOLE
    assert made == Instruction.decode(WHOLE)
    assert made.commitment == PINNED["commitment"]


def test_parsing_gives_what_stands_in_it() -> None:
    parsed = Instruction.decode(WHOLE)
    assert (parsed.kind, parsed.actor) == (InstructionKind.AFFIRM, 3)
    assert (parsed.client_id, parsed.payload) == (PINNED["client_id"], PINNED["payload"])
    parsed.verify_signature(NETWORK_ID, PUBLIC_KEY)
    parsed.verify_commitment()
    assert Instruction.of_leaf(PINNED["leaf"]).body == b""


def test_every_bit_is_signed_or_committed_to() -> None:
    for offset in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[offset] ^= 1 << offset % 8
        try:
            parsed = Instruction.decode(bytes(changed))
        except DecodeError:
            assert offset < LEAF_BYTES
            continue
        if offset < LEAF_BYTES:
            with pytest.raises(VerificationError, match="signature does not verify"):
                parsed.verify_signature(NETWORK_ID, PUBLIC_KEY)
        else:
            with pytest.raises(VerificationError, match=r"do(es)? not match the signed commitment"):
                parsed.verify_commitment()


def test_a_signature_is_for_one_network_and_one_key() -> None:
    parsed = Instruction.decode(WHOLE)
    for network_id, public_key in ((bytes(32), PUBLIC_KEY), (NETWORK_ID, bytes(32))):
        with pytest.raises(VerificationError, match="signature does not verify"):
            parsed.verify_signature(network_id, public_key)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 143, len(WHOLE) - 1, len(WHOLE) + 1])
def test_another_length_than_announced_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        Instruction.decode((WHOLE + b"\0")[:length])


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, 2, "not an instruction leaf of version 1"),
        (1, 2, "not an instruction leaf of version 1"),
        (2, 0, "instruction kind 0 is unknown"),
        (2, 99, "instruction kind 99 is unknown"),
        (3, 1, "instruction kind 257 is unknown"),
    ],
)
def test_another_version_or_kind_is_refused(offset: int, value: int, why: str) -> None:
    changed = bytearray(WHOLE)
    changed[offset] = value
    with pytest.raises(DecodeError, match=why):
        Instruction.decode(bytes(changed))


def test_the_payload_is_limited() -> None:
    assert len(_made(bytes(PAYLOAD_BYTES_MAX)).payload) == PAYLOAD_BYTES_MAX
    with pytest.raises(DecodeError, match="at most 32768 bytes"):
        _made(bytes(PAYLOAD_BYTES_MAX + 1))


@pytest.mark.parametrize("kind", InstructionKind)
def test_every_kind_can_be_signed_and_parsed(kind: InstructionKind) -> None:
    assert Instruction.decode(_made(b"", kind).encode()).kind is kind


@given(st.integers(0, (1 << 64) - 1), st.lists(st.integers(0, (1 << 32) - 1), unique=True))
def test_ascending_disjoint_ranges_come_back(submission: int, bounds: list[int]) -> None:
    ordered = sorted(bounds)
    pairs = tuple(zip(ordered[::2], ordered[1::2], strict=False))
    selection = ItemSelection(submission, pairs)
    assert ItemSelection.decode(selection.encode()) == selection


@pytest.mark.parametrize(
    "ranges",
    [((5, 4),), ((0, 3), (3, 4)), ((4, 5), (0, 1)), ((0, 9), (1, 2)), ((1, 1), (1, 1))],
)
def test_ranges_that_overlap_or_descend_are_refused(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(DecodeError, match="must ascend and must not overlap"):
        ItemSelection.decode(ItemSelection(2, ranges).encode())


def test_neighbouring_ranges_are_two_ranges() -> None:
    selection = ItemSelection(2, ((0, 0), (1, 1), (2, 7)))
    assert ItemSelection.decode(selection.encode()) == selection


def test_the_number_of_ranges_is_limited_and_exact() -> None:
    most = tuple((2 * at, 2 * at) for at in range(RANGES_PER_INSTRUCTION_MAX))
    encoded = ItemSelection(2, most).encode()
    assert ItemSelection.decode(encoded).ranges == most
    too_many = ItemSelection(2, (*most, (8_001, 8_001))).encode()
    with pytest.raises(DecodeError, match="at most 4000 ranges"):
        ItemSelection.decode(too_many)
    with pytest.raises(DecodeError):
        ItemSelection.decode(encoded[:-1])
    lying = SELECTION_LAYOUT.encode(submission=2, ranges=2) + RANGE_LAYOUT.encode(first=0, last=1)
    with pytest.raises(DecodeError, match="2 item ranges take 16 bytes, got 8"):
        ItemSelection.decode(lying)
