"""The client library: a participant's or supervisor's access to the ledger, from Python.

    from node.client import Client, Obligation

    with Client.open("identity/p01") as client:
        (recorded,) = client.submit([Obligation("p01", "p02", "BTC", 150_000_000)])
        receipt, proven = client.receipt(recorded.index, item=0)

Client waits, AsyncClient is awaited; both have the same methods. A client signs with the identity's key, keeps what it
sends until its fate is known, tries again only what is safe, believes a node only as far as the network's policy and
its own memory of the log go, and raises the typed errors of node.client.errors.
"""

from node.client.aio import AsyncClient
from node.client.errors import (
    BadAnswerError,
    CallError,
    ClientError,
    DeadlineError,
    EvidenceError,
    ForkDetectedError,
    NotAnchoredError,
    NotAuthorisedError,
    NotFoundError,
    OutcomeUnknownError,
    RejectedError,
    RollbackDetectedError,
    TlsError,
    UnavailableError,
)
from node.client.sync import Client
from node.client.writes import Obligation, Recorded

__all__ = [
    "AsyncClient",
    "BadAnswerError",
    "CallError",
    "Client",
    "ClientError",
    "DeadlineError",
    "EvidenceError",
    "ForkDetectedError",
    "NotAnchoredError",
    "NotAuthorisedError",
    "NotFoundError",
    "Obligation",
    "OutcomeUnknownError",
    "Recorded",
    "RejectedError",
    "RollbackDetectedError",
    "TlsError",
    "UnavailableError",
]
