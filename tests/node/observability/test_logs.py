"""Log lines are JSON, and nothing private gets into them by any way we know."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from clearing.identifiers import make_lei
from node.config import LogLevel
from node.keys import Passphrase, SigningKey
from node.observability import configure_logging, get_logger
from node.observability.logs import WITHHELD, withhold

LEI = "7ZW8QJWVPR4P1S5PX088"
SEED = bytes(range(32))


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Logging of this process goes to the stream for one test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, stream, node="central-bank")
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_is_json_with_level_time_and_node(stream: io.StringIO) -> None:
    get_logger().info("block committed", height=7, items=10_000, log_root="ab" * 32)
    (line,) = lines(stream)
    time = line.pop("timestamp")
    assert time.endswith("Z")
    assert line == {
        "event": "block committed",
        "level": "info",
        "node": "central-bank",
        "height": 7,
        "items": 10_000,
        "log_root": "ab" * 32,
    }


def test_events_below_the_level_are_not_written(stream: io.StringIO) -> None:
    get_logger().debug("detail")
    assert stream.getvalue() == ""


def test_bound_context_stands_in_the_line(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(rpc="/clearing.v1.AuditService/GetHead"):
        get_logger().info("served")
    assert lines(stream)[0]["rpc"] == "/clearing.v1.AuditService/GetHead"


@pytest.mark.parametrize(
    "name",
    [
        "amount", "amount_units", "total_amounts", "net", "gross_btc", "debtor", "creditor_name", "counterparties",
        "participant", "lei", "leis", "passphrase", "password", "secret", "client_secret", "seed", "salt", "private",
        "key", "signing_key", "Key", "token",
    ],
)  # fmt: skip
def test_fields_named_after_private_things_are_withheld(stream: io.StringIO, name: str) -> None:
    get_logger().info("event", **{name: "12345", "inner": {name: "12345"}})
    (line,) = lines(stream)
    assert line[name] == WITHHELD
    assert line["inner"] == {name: WITHHELD}
    assert "12345" not in stream.getvalue()


@pytest.mark.parametrize(
    "name", ["network", "public_key", "key_path", "key_id", "height", "method", "parts"]
)
def test_harmless_fields_are_written(stream: io.StringIO, name: str) -> None:
    get_logger().info("event", **{name: "value"})
    assert lines(stream)[0][name] == "value"


def test_keys_bytes_and_objects_are_never_written_out(stream: io.StringIO) -> None:
    key = SigningKey.from_seed(SEED)
    get_logger().info(
        "event",
        first=key,
        second=[key, SEED, Passphrase("correct horse")],
        third={"a": {"b": {"c": {"d": {"e": SEED}}}}},
        fourth=bytearray(SEED),
        fifth=Path("/srv"),
        sixth={SEED},
    )
    (line,) = lines(stream)
    assert line["first"] == "[SigningKey]"
    assert line["second"] == ["[SigningKey]", "[32 bytes]", "[Passphrase]"]
    assert line["third"] == {"a": {"b": {"c": {"d": "[dict]"}}}}
    assert line["fourth"] == "[32 bytes]"
    assert line["sixth"] == "[set]"
    for secret in (SEED.hex(), repr(SEED)[2:-1], "correct horse"):
        assert secret not in stream.getvalue()


def test_leis_and_private_keys_are_struck_out_of_texts(stream: io.StringIO) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n-----END PRIVATE KEY-----"
    get_logger().info(
        f"about {LEI}", text=f"from {LEI} to ({LEI})", other=f"x {pem} y", cut=pem[:50]
    )
    (line,) = lines(stream)
    assert line["event"] == "about [lei]"
    assert line["text"] == "from [lei] to ([lei])"
    assert line["other"] == "x [private key] y"
    assert "MIGH" not in stream.getvalue()


@given(
    st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=18, max_size=18).map(make_lei),
    st.sampled_from(["{}", "x={}", "spiffe://n/participant/{}", '"{}"', "{},{}", "[{}]"]),
)
def test_no_lei_passes(lei: str, frame: str) -> None:
    fields = withhold(
        None, "info", {"text": frame.format(lei, lei), "list": [frame.format(lei, lei)]}
    )
    assert lei not in json.dumps(fields)


def test_traceback_is_written_without_values(stream: io.StringIO) -> None:
    amount = 123_456_789_012
    try:
        raise ValueError(f"debtor {LEI} owes {amount} salt {SEED!r}")
    except ValueError as error:
        get_logger().error("failed", exc_info=error)
    get_logger().error("no exception at hand", exc_info=True)
    first, second = lines(stream)
    assert "ValueError: debtor [lei] owes [number] salt [bytes]" in first["traceback"]
    assert "test_logs.py" in first["traceback"]
    assert "traceback" not in second
    assert str(amount) not in stream.getvalue()


def test_long_texts_are_cut(stream: io.StringIO) -> None:
    get_logger().info("event", text="x" * 1_000_000)
    assert len(stream.getvalue()) < 9_000


def test_lines_cannot_be_forged(stream: io.StringIO) -> None:
    get_logger().info("event", text='a\n{"event": "forged"}\u2028')
    assert len(stream.getvalue().split("\n")) == 2


def test_libraries_logs_come_along(stream: io.StringIO) -> None:
    logger = logging.getLogger("some.library")
    logger.info("chatter")
    logger.warning("trouble with %s and %d", LEI, 12_345_678)
    # Handed over directly: pytest's own handler would fail the test for it.
    broken = logging.LogRecord("x", logging.ERROR, "x.py", 1, "broken %d", ("no number",), None)
    logging.getLogger().handlers[0].handle(broken)
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        logger.exception("failed")
    first, second, third = lines(stream)
    assert first["event"] == "library message"
    assert first["library"] == "some.library"
    assert first["text"] == "trouble with [lei] and [number]"
    assert second["text"] == "broken %d"
    assert "RuntimeError: inside" in third["traceback"]


class FullDisk(io.StringIO):
    """A stream that fails while it is full."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_full_disk_stops_nothing_and_is_told_afterwards(stream: io.StringIO) -> None:
    disk = FullDisk()
    configure_logging(LogLevel.INFO, disk, node="n")
    get_logger().info("one")
    get_logger().info("two")
    disk.full = False
    get_logger().info("three")
    told, line = lines(disk)
    assert told == {"event": "log lines were lost", "level": "warning", "count": 2}
    assert line["event"] == "three"
    disk.close()
    get_logger().info("to nowhere")
