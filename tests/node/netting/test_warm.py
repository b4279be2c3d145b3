"""The call of `make install` that compiles every kernel: whatever is netted afterwards, nothing is compiled."""

from __future__ import annotations

import gc

from clearing.netting.engine import DEFAULT, HAS_NUMBA, _Kernel
from clearing.netting.result import Method
from node.netting.obligation_file import read_cells, read_obligations
from node.netting.run import Options, Paying
from node.netting.warm import EXAMPLE, warm
from tests.node.netting.document_kit import limits_of, written

MANY = b"id,debtor,creditor,asset,amount,priority\n" + b"".join(
    b"%d,P%d,P%d,A%d,%d,%d\n"
    % (row, row % 40_000, row % 39_999 + 40_000, row % 2, 1 << row % 127, row % 3)
    for row in range(80_000)
)


def compiled() -> dict[int, int]:
    """Count the signatures for which each kernel has been compiled, or loaded from the cache."""
    kernels = [found for found in gc.get_objects() if isinstance(found, _Kernel)]
    return {id(kernel): len(kernel._compiled.signatures) for kernel in kernels}


def test_after_it_no_method_and_no_file_compiles_anything() -> None:
    warm()
    before = compiled()
    assert (sum(before.values()) > len(Method)) is HAS_NUMBA
    limits = limits_of({("A0", "P0"): 5, ("BTC", "P0"): 5})
    for table in (read_cells(EXAMPLE), read_obligations(EXAMPLE), read_obligations(MANY)):
        for method in Method:
            for paying in Paying:
                money = None if method is Method.BILATERAL else limits
                bypass = method is Method.GRIDLOCK
                options = Options(method, bypass, liquidity=money, paying=paying)
                written(table, options, DEFAULT)
    assert compiled() == before
