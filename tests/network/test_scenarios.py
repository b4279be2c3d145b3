"""The scenarios that run with the other tests, on processes; `python -m tests.network all` runs every one.

The seed is printed: `python -m tests.network NAME --engine ENGINE --seed N` does the same again.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from node.testnet.plan import Engine
from tests.network.__main__ import run
from tests.node.operators_kit import engine_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OPERATORS = ("one-killed", "one-cut-off", "quorum-gone", "split", "kills", "all-restarted")
EMBEDDED = ("one-cut-off", "quorum-gone", "split", "liar-state")


def test_operators_under_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(engine_program().parent), prepend=":")
    names = (*OPERATORS, random.SystemRandom().choice(("liar-state", "liar-heads")))
    seed = random.SystemRandom().randrange(1 << 32)
    run(names, Engine.COMETBFT, docker=False, seed=seed, directory=tmp_path)


def test_one_operator_and_its_followers_under_faults(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    run(EMBEDDED, Engine.EMBEDDED, docker=False, seed=seed, directory=tmp_path)


def test_a_validator_key_in_two_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(engine_program().parent), prepend=":")
    seed = random.SystemRandom().randrange(1 << 32)
    run(("twin",), Engine.COMETBFT, docker=False, seed=seed, directory=tmp_path)
