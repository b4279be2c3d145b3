"""The settlement transaction as a PSBT: made from a template, checked against it, signatures gathered, finalised.

Lives here: what a PSBT must be to count. May not live here: keys (node/settlement), the template itself (settlement.py).

A PSBT that came back is never trusted as a whole: the transaction must be the template's, byte for byte, the spent outputs those that
the payers named, every signature must verify and cover everything (SIGHASH_ALL, or SIGHASH_DEFAULT under taproot), and only
the signatures are taken over.
Source: BIP 174, BIP 370 (version 2), BIP 371 (taproot fields); the roles by btclib.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from btclib.exceptions import BTClibException
from btclib.psbt import Psbt, assert_signed, extract_tx, finalize
from btclib.psbt.psbt_in import PsbtIn
from btclib.script.witness import Witness
from btclib.tx import Tx, TxOut

from clearing.bitcoin.settlement import Template
from clearing.bitcoin.transaction import P2TR_BYTES
from clearing.errors import DecodeError, VerificationError

PSBT_BYTES_MAX = 1 << 20
"""Greatest PSBT that is read: 300 inputs with derivations take a tenth of it."""

SIGHASH_DEFAULT = 0
SIGHASH_ALL = 1
_ALLOWED = (None, SIGHASH_DEFAULT, SIGHASH_ALL)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a PSBT as it stands: the outpoint's string, the amount and script it says it spends, signed or not."""

    outpoint: str
    amount_sat: int
    script: bytes
    is_signed: bool


def make_psbt(template: Template, version: int = 0) -> str:
    """Return the unsigned PSBT (base64) of a template, in version 0 or 2.

    Raises: DecodeError: another version.
    """
    if version not in (0, 2):
        raise DecodeError(f"a PSBT has version 0 or 2, not {version}")
    inputs = [
        PsbtIn(witness_utxo=TxOut(coin.amount_sat, coin.script)) for _, coin in template.inputs
    ]
    psbt = Psbt.from_tx(Tx.parse(template.transaction.raw), inputs)
    return str((psbt if version == 0 else psbt.to_v2()).b64encode())


def read_psbt(text: str) -> Psbt:
    """Return the PSBT that a base64 text holds.

    Raises: DecodeError: it is none, or too long.
    """
    if len(text) > PSBT_BYTES_MAX * 4 // 3:
        raise DecodeError(f"a PSBT has at most {PSBT_BYTES_MAX} bytes")
    try:
        return Psbt.b64decode(text.strip())
    except (BTClibException, ValueError) as error:
        raise DecodeError(f"not a PSBT: {error}") from error


def inputs_of(psbt: Psbt) -> tuple[Input, ...]:
    """Return what each input says of itself, in order.

    Raises: VerificationError: one does not say what it spends.
    """
    found = []
    for number, one in enumerate(psbt.inputs):
        if one.witness_utxo is None:
            raise VerificationError(f"input {number} does not say which output it spends")
        spent = one.witness_utxo
        outpoint = f"{one.prev_out.tx_id.hex()}:{one.prev_out.vout}"
        script = bytes(spent.script_pub_key.script)
        found.append(Input(outpoint, int(spent.value), script, _is_signed(one)))
    return tuple(found)


def _is_signed(one: PsbtIn) -> bool:
    return bool(one.final_script_witness or one.taproot_key_spend_signature or one.partial_sigs)


def verify_psbt(psbt: Psbt, template: Template) -> Psbt:
    """Check that a PSBT asks for the template's transaction and that what is signed in it holds.

    Inputs may be signed, finalised, or neither. Returns: a version-0 copy in which finalised inputs show signatures.
    Raises: VerificationError: another transaction, other spent outputs, a signature that does not verify or does not
    cover everything.
    """
    try:
        raw = bytes(psbt.tx.serialize(include_witness=False))
    except BTClibException as error:
        raise VerificationError(f"the PSBT holds no transaction: {error}") from error
    if raw != template.transaction.raw:
        raise VerificationError("the PSBT pays something else than the cycle's net positions")
    for number, (one, (_, coin)) in enumerate(zip(psbt.inputs, template.inputs, strict=True)):
        spent = one.witness_utxo
        if spent is None or (spent.value, spent.script_pub_key.script) != (
            coin.amount_sat,
            coin.script,
        ):
            raise VerificationError(f"input {number} spends another output than its payer named")
        if one.sig_hash_type not in _ALLOWED:
            raise VerificationError(
                f"input {number} asks for hash type {one.sig_hash_type:#x}: only ALL and DEFAULT are signed here"
            )
        if one.redeem_script or one.witness_script or one.taproot_leaf_scripts:
            raise VerificationError(f"input {number} carries a script: P2WPKH and P2TR need none")
        if one.taproot_script_spend_signatures:
            raise VerificationError(f"input {number} is signed for a script path")
    plain = _plain(psbt)
    try:
        assert_signed(plain, allow_partial=True)
    except BTClibException as error:
        raise VerificationError(f"a signature does not hold: {error}") from error
    for number, one in enumerate(plain.inputs):
        _check_hash_types(number, one)
    return plain


def _check_hash_types(number: int, one: PsbtIn) -> None:
    """Check that every signature covers the whole transaction."""
    signature = one.taproot_key_spend_signature
    if signature and len(signature) == 65 and signature[-1] != SIGHASH_ALL:
        raise VerificationError(f"the signature of input {number} does not cover everything")
    if any(one_sig[-1:] != b"\1" for one_sig in one.partial_sigs.values()):
        raise VerificationError(f"the signature of input {number} does not cover everything")


def _plain(psbt: Psbt) -> Psbt:
    """Return a version-0 copy in which finalised inputs show their signatures again, so that they can be checked.

    Raises: VerificationError: a final witness is not that of P2WPKH or of a taproot key.
    """
    copy = psbt.to_v0()
    for number, one in enumerate(copy.inputs):
        stack = list(one.final_script_witness.stack) if one.final_script_witness else []
        if one.final_script_sig:
            raise VerificationError(f"input {number} has a final script beside its witness")
        if not stack:
            continue
        spent = one.witness_utxo
        is_taproot = spent is not None and len(spent.script_pub_key.script) == P2TR_BYTES
        if len(stack) != (1 if is_taproot else 2):
            raise VerificationError(f"the witness of input {number} is not that of a single key")
        if is_taproot:
            one.taproot_key_spend_signature = stack[0]
        else:
            one.partial_sigs = {stack[1]: stack[0]}
        one.final_script_witness = Witness()
    return copy


def signed_by(psbt: Psbt, template: Template) -> frozenset[int]:
    """Return the payers of whom every input is signed. Caller's duty: verify_psbt has held."""
    missing = {
        participant
        for one, (participant, _) in zip(psbt.inputs, template.inputs, strict=True)
        if not _is_signed(one)
    }
    return frozenset(participant for participant, _ in template.inputs) - missing


def combine(texts: Iterable[str], template: Template) -> Psbt:
    """Return one PSBT with the signatures of all: a fresh one from the template, into which signatures only are taken.

    Raises: DecodeError: a text is no PSBT; VerificationError: see verify_psbt.
    """
    combined = read_psbt(make_psbt(template))
    for text in texts:
        given = verify_psbt(read_psbt(text), template)
        for ours, theirs in zip(combined.inputs, given.inputs, strict=True):
            if _is_signed(theirs) and not _is_signed(ours):
                ours.partial_sigs = dict(theirs.partial_sigs)
                ours.taproot_key_spend_signature = theirs.taproot_key_spend_signature
    return combined


def finalise(psbt: Psbt, template: Template) -> bytes:
    """Return the signed transaction, with witnesses, ready to be broadcast.

    Raises: VerificationError: see verify_psbt, or a signature is missing.
    """
    plain = verify_psbt(psbt, template)
    try:
        return bytes(extract_tx(finalize(plain)).serialize(include_witness=True))
    except BTClibException as error:
        raise VerificationError(f"the transaction is not complete: {error}") from error
