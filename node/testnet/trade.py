"""A plausible trade network: who owes whom what in a week of trade, for demonstrations and tests.

Lives here: generated obligations. May not live here: anything random that a seed does not fix.

Importers' banks pay exporters' banks in USDT, and buy the USDT from exchanges for ETH and BTC; miners sell BTC to
exchanges; exchanges square up with each other. Much of it runs in circles, which is what netting is for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from clearing.types import Role
from node.testnet.plan import Party

OBLIGATIONS_DEFAULT = 6_000


@dataclass(frozen=True, slots=True)
class Trade:
    """One obligation as a back office knows it: parties and asset by name, the amount in smallest units.

    due_ms: milliseconds since 1970 at which it lapses unaffirmed, 0 for never. priority: 0 to 255, higher is paid first.
    """

    identity: str
    debtor: str
    creditor: str
    asset: str
    amount: int
    reference: str
    due_ms: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class _Flow:
    """A kind of business: who pays whom in what, how often, and its typical amount in smallest units."""

    what: str
    payers: tuple[Role, ...]
    payees: tuple[Role, ...]
    asset: str
    weight: int
    typical: int


_FLOWS = (
    _Flow("goods", (Role.BANK,), (Role.BANK,), "USDT", 44, 180_000 * 10**6),
    _Flow("currency bought", (Role.BANK,), (Role.EXCHANGE,), "ETH", 12, 42 * 10**18),
    _Flow("currency sold", (Role.EXCHANGE,), (Role.BANK,), "USDT", 14, 150_000 * 10**6),
    _Flow("margin", (Role.EXCHANGE,), (Role.BANK,), "ETH", 9, 38 * 10**18),
    _Flow("block rewards sold", (Role.MINER,), (Role.EXCHANGE,), "BTC", 7, 2 * 10**8),
    _Flow("power and hardware", (Role.MINER,), (Role.BANK,), "USDT", 4, 60_000 * 10**6),
    _Flow("reserves", (Role.EXCHANGE, Role.BANK), (Role.EXCHANGE, Role.BANK), "BTC", 10, 3 * 10**8),
)

_SPREAD = (30, 60, 100, 150, 250, 400, 600, 1_000, 1_000, 1_600, 2_500, 5_000, 12_000)
"""Thousandths of a flow's typical amount."""


def make_trades(
    parties: Sequence[Party], count: int = OBLIGATIONS_DEFAULT, seed: int = 1
) -> list[Trade]:
    """Return `count` obligations between `parties`; equal arguments give equal obligations.

    A few parties do most of the business, and amounts spread over three orders of magnitude, as trade does. Flows
    that need a role which nobody has are left out.
    """
    source = random.Random(seed)  # noqa: S311 - a demonstration that can be repeated, not a secret
    flows = [flow for flow in _FLOWS if _has_sides(parties, flow)]
    chosen = source.choices(flows, [flow.weight for flow in flows], k=count)
    trades = []
    for number, flow in enumerate(chosen, 1):
        payers, payees = _side(parties, flow.payers), _side(parties, flow.payees)
        debtor = source.choices(payers, _weights(payers))[0]
        others = [party for party in payees if party is not debtor]
        creditor = source.choices(others, _weights(others))[0]
        amount = flow.typical * source.choice(_SPREAD) * source.randint(800, 1_200) // 10**6
        trades.append(
            Trade(
                f"T{number:06d}",
                debtor.name,
                creditor.name,
                flow.asset,
                amount,
                f"{flow.what} {number:06d}",
            )
        )
    return trades


def _side(parties: Sequence[Party], roles: tuple[Role, ...]) -> list[Party]:
    return [party for party in parties if party.role in roles]


def _has_sides(parties: Sequence[Party], flow: _Flow) -> bool:
    """Return whether there is a payer, and for every payer a payee other than itself."""
    payers, payees = _side(parties, flow.payers), _side(parties, flow.payees)
    return bool(payers) and all(any(payee is not payer for payee in payees) for payer in payers)


def _weights(parties: Sequence[Party]) -> list[int]:
    """Return how much business each does: the first ones most."""
    return [1_000 // (place + 2) for place in range(len(parties))]
