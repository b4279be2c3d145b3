"""What an LMDB data file says of itself, read with plain file reads before LMDB maps it.

Lives here: the check that every page the file counts is really in it. May not live here: anything
while the environment is open (closing a second descriptor of the file would drop LMDB's own locks).

A mapped file that ends too early kills the process with SIGBUS at the first missing page; this
check gives it a name instead. Source: lib/lmdb/mdb.c of LMDB 0.9 (MDB_page, MDB_meta), data format
version 1.
"""

from __future__ import annotations

import struct
from pathlib import Path

from lmdb import verify as lmdb_verify

from node.store.errors import Finding, FindingKind, StoreDamagedError, StoreSchemaError

DATA_FILE = "data.mdb"

_MAGIC = 0xBEEFC0DE
_FORMAT_VERSION = 1
_META = struct.Struct("=16x II Q Q 48s 48s Q Q")
"""A meta page: header; magic, format; map address and size; free and main database; last page;
transaction."""
_PAGE_BYTES_MIN = 512


def check_length(directory: Path) -> None:
    """Check that the data file in `directory` holds every page its newest meta page counts.

    None is fine.

    Raises: StoreSchemaError: no LMDB file of data format 1. StoreDamagedError: the file is
    truncated.
    """
    path = directory / DATA_FILE
    if not path.exists():
        return
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_META.size)
        if not file_bytes:
            # A crash between creating the file and its first pages: LMDB starts it anew.
            return
        page_bytes, last_page, transaction = _meta(first, path)
        file.seek(page_bytes)
        second = file.read(_META.size)
    if len(second) == _META.size:
        _, other_last, other_transaction = _meta(second, path)
        if other_transaction > transaction:
            last_page = other_last
    if file_bytes < 2 * page_bytes or file_bytes < (last_page + 1) * page_bytes:
        expected = max(last_page + 1, 2) * page_bytes
        raise StoreDamagedError(
            [
                Finding(
                    FindingKind.DAMAGED,
                    DATA_FILE,
                    "",
                    f"the file is truncated: {file_bytes} bytes of {expected}",
                )
            ]
        )


def _meta(page: bytes, path: Path) -> tuple[int, int, int]:
    """Return (page size, last page, transaction) of a meta page."""
    if len(page) < _META.size:
        raise StoreDamagedError(
            [
                Finding(
                    FindingKind.DAMAGED, DATA_FILE, "", "the file is truncated within a meta page"
                )
            ]
        )
    magic, version, _, _, free, _, last_page, transaction = _META.unpack(page)
    page_bytes = int.from_bytes(free[:4], "little")
    if magic != _MAGIC or version != _FORMAT_VERSION or page_bytes < _PAGE_BYTES_MIN:
        raise StoreSchemaError(
            f"{path} is no LMDB file of data format {_FORMAT_VERSION}: give the directory of a "
            "store, or restore it"
        )
    return page_bytes, last_page, transaction


def structure_findings(directory: Path) -> list[Finding]:
    """Return what LMDB's own offline verifier finds wrong with the pages of the data file.

    It reads every page in plain Python and never hands the file to the C library, which a broken
    page could crash.
    Caller's duty: no environment is open on the directory in this process.
    """
    if not (directory / DATA_FILE).exists():
        return []
    try:
        # Upstream's verifier carries no types.
        problems: list[str] = lmdb_verify.verify(str(directory))  # type: ignore[no-untyped-call]
    except lmdb_verify.VerifyError as error:
        problems = [str(error)]
    return [Finding(FindingKind.DAMAGED, DATA_FILE, "", problem) for problem in problems]
