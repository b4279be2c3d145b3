"""Files of the anchoring worker: JSON under a SHA-256, replaced whole.

Lives here: writing and reading them. May not live here: what is in them.

    {...}
    sha256 <hex of the line above>

A file that does not match its own hash is refused: it was altered, and what was paid for must not be guessed at.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clearing.errors import DecodeError
from node.files import PRIVATE_MODE, read_public, replace_file


def write_guarded(path: Path, document: dict[str, Any]) -> None:
    """Replace the file at `path`; on disk when this returns.

    Raises: SetupError: it cannot be written; the old file is untouched.
    """
    line = json.dumps(document, separators=(",", ":"), sort_keys=True).encode() + b"\n"
    replace_file(
        path, line + b"sha256 " + hashlib.sha256(line).hexdigest().encode() + b"\n", PRIVATE_MODE
    )


def read_guarded(path: Path) -> dict[str, Any] | None:
    """Return what the file at `path` holds, or None where there is no file.

    Raises: DecodeError: it was altered. SetupError: it cannot be read.
    """
    if not path.exists():
        return None
    line, _, guard = read_public(path).partition(b"\n")
    expected = b"sha256 " + hashlib.sha256(line + b"\n").hexdigest().encode() + b"\n"
    try:
        document = json.loads(line) if guard == expected else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise DecodeError(f"{path} does not match its own SHA-256: restore it from a backup")
    return document
