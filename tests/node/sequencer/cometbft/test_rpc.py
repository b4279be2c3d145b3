"""What the engine's answers mean; texts as they were seen of CometBFT v0.39.4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from node.sequencer.cometbft.rpc import (
    EngineAwayError,
    EngineBehindError,
    EngineError,
    EngineFullError,
    EngineRpc,
)
from node.services.facade import EngineFacts
from tests.node.sequencer.cometbft.rpc_kit import BREAK, Answer, ScriptedRpc


@contextmanager
def scripted(tmp_path: Path, answer: Answer) -> Iterator[tuple[EngineRpc, ScriptedRpc]]:
    """An engine that answers so, and this node's calls to it."""
    path = tmp_path / "rpc.sock"
    with ScriptedRpc(path, answer) as server, closing(EngineRpc(path)) as rpc:
        yield rpc, server


TAKEN = {"code": 0, "data": "", "log": "", "codespace": "", "hash": "AB"}


def test_a_transaction_is_handed_in_as_hex(tmp_path: Path) -> None:
    with scripted(tmp_path, lambda _: TAKEN) as (rpc, server):
        answer = rpc.broadcast(b"\x00\xff")
        assert (answer.code, answer.log) == (0, "")
        assert server.asked == ["/broadcast_tx_sync?tx=0x00ff"]


def test_what_the_application_refused_comes_as_its_code(tmp_path: Path) -> None:
    refused = {**TAKEN, "code": 102, "log": "BAD_SIGNATURE"}
    with scripted(tmp_path, lambda _: refused) as (rpc, _):
        assert rpc.broadcast(b"x").code == 102


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("mempool is full: number of txs 3 (max: 3), total txs bytes 9 (max: 9)", EngineFullError),
        ("endpoint is closed while node is catching up", EngineBehindError),
        ("Tx too large. Max size is 524288, but got 524289", EngineError),
    ],
)
def test_errors_have_types(tmp_path: Path, data: str, error: type[EngineError]) -> None:
    with scripted(tmp_path, lambda _: data) as (rpc, _), pytest.raises(error) as raised:
        rpc.broadcast(b"x")
    assert type(raised.value) is error


def test_bytes_that_are_queued_already_count_as_queued(tmp_path: Path) -> None:
    with scripted(tmp_path, lambda _: "tx already exists in cache") as (rpc, _):
        assert rpc.broadcast(b"x").code == 0


def test_a_connection_that_was_closed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    answers = iter([TAKEN, BREAK, TAKEN, BREAK, BREAK])
    with scripted(tmp_path, lambda _: next(answers)) as (rpc, _):
        assert rpc.broadcast(b"1").code == 0
        assert rpc.broadcast(b"2").code == 0
        # Twice in a row is no idle connection.
        with pytest.raises(EngineAwayError):
            rpc.broadcast(b"3")


@pytest.mark.parametrize("result", [{}, [], {"code": "x", "log": ""}])
def test_an_answer_that_does_not_read_leaves_it_open(tmp_path: Path, result: object) -> None:
    with scripted(tmp_path, lambda _: result) as (rpc, _):
        with pytest.raises(EngineAwayError):
            rpc.broadcast(b"x")
        with pytest.raises(EngineError):
            rpc.status()


def test_an_engine_that_is_not_there_is_away(tmp_path: Path) -> None:
    with pytest.raises(EngineAwayError, match="broadcast_tx_sync"):
        EngineRpc(tmp_path / "rpc.sock").broadcast(b"x")


def test_status_height_peers_and_power(tmp_path: Path) -> None:
    answers = {
        "/status": {
            "sync_info": {"latest_block_height": "17", "catching_up": False},
            "validator_info": {"voting_power": "10"},
        },
        "/net_info": {"n_peers": "3"},
    }
    with scripted(tmp_path, answers.__getitem__) as (rpc, _):
        assert rpc.status() == EngineFacts(17, is_catching_up=False, peers=3, power=10)


def test_a_list_of_validators_is_read_to_its_end(tmp_path: Path) -> None:
    def answer(asked: str):
        page = int(asked.rpartition("=")[2])
        rows = [{"n": n} for n in range(150)][(page - 1) * 100 : page * 100]
        return {"validators": rows, "total": "150"}

    with scripted(tmp_path, answer) as (rpc, _):
        assert len(rpc.validators(5)) == 150
