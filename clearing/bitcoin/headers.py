"""A chain of block headers, judged from a pinned one: no node, no blocks, no database.

Lives here: what makes headers a chain, what is read off one (depth, median time, work), and whether another outweighs it. May not
live here: the rules for one header (next_header.py), where headers come from.

What is checked of every header: 80 bytes, its parent's hash, proof of work, the difficulty that is due (mainnet's retarget,
testnet4's 20-minute rule and BIP 94, signet's retarget, regtest's constant), a time later than the median of the eleven
before, a version that the network still accepts. The first header must be the genesis block or begin a difficulty period,
except on regtest; until eleven ancestors are known the median is not asked. The pinned header may be any of the chain: a header commits
to everything before it, and what follows it costs work.

Not checked, for headers do not hold it: transactions, and signet's block signatures (BIP 325), so that a signet or regtest
chain proves order and nothing that costs. A time more than two hours ahead of now is the caller's to refuse: there is no clock here.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass

from clearing.bitcoin.next_header import (
    HEADER_BYTES,
    HEIGHT_MAX,
    MEDIAN_BLOCKS,
    RETARGET_BLOCKS,
    BitcoinNetwork,
    HeaderError,
    HeaderFault,
    bits_of,
    limit_bits_of,
    median_time_s,
    parent_of,
    time_s_of,
    verify_context,
    verify_work,
    work_of,
    work_of_bits,
)
from clearing.bitcoin.transaction import sha256d, shown

_GENESIS_SHOWN = {
    BitcoinNetwork.MAIN: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    BitcoinNetwork.TESTNET4: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
    BitcoinNetwork.SIGNET: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    BitcoinNetwork.REGTEST: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""Block 0 of each network. Source: Bitcoin Core src/kernel/chainparams.cpp."""


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """A header that is trusted without proof: height and hash (internal order)."""

    height: int
    block_hash: bytes

    def __str__(self) -> str:
        """Return height:hash as Bitcoin shows it."""
        return f"{self.height}:{shown(self.block_hash)}"


def genesis_pin(network: BitcoinNetwork) -> Pin:
    """Return block 0 of a network."""
    return Pin(0, bytes.fromhex(_GENESIS_SHOWN[network])[::-1])


def first_height(network: BitcoinNetwork, height: int) -> int:
    """Return where a chain that shows block `height` may begin: the latest height from which every rule can be checked."""
    return 0 if network is BitcoinNetwork.REGTEST else height // RETARGET_BLOCKS * RETARGET_BLOCKS


class _Judge:
    """Checks headers one after the other; an `Ancestry` that carries along what the next one owes to those before."""

    def __init__(self, network: BitcoinNetwork, start_height: int) -> None:
        self._network = network
        self.height = start_height - 1
        self.tip = b""
        self.work = 0
        self.bits = self.time_s = 0
        self._first = (0, 0)
        # The last bits of the period that are not the easiest, for what follows an easy block.
        self._hard_bits = 0
        self._limit_bits = limit_bits_of(network)
        self._times_s: deque[int] = deque(maxlen=MEDIAN_BLOCKS)

    def hard_bits(self) -> int:
        """Return the bits of the last header that opens its period or is not the easiest."""
        return self._hard_bits

    def period_start(self) -> tuple[int, int]:
        """Return bits and time of the first header of the period."""
        return self._first

    def recent_times_s(self) -> list[int]:
        """Return the times of the last eleven headers, as many as there were."""
        return list(self._times_s)

    def take(self, header: bytes) -> None:
        """Check the next header and go on to it. Raises: HeaderError."""
        if self.tip and parent_of(header) != self.tip:
            raise HeaderError(HeaderFault.GAP, f"height {self.height + 1}")
        block_hash = self._require_work(header)
        bits, time_s = bits_of(header), time_s_of(header)
        if self.tip:
            verify_context(self._network, header, self)
            self.work += work_of_bits(bits)
        if (self.height + 1) % RETARGET_BLOCKS == 0 or not self.tip:
            self._first = (bits, time_s)
            self._hard_bits = bits
        elif bits != self._limit_bits:
            self._hard_bits = bits
        self._times_s.append(time_s)
        self.height, self.tip, self.bits, self.time_s = self.height + 1, block_hash, bits, time_s

    def _require_work(self, header: bytes) -> bytes:
        return verify_work(self._network, header, f"height {self.height + 1}")


@dataclass(frozen=True, slots=True)
class HeaderChain:
    """Headers that hold together, as `verify_chain` returns them; work: of all but the first header."""

    network: BitcoinNetwork
    start_height: int
    headers: bytes
    work: int

    @property
    def tip_height(self) -> int:
        """Height of the last header."""
        return self.start_height + len(self.headers) // HEADER_BYTES - 1

    def header(self, height: int) -> bytes:
        """Return the header at `height`.

        Raises: HeaderError: HEIGHT.
        """
        if not self.start_height <= height <= self.tip_height:
            detail = f"{height} is not in {self.start_height} to {self.tip_height}"
            raise HeaderError(HeaderFault.HEIGHT, detail)
        at = (height - self.start_height) * HEADER_BYTES
        return self.headers[at : at + HEADER_BYTES]

    def time_s(self, height: int) -> int:
        """Return the time that the block's miner claims, seconds since 1970. Raises: HeaderError: HEIGHT."""
        return time_s_of(self.header(height))

    def median_time_s(self, height: int) -> int | None:
        """Return the median of the times of a block and the ten before: what no single miner chooses; None where they are not all known.

        At genesis, as many as there are. Raises: HeaderError: HEIGHT.
        """
        self.header(height)
        first = max(height - MEDIAN_BLOCKS + 1, 0)
        if first < self.start_height:
            return None
        return median_time_s(self.time_s(one) for one in range(first, height + 1))

    def depth(self, height: int) -> int:
        """Return the confirmations of the block at `height`, 1 at the tip. Raises: HeaderError: HEIGHT."""
        self.header(height)
        return self.tip_height - height + 1

    def require_depth(self, height: int, depth_min: int) -> int:
        """Return the confirmations of the block at `height`.

        Raises: HeaderError: HEIGHT; SHALLOW: fewer than `depth_min`.
        """
        depth = self.depth(height)
        if depth < depth_min:
            raise HeaderError(HeaderFault.SHALLOW, f"{depth} where {depth_min} are asked for")
        return depth


def verify_chain(
    network: BitcoinNetwork, start_height: int, headers: bytes, pin: Pin
) -> HeaderChain:
    """Check a chain of headers, one after the other, that holds the pinned one.

    Raises: HeaderError: it does not hold, or the pinned header is not in it.
    """
    if not headers or len(headers) % HEADER_BYTES:
        raise HeaderError(HeaderFault.LENGTH, f"{len(headers)} bytes")
    count = len(headers) // HEADER_BYTES
    if not 0 <= start_height <= HEIGHT_MAX - count:
        raise HeaderError(HeaderFault.START, f"height {start_height}")
    if network is not BitcoinNetwork.REGTEST and start_height % RETARGET_BLOCKS:
        raise HeaderError(HeaderFault.START, f"height {start_height}")
    # Known before any work is done: the pin costs one hash to look for.
    at = (pin.height - start_height) * HEADER_BYTES
    if not 0 <= at < len(headers) or sha256d(headers[at : at + HEADER_BYTES]) != pin.block_hash:
        raise HeaderError(HeaderFault.PIN, str(pin))
    judge = _Judge(network, start_height)
    for at in range(0, len(headers), HEADER_BYTES):
        judge.take(headers[at : at + HEADER_BYTES])
    return HeaderChain(network, start_height, headers, judge.work)


def verify_not_outweighed(chain: HeaderChain, other: HeaderChain, height: int) -> None:
    """Check that `other` does not show the block of `chain` at `height` to be on a losing branch.

    Both must hold; they are compared from the last header they have in common.
    Raises: HeaderError: GAP: they have no header in common; LESS_WORK: `other` has another block there and more work.
    """
    fork = _last_common_height(chain, other)
    if fork is None:
        raise HeaderError(HeaderFault.GAP, "the chains have no header in common")
    if fork >= height:
        return
    ours, theirs = (_work_after(one, fork) for one in (chain, other))
    if theirs > ours:
        detail = f"they part after height {fork}"
        raise HeaderError(HeaderFault.LESS_WORK, detail)


def _last_common_height(one: HeaderChain, other: HeaderChain) -> int | None:
    least = max(one.start_height, other.start_height)
    most = min(one.tip_height, other.tip_height)
    if least > most or one.header(least) != other.header(least):
        return None
    heights = range(least, most + 1)
    # Equal headers have equal ancestors, so the common part is a beginning.
    parted = bisect.bisect_left(
        heights, True, key=lambda height: one.header(height) != other.header(height)
    )
    return least + parted - 1


def _work_after(chain: HeaderChain, height: int) -> int:
    return sum(work_of(chain.header(one)) for one in range(height + 1, chain.tip_height + 1))
