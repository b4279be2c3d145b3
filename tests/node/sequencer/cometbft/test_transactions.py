"""What the engine orders, and the fair order of a proposal."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.records.submission import Submission
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX
from node.sequencer.cometbft.transactions import Tick, decode, fair_order, is_canonical
from tests.clearing.records.vectors import VECTORS

_VECTOR = VECTORS["signed"]["submission"]
SIGNED = bytes.fromhex(_VECTOR["leaf"] + _VECTOR["secret"] + "".join(_VECTOR["records"]))


def by(actor: int, serial: int) -> bytes:
    """Return a transaction of an actor; its signature is nobody's, which the order does not ask."""
    changed = bytearray(SIGNED)
    changed[8:12] = actor.to_bytes(4, "little")
    changed[16:32] = serial.to_bytes(16, "little")
    return bytes(changed)


def test_transactions_and_ticks_are_told_apart() -> None:
    assert isinstance(decode(SIGNED), Submission)
    tick = Tick(1_700_000_000_123, 77)
    assert decode(tick.encode()) == tick
    assert not is_canonical(tick.encode() + b"\0")
    assert not is_canonical(b"")
    assert not is_canonical(SIGNED[:-1])


def test_what_is_too_large_is_refused_whatever_it_is() -> None:
    with pytest.raises(DecodeError, match="at most 524288 bytes"):
        decode(SIGNED + bytes(TRANSACTION_BYTES_MAX))


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 20))
def test_the_order_is_fair_whole_and_within_bounds(actors: list[int], room: int) -> None:
    queue = [by(actor, serial) for serial, actor in enumerate(actors)]
    bytes_max = room * (len(SIGNED) + 6)
    chosen = fair_order(queue, bytes_max)
    # As many as fit, none twice, none made up.
    assert len(chosen) == min(room, len(queue))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(queue)
    taken = {actor: [data for data in chosen if data[8] == actor] for actor in range(5)}
    for actor, own in taken.items():
        waiting = [data for data in queue if data[8] == actor]
        # An actor's own stay in order, from the front.
        assert own == waiting[: len(own)]
        # Nobody gets two more than one who still waits.
        for other, others in taken.items():
            if len([data for data in queue if data[8] == other]) > len(others):
                assert len(own) <= len(others) + 1, (actor, other)


def test_a_flood_delays_nobody_else() -> None:
    flood = [by(1, serial) for serial in range(50)]
    late = by(2, 1_000)
    chosen = fair_order([*flood, late], 1 << 20)
    assert chosen[1] == late


def test_ticks_come_first_and_junk_never() -> None:
    tick = Tick(5, 6).encode()
    assert fair_order([SIGNED, b"junk", tick, b""], 1 << 20) == [tick, SIGNED]


def test_what_does_not_fit_ends_the_turn_of_its_actor_alone() -> None:
    big = by(1, 1)[:8] + by(1, 1)[8:]
    order = [by(1, 1), by(1, 2), by(2, 3)]
    assert fair_order(order, 2 * (len(big) + 6)) == [by(1, 1), by(2, 3)]
    assert list(itertools.chain(fair_order([], 100))) == []
