"""The worked cases of Project Ubin phase 2, as published and as computed from their definition."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import Engine
from clearing.netting.gridlock import gridlock
from clearing.netting.limits import Limits
from tests.clearing.netting.netting_kit import ENGINES

VECTORS = pathlib.Path(__file__).parents[2] / "vectors" / "ubin_netting.json"
CASES = json.loads(VECTORS.read_text())["cases"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_greatest_set_and_the_closing_balances(engine: Engine, case: dict[str, Any]) -> None:
    names = sorted(case["balances"])
    number = {name: place for place, name in enumerate(names)}
    queue = sorted(case["queue"], key=lambda payment: payment["order"])
    columns = AssetColumns.of(
        [number[payment["payer"]] for payment in queue],
        [number[payment["payee"]] for payment in queue],
        [payment["amount"] for payment in queue],
    )
    balances = {number[name]: amount for name, amount in case["balances"].items()}
    settlement = gridlock(columns, Limits.of(len(names), balances), engine=engine)
    settled = sorted(queue[row]["id"] for row in np.flatnonzero(settlement.settled))
    moved = wide.to_ints(settlement.movements)
    closing = {name: case["balances"][name] + moved[number[name]] for name in names}
    # Fabric and Quorum ran EAF2, which looks for this set; Corda settles the cycles that it finds.
    for prototype in ("fabric", "quorum"):
        assert settled == sorted(case["published"][prototype]["settled"])
        assert closing == case["published"][prototype]["closing"]
    assert settled == sorted(case["greatest_fifo_set"]["settled"])
    assert settlement.value(columns) == case["greatest_fifo_set"]["value"]
