"""Files are created whole or not at all, never replaced by accident, and private ones are checked."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from node.errors import SetupError
from node.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    SMALL_FILE_BYTES_MAX,
    create_file,
    make_private_directory,
    read_given,
    read_private,
    read_private_text,
    read_public,
    read_text,
    replace_file,
    replacing,
    write_output,
)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_created_file_has_its_bytes_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        create_file(tmp_path / "private", b"one", PRIVATE_MODE)
        create_file(tmp_path / "public", b"two", PUBLIC_MODE)
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "private") == 0o600
    assert mode_of(tmp_path / "public") == 0o644
    assert read_private(tmp_path / "private") == b"one"
    assert read_public(tmp_path / "public") == b"two"
    assert names_in(tmp_path) == ["private", "public"]


def test_existing_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_file(path, b"first", PRIVATE_MODE)
    with pytest.raises(SetupError, match="exists and is not overwritten"):
        create_file(path, b"second", PRIVATE_MODE)
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["key"]


def test_a_dangling_link_is_not_followed_by_creation(tmp_path: Path) -> None:
    link = tmp_path / "key"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="exists"):
        create_file(link, b"secret", PRIVATE_MODE)
    assert not (tmp_path / "elsewhere").exists()


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    path, outcomes = tmp_path / "key", []

    def create(number: int) -> None:
        try:
            create_file(path, b"%d" % number * 1000, PRIVATE_MODE)
            outcomes.append(number)
        except SetupError:
            outcomes.append(None)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number in outcomes if number is not None]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert path.read_bytes() == b"%d" % winners[0] * 1000
    assert names_in(tmp_path) == ["key"]


def test_replaced_file_is_new_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "config"
    replace_file(path, b"one", PUBLIC_MODE)
    replace_file(path, b"two", PRIVATE_MODE)
    assert path.read_bytes() == b"two"
    assert mode_of(path) == 0o600
    assert names_in(tmp_path) == ["config"]


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(SetupError, match="cannot write"):
        replace_file(tmp_path / "config", b"one", PUBLIC_MODE)
    assert names_in(tmp_path) == ["config"]


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_missing_directory_is_named(
    tmp_path: Path, write: Callable[[Path, bytes, int], None]
) -> None:
    with pytest.raises(SetupError, match="nowhere/key"):
        write(tmp_path / "nowhere" / "key", b"", PRIVATE_MODE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_private_file_that_others_reach_is_refused_by_name(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.key"
    create_file(path, b"secret bytes", PRIVATE_MODE)
    path.chmod(mode)
    with pytest.raises(SetupError, match=rf"signing.key has mode 0{mode:o}.*chmod 600") as caught:
        read_private(path)
    assert "secret bytes" not in str(caught.value)
    assert read_public(path) == b"secret bytes"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_private_file_of_the_owner_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.key"
    create_file(path, b"x", mode)
    assert read_private(path) == b"x"


def test_private_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root could give a file away, so the status that the kernel would then report is put in its place."""
    path = tmp_path / "signing.key"
    create_file(path, b"x", PRIVATE_MODE)
    fields = list(path.stat())
    fields[stat.ST_UID] = os.geteuid() + 12345
    monkeypatch.setattr(os, "fstat", lambda _descriptor: os.stat_result(fields))
    with pytest.raises(SetupError, match=f"belongs to user {os.geteuid() + 12345}"):
        read_private(path)


def test_link_to_a_private_file_is_judged_by_the_file(tmp_path: Path) -> None:
    """Containers mount secrets behind links."""
    create_file(tmp_path / "key", b"x", PRIVATE_MODE)
    (tmp_path / "link").symlink_to("key")
    assert read_private(tmp_path / "link") == b"x"
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(SetupError, match="mode 0644"):
        read_private(tmp_path / "link")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SetupError, match=r"is not a file|cannot read"):
            read_public(path)
    with pytest.raises(SetupError, match="does not exist"):
        read_public(tmp_path / "nothing")


def test_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(SMALL_FILE_BYTES_MAX))
    assert len(read_public(path)) == SMALL_FILE_BYTES_MAX
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(SetupError, match="larger than"):
        read_public(path)


def test_text_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("Zürich".encode())
    assert read_text(path) == "Zürich"
    path.write_bytes(b"ab\xff")
    with pytest.raises(SetupError, match="not UTF-8 at byte 2"):
        read_text(path)


def test_private_directory_is_made_with_its_parents_and_kept(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "a" / "b")
    assert mode_of(tmp_path / "a" / "b") == 0o700
    make_private_directory(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot make"):
        make_private_directory(tmp_path / "file" / "c")


def test_output_takes_the_place_of_a_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "receipt"
    path.write_bytes(b"old")

    def half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        half()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["receipt"]
    write_output(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["receipt"]


def test_output_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_output(tmp_path / "receipt", b"opens an obligation")
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "receipt") == 0o600


def test_output_into_a_pipe_leaves_the_pipe_in_place(tmp_path: Path) -> None:
    # As --out /dev/stdout, /dev/null or >(program): a file in their place would take them from everybody.
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(path, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert names_in(tmp_path) == ["pipe"]


def test_output_through_a_link_goes_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_private_text_must_be_utf8_and_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "wif"
    path.write_bytes(b"secret\xff")
    path.chmod(PRIVATE_MODE)
    with pytest.raises(SetupError, match="not UTF-8") as caught:
        read_private_text(path)
    assert "secret" not in str(caught.value)


def test_what_a_user_names_may_be_a_pipe_and_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"policy",))
    writer.start()
    assert read_given(path) == b"policy"
    writer.join()
    with pytest.raises(SetupError, match="larger"):
        read_given(Path("/dev/zero"))
