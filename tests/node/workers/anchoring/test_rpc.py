"""The RPC client against the embedded chain, and against servers that answer what no node should."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from clearing.bitcoin.headers import genesis_pin
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.transaction import shown
from node.errors import SetupError
from node.regtest.calls import Calls
from node.regtest.chain import Chain
from node.regtest.server import RpcServer
from node.workers.anchoring import rpc as module
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import (
    BadAnswerError,
    BitcoinRpc,
    CallRefusedError,
    CredentialsError,
    LaggingError,
    PrunedError,
    UnreachableError,
    WrongNetworkError,
)

CREDENTIALS = "user:p@ss/word"


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Chain(tmp_path / "chain") as opened:
        opened.mine(105)
        yield opened


@pytest.fixture
def served(chain: Chain) -> Iterator[RpcServer]:
    with RpcServer(Calls(chain), "127.0.0.1", 0, CREDENTIALS) as server:
        yield server


@pytest.fixture
def rpc(served: RpcServer, tmp_path: Path) -> Iterator[BitcoinRpc]:
    cookie = tmp_path / ".cookie"
    cookie.touch(0o600)
    cookie.write_text(CREDENTIALS + "\n")
    with BitcoinRpc(f"http://127.0.0.1:{served.port}", cookie) as client:
        yield client


def test_every_call_against_a_chain(rpc: BitcoinRpc, chain: Chain) -> None:
    assert rpc.check(Network.REGTEST).blocks == 105
    assert rpc.block_count() == 105
    found = rpc.block_hash(7)
    assert found == chain.kernel.hash_at(7)
    assert rpc.block_hash(106) is None
    assert rpc.header(found) == chain.kernel.header(found)
    block = rpc.block(found)
    assert block == chain.kernel.block(found)
    assert rpc.output(bytes(32), 0) is None
    assert not rpc.in_mempool(bytes(32))
    assert rpc.send(b"\x00") == "TX decode failed"
    assert rpc.fee_rate(6) is None
    chain.fee_estimate_sat_per_kvb = 12_345
    assert rpc.fee_rate(6) == 12_345
    with pytest.raises(CallRefusedError, match="Block not found"):
        rpc.block(bytes(32))


def test_the_url_may_hold_user_and_password(served: RpcServer) -> None:
    with BitcoinRpc(f"http://user:p%40ss%2Fword@127.0.0.1:{served.port}/") as client:
        assert client.block_count() == 105
        assert "p@ss" not in client.where
    with (
        BitcoinRpc(f"http://user:wrong@127.0.0.1:{served.port}/") as client,
        pytest.raises(CredentialsError, match="cookie file"),
    ):
        client.block_count()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8332", "ftp://u:secret@h", "http://", "http://u:secret@h:x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(SetupError) as error:
        BitcoinRpc(url)
    assert "secret" not in str(error.value)


def test_a_node_that_was_away_is_found_again(chain: Chain, tmp_path: Path) -> None:
    with RpcServer(Calls(chain), "127.0.0.1", 0, CREDENTIALS) as first:
        client = BitcoinRpc(f"http://user:p%40ss%2Fword@127.0.0.1:{first.port}", timeout_s=5)
        assert client.block_count() == 105
    client.close()  # the threads of its server outlive it, as a node's process would not
    with pytest.raises(UnreachableError, match="tried again"):
        client.block_count()
    with RpcServer(Calls(chain), "127.0.0.1", first.port, CREDENTIALS):
        assert client.block_count() == 105
    client.close()


def test_a_cookie_that_changes_or_goes(served: RpcServer, tmp_path: Path) -> None:
    cookie = tmp_path / "cookie"
    with BitcoinRpc(f"http://127.0.0.1:{served.port}", cookie) as client:
        with pytest.raises(CredentialsError, match="does not exist"):
            client.block_count()
        cookie.touch(0o600)
        cookie.write_text("other:secret")
        with pytest.raises(CredentialsError):
            client.block_count()
        cookie.write_text(CREDENTIALS)
        assert client.block_count() == 105
        cookie.chmod(0o644)
        with pytest.raises(CredentialsError, match="0644"):
            client.block_count()


class _Liar(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Callable[[dict[str, Any]], tuple[int, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, body = type(self).answer(request)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def lying() -> Iterator[Callable[[Callable[[dict[str, Any]], tuple[int, bytes]]], BitcoinRpc]]:
    servers = []

    def start(answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> BitcoinRpc:
        handler = type("Liar", (_Liar,), {"answer": staticmethod(answer)})
        server = HTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = BitcoinRpc(f"http://127.0.0.1:{server.server_address[1]}", timeout_s=2)
        servers.append((server, thread, client))
        return client

    yield start
    for server, thread, client in servers:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def _result(result: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"result": result, "error": None, "id": 1}).encode()


def _error(code: int, words: str) -> tuple[int, bytes]:
    return 500, json.dumps({"result": None, "error": {"code": code, "message": words}}).encode()


Lying = Callable[[Callable[[dict[str, Any]], tuple[int, bytes]]], BitcoinRpc]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"7", b'{"result": 1}', b"[" * 50_000, b'{"error": 7, "result": null}'],
)
def test_answers_that_are_no_json_rpc(lying: Lying, body: bytes) -> None:
    with pytest.raises(BadAnswerError):
        lying(lambda _: (200, body)).block_count()


def test_every_call_carries_the_version(lying: Lying) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        seen.append(request)
        return _result(5)

    assert lying(answer).block_count() == 5
    assert [one["jsonrpc"] for one in seen] == ["1.0"]


@pytest.mark.parametrize("result", [None, "5", [], {}])
def test_results_of_another_kind(lying: Lying, result: Any) -> None:
    client = lying(lambda _: _result(result))
    for call in (
        client.block_count,
        lambda: client.block(bytes(32)),
        lambda: client.check(Network.MAIN),
    ):
        with pytest.raises(BadAnswerError):
            call()


def test_another_block_than_asked_for(lying: Lying) -> None:
    client = lying(lambda _: _result("00" * 80))
    with pytest.raises(BadAnswerError, match="another block"):
        client.header(bytes(32))
    with pytest.raises(BadAnswerError, match="another block"):
        client.block(bytes(32))


def test_a_node_that_is_busy_or_starting(lying: Lying) -> None:
    with pytest.raises(UnreachableError, match="overloaded"):
        lying(lambda _: (503, b"Work queue depth exceeded")).block_count()
    with pytest.raises(UnreachableError, match="starting"):
        lying(lambda _: _error(-28, "Loading block index...")).block_count()


def test_an_answer_without_end(lying: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1_000)
    with pytest.raises(BadAnswerError, match="more than 1000"):
        lying(lambda _: (200, b" " * 5_000)).block_count()


def test_a_node_that_never_answers(lying: Lying) -> None:
    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        time.sleep(0.5)
        return _result(1)

    client = lying(answer)
    client._connect = lambda connect=client._connect: _hasty(connect())
    with pytest.raises(UnreachableError):
        client.block_count()


def _hasty(connection: Any) -> Any:
    connection.timeout = 0.1
    return connection


def _node(network: Network, **facts: Any) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        if request["method"] == "getblockhash":
            return _result(shown(genesis_pin(BitcoinNetwork[network.name]).block_hash))
        return _result({"chain": network.value, "blocks": 900, "headers": 900} | facts)

    return answer


def test_nodes_that_do_not_serve_are_named(lying: Lying) -> None:
    good = lying(_node(Network.MAIN, pruned=True, pruneheight=500))
    assert good.check(Network.MAIN, 500).first_block == 500
    with pytest.raises(PrunedError, match="before 500"):
        good.check(Network.MAIN, 499)
    with pytest.raises(WrongNetworkError, match="signet is configured"):
        good.check(Network.SIGNET)
    with pytest.raises(LaggingError, match="900 of 903"):
        lying(_node(Network.MAIN, headers=903)).check(Network.MAIN)
    with pytest.raises(LaggingError):
        lying(_node(Network.SIGNET, initialblockdownload=True)).check(Network.SIGNET)
    # A regtest node says so until its first block of today: no sign of anything.
    lying(_node(Network.REGTEST, initialblockdownload=True)).check(Network.REGTEST)


def test_what_a_node_says_of_a_transaction_is_a_hint(lying: Lying) -> None:
    assert lying(lambda _: _error(-25, "bad-txns-inputs-missingorspent")).send(b"") != ""
    assert lying(lambda _: _error(-26, "")).send(b"") == "error -26"
    assert lying(lambda _: _error(-32601, "Method not found")).fee_rate(6) is None
    for found in ({}, {"feerate": "x"}, {"feerate": 0}, {"feerate": -1}, None, []):
        assert lying(lambda _, found=found: _result(found)).fee_rate(6) is None
