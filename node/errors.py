"""Errors of the node itself, beside those of the core (clearing.errors).

Lives here: exceptions that more than one module of node/ raises, and which of them may pass by themselves. May not
live here: reject codes, gRPC status codes.
"""

from __future__ import annotations

import errno

from clearing.errors import ClearingError

_PASSING_ERRNOS = frozenset(
    (
        # Room on a disk, memory, descriptors, processes: others give some back.
        *(errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
        # A port that a process just ended has held, an address that the machine has not got yet.
        *(errno.EADDRINUSE, errno.EADDRNOTAVAIL),
        # A disk or a network's file system that is away, a program that is being replaced.
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.ETXTBSY),
    )
)


class SetupError(ClearingError):
    """A file, key, certificate or setting of this node is not as it must be.

    Its text is one sentence for the operator: which one, what is wrong, what to do. It never holds
    secret bytes.
    """


class PassingError(SetupError):
    """What keeps the node from starting may pass by itself, such as a port that is still taken."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether what an error or one of its causes says may pass with nothing of the node's changed."""
    while error is not None:
        if isinstance(error, PassingError):
            return True
        if isinstance(error, OSError) and error.errno in _PASSING_ERRNOS:
            return True
        error = error.__cause__
    return False
