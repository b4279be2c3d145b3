"""Generates node/pb/v1 and node/pb/abci from proto/: messages, services and their type stubs.

Lives here: the one command line of protoc, `python -m node.pb_generate` (or `make proto`). May not live here: any
edit of what protoc writes: the output is committed as it comes, and tests/node/test_pb_generate.py compares.
Needs the development requirements (grpcio-tools, mypy-protobuf); nodes run without them.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "proto"
PACKAGE = Path("node/pb/v1")
"""The ledger's own wire."""

ABCI_PACKAGE = Path("node/pb/abci")
"""The consensus engine's; it has messages only, no service."""

PACKAGES = (PACKAGE, ABCI_PACKAGE)


class GenerationError(Exception):
    """protoc refused the files; it has printed why."""


def generate(out: Path) -> list[Path]:
    """Write the generated package below `out`, which exists, and return the files written, sorted.

    Raises: GenerationError: protoc failed.
    """
    includes = resources.files("grpc_tools") / "_proto"
    scripts = Path(sys.executable).parent  # the plugins of this environment, whatever PATH says
    plugin = f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}"
    common = [f"--proto_path={PROTO_ROOT}", f"--proto_path={includes}", plugin]
    messages = [f"--python_out={out}", f"--mypy_out={out}"]
    services = [
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={out}",
        f"--mypy_grpc_out={out}",
    ]
    _protoc([*common, *messages, *services], PACKAGE)
    _protoc([*common, *messages], ABCI_PACKAGE)
    return sorted(path for package in PACKAGES for path in (out / package).glob("*_pb2*"))


def _protoc(arguments: list[str], package: Path) -> None:
    # A development requirement, without type stubs; importing this module needs none.
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415

    protos = sorted((PROTO_ROOT / package).glob("*.proto"))
    status = protoc.main(
        ["protoc", *arguments, *(str(path.relative_to(PROTO_ROOT)) for path in protos)]
    )
    if status != 0:
        raise GenerationError(f"protoc ended with status {status}")


def main() -> int:
    """Regenerate in place. Returns the exit status."""
    try:
        files = generate(ROOT)
    except GenerationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    for path in files:
        print(path.relative_to(ROOT))  # noqa: T201 - a command's own output
    return 0


if __name__ == "__main__":
    sys.exit(main())
