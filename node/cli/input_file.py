"""Files that a user names and that a command holds in memory as a whole: read within bounds, pipes and devices too.

Lives here: how much is read, and when reading stops. May not live here: what is in the file.

Invariant: what has no end, such as /dev/zero or a program that never stops writing, is refused with memory bounded.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from node.cli.errors import WrongUseError

LINE_BYTES_MAX = 1 << 20
"""Greatest line of a table: each of its fields has at most 4,096 characters; what is longer is no table."""

_PIECE_BYTES = 1 << 20
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def memory_share_bytes() -> int:
    """Return half of the memory there is, the machine's or the container's: what is in a larger file would not fit beside it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *group_limits_bytes(_OWN_GROUPS, _GROUPS)]) // 2


def group_limits_bytes(own: Path, groups: Path) -> list[int]:
    """Return the limits on memory of the control groups of a process and of all groups around them.

    own: the process's list of them (/proc/PID/cgroup); groups: where they are mounted. What sets no limit is left out, and what
    is not there: a container may see its own group as the top, or by the path that it has outside.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (memory.max) and cgroup-v1/memory.rst (memory.limit_in_bytes).
    """
    limits = []
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for one in (group, *group.parents):
            text = _text(top / one / name).strip()
            if text.isdecimal():
                limits.append(int(text))
    return limits


def _text(path: Path) -> str:
    """Return the text of a file of the system, "" where it cannot be read."""
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return ""


def read_whole(
    path: Path, bytes_max: int | None = None, line_bytes_max: int | None = None
) -> bytes:
    """Return the bytes of a file, a pipe or a device that ends.

    bytes_max: greatest size, half of the memory there is if left out; line_bytes_max: greatest line, in bytes.
    Raises: WrongUseError: FILE_TOO_LARGE, LINE_TOO_LONG; OSError: it cannot be read.
    """
    limit = memory_share_bytes() if bytes_max is None else bytes_max
    with path.open("rb") as opened:
        status = os.fstat(opened.fileno())
        if status.st_size > limit:
            raise _too_large(path, limit)
        if stat.S_ISREG(status.st_mode):
            # It ends, and is read at once, which is fastest.
            data = opened.read()
            if line_bytes_max is not None:
                _check_lines(path, data, line_bytes_max)
            return data
        return _read_stream(path, opened, limit, line_bytes_max)


def _read_stream(path: Path, stream: BinaryIO, limit: int, line_bytes_max: int | None) -> bytes:
    data, line = io.BytesIO(), b""
    while piece := stream.read(_PIECE_BYTES):
        if data.tell() + len(piece) > limit:
            raise _too_large(path, limit)
        data.write(piece)
        if line_bytes_max is not None:
            line += piece
            line = line[_check_lines(path, line, line_bytes_max) :]
    # Not a copy: what was written so far.
    return data.getvalue()


def _check_lines(path: Path, data: bytes, bytes_max: int) -> int:
    """Check the length of lines. Returns: the start of a line from which less than one greatest line is left."""
    start = 0
    while len(data) - start > bytes_max:
        # In long steps: where the last line ends that ends within reach.
        reach = (start, start + bytes_max + 1)
        end = data.rfind(b"\n", *reach)
        # A file may end its lines so; looked for last, since it takes a pass over all that is in reach.
        end = end if end >= 0 else data.rfind(b"\r", *reach)
        if end < 0:
            raise WrongUseError(
                "LINE_TOO_LONG",
                f"{path} has a line of more than {bytes_max:,} bytes",
                "Give a CSV file, with one row a line.",
            )
        start = end + 1
    return start


def _too_large(path: Path, limit: int) -> WrongUseError:
    return WrongUseError(
        "FILE_TOO_LARGE",
        f"{path} is larger than {limit:,} bytes, and it is held in memory as a whole",
        "Split it, or look whether it ever ends.",
    )
