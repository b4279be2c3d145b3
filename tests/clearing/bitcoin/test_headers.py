"""Chains of headers: real ones hold, each way of lying is refused by its name, difficulty agrees with a second implementation."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from btclib.block.block_header import BlockHeader
from btclib.block.header_context import next_bits_required
from btclib.block.proof_of_work import block_work, target_from_bits
from hypothesis import given
from hypothesis import strategies as st

from clearing.bitcoin import headers as hc
from clearing.bitcoin import next_header as rules
from clearing.bitcoin.headers import HeaderChain, Pin, verify_chain
from clearing.bitcoin.next_header import BitcoinNetwork, HeaderError, HeaderFault, consensus_of
from clearing.bitcoin.transaction import sha256d
from tests.clearing.bitcoin.bitcoin_kit import BITS, REGTEST_GENESIS, TARGET, Chain, mine
from tests.clearing.bitcoin.header_kit import (
    GENESIS,
    START_HEIGHT,
    VECTORS,
    mainnet,
    mainnet_pin,
)

MAIN, TESTNET4, SIGNET, REGTEST = BitcoinNetwork
REGTEST_PIN = hc.genesis_pin(REGTEST)


def fault_of(act: Callable[[], object]) -> HeaderFault:
    with pytest.raises(HeaderError) as caught:
        act()
    assert str(caught.value).startswith(caught.value.fault.name)
    return caught.value.fault


def regtest(headers: list[bytes], pin: Pin = REGTEST_PIN, start: int = 0) -> HeaderChain:
    return verify_chain(REGTEST, start, b"".join(headers), pin)


def forged(header: bytes, at: int, value: bytes) -> bytes:
    """Return a header with other bytes at `at` and regtest's proof of work."""
    body = bytearray(header)
    body[at : at + len(value)] = value
    for nonce in range(1 << 16):
        body[76:] = nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(bytes(body)), "little") <= TARGET:
            break
    return bytes(body)


# -- real chains


@pytest.mark.parametrize("network", BitcoinNetwork)
def test_block_0_of_each_network_is_a_chain(network: BitcoinNetwork) -> None:
    chain = verify_chain(network, 0, GENESIS[network], hc.genesis_pin(network))
    assert (chain.tip_height, chain.work, chain.depth(0)) == (0, 0, 1)
    assert chain.median_time_s(0) == chain.time_s(0)


def test_a_period_of_mainnet_and_the_retarget_after_it_hold() -> None:
    headers = mainnet()
    chain = verify_chain(MAIN, START_HEIGHT, b"".join(headers), mainnet_pin())
    assert chain.tip_height == START_HEIGHT + len(headers) - 1
    assert chain.work == sum(int(block_work(one[72:76][::-1])) for one in headers[1:])
    # The difficulty did move: the retarget was checked, not passed by.
    assert headers[2015][72:76] != headers[2016][72:76]
    assert chain.median_time_s(START_HEIGHT + 9) is None
    times = sorted(chain.time_s(START_HEIGHT + 10 + n) for n in range(11))
    assert chain.median_time_s(START_HEIGHT + 20) == times[5]
    assert chain.require_depth(chain.tip_height - 5, 6) == 6


def test_the_pin_may_be_any_header_of_the_chain() -> None:
    headers = mainnet()
    for at in (1, 2015, 2016, len(headers) - 1):
        pin = Pin(START_HEIGHT + at, sha256d(headers[at]))
        verify_chain(MAIN, START_HEIGHT, b"".join(headers), pin)
    assert hc.first_height(MAIN, START_HEIGHT + 2015) == START_HEIGHT
    assert hc.first_height(REGTEST, 2_500) == 0


@pytest.mark.parametrize("case", VECTORS["retargets"], ids=lambda case: case["what"])
def test_published_retargets(case: dict[str, str]) -> None:
    bits, due = (int(case[name], 16) for name in ("bits", "next"))
    found = rules.next_target_bits(bits, int(case["first_s"]), int(case["last_s"]), 0x1D00FFFF)
    assert found == due


# -- refusals


def test_every_bit_of_mainnets_headers_counts() -> None:
    headers = b"".join(mainnet()[:30])
    rng = random.Random(7)
    for _ in range(400):
        at, bit = rng.randrange(len(headers)), rng.randrange(8)
        changed = bytearray(headers)
        changed[at] ^= 1 << bit
        with pytest.raises(HeaderError):
            verify_chain(MAIN, START_HEIGHT, bytes(changed), mainnet_pin())


def test_length_start_and_pin_are_refused_by_name() -> None:
    headers = list(mainnet()[:3])
    data, pin = b"".join(headers), mainnet_pin()
    assert fault_of(lambda: verify_chain(MAIN, START_HEIGHT, b"", pin)) is HeaderFault.LENGTH
    assert fault_of(lambda: verify_chain(MAIN, START_HEIGHT, data[:-1], pin)) is HeaderFault.LENGTH
    middle = b"".join(headers[1:])
    assert fault_of(lambda: verify_chain(MAIN, START_HEIGHT + 1, middle, pin)) is HeaderFault.START
    assert fault_of(lambda: verify_chain(MAIN, -2016, data, pin)) is HeaderFault.START
    assert fault_of(lambda: verify_chain(MAIN, 1 << 31, data, pin)) is HeaderFault.START
    for other in (Pin(pin.height, bytes(32)), Pin(pin.height + 1, pin.block_hash), Pin(0, b"")):
        assert (
            fault_of(lambda other=other: verify_chain(MAIN, START_HEIGHT, data, other))
            is HeaderFault.PIN
        )


def test_a_gap_is_refused_by_name() -> None:
    headers = list(mainnet()[:30])
    for broken in (headers[:5] + headers[6:], [*headers[:5], headers[5], *headers[5:]]):
        data = b"".join(broken)
        assert (
            fault_of(lambda data=data: verify_chain(MAIN, START_HEIGHT, data, mainnet_pin()))
            is HeaderFault.GAP
        )


def test_no_work_and_wrong_bits_are_refused_by_name() -> None:
    chain = Chain()
    chain.blocks(3)
    lazy = bytearray(chain.headers[-1])
    while int.from_bytes(sha256d(bytes(lazy)), "little") <= TARGET:
        lazy[76] += 1
    assert fault_of(lambda: regtest([*chain.headers[:-1], bytes(lazy)])) is HeaderFault.WORK
    for bits in ("207fffff01"[2:], "21008000", "00000000", "1d80ffff", "ff123456"):
        value = bytes.fromhex(bits)[::-1]
        wrong = [*chain.headers[:-1], forged(chain.headers[-1], 72, value)]
        assert fault_of(lambda wrong=wrong: regtest(wrong)) is HeaderFault.BITS, bits
    # Easy blocks of another network are none here.
    one = mine(GENESIS[MAIN], bytes(32))
    data = GENESIS[MAIN] + one
    assert fault_of(lambda: verify_chain(MAIN, 0, data, hc.genesis_pin(MAIN))) is HeaderFault.BITS


def test_other_difficulty_than_due_is_refused_by_name() -> None:
    chain = Chain()
    chain.blocks(3)
    harder = forged(chain.headers[-1], 72, bytes.fromhex("ffff3f20"))
    for nonce in range(1 << 16):
        harder = harder[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(harder), "little") < 0x3FFFFF << 232:
            break
    assert fault_of(lambda: regtest([*chain.headers[:-1], harder])) is HeaderFault.RETARGET


def test_times_and_versions_are_refused_by_name() -> None:
    chain = Chain()
    chain.blocks(12)
    early = int.from_bytes(chain.headers[7][68:72], "little")
    for time_s, holds in ((early, False), (early + 1, True)):
        headers = [*chain.headers, mine(chain.headers[-1], bytes(32), time_s=time_s)]
        if holds:
            regtest(headers)
        else:
            assert fault_of(lambda headers=headers: regtest(headers)) is HeaderFault.MEDIAN
    for version in (3, 0, -1):
        old = forged(chain.headers[-1], 0, version.to_bytes(4, "little", signed=True))
        assert fault_of(lambda old=old: regtest([*chain.headers[:-1], old])) is HeaderFault.VERSION


def test_heights_and_depth_are_refused_by_name() -> None:
    chain = Chain()
    chain.blocks(5)
    found = regtest(chain.headers)
    assert found.header(5) == chain.headers[5]
    for height in (-1, 6):
        assert fault_of(lambda height=height: found.header(height)) is HeaderFault.HEIGHT
        assert fault_of(lambda height=height: found.median_time_s(height)) is HeaderFault.HEIGHT
    assert found.require_depth(2, 4) == 4
    assert fault_of(lambda: found.require_depth(2, 5)) is HeaderFault.SHALLOW


def test_less_work_is_refused_by_name() -> None:
    ours, theirs = Chain(), Chain()
    ours.blocks(4)
    fork = ours.fork(4)
    ours.blocks(6)
    fork.blocks(8, salt=1)
    short, long = regtest(ours.headers), regtest(fork.headers)
    hc.verify_not_outweighed(short, long, 4)
    hc.verify_not_outweighed(long, short, 12)
    hc.verify_not_outweighed(short, short, 10)
    assert fault_of(lambda: hc.verify_not_outweighed(short, long, 5)) is HeaderFault.LESS_WORK
    theirs.headers[0] = mine(REGTEST_GENESIS, bytes(32))
    alone = regtest(theirs.headers, Pin(0, sha256d(theirs.headers[0])))
    assert fault_of(lambda: hc.verify_not_outweighed(short, alone, 5)) is HeaderFault.GAP


# -- difficulty against a second implementation, without the work that real blocks would cost


class _Workless(hc._Judge):
    def _require_work(self, header: bytes) -> bytes:
        return sha256d(header)


def _header(parent: bytes, time_s: int, bits: int) -> bytes:
    body = (0x20000000).to_bytes(4, "little") + (sha256d(parent) if parent else bytes(32))
    body += bytes(32) + time_s.to_bytes(4, "little") + bits.to_bytes(4, "little")
    return body + bytes(4)


@pytest.mark.parametrize("network", [MAIN, TESTNET4, SIGNET])
@pytest.mark.parametrize("pace_s", [180, 600, 1_500])
def test_difficulty_over_two_retargets_is_that_of_btclib(
    network: BitcoinNetwork, pace_s: int
) -> None:
    consensus, rng = consensus_of(network), random.Random(pace_s)
    judge = _Workless(network, 0)
    bits, time_s = 0x1C0FFFFF, 1_700_000_000
    headers = [_header(b"", time_s, bits)]
    raw = {sha256d(headers[0]): headers[0]}
    judge.take(headers[0])
    by_hash: dict[bytes, BlockHeader] = {sha256d(headers[0]): BlockHeader.parse(headers[0])}
    parent = by_hash[sha256d(headers[0])]

    def before(one: BlockHeader) -> BlockHeader:
        return by_hash[bytes(one.previous_block_hash[::-1])]

    easy = 0
    for height in range(1, 2 * 2016 + 3):
        time_s += rng.choice([pace_s, pace_s, pace_s, 1 if height % 3 else 2_000])
        draft = _header(headers[-1], time_s, bits)
        due = rules.bits_due(network, time_s, judge)
        found = next_bits_required(BlockHeader.parse(draft), parent, height - 1, before, consensus)
        assert due == int.from_bytes(found, "big"), height
        # A tree of headers, which looks them up, finds the same as a chain that carries them along.
        walk = rules.Walk(network, headers[-1], height - 1, 0, raw.__getitem__)
        assert (walk.bits, walk.time_s) == (judge.bits, judge.time_s)
        assert walk.recent_times_s()[::-1] == judge.recent_times_s()
        assert rules.bits_due(network, time_s, walk) == due
        easy += due == 0x1D00FFFF
        header = _header(headers[-1], time_s, due)
        judge.take(header)
        headers.append(header)
        raw[sha256d(header)] = header
        parent = by_hash[sha256d(header)] = BlockHeader.parse(header)
    assert (easy > 0) is (network is TESTNET4)


def test_testnet4_refuses_a_time_warp_by_name_and_mainnet_does_not() -> None:
    for network in (TESTNET4, MAIN):
        for back_s, is_warp in ((600, False), (601, network is TESTNET4)):
            judge = _Workless(network, 0)
            header, time_s = b"", 1_700_000_000
            for _ in range(2016):
                time_s += 601
                header = _header(header, time_s, 0x1C0FFFFF)
                judge.take(header)
            first = _header(
                header, time_s - back_s, rules.bits_due(network, time_s - back_s, judge)
            )
            if is_warp:
                assert fault_of(lambda j=judge, f=first: j.take(f)) is HeaderFault.TIME_WARP
            else:
                judge.take(first)


def test_regtest_never_retargets() -> None:
    judge = _Workless(REGTEST, 0)
    header, time_s = b"", 1_700_000_000
    for _ in range(2017):
        time_s += 30
        header = _header(header, time_s, int.from_bytes(BITS, "little"))
        judge.take(header)
    assert rules.bits_due(REGTEST, time_s + 9_999, judge) == int.from_bytes(BITS, "little")


@given(st.integers(0, (1 << 32) - 1))
def test_compact_targets_are_those_of_btclib(bits: int) -> None:
    try:
        target = int.from_bytes(target_from_bits(bits.to_bytes(4, "big")), "big")
    except Exception:  # noqa: BLE001 - it has names of its own for what is no target
        target = 0
    if bits & 0x800000 and bits & 0x7FFFFF:
        target = 0
    assert rules.target_of(bits) == target
    if target:
        assert rules.target_of(rules.compact_of(target)) == target
