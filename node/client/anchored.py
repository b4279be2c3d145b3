"""Operations that make a two-clock receipt out of what a node says, believing none of it.

Lives here: which anchor is taken, and the fetching of its parts. May not live here: what the file is and its verification
(clearing/anchored_receipt.py), headers from a Bitcoin node of one's own (the caller passes them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clearing.anchored_receipt import (
    DEPTH_MIN_DEFAULT,
    AnchoredReceipt,
    VerifiedAnchoredReceipt,
    under_anchored_note,
)
from clearing.bitcoin.headers import Pin, first_height
from clearing.bitcoin.next_header import HEADER_BYTES, header_hash
from clearing.errors import DecodeError, VerificationError
from clearing.log.note import Note
from node.anchor_queries import AnchorRow
from node.client.calls import Operation
from node.client.errors import BadAnswerError, NotAnchoredError
from node.client.reads import Reader
from node.client.trust import Trust

DEPTH_KEPT = 144
"""Confirmations that go into a file where there are so many: a day's."""

HeaderReader = Callable[[int], bytes]
"""Returns the headers of one's own Bitcoin node from a height on, to its tip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredOptions:
    """How a two-clock receipt is asked for: confirmations demanded, a trusted Bitcoin block, one's own source of headers."""

    depth_min: int = DEPTH_MIN_DEFAULT
    pin: Pin | None = None
    headers: HeaderReader | None = None


class Anchored:
    """Makes two-clock receipts with what `trust` verifies and `reader` fetches."""

    def __init__(self, trust: Trust, reader: Reader) -> None:
        """Ask through these."""
        self._trust = trust
        self._reader = reader

    def receipt(
        self, log_index: int, item: int | None, options: AnchoredOptions
    ) -> Operation[tuple[bytes, VerifiedAnchoredReceipt]]:
        """Fetch a receipt, the earliest anchor that covers it and the headers, and verify what they make.

        Raises: NotAnchoredError: nothing covers it yet, as deep as asked for; BadAnswerError: it does not verify.
        """
        receipt, _ = yield from self._trust.receipt(log_index, item)
        row, size = _chosen((yield from self._reader.anchors()), log_index, options.depth_min)
        found = yield from self._reader.anchor_proofs(row.id)
        note, ots = next((note, ots) for at, note, ots in found.notes if at == size)
        path = yield from self._trust.inclusion(log_index, size)
        genesis_path = yield from self._trust.inclusion(0, size)
        start = first_height(row.network, row.height)
        if options.headers is not None:
            headers = options.headers(start)
        else:
            headers = yield from self._reader.bitcoin_headers(start)
        headers = _kept(headers, start, row.height, options)
        try:
            moved = under_anchored_note(receipt, note, path, genesis_path)
            data = AnchoredReceipt(row.network, start, headers, ots, moved).encode()
            pin = options.pin
            # Whoever reads the file decides which block to trust; here it is enough that the chain holds together.
            pin = pin if pin is not None else _first_pin(start, headers)
            verified = AnchoredReceipt.parse(data).verify(
                self._trust.memory.policy, pin=pin, depth_min=options.depth_min
            )
        except (DecodeError, VerificationError) as error:
            raise BadAnswerError(f"the anchored receipt does not verify: {error}") from error
        yield from self._trust.reconcile(Note.parse(note))
        return data, verified


def _kept(headers: bytes, start: int, height: int, options: AnchoredOptions) -> bytes:
    """Return the headers without those that only make a file longer: a day's work on top shows enough."""
    last = height + max(options.depth_min, DEPTH_KEPT) - 1
    if options.pin is not None:
        last = max(last, options.pin.height)
    return headers[: (last - start + 1) * HEADER_BYTES]


def _first_pin(start: int, headers: bytes) -> Pin | None:
    return Pin(start, header_hash(headers[:HEADER_BYTES])) if start else None


def _chosen(rows: Sequence[AnchorRow], log_index: int, depth_min: int) -> tuple[AnchorRow, int]:
    """Return the earliest anchor deep enough that covers a leaf, with the least log size that does."""
    covering = [row for row in rows if row.log_sizes and row.log_sizes[-1] > log_index]
    deep = [row for row in covering if row.height and row.confirmations >= depth_min]
    if not deep:
        stands = ", ".join(
            f"anchor {row.id} is {row.state.name} with {row.confirmations} confirmations"
            for row in covering[:3]
        )
        raise NotAnchoredError(
            f"no anchor with {depth_min} confirmations covers leaf {log_index} yet: "
            f"{stands or 'none has been made since it was recorded'}"
        )
    row = min(deep, key=lambda one: (one.height, one.id))
    return row, min(size for size in row.log_sizes if size > log_index)
