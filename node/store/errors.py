"""How the store says no: stable codes, exceptions, and findings that name what is wrong where.

Lives here: StoreCode, the StoreError tree, Finding. May not live here: checks.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clearing.errors import ClearingError


class StoreCode(enum.StrEnum):
    """Stable names of the store's refusals; logs, `doctor` and clients show them."""

    STORE_LOCKED = "STORE_LOCKED"
    STORE_SCHEMA = "STORE_SCHEMA"
    STORE_FULL = "STORE_FULL"
    STORE_BUSY = "STORE_BUSY"
    STORE_CLOSED = "STORE_CLOSED"
    STORE_CONFLICT = "STORE_CONFLICT"
    STORE_FAILED = "STORE_FAILED"
    STORE_DAMAGED = "STORE_DAMAGED"
    ROLLBACK_DETECTED = "ROLLBACK_DETECTED"
    FORK_DETECTED = "FORK_DETECTED"


class StoreError(ClearingError):
    """Base of the store's refusals; `fatal` says whether the node must stop.

    The text is one sentence of what is wrong and one of what to do.
    """

    code: ClassVar[StoreCode]
    fatal: ClassVar[bool] = False


class StoreLockedError(StoreError):
    """Another process, or another Store of this process, has the directory open.

    Nothing was touched.
    """

    code = StoreCode.STORE_LOCKED


class StoreSchemaError(StoreError):
    """The directory holds no store of a version that this program reads; nothing was touched."""

    code = StoreCode.STORE_SCHEMA


class StoreFullError(StoreError):
    """Writing would leave less free space than the reserve.

    Nothing was written, reading goes on.
    """

    code = StoreCode.STORE_FULL


class StoreBusyError(StoreError):
    """The map must grow and a reader did not end in time.

    Nothing was written, the same write may be tried again.
    """

    code = StoreCode.STORE_BUSY


class StoreClosedError(StoreError):
    """The store was closed: the node is stopping."""

    code = StoreCode.STORE_CLOSED


class StoreConflictError(StoreError):
    """What is to be written does not follow from what is there, or would replace a record.

    Nothing was written.
    """

    code = StoreCode.STORE_CONFLICT
    fatal = True


class StoreFailedError(StoreError):
    """LMDB or the disk failed in a write: whether it is durable is unknown.

    The node stops, acknowledges nothing more, and checks its store at the next start. The write is
    not tried again: after a failed fsync the kernel may have dropped the pages.
    Source: TigerBeetle docs, "fsyncgate".
    """

    code = StoreCode.STORE_FAILED
    fatal = True


class RollbackDetectedError(StoreError):
    """The database is older than a head this node has signed, or a smaller head was to be signed.

    The node signs nothing until its log has caught up, from its peers, with the head it once
    signed.
    """

    code = StoreCode.ROLLBACK_DETECTED


class ForkDetectedError(StoreError):
    """A head was to be signed with another root than was signed, or is stored, at its size."""

    code = StoreCode.FORK_DETECTED
    fatal = True


class FindingKind(enum.StrEnum):
    """What is wrong with one record."""

    ALTERED = "altered"
    MISSING = "missing"
    SURPLUS = "surplus"
    DAMAGED = "damaged"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    table: name of the table, or of the file. key: the record's key in words, "" for a whole table.
    what: one sentence. NOT_CHECKED names what could not be judged and is no damage.
    """

    kind: FindingKind
    table: str
    key: str
    what: str

    @property
    def is_damage(self) -> bool:
        """Whether it says that something is wrong, not only unchecked."""
        return self.kind is not FindingKind.NOT_CHECKED

    def __str__(self) -> str:
        """Return the finding as one line."""
        where = f"{self.table}[{self.key}]" if self.key else self.table
        return f"{self.kind.value}: {where}: {self.what}"


class StoreDamagedError(StoreError):
    """Stored bytes contradict each other; `findings` names them, at least one."""

    code = StoreCode.STORE_DAMAGED
    fatal = True

    def __init__(self, findings: Sequence[Finding]) -> None:
        """Describe the first of `findings` and count the others."""
        self.findings = tuple(findings)
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        super().__init__(
            f"{self.findings[0]}{more}; run `clearing audit fsck`, then rebuild or restore this "
            "node from its peers"
        )
