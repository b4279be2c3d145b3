"""What the documents name is there: commands with their options, files, settings, codes, statuses, decisions.

The documents are README.md outside its generated parts, CHANGELOG.md, the comments of proto/ and the texts of the code itself.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import grpc
import pytest

from benchmarks import __main__ as benchmarks
from node.cli import main
from node.rpc_errors import _REJECT_STATUS, Refusal, of_refusal, refusal
from node.services.facade import NodeCondition, NotServingError
from tests.network.scenarios import SHARED
from tests.network.twin import OWN
from tests.readme_tables import PARTS, README

ROOT = README.parent
SOURCES = [
    path
    for folder in ("clearing", "node", "tests", "benchmarks", "docker")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sh"} or path.name == "Dockerfile"
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
PROTOS = sorted((ROOT / "proto").rglob("*.proto"))


def written_by_hand() -> str:
    """Return the README without the parts that are made from the code."""
    text = README.read_text()
    for name in PARTS:
        text = re.sub(f"<!-- {name} -->.*?<!-- end of {name} -->", "", text, flags=re.DOTALL)
    return text


@cache
def documents() -> Mapping[str, str]:
    """Return the text of every document by its name."""
    texts = {"README.md": written_by_hand(), "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}
    for path in PROTOS:
        comments = re.findall(r"//(.*)", path.read_text())
        texts[path.relative_to(ROOT).as_posix()] = "\n".join(comments)
    return texts


@cache
def words_of_the_code() -> frozenset[str]:
    """Return every word of the code, tests left out."""
    paths = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "tests"]
    return frozenset().union(*(re.findall(r"\w+", path.read_text()) for path in paths))


# -- commands


def commands_named() -> Iterator[tuple[str, str]]:
    """Yield every command line that a document, a docstring or a message shows, with where."""
    for where, text in documents().items():
        yield from (
            (where, line) for line in re.findall(r"^(?:\$ )?clearing (.+)$", text, re.MULTILINE)
        )
        yield from ((where, line) for line in re.findall(r"`clearing ([^`\n]+)`", text))
    for path in SOURCES:
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith("tests/"):
            found = re.findall(r"`clearing ([^`\n]+)`", path.read_text())
            yield from ((where, line) for line in found)


@cache
def commands() -> Mapping[str, Any]:
    """Return every command and group of commands by its name."""
    return {name: main.load(name) for name in main.GROUPS | main.COMMANDS}


def wrong_in(line: str) -> str:
    """Return what there is not of a command line such as `anchor list|show [--json]`, "" for nothing."""
    tokens = re.sub(r"[\[\]]", " ", line.partition("  #")[0]).split()
    known = commands()
    reached: list[Any] = []
    for token in tokens:
        names = token.split("|")
        if not set(names) <= set(known):
            # The first word is a command; what follows a command is its own affair, but for options.
            if not reached and not token.startswith("-"):
                return f"no command {token}"
            break
        reached = [known[name] for name in names]
        known = getattr(reached[0], "commands", {}) if len(reached) == 1 else {}
    reached += [one._default for one in reached if hasattr(one, "_default")]
    options = {"--help"}
    for parameter in (parameter for one in reached for parameter in one.params):
        options |= {*parameter.opts, *parameter.secondary_opts}
    unknown = [token for token in tokens if token.startswith("--") and token not in options]
    return f"no option {', '.join(unknown)}" if unknown else ""


def test_every_command_that_is_named_is_one() -> None:
    named = list(commands_named())
    assert len(named) > 100
    found = [
        f"{where}: clearing {line}: {wrong_in(line)}" for where, line in named if wrong_in(line)
    ]
    assert not found, found


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("anchor list|show [--json]", ""),
        ("net FILE.csv [--bypass] [--json]", ""),
        ("--help", ""),
        ("anchors list", "no command anchors"),
        ("anchor list --since 3", "no option --since"),
        ("verify FILE --commit", "no option --commit"),
    ],
)
def test_a_command_that_is_none_is_found(line: str, wrong: str) -> None:
    assert wrong_in(line) == wrong


def test_every_other_command_that_is_named_is_one() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    names = {
        "make": set(targets),
        "python -m benchmarks": {*benchmarks.FIGURES, *benchmarks.CONTESTS, "NAME", "peers", "all"},
        "python -m tests.network": {*SHARED, *OWN, "all"},
    }
    for where, text in documents().items():
        for command, known in names.items():
            found = re.findall(rf"(?:`|\$ ){command} ([a-z|-]+|NAME)", text)
            unknown = {name for line in found for name in line.split("|")} - known
            assert not unknown, f"{where}: {command} {unknown}"
            assert found or where != "README.md", f"the README shows no {command}"


def test_the_table_of_scenarios_lists_them_all() -> None:
    table = README.read_text().partition("| scenario |")[2].partition("\n\n")[0]
    table = table.partition("| --- | --- |")[2]
    listed = [
        name
        for row in re.findall(r"^\| ([a-z, -]+) \|", table, re.MULTILINE)
        for name in row.split(", ")
    ]
    assert listed == [*SHARED, *OWN]


# -- files, settings, names


def test_every_file_that_is_named_is_there() -> None:
    made_later = {"benchmarks/reports/", "clearing/submission/v1", "clearing/instruction/v1"}
    pattern = r"(?<![\w./~-])(?:clearing|node|tests|docker|benchmarks|proto|\.ci)/[\w./-]*[\w/]"
    for where, text in documents().items():
        found = set(re.findall(pattern, text)) - made_later
        missing = [
            path
            for path in found
            if not any((base / path).exists() for base in (ROOT, ROOT / "proto"))
        ]
        assert not missing, f"{where}: {missing}"


def test_every_name_of_the_code_is_there() -> None:
    known = words_of_the_code() | {status.name for status in grpc.StatusCode}
    for where, text in documents().items():
        written = set(re.findall(r"(?<![\w-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
        if where.endswith(".md"):
            written |= set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", text))
        assert not written - known, f"{where}: {sorted(written - known)}"
        for name in re.findall(r"(?<![\w/.])(?:clearing|node)(?:\.[a-z_]+){2,}\b", text):
            module, _, attribute = name.rpartition(".")
            if not (ROOT / f"{name.replace('.', '/')}.py").exists():
                assert hasattr(importlib.import_module(module), attribute), f"{where}: {name}"


def test_the_proto_files_pair_reasons_with_their_statuses() -> None:
    statuses = {one.value: refusal(one, "").status.name for one in Refusal}
    statuses |= {code.name: status.name for code, status in _REJECT_STATUS.items()}
    for condition in NodeCondition:
        statuses[condition.name] = of_refusal(NotServingError(condition, "")).status.name
    names = "|".join(status.name for status in grpc.StatusCode)
    pairs = []
    for path in PROTOS:
        text = re.sub(r"\n\s*// ?", " ", path.read_text())
        for status, reasons in re.findall(rf"\b({names})(?: with \w+)? \(([^)]*)\)", text):
            found = [
                reason
                for reason in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", reasons)
                if reason in statuses
            ]
            pairs += [(path.name, status, reason) for reason in found]
    assert len(pairs) > 10
    assert [pair for pair in pairs if statuses[pair[2]] != pair[1]] == []


def test_decisions_are_counted_and_those_referred_to_are_there() -> None:
    section = README.read_text().partition("## Decisions")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^([0-9]+)\. \*\*", section, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    for path in SOURCES:
        for listed in re.findall(r"README, decisions? ([0-9][0-9 and,]*)", path.read_text()):
            assert {int(number) for number in re.findall("[0-9]+", listed)} <= set(numbers), path
