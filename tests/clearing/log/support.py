"""What the log's tests share: vectors, a naive tree, a node store, and signers made from seeds.

Nothing here uses the code under test to compute an expected value.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from clearing.log.keys import SignatureType, VerifierKey

_VECTORS = Path(__file__).parents[2] / "vectors"
VECTORS: dict[str, Any] = json.loads((_VECTORS / "tlog_vectors.json").read_text("utf-8"))
GOLDEN: dict[str, Any] = json.loads((_VECTORS / "tlog_golden.json").read_text("utf-8"))


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


def unb64_all(texts: Iterable[str] | None) -> list[bytes]:
    return [unb64(text) for text in texts or []]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def naive_leaf(number: int) -> bytes:
    """The leaf hash of a leaf that says its number."""
    return sha256(b"\x00" + str(number).encode())


def naive_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaf_hashes:
        return sha256(b"")
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    split = 1
    while split * 2 < len(leaf_hashes):
        split *= 2
    return sha256(b"\x01" + naive_root(leaf_hashes[:split]) + naive_root(leaf_hashes[split:]))


def naive_path(index: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962, section 2.1.1, word for word."""
    if len(leaf_hashes) == 1:
        return []
    split = 1
    while split * 2 < len(leaf_hashes):
        split *= 2
    if index < split:
        return [*naive_path(index, leaf_hashes[:split]), naive_root(leaf_hashes[split:])]
    return [*naive_path(index - split, leaf_hashes[split:]), naive_root(leaf_hashes[:split])]


def naive_consistency(
    size: int, leaf_hashes: Sequence[bytes], *, whole: bool = True
) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of RFC 6962, section 2.1.2, word for word."""
    if size == len(leaf_hashes):
        return [] if whole else [naive_root(leaf_hashes)]
    split = 1
    while split * 2 < len(leaf_hashes):
        split *= 2
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    if size <= split:
        return [*naive_consistency(size, left, whole=whole), naive_root(right)]
    return [*naive_consistency(size - split, right, whole=False), naive_root(left)]


class NodeStore:
    """A `NodeReader` that keeps the nodes of `CompactRange.append_many`, and has no others."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}

    def add(self, nodes: Iterable[tuple[int, int, bytes]]) -> None:
        for level, index, value in nodes:
            assert (level, index) not in self.nodes
            self.nodes[level, index] = value

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


class SeedSigner:
    """A `Signer` whose key is made from a 32-byte seed."""

    def __init__(self, name: str, key_type: SignatureType, seed: bytes) -> None:
        self._private: Ed25519PrivateKey | MLDSA44PrivateKey
        if key_type is SignatureType.COSIGNATURE_ML_DSA_44:
            self._private = MLDSA44PrivateKey.from_seed_bytes(seed)
        else:
            self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._key = VerifierKey(name, key_type, self._private.public_key().public_bytes_raw())

    @property
    def key(self) -> VerifierKey:
        return self._key

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def log_signer(seed: bytes = bytes(range(32))) -> SeedSigner:
    return SeedSigner("ledger.example/clearing", SignatureType.ED25519, seed)


def witness_signer(number: int = 1, seed: bytes | None = None) -> SeedSigner:
    """The n-th witness; the first has the golden vector's seed 20..3f."""
    seed = seed or bytes(range(0x1F + number, 0x3F + number))
    return SeedSigner(f"witness.example/w{number}", SignatureType.COSIGNATURE_ED25519, seed)


def pq_witness_signer(number: int) -> SeedSigner:
    key_type = SignatureType.COSIGNATURE_ML_DSA_44
    return SeedSigner(f"witness.example/pq{number}", key_type, bytes([number]) * 32)
