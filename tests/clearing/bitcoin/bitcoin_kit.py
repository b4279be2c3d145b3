"""Coins, keys and blocks for tests of Bitcoin settlement and mined coin: real scripts, signatures and proof of work.

Lives here: what several of these tests build. Regtest's target is found in two tries a block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from btclib import bip322
from btclib.block.block import bip34_commitment
from btclib.key import PrvKeyData
from btclib.script.script_pub_key import ScriptPubKey
from embit import ec, script

from clearing.bitcoin.settlement import Coin, Payee, Payer, Template, make_template
from clearing.bitcoin.transaction import (
    Outpoint,
    Output,
    Transaction,
    TransactionProof,
    sha256d,
    without_witness,
)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "bitcoin_settlement.json").read_text()
)
REGTEST_GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
)
"""Block 0 of regtest. Source: Bitcoin Core src/kernel/chainparams.cpp CRegTestParams."""

BITS = bytes.fromhex("ffff7f20")
TARGET = 0x7FFFFF << (8 * (0x20 - 3))


def secret(name: str) -> bytes:
    """Return the 32-byte secret that a name always has."""
    return hashlib.sha256(f"coin key {name}".encode()).digest()


def key(name: str) -> Any:
    """Return the embit key of a name."""
    return ec.PrivateKey(secret(name))


def wpkh(name: str) -> bytes:
    """Return the P2WPKH script of a name's key."""
    return bytes(script.p2wpkh(key(name)).data)


def taproot(name: str) -> bytes:
    """Return the P2TR script of a name's key."""
    return bytes(script.p2tr(key(name)).data)


def signed_message(name: str, paid: bytes, message: bytes) -> bytes:
    """Return the BIP 322 witness of `message` by a name's key for one of its two scripts."""
    secret_key = PrvKeyData(int.from_bytes(secret(name), "big"))
    return bytes(bip322.sign(message, secret_key, ScriptPubKey(paid).address).serialize())


def coin(name: str, amount_sat: int, paid: bytes | None = None) -> Coin:
    """Return a coin of a name that no other call with other words returns."""
    paid = paid or wpkh(name)
    txid = hashlib.sha256(f"coin {name} {amount_sat} {paid.hex()}".encode()).digest()
    return Coin(Outpoint(txid, 0), amount_sat, paid)


def leg(payers: int, payees: int, fee_rate: int = 2_000) -> tuple[Template, list[Payer]]:
    """Return a template in which everyone pays or gets about a tenth of a coin, scripts of both kinds."""
    each = 10_000_000 // payees * payees
    paying = [
        Payer(
            number,
            each * payees // payees,
            (coin(f"payer {number}", 2 * each, _script(f"payer {number}", number)),),
            _script(f"payer {number}", number),
        )
        for number in range(payers)
    ]
    total = sum(payer.debit_sat for payer in paying)
    shares = [total // payees + (total % payees if at == 0 else 0) for at in range(payees)]
    paid = [Payee(1000 + at, share, _script(f"payee {at}", at)) for at, share in enumerate(shares)]
    return make_template(paying, paid, fee_rate), paying


def _script(name: str, number: int) -> bytes:
    return taproot(name) if number % 2 else wpkh(name)


def transaction(inputs: Sequence[Outpoint], outputs: Sequence[Output], stamp: bytes = b"") -> bytes:
    """Return a transaction without witnesses; `stamp` is the script of its first input."""
    parts = [(2).to_bytes(4, "little"), bytes([len(inputs)])]
    for at, one in enumerate(inputs):
        words = stamp if at == 0 else b""
        parts += [one.encode(), bytes([len(words)]), words, b"\xff" * 4]
    parts.append(bytes([len(outputs)]))
    for each in outputs:
        parts += [each.amount_sat.to_bytes(8, "little"), bytes([len(each.script)]), each.script]
    return b"".join([*parts, bytes(4)])


def coinbase(height: int, *outputs: Output, tag: bytes = b"tag") -> bytes:
    """Return a coinbase without its witness."""
    stamp = bytes(bip34_commitment(height)) + bytes([len(tag)]) + tag
    return transaction([Outpoint(bytes(32), 0xFFFFFFFF)], outputs, stamp)


def mine(parent: bytes, merkle_root: bytes, *, salt: int = 0, time_s: int = 0) -> bytes:
    """Return a header on `parent` with regtest's proof of work."""
    time_s = time_s or int.from_bytes(parent[68:72], "little") + 600
    head = (0x20000000 + salt).to_bytes(4, "little") + sha256d(parent) + merkle_root
    head += time_s.to_bytes(4, "little") + BITS
    for nonce in range(1 << 20):
        header = head + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(header), "little") <= TARGET:
            return header
    raise AssertionError("no nonce was found")


def merkle(txids: Sequence[bytes], position: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Return root and branch of one leaf, as Bitcoin makes trees: an odd end is paired with itself."""
    row, branch = list(txids), []
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        branch.append(row[position ^ 1])
        row = [sha256d(row[at] + row[at + 1]) for at in range(0, len(row), 2)]
        position //= 2
    return row[0], tuple(branch)


class Chain:
    """Headers of a regtest chain and the proofs of the transactions in its blocks."""

    def __init__(self, headers: Sequence[bytes] = (REGTEST_GENESIS,)) -> None:
        """Start from headers that are there."""
        self.headers = list(headers)

    @property
    def height(self) -> int:
        """Height of the tip."""
        return len(self.headers) - 1

    def block(self, *transactions: bytes, salt: int = 0) -> list[TransactionProof]:
        """Mine one block and return the proof of each transaction; without a coinbase of its own it gets a plain one."""
        parsed = [Transaction.decode(without_witness(one)) for one in transactions]
        if not parsed or not parsed[0].is_coinbase:
            own = coinbase(self.height + 1, Output(1, b"\x51" * 22), tag=bytes([salt % 256] * 4))
            parsed.insert(0, Transaction.decode(own))
        txids = [one.txid for one in parsed]
        root = merkle(txids, 0)[0]
        header = mine(self.headers[-1], root, salt=salt)
        self.headers.append(header)
        found = [
            TransactionProof(sha256d(header), at, merkle(txids, at)[1], one)
            for at, one in enumerate(parsed)
        ]
        return found[len(found) - len(transactions) :]

    def blocks(self, count: int, salt: int = 0) -> None:
        """Mine blocks with nothing in them."""
        for _ in range(count):
            self.block(salt=salt)

    def fork(self, height: int) -> Chain:
        """Return another chain with the blocks up to `height`."""
        return Chain(self.headers[: height + 1])
