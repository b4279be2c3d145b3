"""The image's packages: the part of the one lock file that the product needs, each with its hashes."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
SCRIPT = ROOT / "docker" / "lock.py"


def names(*roots: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, LOCK, *roots], capture_output=True, text=True, check=True
    )
    return re.findall(r"^([A-Za-z0-9._-]+)==", done.stdout, re.MULTILINE)


def test_all_that_the_product_declares_is_there_and_no_tool_of_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = itertools.chain(*project["optional-dependencies"].values())
    declared = [*project["dependencies"], *extras]
    wanted = {re.split(r"[\s<>=;\[]", one)[0] for one in declared}
    found = set(names())
    assert wanted <= found
    assert not {"pytest", "mypy", "ruff", "hatchling", "grpcio-tools"} & found


def test_what_others_need_comes_along() -> None:
    assert {"cffi", "pycparser", "llvmlite", "pygments"} <= set(names())
    assert set(names("hatchling")) >= {"hatchling", "packaging", "pluggy"}


def test_a_package_pinned_once_for_each_python_keeps_every_pin_and_hash() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, LOCK], capture_output=True, text=True, check=True
    )
    assert names().count("numpy") == LOCK.read_text().count("\nnumpy==")
    for section in re.split(r"\n(?=\S)", done.stdout):
        assert "--hash=sha256:" in section, section[:80]


def test_an_unknown_root_is_named() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, LOCK, "no-such-thing"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "no-such-thing" in done.stderr) == (1, True)


def test_scripts_need_nothing_installed() -> None:
    for path in (SCRIPT, ROOT / "docker" / "base_image.py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        done = subprocess.run(
            [sys.executable, "-S", "-I", "-c", f"import runpy; runpy.run_path({str(path)!r})"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
