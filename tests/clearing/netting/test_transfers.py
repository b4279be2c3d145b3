"""Transfers that settle positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.columns import InvalidColumns
from clearing.netting.engine import Engine
from clearing.netting.transfers import AGENT, Transfers, pairwise, through_agent
from tests.clearing.netting.netting_kit import ENGINES

SIZES = st.sampled_from([2, 2**63, 2**64, 2**128, 2**180])
BALANCED = SIZES.flatmap(lambda size: st.lists(st.integers(-size, size), max_size=20)).map(
    lambda positions: [*positions, -sum(positions)]
)


def lists(transfers: Transfers) -> list[tuple[int, int, int]]:
    ends = transfers.payer.tolist(), transfers.payee.tolist()
    return list(zip(*ends, wide.to_ints(transfers.amount), strict=True))


@given(BALANCED)
def test_the_agent_is_paid_first_and_ends_at_zero(positions: list[int]) -> None:
    made = lists(through_agent(wide.from_ints(positions)))
    pay_ins = [(number, AGENT, -net) for number, net in enumerate(positions) if net < 0]
    pay_outs = [(AGENT, number, net) for number, net in enumerate(positions) if net > 0]
    assert made == pay_ins + pay_outs
    assert sum(amount for _, _, amount in pay_ins) == sum(amount for _, _, amount in pay_outs)


@pytest.mark.parametrize("engine", ENGINES)
@given(positions=BALANCED)
def test_pairwise_settles_everyone_with_one_transfer_fewer(
    engine: Engine, positions: list[int]
) -> None:
    net = wide.from_ints(positions)
    made = lists(pairwise(net, engine=engine))
    left = list(positions)
    for payer, payee, amount in made:
        assert amount > 0
        left[payer] += amount
        left[payee] -= amount
    assert not any(left)
    assert len(made) <= max(0, sum(1 for position in positions if position) - 1)
    assert [pair[:2] for pair in made] == sorted(pair[:2] for pair in made)
    assert wide.to_ints(net) == positions, "the positions are not changed"


@pytest.mark.parametrize("engine", ENGINES)
def test_pairwise_order_is_fixed(engine: Engine) -> None:
    net = wide.from_ints([-5, 3, -1, 0, 3])
    assert lists(pairwise(net, engine=engine)) == [(0, 1, 3), (0, 4, 2), (2, 4, 1)]


def test_positions_that_do_not_balance_are_refused() -> None:
    for settle in (through_agent, pairwise):
        with pytest.raises(InvalidColumns, match="add up to zero"):
            settle(wide.from_ints([1, 2**190, -(2**190)]))
        assert lists(settle(wide.zeros(0))) == []
