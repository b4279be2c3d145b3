"""The data file is looked at before LMDB maps it."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from node.store import StoreDamagedError, StoreSchemaError
from node.store.datafile import check_length, structure_findings
from tests.node.store.store_kit import fill

PAGE_BYTES = 4096


def test_no_file_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    check_length(tmp_path)
    assert structure_findings(tmp_path) == []
    (tmp_path / "data.mdb").write_bytes(b"")
    check_length(tmp_path)


def test_a_file_is_as_long_as_it_says_after_any_number_of_commits(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=1 << 24, lib_version=0)
    for number in range(60):
        with env.begin(write=True) as txn:
            txn.put(str(number % 7).encode(), bytes(number * 4000 % 60_001))
            if number % 3 == 0:
                txn.delete(str(number % 5).encode())
        check_length(tmp_path)
    env.close()
    assert structure_findings(tmp_path) == []


def test_every_cut_is_named(tmp_path: Path) -> None:
    fill(tmp_path).close()
    path = tmp_path / "data.mdb"
    good = path.read_bytes()
    for cut in range(1, len(good), 997):
        path.write_bytes(good[:cut])
        with pytest.raises(StoreDamagedError, match="truncated"):
            check_length(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"x" * 10_000, bytes(10_000), b"\xef\xbe\xad\xde" * 4096],
    ids=["text", "zero", "magic"],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(StoreSchemaError, match="no LMDB file"):
        check_length(tmp_path)
    assert structure_findings(tmp_path)[0].table == "data.mdb"


def test_the_other_data_format_of_lmdb_is_refused(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path), lib_version=1).close()
    with pytest.raises(StoreSchemaError, match="data format 1"):
        check_length(tmp_path)


def test_a_broken_page_is_a_finding(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        leaf = store.leaf(0)
    path = tmp_path / "data.mdb"
    broken = bytearray(path.read_bytes())
    at = broken.rfind(leaf) // PAGE_BYTES * PAGE_BYTES
    while at >= 0:
        broken[at : at + 16] = b"\xff" * 16
        at = broken.rfind(leaf, 0, at) // PAGE_BYTES * PAGE_BYTES
    path.write_bytes(broken)
    assert [finding.table for finding in structure_findings(tmp_path)][:1] == ["data.mdb"]
