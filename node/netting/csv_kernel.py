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
from node.csv_file import FIELD_CHARACTERS_MAX

ID, DEBTOR, CREDITOR, ASSET, AMOUNT, PRIORITY, IGNORED = range(7)
"""What a column holds: its number in `roles`."""

PRIORITY_MAX: Final = 255

STOPPED, NOT_PLAIN, PARTIES_FULL, ASSETS_FULL = range(4)
"""Why `scan` returned: it came to `stop`; a reader has to look; a table of names has to grow before it goes on."""

AT, ROW, PARTIES, ASSETS, BEYOND_ASCII = range(5)
"""Places in `state`: next byte and row, names found, whether a byte above 127 was seen."""

_LINE_FEED: Final = np.uint8(0x0A)
_RETURN: Final = np.uint8(0x0D)
_SPACE: Final = np.uint8(0x20)
_ZERO: Final = np.uint8(0x30)
_NINE: Final = np.uint8(0x39)
_C1_LEAD: Final = np.uint8(0xC2)
_C1_END: Final = np.uint8(0xA0)
_HASH_START: Final = np.uint64(0xCBF29CE484222325)
_HASH_FACTOR: Final = np.uint64(0x100000001B3)
_HASH_FOLD: Final = np.uint64(29)
_TEN: Final = np.uint64(10)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_TENTH_OF_MAX: Final = np.uint64((2**64 - 1) // 10)
_PROBES_MAX: Final = 64
_DIGITS_MAX: Final = 64
_DIGITS_ONE_LIMB: Final = 19

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
    """The columns that are filled, one entry a row; numbers of parties and assets by first appearance.

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
    mask = np.int64(names.slots.shape[0] - 1)
    for number in range(count):
        slot = np.int64(names.hash[number] ^ (names.hash[number] >> _HASH_FOLD)) & mask
        while names.slots[slot] != 0:
            slot = (slot + 1) & mask
        names.slots[slot] = number + 1


@jit
def _number_of(data: Any, start: int, size: int, value: Any, names: Names, count: int) -> Any:
    """Find a name of `size` bytes, or enter it as number `count`.

    Returns: its number, or -1 after too many collisions.
    """
    mask = np.int64(names.slots.shape[0] - 1)
    slot = np.int64(value ^ (value >> _HASH_FOLD)) & mask
    for _ in range(_PROBES_MAX):
        number = np.int64(names.slots[slot]) - 1
        if number < 0:
            names.slots[slot] = count + 1
            names.start[count] = start
            names.size[count] = size
            names.hash[count] = value
            return count
        same = names.hash[number] == value and names.size[number] == size
        place = 0
        while same and place < size:
            same = data[names.start[number] + place] == data[start + place]
            place += 1
        if same:
            return number
        slot = (slot + 1) & mask
    return -1


@jit
def _digits(data: Any, start: int, stop: int) -> tuple[Any, Any, Any]:
    """Read data[start:stop] as a decimal number. Returns: low and high 64 bits, and whether it is one below 2^128."""
    low, high = np.uint64(0), np.uint64(0)
    good: Any = stop - start <= _DIGITS_MAX
    if stop - start <= _DIGITS_ONE_LIMB:
        for place in range(start, stop):
            digit = data[place]
            good &= _ZERO <= digit <= _NINE
            low = low * _TEN + np.uint64(digit - _ZERO)
        return low, high, good
    for place in range(start, stop):
        digit = data[place]
        good &= _ZERO <= digit <= _NINE and high <= _TENTH_OF_MAX
        bottom = (low & _LOW_HALF) * _TEN + np.uint64(digit - _ZERO)
        top = (low >> _HALF) * _TEN + (bottom >> _HALF)
        low = (top << _HALF) | (bottom & _LOW_HALF)
        carried = high * _TEN + (top >> _HALF)
        good &= carried >= high
        high = carried
    return low, high, good


@jit
def _field(data: Any, start: int) -> tuple[int, Any, bool, bool]:
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
            if kind == _REFUSED or (byte == _C1_LEAD and data[place + 1] < _C1_END):
                return place, value, False, beyond
            beyond = True
        value = (value ^ np.uint64(byte)) * _HASH_FACTOR
        place += 1
    good = place - start <= FIELD_CHARACTERS_MAX
    if place > start:
        good &= data[start] != _SPACE and data[place - 1] != _SPACE
    return place, value, good, beyond


@jit
def _split(data: Any, place: int, roles: Any, fields: Any, hashes: Any) -> tuple[int, bool]:
    """Split the row at `place`: fields[role] = (start, end), hashes[role].

    Returns: where the next row starts, or -1 where the row is not plain; whether it has bytes above 127.
    """
    above = False
    last = roles.shape[0] - 1
    for column in range(last + 1):
        end, value, good, beyond = _field(data, place)
        role = roles[column]
        fields[role, 0] = place
        fields[role, 1] = end
        hashes[role] = value
        above |= beyond
        if data[end] == _RETURN:
            end += 1
            good &= data[end] == _LINE_FEED
        if not good or (data[end] == _LINE_FEED) != (column == last):
            return -1, above
        place = end + 1
    return place, above


@jit
def scan(
    data: Any, stop: int, roles: Any, rows: Rows, parties: Names, assets: Names, state: Any
) -> int:
    """Read rows from state[AT] until one starts at `stop` or later, and keep them from state[ROW] on.

    data: uint8[], ends with a line feed. roles: int64[], what each column holds. state: int64[5].
    Returns: STOPPED, or why not; then state[AT] is the row that was not read.
    """
    fields = np.zeros((IGNORED + 1, 2), np.int64)
    hashes = np.zeros(IGNORED + 1, np.uint64)
    place, row, party_count, asset_count = state[AT], state[ROW], state[PARTIES], state[ASSETS]
    status = STOPPED
    while place < stop:
        if data[place] == _LINE_FEED or (data[place] == _RETURN and data[place + 1] == _LINE_FEED):
            place += 1 if data[place] == _LINE_FEED else 2
            continue
        if party_count + 2 > parties.start.shape[0]:
            status = PARTIES_FULL
            break
        if asset_count + 1 > assets.start.shape[0]:
            status = ASSETS_FULL
            break
        status = NOT_PLAIN
        following, above = _split(data, place, roles, fields, hashes)
        if following < 0:
            break
        low, high, good = _digits(data, fields[AMOUNT, 0], fields[AMOUNT, 1])
        rank, rank_high, good_rank = _digits(data, fields[PRIORITY, 0], fields[PRIORITY, 1])
        if not (good and good_rank) or rank > PRIORITY_MAX or low | high == 0 or rank_high != 0:
            break
        size = fields[:, 1] - fields[:, 0]
        if size[ID] == 0 or size[DEBTOR] == 0 or size[CREDITOR] == 0 or size[ASSET] == 0:
            break
        debtor = _number_of(
            data, fields[DEBTOR, 0], size[DEBTOR], hashes[DEBTOR], parties, party_count
        )
        party_count += debtor == party_count
        creditor = _number_of(
            data, fields[CREDITOR, 0], size[CREDITOR], hashes[CREDITOR], parties, party_count
        )
        party_count += creditor == party_count
        asset = _number_of(data, fields[ASSET, 0], size[ASSET], hashes[ASSET], assets, asset_count)
        asset_count += asset == asset_count
        if debtor < 0 or creditor < 0 or asset < 0 or debtor == creditor:
            break
        rows.id_start[row] = fields[ID, 0]
        rows.id_bytes[row] = size[ID]
        rows.id_hash[row] = hashes[ID]
        rows.debtor[row] = debtor
        rows.creditor[row] = creditor
        rows.asset[row] = asset
        rows.lo[row] = low
        if high != 0:
            rows.hi[row] = high
        if rank != 0:
            rows.priority[row] = rank
        state[BEYOND_ASCII] |= above
        row += 1
        place = following
        status = STOPPED
    state[AT], state[ROW], state[PARTIES], state[ASSETS] = place, row, party_count, asset_count
    return status
