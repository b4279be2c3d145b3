"""Small files that matter: created whole or not at all, private ones checked first.

Lives here: reading and writing of keys, certificates and settings. May not live here: what is in
them, and the database (store.py).

Invariants: a file appears under its name only when its bytes are on disk; `create_file` never
replaces one; a private file is refused by name when anybody but its owner may read or write it.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from node.errors import SetupError

PRIVATE_MODE = 0o600
"""Mode of a key's file: its owner alone reads and writes it."""

PUBLIC_MODE = 0o644
"""Mode of a certificate's or setting's file."""

PRIVATE_DIR_MODE = 0o700
"""Mode of a directory that holds keys or records."""

SMALL_FILE_BYTES_MAX = 1 << 20
"""Greatest file read here; a key, certificate, policy or setting is far below it."""


def sync_directory(path: Path) -> None:
    """Flush the directory `path` itself, so that names made in it survive a power cut.

    Raises: OSError: the directory cannot be opened or flushed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: Path) -> None:
    """Make the directory `path` when missing, mode 0700; an old one is left as it is.

    Raises: SetupError: it cannot be made.
    """
    try:
        path.mkdir(mode=PRIVATE_DIR_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot make the directory {path}: {error.strerror}; check the path and its rights"
        ) from error


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    """Return a new file beside `path` that holds `data`, flushed to disk."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            # After the bytes, and whatever the umask is: the mode asked for, exactly.
            os.fchmod(file.fileno(), mode)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Create `path` with `data` and `mode`, whole or not at all; an existing file is never touched.

    The bytes are on disk when this returns. A crash in between may leave a hidden `.NAME.*.new`
    beside it, same mode.
    Raises: SetupError: the file exists, or cannot be written.
    """
    try:
        beside = _write_beside(path, data, mode)
        try:
            # A link fails where the name is taken; a rename would replace the file.
            path.hardlink_to(beside)
        finally:
            beside.unlink()
        sync_directory(path.parent)
    except FileExistsError as error:
        raise SetupError(
            f"{path} exists and is not overwritten: move it away or choose another name"
        ) from error
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}; check the directory and its rights"
        ) from error


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put a new file in the place of `path`; a reader sees the old or the new, whole.

    Raises: SetupError: it cannot be written; the old file is then untouched.
    """
    try:
        beside = _write_beside(path, data, mode)
        try:
            beside.replace(path)
        except OSError:
            beside.unlink()
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}; check the directory and its rights"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open what takes the place of `path` when the block ends well, and goes away when it does not.

    For what a user asked to have written: a full disk or ^C leaves the file that was there. Rights are as the umask
    says. A pipe or device, such as /dev/stdout, is written as it is: in its place nothing else may come.
    Raises: OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    # A link keeps pointing where it points.
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with beside.open("xb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_output(path: Path, data: bytes) -> None:
    """Write `data` as `replacing` does.

    Raises: OSError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(data)


def _check_private(path: Path, status: os.stat_result) -> None:
    # Group or world rights on a key mean that it may be known already.
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise SetupError(
            f"{path} has mode {mode:04o}, so others than its owner reach it: if nobody read it, run chmod 600 {path}; "
            "else replace the key"
        )
    # Another user's file can be changed by that user at any time.
    if status.st_uid not in (0, os.geteuid()):
        raise SetupError(
            f"{path} belongs to user {status.st_uid}: run chown {os.geteuid()} {path}, or run as that user"
        )


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # Without O_NONBLOCK the open of a FIFO would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            # The status is of the opened file: the name may point elsewhere a moment later.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SetupError(f"{path} is not a file: give the path of the file itself")
            if private:
                _check_private(path, status)
            data = file.read(SMALL_FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise SetupError(
            f"{path} does not exist: check the path, or make the file first"
        ) from error
    except OSError as error:
        raise SetupError(
            f"cannot read {path}: {error.strerror}; check the path and its rights"
        ) from error
    return _small(path, data)


def _small(path: Path, data: bytes) -> bytes:
    if len(data) > SMALL_FILE_BYTES_MAX:
        raise SetupError(
            f"{path} is larger than {SMALL_FILE_BYTES_MAX} bytes: it is not the file meant here"
        )
    return data


def read_private(path: Path) -> bytes:
    """Return the bytes of a file that only its owner may read or write, owned by this user or root.

    Raises: SetupError: missing, unreadable, no file, too large, mode other than 0600 or stricter,
    or another's.
    """
    return _read(path, private=True)


def read_private_text(path: Path) -> str:
    """Return the text of a UTF-8 file that `read_private` reads.

    Raises: SetupError: as there, or it is not UTF-8; the text shows nothing of it.
    """
    return _text(path, read_private(path))


def read_public(path: Path) -> bytes:
    """Return the bytes of a file of at most SMALL_FILE_BYTES_MAX bytes.

    Raises: SetupError: missing, unreadable, no file, or too large.
    """
    return _read(path, private=False)


def read_given(path: Path) -> bytes:
    """Return the bytes of a small file or pipe that a user names on the command line.

    Raises: SetupError: more than SMALL_FILE_BYTES_MAX bytes, such as of /dev/zero; OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _small(path, file.read(SMALL_FILE_BYTES_MAX + 1))


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file of at most SMALL_FILE_BYTES_MAX bytes.

    Raises: SetupError: missing, unreadable, no file, too large, or not UTF-8.
    """
    return _text(path, read_public(path))


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SetupError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from error
