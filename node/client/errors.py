"""What can go wrong for a client, as types.

Lives here: the errors that node.client raises beside SetupError (a file of the identity is not as it must be) and
DecodeError (an argument is none: an unknown name, an amount that is no integer). May not live here: where they arise.

    ClientError
      CallError               a node refused: .fault has status, reason, message, remedy
        RejectedError         by the ledger's rules: .code, .items; definite, nothing was recorded
        NotAuthorisedError    this identity may not do that
        NotFoundError         there is no such thing, or it is another party's
        UnavailableError      no node could serve within the time; nothing was recorded
      OutcomeUnknownError     a transaction may or may not be recorded: send it again, it counts once
      DeadlineError           a read took longer than the time given
      TlsError                the other end refused the certificate, or this end refused the other's
      NotAnchoredError        no Bitcoin anchor that is deep enough covers the record yet
      BadAnswerError          a node answered what is no answer: report it
      EvidenceError           a node contradicts what it or another showed before: the notes are kept
        ForkDetectedError     two histories under one log key
        RollbackDetectedError a history shorter than one shown before
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearing.errors import RejectCode
from node.rpc_errors import RpcError


class ClientError(Exception):
    """Base of what a client raises on purpose; its text is one sentence for a person.

    recorded: what of a request in several submissions was recorded before the one that failed, in order.
    """

    recorded: tuple[Any, ...] = ()


class CallError(ClientError):
    """A node refused a call."""

    def __init__(self, fault: RpcError) -> None:
        """Keep the refusal as it came."""
        super().__init__(str(fault))
        self.fault = fault

    @property
    def reason(self) -> str:
        """The stable name of the refusal."""
        return self.fault.reason

    @property
    def remedy(self) -> str:
        """What to do, in one sentence."""
        return self.fault.remedy


class RejectedError(CallError):
    """The ledger's rules refused a transaction; nothing of it is recorded."""

    @property
    def code(self) -> RejectCode:
        """The reject code; MALFORMED where a newer node knows one that this client does not."""
        return self.fault.code or RejectCode.MALFORMED

    @property
    def items(self) -> tuple[tuple[int, RejectCode], ...]:
        """The first bad items with their codes; `bad_items` counts all."""
        return self.fault.items

    @property
    def bad_items(self) -> int:
        """How many items are bad."""
        return self.fault.bad_items


class NotAuthorisedError(CallError):
    """The identity is unknown to the register, or its role may not do this."""


class NotFoundError(CallError):
    """There is no such thing, or it is another party's."""


class UnavailableError(CallError):
    """No node could serve the call within the time; nothing was recorded by it."""


class OutcomeUnknownError(ClientError):
    """A transaction may or may not be recorded. Sending the same bytes again is safe; the outbox has them."""

    def __init__(self, message: str, client_id: bytes) -> None:
        """Name the request by its client id."""
        super().__init__(message)
        self.client_id = client_id


class DeadlineError(ClientError):
    """A read took longer than the time given."""


class TlsError(ClientError):
    """One end refused the other's certificate."""


class NotAnchoredError(ClientError):
    """No anchor that is deep enough covers the record yet; the text says what there is."""


class BadAnswerError(ClientError):
    """A node's answer is malformed or does not verify."""


class EvidenceError(ClientError):
    """A node contradicts what was shown before; `evidence` is the file with both signed notes."""

    def __init__(self, message: str, evidence: Path) -> None:
        """Say what contradicts, and where both notes are."""
        super().__init__(
            f"{message}; both signed notes are in {evidence}: show them to the regulator"
        )
        self.evidence = evidence


class ForkDetectedError(EvidenceError):
    """The log's key has signed two histories."""


class RollbackDetectedError(EvidenceError):
    """A node shows a history that is shorter than one shown before."""
