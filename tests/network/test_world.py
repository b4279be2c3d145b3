"""A part of an operator is killed, and nothing that has its number since."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.network.world import PART_WORDS, kill_command

SLEEP = "import time; time.sleep(60)"


@pytest.mark.parametrize("part", PART_WORDS)
def test_who_has_the_number_of_a_part_that_is_gone_lives(part: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as other:
        try:
            assert subprocess.run(kill_command(part, str(other.pid)), check=False).returncode == 1
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("part", PART_WORDS)
def test_the_part_itself_dies(part: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP, PART_WORDS[part]]) as process:
        subprocess.run(kill_command(part, str(process.pid)), check=True)
        assert process.wait(10) == -9
