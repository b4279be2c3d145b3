"""Start of the compiled kernels: importing them, the first call with an empty cache and with a filled one.

`make install` fills the cache, so that users meet the second; the first shows what that saves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.measure import Figure

_FIRST_CALL = """
import json, time
start = time.perf_counter()
from clearing.netting.columns import AssetColumns
from clearing.netting.positions import net_positions
imported = time.perf_counter()
columns = AssetColumns.of([0, 1], [1, 2], [5, 7])
called = time.perf_counter()
net_positions(columns, 3)
end = time.perf_counter()
print(json.dumps({"import": imported - start, "call": end - called}))
"""
_WARM = """
import json, time
start = time.perf_counter()
from clearing.netting.warm import warm
warm()
print(json.dumps({"warm": time.perf_counter() - start}))
"""


def measured(script: str, cache: str) -> dict[str, float]:
    """Run a script in a process of its own with its kernels cached in `cache`; return the seconds it prints."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def run(*, quick: bool) -> list[Figure]:
    """Measure import and first call, cold and cached; the whole package unless quick."""
    with tempfile.TemporaryDirectory() as cache:
        cold, cached = measured(_FIRST_CALL, cache), measured(_FIRST_CALL, cache)
    figures = [
        Figure("import of the positions", round(cached["import"], 3), "s"),
        Figure("first call of positions, compiled", round(cold["call"], 3), "s"),
        Figure("first call of positions, from the cache", round(cached["call"], 3), "s"),
    ]
    if quick:
        return figures
    with tempfile.TemporaryDirectory() as cache:
        cold, cached = measured(_WARM, cache), measured(_WARM, cache)
    return [
        *figures,
        Figure("all kernels, compiled (make install)", round(cold["warm"], 3), "s"),
        Figure("all kernels, from the cache", round(cached["warm"], 3), "s"),
    ]
