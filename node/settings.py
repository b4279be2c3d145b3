"""Settings in TOML, read strictly; a dataclass says the keys and what each means.

Lives here: the mapping between TOML and dataclasses, and checks that several settings share. May
not live here: any particular setting (config.py, profile.py).

Invariants: an unknown key, a wrong type and a value out of range are refused by name with what to
write; what `render_settings` writes, `parse_settings` reads back equal. A flat table, no floats, no
dates: a setting that needs structure is a file of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from clearing.errors import DecodeError
from node.errors import SetupError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

Check = Callable[[Any], None]
"""Accepts a value, or raises DecodeError with what it must be; the key's name is put before it."""


PORT_MAX = 65_535
"""Greatest TCP port."""

_ENDPOINT = re.compile(
    r"(?:(?P<name>[-.0-9A-Za-z]+)|\[(?P<ipv6>[.:0-9A-Fa-f]+)\]):(?P<port>[0-9]{1,5})"
)


def about(sentence: str, *, unit: str = "", check: Check | None = None) -> dict[str, Any]:
    """Return the metadata of a field that is a setting: what it is for, unit, check."""
    return {"sentence": sentence, "unit": unit, "check": check}


def between(least: int, greatest: int) -> Check:
    """Return a check that accepts integers from `least` to `greatest`."""

    def check(value: int) -> None:
        if not least <= value <= greatest:
            raise DecodeError(f"must be {least} to {greatest}, got {value}")

    return check


def split_endpoint(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 host stands in brackets, which are taken off.

    Raises: DecodeError: any other shape, or a port outside 0 to 65535.
    """
    match = _ENDPOINT.fullmatch(text)
    if match is None or int(match["port"]) > PORT_MAX:
        raise DecodeError(
            f"must be host:port, such as 127.0.0.1:7400 or [::1]:7400, got {text[:80]!r}"
        )
    return match["ipv6"] or match["name"], int(match["port"])


def check_endpoint(text: str) -> None:
    """Accept `text` as an address to listen on; port 0 asks for a free one. Raises: DecodeError."""
    split_endpoint(text)


def check_dialled_endpoint(text: str) -> None:
    """Accept `text` as an address to connect to. Raises: DecodeError: otherwise, or port 0."""
    if split_endpoint(text)[1] == 0:
        raise DecodeError(f"must name the port to connect to, got {text[:80]!r}")


def check_rpc_url(text: str) -> None:
    """Accept `text` as the URL of a JSON-RPC; a file of its own holds user and password. Raises: DecodeError."""
    parts = urlsplit(text)
    try:
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or "@" in text:
        # Never the text: it may hold a password.
        raise DecodeError(
            "must be http://host:port, and user and password stand in bitcoin_cookie_path"
        )


def _type_words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list of strings"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind)
    return "an integer" if kind is int else "a string"


def _is_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind)


def _read_value(kind: Any, value: Any, base: Path) -> Any:
    """Return the TOML `value` as the field type `kind`; relative paths count from `base`.

    Raises: DecodeError: another type, or no member of an enumeration.
    """
    if kind is int and type(value) is int:
        return value
    if (
        get_origin(kind) is tuple
        and isinstance(value, list)
        and all(isinstance(one, str) for one in value)
    ):
        return tuple(value)
    if isinstance(value, str):
        if kind is str:
            return value
        if _is_path(kind):
            if "\0" in value or (not value and kind is Path):
                raise DecodeError("must be a path")
            return base / value if value else None
        if (
            isinstance(kind, type)
            and issubclass(kind, enum.Enum)
            and value in {member.value for member in kind}
        ):
            return kind(value)
    shown = repr(value)
    raise DecodeError(f"must be {_type_words(kind)}, got {shown[:80]}")


def check_settings(settings: DataclassInstance) -> None:
    """Run each setting's own check; for `__post_init__`, before checks across settings.

    Raises: SetupError: with the key's name.
    """
    for field in dataclasses.fields(settings):
        check: Check | None = field.metadata["check"]
        value = getattr(settings, field.name)
        # A default of "" or None means that the setting is absent.
        if check is None or (value == field.default and not value):
            continue
        try:
            for one in value if isinstance(value, tuple) else (value,):
                check(one)
        except DecodeError as error:
            raise SetupError(f"{field.name}: {error}") from error


def _table(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        # TOMLDecodeError is one; an integer of thousands of digits is another.
        raise SetupError(f"not TOML: {error}") from error
    except RecursionError as error:
        raise SetupError("not TOML of ours: it is nested too deep") from error


def _check_keys(names: Mapping[str, Any], required: set[str], table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
            raise SetupError(f"unknown key {key[:80]!r}: {hint}")
    missing = sorted(required - set(table))
    if missing:
        raise SetupError(f"missing {', '.join(missing)}: add each as key = value")


def parse_settings(kind: type[Settings], text: str, *, source: str, base: Path) -> Settings:
    """Read the TOML `text` as a dataclass of type `kind`.

    `source` names the file in errors; relative paths count from the directory `base`, and "" is no
    path.
    Raises: SetupError: not TOML, an unknown or missing key, a wrong type, or a value that a check
    refuses.
    """
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    try:
        table = _table(text)
        _check_keys(fields, required, table)
        values = {}
        for name, value in table.items():
            try:
                values[name] = _read_value(hints[name], value, base)
            except DecodeError as error:
                raise SetupError(f"{name}: {error}") from error
        return kind(**values)
    except SetupError as error:
        raise SetupError(f"{source}: {error}") from error


def _quoted(text: str) -> str:
    """Return a TOML basic string; what is not printable is escaped.

    Raises: SetupError: a lone surrogate, by which Python carries a file name that is not UTF-8.
    """
    return (
        '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'
    )


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise SetupError("a path that is not UTF-8 cannot be written to TOML: rename the file")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _written(value: Any, base: Path) -> str:
    if value is None:
        return '""'
    if isinstance(value, Path):
        # Relative to the process's directory here, to the file's when it is read back: written so
        # that both agree.
        whole, root = value.absolute(), base.absolute()
        return _quoted(str(whole.relative_to(root) if whole.is_relative_to(root) else whole))
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(one) for one in value) + "]"
    if isinstance(value, enum.Enum):
        return _quoted(value.value)
    return _quoted(value) if isinstance(value, str) else str(value)


def render_settings(settings: DataclassInstance, *, heading: str, base: Path) -> str:
    """Return TOML, each key explained; paths under `base` become relative to it.

    Order: that of the dataclass's fields.
    """
    lines = [f"# {heading}"]
    for field in dataclasses.fields(settings):
        unit = f" Unit: {field.metadata['unit']}." if field.metadata["unit"] else ""
        default = (
            "Required."
            if field.default is dataclasses.MISSING
            else f"Default: {_written(field.default, base)}."
        )
        lines += [
            "",
            f"# {field.metadata['sentence']}{unit} {default}",
            f"{field.name} = {_written(getattr(settings, field.name), base)}",
        ]
    return "\n".join(lines) + "\n"
