"""A chain of block headers, judged from a pinned one: no node, no blocks, no database.

Lives here: the rules of a whole chain, what is read off one (depth, median time, work), and the choice by most work. May not
live here: the rules for a single header on its parent as the ledger applies them (next_header.py), where headers come from.

What is checked of every header: 80 bytes, its parent's hash, proof of work, the difficulty that is due (mainnet's retarget,
testnet4's 20-minute rule and BIP 94, signet's retarget, regtest's constant), a time later than the median of the eleven
before, a version that the network still accepts. The first header must be the genesis block or begin a difficulty period,
except on regtest; until eleven ancestors are known the median is not asked. The pinned header may be any of the chain: a header commits
to everything before it, and what follows it costs work.

Not checked, for headers do not hold it: transactions, and signet's block signatures (BIP 325), so that a signet or regtest
chain proves order and nothing that costs. A time more than two hours ahead of now is the caller's to refuse: there is no clock here.
Source: Bitcoin Core src/pow.cpp, ContextualCheckBlockHeader in src/validation.cpp; BIP 94. Parameters by btclib.
"""

from __future__ import annotations

import bisect
import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from clearing.bitcoin.next_header import (
    HEADER_BYTES,
    MEDIAN_BLOCKS,
    RETARGET_BLOCKS,
    BitcoinNetwork,
    consensus_of,
)
from clearing.bitcoin.transaction import sha256d, shown
from clearing.errors import VerificationError

TIME_WARP_S = 600
"""How far a period's first block may lie before its parent. Source: BIP 94."""

HEIGHT_MAX = (1 << 31) - 1
"""Bitcoin counts heights in 31 bits."""

_GENESIS_SHOWN = {
    BitcoinNetwork.MAIN: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    BitcoinNetwork.TESTNET4: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
    BitcoinNetwork.SIGNET: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    BitcoinNetwork.REGTEST: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""Block 0 of each network. Source: Bitcoin Core src/kernel/chainparams.cpp."""


class HeaderFault(enum.Enum):
    """Why a chain of headers is refused."""

    LENGTH = "headers are 80 bytes each, and at least one"
    START = "a chain begins at genesis or with a difficulty period"
    GAP = "a header does not name the one before as its parent"
    BITS = "a difficulty that is no target of this network"
    WORK = "a header without its proof of work"
    RETARGET = "another difficulty than is due"
    TIME_WARP = "the first block of a period lies before its parent"
    MEDIAN = "a header no later than the median of the eleven before it"
    VERSION = "a version that the network no longer accepts"
    PIN = "the pinned header is not in the chain"
    HEIGHT = "the chain has no block at this height"
    SHALLOW = "too few confirmations"
    LESS_WORK = "another chain from the same header has more work"


class HeaderError(VerificationError):
    """A chain of headers does not hold; `fault` says why."""

    def __init__(self, fault: HeaderFault, detail: str) -> None:
        """Refuse for `fault`."""
        super().__init__(f"{fault.name}: {fault.value} ({detail})")
        self.fault = fault


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


@lru_cache(maxsize=4096)
def _target(bits: int) -> int:
    """Return the target that compact bits stand for; 0 where they stand for none (negative, or beyond 256 bits)."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000 and mantissa:
        return 0
    target = mantissa >> (8 * (3 - exponent)) if exponent <= 3 else mantissa << (8 * (exponent - 3))
    return target if target < 1 << 256 else 0


def _compact(target: int) -> int:
    """Return the compact bits of a target, rounded down."""
    size = (target.bit_length() + 7) // 8
    mantissa = target << (8 * (3 - size)) if size <= 3 else target >> (8 * (size - 3))
    # The highest bit of the mantissa is a sign.
    if mantissa & 0x800000:
        mantissa >>= 8
        size += 1
    return size << 24 | mantissa


@lru_cache(maxsize=4096)
def _work(bits: int) -> int:
    return (1 << 256) // (_target(bits) + 1)


def next_target_bits(base_bits: int, first_s: int, last_s: int, limit_bits: int) -> int:
    """Return the bits of the next period, from times of the first and last block of this one (seconds).

    Source: Bitcoin Core CalculateNextWorkRequired.
    """
    timespan_s = RETARGET_BLOCKS * 600
    actual_s = min(max(last_s - first_s, timespan_s // 4), timespan_s * 4)
    target = _target(base_bits) * actual_s % (1 << 256) // timespan_s
    return _compact(min(target, _target(limit_bits)))


class _Judge:
    """Checks headers one after the other; knows what the next one owes to those before."""

    def __init__(self, network: BitcoinNetwork, start_height: int) -> None:
        consensus = consensus_of(network)
        self._limit_bits = int.from_bytes(consensus.pow_limit_bits, "big")
        self._limit = _target(self._limit_bits)
        self._is_constant = consensus.pow_no_retargeting
        self._has_easy_blocks = consensus.pow_allow_min_difficulty_blocks
        self._enforces_bip94 = consensus.enforce_bip94
        self._spacing_s = consensus.pow_target_spacing
        self._versions = (
            (consensus.bip34_height, 2),
            (consensus.bip66_height, 3),
            (consensus.bip65_height, 4),
        )
        self.height = start_height - 1
        self.tip = b""
        self.work = 0
        self._bits = self._time_s = 0
        self._first_bits = self._first_s = 0
        # The last bits of the period that are not the easiest, for what follows an easy block.
        self._hard_bits = 0
        self._times: deque[int] = deque(maxlen=MEDIAN_BLOCKS)

    def take(self, header: bytes) -> None:
        """Check the next header and go on to it. Raises: HeaderError."""
        height = self.height + 1
        time_s = int.from_bytes(header[68:72], "little")
        bits = int.from_bytes(header[72:76], "little")
        block_hash = sha256d(header)
        if self.tip and header[4:36] != self.tip:
            raise HeaderError(HeaderFault.GAP, f"height {height}")
        target = _target(bits)
        if not 0 < target <= self._limit:
            raise HeaderError(HeaderFault.BITS, f"height {height}, {bits:08x}")
        self._require_work(block_hash, target)
        if self.tip:
            self._follow(header, height, time_s, bits)
            self.work += _work(bits)
        if height % RETARGET_BLOCKS == 0 or not self.tip:
            self._first_bits, self._first_s = bits, time_s
            self._hard_bits = bits
        elif bits != self._limit_bits:
            self._hard_bits = bits
        self._times.append(time_s)
        self.height, self.tip, self._bits, self._time_s = height, block_hash, bits, time_s

    def _require_work(self, block_hash: bytes, target: int) -> None:
        if int.from_bytes(block_hash, "little") > target:
            raise HeaderError(HeaderFault.WORK, f"height {self.height + 1}")

    def _follow(self, header: bytes, height: int, time_s: int, bits: int) -> None:
        due = self._due(height, time_s)
        if bits != due:
            detail = f"height {height}, {bits:08x} where {due:08x} is due"
            raise HeaderError(HeaderFault.RETARGET, detail)
        if len(self._times) == MEDIAN_BLOCKS and time_s <= sorted(self._times)[MEDIAN_BLOCKS // 2]:
            raise HeaderError(HeaderFault.MEDIAN, f"height {height}")
        opens_period = height % RETARGET_BLOCKS == 0
        if self._enforces_bip94 and opens_period and time_s < self._time_s - TIME_WARP_S:
            raise HeaderError(HeaderFault.TIME_WARP, f"height {height}")
        version = int.from_bytes(header[:4], "little", signed=True)
        for since, least in self._versions:
            if height >= since and version < least:
                raise HeaderError(HeaderFault.VERSION, f"height {height}, version {version}")

    def _due(self, height: int, time_s: int) -> int:
        """Return the bits that the header at `height` must carry."""
        if height % RETARGET_BLOCKS and not self._has_easy_blocks:
            return self._bits
        if height % RETARGET_BLOCKS:
            is_late = time_s > self._time_s + 2 * self._spacing_s
            return self._limit_bits if is_late else self._hard_bits
        if self._is_constant:
            return self._bits
        base_bits = self._first_bits if self._enforces_bip94 else self._bits
        return next_target_bits(base_bits, self._first_s, self._time_s, self._limit_bits)


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
        return int.from_bytes(self.header(height)[68:72], "little")

    def median_time_s(self, height: int) -> int | None:
        """Return the median of the times of a block and the ten before: what no single miner chooses; None where they are not all known.

        At genesis, as many as there are. Raises: HeaderError: HEIGHT.
        """
        self.header(height)
        first = max(height - MEDIAN_BLOCKS + 1, 0)
        if first < self.start_height:
            return None
        times = sorted(self.time_s(one) for one in range(first, height + 1))
        return times[len(times) // 2]

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


def best_of(chains: Iterable[HeaderChain]) -> HeaderChain:
    """Return the chain with the most work after the last header that all of them have; of equal ones the first.

    Caller's duty: at least one chain, all begin with the same header.
    """
    best: HeaderChain | None = None
    for chain in chains:
        if best is None or chain.work > best.work:
            best = chain
    if best is None:
        raise HeaderError(HeaderFault.LENGTH, "no chain to choose from")
    return best


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
    return sum(
        _work(int.from_bytes(chain.header(one)[72:76], "little"))
        for one in range(height + 1, chain.tip_height + 1)
    )
