"""Generated trade: repeatable, between licensed obligors, and worth netting."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from clearing.types import AMOUNT_MAX, OBLIGORS
from node.testnet.plan import AUTHORITIES, numbered_parties
from node.testnet.trade import make_trades


@pytest.mark.parametrize("count", [3, 6, 12, 60])
def test_trades_are_between_two_obligors_with_an_amount(count: int) -> None:
    parties = numbered_parties(count)
    roles = {party.name: party.role for party in parties}
    trades = make_trades(parties, 2_000)
    assert len({trade.identity for trade in trades}) == len(trades) == 2_000
    for trade in trades:
        assert trade.debtor != trade.creditor
        assert roles[trade.debtor] in OBLIGORS
        assert roles[trade.creditor] in OBLIGORS
        assert 0 < trade.amount <= AMOUNT_MAX
    assert set(Counter(trade.asset for trade in trades)) == {"BTC", "ETH", "USDT"}


def test_a_seed_fixes_everything() -> None:
    parties = numbered_parties(6)
    assert make_trades(parties, 500) == make_trades(parties, 500)
    assert make_trades(parties, 500) != make_trades(parties, 500, seed=2)


def test_authorities_do_not_trade() -> None:
    names = {party.name for party in AUTHORITIES}
    trades = make_trades([*AUTHORITIES, *numbered_parties(6)], 2_000)
    assert not names & {trade.debtor for trade in trades} | names & {t.creditor for t in trades}


def test_netting_saves_more_than_half_of_it() -> None:
    gross = net = 0
    positions: defaultdict[str, int] = defaultdict(int)
    for trade in make_trades(numbered_parties(12)):
        if trade.asset == "USDT":
            gross += trade.amount
            positions[trade.debtor] -= trade.amount
            positions[trade.creditor] += trade.amount
    net = sum(value for value in positions.values() if value > 0)
    assert 0 < net * 2 < gross
