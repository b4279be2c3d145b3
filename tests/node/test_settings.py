"""Settings are read strictly, and what is written is read back equal."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from node.errors import SetupError
from node.settings import (
    about,
    between,
    check_dialled_endpoint,
    check_endpoint,
    check_settings,
    parse_settings,
    render_settings,
    split_endpoint,
)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    name: str = field(metadata=about("A name."))
    place: Path = field(metadata=about("A place."))
    count: int = field(default=7, metadata=about("A count.", unit="pieces", check=between(0, 9)))
    other: Path | None = field(default=None, metadata=about("Another place."))
    colour: Colour = field(default=Colour.RED, metadata=about("A colour."))
    hosts: tuple[str, ...] = field(default=(), metadata=about("Hosts.", check=check_endpoint))

    def __post_init__(self) -> None:
        check_settings(self)


BASE = Path("/etc/clearing")
GOOD = 'name = "n"\nplace = "here"\n'


def read(text: str) -> Sample:
    return parse_settings(Sample, text, source="sample.toml", base=BASE)


def test_defaults_and_relative_paths() -> None:
    assert read(GOOD) == Sample(name="n", place=BASE / "here")
    assert read(GOOD + 'other = "/abs"\n').other == Path("/abs")
    assert read(GOOD + 'other = ""\n').other is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "missing name, place"),
        ('name = "n"', "missing place"),
        (GOOD + "counts = 1", "unknown key 'counts': did you mean count"),
        (GOOD + "zzz = 1", "unknown key 'zzz': known are name, place"),
        (GOOD + "[count]\nx = 1", "count: must be an integer"),
        (GOOD + 'count = "7"', "count: must be an integer, got '7'"),
        (GOOD + "count = 7.0", "count: must be an integer"),
        (GOOD + "count = true", "count: must be an integer"),
        (GOOD + "count = 10", "count: must be 0 to 9, got 10"),
        (GOOD + "count = -1", "count: must be 0 to 9"),
        (GOOD + "count = " + "9" * 5000, "not TOML"),
        (GOOD + 'colour = "green"', 'colour: must be one of "red", "blue"'),
        (GOOD + "colour = 1", "colour: must be one of"),
        (GOOD + 'hosts = "a:1"', "hosts: must be a list of strings"),
        (GOOD + "hosts = [1]", "hosts: must be a list of strings"),
        (GOOD + 'hosts = ["a:1", "b"]', "hosts: must be host:port"),
        (GOOD + "other = 1", "other: must be a string"),
        (GOOD + 'other = "a\\u0000b"', "other: must be a path"),
        ('name = "n"\nplace = ""', "place: must be a path"),
        ('name = ["n"]\nplace = "p"', "name: must be a string"),
        ("name = 2026-11-23\nplace = 'p'", "name: must be a string"),
        (GOOD + 'name = "again"', "not TOML"),
        ("name = \nplace = 1", "not TOML.*line 1"),
        ("name = " + "[" * 100_000, "not TOML"),
        ("\0", "not TOML"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint) as caught:
        read(text)
    assert str(caught.value).startswith("sample.toml: ")
    assert len(str(caught.value)) < 400


def test_code_is_checked_like_files() -> None:
    with pytest.raises(SetupError, match="count: must be 0 to 9"):
        Sample(name="n", place=BASE, count=10)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=9
)
paths = st.builds(
    Path, st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
)
samples = st.builds(
    Sample,
    name=texts,
    place=paths | paths.map(lambda path: BASE / str(path)[1:]),
    count=st.integers(0, 9),
    other=st.none() | paths,
    colour=st.sampled_from(Colour),
    hosts=st.lists(st.sampled_from(["a:1", "[::1]:65535", "node.example:0"])).map(tuple),
)


@given(samples)
def test_written_settings_are_read_back(sample: Sample) -> None:
    assert read(render_settings(sample, heading="Sample.", base=BASE)) == sample


def test_every_key_is_explained() -> None:
    text = render_settings(Sample(name="n", place=BASE / "here"), heading="Sample.", base=BASE)
    assert "# A count. Unit: pieces. Default: 7.\ncount = 7\n" in text
    assert '# A place. Required.\nplace = "here"\n' in text


def test_relative_path_is_written_so_that_it_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = Sample(name="n", place=Path("conf/here"), other=Path("elsewhere"))
    text = render_settings(sample, heading="Sample.", base=Path("conf"))
    found = parse_settings(Sample, text, source="x", base=tmp_path / "conf")
    assert found.place == tmp_path / "conf" / "here"
    assert found.other == tmp_path / "elsewhere"


def test_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SetupError, match="not UTF-8"):
        render_settings(Sample(name="n", place=Path("/\udcff")), heading="Sample.", base=BASE)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:7400", ("127.0.0.1", 7400)),
        ("[::1]:0", ("::1", 0)),
        ("node.example:65535", ("node.example", 65535)),
    ],
)
def test_endpoints(text: str, parts: tuple[str, int]) -> None:
    assert split_endpoint(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "a:x",
        "a:-1",
        "a:65536",
        "a:\u0661",
        "a:123456789",
        "::1:5",
        "[]:5",
        "h\u00e9:1",
        "a/b:1",
        "[::1:5",
        "a b:1",
        "a:1\n",
    ],
)
def test_malformed_endpoints_are_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="must be host:port"):
        split_endpoint(text)


def test_port_zero_is_for_listening_only() -> None:
    check_endpoint("a:0")
    with pytest.raises(DecodeError, match="port to connect to"):
        check_dialled_endpoint("a:0")
