"""Compile every kernel of the project into the on-disk cache: `python -m node.netting.warm`, which `make install` runs.

Lives here: the kernels that read and write files of obligations, after those of clearing/netting. May not live here: anything
that a result depends on.
"""

from __future__ import annotations

import numpy as np

from clearing.netting.engine import DEFAULT, HAS_NUMBA
from clearing.netting.warm import warm as warm_netting
from node.netting import csv_kernel
from node.netting.obligation_file import scan_plain
from node.netting.texts import decimals, join_lines

EXAMPLE = b"id,debtor,creditor,asset,amount\n" + b"".join(
    b"%d,P%d,P%d,BTC,%d\n" % (row, row, row + 1, 1 << row) for row in range(128)
)


def warm() -> None:
    """Run every kernel once; where numba is missing this does next to nothing."""
    warm_netting()
    if not HAS_NUMBA:
        return
    scan_plain(EXAMPLE)
    csv_kernel.grown(csv_kernel.empty_names(16), 0)
    for hi in (None, np.ones(1, np.uint64)):
        join_lines([b"-", decimals(np.ones(1, np.uint64), hi)], engine=DEFAULT)


if __name__ == "__main__":
    warm()
