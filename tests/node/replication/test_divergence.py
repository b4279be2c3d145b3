"""The divergence report: a signed note of its own, complete, and read back as it was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.replication.divergence import (
    Divergence,
    DivergenceError,
    make_report,
    parse_report,
    read_report,
    write_report,
)
from node.store import Head
from tests.node.replication.replication_kit import signed_note
from tests.node.sequencer.heads_kit import FIRST, LOG, ORIGIN, POLICY, SECOND

OWN = Head(17, b"\7" * 32)
FOUND = Divergence(5, 19, b"\1" * 32, b"\2" * 32, "applying the block gives another leaf")
NOTE = signed_note(20, b"\3" * 32)


def report(divergence: Divergence = FOUND) -> bytes:
    return make_report(
        divergence, OWN, NOTE, origin=ORIGIN, node="first", signer=FIRST, now_s=1_700_000_000
    )


def test_the_report_reads_as_it_is_documented() -> None:
    lines = Note.parse(report()).text.split("\n")
    assert lines[0] == f"{ORIGIN}/divergence/first"
    assert lines[1:3] == ["17", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]
    assert lines[3:5] == ["height 5", "leaf 19"]
    assert lines[5] == "computed AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
    assert lines[6] == "received AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
    assert lines[7] == "why applying the block gives another leaf"
    assert lines[8].startswith("note ")


@pytest.mark.parametrize(
    "divergence",
    [
        FOUND,
        dataclasses.replace(FOUND, computed=b""),
        dataclasses.replace(FOUND, received=b"", why="x"),
        dataclasses.replace(FOUND, why="a\nb\tc  d\x00\u2014e"),
    ],
)
def test_what_is_written_is_read_back(divergence: Divergence) -> None:
    head, found, note = parse_report(report(divergence))
    assert (head.size, head.root) == (OWN.size, OWN.root)
    assert note == NOTE
    assert dataclasses.replace(found, why="") == dataclasses.replace(divergence, why="")
    assert found.why == " ".join(divergence.why.replace("\x00", " ").split())


def test_the_key_of_the_policy_verifies_it_and_no_other() -> None:
    note = Note.parse(report())
    assert [signed.key for signed in note.verified_by([FIRST.key])] == [FIRST.key]
    with pytest.raises(VerificationError):
        note.verified_by([SECOND.key])
    Note.parse(parse_report(report())[2]).verified_by([LOG.key])


def test_nobody_takes_it_for_a_checkpoint_of_the_log() -> None:
    note = Note.parse(report())
    assert Checkpoint.parse(note.text).origin != ORIGIN
    for policy in (POLICY, Policy.of_log(LOG.key)):
        with pytest.raises(VerificationError):
            policy.check(note)


def test_what_is_no_report_is_refused() -> None:
    text = Note.parse(report()).text
    signatures = Note.parse(report()).signatures
    with pytest.raises(DecodeError):
        parse_report(b"")
    with pytest.raises(DecodeError):
        parse_report(NOTE)
    lines = text.split("\n")
    for place in range(3, 9):
        for changed in (
            lines[:place] + lines[place + 1 :],
            [*lines[:place], lines[place].replace(" ", "", 1), *lines[place + 1 :]],
            [*lines[:place], lines[place].split(" ")[0] + " *", *lines[place + 1 :]],
        ):
            if changed[place].startswith("why"):
                continue
            with pytest.raises(DecodeError):
                parse_report(Note("\n".join(changed), signatures).encode())


def test_the_file_is_kept_and_found(tmp_path: Path) -> None:
    assert read_report(tmp_path) == b""
    path = write_report(tmp_path, report())
    assert path.name == "divergence.note"
    assert read_report(tmp_path) == report()


def test_the_error_names_block_and_leaf() -> None:
    assert str(DivergenceError(FOUND)) == f"block 5, leaf 19: {FOUND.why}"
