"""The documents of a settlement that go from hand to hand: scripts, coins, PSBT files.

Lives here: reading and writing them. May not live here: what they must say (clearing/bitcoin, signer.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from btclib.exceptions import BTClibException
from btclib.psbt import Psbt
from btclib.script.script_pub_key import ScriptPubKey

from clearing.bitcoin.psbt import PSBT_BYTES_MAX, read_psbt
from clearing.bitcoin.settlement import Coin
from clearing.bitcoin.transaction import Outpoint, is_settlement_script
from clearing.errors import DecodeError
from node.errors import SetupError
from node.files import read_text


def script_of(text: str) -> bytes:
    """Return the settlement script that a text names: an address of any Bitcoin network, or the script in hexadecimal.

    Raises: SetupError: neither, or not P2WPKH or P2TR.
    """
    try:
        script = bytes.fromhex(text)
    except ValueError:
        try:
            script = bytes(ScriptPubKey.from_address(text).script)
        except (BTClibException, ValueError) as error:
            raise SetupError(f"{text[:80]!r} is no Bitcoin address and no script") from error
    if not is_settlement_script(script):
        raise SetupError(f"{text[:80]!r} is neither P2WPKH nor P2TR: use one of those")
    return script


def read_coins(path: Path) -> tuple[Coin, ...]:
    """Return the coins that a JSON file lists: [{"txid", "vout", "amount_sat", "script" (address or hex)}].

    Raises: SetupError: it does not; the sentence names the coin.
    """
    try:
        rows: Any = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise SetupError(f"{path} holds no list of coins")
    return tuple(_coin(number, row) for number, row in enumerate(rows, 1))


def _coin(number: int, row: Any) -> Coin:
    try:
        txid = bytes.fromhex(row["txid"])[::-1]
        index, amount_sat = row["vout"], row["amount_sat"]
        script = script_of(row["script"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(f"coin {number} needs txid, vout, amount_sat and script") from error
    if len(txid) != 32 or type(index) is not int or type(amount_sat) is not int:
        raise SetupError(f"coin {number} needs a txid of 64 digits, and whole numbers")
    return Coin(Outpoint(txid, index), amount_sat, script)


def read_psbt_file(path: Path) -> Psbt:
    """Return the PSBT in a file, base64 or binary.

    Raises: SetupError: it cannot be read, is too long, or holds none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(2 * PSBT_BYTES_MAX)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from error
    try:
        if data.startswith(b"psbt\xff"):
            return Psbt.parse(data)
        return read_psbt(data.decode("ascii"))
    except (BTClibException, ValueError, DecodeError) as error:
        raise SetupError(f"{path} holds no PSBT: {error}") from error
