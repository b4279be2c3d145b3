"""What the consensus engine orders: the ledger's transactions as they are signed, and ticks.

Lives here: their bytes, whose they are, and the fair order of a proposal. May not live here: what
they do (the core).

A tick asks for a block because something falls due by time alone; an idle chain makes none. It
changes nothing itself. Layout: 0x00 "tick", deadline u64, engine height u64, little-endian; no
transaction of the ledger starts with 0x00. The height makes a repeated tick other bytes.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from clearing.codec import Layout, raw, uint
from clearing.errors import DecodeError
from clearing.records.transaction import Transaction, decode_transaction
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX

_TICK_MAGIC = b"\0tick"
_TICK = Layout("tick", raw("magic", 5), uint("deadline_ms", 8), uint("engine_height", 8))
_ACTOR = slice(8, 12)
"""Where both kinds of transaction name their actor."""

_OVERHEAD_BYTES = 6
"""Most that the engine adds to a transaction inside a block: a tag and a length."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Asks for a block at or after `deadline_ms`; sent when the chain had `engine_height`."""

    deadline_ms: int
    engine_height: int

    def encode(self) -> bytes:
        """Return the tick's bytes."""
        return _TICK.encode(
            magic=_TICK_MAGIC, deadline_ms=self.deadline_ms, engine_height=self.engine_height
        )


def decode(data: bytes) -> Transaction | Tick:
    """Parse a transaction of the engine.

    Raises: DecodeError: neither a canonical transaction of the ledger nor a tick, or too large.
    """
    # A larger one would make a block that cannot be proposed.
    if len(data) > TRANSACTION_BYTES_MAX:
        raise DecodeError(f"a transaction has at most {TRANSACTION_BYTES_MAX} bytes")
    if data[: len(_TICK_MAGIC)] == _TICK_MAGIC:
        values = _TICK.decode(data)
        del values["magic"]
        return Tick(**values)
    return decode_transaction(data)


def is_canonical(data: bytes) -> bool:
    """Return whether `decode` accepts the bytes."""
    try:
        decode(data)
    except DecodeError:
        return False
    return True


def fair_order(transactions: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """Return which transactions a proposal holds, and in which order; at most `bytes_max` bytes.

    transactions: as they arrived. The rule: the next place goes to the actor that has had the
    fewest bytes so far, of equals to the one that came first; an actor's own stay in order. So one
    who floods the queue delays nobody else, and nobody can be passed over for another's favour.
    What does not fit ends its actor's turn: later ones of that actor may depend on it.
    """
    queues: dict[bytes, deque[bytes]] = {}
    for data in transactions:
        # What does not parse would only fill the block; ticks are nobody's and stand first.
        if is_canonical(data):
            actor = b"" if data.startswith(_TICK_MAGIC) else data[_ACTOR]
            queues.setdefault(actor, deque()).append(data)
    turns = [(0, place, actor) for place, actor in enumerate(sorted(queues, key=bool))]
    heapq.heapify(turns)
    chosen: list[bytes] = []
    left = bytes_max
    while turns:
        taken, place, actor = heapq.heappop(turns)
        data = queues[actor].popleft()
        size = len(data) + _OVERHEAD_BYTES
        if size > left:
            continue
        chosen.append(data)
        left -= size
        if queues[actor]:
            heapq.heappush(turns, (taken + size, place, actor))
    return chosen
