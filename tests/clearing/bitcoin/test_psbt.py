"""PSBTs: those that count, and every one that must not, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from btclib.ecc import ssa
from btclib.exceptions import BTClibException
from btclib.psbt import Psbt
from btclib.tx import Tx, TxOut
from embit import ec

from clearing.bitcoin import psbt
from clearing.bitcoin.settlement import Template
from clearing.bitcoin.transaction import sha256d, without_witness
from clearing.errors import DecodeError, VerificationError
from node.settlement.signer import load_keys, sign
from tests.clearing.bitcoin.bitcoin_kit import VECTORS, key, leg

FEE = 10_000
PSBT_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bitcoin_psbt.json").read_text())
WITHOUT_INPUTS = 5
"""The valid vector whose transaction has no input."""


def signed(template: Template, payers, *who: int, version: int = 0) -> list[str]:
    """Return the answers of some payers, each with its own signature only."""
    unsigned = psbt.make_psbt(template, version)
    return [
        sign(
            psbt.read_psbt(unsigned),
            load_keys(key(f"payer {number}").wif()),
            payers[number].debit_sat,
            FEE,
        ).b64encode()
        for number in who
    ]


@pytest.mark.parametrize("version", [0, 2])
def test_three_payers_and_three_payees_sign_and_the_transaction_is_whole(version: int) -> None:
    template, payers = leg(3, 3)
    answers = signed(template, payers, 0, 1, 2, version=version)
    whole = psbt.combine(answers, template)
    assert psbt.signed_by(whole, template) == {0, 1, 2}
    raw = psbt.finalise(whole, template)
    assert sha256d(without_witness(raw)) == template.transaction.txid
    assert Tx.parse(raw).weight <= template.weight_max


def test_who_has_not_signed_is_known_and_nothing_is_final_without_it() -> None:
    template, payers = leg(3, 3)
    whole = psbt.combine(signed(template, payers, 0, 2), template)
    assert psbt.signed_by(whole, template) == {0, 2}
    with pytest.raises(VerificationError, match="not complete"):
        psbt.finalise(whole, template)


@pytest.mark.parametrize("case", range(len(PSBT_VECTORS["invalid"])))
def test_invalid_psbts_of_bip_174_and_371_are_refused(case: int) -> None:
    with pytest.raises(DecodeError):
        psbt.read_psbt(PSBT_VECTORS["invalid"][case])


@pytest.mark.parametrize("case", range(len(PSBT_VECTORS["valid"])))
def test_valid_psbts_of_bip_174_and_371_are_read(case: int) -> None:
    text = PSBT_VECTORS["valid"][case]
    if case == WITHOUT_INPUTS:
        # Its transaction reads as one with a witness marker; no leg is without inputs.
        with pytest.raises(DecodeError):
            psbt.read_psbt(text)
        return
    found = psbt.read_psbt(text)
    again = found.b64encode()
    # One of them writes the version 0 that is left out otherwise.
    assert again == text or len(again) < len(text)
    assert psbt.read_psbt(again).tx == found.tx


def test_what_is_not_base64_or_too_long_is_refused() -> None:
    for text in ("", "#", "é", "A" * (psbt.PSBT_BYTES_MAX * 4 // 3 + 1)):
        with pytest.raises(DecodeError):
            psbt.read_psbt(text)
    with pytest.raises(DecodeError, match="version 0 or 2"):
        psbt.make_psbt(leg(1, 1)[0], 1)


def tampered(kind: str) -> tuple[Psbt, Template]:
    """Return a PSBT with one thing wrong."""
    template, payers = leg(3, 3)
    (text,) = signed(template, payers, 0)
    changed = psbt.read_psbt(text)
    one = changed.inputs[0]
    if kind == "amount":
        changed.outputs[0].amount -= 1
    elif kind == "spent":
        spent = one.witness_utxo
        one.witness_utxo = TxOut(spent.value + 1, spent.script_pub_key.script)
    elif kind == "missing":
        changed.inputs[1].witness_utxo = None
    elif kind == "signature":
        ((public, signature),) = one.partial_sigs.items()
        one.partial_sigs = {public: signature[:20] + bytes([signature[20] ^ 1]) + signature[21:]}
    elif kind == "hash type asked":
        changed.inputs[1].sig_hash_type = 0x83
    elif kind == "hash type used":
        one.partial_sigs = {public: sig[:-1] + b"\x81" for public, sig in one.partial_sigs.items()}
    elif kind == "script":
        changed.inputs[1].witness_script = b"\x51"
    return changed, template


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("amount", "something else than the cycle's net positions"),
        ("spent", "another output than its payer named"),
        ("missing", "another output than its payer named"),
        ("signature", "does not hold"),
        ("hash type asked", "only ALL and DEFAULT"),
        ("hash type used", "does not hold"),
        ("script", "need none"),
    ],
)
def test_a_psbt_with_one_thing_wrong_is_refused_by_name(kind: str, words: str) -> None:
    changed, template = tampered(kind)
    with pytest.raises(VerificationError, match=words):
        psbt.verify_psbt(changed, template)


def test_a_taproot_signature_that_does_not_cover_everything_is_refused() -> None:
    template, payers = leg(2, 2)
    (text,) = signed(template, payers, 1)
    changed = psbt.read_psbt(text)
    good = changed.inputs[1].taproot_key_spend_signature
    assert len(good) == 64
    changed.inputs[1].taproot_key_spend_signature = good + b"\x03"
    with pytest.raises(VerificationError):
        psbt.verify_psbt(changed, template)


def test_a_payer_signs_only_what_it_owes_and_its_fee() -> None:
    template, payers = leg(3, 3)
    unsigned = psbt.make_psbt(template)
    keys = load_keys(key("payer 0").wif())
    owes = payers[0].debit_sat
    fee = dict(template.fees_sat)[0]
    sign(psbt.read_psbt(unsigned), keys, owes, fee)
    with pytest.raises(VerificationError, match=f"takes {fee} sat beyond"):
        sign(psbt.read_psbt(unsigned), keys, owes, fee - 1)
    with pytest.raises(VerificationError, match="less than you owe"):
        sign(psbt.read_psbt(unsigned), keys, owes + fee + 1, fee)
    with pytest.raises(VerificationError, match="no input"):
        sign(psbt.read_psbt(unsigned), load_keys(key("stranger").wif()), owes, fee)


@pytest.mark.parametrize("vector", VECTORS["schnorr"], ids=lambda one: one["comment"][:40])
def test_signatures_of_schnorr_are_those_of_bip_340(vector) -> None:
    public, message, raw = (
        bytes.fromhex(vector[name]) for name in ("public_key", "message", "signature")
    )
    if vector["secret_key"]:
        made = ec.PrivateKey(bytes.fromhex(vector["secret_key"]))
        assert made.get_public_key().xonly() == public
    # The library by which a replica judges, which says the same of every vector as the BIP.
    try:
        ssa.assert_as_valid_(message, public, ssa.Sig.parse(raw))
    except (BTClibException, ValueError):
        assert not vector["valid"]
    else:
        assert vector["valid"]
