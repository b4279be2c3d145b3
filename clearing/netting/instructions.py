"""What a processor does in an instruction or two and numba has no words for.

Lives here: each as a function that a kernel calls, and what the compiler makes of it. May not live here: loops, rules.
Outside compiled code they do the same, slowly; a kernel's cache does not notice a change here, so remove the caches after one.
Nothing here checks a place: the kernel has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

U64: TypeAlias = NDArray[np.uint64]

PLACES: Final = 4
"""Places of 32 bits in an amount."""

_PLACE_BITS: Final = np.uint64(32)
_PLACE: Final = np.uint64(2**32 - 1)
_WORD_BYTES: Final = 8


def prefetch(column: NDArray[Any], place: Any) -> None:
    """Ask the processor for column[place] ahead of its use, into the nearest cache; outside compiled code nothing.

    It never faults, so `place` may lie beyond the end.
    """


def move_places(
    sums: U64, payer: np.uint64, payee: np.uint64, lo: np.uint64, hi: np.uint64
) -> None:
    """Take the four places of an amount from the payer's four sums and add them to the payee's.

    sums: uint64[4 * participants], two's complement, lowest place first. Nothing is carried from place to place: a sum holds
    2^31 amounts, and whoever has added fewer carries once, at the end. That takes one vector instruction for the four and no
    comparison, where limbs of 64 bits take a carry for each row.
    """
    places = np.array([lo & _PLACE, lo >> _PLACE_BITS, hi & _PLACE, hi >> _PLACE_BITS])
    sums[PLACES * int(payer) : PLACES * int(payer) + PLACES] -= places
    sums[PLACES * int(payee) : PLACES * int(payee) + PLACES] += places


@functools.cache
def teach(numba: Any) -> None:
    """Tell the compiler what calls of these functions in a kernel become."""
    types, extending = numba.types, numba.extending

    @extending.type_callable(prefetch)
    def _typed_prefetch(_context: Any) -> Callable[[Any, Any], Any]:
        return lambda _column, _place: types.none

    @extending.type_callable(move_places)
    def _typed_move(_context: Any) -> Callable[[Any, Any, Any, Any, Any], Any]:
        return lambda _sums, _payer, _payee, _lo, _hi: types.none

    integers = [types.Integer] * 4
    extending.lower_builtin(prefetch, types.Array, types.Integer)(_lower_prefetch)
    extending.lower_builtin(move_places, types.Array, *integers)(_lower_move)


def _lower_prefetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    from llvmlite import ir  # noqa: PLC0415 - comes with numba, see engine

    column = context.make_array(signature.args[0])(context, builder, arguments[0])
    address, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
    hint = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
    place = builder.bitcast(builder.gep(column.data, [arguments[1]]), address)
    # To read, into the nearest cache, data.
    builder.call(hint, [place, number(0), number(3), number(1)])
    return context.get_dummy_value()


def _lower_move(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    from llvmlite import ir  # noqa: PLC0415 - comes with numba, see engine

    array, payer, payee, lo, hi = arguments
    sums = context.make_array(signature.args[0])(context, builder, array)
    word, half = ir.IntType(64), ir.IntType(32)
    four = ir.VectorType(word, PLACES)
    amount = ir.Constant(ir.VectorType(word, 2), ir.Undefined)
    for at, limb in enumerate((lo, hi)):
        amount = builder.insert_element(amount, limb, half(at))
    places = builder.zext(builder.bitcast(amount, ir.VectorType(half, PLACES)), four)
    for cell, change in ((payer, builder.sub), (payee, builder.add)):
        first = builder.gep(sums.data, [builder.mul(cell, word(PLACES))])
        address = builder.bitcast(first, four.as_pointer())
        have = builder.load(address, align=_WORD_BYTES)
        builder.store(change(have, places), address, align=_WORD_BYTES)
    return context.get_dummy_value()
