"""The call that compiles every kernel."""

from __future__ import annotations

import pytest

from clearing.netting.columns import Tier, gross_of, tier_of
from clearing.netting.warm import example, warm


@pytest.mark.parametrize("tier", list(Tier))
def test_the_examples_are_of_every_tier(tier: Tier) -> None:
    assert tier_of(gross_of(example(tier))) is tier


def test_warming_works_with_what_is_installed() -> None:
    warm()
