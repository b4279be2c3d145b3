"""Real headers of mainnet, and block 0 of each network; see tests/vectors/README.md.

Lives here: unpacking the vectors.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from clearing.bitcoin.headers import Pin
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.transaction import sha256d

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "bitcoin_headers.json").read_text()
)
GENESIS = {BitcoinNetwork[name]: bytes.fromhex(one) for name, one in VECTORS["genesis"].items()}
START_HEIGHT: int = VECTORS["mainnet"]["start_height"]


@cache
def mainnet() -> tuple[bytes, ...]:
    """Return the headers, in order from START_HEIGHT."""
    packed = VECTORS["mainnet"]
    count = packed["count"]
    data = zlib.decompress(base64.b64decode(packed["columns"]))
    columns, at = [], 0
    for width in (4, 32, 4, 4, 4):
        columns.append([data[at + n * width : at + (n + 1) * width] for n in range(count)])
        at += width * count
    headers: list[bytes] = []
    parent = bytes.fromhex(packed["parent"])
    for version, *rest in zip(*columns, strict=True):
        headers.append(version + parent + b"".join(rest))
        parent = sha256d(headers[-1])
    return tuple(headers)


def mainnet_pin() -> Pin:
    """Return the pin of the first of them."""
    return Pin(START_HEIGHT, sha256d(mainnet()[0]))


def real(network: BitcoinNetwork) -> dict[int, bytes]:
    """Return real headers of testnet4 or signet by height; see the vectors' sources."""
    packed = VECTORS[network.name.lower()]["headers"]
    return {int(height): bytes.fromhex(one) for height, one in packed.items()}
