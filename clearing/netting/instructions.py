"""What a processor does in an instruction or two and numba has no words for.

Lives here: each as a function that a kernel calls, and what the compiler makes of it. May not live here: rules.
Outside compiled code they do the same, slowly; a kernel's cache does not notice a change here, so remove the caches after one.
Nothing here checks a place: the kernel has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]

PLACES: Final = 4
"""Places of 32 bits in an amount."""

ROWS: Final = 32
"""Rows that one call of `move_rows` moves: whole words of ids and lines of amounts."""

_PLACE_BITS: Final = np.uint64(32)
_PLACE: Final = np.uint64(2**32 - 1)
_WORD_BYTES: Final = 8
_VECTOR: Final = 4
# Rows from those that are moved to those that are fetched meanwhile: into the nearest cache, and into the next.
_NEAR: Final = 256
_FAR: Final = 2048
_LINE_BYTES: Final = 64
_LOCALITY: Final = {_NEAR: 3, _FAR: 2}


def prefetch(column: NDArray[Any], place: Any) -> None:
    """Ask the processor for column[place] ahead of its use, into the nearest cache; outside compiled code nothing.

    It never faults, so `place` may lie beyond the end.
    """


def move_rows(
    row: np.uint64, payers: Ids, payees: Ids, lo: U64, hi: U64, sums: U64, gross: U64
) -> np.uint64:
    """Move the amounts of ROWS rows from `row` on, in places: from the payer's four sums to the payee's, and to the gross.

    sums: uint64[4 * participants], two's complement, lowest place first; gross: uint64[4], which only grows. Nothing is
    carried from place to place: a sum holds 2^31 amounts, and whoever has added fewer carries once, at the end. A place is
    a lane of a vector, so that four are one addition and one store, where limbs of 64 bits take a carry for each row.
    Compiled, it also fetches the rows that come 256 and 2,048 later, to where each is needed next: the columns may end before.

    Returns: 0 where every amount was above zero.
    """
    zeros = 0
    for at in range(int(row), int(row) + ROWS):
        places = np.array(
            [lo[at] & _PLACE, lo[at] >> _PLACE_BITS, hi[at] & _PLACE, hi[at] >> _PLACE_BITS]
        )
        sums[PLACES * int(payers[at]) : PLACES * int(payers[at]) + PLACES] -= places
        sums[PLACES * int(payees[at]) : PLACES * int(payees[at]) + PLACES] += places
        gross += places
        zeros |= int(not places.any())
    return np.uint64(zeros)


@functools.cache
def teach(numba: Any) -> None:
    """Tell the compiler what calls of these functions in a kernel become."""
    types, extending = numba.types, numba.extending

    @extending.type_callable(prefetch)
    def _typed_prefetch(_context: Any) -> Callable[[Any, Any], Any]:
        return lambda _column, _place: types.none

    @extending.type_callable(move_rows)
    def _typed_move(_context: Any) -> Callable[..., Any]:
        return lambda _row, _payers, _payees, _lo, _hi, _sums, _gross: types.uint64

    extending.lower_builtin(prefetch, types.Array, types.Integer)(_lower_prefetch)
    extending.lower_builtin(move_rows, types.Integer, *[types.Array] * 6)(_lower_move)


def _lower_prefetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    column = context.make_array(signature.args[0])(context, builder, arguments[0])
    _fetch(builder, column.data, arguments[1], _LOCALITY[_NEAR])
    return context.get_dummy_value()


def _fetch(builder: Any, column: Any, place: Any, locality: int) -> None:
    """Emit the fetch of the line that column[place] lies in; locality: 3 the nearest cache, 2 the next."""
    from llvmlite import ir  # noqa: PLC0415 - comes with numba, see engine

    address, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
    hint = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
    line = builder.bitcast(builder.gep(column, [place]), address)
    # To read, with that locality, data.
    builder.call(hint, [line, number(0), number(locality), number(1)])


def _lower_move(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    from llvmlite import ir  # noqa: PLC0415 - comes with numba, see engine

    word = ir.IntType(64)
    four = ir.VectorType(word, _VECTOR)
    row = arguments[0]
    payers, payees, lo, hi, sums, gross = (
        context.make_array(kind)(context, builder, argument).data
        for kind, argument in zip(signature.args[1:], arguments[1:], strict=True)
    )

    def four_at(column: Any, place: Any) -> Any:
        return builder.bitcast(builder.gep(column, [place]), four.as_pointer())

    def load(address: Any) -> Any:
        return builder.load(address, align=_WORD_BYTES)

    def add_to(party: Any, change: Callable[[Any, Any], Any], places: Any) -> None:
        address = four_at(sums, builder.mul(builder.zext(party, word), word(PLACES)))
        builder.store(change(load(address), places), address, align=_WORD_BYTES)

    total, zeros = (
        load(four_at(gross, word(0))),
        ir.Constant(ir.VectorType(ir.IntType(1), _VECTOR), None),
    )
    for step in range(0, ROWS, _VECTOR):
        _fetch_ahead(builder, row, step, (payers, payees, lo, hi))
        first = builder.add(row, word(step))
        low, high = load(four_at(lo, first)), load(four_at(hi, first))
        is_zero = builder.icmp_unsigned("==", builder.or_(low, high), ir.Constant(four, None))
        zeros = builder.or_(zeros, is_zero)
        for lane, places in enumerate(_places_of(builder, low, high)):
            at = builder.add(row, word(step + lane))
            add_to(builder.load(builder.gep(payers, [at])), builder.sub, places)
            add_to(builder.load(builder.gep(payees, [at])), builder.add, places)
            total = builder.add(total, places)
    builder.store(total, four_at(gross, word(0)), align=_WORD_BYTES)
    return builder.zext(builder.bitcast(zeros, ir.IntType(_VECTOR)), word)


def _fetch_ahead(builder: Any, row: Any, step: int, columns: Iterable[Any]) -> None:
    """Emit the fetches of the lines that begin `step` rows into the rows that come later: spread out, they do not queue."""
    for column in columns:
        per_line = _LINE_BYTES * 8 // column.type.pointee.width
        if step % per_line == 0:
            for ahead, locality in _LOCALITY.items():
                _fetch(builder, column, builder.add(row, row.type(ahead + step)), locality)


def _places_of(builder: Any, low: Any, high: Any) -> list[Any]:
    """Emit the places of four amounts from vectors of their limbs."""
    from llvmlite import ir  # noqa: PLC0415 - comes with numba, see engine

    half = ir.IntType(32)

    def chosen(one: Any, other: Any, *lanes: int) -> Any:
        mask = ir.Constant(ir.VectorType(half, len(lanes)), list(lanes))
        return builder.shuffle_vector(one, other, mask)

    # A processor interleaves two vectors within halves of 128 bits: rows 0 and 2 in one, rows 1 and 3 in the other.
    even, odd = chosen(low, high, 0, 4, 2, 6), chosen(low, high, 1, 5, 3, 7)
    amounts = [chosen(both, both, *lanes) for lanes in ((0, 1), (2, 3)) for both in (even, odd)]
    halves, words = ir.VectorType(half, PLACES), ir.VectorType(ir.IntType(64), PLACES)
    return [builder.zext(builder.bitcast(amount, halves), words) for amount in amounts]
