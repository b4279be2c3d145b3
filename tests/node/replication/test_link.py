"""Parts become blocks in order, bounded, and never under a note that the log has not signed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import pytest

from clearing.errors import DecodeError, VerificationError
from node.replication import link as link_module
from node.replication import source as source_module
from node.replication.link import Announcement, Assembler, verified_checkpoint
from node.replication.replica import ReceivedBlock
from node.replication.source import BlockSource, Rights
from node.services.facade import BlockPart
from node.store import Store
from tests.clearing.log.support import SeedSigner, log_signer
from tests.ledger_kit import P03
from tests.node.replication.replication_kit import ALL, leader_store, newest_note, signed_note
from tests.node.sequencer.heads_kit import LOG, ORIGIN, POLICY


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with leader_store(tmp_path_factory.mktemp("leader") / "s") as filled:
        yield filled


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(POLICY, ORIGIN)


@pytest.fixture
def parts(leader: Store, monkeypatch: pytest.MonkeyPatch) -> list[BlockPart]:
    """Block 1, which has a submission, an instruction for each affirmation, and a SEAL; one leaf a part."""
    monkeypatch.setattr(source_module, "PART_BYTES", 1)
    made = BlockSource(leader).parts(1, ALL, newest_note(leader))
    assert len(made) >= 2
    return made


def add_all(assembler: Assembler, parts: Iterable[BlockPart]) -> None:
    for part in parts:
        assembler.add(part)


def test_parts_make_the_block(assembler: Assembler, parts: list[BlockPart], leader: Store) -> None:
    for _ in range(2):
        assert [assembler.add(part) for part in parts[:-1]] == [None] * (len(parts) - 1)
        block = assembler.add(parts[-1])
        assert isinstance(block, ReceivedBlock)
        assert (block.height, block.first_index) == (1, parts[0].first_index)
        assert block.entries == tuple(entry for part in parts for entry in part.entries)
        assert block.end == block.first_index + len(block.entries)
        assert (block.note, block.consistency) == (parts[-1].note, parts[-1].consistency)
        assert block.checkpoint.size == leader.tip.log_size


def test_parts_out_of_order_are_refused(parts: list[BlockPart]) -> None:
    for sequence in (
        [parts[0], parts[0]],
        [parts[0], *parts[2:], parts[0]],
        [parts[0], dataclasses.replace(parts[1], height=2)],
        [parts[0], dataclasses.replace(parts[1], first_index=parts[1].first_index + 1)],
    ):
        assembler = Assembler(POLICY, ORIGIN)
        with pytest.raises(DecodeError, match="out of order"):
            add_all(assembler, sequence)


def test_a_block_without_end_is_refused(
    assembler: Assembler, parts: list[BlockPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "BLOCK_BYTES_MAX", 1000)
    first = parts[0].first_index
    entry = parts[0].entries[0]
    endless = (BlockPart(1, first + number, (entry,)) for number in range(100))
    with pytest.raises(DecodeError, match="larger than"):
        add_all(assembler, endless)


def test_redacted_bodies_count_too(
    assembler: Assembler, leader: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "BLOCK_BYTES_MAX", 300)
    parts = BlockSource(leader).parts(1, Rights(P03, sees_all=False), newest_note(leader))
    with pytest.raises(DecodeError, match="larger than"):
        add_all(assembler, parts)


def test_a_note_without_entries_is_an_announcement(assembler: Assembler, leader: Store) -> None:
    note = newest_note(leader)
    announced = assembler.add(BlockPart(3, leader.tip.log_size, (), note))
    assert isinstance(announced, Announcement)
    assert announced.note == note
    assert announced.checkpoint.size == leader.tip.log_size


def test_only_the_logs_own_note_is_believed(leader: Store) -> None:
    tip = leader.tip
    good = newest_note(leader)
    assert verified_checkpoint(POLICY, ORIGIN, good).root == tip.log_root
    stranger = log_signer(b"\x55" * 32)
    other_log = SeedSigner("other.example/log", LOG.key.type, bytes(range(32)))
    for bad in (
        signed_note(tip.log_size, tip.log_root, stranger),
        signed_note(tip.log_size, tip.log_root, other_log),
        good.replace(b"\n%d\n" % tip.log_size, b"\n%d\n" % (tip.log_size + 1)),
    ):
        with pytest.raises(VerificationError):
            verified_checkpoint(POLICY, ORIGIN, bad)
        with pytest.raises(VerificationError):
            Assembler(POLICY, ORIGIN).add(BlockPart(3, tip.log_size, (), bad))
    with pytest.raises(VerificationError, match=r"another\.example"):
        verified_checkpoint(POLICY, "another.example/log", good)
    for malformed in (b"", b"text", good[:-1]):
        with pytest.raises(DecodeError):
            verified_checkpoint(POLICY, ORIGIN, malformed)
