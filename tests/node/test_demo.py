"""The demonstration: it really does what it says, leaves nothing behind, and takes a back office's own file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clearing.errors import VerificationError
from node.cli import main
from node.cli.demo import PARTICIPANTS
from node.demo import flip_in_file
from node.store import FindingKind
from node.store.errors import Finding
from node.testnet.layout import LocalNetwork
from node.testnet.plan import NODES, numbered_parties
from node.testnet.trade import make_trades
from tests.readme_tables import README

RUNNER = CliRunner()


def run(*arguments: str | Path) -> Result:
    return RUNNER.invoke(main.app, ["demo", *map(str, arguments)], prog_name="clearing")


def step_titles(output: str) -> list[str]:
    return re.findall(r"^(\d+\. .+?) {2,}\d+\.\d s$", output, re.MULTILINE)


def expected_netting(rows: list[tuple[str, str, str, int]]) -> dict[str, Any]:
    """Net (debtor, creditor, asset, amount) rows in plain Python."""
    by_asset: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for debtor, creditor, asset, amount in rows:
        by_asset[asset].append((debtor, creditor, amount))
    result = {}
    for asset, owed in by_asset.items():
        nets: dict[str, int] = defaultdict(int)
        for debtor, creditor, amount in owed:
            nets[debtor] -= amount
            nets[creditor] += amount
        gross = sum(amount for _, _, amount in owed)
        net = sum(value for value in nets.values() if value > 0)
        result[asset] = {
            "obligations": len(owed),
            "gross": str(gross),
            "net": str(net),
            "saved": str(gross - net),
        }
    return result


@pytest.mark.slow
def test_the_demo_nets_settles_and_proves(tmp_path: Path) -> None:
    place = tmp_path / "net"
    done = run("--json", "--keep", "--dir", place)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    trades = make_trades(numbered_parties(PARTICIPANTS))
    assert facts["obligations"] == facts["affirmed"] == len(trades)
    rows = [(trade.debtor, trade.creditor, trade.asset, trade.amount) for trade in trades]
    assert facts["netting"] == expected_netting(rows)
    assert facts["nodes"] == list(NODES)
    assert facts["kill"]["acknowledged_before"] >= 10
    assert facts["kill"]["recorded"] == 40
    assert facts["kill"]["lost"] == 0
    assert (facts["state"], facts["final"]) == ("SETTLED", True)
    anchor = facts["anchor"]
    assert anchor["verified_by"] == "ots"
    assert anchor["height"] == anchor["first_height"] + 8
    assert facts["receipts"]["verified"] == 5
    assert facts["receipts"]["found"] == facts["receipts"]["bytes_flipped"] > 500
    assert "leaves" in facts["database"]["findings"][0]
    assert facts["database"]["holds_after"] is True
    assert facts["directory"] == str(place)
    network = LocalNetwork.open(place)
    assert [process.pid() for process in network.all_processes()] == [None] * 6


@pytest.mark.slow
def test_the_demo_takes_a_back_offices_file_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    rows = [
        ("Nordbank AG", "Südexport, Bank", "BTC", 900),
        ("Südexport, Bank", "p01", "BTC", 400),
        ("p01", "Nordbank AG", "BTC", 300),
        ("central-bank", "p01", "USDT", 7),
        (numbered_parties(2)[1].lei, "Nordbank AG", "ETH", 10**24),
    ]
    lines = ["Amount,id,Creditor,asset,debtor,desk"]
    lines += [
        f'{amount},T{number},"{creditor}",{asset},"{debtor}",x'
        for number, (debtor, creditor, asset, amount) in enumerate(rows)
    ]
    file = tmp_path / "book.csv"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    done = run("--obligations", file)
    assert done.exit_code == 0, done.output
    assert "column 'desk' is ignored" in done.stderr
    for part in ("kill -9", "Everything held", "cycle 1: 5 obligations", "0.000016", "1,000,000"):
        assert part in done.stdout, part
    assert list(temporary.iterdir()) == []
    # The README shows a run of this demonstration, not of an earlier one.
    shown = README.read_text().partition("<!-- demo output -->")[2].partition("<!-- end of")[0]
    assert step_titles(shown) == step_titles(done.stdout) != []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_takes_its_nodes_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    place = tmp_path / "net"
    command = [Path(sys.executable).parent / "clearing", "demo", "--dir", place]
    # A suite that runs in the background ignores SIGINT, under nohup SIGHUP, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        until = time.monotonic() + 120
        pids: list[int] = []
        while len(pids) < len(NODES):
            assert time.monotonic() < until
            files = list(place.glob("nodes/*/pid"))
            pids = [int(text) for text in (file.read_text() for file in files) if text]
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait(120) == 128 + number
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not place.exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("id,debtor,creditor,asset,amount\n", "EMPTY_FILE"),
        ("id,debtor,creditor,asset\n", "BAD_FILE"),
        ("id,debtor,creditor,asset,amount\na,p01,p02,DOGE,5\n", "BAD_FILE"),
        ("id,debtor,creditor,asset,amount\na,p01,p01,BTC,5\n", "BAD_FILE"),
        ("id,debtor,creditor,asset,amount\na,p01,ministry,BTC,5\n", "BAD_FILE"),
        (
            "id,debtor,creditor,asset,amount\n"
            + "".join(f"{n},a{n},b{n},BTC,5\n" for n in range(501)),
            "TOO_MANY_PARTIES",
        ),
    ],
)
def test_a_wrong_file_starts_nothing(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "book.csv"
    file.write_text(text)
    place = tmp_path / "net"
    done = run("--obligations", file, "--dir", place, "--json")
    assert done.exit_code == 2, done.output
    assert json.loads(done.stdout)["error"]["code"] == code
    assert not place.exists()


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    done = run("--dir", tmp_path)
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_flipped_byte_is_there_for_the_check_and_gone_after_it(tmp_path: Path) -> None:
    path = tmp_path / "data.mdb"
    path.write_bytes(b"-" * 100 + b"leaf" + b"-" * 100)
    before = path.read_bytes()
    seen = []

    def check() -> list[Finding]:
        seen.append(path.read_bytes())
        return [Finding(FindingKind.ALTERED, "leaves", "index 2", "it is altered")]

    assert len(flip_in_file(tmp_path, b"leaf", check)) == 1
    (during,) = seen
    assert sum(a != b for a, b in zip(before, during, strict=True)) == 1
    assert path.read_bytes() == before
    with pytest.raises(VerificationError):
        flip_in_file(tmp_path, b"absent", check)
