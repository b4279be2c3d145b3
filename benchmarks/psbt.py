"""A leg's PSBT with 100 inputs of 100 payers, P2WPKH and P2TR by turns: made, signed, combined, finalised, judged by the engine."""

from __future__ import annotations

import resource

from embit import ec, script

from benchmarks.measure import Figure, Samples
from clearing.bitcoin.psbt import combine, finalise, make_psbt, read_psbt
from clearing.bitcoin.settlement import Coin, Payee, Payer, make_template
from clearing.bitcoin.transaction import Outpoint
from node.settlement.coordinator import verify_scripts
from node.settlement.signer import load_keys, sign

NET_SAT, COIN_SAT, FEE_RATE, FEE_MAX_SAT = 50_000, 100_000, 2_000, 5_000


def run(*, quick: bool) -> list[Figure]:
    """Measure each step once (20 inputs when quick); the transaction itself and its judgement three times."""
    count = 20 if quick else 100
    secrets = [ec.PrivateKey((1_000 + at).to_bytes(32, "big")) for at in range(count)]
    keys = [load_keys(secret.wif()) for secret in secrets]
    scripts = [
        bytes((script.p2wpkh if at % 2 else script.p2tr)(secret.get_public_key()).data)
        for at, secret in enumerate(secrets)
    ]
    payers = [
        Payer(at, NET_SAT, (Coin(Outpoint(bytes([at]) * 32, 0), COIN_SAT, paid),), paid)
        for at, paid in enumerate(scripts)
    ]
    payees = [Payee(500 + at, NET_SAT, b"\x51\x20" + bytes([at]) * 32) for at in range(count)]
    making, signing, combining, finalising, judging = (Samples() for _ in range(5))
    for _ in range(3):
        template = making.timed(lambda: make_template(payers, payees, FEE_RATE))
    unsigned = make_psbt(template)
    answers = [
        signing.timed(
            lambda own=own: sign(read_psbt(unsigned), own, NET_SAT, FEE_MAX_SAT).b64encode()
        )
        for own in keys
    ]
    whole = combining.timed(lambda: combine(answers, template))
    raw = finalising.timed(lambda: finalise(whole, template))
    for _ in range(3):
        judging.timed(lambda: verify_scripts(raw, template))
    details = {
        "template_s": round(min(making.seconds), 4),
        "sign_one_s": round(min(signing.seconds), 4),
        "combine_s": round(combining.seconds[0], 3),
        "finalise_s": round(finalising.seconds[0], 3),
        "engine_s": round(min(judging.seconds), 4),
        "psbt_kb": round(len(unsigned) / 1e3, 1),
        "transaction_kb": round(len(raw) / 1e3, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    total = sum(
        (combining.seconds[0], finalising.seconds[0], min(judging.seconds), min(making.seconds))
    )
    title = f"PSBT of {count} inputs: coordinator's work from template to judged transaction"
    return [Figure(title, round(total, 3), "s", details=details)]
