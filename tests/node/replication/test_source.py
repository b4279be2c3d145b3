"""Who is shown what: the table of rights, entry by entry, against the whole history."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import items_view
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from clearing.rules.registry import Registry
from clearing.types import LicenceStatus, Role
from node.replication import source as source_module
from node.replication.source import BlockSource, Rights, rights_of
from node.services.facade import BlockPart, NodeKind, RedactedBody, ShownEntry
from node.store import Record, Store
from tests.ledger_kit import CB, P01, P02, P03, P04, item, participant
from tests.node.replication.replication_kit import ALL, leader_store, newest_note
from tests.node.store.store_kit import SETTINGS, DiskNet


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with leader_store(tmp_path_factory.mktemp("leader") / "s") as filled:
        yield filled


def shown(store: Store, rights: Rights) -> list[tuple[Record, ShownEntry]]:
    """Return each leaf's whole record beside what a follower is shown, over all blocks."""
    source = BlockSource(store)
    entries = [
        entry
        for height in range(store.tip.height + 1)
        for part in source.parts(height, rights, newest_note(store))
        for entry in part.entries
    ]
    with store.snapshot() as view:
        records = view.records(0, view.tip.log_size)
    return list(zip(records, entries, strict=True))


def test_every_leaf_is_shown_to_everyone(store: Store) -> None:
    for rights in (ALL, *(Rights(number, sees_all=False) for number in (CB, P01, P04))):
        for record, entry in shown(store, rights):
            assert (entry.leaf, entry.public) == (record.leaf, record.public)


def test_a_full_replica_is_shown_every_body(store: Store) -> None:
    for record, entry in shown(store, ALL):
        assert (entry.shown or b"") == record.body


@pytest.mark.parametrize("participant_no", [CB, P01, P02, P03, P04])
def test_a_witness_is_shown_what_concerns_it_and_nothing_else(
    store: Store, participant_no: int
) -> None:
    seen = set()
    for record, entry in shown(store, Rights(participant_no, sees_all=False)):
        kind = leaf_kind(record.leaf)
        if record.public:
            assert entry.shown == record.body
        elif kind is LeafKind.SUBMISSION:
            seen.add(check_submission(record, entry, participant_no))
        elif kind is LeafKind.INSTRUCTION:
            own = Instruction.of_leaf(record.leaf).actor == participant_no
            assert entry.shown == (record.body if own else None)
        else:
            assert entry.shown is None
    expected = {
        CB: {"nothing"},
        P01: {"whole", "redacted"},
        P02: {"redacted", "whole"},
        P03: {"redacted"},
        P04: {"nothing"},
    }
    assert seen == expected[participant_no]


def check_submission(record: Record, entry: ShownEntry, participant_no: int) -> str:
    submission = Submission.of_leaf(record.leaf, record.body)
    if submission.submitter == participant_no:
        assert entry.shown == record.body
        return "whole"
    rows = items_view(submission.records)
    own = [
        number
        for number, row in enumerate(rows)
        if participant_no in (int(row["debtor"]), int(row["creditor"]))
    ]
    if not own:
        assert entry.shown is None
        return "nothing"
    assert isinstance(entry.shown, RedactedBody)
    redacted = RedactedSubmission(entry.shown.commitments, entry.shown.openings)
    assert redacted == RedactedSubmission.of(submission, participant_no)
    assert [number for number, _ in redacted.openings] == own
    return "redacted"


def test_the_proof_leads_from_each_block_to_the_note(store: Store) -> None:
    source = BlockSource(store)
    note = newest_note(store)
    head = Checkpoint.parse(Note.parse(note).text)
    for height in range(store.tip.height + 1):
        last = source.parts(height, ALL, note)[-1]
        end = last.first_index + len(last.entries)
        with store.snapshot() as view:
            assert view.block_range(height)[1] == end
            merkle.verify_consistency(end, head.size, last.consistency, view.root(end), head.root)


def test_a_large_block_is_cut_into_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BlockSource(store)
    whole = source.parts(0, ALL, newest_note(store))
    assert len(whole) == 1
    monkeypatch.setattr(source_module, "PART_BYTES", 1)
    for height in range(store.tip.height + 1):
        parts = source.parts(height, ALL, newest_note(store))
        with store.snapshot() as view:
            first, end = view.block_range(height)
        assert [part.first_index for part in parts] == list(range(first, end))
        assert [part.last for part in parts] == [False] * (end - first - 1) + [True]
        assert all(part.height == height and len(part.entries) == 1 for part in parts)
        assert (
            parts[-1].consistency
            == BlockSource(store).parts(height, ALL, parts[-1].note)[-1].consistency
        )


def test_blocks_are_found_by_their_first_leaf(store: Store) -> None:
    source = BlockSource(store)
    starts = {}
    with store.snapshot() as view:
        for height in range(view.tip.height + 1):
            starts[view.block_range(height)[0]] = height
        size = view.tip.log_size
    starts[size] = store.tip.height + 1
    for index in range(size + 1):
        if index in starts:
            assert source.height_after(index) == starts[index]
        else:
            with pytest.raises(VerificationError, match="no block starts"):
                source.height_after(index)
    with pytest.raises(VerificationError, match="ends before"):
        source.height_after(size + 1)


# -- rights


NOW_MS = 5_000


def registry_with(
    role: Role, status: LicenceStatus = LicenceStatus.ACTIVE, expiry_ms: int = 0
) -> Registry:
    party = dataclasses.replace(participant("p01", role, 1, expiry_ms), status=status)
    return Registry(participants=(participant("p00", Role.BANK, 0), party))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    ("status", "expiry_ms"),
    [
        (LicenceStatus.ACTIVE, 0),
        (LicenceStatus.ACTIVE, NOW_MS),
        (LicenceStatus.SUSPENDED, 0),
        (LicenceStatus.WITHDRAWN, 0),
    ],
)
def test_who_may_run_a_full_replica(role: Role, status: LicenceStatus, expiry_ms: int) -> None:
    registry = registry_with(role, status, expiry_ms)
    witness = rights_of(registry, NOW_MS, "p01", NodeKind.WITNESS_REPLICA)
    assert witness == Rights(1, sees_all=False)
    in_licence = status is LicenceStatus.ACTIVE and not expiry_ms
    by_office = role in (Role.MINISTRY, Role.CENTRAL_BANK)
    if by_office or (in_licence and role in (Role.REGULATOR, Role.OPERATOR)):
        full = rights_of(registry, NOW_MS, "p01", NodeKind.FULL_REPLICA)
        assert full == Rights(1, sees_all=True)
    else:
        with pytest.raises(VerificationError, match="witness replica only"):
            rights_of(registry, NOW_MS, "p01", NodeKind.FULL_REPLICA)


def test_an_unregistered_node_is_shown_nothing() -> None:
    for kind in (NodeKind.FULL_REPLICA, NodeKind.WITNESS_REPLICA):
        with pytest.raises(VerificationError, match="p09"):
            rights_of(registry_with(Role.BANK), NOW_MS, "p09", kind)


# -- the cache of commitments


def test_commitments_are_made_once_for_all_witnesses_and_kept_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = source_module.commitments_of

    def counted(secret: bytes, records: bytes) -> bytes:
        made.append(len(records))
        return real(secret, records)

    monkeypatch.setattr(source_module, "commitments_of", counted)
    monkeypatch.setattr(source_module, "COMMITMENTS_KEPT_BYTES", 3 * 32)
    with Store.open(tmp_path / "s", SETTINGS) as store:
        net = DiskNet(store=store)
        for _ in range(4):
            net.submit(P01, item(P01, P02, 1), item(P01, P03, 2))
        source = BlockSource(store)
        note = newest_note(store)

        def pieces(number: int, *heights: int) -> list[list[BlockPart]]:
            rights = Rights(number, sees_all=False)
            return [source.parts(height, rights, note) for height in heights]

        first = pieces(P02, 1)
        assert pieces(P02, 1) == first
        pieces(P03, 1)
        assert len(made) == 1
        pieces(P02, 2, 3, 4, 1)
        assert len(made) == 5
        threads = [
            threading.Thread(target=lambda n=n: pieces(n, 1, 2, 3, 4, 1, 2)) for n in (P02, P03)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pieces(P02, 1) == first
        assert source._kept_bytes == sum(map(len, source._commitments.values())) <= 3 * 32
