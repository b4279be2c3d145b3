"""Where the consensus engine's program is: on PATH, or built once into this project's own cache.

Lives here: the pinned version, the finder. May not live here: running it (node/supervisor.py).

The program is never downloaded as a binary: `go install` builds it from source that the Go checksum
database vouches for. That needs Go 1.25 or newer, network access once, and two to three minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from node.errors import SetupError, may_pass

VERSION = "v0.39.4"
MODULE = f"github.com/cometbft/cometbft/cmd/cometbft@{VERSION}"
NAME = "cometbft"
_BUILD_TIMEOUT_S = 1_800
_VERSION_TIMEOUT_S = 30
_VERSION_ATTEMPTS = 3


def cache_directory() -> Path:
    """Return where this project keeps programs that it built, by version; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "clearing" / f"{NAME}-{VERSION}"


def find(configured: Path | None = None) -> Path | None:
    """Return the program, or None where it is nowhere: `configured`, else on PATH, else the cache.

    A program on PATH of another version is passed over: all operators must run one version.
    Raises: SetupError: `configured` is no program of the pinned version.
    """
    if configured is not None:
        found = version_of(configured)
        if found != VERSION:
            raise SetupError(
                f"cometbft_path: {configured} is {found or 'no program that runs'}, needed is "
                f"{NAME} {VERSION}; remove the setting to have it found or built"
            )
        return configured
    on_path = shutil.which(NAME)
    if on_path is not None and version_of(Path(on_path)) == VERSION:
        return Path(on_path)
    cached = cache_directory() / NAME
    return cached if os.access(cached, os.X_OK) else None


def find_or_build(
    configured: Path | None = None, report: Callable[[str], None] | None = None
) -> Path:
    """Return the program, building it where it is nowhere; `report` is told before that starts.

    Raises: SetupError: it is missing and cannot be built here; the text says what to do.
    """
    found = find(configured)
    if found is not None:
        return found
    how = f"GOBIN=/usr/local/bin go install {MODULE}"
    go = shutil.which("go")
    if go is None:
        raise SetupError(
            f"{NAME} {VERSION} is not on PATH, and neither is Go to build it: install Go 1.25 or "
            f"newer, or put the program on PATH (on a machine with Go: {how})"
        )
    if report is not None:
        report(f"building {NAME} {VERSION} into {cache_directory()}: two to three minutes, once")
    return _build(Path(go), cache_directory(), how)


def _build(go: Path, directory: Path, how: str) -> Path:
    # Built aside and moved into place: two commands at once, or one that is ended, leave no half.
    aside = directory.with_name(f"{directory.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            [go, "install", MODULE],
            env={**os.environ, "GOBIN": str(aside), "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
        if made.returncode != 0:
            said = " ".join(made.stderr.split())[-400:]
            raise SetupError(f"{NAME} {VERSION} could not be built ({how}): {said}")
        directory.mkdir(parents=True, exist_ok=True)
        (aside / NAME).replace(directory / NAME)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{NAME} {VERSION} could not be built ({how}): {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return directory / NAME


def version_of(program: Path) -> str:
    """Return what a program says its version is, with a leading "v"; "" where it says nothing.

    One that is killed before it answers, is too slow, or cannot be started now is asked again: that says nothing about
    the program.
    """
    for _ in range(_VERSION_ATTEMPTS):
        try:
            said = subprocess.run(
                [program, "version"],
                capture_output=True,
                text=True,
                timeout=_VERSION_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        except OSError as error:
            if not may_pass(error):
                return ""
            continue
        # A negative status is the number of a signal.
        if said.returncode >= 0:
            text = said.stdout.strip().removeprefix("v")
            return f"v{text}" if said.returncode == 0 and text else ""
    return ""
