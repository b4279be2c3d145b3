"""One directory, one LMDB environment, one process.

Lives here: everything that knows how LMDB must be treated: lock, settings, map growth, free space,
transactions. May not live here: what the records mean.

Invariants: two processes never open one directory; a commit returns after the device has the bytes
(sync and metasync on, never off); the map is replaced only while no transaction of this process is
active; a write that would eat into the reserve of free space is refused before anything is written.
Source: lmdb.h and mdb.c of LMDB 0.9.36; py-lmdb 3.0 documentation and its issues 269, 465, 471,
475.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import lmdb

from clearing.errors import DecodeError
from node.files import make_private_directory, sync_directory
from node.store import datafile, tables
from node.store.errors import (
    Finding,
    FindingKind,
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreSchemaError,
)
from node.store.tables import Database, Name

LOCK_FILE = "lock"
READER_CHECK_INTERVAL_S = 60
"""How often stale reader slots are looked for; a slot of a killed process pins pages for ever."""

_LMDB_FORMAT_0_9 = 0
_TRANSACTION_OVERHEAD_BYTES = 1 << 20
"""Room for the B-tree pages that one transaction copies, beyond the bytes of its records."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How a store is kept.

    map_bytes: address space to begin with; costs nothing on a 64-bit machine and grows by itself.
    free_bytes_min: a write that would leave less free space on the disk is refused (STORE_FULL).
    growth_wait_s: how long a write that needs a larger map waits for open views to end
    (STORE_BUSY).
    readers_max: read transactions at one time. readahead: on for sequential work over a store
    larger than memory.
    """

    map_bytes: int = 64 << 30
    free_bytes_min: int = 256 << 20
    growth_wait_s: int = 30
    readers_max: int = 1024
    readahead: bool = False


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """How full a store is.

    Bytes of data, of address space, and free on its disk; open read transactions; version of LMDB.
    """

    used_bytes: int
    map_bytes: int
    free_bytes: int
    readers: int
    lmdb_version: str


class _Gate:
    """Lets read transactions pass, and the growth of the map wait until there is none.

    A thread that is inside already may enter again while growth waits: else it would wait for
    itself.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closing = False
        self._by_thread: dict[int, int] = {}

    @property
    def inside(self) -> int:
        """How many read transactions are open."""
        return self._inside

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Count one read transaction for the time of the `with` block."""
        # Kept by hand and not in a threading.local: a view may end in another thread than it began.
        thread = threading.get_ident()
        with self._condition:
            while self._closing and thread not in self._by_thread:
                self._condition.wait()
            self._inside += 1
            self._by_thread[thread] = self._by_thread.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._by_thread[thread] -= 1
                if not self._by_thread[thread]:
                    del self._by_thread[thread]
                self._condition.notify_all()

    @contextlib.contextmanager
    def closed(self, wait_s: float) -> Iterator[bool]:
        """Keep new read transactions out for the time of the `with` block.

        Yields whether all others ended in time.
        """
        with self._condition:
            self._closing = True
            empty = self._condition.wait_for(lambda: not self._inside, timeout=wait_s)
        try:
            yield empty
        finally:
            with self._condition:
                self._closing = False
                self._condition.notify_all()


class Environment:
    """The LMDB environment of one directory; made by `open`, ended by `close`."""

    def __init__(
        self, directory: Path, settings: StoreSettings, lock_descriptor: int, env: lmdb.Environment
    ) -> None:
        """Take over an open environment and its process lock; use `open`."""
        self.directory = directory
        self.settings = settings
        self.databases: dict[Name, lmdb._Database] = {}
        self._lock_descriptor = lock_descriptor
        self._env = env
        self._gate = _Gate()
        self._writing = threading.Lock()
        self._reader_check_due_s = 0.0
        self._failed: str | None = None

    @classmethod
    def open(cls, directory: Path, settings: StoreSettings, *, create: bool) -> Self:
        """Lock `directory` and open its environment, making both when missing and `create` is set.

        Raises: StoreLockedError: it is open elsewhere. StoreSchemaError: no store, or of another
        version. StoreDamagedError: the data file is truncated. StoreFailedError: LMDB cannot open
        it.
        """
        if create:
            make_private_directory(directory)
        elif not (directory / datafile.DATA_FILE).exists():
            raise StoreSchemaError(f"{directory} holds no store: check the path")
        lock_descriptor = lock_directory(directory)
        try:
            datafile.check_length(directory)
            environment = cls(directory, settings, lock_descriptor, _open_lmdb(directory, settings))
        except BaseException:
            os.close(lock_descriptor)
            raise
        try:
            environment._open_databases()
            environment.check_readers()
            sync_directory(directory)
        except BaseException:
            environment.close()
            raise
        return environment

    def _open_databases(self) -> None:
        try:
            known = {bytes(name) for name in self._env.dbs()}
            if known:
                self.databases[Database.STORE] = self._env.open_db(
                    Database.STORE.encode(), create=False
                )
                self._check_schema()
            with self._env.begin(write=True) as txn:
                for name in tables.ALL:
                    self.databases[name] = self._env.open_db(name.encode(), txn=txn)
                if not known:
                    key, payload = tables.KEY_SCHEMA, tables.encode_schema()
                    value = tables.guarded(Database.STORE, key, payload)
                    txn.put(key, value, overwrite=False, db=self.databases[Database.STORE])
        except lmdb.NotFoundError as error:
            raise StoreSchemaError(
                f"{self.directory} holds another program's data: use a directory of its own"
            ) from error
        except lmdb.Error as error:
            raise StoreFailedError(f"cannot open the store in {self.directory}: {error}") from error

    def _check_schema(self) -> None:
        with self._env.begin() as txn:
            value = txn.get(tables.KEY_SCHEMA, db=self.databases[Database.STORE])
        if value is None:
            raise StoreSchemaError(
                f"{self.directory} has no schema version: restore it from a copy or a peer"
            )
        key = tables.KEY_SCHEMA
        try:
            version = tables.decode_schema(tables.unguarded(Database.STORE, key, value))
        except DecodeError as error:
            finding = Finding(FindingKind.ALTERED, Database.STORE, key.decode(), str(error))
            raise StoreDamagedError([finding]) from error
        if version != tables.SCHEMA_VERSION:
            raise StoreSchemaError(
                f"{self.directory} has schema version {version}, this program reads "
                f"{tables.SCHEMA_VERSION}: use the program that wrote it, or follow the log into a "
                "new directory"
            )

    def close(self) -> None:
        """End the environment and give up the lock.

        Waits for views to end, as long as growth would. A second call does nothing.
        """
        with self._writing, self._gate.closed(self.settings.growth_wait_s):
            self._env.close()
            if self._lock_descriptor >= 0:
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def _check_open(self) -> None:
        if self._lock_descriptor < 0:
            raise StoreClosedError(f"the store in {self.directory} is closed: the node is stopping")

    @contextlib.contextmanager
    def reading(self) -> Iterator[lmdb.Transaction[bytes]]:
        """Give a read transaction for the time of the `with` block.

        Raises: StoreClosedError. StoreBusyError: too many at once. StoreDamagedError: LMDB finds a
        page that makes no sense.
        """
        try:
            with self._gate.passing():
                self._check_open()
                with self._env.begin() as txn:
                    yield txn
        except lmdb.ReadersFullError as error:
            raise StoreBusyError(
                f"more than {self.settings.readers_max} reads at once: try again, or raise "
                "readers_max"
            ) from error
        except lmdb.Error as error:
            raise StoreDamagedError(
                [Finding(FindingKind.DAMAGED, datafile.DATA_FILE, "", f"a read failed: {error}")]
            ) from error

    def write(self, size_bytes: int, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Run `work` in one write transaction and return what it returned once that is durable.

        `size_bytes` is about how many bytes of records `work` writes. `work` may run twice: with a
        full map its transaction is undone, the map grown, and `work` run again. What it raises
        undoes the transaction.

        Raises: StoreClosedError, StoreFullError, StoreBusyError: nothing was written.
        StoreFailedError: LMDB or the disk failed; every later write is refused.
        """
        with self._writing:
            self._check_open()
            if self._failed is not None:
                raise StoreFailedError(
                    f"the store failed before ({self._failed}): restart the node"
                )
            needed_bytes = 2 * size_bytes + _TRANSACTION_OVERHEAD_BYTES
            self._check_free_space(needed_bytes)
            try:
                self._grow_early()
                try:
                    result = self._transact(work)
                except lmdb.MapFullError:
                    self._grow(needed_bytes, self.settings.growth_wait_s)
                    result = self._transact(work)
            except lmdb.Error as error:
                self._failed = str(error)
                raise StoreFailedError(
                    f"writing failed ({error}): stop the node, look at the disk, start it again"
                ) from error
            self._check_readers_now_and_then()
            return result

    def _transact(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        with self._env.begin(write=True) as txn:
            return work(txn)

    def _check_free_space(self, needed_bytes: int) -> None:
        free = self._free_bytes()
        reserve = self.settings.free_bytes_min
        if free - needed_bytes < reserve:
            raise StoreFullError(
                f"the disk of {self.directory} has {free} bytes free and {reserve} stay in "
                "reserve: nothing was written; free space or move the store to a larger disk"
            )

    def _free_bytes(self) -> int:
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize

    def _used_bytes(self) -> int:
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def _grow_early(self) -> None:
        """Grow a map that is three quarters full while nobody reads, lest a write must wait."""
        if 4 * self._used_bytes() < 3 * self._env.info()["map_size"]:
            return
        with contextlib.suppress(StoreBusyError):
            self._grow(0, 0)

    def _grow(self, needed_bytes: int, wait_s: float) -> None:
        with self._gate.closed(wait_s) as empty:
            if not empty:
                raise StoreBusyError(
                    f"the store must grow and {self._gate.inside} views stayed open for "
                    f"{wait_s} s: nothing was written; try again, and end long reads"
                )
            map_bytes = self._env.info()["map_size"]
            self._env.set_mapsize(2 * map_bytes + needed_bytes)

    def database_names(self) -> list[str]:
        """Return the names of all sub-databases in the data file, those not ours included."""
        with self.reading():
            return [bytes(name).decode(errors="backslashreplace") for name in self._env.dbs()]

    def check_readers(self) -> int:
        """Free the reader slots of processes that died; returns how many."""
        self._reader_check_due_s = time.monotonic() + READER_CHECK_INTERVAL_S
        return self._env.reader_check()

    def _check_readers_now_and_then(self) -> None:
        if time.monotonic() >= self._reader_check_due_s:
            self.check_readers()

    def usage(self) -> StoreUsage:
        """Return how full the store is.

        Raises: StoreClosedError.
        """
        readers = self._gate.inside
        # LMDB reads its meta page for this, which must not move just then.
        with self._gate.passing():
            self._check_open()
            return StoreUsage(
                used_bytes=self._used_bytes(),
                map_bytes=self._env.info()["map_size"],
                free_bytes=self._free_bytes(),
                readers=readers,
                lmdb_version=".".join(map(str, self._env.lib_version())),
            )

    def copy(self, directory: Path) -> None:
        """Write a compacted, consistent copy of the data file into `directory`, which is made.

        Writing goes on.

        Raises: StoreFailedError: the copy could not be written.
        """
        make_private_directory(directory)
        try:
            with self._gate.passing():
                self._check_open()
                self._env.copy(str(directory), compact=True)
        except lmdb.Error as error:
            raise StoreFailedError(f"cannot copy the store to {directory}: {error}") from error


def lock_directory(directory: Path) -> int:
    """Take the exclusive lock of a store's directory and return its descriptor.

    Closing it gives the lock up. The kernel drops the lock with the process, however it dies.
    Raises: StoreLockedError: somebody holds it. StoreFailedError: the lock's file cannot be opened.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailedError(
            f"cannot open {path}: {error.strerror}; check the directory and its rights"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
        os.close(descriptor)
        raise StoreLockedError(
            f"{directory} is open in process {holder or 'unknown'}: stop that one first, or use "
            "its own commands"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _open_lmdb(directory: Path, settings: StoreSettings) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(directory),
            map_size=settings.map_bytes,
            max_dbs=2 * len(tables.ALL),
            max_readers=settings.readers_max,
            max_spare_txns=8,
            sync=True,
            metasync=True,
            writemap=False,
            map_async=False,
            meminit=True,
            readahead=settings.readahead,
            lock=True,
            subdir=True,
            mode=0o600,
            lib_version=_LMDB_FORMAT_0_9,
        )
    except lmdb.Error as error:
        raise StoreFailedError(f"LMDB cannot open {directory}: {error}") from error
