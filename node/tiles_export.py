"""The log written as static files that other people's tools can audit (C2SP tlog-tiles).

Lives here: which files go where, in which order, durable before the checkpoint that promises them.
May not live here: the bytes of tiles (clearing/log/tiles.py), where leaves come from: a View of the
store, or anything like it.

    DIR/checkpoint                  the signed note, replaced last
    DIR/tile/..., DIR/tile/entries/...    immutable
    DIR/NAME.vkey                   the log's public key; NAME is the last part of its name

Invariant: whatever DIR/checkpoint promises is complete on disk beside it, also after a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clearing.errors import ClearingError, VerificationError
from clearing.log import tiles
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import VerifierKey
from clearing.log.merkle import CompactRange, NodeReader
from clearing.log.note import Note
from clearing.log.tiles import CHECKPOINT_PATH, EntryReader
from node.errors import SetupError
from node.files import PUBLIC_MODE, read_public, replace_file, sync_directory


@dataclass(frozen=True, slots=True)
class TilesExport:
    """What an export did: leaves covered before and now, files written, where the public key is."""

    size_before: int
    size: int
    files_written: int
    vkey_path: Path


def export_tiles(
    directory: Path,
    note: bytes,
    key: VerifierKey,
    nodes: NodeReader,
    leaves: EntryReader,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TilesExport:
    """Bring the tree of files in `directory` to the size of the checkpoint `note`.

    Makes only what is new.

    key: the log's; it must have signed the note. progress: called with (files written, files to
    write).

    Raises: VerificationError: the note is not signed by `key`, or `nodes` lead to another root;
    DecodeError: it is no checkpoint. SetupError: the directory holds another log, or a larger tree,
    or cannot be written.
    """
    checkpoint = _verified(note, key)
    if CompactRange.read(checkpoint.size, nodes).root != checkpoint.root:
        raise VerificationError("the log does not lead to the root of its checkpoint")
    before = _size_before(directory, checkpoint, nodes, key)
    vkey_path = directory / f"{key.name.rsplit('/', 1)[-1]}.vkey"
    new_tiles = list(tiles.tiles_for(before, checkpoint.size))
    total = len(new_tiles) + sum(tile.level == 0 for tile in new_tiles)
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, data in tiles.export(before, checkpoint.size, nodes, leaves):
            written.append(_write(directory / path, data))
            progress(len(written), total)
        _sync(directory, written)
    except OSError as error:
        raise SetupError(
            f"cannot write {error.filename or directory}: {error.strerror}; check the directory "
            "and its rights"
        ) from error
    replace_file(vkey_path, f"{key.vkey}\n".encode(), PUBLIC_MODE)
    replace_file(directory / CHECKPOINT_PATH, note, PUBLIC_MODE)
    return TilesExport(before, checkpoint.size, len(written) + 2, vkey_path)


def _verified(note: bytes, key: VerifierKey) -> Checkpoint:
    parsed = Note.parse(note)
    parsed.verified_by([key])
    return Checkpoint.parse(parsed.text)


def _size_before(
    directory: Path, checkpoint: Checkpoint, nodes: NodeReader, key: VerifierKey
) -> int:
    """Return how many leaves the files in `directory` cover already; 0 for a fresh one."""
    path = directory / CHECKPOINT_PATH
    if not path.exists():
        return 0
    try:
        present = _verified(read_public(path), key)
    except ClearingError as error:
        raise SetupError(
            f"{path} is not this log's checkpoint ({error}): use a fresh directory"
        ) from error
    if present.size > checkpoint.size:
        raise SetupError(
            f"{directory} covers {present.size} leaves already, the checkpoint {checkpoint.size}: "
            "use a newer one"
        )
    if CompactRange.read(present.size, nodes).root != present.root:
        raise SetupError(
            f"{directory} holds another history of this log: keep it as evidence, use a fresh "
            "directory"
        )
    return present.size


def _write(path: Path, data: bytes) -> Path:
    """Put a file in place whole, not yet flushed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)
    return path


def _sync(directory: Path, written: list[Path]) -> None:
    """Flush files and directories after all are written: one commit of a journal serves many."""
    for path in written:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    parents = {
        parent for path in written for parent in path.parents if parent.is_relative_to(directory)
    }
    for parent in sorted(parents):
        sync_directory(parent)
