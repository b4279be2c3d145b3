"""The chain's process and its RPC as strangers use them: with and without "jsonrpc", killed, started again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bitcoin
import bitcoin.rpc
import pytest

from node.testnet.processes import free_ports
from tests.node.regtest.regtest_kit import CallError, ChainProcess, Key, coinbase, running, started

ALICE = Key.wpkh(1)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    directory = tmp_path_factory.mktemp("regtest") / "chain"
    with running(directory, free_ports(1)[0]) as process:
        process.rpc("generatetoaddress", 110, ALICE.address)
        yield process


def test_calls_with_and_without_the_version(chain: ChainProcess) -> None:
    rpc = chain.rpc
    old = json.loads(rpc.post(b'{"method": "getblockcount", "id": 7}')[1])
    assert old == {"result": 110, "error": None, "id": 7}
    new = json.loads(rpc.post(b'{"jsonrpc": "2.0", "method": "getblockcount", "id": 7}')[1])
    assert new == {"jsonrpc": "2.0", "result": 110, "id": 7}
    status, body = rpc.post(
        b'{"jsonrpc": "2.0", "method": "getblockhash", "params": [999], "id": 1}'
    )
    assert (status, json.loads(body)["error"]["code"]) == (200, -8)
    assert rpc.post(b'{"method": "getblockhash", "params": [999], "id": 1}')[0] == 500
    assert rpc.post(b'{"method": "nosuch", "id": 1}')[0] == 404


def test_requests_that_are_none(chain: ChainProcess) -> None:
    rpc = chain.rpc
    for body in (
        b"",
        b"{",
        b"7",
        b'{"method": 7}',
        b"[]",
        b"[" * 100_000,
        b'{"method":"help","params":3}',
    ):
        status, answer = rpc.post(body)
        assert status == 500
        assert json.loads(answer)["error"]["code"] in (-32700, -32600), body[:40]
    many = json.loads(
        rpc.post(b'[{"method":"getblockcount","id":1},{"method":"nosuch","id":2},3]')[1]
    )
    assert [one["error"] is None for one in many] == [True, False, False]
    assert rpc.post(b'{"method": "getblockcount"}', credentials="__cookie__:wrong")[0] == 401


def test_a_stock_client_reads_it(chain: ChainProcess) -> None:
    bitcoin.SelectParams("regtest")
    user, _, password = chain.rpc.credentials.partition(":")
    proxy = bitcoin.rpc.Proxy(service_url=f"http://{user}:{password}@127.0.0.1:{chain.port}")
    block = proxy.getblock(proxy.getblockhash(110))
    assert block.GetHash() == proxy.getblockhash(110)
    assert proxy.getblockheader(proxy.getblockhash(110)) == block.get_header()
    proxy.close()


def test_a_payment_over_http(chain: ChainProcess) -> None:
    rpc = chain.rpc
    coin = coinbase(rpc, 1)
    raw = ALICE.spend([coin], [(ALICE.script.data, coin[2] - 500)])
    (accepted,) = rpc("testmempoolaccept", [raw])
    assert accepted["allowed"]
    txid = rpc("sendrawtransaction", raw)
    assert rpc("sendrawtransaction", raw) == txid
    assert rpc("getrawmempool") == [txid]
    assert rpc("getmempoolentry", txid)["fees"]["base"] * 10**8 == 500
    assert rpc("gettxout", coin[0], 0) is None
    assert rpc("gettxout", coin[0], 0, False) is not None
    dear = ALICE.spend([coinbase(rpc, 2)], [(ALICE.script.data, 10**8)])
    with pytest.raises(CallError, match="Fee exceeds"):
        rpc("sendrawtransaction", dear)
    (block,) = rpc("generatetoaddress", 1, ALICE.address)
    assert txid in rpc("getblock", block)["tx"]
    with pytest.raises(CallError) as error:
        rpc("sendrawtransaction", raw)
    assert error.value.code == -27


def test_killed_it_comes_back_with_every_block(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    chain = started(tmp_path / "chain", port)
    chain.rpc("generatetoaddress", 124, ALICE.address)
    chain.rpc("generatebranch", 110, 20)
    height, tip, cookie = (
        chain.rpc("getblockcount"),
        chain.rpc("getbestblockhash"),
        chain.rpc.credentials,
    )
    assert height == 130
    for _ in range(2):
        os.kill(chain.process.pid, signal.SIGKILL)
        chain.process.wait()
        chain = started(tmp_path / "chain", port)
        assert chain.rpc("getbestblockhash") == tip
        assert chain.rpc.credentials == cookie
        # The unspent outputs are there too: what the branch took back is not.
        assert chain.rpc("gettxout", chain.rpc("getblock", tip)["tx"][0], 0)["confirmations"] == 1
    chain.rpc("generatetoaddress", 1, ALICE.address)
    assert chain.terminate() == 0
    with running(tmp_path / "chain", port) as again:
        assert again.rpc("getblockcount") == 131
    assert '"reindexed": false' in (tmp_path / "chain.log").read_text().splitlines()[-1].replace(
        "False", "false"
    )


def test_killed_while_it_mines_it_has_every_block_that_was_answered(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    chain = started(tmp_path / "chain", port)
    answered = 0
    for _ in range(2):
        killer = threading.Timer(0.3, chain.process.kill)
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while True:
                chain.rpc("generate", 5)
                answered += 5
        killer.join()
        chain.process.wait()
        chain = started(tmp_path / "chain", port)
        height = chain.rpc("getblockcount")
        assert height >= answered > 0
        answered = height
    assert chain.terminate() == 0


def test_blocks_on_an_interval(tmp_path: Path) -> None:
    with running(tmp_path / "chain", free_ports(1)[0], "--mine-every", "1") as chain:
        until = time.monotonic() + 20
        while chain.rpc("getblockcount") < 2:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_what_cannot_start_says_so(tmp_path: Path, chain: ChainProcess) -> None:
    def tried(directory: Path, port: int) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "node.regtest", "--dir", str(directory), "--port", str(port)],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        return run.stderr

    assert "choose another port" in tried(tmp_path / "other", chain.port)
    assert "open in another process" in tried(chain.directory, free_ports(1)[0])
    shown = subprocess.run(
        [sys.executable, "-m", "node.regtest", "--help"], capture_output=True, check=True, text=True
    )
    assert "TESTS AND DEMONSTRATIONS ONLY" in " ".join(shown.stdout.split())
