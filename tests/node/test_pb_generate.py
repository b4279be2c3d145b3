"""The committed code is what protoc makes of the committed files, and the files say what they promise."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from node import pb_generate
from node.pb_generate import PACKAGE, PACKAGES, PROTO_ROOT, ROOT, GenerationError, generate

BUF_FOUND = 100
"""Exit code of a `buf lint` that finds something."""
BUF_MISSING = (
    "buf is missing: npm install @bufbuild/buf and set CLEARING_BUF to node_modules/.bin/buf"
)
MESSAGE, MEMBER, SERVICE, METHOD, ENUM, VALUE = 4, 2, 6, 2, 5, 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[descriptor_pb2.FileDescriptorProto]:
    out = tmp_path_factory.mktemp("descriptors") / "set"
    protos = [str(path.relative_to(PROTO_ROOT)) for path in (PROTO_ROOT / PACKAGE).glob("*.proto")]
    includes = resources.files("grpc_tools") / "_proto"
    arguments = [f"--proto_path={PROTO_ROOT}", f"--proto_path={includes}", "--include_source_info"]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={out}", *protos]) == 0
    return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(part.path): part.leading_comments for part in file.source_code_info.location}


def test_generated_code_is_committed_as_it_comes(tmp_path: Path) -> None:
    written = generate(tmp_path)
    committed = sorted(path for package in PACKAGES for path in (ROOT / package).glob("*_pb2*"))
    assert [path.name for path in written] == [path.name for path in committed]
    for path, kept in zip(written, committed, strict=True):
        assert path.read_bytes() == kept.read_bytes(), f"{kept.name}: run `make proto`"


def test_a_broken_proto_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / "broken.proto").write_text("message {")
    monkeypatch.setattr(pb_generate, "PROTO_ROOT", tmp_path)
    with pytest.raises(GenerationError):
        generate(tmp_path)


@pytest.fixture(scope="module")
def buf() -> str:
    """The linter that CLEARING_BUF names, or that of the PATH."""
    program = os.environ.get("CLEARING_BUF") or shutil.which("buf")
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(BUF_MISSING)
    if program is None:
        pytest.skip(BUF_MISSING)
    return program


def lint(buf: str, directory: Path) -> str:
    """Return what `buf lint` finds in a directory of proto files, nothing where it finds nothing."""
    done = subprocess.run(
        [buf, "lint"], cwd=directory, capture_output=True, timeout=120, check=False, text=True
    )
    assert done.returncode in {0, BUF_FOUND}, done.stderr
    assert bool(done.returncode) == bool(done.stdout)
    return done.stdout


def test_buf_finds_nothing(buf: str) -> None:
    assert lint(buf, PROTO_ROOT) == ""


def test_buf_finds_what_is_wrong(buf: str, tmp_path: Path) -> None:
    shutil.copytree(PROTO_ROOT, tmp_path / "proto")
    audit = tmp_path / "proto" / PACKAGE / "audit.proto"
    audit.write_text(audit.read_text() + "\nmessage bare_name { string CamelField = 1; }\n")
    found = lint(buf, tmp_path / "proto")
    for part in ("bare_name", "CamelField", "non-empty comment"):
        assert part in found, part


def test_every_element_has_a_comment(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    bare = []
    for file in files:
        said = comments(file)
        for path, name in elements(file):
            if not said.get(path, "").strip():
                bare.append(f"{file.name}: {name}")
    assert not bare


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    groups = ((MESSAGE, file.message_type), (ENUM, file.enum_type), (SERVICE, file.service))
    for number, rows in groups:
        for at, row in enumerate(rows):
            yield (number, at), row.name
            members = {MESSAGE: "field", ENUM: "value", SERVICE: "method"}[number]
            for place, member in enumerate(getattr(row, members)):
                yield (number, at, MEMBER, place), f"{row.name}.{member.name}"


def test_every_field_of_an_answer_says_whether_replicas_agree(
    files: list[descriptor_pb2.FileDescriptorProto],
) -> None:
    messages = {
        f".{file.package}.{message.name}": (message, at, comments(file))
        for file in files
        for at, message in enumerate(file.message_type)
    }
    pending = [method.output_type for file in files for service in file.service for method in service.method]  # fmt: skip
    seen: set[str] = set()
    silent = []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        message, at, said = messages[name]
        for place, field in enumerate(message.field):
            if field.type == field.TYPE_MESSAGE:
                pending.append(field.type_name)
                continue
            text = said[MESSAGE, at, MEMBER, place]
            # The body of an entry is what the follower may see; that is said at the message.
            if (
                not ("Agreed" in text or "agreed" in text or "Local" in text)
                and field.name != "body"
            ):
                silent.append(f"{name}.{field.name}")
    assert not silent
    assert len(seen) > 30
