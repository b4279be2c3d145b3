"""The template: who pays what is exact, the fee is as written, and the order of the facts does not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.bitcoin.settlement import (
    FRAME_WEIGHT,
    Coin,
    Payee,
    Payer,
    Template,
    common_weight,
    make_template,
    share_sat,
)
from clearing.bitcoin.transaction import MONEY_SAT_MAX, Outpoint, dust_sat
from clearing.errors import InvariantViolation, VerificationError
from tests.clearing.bitcoin.bitcoin_kit import coin, taproot, wpkh

AMOUNTS = st.integers(1_000, MONEY_SAT_MAX // 1000)


@st.composite
def facts(draw: st.DrawFn) -> tuple[list[Payer], list[Payee], int]:
    """Draw payers with coins enough, payees of the same sum, and a fee rate."""
    debits = draw(st.lists(AMOUNTS, min_size=1, max_size=5))
    rate = draw(st.integers(1_000, 50_000))
    payers = []
    for number, debit in enumerate(debits):
        name = f"payer {number}"
        script = draw(st.sampled_from([wpkh(name), taproot(name)]))
        parts = draw(st.integers(1, 3))
        extra = draw(st.integers(0, 400) | st.integers(30_000, 10**9))
        own = [
            Coin(
                Outpoint(bytes([number + 1]) * 32, at),
                debit // parts + debit + extra + 50_000,
                script,
            )
            for at in range(parts)
        ]
        payers.append(Payer(number, debit, tuple(own), script))
    count = draw(st.integers(1, 4))
    total = sum(debits)
    shares = [total // count] * (count - 1)
    shares.append(total - sum(shares))
    payees = [
        Payee(100 + at, share, draw(st.sampled_from([wpkh("x"), taproot("y")])))
        for at, share in enumerate(shares)
    ]
    return payers, payees, rate


def check(template: Template, payers: list[Payer], payees: list[Payee], rate: int) -> None:
    """Check a template against its facts, in plain arithmetic."""
    made = template.transaction
    assert [one.outpoint for _, one in template.inputs] == list(made.inputs)
    assert [line.output for line in template.outputs] == list(made.outputs)
    shown = [(line.participant, line.output.amount_sat) for line in template.outputs]
    assert shown[: len(payees)] == [(one.participant, one.amount_sat) for one in payees]
    fees = dict(template.fees_sat)
    for payer in payers:
        back = sum(
            line.output.amount_sat
            for line in template.outputs
            if line.is_change and line.participant == payer.participant
        )
        # What leaves a payer is exactly what it owes and its part of the fee.
        assert payer.brought_sat - back == payer.debit_sat + fees[payer.participant]
        assert back == 0 or back >= dust_sat(payer.change_script)
    total_in = sum(one.amount_sat for _, one in template.inputs)
    assert total_in - sum(one.amount_sat for one in made.outputs) == template.fee_sat
    assert template.fee_sat * 4000 >= rate * template.weight_max


@settings(max_examples=150)
@given(facts(), st.randoms())
def test_everyone_pays_and_gets_exactly_its_net_in_any_order(drawn, random) -> None:
    payers, payees, rate = drawn
    template = make_template(payers, payees, rate)
    check(template, payers, payees, rate)
    random.shuffle(payers)
    random.shuffle(payees)
    mixed = [replace(one, coins=tuple(random.sample(one.coins, len(one.coins)))) for one in payers]
    assert make_template(mixed, payees, rate) == template


def test_the_fee_is_the_written_rule() -> None:
    # 2,000 sat/kvB: own 272 (P2WPKH in) + 124 (P2WPKH change) weight, common 58 + 172 shared by one.
    template = make_template(
        [Payer(1, 50_000, (coin("a", 100_000),), wpkh("a"))],
        [Payee(2, 50_000, taproot("b"))],
        2_000,
    )
    assert common_weight([Payee(2, 50_000, taproot("b"))]) == FRAME_WEIGHT + 172 == 230
    assert template.fees_sat == ((1, -(-2_000 * 396 // 4000) + 115),)
    assert share_sat(1_000, 1, 1, 3) == 2


def test_change_below_dust_is_left_to_the_miner() -> None:
    brought = 50_000 + 251 + 300
    template = make_template(
        [Payer(1, 50_000, (coin("a", brought),), wpkh("a"))], [Payee(2, 50_000, wpkh("b"))], 2_000
    )
    assert [line.is_change for line in template.outputs] == [False]
    assert template.fee_sat == brought - 50_000


def test_too_little_coin_and_unequal_sums_are_refused() -> None:
    payer = Payer(1, 50_000, (coin("a", 50_010),), wpkh("a"))
    with pytest.raises(VerificationError, match="participant 1 brings 50010 sat"):
        make_template([payer], [Payee(2, 50_000, wpkh("b"))], 1_000)
    with pytest.raises(InvariantViolation, match="differ"):
        make_template([payer], [Payee(2, 49_999, wpkh("b"))], 1_000)
