"""`clearing verify` of anchored receipts and of proofs with a commit: a file, a policy, and whom else to trust; nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clearing.bitcoin.transaction import sha256d, shown
from clearing.errors import DecodeError, VerificationError
from clearing.receipt import verify_receipt
from node.cli.offline import verified_checkpoint, verified_facts
from tests.anchored_kit import Case, anchored, make_case, receipt_under
from tests.clearing.commit_kit import FOUR, header_over, make_net, namings, proof_of, signed_by
from tests.ledger_kit import P01, P02, item
from tests.node.cli.network_kit import facts, refused, run
from tests.proof_kit import COSIGNED_S, POLICY, head_note


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


@pytest.fixture
def file(case: Case, tmp_path: Path) -> Path:
    path = tmp_path / "anchored"
    path.write_bytes(case.file.encode())
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.write_bytes(POLICY.encode())
    return path


def test_both_times_are_printed(case: Case, file: Path, policy: Path) -> None:
    proven = facts("verify", file, "--policy", policy)
    assert (proven["holds"], proven["kind"], proven["amount"]) == (True, "obligation", "1001")
    assert proven["final_at_s"] == COSIGNED_S
    by = proven["existed_by"]
    header = case.chain.headers[case.height]
    assert by["time_s"] == int.from_bytes(header[68:72], "little")
    assert by["block_hash"] == shown(sha256d(header))
    assert (by["network"], by["height"], by["confirmations"]) == ("regtest", case.height, 6)
    assert "costs nothing" in by["warning"]
    text = run("verify", file, "--policy", policy).output
    for words in ("holds", "final at", "2023-11-14", "existed by", "median", "costs nothing"):
        assert words in text, text


def test_a_trusted_block_depth_and_network_are_demanded(
    case: Case, file: Path, policy: Path
) -> None:
    tip = case.chain.height
    pin = f"{tip}:{shown(sha256d(case.chain.headers[tip]))}"
    demands = ("--bitcoin-header", pin, "--bitcoin-network", "regtest", "--depth", "6")
    assert (
        facts("verify", file, "--policy", policy, *demands)["existed_by"]["trusted_header"] == pin
    )
    for why, options in (
        ("PIN", ("--bitcoin-header", f"{tip}:{'0' * 64}")),
        ("SHALLOW", ("--depth", "7")),
        ("not on main", ("--bitcoin-network", "main")),
    ):
        done = run("verify", file, "--policy", policy, *options, "--json")
        assert done.exit_code == 1
        assert why in json.loads(done.stdout)["reason"]


def test_wrong_use_is_told(file: Path, policy: Path) -> None:
    for header in ("12", "x:" + "0" * 64, "1:" + "0" * 63, "1:" + "g" * 64, "-1:" + "0" * 64):
        error = refused(2, "verify", file, "--policy", policy, "--bitcoin-header", header)
        assert error["code"] == "BAD_HEADER"
    error = refused(2, "verify", file, "--policy", policy, "--bitcoin-network", "mainnet")
    assert error["code"] == "BAD_NETWORK"
    assert run("verify", file, "--policy", policy, "--depth", "0").exit_code == 2


def test_altered_and_cut_files_do_not_hold(case: Case, tmp_path: Path, policy: Path) -> None:
    data = case.file.encode()
    path = tmp_path / "altered"
    for changed in (
        data[:-1],
        data[: len(data) // 2],
        data.replace(b"start 0", b"start 1"),
        data + b"\n",
    ):
        path.write_bytes(changed)
        done = run("verify", path, "--policy", policy, "--json")
        assert (done.exit_code, json.loads(done.stdout)["holds"]) == (1, False)


@pytest.fixture(scope="module")
def committed() -> tuple[bytes, bytes, str]:
    """Return a receipt and an anchored receipt that carry the validators' commit, and the hash of their set."""
    net = make_net()
    index = net.submit(P01, item(P01, P02, 1000), item(P01, P02, 1001))
    note = head_note(net)
    receipt = receipt_under(net, note, index)
    (naming,) = namings(net)
    signed = signed_by(header_over(net, FOUR), FOUR, FOUR[1:])
    commit = proof_of(net, naming, signed)
    both = anchored(net, note.encode(), receipt).file.encode()
    return commit.carrying(receipt), commit.carrying(both), signed.header.validators_hash.hex()


def test_a_commit_is_checked_where_there_is_one_and_demanded_where_it_is_asked_for(
    committed: tuple[bytes, bytes, str], file: Path, policy: Path, tmp_path: Path
) -> None:
    receipt, both, validators = committed
    path = tmp_path / "committed"
    for data, kind in ((receipt, "plain"), (both, "anchored")):
        path.write_bytes(data)
        for demand in ((), ("--validators", "any"), ("--validators", validators.upper())):
            proven = facts("verify", path, "--policy", policy, *demand)
            assert (proven["holds"], proven["amount"]) == (True, "1001")
            assert (proven["commit"]["power"], proven["commit"]["total_power"]) == (30, 40)
            assert ("existed_by" in proven) == (kind == "anchored")
        text = run("verify", path, "--policy", policy).output
        assert "commit power" in text
        assert validators in text.replace("\n", "")
        path.write_bytes(data.replace(b"index ", b"index 1", 1))
        assert run("verify", path, "--policy", policy).exit_code == 1
    other = run("verify", file, "--policy", policy, "--validators", "any", "--json")
    assert (other.exit_code, "no commit" in json.loads(other.stdout)["reason"]) == (1, True)
    for wrong in ("", "all", "0" * 63, "g" * 64):
        error = refused(2, "verify", file, "--policy", policy, "--validators", wrong)
        assert error["code"] == "BAD_HASH"


def test_a_commit_is_added_whatever_is_trusted_of_bitcoin(case: Case) -> None:
    young = replace(case.file, headers=case.file.headers[: -3 * 80]).encode()
    with pytest.raises(VerificationError, match="SHALLOW"):
        verified_facts(young, POLICY)
    assert verified_checkpoint(young, POLICY) == verify_receipt(case.receipt, POLICY).checkpoint
    with pytest.raises((DecodeError, VerificationError)):
        verified_checkpoint(young[:-40], POLICY)
