"""Whether a block header follows another: proof of work, difficulty, time, version.

Lives here: every rule for one header, what it owes to those before it, and the work it stands for. May not live here: a whole
chain in bytes (headers.py), a tree of headers and which branch is best (handlers/chain.py); both ask here.

What a header owes to those before it is asked of an `Ancestry`, and only where a rule needs it: a chain that is walked once carries
it along, a tree looks it up. Caller's duty: the first header known of a network that retargets has a height that is a
multiple of 2,016, so that every later retarget finds the first header of its period. Until eleven ancestors are known the
median of their times is not asked.

Source: Bitcoin Core src/pow.cpp and ContextualCheckBlockHeader in src/validation.cpp; BIP 94. Parameters by btclib.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Protocol

from btclib.consensus import CONSENSUS_PARAMS, ConsensusParams

from clearing.bitcoin.transaction import sha256d
from clearing.errors import VerificationError

HEADER_BYTES = 80
RETARGET_BLOCKS = 2016
MEDIAN_BLOCKS = 11

HEIGHT_MAX = (1 << 31) - 1
"""Bitcoin counts heights in 31 bits."""

TIME_WARP_S = 600
"""How far a period's first block may lie before its parent. Source: BIP 94."""


class BitcoinNetwork(enum.IntEnum):
    """A Bitcoin network, by number in records."""

    MAIN = 1
    TESTNET4 = 2
    SIGNET = 3
    REGTEST = 4


_PARAMETERS = {
    BitcoinNetwork.MAIN: "mainnet",
    BitcoinNetwork.TESTNET4: "testnet4",
    BitcoinNetwork.SIGNET: "signet",
    BitcoinNetwork.REGTEST: "regtest",
}


class HeaderFault(enum.Enum):
    """Why a header, or a chain of them, is refused."""

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
    """A header or a chain of them does not hold; `fault` says why."""

    def __init__(self, fault: HeaderFault, detail: str) -> None:
        """Refuse for `fault`."""
        super().__init__(f"{fault.name}: {fault.value} ({detail})")
        self.fault = fault


def consensus_of(network: BitcoinNetwork) -> ConsensusParams:
    """Return a network's consensus parameters."""
    return CONSENSUS_PARAMS[_PARAMETERS[network]]


def is_pinnable(network: BitcoinNetwork, height: int) -> bool:
    """Return whether a chain may begin at this height: see the caller's duty above."""
    return network is BitcoinNetwork.REGTEST or height % RETARGET_BLOCKS == 0


# -- what a header says of itself


def header_hash(header: bytes) -> bytes:
    """Return a header's hash (internal order)."""
    return sha256d(header)


def parent_of(header: bytes) -> bytes:
    """Return the hash (internal order) of the header before."""
    return header[4:36]


def time_s_of(header: bytes) -> int:
    """Return a header's time, seconds since 1970."""
    return int.from_bytes(header[68:72], "little")


def bits_of(header: bytes) -> int:
    """Return a header's difficulty as compact bits."""
    return int.from_bytes(header[72:76], "little")


@lru_cache(maxsize=4096)
def target_of(bits: int) -> int:
    """Return the target that compact bits stand for; 0 where they stand for none (negative, or beyond 256 bits)."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000 and mantissa:
        return 0
    target = mantissa >> (8 * (3 - exponent)) if exponent <= 3 else mantissa << (8 * (exponent - 3))
    return target if target < 1 << 256 else 0


def compact_of(target: int) -> int:
    """Return the compact bits of a target, rounded down."""
    size = (target.bit_length() + 7) // 8
    mantissa = target << (8 * (3 - size)) if size <= 3 else target >> (8 * (size - 3))
    # The highest bit of the mantissa is a sign.
    if mantissa & 0x800000:
        mantissa >>= 8
        size += 1
    return size << 24 | mantissa


@lru_cache(maxsize=4096)
def work_of_bits(bits: int) -> int:
    """Return the expected number of hashes that a header with these bits stands for."""
    return (1 << 256) // (target_of(bits) + 1)


def work_of(header: bytes) -> int:
    """Return the work a header stands for: the expected number of hashes."""
    return work_of_bits(bits_of(header))


def median_time_s(times_s: Iterable[int]) -> int:
    """Return the median of block times: what no single miner chooses."""
    ordered = sorted(times_s)
    return ordered[len(ordered) // 2]


# -- the rules


@dataclass(frozen=True, slots=True)
class _Rules:
    """A network's parameters in the form that the rules use them; versions: (height from which, least version)."""

    limit_bits: int
    limit: int
    is_constant: bool
    has_easy_blocks: bool
    enforces_bip94: bool
    late_s: int
    versions: tuple[tuple[int, int], ...]


@lru_cache(maxsize=len(BitcoinNetwork))
def _rules(network: BitcoinNetwork) -> _Rules:
    consensus = consensus_of(network)
    limit_bits = int.from_bytes(consensus.pow_limit_bits, "big")
    return _Rules(
        limit_bits=limit_bits,
        limit=target_of(limit_bits),
        is_constant=consensus.pow_no_retargeting,
        has_easy_blocks=consensus.pow_allow_min_difficulty_blocks,
        enforces_bip94=consensus.enforce_bip94,
        late_s=2 * consensus.pow_target_spacing,
        versions=(
            (consensus.bip34_height, 2),
            (consensus.bip66_height, 3),
            (consensus.bip65_height, 4),
        ),
    )


def limit_bits_of(network: BitcoinNetwork) -> int:
    """Return the bits of a network's easiest target."""
    return _rules(network).limit_bits


def next_target_bits(base_bits: int, first_s: int, last_s: int, limit_bits: int) -> int:
    """Return the bits of the next period, from times of the first and last block of this one (seconds).

    Source: Bitcoin Core CalculateNextWorkRequired.
    """
    timespan_s = RETARGET_BLOCKS * 600
    actual_s = min(max(last_s - first_s, timespan_s // 4), timespan_s * 4)
    target = target_of(base_bits) * actual_s % (1 << 256) // timespan_s
    return compact_of(min(target, target_of(limit_bits)))


class Ancestry(Protocol):
    """What a header owes to those before it; the parent is at `height`."""

    @property
    def height(self) -> int:
        """Return the parent's height."""

    @property
    def bits(self) -> int:
        """Return the parent's bits."""

    @property
    def time_s(self) -> int:
        """Return the parent's time, seconds since 1970."""

    def hard_bits(self) -> int:
        """Return the bits of the last header up to the parent that opens its period or is not the easiest."""

    def period_start(self) -> tuple[int, int]:
        """Return bits and time of the first header of the parent's period."""

    def recent_times_s(self) -> list[int]:
        """Return the times of the parent and the ten before it, as many as are known."""


def bits_due(network: BitcoinNetwork, time_s: int, before: Ancestry) -> int:
    """Return the bits that a header with this time must carry."""
    rules = _rules(network)
    if rules.is_constant:
        return before.bits
    opens_period = (before.height + 1) % RETARGET_BLOCKS == 0
    if not opens_period and not rules.has_easy_blocks:
        return before.bits
    if not opens_period:
        is_late = time_s > before.time_s + rules.late_s
        return rules.limit_bits if is_late else before.hard_bits()
    first_bits, first_s = before.period_start()
    base_bits = first_bits if rules.enforces_bip94 else before.bits
    return next_target_bits(base_bits, first_s, before.time_s, rules.limit_bits)


def verify_work(network: BitcoinNetwork, header: bytes, what: str = "a single header") -> bytes:
    """Check a header's proof of work alone; `what` names it in an error.

    Returns: its hash (internal order).
    Raises: HeaderError: LENGTH; BITS: no target, or an easier one than the network's easiest; WORK.
    """
    if len(header) != HEADER_BYTES:
        raise HeaderError(HeaderFault.LENGTH, f"{len(header)} bytes")
    bits = bits_of(header)
    target = target_of(bits)
    if not 0 < target <= _rules(network).limit:
        raise HeaderError(HeaderFault.BITS, f"{what}, {bits:08x}")
    block_hash = header_hash(header)
    if int.from_bytes(block_hash, "little") > target:
        raise HeaderError(HeaderFault.WORK, what)
    return block_hash


def verify_context(network: BitcoinNetwork, header: bytes, before: Ancestry) -> None:
    """Check what a header owes to those before it. Caller's duty: `before` begins with the parent that it names.

    Raises: HeaderError: RETARGET, MEDIAN, TIME_WARP or VERSION.
    """
    rules, height = _rules(network), before.height + 1
    bits, time_s = bits_of(header), time_s_of(header)
    due = bits_due(network, time_s, before)
    if bits != due:
        detail = f"height {height}, {bits:08x} where {due:08x} is due"
        raise HeaderError(HeaderFault.RETARGET, detail)
    times_s = before.recent_times_s()
    if len(times_s) == MEDIAN_BLOCKS and time_s <= median_time_s(times_s):
        raise HeaderError(HeaderFault.MEDIAN, f"height {height}")
    opens_period = height % RETARGET_BLOCKS == 0
    if rules.enforces_bip94 and opens_period and time_s < before.time_s - TIME_WARP_S:
        raise HeaderError(HeaderFault.TIME_WARP, f"height {height}")
    version = int.from_bytes(header[:4], "little", signed=True)
    for since, least in rules.versions:
        if height >= since and version < least:
            raise HeaderError(HeaderFault.VERSION, f"height {height}, version {version}")


class Walk:
    """An `Ancestry` that looks the headers up, one hash after the other, as far back as a rule asks.

    ancestor: returns a known header by its hash. first_height: of the first header known, below which nothing is asked for.
    """

    def __init__(
        self,
        network: BitcoinNetwork,
        parent: bytes,
        height: int,
        first_height: int,
        ancestor: Callable[[bytes], bytes],
    ) -> None:
        """Begin with the parent, at `height`."""
        self.height = height
        self._limit_bits = limit_bits_of(network)
        self._parent = parent
        self._first_height = first_height
        self._ancestor = ancestor

    @property
    def bits(self) -> int:
        """Return the parent's bits."""
        return bits_of(self._parent)

    @property
    def time_s(self) -> int:
        """Return the parent's time, seconds since 1970."""
        return time_s_of(self._parent)

    def _back(self) -> Iterator[tuple[int, bytes]]:
        """Yield (height, header) of the parent and of what is known before it."""
        header = self._parent
        for height in range(self.height, self._first_height, -1):
            yield height, header
            header = self._ancestor(parent_of(header))
        yield self._first_height, header

    def hard_bits(self) -> int:
        """Return the bits of the last header up to the parent that opens its period or is not the easiest."""
        bits = self.bits
        for height, header in self._back():
            bits = bits_of(header)
            if bits != self._limit_bits or height % RETARGET_BLOCKS == 0:
                break
        return bits

    def period_start(self) -> tuple[int, int]:
        """Return bits and time of the first header of the parent's period."""
        first = self._parent
        for _, header in islice(self._back(), self.height % RETARGET_BLOCKS + 1):
            first = header
        return bits_of(first), time_s_of(first)

    def recent_times_s(self) -> list[int]:
        """Return the times of the parent and the ten before it, as many as are known."""
        return [time_s_of(header) for _, header in islice(self._back(), MEDIAN_BLOCKS)]


def verify_next(
    network: BitcoinNetwork,
    header: bytes,
    parent_height: int,
    first_height: int,
    ancestor: Callable[[bytes], bytes],
) -> None:
    """Check that a header may follow its parent, at `parent_height`.

    first_height: of the first header known. ancestor: returns a known header by its hash.
    Raises: HeaderError: no proof of work, or against a rule of `verify_context`.
    """
    verify_work(network, header, f"height {parent_height + 1}")
    parent = ancestor(parent_of(header))
    verify_context(network, header, Walk(network, parent, parent_height, first_height, ancestor))
