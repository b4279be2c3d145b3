"""Lines of the engine's log: what they say, and what to do about those that matter.

Lives here: reading a line, the remedies. May not live here: acting on them (node/supervisor.py).

What the engine reports as CONSENSUS FAILURE it survives as a process and not as a validator. Where its own words name
the machine, such as a disk that was full, it must be started again once that has passed, and then goes on: its votes
and its journal are durable before they count. Anything else a restart mends perhaps once, and a person must look.
Source: CometBFT v0.39.4, consensus/state.go (receiveRoutine), consensus/replay.go, privval/file.go, state/errors.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

FAILURE_WORDS = "CONSENSUS FAILURE"

_BEGIN_ANEW = (
    "stop the node, keep a copy of its directory, then delete its database and the engine's data except "
    "priv_validator_state.json, and start it: it verifies every block anew"
)
_BY_ITSELF = "the engine starts again by itself"

_MACHINE_REMEDIES = {
    "no space left on device": f"free space on its disk: {_BY_ITSELF}",
    "disk quota exceeded": f"have its quota raised: {_BY_ITSELF}",
    "too many open files": f"raise its limit of open files (ulimit -n): {_BY_ITSELF}",
    "cannot allocate memory": f"give the machine memory: {_BY_ITSELF}",
    "input/output error": f"look at the disk and the system's log: {_BY_ITSELF}",
}
"""What the system has said to the engine: it passes with nothing of the engine's changed."""

_PORT_REMEDY = (
    "end the program that has the port of consensus_listen, or choose another here and in the others' consensus_peers: "
    f"{_BY_ITSELF}"
)
_DAMAGE_REMEDY = f"the engine's data is damaged: {_BEGIN_ANEW}"
_FAILURE_REMEDY = (
    "the engine has stopped taking part, though it runs: restart the node. If it says so again, this node's work differs "
    f"from the others', or its engine got what it cannot obey: {_BEGIN_ANEW}"
)

_REMEDIES = _MACHINE_REMEDIES | {
    "address already in use": _PORT_REMEDY,
    "does not match AppHash after replay": f"database and engine's data are not of one time: {_BEGIN_ANEW}",
    "is higher than core": f"the database has blocks that the engine's data has not: {_BEGIN_ANEW}",
    "database entry point either missing or corrupted": _DAMAGE_REMEDY,
    "leveldb: manifest corrupted": _DAMAGE_REMEDY,
    "leveldb/table: corruption": _DAMAGE_REMEDY,
    FAILURE_WORDS: _FAILURE_REMEDY,
}
"""What to do, by words of a line; the first that it holds count."""

_LEVELS = ("debug", "info", "warning", "error")
_MESSAGE_CHARACTERS_MAX = 2_000
_FIELD_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class EngineLine:
    """A line of the engine's log.

    level: one of structlog's. fields: what else it says, by `engine_` and the engine's own name. remedy: what to do
    about it, "" where there is nothing. has_failed: the engine takes part no more; may_pass: for a reason that may pass.
    """

    level: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    remedy: str = ""
    has_failed: bool = False
    may_pass: bool = False


def read_line(text: str) -> EngineLine:
    """Return what a line says, be it JSON, a panic or anything else."""
    level, message, fields = _parts(text.strip())
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in text), "")
    machine = any(words in text for words in _MACHINE_REMEDIES)
    return EngineLine(level, message, fields, remedy, FAILURE_WORDS in text, machine)


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    try:
        values = json.loads(text)
        level = str(values.pop("level", "info"))
        message = str(values.pop("_msg", values.pop("msg", "")))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "warning", text[:_MESSAGE_CHARACTERS_MAX], {}
    values.pop("ts", None)
    fields = {
        f"engine_{key.lstrip('_')}": str(value)[:_FIELD_CHARACTERS_MAX]
        for key, value in values.items()
    }
    return level if level in _LEVELS else "error", message, fields
