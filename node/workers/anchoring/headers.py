"""Block headers of the best chain, for whoever verifies an anchor with nothing but them.

Lives here: reading them from the Bitcoin node. May not live here: their verification (clearing/bitcoin/headers.py): who asks
believes none of them.

Headers are read from the tip back, each by the hash that the one after it names, so that what is returned is one chain
whatever the node's chain does meanwhile; those that were read before are kept.
"""

from __future__ import annotations

import threading

from clearing.bitcoin.next_header import RETARGET_BLOCKS, parent_of
from node.workers.anchoring.rpc import BitcoinRpc

HEADERS_MAX = 10 * RETARGET_BLOCKS
"""Most headers of one answer: 1.6 MB."""

_KEPT_MAX = 4 * HEADERS_MAX


class HeaderSource:
    """Reads headers over a connection of its own. Safe from several threads, one reads at a time."""

    def __init__(self, rpc: BitcoinRpc) -> None:
        """Read from `rpc`."""
        self._rpc = rpc
        self._lock = threading.Lock()
        self._kept: dict[bytes, bytes] = {}

    def abort(self) -> None:
        """End a read that another thread waits for."""
        self._rpc.abort()

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        self._rpc.close()

    def read(self, start_height: int) -> bytes:
        """Return the headers of the best chain from `start_height` on, to the tip or HEADERS_MAX of them; b"" above the tip.

        Raises: BitcoinError: the Bitcoin node cannot be asked.
        """
        with self._lock:
            last = min(self._rpc.block_count(), start_height + HEADERS_MAX - 1)
            block_hash = self._rpc.block_hash(last) if last >= start_height else None
            if block_hash is None:
                return b""
            found: list[bytes] = []
            for _ in range(last - start_height + 1):
                header = self._kept.get(block_hash) or self._rpc.header(block_hash)
                self._keep(block_hash, header)
                found.append(header)
                block_hash = parent_of(header)
            return b"".join(reversed(found))

    def _keep(self, block_hash: bytes, header: bytes) -> None:
        if block_hash not in self._kept and len(self._kept) >= _KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[block_hash] = header
