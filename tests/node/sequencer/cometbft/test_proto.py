"""Our minimal abci.proto has the numbers and types of the engine's own files, where the Go module cache holds them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from node.pb_generate import ABCI_PACKAGE, PROTO_ROOT
from node.sequencer.cometbft.binary import VERSION

FIELD = re.compile(r"^\s*(repeated\s+)?([\w.]+)\s+(\w+)\s*=\s*(\d+)", re.MULTILINE)
BLOCK = re.compile(r"\b(message|enum)\s+(\w+)\s*\{")
FILES = ("abci/types.proto", "crypto/keys.proto", "types/validator.proto")


def upstream() -> str:
    """Return the engine's own definitions; the .ci/run script has Go fetch them to build it."""
    found = ""
    try:
        made = subprocess.run(
            ["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True
        )
        root = Path(made.stdout.strip()) / f"github.com/cometbft/cometbft@{VERSION}"
        found = "\n".join((root / "proto/tendermint" / name).read_text() for name in FILES)
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI"):
            pytest.fail("the engine's module is not in Go's cache: .ci/run fetches it")
        pytest.skip("the engine's module is not in Go's cache")
    return found


def fields(text: str) -> dict[str, dict[int, tuple[bool, str]]]:
    """Return by message and number whether a field is repeated, and the last part of its type."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    found: dict[str, dict[int, tuple[bool, str]]] = {}
    for match in BLOCK.finditer(text):
        depth, at = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        body = text[match.end() : at - 1]
        # Nested definitions are found by themselves.
        body = re.sub(r"\b(?:message|enum)\s+\w+\s*\{[^{}]*\}", "", body)
        if match[1] == "message":
            found[match[2]] = {
                int(number): (bool(many), kind.rsplit(".", 1)[-1])
                for many, kind, _, number in FIELD.findall(body)
            }
    return found


def test_numbers_and_types_are_the_engines() -> None:
    theirs = fields(upstream())
    ours = fields((PROTO_ROOT / ABCI_PACKAGE / "abci.proto").read_text())
    del ours["Timestamp"]
    assert len(ours) > 30
    for message, found in ours.items():
        for number, kind in found.items():
            assert theirs[message][number] == kind, (message, number)
