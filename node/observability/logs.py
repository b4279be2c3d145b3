"""Structured logs: one JSON object a line, without amounts, parties and keys.

Lives here: how an event becomes a line, and what is withheld from it. May not live here: what is
worth logging.

Invariants: a field whose name speaks of money, parties or secrets is withheld, whatever its value;
LEIs and private keys are struck out of every text; bytes and objects are never written out, so that
no repr leaks; a log that cannot be written stops nothing. Who did what is answered by the ledger
itself, to those entitled.
Source: own design; the rule that messages are static is OpenTelemetry's and makes logs countable.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, MutableMapping
from threading import Lock
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

from node.config import LogLevel

WITHHELD = "[withheld]"

_WITHHELD_WORDS = frozenset(
    [
        # money
        *("amount", "amounts", "balance", "balances", "gross", "net"),
        # parties
        *("party", "parties", "counterparty", "counterparties", "participant", "participants"),
        *("debtor", "debtors", "creditor", "creditors", "lei", "leis"),
        # secrets
        *(
            "passphrase",
            "password",
            "secret",
            "secrets",
            "seed",
            "salt",
            "private",
            "token",
            "credential",
        ),
    ]
)
"""A field is withheld when one of these is a word of its name."""

_KEY_CONTEXT = frozenset(("public", "path", "id", "name"))
"""Words that make a field with "key" in its name harmless."""

_TEXT_LENGTH_MAX = 8_000
_DEPTH_MAX = 4
_LEI = re.compile(r"(?<![0-9A-Za-z])[0-9A-Z]{18}[0-9]{2}(?![0-9A-Za-z])")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_BYTES = re.compile(r"""b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*\"""")
_NUMBER = re.compile(r"(?<![0-9A-Za-z])[0-9]{7,}(?![0-9A-Za-z])")

Fields = MutableMapping[str, Any]


def _scrubbed(text: str) -> str:
    """Return `text` without LEIs and private keys, cut to a bearable length."""
    cut = text if len(text) <= _TEXT_LENGTH_MAX else text[:_TEXT_LENGTH_MAX] + "..."
    return _LEI.sub("[lei]", _PRIVATE_KEY.sub("[private key]", cut))


def _scrubbed_free_text(text: str) -> str:
    """Return text of an exception or a library, also without bytes and long numbers."""
    return _NUMBER.sub("[number]", _BYTES.sub("[bytes]", _scrubbed(text)))


def _is_withheld(name: str) -> bool:
    words = frozenset(name.lower().split("_"))
    return bool(words & _WITHHELD_WORDS) or ("key" in words and not words & _KEY_CONTEXT)


def _presentable(value: Any, depth: int = 0) -> Any:
    """Return numbers and scrubbed texts, and of anything else only what kind of thing it is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _scrubbed(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping) and depth < _DEPTH_MAX:
        return {str(key): _field(str(key), one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple) and depth < _DEPTH_MAX:
        return [_presentable(one, depth + 1) for one in value]
    return f"[{type(value).__name__}]"


def _field(name: str, value: Any, depth: int = 0) -> Any:
    return WITHHELD if _is_withheld(name) else _presentable(value, depth)


def withhold(_logger: object, _method: str, fields: Fields) -> Fields:
    """Return the event's fields with everything private withheld; a structlog processor."""
    return {name: _field(name, value) for name, value in fields.items()}


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def _render_exception(_logger: object, _method: str, fields: Fields) -> Fields:
    """Turn `exc_info` into the text of the traceback, scrubbed; a structlog processor."""
    error = fields.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        fields["traceback"] = _scrubbed_free_text("".join(traceback.format_exception(error)))
    return fields


class _Lines:
    """Writes lines to a stream and outlives it: a full disk of logs must not stop the ledger."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self._lost = 0

    def msg(self, line: str) -> None:
        with self._lock:
            try:
                if self._lost:
                    self._stream.write(
                        f'{{"event": "log lines were lost", "level": "warning", "count": {self._lost}}}\n'
                    )
                    self._lost = 0
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # ValueError: the stream is closed. The count is told once lines can be written
                # again.
                self._lost += 1

    debug = info = warning = error = critical = msg


class _FromLibraries(logging.Handler):
    """Carries what other libraries log by `logging` into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's text as a field, scrubbed like an exception's."""
        # A library's wrong format arguments must not turn into an exception of ours.
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        get_logger().log(
            record.levelno,
            "library message",
            library=record.name,
            text=_scrubbed_free_text(text),
            exc_info=record.exc_info,
        )


def configure_logging(level: LogLevel, stream: TextIO, *, node: str) -> None:
    """Send this process's logs as JSON lines to `stream`; `node` stands in every line.

    Other libraries' logs come along from WARNING on. Called once at start-up, by the runtime.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    lines = _Lines(stream)

    def add_node(_logger: object, _method: str, fields: Fields) -> Fields:
        fields["node"] = node
        return fields

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_node,
            structlog.processors.add_log_level,
            _render_exception,
            withhold,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_FromLibraries()]
    root.setLevel(max(number, logging.WARNING))


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger: `log.info("block committed", height=7)`; what varies is a field.

    May be called before `configure_logging`; settings count at the time of each event.
    """
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger())
