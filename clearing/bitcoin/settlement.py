"""The one transaction that settles the Bitcoin leg of a cycle: who brings which coins, who gets what, who bears the fee.

Lives here: the template, made from facts that every replica has, byte for byte the same everywhere. May not live here:
signatures (psbt.py), where the facts come from (rules), a node.

The rule. Inputs: ascending by payer, then by outpoint (txid as hashed, index). Outputs: the payees ascending, each paid exactly
its net position; then the payers' change ascending, at most one each. Version 2, lock time 0, every sequence final.
The fee is borne by the payers alone. Each bears

    ceil(rate * own / 4000) + ceil(rate * common / (4000 * payers))        rate in satoshi per 1,000 virtual bytes

where own is the weight of its inputs and its change, and common that of the payees' outputs and of the transaction's frame; both
rounded up to a satoshi. So a payer knows the most it can cost before it names its coins, and nobody pays for another's
many small ones. Change below dust is not paid out: the payer's fee is greater by it.
Source: own rule; weights from BIP 141, BIP 143 (73 bytes of signature and hash type at most), BIP 341.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearing.bitcoin.transaction import (
    P2WPKH_BYTES,
    Outpoint,
    Output,
    Transaction,
    dust_sat,
)
from clearing.errors import VerificationError, invariant

INPUTS_MAX = 300
PAYERS_MAX = 150
PAYEES_MAX = 200
"""So that the transaction, without witnesses, fits one instruction of evidence (params.PAYLOAD_BYTES_MAX)."""

FEE_RATE_MIN = 1_000
"""Least fee rate, satoshi per 1,000 virtual bytes: what nodes relay by default."""

FRAME_WEIGHT = 4 * (4 + 4 + 3 + 3) + 2
_INPUT_BASE_BYTES = 32 + 4 + 1 + 4
_P2WPKH_WITNESS_BYTES = 1 + 1 + 72 + 1 + 33
_P2TR_WITNESS_BYTES = 1 + 1 + 64

_VERSION = 2
_FINAL_SEQUENCE = b"\xff" * 4


def input_weight(script: bytes) -> int:
    """Return the weight of an input that spends a settlement script, signed as long as it can be."""
    witness = _P2WPKH_WITNESS_BYTES if len(script) == P2WPKH_BYTES else _P2TR_WITNESS_BYTES
    return 4 * _INPUT_BASE_BYTES + witness


def output_weight(script: bytes) -> int:
    """Return the weight of an output."""
    return 4 * (8 + 1 + len(script))


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output that a payer brings; that its amount is true its own signature vouches for."""

    outpoint: Outpoint
    amount_sat: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays net, how much, with which coins, and where its change goes."""

    participant: int
    debit_sat: int
    coins: tuple[Coin, ...]
    change_script: bytes

    @property
    def brought_sat(self) -> int:
        """Sum of its coins."""
        return sum(coin.amount_sat for coin in self.coins)


@dataclass(frozen=True, slots=True)
class Payee:
    """Who is paid net, how much, and to which registered script."""

    participant: int
    amount_sat: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """One output of the template: whose it is, and whether it is a payer's change."""

    participant: int
    output: Output
    is_change: bool


@dataclass(frozen=True, slots=True)
class Template:
    """The unsigned transaction with the meaning of each input and output, in order.

    inputs: (participant, coin). fees_sat: (payer, what it bears), ascending by payer.
    """

    inputs: tuple[tuple[int, Coin], ...]
    outputs: tuple[Line, ...]
    fees_sat: tuple[tuple[int, int], ...]
    transaction: Transaction

    @property
    def fee_sat(self) -> int:
        """The whole fee."""
        return sum(fee for _, fee in self.fees_sat)

    @property
    def weight_max(self) -> int:
        """The greatest weight that the signed transaction can have."""
        inputs = sum(input_weight(coin.script) for _, coin in self.inputs)
        return (
            FRAME_WEIGHT + inputs + sum(output_weight(line.output.script) for line in self.outputs)
        )


def common_weight(payees: Sequence[Payee]) -> int:
    """Return the weight that the payers share: the payees' outputs and the frame."""
    return FRAME_WEIGHT + sum(output_weight(payee.script) for payee in payees)


def share_sat(fee_rate: int, own_weight: int, common: int, payers: int) -> int:
    """Return what one of `payers` bears of the fee: see the module's rule."""
    return -(-fee_rate * own_weight // 4000) + -(-fee_rate * common // (4000 * payers))


def cost_sat(payer: Payer, fee_rate: int, common: int, payers: int) -> tuple[int, int]:
    """Return a payer's part of the fee and its change, 0 for none.

    Raises: VerificationError: its coins do not cover what it owes and its part of the fee.
    """
    inputs = sum(input_weight(coin.script) for coin in payer.coins)
    left = payer.brought_sat - payer.debit_sat
    with_change = share_sat(fee_rate, inputs + output_weight(payer.change_script), common, payers)
    if left - with_change >= dust_sat(payer.change_script):
        return with_change, left - with_change
    without = share_sat(fee_rate, inputs, common, payers)
    if left < without:
        raise VerificationError(
            f"participant {payer.participant} brings {payer.brought_sat} sat: "
            f"{payer.debit_sat + without} are needed"
        )
    return left, 0


def make_template(payers: Sequence[Payer], payees: Sequence[Payee], fee_rate: int) -> Template:
    """Return the one transaction that these facts allow; the order in which they are given does not matter.

    Caller's duties: debits sum to the payees' amounts, coins are distinct, scripts are settlement scripts.
    Raises: VerificationError: the coins of a payer do not cover what it owes; InvariantViolation: a duty was not kept.
    """
    payers = sorted(payers, key=lambda payer: payer.participant)
    payees = sorted(payees, key=lambda payee: payee.participant)
    paid = sum(payee.amount_sat for payee in payees)
    invariant(
        paid == sum(payer.debit_sat for payer in payers), "debits and credits of a leg differ"
    )
    common = common_weight(payees)
    inputs: list[tuple[int, Coin]] = []
    change: list[Line] = []
    fees = []
    for payer in payers:
        fee, rest = cost_sat(payer, fee_rate, common, len(payers))
        fees.append((payer.participant, fee))
        coins = sorted(payer.coins, key=lambda coin: coin.outpoint)
        inputs += [(payer.participant, coin) for coin in coins]
        if rest:
            change.append(Line(payer.participant, Output(rest, payer.change_script), True))
    outputs = [Line(one.participant, Output(one.amount_sat, one.script), False) for one in payees]
    outputs += change
    raw = _unsigned([coin.outpoint for _, coin in inputs], [line.output for line in outputs])
    return Template(tuple(inputs), tuple(outputs), tuple(fees), Transaction.decode(raw))


def _count(number: int) -> bytes:
    """Return a CompactSize. Source: Bitcoin Core src/serialize.h."""
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + number.to_bytes(2, "little")


def _unsigned(inputs: Sequence[Outpoint], outputs: Sequence[Output]) -> bytes:
    parts = [_VERSION.to_bytes(4, "little"), _count(len(inputs))]
    parts += [one.encode() + b"\0" + _FINAL_SEQUENCE for one in inputs]
    parts.append(_count(len(outputs)))
    for one in outputs:
        parts += [one.amount_sat.to_bytes(8, "little"), _count(len(one.script)), one.script]
    parts.append(bytes(4))
    return b"".join(parts)
