"""The README's example of netting on arrays does what its comments say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).with_name("example.py")))
    assert capsys.readouterr().out.splitlines() == [
        "270 80 0.703703",
        "[ True  True  True False] 30",
    ]
