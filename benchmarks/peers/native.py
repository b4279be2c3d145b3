"""Peers in C and C++, compiled on the spot where a compiler and the headers are there.

Lives here: compiling and the signatures. May not live here: timing.
"""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import subprocess
from typing import Any

from numpy.typing import NDArray

from benchmarks.contest import PeerAbsent

HERE = pathlib.Path(__file__).parent
BUILD = HERE / "build"
FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")


def library(source: str, compilers: tuple[str, ...]) -> ctypes.CDLL:
    """Compile a source file beside this one into a shared library, and load it.

    Raises: PeerAbsent: no compiler, or it says no (missing headers).
    """
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        raise PeerAbsent(f"none of {', '.join(compilers)} is installed")
    BUILD.mkdir(exist_ok=True)
    path = HERE / source
    made = BUILD / (source + ".so")
    if not made.exists() or made.stat().st_mtime < path.stat().st_mtime:
        command = [compiler, *FLAGS, str(path), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise PeerAbsent(f"{source} does not compile: {(errors or ['?'])[0]}")
    return ctypes.CDLL(str(made))


def positions() -> ctypes.CDLL:
    """Return positions.c, compiled."""
    loaded = library("positions.c", ("cc", "gcc", "clang"))
    for name in ("net_int64_u16", "net_int64_u32", "net_int128_u16", "net_int128_u32"):
        function = getattr(loaded, name, None)
        if function is not None:
            function.restype = ctypes.c_int64
    loaded.sweep.restype = ctypes.c_uint64
    return loaded


def lemon(solver: str) -> Any:
    """Return one solver of lemon.cc, compiled: lemon_network_simplex or lemon_cost_scaling."""
    function = getattr(library("lemon.cc", ("c++", "g++", "clang++")), solver)
    function.restype = ctypes.c_int64
    return function


def pointer(array: NDArray[Any] | None) -> ctypes.c_void_p:
    """Return the address of a contiguous array, for a call."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)
