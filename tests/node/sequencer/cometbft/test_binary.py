"""Finding the engine's program: configured, on PATH, in the cache, or built; and what is said where none of it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import SetupError
from node.sequencer.cometbft import binary


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def program(path: Path, version: str = binary.VERSION) -> Path:
    """Return a program that says it is the engine of some version."""
    return script(path / binary.NAME, f"echo {version.removeprefix('v')}")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path


def test_the_one_on_path_is_used_if_it_is_the_pinned_version(places: Path) -> None:
    found = program(places / "bin")
    assert binary.find() == found
    program(places / "bin", "v0.38.0")
    assert binary.find() is None


def test_one_that_is_killed_before_it_answers_is_asked_again(places: Path) -> None:
    answer = f"echo {binary.VERSION.removeprefix('v')}"
    found = script(
        places / "bin" / binary.NAME,
        f"[ -e {places}/asked ] || {{ touch {places}/asked; kill -9 $$; }}\n{answer}",
    )
    assert binary.find() == found
    script(found, f"kill -9 $$\n{answer}")
    assert binary.find() is None


def test_one_that_is_too_slow_once_is_asked_again(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "_VERSION_TIMEOUT_S", 0.5)
    found = script(
        places / "bin" / binary.NAME,
        f"[ -e {places}/asked ] || {{ touch {places}/asked; exec sleep 60; }}\n"
        f"echo {binary.VERSION.removeprefix('v')}",
    )
    assert binary.find() == found


def test_the_cache_is_used_where_path_has_none(places: Path) -> None:
    cached = program(binary.cache_directory())
    assert binary.find() == cached
    assert binary.find_or_build() == cached


def test_a_configured_program_must_be_the_pinned_version(places: Path) -> None:
    right = program(places / "own")
    assert binary.find(right) == right
    for wrong in (program(places / "old", "v0.38.0"), places / "nowhere", places):
        with pytest.raises(SetupError, match=r"cometbft_path: .* needed is cometbft v0\.39\.4"):
            binary.find(wrong)


def test_without_go_it_is_said_how_to_get_it(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(places / "bin"))
    with pytest.raises(SetupError, match="neither is Go to build it: install Go"):
        binary.find_or_build()


def test_go_builds_it_once_into_the_cache(places: Path) -> None:
    script(
        places / "bin" / "go",
        f'echo "$@" > {places}/asked\n'
        f"printf '#!/bin/sh\\necho {binary.VERSION}\\n' > $GOBIN/{binary.NAME}\n"
        f"chmod 755 $GOBIN/{binary.NAME}",
    )
    told: list[str] = []
    made = binary.find_or_build(report=told.append)
    assert made == binary.cache_directory() / binary.NAME
    assert (places / "asked").read_text().split() == ["install", binary.MODULE]
    assert len(told) == 1
    assert binary.find_or_build(report=told.append) == made
    assert len(told) == 1
    assert [path.name for path in binary.cache_directory().parent.iterdir()] == [
        binary.cache_directory().name
    ]


def test_a_failed_build_says_why_and_leaves_nothing(places: Path) -> None:
    script(places / "bin" / "go", "echo no network here >&2; exit 1")
    with pytest.raises(SetupError, match="could not be built .*: no network here"):
        binary.find_or_build()
    assert not any(binary.cache_directory().parent.iterdir())
