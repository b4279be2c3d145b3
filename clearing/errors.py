"""The exception tree and the reject codes of the clearing core.

Lives here: every way in which the core can say no. May not live here: any rule, any I/O.

    ClearingError
      DecodeError            bytes or text that are not one of our canonical records
      VerificationError      a signature, proof, checkpoint, cosignature or certificate does not hold
      InvariantViolation     our own defect: the node must stop, keep the block and report

A user's mistake in a well-formed submission or instruction is no exception but a value: a `RejectCode`.
"""

from __future__ import annotations

import enum


class ClearingError(Exception):
    """Base of every exception that the clearing core raises on purpose."""


class DecodeError(ClearingError):
    """Bytes or text are not a canonical record: wrong length, reserved bits set, unknown version or kind."""


class VerificationError(ClearingError):
    """A signature, proof, checkpoint, cosignature or certificate does not hold."""


class InvariantViolation(ClearingError):  # noqa: N818 - the name says what happened, not what kind of class it is
    """The core contradicts itself: a defect of ours, never a user's mistake; whoever catches it stops the node."""


def invariant(condition: bool, why: str) -> None:  # noqa: FBT001 - reads as a statement at the call site
    """Stop the node when `condition` does not hold.

    Raises: InvariantViolation: with `why`. Unlike `assert` it survives `python -O`.
    """
    if not condition:
        raise InvariantViolation(why)


class RejectCode(enum.IntEnum):
    """Why a submission, an item of it, or an instruction was refused.

    The numbers are stable: they are written to clients' books and never reused. Where several apply, the
    lowest number is reported: the order of the members is the order of precedence.
    """

    OK = 0
