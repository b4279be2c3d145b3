"""What commands ask of Bitcoin: a block that is trusted, and headers from a node of the user's own.

Lives here: reading those options. May not live here: verification (clearing/bitcoin), talking to a node (workers/anchoring).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.cli.errors import CheckFailedError, WrongUseError

if TYPE_CHECKING:
    from clearing.bitcoin.headers import Pin

HEADERS_TIMEOUT_S = 180.0
"""A long chain of headers takes its time."""


def parse_pin(text: str) -> Pin:
    """Return the block that HEIGHT:HASH names, the hash as Bitcoin shows it.

    Raises: WrongUseError: anything else.
    """
    from clearing.bitcoin.headers import Pin  # noqa: PLC0415

    height, colon, shown = text.partition(":")
    digits = set("0123456789abcdefABCDEF")
    is_height = height.isascii() and height.isdigit() and len(height) < 11
    if not colon or not is_height or len(shown) != 64 or not set(shown) <= digits:
        raise WrongUseError(
            "BAD_HEADER",
            f"{text!r} names no block",
            "Write HEIGHT:HASH, such as 840000 and the 64 digits that `bitcoin-cli getblockhash 840000` prints.",
        )
    return Pin(int(height), bytes.fromhex(shown)[::-1])


def header_source(url: str) -> Callable[[int], bytes]:
    """Return what reads headers from a Bitcoin node of the user's own.

    Raises: WrongUseError: the URL is none.
    """
    # The formats' libraries come with the extra `bitcoin`.
    from node.workers.anchoring.headers import HeaderSource  # noqa: PLC0415
    from node.workers.anchoring.rpc import BitcoinError, BitcoinRpc  # noqa: PLC0415

    source = HeaderSource(BitcoinRpc(url))

    def read(start_height: int) -> bytes:
        try:
            return source.read(start_height)
        except BitcoinError as error:
            raise CheckFailedError(
                "BITCOIN_NODE",
                str(error),
                "Check --bitcoin-node; without it the ledger's node is asked.",
            ) from error
        finally:
            source.close()

    return read
