"""A Bitcoin node by JSON-RPC: nine calls that every Core-compatible node answers.

Lives here: HTTP, reconnecting, checking that answers are what they say. May not live here: what is decided by them.

What a node says of its mempool and by its error codes is no evidence: nodes differ, and some keep dead transactions or
accept them. So `send` and `in_mempool` return hints, and callers judge by headers and by outputs that are unspent.
Every call carries "jsonrpc", which btcd demands; headers and blocks are checked against the hash that asked for them.
Source: Bitcoin Core RPC reference; btcd's, for what both have.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from clearing.bitcoin.headers import genesis_pin
from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork
from clearing.bitcoin.transaction import sha256d, shown
from clearing.errors import ClearingError
from node.errors import SetupError
from node.files import read_private
from node.workers.anchoring.network import Network

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64 << 20
BEHIND_BLOCKS_MAX = 2
"""More headers than blocks by this many, and a node is still catching up."""

SATOSHI = 100_000_000

_WARMING_UP = -28
_NOT_FOUND_CODES = frozenset((-1, -5, -8, -32603))


class BitcoinError(ClearingError):
    """The Bitcoin node cannot be used now; the text says why and what to do."""


class UnreachableError(BitcoinError):
    """It does not answer, is overloaded or still starting: try again later."""


class CredentialsError(BitcoinError):
    """It refuses user and password."""


class WrongNetworkError(BitcoinError):
    """It is on another network than configured."""


class PrunedError(BitcoinError):
    """It has deleted blocks that are needed."""


class LaggingError(BitcoinError):
    """It has not caught up with its network."""


class BadAnswerError(BitcoinError):
    """It answers what no Bitcoin node should."""


class CallRefusedError(BitcoinError):
    """It answers a call with an error; `code` is its number, which proves nothing."""

    def __init__(self, method: str, code: int, words: str) -> None:
        """Say what was refused in the node's own words."""
        super().__init__(f"the Bitcoin node refuses {method}: {words[:300]} ({code})")
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """Where a node stands: its blocks and headers, and from which block on it still has them all."""

    blocks: int
    headers: int
    first_block: int


@dataclass(frozen=True, slots=True)
class Output:
    """An unspent output: amount in satoshi, script, confirmations, and whether a coinbase made it."""

    amount_sat: int
    script: bytes
    confirmations: int
    is_coinbase: bool


class BitcoinRpc:
    """One node, over a connection that is kept and made again. Safe from several threads, one call at a time."""

    def __init__(
        self, url: str, cookie_path: Path | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Prepare to call `url`; nothing is sent yet.

        cookie_path: a file with user:password, read again whenever the node refuses; without it the URL holds them, or
        the node asks for none.
        Raises: SetupError: not an http or https URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SetupError(
                f"{_without_secret(url)} is no URL of a Bitcoin node: write http://HOST:PORT"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise SetupError(f"{_without_secret(url)} has no usable port: {error}") from error
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        host = parts.hostname
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(
            host, port, timeout=timeout_s
        )
        self._path = parts.path or "/"
        self._cookie_path = cookie_path
        self._in_url = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self.where = f"{parts.scheme}://{host}:{port}" if port else f"{parts.scheme}://{host}"
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._numbers = itertools.count(1)
        self._is_aborted = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        with self._lock:
            self._drop()

    def abort(self) -> None:
        """End a call that another thread waits for, so that its process can stop: it and all later ones are unreachable."""
        self._is_aborted = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the wire

    def call(self, method: str, *parameters: Any) -> Any:
        """Make one call and return its result; numbers with a fraction are Decimal.

        Raises: BitcoinError: see its kinds.
        """
        number = next(self._numbers)
        body = json.dumps(
            {"jsonrpc": "1.0", "id": number, "method": method, "params": list(parameters)}
        ).encode()
        with self._lock:
            status, data = self._post(body)
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise CredentialsError(
                f"the Bitcoin node at {self.where} refuses user and password: check the cookie file or the URL"
            )
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise UnreachableError(
                f"the Bitcoin node at {self.where} is overloaded: it is tried again"
            )
        try:
            answer = json.loads(data, parse_float=Decimal)
            failed, result = answer["error"], answer["result"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadAnswerError(
                f"{self.where} answers {method} with HTTP {status} and no JSON-RPC: is it a Bitcoin node's RPC port?"
            ) from error
        if not failed:
            return result
        try:
            code, words = int(failed["code"]), str(failed["message"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(f"{self.where} answers {method} with a malformed error") from error
        if code == _WARMING_UP:
            raise UnreachableError(
                f"the Bitcoin node at {self.where} is starting ({words}): it is tried again"
            )
        raise CallRefusedError(method, code, words)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer; a connection that has died meanwhile is made again, once."""
        for is_last in (self._connection is None, True):
            try:
                return self._exchange(body)
            except (http.client.HTTPException, OSError) as error:
                self._drop()
                if is_last or self._is_aborted:
                    raise UnreachableError(
                        f"the Bitcoin node at {self.where} does not answer ({error or type(error).__name__}): "
                        "it is tried again"
                    ) from error
        raise UnreachableError(f"the Bitcoin node at {self.where} does not answer")

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        if self._is_aborted:
            raise ConnectionAbortedError("this process is ending")
        if self._connection is None:
            self._connection = self._connect()
        secret = self._in_url
        if self._cookie_path is not None:
            try:
                secret = read_private(self._cookie_path).decode().strip()
            except (SetupError, UnicodeDecodeError) as error:
                raise CredentialsError(f"{error}") from error
        headers = {
            "Authorization": "Basic " + base64.b64encode(secret.encode()).decode(),
            "Content-Type": "application/json",
        }
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX + 1)
        if len(data) > ANSWER_BYTES_MAX:
            self._drop()
            raise BadAnswerError(
                f"{self.where} sends more than {ANSWER_BYTES_MAX} bytes in one answer"
            )
        return answer.status, data

    # -- what is asked

    def check(self, network: Network, first_block: int = 0) -> ChainInfo:
        """Check that the node serves: right network, caught up, blocks from `first_block` on; return where it stands.

        Raises: WrongNetworkError, PrunedError, LaggingError, BitcoinError.
        """
        found = self.call("getblockchaininfo")
        try:
            blocks, headers = int(found["blocks"]), int(found["headers"])
            name, pruned = str(found["chain"]), bool(found.get("pruned"))
            has_from = int(found.get("pruneheight", 0)) if pruned else 0
            is_starting = bool(found.get("initialblockdownload")) and network is not Network.REGTEST
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(
                f"{self.where} answers getblockchaininfo without its facts"
            ) from error
        genesis = self.call("getblockhash", 0)
        # The name alone is not enough: forks kept it.
        if genesis != shown(genesis_pin(BitcoinNetwork[network.name]).block_hash):
            raise WrongNetworkError(
                f"the Bitcoin node at {self.where} is on {name[:20]!r}, and {network.value} is configured: point "
                "bitcoin_rpc_url at another node, or correct bitcoin_network"
            )
        if has_from > first_block:
            raise PrunedError(
                f"the Bitcoin node at {self.where} has deleted the blocks before {has_from}, and {first_block} is needed: "
                "use a node that keeps them"
            )
        if is_starting or headers - blocks > BEHIND_BLOCKS_MAX:
            raise LaggingError(
                f"the Bitcoin node at {self.where} is catching up, {blocks} of {headers} blocks: it is waited for"
            )
        return ChainInfo(blocks, headers, has_from)

    def block_count(self) -> int:
        """Return the height of the node's best chain. Raises: BitcoinError."""
        return int(self._typed("getblockcount", int))

    def block_hash(self, height: int) -> bytes | None:
        """Return the hash (internal order) of the best chain's block at `height`; None above the tip.

        Raises: BitcoinError.
        """
        try:
            return self._hash("getblockhash", height)
        except CallRefusedError as error:
            if error.code in _NOT_FOUND_CODES:
                return None
            raise

    def header(self, block_hash: bytes) -> bytes:
        """Return the 80 bytes of a block's header, checked against its hash. Raises: BitcoinError."""
        data = self._bytes("getblockheader", block_hash[::-1].hex(), False)
        if len(data) != HEADER_BYTES or sha256d(data) != block_hash:
            raise BadAnswerError(f"{self.where} answers getblockheader with another block's header")
        return data

    def block(self, block_hash: bytes) -> bytes:
        """Return a block's bytes; its header is checked against the hash. Raises: BitcoinError."""
        data = self._bytes("getblock", block_hash[::-1].hex(), 0)
        if sha256d(data[:HEADER_BYTES]) != block_hash:
            raise BadAnswerError(f"{self.where} answers getblock with another block")
        return data

    def in_mempool(self, txid: bytes) -> bool:
        """Return whether the node says that a transaction is in its mempool: a hint. Raises: BitcoinError."""
        return txid[::-1].hex() in self._typed("getrawmempool", list)

    def output(self, txid: bytes, index: int) -> Output | None:
        """Return an output that the best chain's blocks leave unspent, or None. Raises: BitcoinError."""
        found = self.call("gettxout", txid[::-1].hex(), index, False)
        if found is None:
            return None
        try:
            return Output(
                int(Decimal(found["value"]) * SATOSHI),
                bytes.fromhex(found["scriptPubKey"]["hex"]),
                int(found["confirmations"]),
                bool(found["coinbase"]),
            )
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            raise BadAnswerError(f"{self.where} answers gettxout without its facts") from error

    def send(self, raw: bytes) -> str:
        """Hand a transaction to the node and return what it says, "" where it took it: a hint either way.

        Raises: BitcoinError: it could not be asked.
        """
        try:
            self.call("sendrawtransaction", raw.hex())
        except CallRefusedError as error:
            return error.words or f"error {error.code}"
        return ""

    def fee_rate(self, target_blocks: int) -> int | None:
        """Return the node's estimate in satoshi per 1,000 virtual bytes, or None where it has none.

        Raises: BitcoinError.
        """
        try:
            found = self.call("estimatesmartfee", target_blocks)
        except CallRefusedError:
            # Some nodes do not have the call.
            return None
        try:
            rate = int(Decimal(found["feerate"]) * SATOSHI)
        except (KeyError, TypeError, ValueError, InvalidOperation):
            return None
        return rate if rate > 0 else None

    def _typed(self, method: str, kind: type[Any], *parameters: Any) -> Any:
        found = self.call(method, *parameters)
        if not isinstance(found, kind):
            raise BadAnswerError(f"{self.where} answers {method} with a {type(found).__name__}")
        return found

    def _bytes(self, method: str, *parameters: Any) -> bytes:
        try:
            return bytes.fromhex(self._typed(method, str, *parameters))
        except ValueError as error:
            raise BadAnswerError(f"{self.where} answers {method} with no hexadecimal") from error

    def _hash(self, method: str, *parameters: Any) -> bytes:
        found = self._bytes(method, *parameters)
        if len(found) != 32:
            raise BadAnswerError(f"{self.where} answers {method} with no hash")
        return found[::-1]


def _without_secret(url: str) -> str:
    """Return a URL without what stands before @."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('//')[0]}//...@{after}"[:120] if at else url[:120]
