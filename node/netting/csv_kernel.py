"""The loop that reads plain obligation files: bytes in, columns out, one pass.

Lives here: the compiled scan and the tables of names that it fills. May not live here: any explanation of a fault.
Invariants kept: what the scan accepts, the reader of `obligation_file` accepts with the same columns; whatever the scan is not
sure of (a quote, a sign, a doubled id, a byte that is no text) it leaves to that reader, which names the fault or finds none.

`data` ends with a line feed, so no loop looks for the end of the file.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clearing.netting.engine import jit
from node.csv_file import FIELD_CHARACTERS_MAX, PRIORITY_MAX

ID, DEBTOR, CREDITOR, ASSET, AMOUNT, PRIORITY, IGNORED = range(7)
"""What a column holds: its number in `roles`."""

STOPPED, NOT_PLAIN, NAMES_FULL = range(3)
"""Why `scan` returned: it came to where it should stop; a reader has to look; the table of names has to grow before it goes on."""

AT, STOP, ROW, NAMES, BEYOND_ASCII = range(5)
"""Places in `state`: next byte, where to stop, next row, names found, whether a byte above 127 was seen."""

_LINE_FEED: Final = np.uint8(0x0A)
_RETURN: Final = np.uint8(0x0D)
_SPACE: Final = np.uint8(0x20)
_C1_LEAD: Final = np.uint8(0xC2)
_C1_END: Final = np.uint8(0xA0)
_HASH_START: Final = np.uint64(0xCBF29CE484222325)
_HASH_FACTOR: Final = np.uint64(0x100000001B3)
_HASH_FOLD: Final = np.uint64(29)
_NONE: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_ZERO: Final = np.uint64(0x30)
_NINE: Final = np.uint64(9)
_TEN: Final = np.uint64(10)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_TENTH_OF_MAX: Final = np.uint64((2**64 - 1) // 10)
_PROBES_MAX: Final = 64
_RANK_MAX: Final = np.uint64(PRIORITY_MAX)
_DIGITS_MAX: Final = np.uint64(64)
_DIGITS_ONE_LIMB: Final = np.uint64(19)
_FIELD_BYTES_MAX: Final = np.uint64(FIELD_CHARACTERS_MAX)

_TEXT, _END, _BEYOND, _REFUSED = range(4)


def _kinds_of_bytes() -> NDArray[np.uint8]:
    """Say of each byte whether it is text, ends a field, begins or continues a character above 127, or is refused."""
    kinds = np.full(256, _TEXT, np.uint8)
    kinds[0x80:] = _BEYOND
    kinds[:0x20] = _REFUSED
    kinds[list(b'"\x7f')] = _REFUSED
    kinds[list(b",\r\n")] = _END
    return kinds


_KIND: Final = _kinds_of_bytes()


class Rows(NamedTuple):
    """The columns that are filled, one entry a row; parties and assets are numbers of `Names`.

    id_start, id_bytes: where the id stands in `data`. id_hash: equal for equal ids.
    """

    id_start: NDArray[np.int64]
    id_bytes: NDArray[np.int32]
    id_hash: NDArray[np.uint64]
    debtor: NDArray[np.uint32]
    creditor: NDArray[np.uint32]
    asset: NDArray[np.uint32]
    lo: NDArray[np.uint64]
    hi: NDArray[np.uint64]
    priority: NDArray[np.uint8]


class Names(NamedTuple):
    """Different names in order of first appearance, and a table with open addressing over their hashes.

    slots: int32[2^k], number of a name plus 1, or 0. start, size, hash: entry n belongs to name n.
    """

    slots: NDArray[np.int32]
    start: NDArray[np.int64]
    size: NDArray[np.int32]
    hash: NDArray[np.uint64]


def empty_rows(rows: int) -> Rows:
    """Make columns for `rows` rows; pages that stay zero are never touched."""
    return Rows(
        id_start=np.zeros(rows, np.int64),
        id_bytes=np.zeros(rows, np.int32),
        id_hash=np.zeros(rows, np.uint64),
        debtor=np.zeros(rows, np.uint32),
        creditor=np.zeros(rows, np.uint32),
        asset=np.zeros(rows, np.uint32),
        lo=np.zeros(rows, np.uint64),
        hi=np.zeros(rows, np.uint64),
        priority=np.zeros(rows, np.uint8),
    )


def empty_names(slots: int) -> Names:
    """Make tables for at most slots // 2 names; `slots` is a power of two."""
    half = slots // 2
    return Names(
        np.zeros(slots, np.int32),
        np.zeros(half, np.int64),
        np.zeros(half, np.int32),
        np.zeros(half, np.uint64),
    )


def grown(names: Names, count: int) -> Names:
    """Return tables of four times the size that hold the same `count` names under the same numbers."""
    larger = empty_names(names.slots.shape[0] * 4)
    larger.start[:count] = names.start[:count]
    larger.size[:count] = names.size[:count]
    larger.hash[:count] = names.hash[:count]
    rebuild(larger, count)
    return larger


@jit
def rebuild(names: Names, count: int) -> None:
    """Enter the first `count` names into an empty table of slots."""
    mask = np.uint64(names.slots.shape[0] - 1)
    for number in range(count):
        slot = (names.hash[number] ^ (names.hash[number] >> _HASH_FOLD)) & mask
        while names.slots[slot] != 0:
            slot = (slot + _ONE) & mask
        names.slots[slot] = number + 1


@jit
def _digits(data: Any, start: Any, size: Any) -> tuple[Any, Any, Any]:
    """Read `size` bytes as a decimal number. Returns: low and high 64 bits, and whether it is one below 2^128."""
    low, high = np.uint64(0), np.uint64(0)
    good: Any = size <= _DIGITS_MAX
    place, stop = start, start + size
    if size <= _DIGITS_ONE_LIMB:
        while place < stop:
            digit = np.uint64(data[place]) - _ZERO
            good &= digit <= _NINE
            low = low * _TEN + digit
            place += _ONE
        return low, high, good
    while place < stop:
        digit = np.uint64(data[place]) - _ZERO
        good &= digit <= _NINE and high <= _TENTH_OF_MAX
        bottom = (low & _LOW_HALF) * _TEN + digit
        top = (low >> _HALF) * _TEN + (bottom >> _HALF)
        low = (top << _HALF) | (bottom & _LOW_HALF)
        carried = high * _TEN + (top >> _HALF)
        good &= carried >= high
        high = carried
        place += _ONE
    return low, high, good


@jit
def _field(data: Any, start: Any) -> tuple[Any, Any, Any, Any]:
    """Find the end of the field at `start`.

    Returns: its end, its hash, whether it is text without blanks at its ends, whether it has bytes above 127.
    """
    place = start
    value = _HASH_START
    beyond = False
    while True:
        byte = data[place]
        kind = _KIND[byte]
        if kind != _TEXT:
            if kind == _END:
                break
            # U+0080 to U+009F are control characters of two bytes
            if kind == _REFUSED or (byte == _C1_LEAD and data[place + _ONE] < _C1_END):
                return place, value, False, beyond
            beyond = True
        value = (value ^ np.uint64(byte)) * _HASH_FACTOR
        place += _ONE
    good = place - start <= _FIELD_BYTES_MAX
    if place > start:
        good &= data[start] != _SPACE and data[place - _ONE] != _SPACE
    return place, value, good, beyond


@jit
def _split(data: Any, place: Any, roles: Any, fields: Any) -> Any:
    """Split the row at `place` into fields[role] = (start, bytes, hash).

    Returns: where the next row starts; whether the row is plain; whether it has bytes above 127.
    """
    above = False
    last = roles.shape[0] - 1
    for column in range(last + 1):
        end, value, good, beyond = _field(data, place)
        role = roles[column]
        fields[role, 0] = place
        fields[role, 1] = end - place
        fields[role, 2] = value
        above |= beyond
        if data[end] == _RETURN:
            end += _ONE
            good &= data[end] == _LINE_FEED
        if not good or (data[end] == _LINE_FEED) != (column == last):
            return place, False, above
        place = end + _ONE
    return place, True, above


@jit
def _numbers(data: Any, fields: Any) -> tuple[Any, Any, Any, Any]:
    """Read amount and priority of a row. Returns: low and high 64 bits, priority, whether both are what they may be."""
    low, high, good = _digits(data, fields[AMOUNT, 0], fields[AMOUNT, 1])
    rank, rank_high, good_rank = _digits(data, fields[PRIORITY, 0], fields[PRIORITY, 1])
    good &= good_rank and low | high != _NONE and rank_high == _NONE and rank <= _RANK_MAX
    return low, high, rank, good


@jit
def _number_of(data: Any, field: Any, names: Names, count: int) -> Any:
    """Find the name of a field, or enter it as number `count`.

    Returns: its number, or -1 where it is empty or too many names share its place.
    """
    start, size, value = field
    mask = np.uint64(names.slots.shape[0] - 1)
    slot = (value ^ (value >> _HASH_FOLD)) & mask
    probes = 0 if size > _NONE else _PROBES_MAX
    while probes < _PROBES_MAX:
        known = np.int64(names.slots[slot]) - 1
        if known < 0:
            names.slots[slot] = count + 1
            names.start[count] = start
            names.size[count] = size
            names.hash[count] = value
            return count
        if names.hash[known] == value and np.uint64(names.size[known]) == size:
            other, same = np.uint64(names.start[known]), _NONE
            while same < size and data[other + same] == data[start + same]:
                same += _ONE
            if same == size:
                return known
        slot = (slot + _ONE) & mask
        probes += 1
    return -1


@jit
def scan(data: Any, roles: Any, rows: Rows, names: Names, state: Any) -> int:
    """Read rows from state[AT] until one starts at state[STOP] or later, and keep them from state[ROW] on.

    data: uint8[], ends with a line feed. roles: uint64[], what each column holds. state: int64[5].
    Returns: STOPPED, or why not; then state[AT] is the row that was not read.
    """
    fields = np.zeros((IGNORED + 1, 3), np.uint64)
    named = np.zeros(IGNORED + 1, np.int64)
    # Places are unsigned: a signed index costs a check for negative ones at every byte.
    place, end = np.uint64(state[AT]), np.uint64(state[STOP])
    row, count = state[ROW], state[NAMES]
    status = STOPPED
    while place < end and status == STOPPED:
        if data[place] == _LINE_FEED or (
            data[place] == _RETURN and data[place + _ONE] == _LINE_FEED
        ):
            place += _ONE if data[place] == _LINE_FEED else _TWO
            continue
        if count + 3 > names.start.shape[0]:
            status = NAMES_FULL
            break
        following, good, above = _split(data, place, roles, fields)
        low, high, rank, good_numbers = _numbers(data, fields)
        if not good or not good_numbers or fields[ID, 1] == _NONE:
            status = NOT_PLAIN
            break
        for role in range(DEBTOR, ASSET + 1):
            field = (fields[role, 0], fields[role, 1], fields[role, 2])
            named[role] = _number_of(data, field, names, count)
            count += named[role] == count
        debtor, creditor, asset = named[DEBTOR], named[CREDITOR], named[ASSET]
        if debtor == creditor or min(debtor, creditor, asset) < 0:
            status = NOT_PLAIN
            break
        rows.id_start[row] = fields[ID, 0]
        rows.id_bytes[row] = fields[ID, 1]
        rows.id_hash[row] = fields[ID, 2]
        rows.debtor[row] = debtor
        rows.creditor[row] = creditor
        rows.asset[row] = asset
        rows.lo[row] = low
        if high != _NONE:
            rows.hi[row] = high
        if rank != _NONE:
            rows.priority[row] = rank
        state[BEYOND_ASCII] |= above
        row += 1
        place = following
    state[AT], state[ROW], state[NAMES] = place, row, count
    return status
