"""Which machine runs the kernels: numba where it is installed, numpy everywhere else.

Lives here: the only place in the package that knows whether numba is there, the decorator that compiles a
kernel, and the way a caller hands in threads. May not live here: any kernel, any rule of netting.
Invariant kept: the choice changes how long an answer takes and never one bit of it.

Every kernel exists twice, as a scalar loop for the compiler and as numpy array code, and every public
function takes `engine` and picks with `Engine.choose`. A compiled kernel is cached beside its source file and
is rebuilt when *that* file changes, so a kernel calls only kernels of its own file and of `limbs`, and `instructions`.
"""

from __future__ import annotations

import enum
import functools
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clearing.errors import ClearingError
from clearing.netting import instructions

HAS_NUMBA: Final = importlib.util.find_spec("numba") is not None
"""Whether kernels can be compiled here; where there is no wheel every function runs its numpy form.

numba itself is imported at the first compiled call: it is half the start of a process, and most never make one.
"""

# numpy gives allocations from here on huge pages, where the system has them on request.
_HUGE_FROM_BYTES: Final = 4 << 20
_WORTH_PAGES_BYTES: Final = 1 << 20

_Function = TypeVar("_Function", bound=Callable[..., object])
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class EngineUnavailable(ClearingError):  # noqa: N818 - the name says what happened
    """The compiled engine was asked for by name on a machine that has no numba."""


class Engine(enum.Enum):
    """The two ways to run a kernel; the value is the name that reports print."""

    COMPILED = "numba"
    PORTABLE = "numpy"

    def choose(self, compiled: _Function, portable: _Function) -> _Function:
        """Pick one of the two forms of a kernel.

        Returns: `compiled` for COMPILED, `portable` for PORTABLE.
        Raises: EngineUnavailable: COMPILED without numba; its scalar loops would run for hours.
        """
        if self is Engine.PORTABLE:
            return portable
        if not HAS_NUMBA:
            raise EngineUnavailable("numba is not installed: install it or use Engine.PORTABLE")
        return compiled


DEFAULT: Final = Engine.COMPILED if HAS_NUMBA else Engine.PORTABLE


class Runner(Protocol):
    """How independent pieces of work are run: like the built-in `map`, in order of the items.

    `concurrent.futures.ThreadPoolExecutor.map` is one. Kernels release the interpreter lock, write only to
    arrays of their own piece, and sums of integers do not depend on order, so any runner gives the same bits.
    """

    def __call__(
        self, work: Callable[[_Item], _Answer], items: Iterable[_Item], /
    ) -> Iterable[_Answer]: ...


def in_turn(work: Callable[[_Item], _Answer], items: Iterable[_Item], /) -> Iterable[_Answer]:
    """Run the pieces one after the other on the caller's thread: the default `Runner`."""
    return map(work, items)


class _Kernel:
    """A scalar loop that is compiled at its first call, cached on disk."""

    def __init__(self, function: Callable[..., object]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    @functools.cached_property
    def _compiled(self) -> Any:
        import numba  # noqa: PLC0415 - see HAS_NUMBA

        instructions.teach(numba)
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy")(self._function)
        except RuntimeError:  # neither package nor home directory can be written: compile each time
            return numba.njit(nogil=True, error_model="numpy")(self._function)

    @property
    def _numba_type_(self) -> Any:
        """By this numba compiles a call of one kernel in another: it asks any object that it meets."""
        return self._compiled._numba_type_

    def __call__(self, *arguments: object) -> object:
        return self._compiled(*arguments)


def jit(function: _Function) -> _Function:
    """Compile a scalar loop over arrays, cached on disk, without the interpreter lock and bounds checks.

    The function must validate every index it did not make itself: a bad one corrupts memory. Integers of
    different signedness must never meet in one expression: numba would make them floats.

    Returns: the kernel, compiled when it is first called, or the function itself where numba is missing.
    """
    return cast("_Function", _Kernel(function)) if HAS_NUMBA else function


def describe(engine: Engine = DEFAULT) -> dict[str, str]:
    """Say what runs the kernels, for reports: the engine's name and the versions behind it.

    Returns: name -> text; never part of a hashed result.
    """
    facts = {"kernels": engine.value, "numpy": np.__version__}
    if engine is Engine.COMPILED and HAS_NUMBA:
        import numba  # noqa: PLC0415 - see HAS_NUMBA

        facts["numba"] = str(numba.__version__)
    return facts


def room(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Allocate what a kernel is to fill, without clearing it.

    A kernel's own np.empty is mapped in pages of 4 KiB, one fault each, which takes longer than filling it: measured 6.4 ms
    against 0.6 ms for 16 MB. numpy asks for huge pages from 4 MiB on, so that from 1 MiB on that much is reserved.
    """
    kind = np.dtype(dtype)
    used = count * kind.itemsize
    if used < _WORTH_PAGES_BYTES:
        return np.empty(count, kind)
    reserved = max(used, _HUGE_FROM_BYTES)
    return np.empty(reserved, np.uint8)[:used].view(kind)
