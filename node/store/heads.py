"""The signed heads' second copy: a small file beside the database.

Lives here: its bytes, reading and replacing it. May not live here: what follows from a difference
(store, startup).

A database can be put back to an older day by a restored backup; this file then still says what was
signed. It is replaced as a whole, flushed, after the database has the head and before the signature
leaves.

    clearing signed heads v1
    <size> <root in hex> <name>
    ...
    sha256 <hex of all lines above>
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from node.files import PRIVATE_MODE, read_public, replace_file
from node.store.errors import Finding, FindingKind, StoreDamagedError
from node.store.tables import Head

HEADS_FILE = "signed-heads"
_FIRST_LINE = "clearing signed heads v1"


def write_heads(directory: Path, heads: dict[str, Head]) -> None:
    """Replace the file with `heads` by name; on disk when this returns.

    Raises: SetupError: it cannot be written.
    """
    replace_file(directory / HEADS_FILE, _encode(heads), PRIVATE_MODE)


def read_heads(directory: Path) -> dict[str, Head] | None:
    """Return the heads by name, or None where there is no file.

    Raises: StoreDamagedError: the file was altered. SetupError: it cannot be read.
    """
    path = directory / HEADS_FILE
    if not path.exists():
        return None
    data = read_public(path)
    heads = _parse(data.decode(errors="replace"))
    # Whatever the reader was lenient about shows here: one set of heads, one spelling.
    if heads is None or _encode(heads) != data:
        raise StoreDamagedError(
            [
                Finding(
                    FindingKind.ALTERED, HEADS_FILE, "", "the file does not match its own SHA-256"
                )
            ]
        )
    return heads


def _encode(heads: dict[str, Head]) -> bytes:
    lines = [_FIRST_LINE]
    lines += [f"{head.size} {head.root.hex()} {name}" for name, head in sorted(heads.items())]
    body = "".join(f"{line}\n" for line in lines)
    return f"{body}sha256 {hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def _parse(text: str) -> dict[str, Head] | None:
    heads = {}
    for line in text.split("\n")[1:-2]:
        size, _, rest = line.partition(" ")
        root, _, name = rest.partition(" ")
        try:
            heads[name] = Head(int(size), bytes.fromhex(root))
        except ValueError:
            return None
    return heads
