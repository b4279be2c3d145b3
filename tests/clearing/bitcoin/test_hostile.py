"""Bytes of strangers about Bitcoin: whatever they are, parsing and judging them ends in a named error, never in a crash.

A replica that raised anything else while it applies a block would stop, and every other one with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from clearing.bitcoin.next_header import BitcoinNetwork, verify_work, work_of
from clearing.bitcoin.provenance import Claim
from clearing.bitcoin.transaction import (
    Outpoint,
    Output,
    Transaction,
    TransactionProof,
    verify_branch,
    without_witness,
)
from clearing.errors import ClearingError, RejectCode
from clearing.rules.anchors import AnchorReport, AnchorState
from tests.clearing.anchor_kit import after, begin, mined, stated, told, with_node_key
from tests.clearing.bitcoin.bitcoin_kit import coinbase, taproot, transaction
from tests.clearing.core_kit import Core

ROUNDS = 1_500
_ODD = (b"\xff" * 9, b"\xfe\xff\xff\xff\xff", b"\xfd\xff\xff", b"\x00" * 9)
_BITS = ("ffff7f20", "ffffffff", "00000000", "00008020", "000000ff", "ffff001d")


def _mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at:at] = rng.randbytes(rng.randrange(9))
            case 2:
                del changed[at : at + rng.randrange(1, 9)]
            case _:
                changed[at : at + 9] = rng.choice(_ODD)
    return bytes(changed)


def _tried(act: Callable[[], object]) -> None:
    try:
        act()
    except ClearingError:
        return


@pytest.mark.parametrize("seed", range(2))
def test_nothing_but_named_errors_comes_out_of_the_formats(seed: int) -> None:
    rng = random.Random(seed)
    spends = transaction([Outpoint(b"\1" * 32, 0)], [Output(0, b"\x6a\x20" + bytes(32))])
    mints = coinbase(200, Output(5, taproot("miner")))
    proof = TransactionProof(bytes(32), 3, (bytes(32),) * 4, Transaction.decode(mints)).encode()
    for _ in range(ROUNDS):
        raw = _mutated(rng, rng.choice([spends, mints]))
        _tried(lambda raw=raw: Transaction.decode(raw))
        _tried(lambda raw=raw: without_witness(raw))
        held = _mutated(rng, proof)
        _tried(lambda held=held: TransactionProof.decode(held))
        _tried(lambda held=held: Claim.decode(bytes([rng.randrange(4)]) + held))
        _tried(lambda held=held: AnchorReport.decode(held))
        bits = bytes.fromhex(rng.choice(_BITS))
        header = rng.randbytes(68) + rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4)])
        header += bits + rng.randbytes(4)
        network = rng.choice(list(BitcoinNetwork))
        _tried(lambda h=header, n=network: (verify_work(n, h), work_of(h)))
        branch = [rng.randbytes(32) for _ in range(rng.randrange(33))]
        _tried(lambda b=branch: verify_branch(bytes(32), b, rng.randrange(1 << 32), bytes(32)))


def test_no_byte_of_an_anchors_evidence_can_be_changed_and_a_replica_lives_through_all() -> None:
    net = with_node_key(Core())
    first = begin(1, 2)
    assert told(net, first).code is RejectCode.OK
    sent = after(first, AnchorState.BROADCAST, txid=bytes(32))
    assert told(net, sent).code is RejectCode.OK
    report = mined(sent)
    payload = report.encode()
    evidence = (
        len(payload) - len(report.header) - len(report.proof.encode() if report.proof else b"")
    )
    refusing = (RejectCode.MALFORMED, RejectCode.ANCHOR_EVIDENCE)
    for at in range(evidence, len(payload)):
        changed = bytearray(payload)
        changed[at] ^= 1 << (at % 8)
        assert net.one(stated(net, bytes(changed))).code in refusing, at
    for end in range(0, len(payload), 7):
        assert net.one(stated(net, payload[:end])).code is RejectCode.MALFORMED
    assert told(net, report).code is RejectCode.OK
