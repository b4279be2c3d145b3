"""A payer's side: find its own inputs by its keys, check what they cost, sign them and nothing else.

Lives here: keys of coins, the check, signing. May not live here: the ledger, the network; a machine behind an air gap runs this.

What is trusted is the keys and two figures the payer brings along: what it owes, and the most that it will pay in fees. What is
not its own input or its own change is money that leaves it, whatever the file says of it.
Source: BIP 143, BIP 341 (messages signed), BIP 340 (Schnorr), by btclib; keys and signatures by embit (libsecp256k1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from btclib import bip322
from btclib.exceptions import BTClibException
from btclib.key import PrvKeyData
from btclib.psbt import Psbt, ecdsa_sig_hash, taproot_sig_hash
from btclib.script.script_pub_key import ScriptPubKey
from embit import bip32, ec, script
from embit.base import EmbitError

from clearing.bitcoin.psbt import (
    SIGHASH_ALL,
    SIGHASH_DEFAULT,
    inputs_of,
)
from clearing.bitcoin.transaction import P2WPKH_BYTES
from clearing.errors import DecodeError, VerificationError
from node.errors import SetupError

GAP = 50
"""Addresses of an account that are looked through, of each branch."""

_ACCOUNTS = ("84h/{coin}h/0h", "86h/{coin}h/0h")
_COINS = (0, 1)


def load_keys(text: str) -> dict[bytes, Any]:
    """Return the keys of a key file by the settlement script that each one spends.

    One key a line: a WIF key, or an extended private key whose accounts 0 of BIP 84 and BIP 86 are meant, 50 addresses of each
    branch. Lines that start with # and empty ones do not count.
    Raises: SetupError: a line is no private key; the text does not show the line.
    """
    found: dict[bytes, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            for key in _keys_of(word):
                public = key.get_public_key()
                found[bytes(script.p2wpkh(public).data)] = key
                found[bytes(script.p2tr(public).data)] = key
        except (EmbitError, ValueError, IndexError, AssertionError) as error:
            raise SetupError(
                f"line {number} of the key file is no WIF key and no extended private key"
            ) from error
    if not found:
        raise SetupError("the key file holds no key")
    return found


def _keys_of(word: str) -> Iterator[Any]:
    if word[1:4] != "prv":
        yield ec.PrivateKey.from_wif(word)
        return
    root = bip32.HDKey.from_string(word)
    if not root.is_private:
        raise ValueError("not private")
    for account in _ACCOUNTS:
        for coin in _COINS:
            parent = root.derive("m/" + account.format(coin=coin)) if not root.depth else root
            for branch in (0, 1):
                for index in range(GAP):
                    yield parent.derive([branch, index]).key
            if root.depth:
                return


@dataclass(frozen=True, slots=True)
class Cost:
    """What a transaction means for the holder of some keys: its inputs, and where the money goes, in satoshi.

    own_inputs: numbers of the inputs that the keys spend. leaves_sat: what does not come back. fee_sat: the fee of the whole
    transaction. fee_own_sat: what leaves it beyond what it owes.
    """

    own_inputs: tuple[int, ...]
    brought_sat: int
    change_sat: int
    leaves_sat: int
    fee_sat: int
    fee_own_sat: int


def cost_of(psbt: Psbt, own_scripts: Iterable[bytes], owes_sat: int) -> Cost:
    """Return what a PSBT costs whoever can spend `own_scripts` and owes `owes_sat`.

    Raises: VerificationError: an input does not say what it spends, or none is the holder's.
    """
    own = frozenset(own_scripts)
    inputs = inputs_of(psbt)
    numbers = tuple(number for number, one in enumerate(inputs) if one.script in own)
    if not numbers:
        raise VerificationError("no input of this transaction is spent by these keys")
    outputs = [(int(one.value), bytes(one.script_pub_key.script)) for one in psbt.tx.vout]
    brought = sum(inputs[number].amount_sat for number in numbers)
    change = sum(amount for amount, paid in outputs if paid in own)
    fee = sum(one.amount_sat for one in inputs) - sum(amount for amount, _ in outputs)
    leaves = brought - change
    return Cost(numbers, brought, change, leaves, fee, leaves - owes_sat)


def check_cost(cost: Cost, fee_max_sat: int) -> None:
    """Check that a transaction takes no more than owed and the fee that is agreed to.

    Raises: VerificationError: it pays a negative fee, takes too much, or too little, which is another cycle's.
    """
    if cost.fee_sat < 0:
        raise VerificationError("the outputs of this transaction exceed its inputs")
    if cost.fee_own_sat < 0:
        raise VerificationError(
            f"this transaction takes {-cost.fee_own_sat} sat less than you owe: it is not that of your cycle"
        )
    if cost.fee_own_sat > fee_max_sat:
        raise VerificationError(
            f"this transaction takes {cost.fee_own_sat} sat beyond what you owe, and you allow {fee_max_sat}"
        )


def sign(psbt: Psbt, keys: Mapping[bytes, Any], owes_sat: int, fee_max_sat: int) -> Psbt:
    """Check the cost and return a copy with the signatures of the own inputs.

    Raises: VerificationError: see cost_of and check_cost, or an input asks for a hash type other than ALL and DEFAULT.
    """
    cost = cost_of(psbt, keys, owes_sat)
    check_cost(cost, fee_max_sat)
    for number, one in enumerate(psbt.inputs):
        if one.sig_hash_type not in (None, SIGHASH_DEFAULT, SIGHASH_ALL):
            raise VerificationError(f"input {number} asks for a hash type that is not signed here")
    signed = psbt.to_v0() if psbt.version == 0 else psbt.to_v2()
    try:
        for number in cost.own_inputs:
            _sign_input(signed, number, keys)
    except BTClibException as error:
        raise DecodeError(f"the PSBT cannot be signed: {error}") from error
    return signed


def _sign_input(psbt: Psbt, number: int, keys: Mapping[bytes, Any]) -> None:
    one = psbt.inputs[number]
    spent = inputs_of(psbt)[number].script
    key = keys[spent]
    if len(spent) == P2WPKH_BYTES:
        message = ecdsa_sig_hash(psbt, number, hash_type=SIGHASH_ALL)
        signature = key.sign(message).serialize() + bytes([SIGHASH_ALL])
        one.partial_sigs = {key.get_public_key().sec(): signature}
    else:
        one.sig_hash_type = None
        message = taproot_sig_hash(psbt, number)
        one.taproot_key_spend_signature = key.taproot_tweak().schnorr_sign(message).serialize()


def sign_message(key: Any, script_: bytes, message: bytes) -> bytes:
    """Return the BIP 322 simple signature (the witness's bytes) of a message by the key of a settlement script."""
    secret = PrvKeyData(int.from_bytes(key.secret, "big"))
    address = ScriptPubKey(script_).address
    return bytes(bip322.sign(message, secret, address).serialize())
