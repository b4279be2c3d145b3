"""Position proofs: presence, absence, and that no altered byte passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.log.proof import LogProof
from clearing.position_proof import make_position_proof, verify_position_proof
from clearing.records.leaves import SealLeaf
from clearing.records.receipt import PositionRecord
from clearing.rows import Table, key_position
from clearing.rules.positions import Position
from tests.ledger_kit import BTC, ETH, P01, P02, P03, REGULATOR, USDT, Net, item
from tests.proof_kit import POLICY, head_note


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    index = net.submit(P01, item(P01, P02, 1000, asset=BTC), item(P02, P01, 7, asset=ETH))
    net.affirm(P02, index)
    net.submit(P01, item(P01, P03, 5))
    return net


def proof(net: Net, participant: int, asset: int) -> bytes:
    row = net.store.get(Table.POSITIONS, key_position(participant, asset))
    seal_index = net.state.log_size - 1
    return make_position_proof(
        network_id=net.state.network_id,
        seal_index=seal_index,
        seal_leaf=net.store.leaf(seal_index),
        participant=participant,
        asset=asset,
        position=None if row is None else Position.decode(row),
        path=net.state.tree.proof(participant, asset),
        checkpoint=head_note(net),
        nodes=net.store,
    )


@pytest.mark.parametrize(
    ("participant", "asset", "expected"),
    [
        (P01, BTC, (1000, 0)),
        (P02, BTC, (0, 1000)),
        (P01, ETH, (0, 7)),
        (P01, USDT, None),
        (P03, BTC, None),
        (REGULATOR, USDT, None),
    ],
)
def test_a_position_or_its_absence_is_proven(
    net: Net, participant: int, asset: int, expected: tuple[int, int] | None
) -> None:
    verified = verify_position_proof(proof(net, participant, asset), POLICY)
    assert (verified.participant, verified.asset) == (participant, asset)
    assert verified.network_id == net.state.network_id
    assert verified.checkpoint.size == net.state.log_size
    assert verified.seal == SealLeaf.decode(net.store.leaf(net.state.log_size - 1))
    assert verified.cosigned_s.keys() == {"cb"}
    if expected is None:
        assert verified.position is None
    else:
        assert verified.position is not None
        assert (verified.position.payable, verified.position.receivable) == expected


@pytest.mark.parametrize(("participant", "asset"), [(P01, BTC), (P01, USDT)])
def test_no_altered_byte_of_the_record_passes(net: Net, participant: int, asset: int) -> None:
    good = LogProof.parse(proof(net, participant, asset))
    extra = good.extra or b""
    for at in range(len(extra)):
        altered = extra[:at] + bytes([extra[at] ^ 1]) + extra[at + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            verify_position_proof(replace(good, extra=altered).encode(), POLICY)
    for altered in [extra[:at] for at in range(len(extra))] + [extra + b"\0"]:
        with pytest.raises(DecodeError):
            verify_position_proof(replace(good, extra=altered).encode(), POLICY)
    with pytest.raises(DecodeError):
        verify_position_proof(replace(good, extra=None).encode(), POLICY)


def test_an_altered_proof_of_absence_proves_nothing_untrue(net: Net) -> None:
    # Who has no position at all has none in any asset, and neighbours without positions have equal paths: such
    # alterations leave a true statement, and only such.
    good = LogProof.parse(proof(net, P03, BTC))
    extra = good.extra or b""
    still_true = 0
    for at in range(len(extra)):
        altered = extra[:at] + bytes([extra[at] ^ 1]) + extra[at + 1 :]
        try:
            verified = verify_position_proof(replace(good, extra=altered).encode(), POLICY)
        except (DecodeError, VerificationError):
            continue
        still_true += 1
        assert verified.position is None
        assert (
            net.store.get(Table.POSITIONS, key_position(verified.participant, verified.asset))
            is None
        )
        assert (verified.participant, verified.asset) != (P03, BTC)
    assert still_true <= 2


def test_a_position_cannot_be_shown_as_absent(net: Net) -> None:
    good = LogProof.parse(proof(net, P01, BTC))
    record = PositionRecord.decode(good.extra or b"")
    for lie in (
        replace(record, position=b""),
        replace(record, position=b"", has_positions=False, inner_path=()),
    ):
        with pytest.raises(VerificationError):
            verify_position_proof(replace(good, extra=lie.encode()).encode(), POLICY)


def test_anothers_position_cannot_be_shown_as_ones_own(net: Net) -> None:
    good = LogProof.parse(proof(net, P01, BTC))
    record = replace(PositionRecord.decode(good.extra or b""), participant=P02)
    with pytest.raises(VerificationError):
        verify_position_proof(replace(good, extra=record.encode()).encode(), POLICY)


def test_the_leaf_must_be_a_seal(net: Net) -> None:
    good = LogProof.parse(proof(net, P01, BTC))
    record = replace(PositionRecord.decode(good.extra or b""), leaf=net.store.leaf(2))
    with pytest.raises(DecodeError, match="SEAL"):
        verify_position_proof(replace(good, extra=record.encode()).encode(), POLICY)
