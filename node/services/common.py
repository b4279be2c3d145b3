"""What the four services share: reading a view off the event loop, waiting for finality, pages, bad requests.

Lives here: Reading and the small helpers around requests. May not live here: any RPC.

Views are opened, used and closed in one worker thread, so that LMDB's rules hold and the event loop never waits for a
page of the disk; what leaves the thread are messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from clearing.errors import DecodeError
from clearing.handlers.reasons import Explanation
from node.paging import decode_token, encode_token
from node.queries import PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX
from node.rpc_errors import Refusal, refusal
from node.services.facade import Ledger, LedgerView, NotHeldError

T = TypeVar("T")

FINALITY_WAIT_S_MAX = 5.0
"""Longest that an answer waits for cosignatures; the client may come back."""

NOT_YET_FINAL_RETRY_MS = 250


class Timed(Protocol):
    """The one thing asked of a call's context here."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline, or None without one."""


@contextmanager
def bad_request() -> Iterator[None]:
    """Turn a DecodeError about a field of the request into BAD_REQUEST; nothing else is to be inside."""
    try:
        yield
    except DecodeError as error:
        raise refusal(Refusal.BAD_REQUEST, str(error)) from error


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page a request asks for: the key it starts at, b"" for the first, and the most rows."""

    query: bytes
    start: bytes
    rows_max: int

    @classmethod
    def of(cls, request: Any, caller: int, key_bytes: int) -> Self:
        """Read the page of `request`, made by participant `caller`; keys have `key_bytes`.

        The token is bound to the caller and to everything in the request but the page itself.
        Raises: RpcError: a token that this query did not return.
        """
        filter_only = type(request)()
        filter_only.CopyFrom(request)
        filter_only.ClearField("page_size")
        filter_only.ClearField("page_token")
        name = request.DESCRIPTOR.full_name.encode()
        query = b"%s %d %s" % (name, caller, filter_only.SerializeToString(deterministic=True))
        try:
            start = decode_token(query, request.page_token, key_bytes)
        except DecodeError as error:
            raise refusal(Refusal.BAD_PAGE, str(error)) from error
        return cls(query, start, min(request.page_size or PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX))

    def token(self, next_key: bytes) -> str:
        """Return the token of the page at `next_key`, "" for none."""
        return encode_token(self.query, next_key) if next_key else ""


class Reading:
    """Reads of one node's ledger, for its services."""

    def __init__(self, ledger: Ledger) -> None:
        """Read from `ledger`."""
        self.ledger = ledger
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="reasons")

    def require_state(self) -> None:
        """Refuse on a witness replica, which holds neither rows nor bodies.

        Raises: NotHeldError.
        """
        if not self.ledger.holds_state:
            raise NotHeldError(self.ledger.leader_endpoint)

    async def view(self, read: Callable[[LedgerView], T]) -> T:
        """Return what `read` makes of a view of the newest committed height; it runs in a worker thread."""
        return await asyncio.to_thread(self._read, read)

    def _read(self, read: Callable[[LedgerView], T]) -> T:
        with self.ledger.snapshot() as view:
            return read(view)

    async def explain(self, submission: int, item: int) -> Explanation | None:
        """Return why an obligation is not discharged; see Ledger.explain.

        One at a time and in a thread of its own: an answer may take many seconds, and whoever asks for many must not
        take the threads that serve reads and replicas.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._explainer, self.ledger.explain, submission, item)

    async def await_final(self, index: int, context: Timed) -> None:
        """Wait until a final checkpoint covers the leaf at `index`, up to FINALITY_WAIT_S_MAX and the deadline.

        Raises: RpcError: NOT_YET_FINAL.
        """
        remaining = context.time_remaining()
        limit = FINALITY_WAIT_S_MAX if remaining is None else min(remaining, FINALITY_WAIT_S_MAX)
        try:
            async with asyncio.timeout(limit):
                await self.ledger.final_beyond(index)
        except TimeoutError as error:
            message = f"leaf {index} is recorded, no final checkpoint covers it yet"
            raise refusal(Refusal.NOT_YET_FINAL, message, NOT_YET_FINAL_RETRY_MS) from error


def final_size(view: LedgerView) -> int:
    """Return the size of the greatest final checkpoint, 0 for none."""
    latest = view.latest_checkpoint()
    return 0 if latest is None else latest[0]


def final_note(view: LedgerView) -> tuple[int, bytes]:
    """Return (size, note) of the greatest final checkpoint.

    Raises: RpcError: NOT_YET_FINAL when there is none.
    """
    latest = view.latest_checkpoint()
    if latest is None:
        raise refusal(
            Refusal.NOT_YET_FINAL, "there is no final checkpoint yet", NOT_YET_FINAL_RETRY_MS
        )
    return latest


def log_size(view: LedgerView) -> int:
    """Return the number of leaves in the log."""
    return 0 if view.tip is None else view.tip.log_size
