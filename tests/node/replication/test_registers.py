"""A witness folds the same registers out of public leaves as a full replica computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError
from clearing.records.instruction import APPROVAL_LAYOUT, InstructionKind
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Registry
from clearing.types import Role
from node.replication.registers import PublicRegisters
from node.store import LeafBlock, Record, Store
from tests.ledger_kit import CB, MINISTRY, P01, P02, Net, item, participant
from tests.node.store.store_kit import SETTINGS


def add(name: str, number: int) -> bytes:
    return encode_actions(
        [Action(ActionKind.ADD_PARTICIPANT, participant(name, Role.BANK, number))]
    )


@pytest.fixture(scope="module")
def net() -> Net:
    """Proposals enacted, left open, lapsed, and obligations in between."""
    net = Net()
    first = net.one(net.instruction(InstructionKind.PROPOSE, CB, add("p05", 50)))
    net.submit(P01, item(P01, P02, 5))
    net.one(net.instruction(InstructionKind.PROPOSE, MINISTRY, add("p06", 60)))
    approval = APPROVAL_LAYOUT.encode(proposal=first.index)
    assert net.one(net.instruction(InstructionKind.APPROVE, MINISTRY, approval)).code == 0
    lapses = net.one(net.instruction(InstructionKind.PROPOSE, MINISTRY, add("p07", 70)))
    late = APPROVAL_LAYOUT.encode(proposal=lapses.index)
    lifetime_ms = net.state.registry.parameters.proposal_lifetime_ms
    assert net.one(net.instruction(InstructionKind.APPROVE, CB, late), lifetime_ms).code != 0
    assert net.state.registry.by_name("p05") is not None
    assert net.state.registry.by_name("p06") is None
    return net


def blocks(net: Net) -> Iterator[tuple[int, list[Record], int]]:
    for result in net.results:
        records = [
            Record(entry.leaf, entry.body if entry.public else b"", entry.public)
            for entry in result.entries
        ]
        yield result.first_index, records, result.time_ms


def test_the_fold_follows_the_ledger_block_by_block(net: Net) -> None:
    registers = PublicRegisters()
    assert registers.registry == Registry()
    for first_index, records, time_ms in blocks(net):
        registers.take_block(first_index, records, time_ms)
    assert registers.registry == net.state.registry


def test_the_fold_of_a_witness_store_is_the_same(net: Net, tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", SETTINGS) as store:
        assert PublicRegisters.load(store).registry == Registry()
        for result, (_, records, _) in zip(net.results, blocks(net), strict=True):
            store.append(LeafBlock(tuple(records), result.nodes, result.log_root))
        assert PublicRegisters.load(store).registry == net.state.registry


def test_an_approval_of_nothing_is_refused(net: Net) -> None:
    registers = PublicRegisters()
    first_index, records, time_ms = next(blocks(net))
    registers.take_block(first_index, records, time_ms)
    approval = net.instruction(InstructionKind.APPROVE, CB, APPROVAL_LAYOUT.encode(proposal=999))
    with pytest.raises(DecodeError, match="999"):
        registers.take_block(2, [Record(approval.leaf, approval.body, public=True)], time_ms)


def test_what_governance_refuses_is_refused_here_too(net: Net) -> None:
    registers = PublicRegisters()
    first_index, records, time_ms = next(blocks(net))
    registers.take_block(first_index, records, time_ms)
    twice = net.instruction(InstructionKind.PROPOSE, CB, add("p05", 50))
    proposal = Record(twice.leaf, twice.body, public=True)
    for index in (2, 3):
        registers.take_block(index, [proposal], time_ms)
    votes = [
        net.instruction(InstructionKind.APPROVE, MINISTRY, APPROVAL_LAYOUT.encode(proposal=index))
        for index in (2, 3)
    ]
    registers.take_block(4, [Record(votes[0].leaf, votes[0].body, public=True)], time_ms)
    with pytest.raises(DecodeError, match="ACTION_DUPLICATE"):
        registers.take_block(5, [Record(votes[1].leaf, votes[1].body, public=True)], time_ms)
