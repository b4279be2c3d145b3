"""Checkpoint texts: exactly the canonical ones are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.log.checkpoint import Checkpoint
from tests.clearing.log.support import GOLDEN, VECTORS

ROOT = "OF2jDzkXKCyJOd/4UZV+UZqxhGsTUaFMCts7EWMnQqo="
LINE = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=30)


def test_the_golden_text_is_read_and_written():
    text = GOLDEN["note"].split("\n\n")[0] + "\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("ledger.example/clearing", 3)
    assert checkpoint.text == text


@pytest.mark.parametrize(
    "case", VECTORS["cosignatures"] + VECTORS["cosignature_parse"][:1], ids=lambda c: c["desc"]
)
def test_checkpoints_of_others_are_read_and_written(case):
    assert Checkpoint.parse(case["body"]).text == case["body"]


@given(
    LINE,
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(LINE, max_size=3),
)
def test_checkpoints_round_trip(origin, size, root, extensions):
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@given(st.lists(st.sampled_from(["", "a", "0", "3", "03", ROOT, ROOT[:-1], " "]), max_size=6))
def test_what_is_read_is_written_alike(lines):
    text = "\n".join(lines)
    try:
        checkpoint = Checkpoint.parse(text)
    except DecodeError:
        return
    assert checkpoint.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"a\n3\n{ROOT}",
        f"\n3\n{ROOT}\n",
        "a\n3\n",
        f"a\n03\n{ROOT}\n",
        f"a\n-3\n{ROOT}\n",
        f"a\n{1 << 64}\n{ROOT}\n",
        f"a\n3\n{ROOT[:-1]}\n",
        "a\n3\nAAAA\n",
        f"a\n3\n{ROOT}\n\n",
        f"a\n3\n{ROOT}\n\nb\n",
        f"a\t\n3\n{ROOT}\n",
        f"a\r\n3\n{ROOT}\n",
    ],
)
def test_texts_that_are_no_checkpoint_are_refused(text):
    with pytest.raises(DecodeError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, bytes(32), ()),
        ("a\nb", 0, bytes(32), ()),
        ("\ud800", 0, bytes(32), ()),
        ("a", -1, bytes(32), ()),
        ("a", 1 << 64, bytes(32), ()),
        ("a", 0, bytes(31), ()),
        ("a", 0, bytes(32), ("",)),
        ("a", 0, bytes(32), ("b\x00",)),
    ],
)
def test_a_checkpoint_that_has_no_text_cannot_be_made(origin, size, root, extensions):
    with pytest.raises(DecodeError):
        Checkpoint(origin, size, root, extensions)
