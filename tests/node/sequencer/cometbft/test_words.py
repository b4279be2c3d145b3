"""The engine's log lines become ours, and those that matter say what to do."""

from __future__ import annotations

import json

import pytest

from node.sequencer.cometbft.words import FAILURE_WORDS, read_line


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            '{"level":"info","_msg":"hello","module":"p2p"}',
            ("info", "hello", {"engine_module": "p2p"}),
        ),
        ('{"level":"fatal","_msg":"x"}', ("error", "x", {})),
        ("panic: no JSON", ("warning", "panic: no JSON", {})),
        ("[1]", ("warning", "[1]", {})),
        ("", ("warning", "", {})),
        ("[" * 100_000, ("warning", "[" * 2_000, {})),
    ],
)
def test_lines_of_the_engine_become_ours(line: str, parsed: tuple) -> None:
    said = read_line(line)
    assert (said.level, said.message, said.fields) == parsed
    assert (said.remedy, said.has_failed, said.may_pass) == ("", False, False)


def failure(reason: str) -> str:
    return json.dumps({"level": "error", "_msg": f"{FAILURE_WORDS}!!!", "err": reason})


def test_a_failure_for_want_of_room_passes_and_another_does_not() -> None:
    full = read_line(
        failure("failed to write msg to consensus WAL: write: no space left on device")
    )
    assert (full.has_failed, full.may_pass) == (True, True)
    assert full.remedy.startswith("free space on its disk")
    differs = read_line(failure("wrong Block.Header.AppHash"))
    assert (differs.has_failed, differs.may_pass) == (True, False)
    assert "restart the node" in differs.remedy
    assert "except priv_validator_state.json" in differs.remedy


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("listen tcp 0.0.0.0:26656: bind: address already in use", "consensus_listen"),
        ("panic: state.AppHash does not match AppHash after replay. Got", "not of one time"),
        ("app block height (7) is higher than core (3)", "blocks that the engine"),
        ("ERROR: database entry point either missing or corrupted", "data is damaged"),
        ("leveldb: manifest corrupted (field 'comparer'): missing", "data is damaged"),
    ],
)
def test_what_keeps_the_engine_from_starting_says_what_to_do(line: str, remedy: str) -> None:
    said = read_line(line)
    assert remedy in said.remedy
    assert not said.has_failed
