"""A chain in a temporary place, keys to spend its coins with, and its calls over real HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from embit import ec
from embit.finalizer import finalize_psbt
from embit.psbt import PSBT
from embit.script import Script, p2tr, p2wpkh
from embit.transaction import Transaction, TransactionInput, TransactionOutput

REGTEST = {"bech32": "bcrt"}
START_S = 20.0


class CallError(Exception):
    """The node's own error: number and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Rpc:
    """JSON-RPC as a stranger would speak it; `jsonrpc` is sent where it is set."""

    url: str
    credentials: str
    jsonrpc: str | None = None

    def __call__(self, method: str, *parameters: Any) -> Any:
        request: dict[str, Any] = {"method": method, "params": list(parameters), "id": 1}
        if self.jsonrpc:
            request["jsonrpc"] = self.jsonrpc
        answer = json.loads(self.post(json.dumps(request).encode())[1], parse_float=Decimal)
        if answer.get("error"):
            raise CallError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def post(self, body: bytes, credentials: str | None = None) -> tuple[int, bytes]:
        secret = base64.b64encode((credentials or self.credentials).encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self.url, body, headers)  # noqa: S310 - http on loopback
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@dataclass(frozen=True)
class Key:
    """A key that owns P2WPKH or P2TR outputs."""

    secret: ec.PrivateKey
    script: Script

    @classmethod
    def wpkh(cls, number: int) -> Key:
        secret = ec.PrivateKey(number.to_bytes(32, "big"))
        return cls(secret, p2wpkh(secret.get_public_key()))

    @classmethod
    def tr(cls, number: int) -> Key:
        secret = ec.PrivateKey(number.to_bytes(32, "big"))
        return cls(secret, p2tr(secret.get_public_key()))

    @property
    def address(self) -> str:
        return str(self.script.address(REGTEST))

    def spend(
        self,
        coins: list[tuple[str, int, int]],
        outputs: list[tuple[bytes, int]],
        sequence: int = 0xFFFFFFFD,
    ) -> str:
        """Return a signed transaction: coins are txid, index and amount of outputs to this key."""
        inputs = [
            TransactionInput(bytes.fromhex(txid), n, sequence=sequence) for txid, n, _ in coins
        ]
        made = [TransactionOutput(amount, Script(script)) for script, amount in outputs]
        psbt = PSBT(Transaction(vin=inputs, vout=made))
        for scope, (_, _, amount) in zip(psbt.inputs, coins, strict=True):
            scope.witness_utxo = TransactionOutput(amount, self.script)
        psbt.sign_with(self.secret)
        final = finalize_psbt(psbt)
        assert final is not None
        return final.serialize().hex()


def coinbase(rpc: Rpc, height: int) -> tuple[str, int, int]:
    """Return the reward of a block as a coin to spend."""
    txid = rpc("getblock", rpc("getblockhash", height))["tx"][0]
    return txid, 0, int(rpc("gettxout", txid, 0)["value"] * 10**8)


@dataclass
class ChainProcess:
    """`python -m node.regtest` on a directory."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def rpc(self) -> Rpc:
        return Rpc(f"http://127.0.0.1:{self.port}/", (self.directory / ".cookie").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def started(directory: Path, port: int, *options: str) -> ChainProcess:
    """Start a chain's process and wait until it answers."""
    log = (directory.parent / f"{directory.name}.log").open("ab")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "node.regtest",
            "--dir",
            str(directory),
            "--port",
            str(port),
            *options,
        ],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )
    log.close()
    chain = ChainProcess(directory, port, process)
    until = time.monotonic() + START_S
    while True:
        try:
            chain.rpc("getblockcount")
        except (OSError, json.JSONDecodeError):
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < until, "the chain does not answer"
            time.sleep(0.02)
        else:
            return chain


@contextmanager
def running(directory: Path, port: int, *options: str) -> Iterator[ChainProcess]:
    chain = started(directory, port, *options)
    try:
        yield chain
    finally:
        chain.kill()
