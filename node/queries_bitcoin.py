"""Queries about Bitcoin: a cycle's leg with the facts its transaction is made of; declared mined coin.

Lives here: those reads over committed rows. May not live here: rights (services), protobuf (wire_bitcoin.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from clearing.bitcoin.settlement import Payee, Payer, Template, make_template
from clearing.rows import Reader, Table, key_position, key_script, key_u32
from clearing.rules.bitcoin_terms import TaxRule
from clearing.rules.cycles import Cycle
from clearing.rules.legs import Leg, NamedCoins
from clearing.rules.mined import Batch, Draw, MonthRow, report
from clearing.rules.settlement import SettlementInstruction
from clearing.types import SettlementKind


@dataclass(frozen=True, slots=True)
class LegRow:
    """A cycle's leg. payers: (participant, debit in satoshi, its coins, None before it named any), ascending."""

    cycle: int
    leg: Leg
    payers: tuple[tuple[int, int, NamedCoins | None], ...]
    payees: tuple[Payee, ...]

    @property
    def parties(self) -> frozenset[int]:
        """Who pays and who is paid."""
        payers = {participant for participant, _, _ in self.payers}
        return frozenset(payers | {payee.participant for payee in self.payees})

    def template(self) -> Template:
        """Return the transaction. Caller's duty: the leg was offered, so that every payer has named its coins."""
        payers = [
            Payer(participant, debit, named.coins, named.change_script)
            for participant, debit, named in self.payers
            if named is not None
        ]
        return make_template(payers, self.payees, self.leg.fee_rate)


def leg(reader: Reader, cycle: int) -> LegRow | None:
    """Return a cycle's leg, or None where it has none."""
    if not 0 < cycle < 1 << 32:
        return None
    row, cycle_row = (
        reader.get(Table.LEGS, key_u32(cycle)),
        reader.get(Table.CYCLES, key_u32(cycle)),
    )
    if row is None or cycle_row is None:
        return None
    found, netted_index = Leg.decode(row), Cycle.decode(cycle_row).netted_index
    payers: list[tuple[int, int, NamedCoins | None]] = []
    payees: list[Payee] = []
    for _, value in reader.scan(Table.SETTLEMENTS, key_u32(cycle)):
        item = SettlementInstruction.decode(value)
        if item.asset != found.asset or item.kind is SettlementKind.REFUND:
            continue
        if item.kind is SettlementKind.PAY_IN:
            named = reader.get(Table.LEG_COINS, key_u32(cycle, item.participant))
            coins = None if named is None else NamedCoins.decode(named)
            payers.append((item.participant, item.amount_units, coins))
        else:
            script = _script(reader, item.participant, found.asset, netted_index)
            payees.append(Payee(item.participant, item.amount_units, script))
    return LegRow(cycle, found, tuple(payers), tuple(payees))


def _script(reader: Reader, participant: int, asset: int, index: int) -> bytes:
    start = key_script(participant, asset, index - 1)
    row = next(iter(reader.scan(Table.SCRIPTS, key_position(participant, asset), start)), None)
    return b"" if row is None else row[1]


@dataclass(frozen=True, slots=True)
class MinedCoin:
    """Declared mined coin: (miner, log index of the declaration, batch), ascending; and every draw."""

    batches: tuple[tuple[int, int, Batch], ...]
    draws: tuple[Draw, ...]

    def months(self, tax: TaxRule) -> tuple[MonthRow, ...]:
        """Return the report by miner and month."""
        return report(((miner, batch) for miner, _, batch in self.batches), self.draws, tax)


def mined_coin(reader: Reader, miner: int | None) -> MinedCoin:
    """Return one miner's declarations and draws, or everybody's."""
    prefix = b"" if miner is None else key_u32(miner)
    batches = tuple(
        (int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big"), Batch.decode(value))
        for key, value in reader.scan(Table.BATCHES, prefix)
    )
    draws = (Draw.decode(value) for _, value in reader.scan(Table.DRAWS))
    return MinedCoin(batches, tuple(one for one in draws if miner in (None, one.miner)))
