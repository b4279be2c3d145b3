"""Faults as values: who hears whom, what is lost, what is refused, and the file between commands and relay."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import SetupError
from node.testnet.faults import FAULTS_NAME, Faults

NODES = ("a", "b", "c", "d")


def test_nothing_is_wrong_at_first(tmp_path: Path) -> None:
    faults = Faults.load(tmp_path)
    assert faults == Faults()
    assert not any(faults.is_cut(one, other) for one in NODES for other in NODES)
    assert faults.lost("a", "b") == 0


def test_nodes_of_different_sides_do_not_hear_each_other() -> None:
    faults = Faults().partitioned([["a", "b"], ["c"]], NODES)
    assert faults.is_cut("a", "c")
    assert faults.is_cut("c", "b")
    assert not faults.is_cut("a", "b")
    # In no group: it hears all.
    assert not any(faults.is_cut("d", other) for other in NODES)
    assert faults.serial == 1


def test_one_side_is_cut_off_from_all_others() -> None:
    faults = Faults().partitioned([["b"]], NODES)
    assert [faults.is_cut("b", other) for other in NODES] == [True, False, True, True]
    assert not faults.is_cut("a", "d")


def test_a_new_split_takes_the_place_of_the_old_one_and_heal_ends_it() -> None:
    faults = Faults().partitioned([["a"]], NODES).partitioned([["b"]], NODES)
    assert not faults.is_cut("a", "c")
    assert faults.is_cut("b", "c")
    lying = faults.losing("c", 30, NODES).lying("d", "state").healed()
    assert lying == Faults(5, lies={"d": "state"})


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ([["a"], ["x"]], "no node 'x'"),
        ([["a"], ["a", "b"]], "named twice"),
        ([["a", "a"]], "named twice"),
        ([], "at least two sides"),
        ([[], []], "at least two sides"),
        ([["a", "b", "c", "d"]], "at least two sides"),
    ],
)
def test_what_is_no_split_is_refused(sides: list[list[str]], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        Faults().partitioned(sides, NODES)


def test_loss_of_both_ends_counts_and_zero_ends_it() -> None:
    faults = Faults().losing("a", 50, NODES).losing("b", 20, NODES)
    assert faults.lost("a", "b") == pytest.approx(0.6)
    assert faults.lost("c", "a") == pytest.approx(0.5)
    assert faults.losing("a", 100, NODES).lost("a", "c") == 1
    assert faults.losing("a", 0, NODES).loss_percent == {"b": 20}
    for percent in (-1, 101):
        with pytest.raises(SetupError, match="0 to 100"):
            faults.losing("a", percent, NODES)
    with pytest.raises(SetupError, match="no node"):
        faults.losing("e", 1, NODES)


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    faults = (
        Faults().partitioned([["a"], ["b", "c"]], NODES).losing("d", 7, NODES).lying("a", "heads")
    )
    faults.save(tmp_path)
    assert Faults.load(tmp_path) == faults
    assert faults.lying("a", "").lies == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"serial": "x"}', "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FAULTS_NAME).write_text(text)
    with pytest.raises(SetupError, match=r"faults\.json"):
        Faults.load(tmp_path)
