"""One directory, one process, one map that grows, one disk that is never filled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from clearing.rows import Table
from node.store import (
    Store,
    StoreBusyError,
    StoreClosedError,
    StoreCode,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreSchemaError,
    StoreSettings,
    Tip,
    tables,
)
from node.store import environment as environment_module
from node.store.environment import LOCK_FILE
from node.store.startup import check_tail, open_checked
from node.store.tables import Database
from tests.ledger_kit import P01, P02, item
from tests.node.store.store_kit import SETTINGS, DiskNet, dump, fill, history

_OPEN_AND_TELL = """
import sys
from pathlib import Path
from node.store import Store, StoreError
try:
    Store.open(Path(sys.argv[1]))
except StoreError as error:
    print(error.code, error)
else:
    print("OPEN", flush=True)
    sys.stdin.read()
"""
SMALL_MAP = StoreSettings(map_bytes=1 << 20, free_bytes_min=0, growth_wait_s=1)
FILLER_BYTES = 300_000


def filler(number: int) -> bytes:
    """Bytes of which a handful do not fit a small map."""
    return bytes([number % 251]) * FILLER_BYTES


def write_until_refused(store: Store, kind: type[StoreError]) -> tuple[int, StoreError]:
    """Write large records until the store refuses; returns how many it took, and the refusal."""
    for number in range(100):
        try:
            store.add_cosignature(number, b"key1", "filler", filler(number))
        except kind as error:
            return number, error
    pytest.fail("100 large records found room")


def submit_until_refused(store: Store, kind: type[StoreError]) -> tuple[Tip, StoreError]:
    """Submit until the store refuses.

    Returns the last block that was acknowledged, and the refusal.
    """
    net = DiskNet(store=store)  # type: ignore[arg-type]  # a Net drives any store
    for _ in range(100):
        acknowledged = store.tip
        try:
            net.submit(P01, *[item(P01, P02, 1)] * 2000)
        except kind as error:
            assert acknowledged is not None
            return acknowledged, error
    pytest.fail("100 submissions found room")


# -- two processes


def test_a_second_process_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        told = subprocess.run(
            [sys.executable, "-c", _OPEN_AND_TELL, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert told.stdout.startswith("STORE_LOCKED")
        assert f"process {os.getpid()}" in told.stdout
        check_tail(store)


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    with fill(tmp_path):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", _OPEN_AND_TELL, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "OPEN\n"
        with pytest.raises(StoreLockedError, match=str(holder.pid)):
            Store.open(tmp_path, SETTINGS)
        holder.kill()
    with Store.open(tmp_path, SETTINGS) as store:
        check_tail(store)


def test_two_stores_of_one_process_are_refused_too(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        with pytest.raises(StoreLockedError) as refused:
            Store.open(tmp_path, SETTINGS)
        assert refused.value.code is StoreCode.STORE_LOCKED
        assert not refused.value.fatal
        check_tail(store)


def test_a_lock_of_an_unknown_holder_is_named_as_that(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(StoreLockedError, match="process unknown"):
            Store.open(tmp_path, SETTINGS)
    finally:
        os.close(descriptor)


def test_closing_twice_is_fine_and_frees_the_directory(tmp_path: Path) -> None:
    store = fill(tmp_path)
    store.close()
    store.close()
    Store.open(tmp_path, SETTINGS).close()


def test_a_closed_store_says_so_and_neither_damaged_nor_failed(tmp_path: Path) -> None:
    store = fill(tmp_path)
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.leaf(0),
        lambda: store.commit(*history()),
        store.usage,
        lambda: store.backup(tmp_path / "copy"),
        store.database_names,
    ]
    for use in uses:
        with pytest.raises(StoreClosedError, match="is closed"):
            use()


def test_closing_waits_for_a_view_to_end(tmp_path: Path) -> None:
    store = fill(tmp_path)
    opened, seen = threading.Event(), []

    def read() -> None:
        with store.snapshot() as view:
            opened.set()
            time.sleep(0.3)
            seen.append(view.leaf(0))

    thread = threading.Thread(target=read)
    thread.start()
    opened.wait()
    store.close()
    assert seen == [history()[0].entries[0].leaf]
    thread.join()


def test_a_view_may_end_in_another_thread_than_it_began(tmp_path: Path) -> None:
    with Store.open(tmp_path, SMALL_MAP) as store:
        views = contextlib.ExitStack()
        views.enter_context(store.snapshot())
        thread = threading.Thread(target=views.close)
        thread.start()
        thread.join()
        assert store.usage().readers == 0
        for number in range(10):
            store.add_cosignature(number, b"key1", "filler", filler(number))


def test_a_directory_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(StoreFailedError, match="cannot open"):
        Store.open(tmp_path, SETTINGS)


# -- what is no store of ours


def test_no_directory_an_empty_one_and_another_file_are_no_stores(tmp_path: Path) -> None:
    for directory in (tmp_path / "missing", tmp_path):
        with pytest.raises(StoreSchemaError, match="holds no store"):
            Store.open(directory, SETTINGS, create=False)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "data.mdb").write_bytes(b"anything else" * 1000)
    with pytest.raises(StoreSchemaError, match="no LMDB file"):
        Store.open(tmp_path, SETTINGS)


def test_another_programs_environment_is_refused_and_left_alone(tmp_path: Path) -> None:
    with (
        lmdb.open(str(tmp_path), max_dbs=4, lib_version=0) as env,
        env.begin(write=True) as txn,
    ):
        txn.put(b"k", b"v", db=env.open_db(b"theirs", txn=txn))
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(StoreSchemaError, match="another program"):
        Store.open(tmp_path, SETTINGS)
    assert (tmp_path / "data.mdb").read_bytes() == before


def rewrite_schema(directory: Path, value: bytes | None) -> None:
    with Store.open(directory, SETTINGS) as store:
        environment = store._environment
        with environment._env.begin(write=True, db=environment.databases[Database.STORE]) as txn:
            if value is None:
                txn.delete(tables.KEY_SCHEMA)
            else:
                txn.put(tables.KEY_SCHEMA, value)


def test_another_schema_version_is_named(tmp_path: Path) -> None:
    fill(tmp_path).close()
    value = tables.guarded(Database.STORE, tables.KEY_SCHEMA, (99).to_bytes(4, "little"))
    rewrite_schema(tmp_path, value)
    with pytest.raises(StoreSchemaError, match=r"version 99, this program reads 1"):
        Store.open(tmp_path, SETTINGS)


@pytest.mark.parametrize("value", [None, b"", b"broken", bytes(12)])
def test_a_broken_schema_record_is_named(tmp_path: Path, value: bytes | None) -> None:
    fill(tmp_path).close()
    rewrite_schema(tmp_path, value)
    with pytest.raises((StoreSchemaError, StoreDamagedError), match="schema"):
        Store.open(tmp_path, SETTINGS)


def test_the_data_format_is_that_of_lmdb_0_9(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        assert store.usage().lmdb_version.startswith("0.9.")
        assert store._environment._env.flags()["sync"]
        assert store._environment._env.flags()["metasync"]
    assert (tmp_path / "data.mdb").stat().st_mode & 0o777 == 0o600


# -- the map grows


def test_the_map_grows_as_blocks_come_while_readers_go_on(tmp_path: Path) -> None:
    reads, failures, done = [0], [], threading.Event()

    def read() -> None:
        while not done.wait(0.002):
            with store.snapshot() as view:
                tip = view.tip
                if tip is None or view.root(tip.log_size) != tip.log_root:
                    failures.append(str(tip))
            reads[0] += 1

    with Store.open(tmp_path, SMALL_MAP) as store:
        net = DiskNet(store=store)  # type: ignore[arg-type]  # a Net drives any store
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            net.submit(P01, *[item(P01, P02, 1)] * 2000)
        done.set()
        for thread in threads:
            thread.join()
        usage = store.usage()
        assert usage.used_bytes > SMALL_MAP.map_bytes
        assert usage.map_bytes >= 2 * SMALL_MAP.map_bytes
        assert usage.readers == 0
        check_tail(store)
    assert reads[0] > 0
    assert not failures


def test_a_view_that_stays_open_makes_the_write_wait_then_refuse_and_lose_nothing(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path, SMALL_MAP) as store:
        store.commit(*history())
        with store.snapshot() as view:
            before = dump(view)
            written, refused = write_until_refused(store, StoreBusyError)
            assert "nothing was written" in str(refused)
            assert not refused.fatal
            assert dump(view) == before
            # Whoever reads already may go on reading while growth waits for it.
            assert store.tip == view.tip
        store.add_cosignature(99, b"key1", "filler", filler(9))
        with store.snapshot() as view:
            kept = [key[:8] for key, _ in view.items(Database.COSIGNATURES)]
            assert kept == [tables.u64(number) for number in (*range(written), 99)]
            assert view.cosignatures(99) == [filler(9)]


def test_a_write_waits_for_a_view_that_ends(tmp_path: Path) -> None:
    settings = StoreSettings(map_bytes=1 << 20, free_bytes_min=0, growth_wait_s=60)
    with Store.open(tmp_path, settings) as store:
        opened = threading.Event()

        def hold() -> None:
            with store.snapshot():
                opened.set()
                time.sleep(0.5)

        thread = threading.Thread(target=hold)
        thread.start()
        opened.wait()
        for number in range(6):
            store.add_cosignature(number, b"key1", "filler", filler(number))
        thread.join()
        assert store.usage().map_bytes > settings.map_bytes


def test_new_views_wait_while_the_map_is_replaced_and_nested_ones_do_not(tmp_path: Path) -> None:
    with Store.open(tmp_path, SETTINGS) as store:
        gate = store._environment._gate
        order: list[str] = []

        def read() -> None:
            with store.snapshot():
                order.append("read")

        with gate.closed(wait_s=0) as empty:
            assert empty
            thread = threading.Thread(target=read)
            thread.start()
            time.sleep(0.2)
            order.append("replaced")
        thread.join()
        assert order == ["replaced", "read"]
        with store.snapshot(), gate.closed(wait_s=0) as empty:
            assert not empty
            assert store.get(Table.META, b"head") is None


# -- the disk


def test_a_write_that_would_eat_into_the_reserve_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    results = history()
    fill(tmp_path, results[:5]).close()
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with Store.open(tmp_path, StoreSettings(free_bytes_min=2 * free)) as store:
        with pytest.raises(StoreFullError, match="nothing was written") as refused:
            store.commit(results[5])
        assert refused.value.code is StoreCode.STORE_FULL
        assert not refused.value.fatal
        assert store.leaf(0) == results[0].entries[0].leaf
        assert store.tip is not None
        assert store.tip.height == results[4].height
    with Store.open(tmp_path, SETTINGS) as store:
        store.commit(*results[5:])
        check_tail(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount_point],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode and os.environ.get("CI") == "true":
        pytest.fail(f"a small tmpfs needs the right to mount: {mounted.stderr}")
    if mounted.returncode:
        pytest.skip(f"a small tmpfs needs the right to mount: {mounted.stderr}")
    yield mount_point
    subprocess.run(["umount", mount_point], check=True)


def test_a_small_disk_is_refused_by_name_while_it_still_has_room(small_disk: Path) -> None:
    settings = StoreSettings(map_bytes=1 << 30, free_bytes_min=1 << 20)
    with open_checked(small_disk / "s", settings) as store:
        acknowledged, _ = submit_until_refused(store, StoreFullError)
        assert os.statvfs(small_disk).f_bavail * 4096 >= 1 << 20
        assert store.tip == acknowledged
    with open_checked(small_disk / "s", settings) as store:
        assert store.tip == acknowledged


def test_a_disk_that_is_full_all_the_same_stops_the_writer_and_loses_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes the space between the look at the disk and the write."""
    with open_checked(small_disk / "s", SETTINGS) as store:
        monkeypatch.setattr(environment_module.Environment, "_check_free_space", lambda *_: None)
        acknowledged, failed = submit_until_refused(store, StoreFailedError)
        assert "stop the node" in str(failed)
        assert failed.fatal
        # No second attempt, whatever the disk says later: the node stops and looks at its store
        # anew.
        with pytest.raises(StoreFailedError, match="restart the node"):
            store.add_checkpoint(1, b"note")
        assert store.tip == acknowledged
        assert store.leaf(acknowledged.log_size - 1)
    with open_checked(small_disk / "s", SETTINGS) as store:
        assert store.tip == acknowledged


def test_an_error_of_the_disk_in_a_commit_is_fatal(tmp_path: Path) -> None:
    """A limit on the file's size makes the write itself fail: EFBIG, as EIO would."""
    with fill(tmp_path) as store:
        acknowledged = store.tip
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / "data.mdb").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(StoreFailedError, match="writing failed"):
                store.add_cosignature(1, b"key1", "filler", filler(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        with pytest.raises(StoreFailedError, match="failed before"):
            store.add_cosignature(1, b"key1", "filler", b"small")
    with open_checked(tmp_path, SETTINGS) as store:
        assert store.tip == acknowledged


# -- readers


def test_more_reads_than_slots_are_refused_by_name(tmp_path: Path) -> None:
    settings = StoreSettings(free_bytes_min=0, readers_max=2)
    with Store.open(tmp_path, settings) as store:
        with store.snapshot(), store.snapshot(), pytest.raises(StoreBusyError, match="readers_max"):
            store.leaf(0)
        with store.snapshot() as view:
            assert view.tip is None


def test_slots_of_dead_readers_are_looked_for_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [time.monotonic()]
    monkeypatch.setattr(environment_module.time, "monotonic", lambda: now_s[0])
    with Store.open(tmp_path, SETTINGS) as store:
        looked: list[int] = []
        check = store._environment.check_readers
        monkeypatch.setattr(store._environment, "check_readers", lambda: looked.append(check()))
        for size in range(5):
            store.add_cosignature(size, b"key1", "w", b"line")
        assert not looked
        now_s[0] += environment_module.READER_CHECK_INTERVAL_S
        for size in range(5):
            store.add_cosignature(size, b"key1", "w", b"line")
        assert looked == [0]
