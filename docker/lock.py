"""`python lock.py LOCK [ROOT...]`: the part of the lock file that some packages need, with its hashes, on standard output.

Without ROOT: what the product itself needs at run time, its optional parts included. It reads the "via" notes that the
lock file carries under each package, so that there is one lock and no second one to keep in step. Standard library only: it
runs where nothing is installed yet.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = "clearing-ledger (pyproject.toml)"
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==")
_VIA = re.compile(r"\s+#\s+(?:via\s*)?(?P<who>.*)")


def sections(text: str) -> dict[str, tuple[str, set[str]]]:
    """Return each pinned package's lines, and who asks for it."""
    found: dict[str, tuple[str, set[str]]] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        pin, via = _PIN.match(line), _VIA.fullmatch(line.rstrip("\n"))
        if pin:
            name = pin["name"]
            # A package may be pinned once for each version of Python.
            found.setdefault(name, ("", set()))
        if not name:
            continue
        lines, asked = found[name]
        if via and via["who"]:
            asked.add(via["who"].strip())
        found[name] = (lines + line, asked)
    return found


def needed(found: dict[str, tuple[str, set[str]]], roots: set[str]) -> set[str]:
    """Return `roots`, or the product's own requirements where there are none, and all that these need."""
    kept = roots or {name for name, (_, asked) in found.items() if PROJECT in asked}
    grown: set[str] = set()
    while kept != grown:
        grown = kept
        kept = grown | {name for name, (_, asked) in found.items() if asked & grown}
    return kept


def main(arguments: list[str]) -> int:
    """Print what the arguments ask for; returns the exit status."""
    if not arguments:
        sys.stderr.write("usage: python lock.py LOCK [ROOT...]\n")
        return 2
    found = sections(Path(arguments[0]).read_text("utf-8"))
    unknown = set(arguments[1:]) - set(found)
    kept = needed(found, set(arguments[1:]))
    if unknown or not kept:
        sys.stderr.write(f"{arguments[0]} pins no {', '.join(sorted(unknown)) or 'package'}\n")
        return 1
    sys.stdout.write("".join(lines for name, (lines, _) in found.items() if name in kept))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
