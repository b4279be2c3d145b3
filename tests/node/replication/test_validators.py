"""Sets of validators and evidence against them, as full and witness replicas follow them; fsck and rebuild know them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing import ledger
from clearing.consensus.validators import address_of
from clearing.ledger import Block
from clearing.records import instruction as ins
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind
from node.replication.divergence import DivergenceError
from node.replication.registers import PublicRegisters
from node.replication.replica import FullReplica, ReceivedBlock, WitnessReplica
from node.replication.source import Rights
from node.sequencer.driver import Machine
from node.services.facade import ShownEntry
from node.store import Store
from node.store.errors import FindingKind
from node.store.fsck import check_store
from node.store.rebuild import rebuild
from node.store.tables import ReplicaKind
from tests.ledger_kit import CB, GENESIS_MS, MINISTRY, seeded_key
from tests.node.replication.replication_kit import received
from tests.node.sequencer.cometbft.engine_kit import Maker
from tests.node.sequencer.cometbft.test_home import actions
from tests.node.store.store_kit import SETTINGS

OPERATOR_1, OPERATOR_2 = 7, 8
P01 = 2


def key_of(name: str) -> bytes:
    return seeded_key(name).public_key().public_bytes_raw()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Machine]:
    """A ledger with four validators, one that voted twice, and one whose key was rotated."""
    with Store.open(tmp_path / "leader", SETTINGS) as store:
        machine = Machine(store)
        machine.commit(ledger.genesis(GENESIS_MS, encode_actions(actions())))
        maker = Maker(machine.state.network_id)
        voted_twice = Misbehaviour(
            MisbehaviourKind.DUPLICATE_VOTE,
            address_of(key_of(f"validator {OPERATOR_2}")),
            5,
            GENESIS_MS,
            10,
            40,
        )
        unknown = Misbehaviour(MisbehaviourKind.UNKNOWN, b"x" * 20, 6, GENESIS_MS, 1, 40)
        subject = {"participant": OPERATOR_1, "power": 10, "consensus_key": key_of("rotated")}
        proposal = maker.instruction(
            ins.InstructionKind.PROPOSE,
            MINISTRY,
            encode_actions([Action(ActionKind.SET_VALIDATOR, subject)]),
        )
        add(machine, evidence=(voted_twice, unknown))
        index = add(machine, proposal).outcomes[0].index
        approval = ins.APPROVAL_LAYOUT.encode(proposal=index)
        add(machine, maker.instruction(ins.InstructionKind.APPROVE, CB, approval))
        yield machine


def add(machine: Machine, *transactions, evidence: tuple[Misbehaviour, ...] = ()):
    state = machine.state
    block = Block(state.height + 1, state.time_ms + 1000, tuple(transactions), evidence)
    result = machine.apply(block)
    machine.commit(result)
    return result


def test_the_history_has_what_it_is_to_have(leader: Machine) -> None:
    with leader.store.snapshot() as view:
        kinds = [leaf_kind(view.leaf(index)) for index in range(leader.state.log_size)]
    assert kinds.count(LeafKind.MISBEHAVIOUR) == 2
    assert kinds.count(LeafKind.VALIDATORS) == 2
    registry = leader.state.registry
    assert [v.participant for v in registry.appointed if v.suspended] == [OPERATOR_2]
    assert key_of("rotated") in {v.consensus_key for v in registry.validators}


def test_a_full_replica_comes_to_the_same_rows(tmp_path: Path, leader: Machine) -> None:
    with Store.open(tmp_path / "full", SETTINGS) as store:
        replica = FullReplica(store)
        for block in received(leader.store):
            replica.take(block)
        assert store.tip == leader.store.tip
        assert replica.registry == leader.state.registry
        assert check_store(store) == []


def test_a_witness_knows_the_registers_also_after_a_restart(
    tmp_path: Path, leader: Machine
) -> None:
    with Store.open(tmp_path / "witness", SETTINGS) as store:
        replica = WitnessReplica(store)
        for block in received(leader.store, Rights(P01, sees_all=False)):
            replica.take(block)
        assert replica.registry == leader.state.registry
        assert PublicRegisters.load(store).registry == leader.state.registry
        # A witness keeps no rows that could be checked; nothing else is to be said.
        assert {finding.kind for finding in check_store(store)} == {FindingKind.NOT_CHECKED}


def test_a_restart_loads_the_same_registers(leader: Machine) -> None:
    assert Machine(leader.store).state.registry == leader.state.registry


def test_the_store_is_sound_and_can_be_rebuilt(leader: Machine) -> None:
    assert check_store(leader.store) == []
    tip = leader.store.tip
    assert rebuild(leader.store, ReplicaKind.FULL) == tip
    assert check_store(leader.store) == []


# A full replica makes the set itself and never looks at the one that was sent.
@pytest.mark.parametrize(
    ("replica", "kind"),
    [
        (FullReplica, LeafKind.MISBEHAVIOUR),
        (WitnessReplica, LeafKind.MISBEHAVIOUR),
        (WitnessReplica, LeafKind.VALIDATORS),
    ],
)
def test_an_altered_body_is_found(
    tmp_path: Path, leader: Machine, kind: LeafKind, replica: type
) -> None:
    blocks = received(leader.store)
    with Store.open(tmp_path / "follower", SETTINGS) as store:
        follower = replica(store)
        for block in blocks:
            altered = altered_block(block, kind)
            if altered is not None:
                with pytest.raises(DivergenceError):
                    follower.take(altered)
            follower.take(block)


def altered_block(block: ReceivedBlock, kind: LeafKind) -> ReceivedBlock | None:
    """Return the block with the body of a leaf of `kind` changed, None where it has none."""
    for place, entry in enumerate(block.entries):
        if leaf_kind(entry.leaf) is kind and isinstance(entry.shown, bytes):
            body = bytes([entry.shown[0] ^ 1]) + entry.shown[1:]
            entries = list(block.entries)
            entries[place] = ShownEntry(entry.leaf, body, entry.public)
            return ReceivedBlock(
                block.height,
                block.first_index,
                tuple(entries),
                block.note,
                block.checkpoint,
                block.consistency,
            )
    return None
