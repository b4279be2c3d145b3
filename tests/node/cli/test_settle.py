"""`clearing settle psbt show|sign`: a file and keys, no node; what is checked before anything is signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clearing.bitcoin.psbt import combine, make_psbt, signed_by
from clearing.records.obligation import MINED_COIN, items_view
from node.cli.obligation_file import Directory, parse_obligations
from tests.clearing.bitcoin.bitcoin_kit import key, leg
from tests.node.cli.network_kit import facts, refused


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    template, _ = leg(3, 3)
    psbt, keys = tmp_path / "cycle.psbt", tmp_path / "keys"
    psbt.write_text(make_psbt(template))
    keys.write_text(key("payer 0").wif())
    keys.chmod(0o600)
    return psbt, keys


def test_a_payer_sees_and_signs_its_own_lines_only(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    psbt, keys = files
    template, payers = leg(3, 3)
    seen = facts("settle", "psbt", "show", psbt, "--keys", keys)
    assert [one["own"] for one in seen["inputs"]] == [True, False, False]
    assert seen["fee_sat"] == template.fee_sat
    out = tmp_path / "signed.psbt"
    owes = payers[0].debit_sat
    options = ("--keys", keys, "--owes", owes, "--fee-max", 10_000, "--out", out)
    told = facts("settle", "psbt", "sign", psbt, *options)
    assert (told["signed_inputs"], told["fee_own_sat"]) == ([0], dict(template.fees_sat)[0])
    assert signed_by(combine([out.read_text()], template), template) == {0}


def test_too_high_a_fee_and_files_that_are_none_are_refused(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    psbt, keys = files
    _, payers = leg(3, 3)
    out, owes = tmp_path / "signed.psbt", payers[0].debit_sat
    common = ("--keys", keys, "--owes", owes, "--out", out)
    told = refused(1, "settle", "psbt", "sign", psbt, *common, "--fee-max", 1)
    assert "beyond what you owe" in told["message"]
    assert not out.exists()
    told = refused(2, "settle", "psbt", "sign", keys, *common, "--fee-max", 1)
    assert "holds no PSBT" in told["message"]
    keys.write_text("nothing of a key")
    told = refused(2, "settle", "psbt", "sign", psbt, *common, "--fee-max", 1)
    assert "line 1" in told["message"]


def test_a_file_of_obligations_can_be_flagged_as_paid_with_mined_coin() -> None:
    directory = Directory({"p01": 2, "p02": 3}, {"BTC": 0})
    text = b"id,debtor,creditor,asset,amount\n1,p01,p02,BTC,5\n"
    read = parse_obligations(text, directory, 2)
    assert int(items_view(read.records())["flags"][0]) == 0
    assert int(items_view(replace(read, mined_coin=True).records())["flags"][0]) == MINED_COIN
