"""The generated parts of the README are what the code says."""

from __future__ import annotations

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
