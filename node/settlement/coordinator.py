"""The settlement agent's side: signatures gathered, the transaction judged by the consensus engine, handed to a node.

Lives here: those steps. May not live here: what the ledger is told, and when (the commands).

The agent never hands out what it has combined: who holds all signatures but its own could complete the transaction after the
ledger has failed the leg. Each payer gets the unsigned PSBT and returns its own signatures only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pbk
from pbk.script import PrecomputedTransactionData

from clearing.bitcoin.psbt import combine, finalise, signed_by
from clearing.bitcoin.settlement import Template
from clearing.bitcoin.transaction import sha256d, without_witness
from clearing.errors import VerificationError


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the answers of payers come to: who is missing, ascending, and the signed transaction once nobody is."""

    missing: tuple[int, ...]
    raw: bytes


def gather(answers: Iterable[str], template: Template) -> Gathered:
    """Combine the payers' answers, each checked; when all have signed, finalise and let the kernel check every script.

    Raises: DecodeError, VerificationError: an answer is no PSBT, asks for something else, or a signature does not hold.
    """
    whole = combine(answers, template)
    payers = {participant for participant, _ in template.inputs}
    missing = tuple(sorted(payers - signed_by(whole, template)))
    if missing:
        return Gathered(missing, b"")
    raw = finalise(whole, template)
    verify_scripts(raw, template)
    return Gathered((), raw)


def verify_scripts(raw: bytes, template: Template) -> None:
    """Check that Bitcoin Core's consensus engine takes every input of the signed transaction.

    Raises: VerificationError: it is another transaction, or an input does not hold.
    """
    if sha256d(without_witness(raw)) != template.transaction.txid:
        raise VerificationError("the signed transaction is not the leg's")
    transaction = pbk.Transaction(raw)
    outputs = [
        pbk.TransactionOutput(pbk.ScriptPubkey(coin.script), coin.amount_sat)
        for _, coin in template.inputs
    ]
    shared = PrecomputedTransactionData(transaction, outputs)
    for number, (participant, coin) in enumerate(template.inputs):
        script = outputs[number].script_pubkey
        flags = pbk.ScriptVerificationFlags.ALL
        if not script.verify(coin.amount_sat, transaction, shared, number, flags):
            raise VerificationError(
                f"the consensus engine refuses input {number} of participant {participant}"
            )
