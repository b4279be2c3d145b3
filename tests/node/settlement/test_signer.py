"""Key files and coin files: what is read, and what a person is told about a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from embit import bip32, script

from node.errors import SetupError
from node.settlement.files import read_coins, read_psbt_file, script_of
from node.settlement.signer import load_keys
from tests.clearing.bitcoin.bitcoin_kit import key, taproot, wpkh


def test_keys_are_found_by_both_scripts_and_by_account() -> None:
    found = load_keys(f"# mine\n\n{key('a').wif()}\n")
    assert set(found) == {wpkh("a"), taproot("a")}
    root = bip32.HDKey.from_seed(b"\x05" * 32)
    found = load_keys(root.to_base58())
    child = root.derive("m/86h/0h/0h/1/7").get_public_key()
    assert bytes(script.p2tr(child).data) in found


@pytest.mark.parametrize("text", ["", "# nothing", "no key", "L3VFeEujGtevx9w18HD1fhRbCH67Az2d"])
def test_a_bad_key_file_is_told_by_line_and_never_shown(text: str) -> None:
    with pytest.raises(SetupError) as told:
        load_keys(text)
    assert text == "" or text not in str(told.value)


def test_scripts_are_read_from_addresses_of_every_network_and_from_hex() -> None:
    for address in (
        script.p2wpkh(key("a")).address({"bech32": "bcrt"}),
        script.p2wpkh(key("a")).address({"bech32": "bc"}),
        wpkh("a").hex(),
    ):
        assert script_of(address) == wpkh("a")
    for bad in ("", "bc1qqqq", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "00" * 22):
        with pytest.raises(SetupError):
            script_of(bad)


def test_coin_files_and_psbt_files_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "coins.json"
    good = {"txid": "11" * 32, "vout": 1, "amount_sat": 5, "script": wpkh("a").hex()}
    path.write_text(json.dumps([good]))
    (coin,) = read_coins(path)
    assert (coin.amount_sat, coin.outpoint.index) == (5, 1)
    for bad in (
        "{",
        "{}",
        json.dumps([good | {"vout": "1"}]),
        json.dumps([good | {"txid": "11"}]),
        json.dumps([{}]),
        json.dumps([5]),
    ):
        path.write_text(bad)
        with pytest.raises(SetupError):
            read_coins(path)
    for data in (b"", b"psbt\xff", b"\xff\xfe"):
        path.write_bytes(data)
        with pytest.raises(SetupError, match="no PSBT"):
            read_psbt_file(path)
    with pytest.raises(SetupError, match="cannot read"):
        read_psbt_file(tmp_path / "none")
