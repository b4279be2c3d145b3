"""The generated parts of the README are what the code says, and what it promises has tests."""

from __future__ import annotations

import re

import pytest

from tests.readme_tables import PARTS, README, filled


def test_generated_parts_are_current() -> None:
    text = README.read_text()
    assert filled(text) == text, "run: .venv/bin/python -m tests.readme_tables"


@pytest.mark.parametrize("name", PARTS)
def test_every_generated_part_has_its_place(name: str) -> None:
    text = README.read_text()
    assert text.count(f"<!-- {name} -->") == 1
    assert text.count(f"<!-- end of {name} -->") == 1


def test_every_promise_names_its_tests() -> None:
    section = README.read_text().partition("## What is promised")[2].partition("\n## ")[0]
    promises = re.split(r"^[0-9]+\. ", section, flags=re.MULTILINE)[1:]
    assert len(promises) == 7
    for promise in promises:
        named = re.search(r"\[([^\]]+)\]\s*$", promise)
        assert named is not None, promise
        for path in named[1].split(", "):
            place = README.parent / path
            files = [place] if place.is_file() else list(place.glob("test_*.py"))
            assert any("def test_" in file.read_text() for file in files), path
