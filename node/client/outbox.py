"""Transactions on their way: on disk before they are sent, gone when their fate is known.

Lives here: Outbox. May not live here: sending.

A client that dies between sending and hearing sends the same bytes again when it is back; the ledger counts them once
by their client id. Without the bytes it could only guess. The files hold the secrets of the salts: mode 0600.
"""

from __future__ import annotations

from pathlib import Path

from clearing.errors import DecodeError
from clearing.records.transaction import Transaction, decode_transaction
from node.errors import SetupError
from node.files import PRIVATE_MODE, create_file, make_private_directory

OUTBOX_NAME = "outbox"
_SUFFIX = ".transaction"


class Outbox:
    """A directory with one file a transaction, named by its client id."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made when missing."""
        make_private_directory(directory)
        self._directory = directory

    def put(self, transaction: Transaction) -> None:
        """Write a transaction; it is on disk when this returns. One that is there already stays.

        Raises: SetupError: it cannot be written, or other bytes are there under its client id.
        """
        path = self._path(transaction.client_id)
        data = transaction.encode()
        if path.exists():
            if path.read_bytes() != data:
                raise SetupError(f"{path} holds another transaction: a client id was used twice")
            return
        create_file(path, data, PRIVATE_MODE)

    def remove(self, client_id: bytes) -> None:
        """Forget a transaction whose fate is known."""
        self._path(client_id).unlink(missing_ok=True)

    def pending(self) -> list[Transaction]:
        """Return the transactions whose fate is not known, oldest first.

        Raises: SetupError: a file is no transaction.
        """
        paths = [(path.stat().st_mtime_ns, path) for path in self._directory.glob(f"*{_SUFFIX}")]
        return [self._read(path) for _, path in sorted(paths)]

    def _read(self, path: Path) -> Transaction:
        try:
            return decode_transaction(path.read_bytes())
        except DecodeError as error:
            raise SetupError(f"{path} is no transaction ({error}): move it away") from error

    def _path(self, client_id: bytes) -> Path:
        return self._directory / f"{client_id.hex()}{_SUFFIX}"
