"""Real headers of testnet4 and signet: first blocks, period boundaries, 20-minute blocks; what is due where they stand."""

from __future__ import annotations

import pytest

from clearing.bitcoin.headers import genesis_pin, verify_chain
from clearing.bitcoin.next_header import (
    BitcoinNetwork,
    HeaderError,
    HeaderFault,
    Walk,
    bits_due,
    bits_of,
    header_hash,
    limit_bits_of,
    parent_of,
    time_s_of,
    verify_context,
    verify_next,
    verify_work,
)
from tests.clearing.bitcoin.header_kit import real

TESTNET4, SIGNET = BitcoinNetwork.TESTNET4, BitcoinNetwork.SIGNET


class Known(Walk):
    """Headers of which those between the period's first and the ones at hand are not known."""

    def __init__(self, network: BitcoinNetwork, height: int) -> None:
        headers = real(network)
        self.first = headers[height // 2016 * 2016]
        by_hash = {header_hash(one): one for one in headers.values()}
        start = height
        while start - 1 in headers:
            start -= 1
        super().__init__(network, headers[height], height, start, by_hash.__getitem__)

    def period_start(self) -> tuple[int, int]:
        return bits_of(self.first), time_s_of(self.first)


def follows(network: BitcoinNetwork, height: int) -> None:
    """Check one header on those before it, as far as the vectors have them."""
    headers = real(network)
    by_hash = {header_hash(one): one for one in headers.values()}
    start = height - 1
    while start - 1 in headers:
        start -= 1
    verify_next(network, headers[height], height - 1, start, by_hash.__getitem__)


@pytest.mark.parametrize(("network", "last"), [(TESTNET4, 12), (SIGNET, 10)])
def test_the_first_blocks_are_a_chain(network: BitcoinNetwork, last: int) -> None:
    headers = real(network)
    data = b"".join(headers[height] for height in range(last + 1))
    chain = verify_chain(network, 0, data, genesis_pin(network))
    assert chain.tip_height == last
    assert chain.median_time_s(last) is not None


@pytest.mark.parametrize(
    ("network", "height", "bits"),
    [
        (TESTNET4, 2_016, 0x1C3FFFC0),
        (TESTNET4, 145_152, 0x190274DF),
        (SIGNET, 2_016, 0x1E012FA7),
    ],
)
def test_at_a_periods_boundary_the_difficulty_is_the_one_that_was_mined(
    network: BitcoinNetwork, height: int, bits: int
) -> None:
    headers, before = real(network), Known(network, height - 1)
    assert bits_of(headers[height]) == bits != bits_of(headers[height - 1])
    assert parent_of(headers[height]) == header_hash(headers[height - 1])
    verify_work(network, headers[height])
    verify_context(network, headers[height], before)
    # A period that had begun an hour later would ask for another one.
    later = bytearray(before.first)
    later[68:72] = (time_s_of(before.first) + 3_600).to_bytes(4, "little")
    before.first = bytes(later)
    if bits_of(headers[height]) != 0x1C3FFFC0:
        with pytest.raises(HeaderError) as caught:
            verify_context(network, headers[height], before)
        assert caught.value.fault is HeaderFault.RETARGET


def test_20_minute_blocks_of_testnet4_are_easy_and_others_are_not() -> None:
    headers, limit = real(TESTNET4), limit_bits_of(TESTNET4)
    seen = {"easy": 0, "hard": 0, "hard after easy": 0}
    for height in (*range(145_133, 145_152), *range(145_153, 145_157)):
        follows(TESTNET4, height)
        parent, bits = headers[height - 1], bits_of(headers[height])
        is_late = time_s_of(headers[height]) - time_s_of(parent) > 1_200
        assert (bits == limit) is is_late
        kind = "easy" if is_late else "hard after easy" if bits_of(parent) == limit else "hard"
        seen[kind] += 1
        # A second less or more, where that crosses the line, and the other difficulty is due.
        at = time_s_of(parent) + 1_200
        before = Known(TESTNET4, height - 1)
        assert bits_due(TESTNET4, at + 1, before) == limit
        assert bits_due(TESTNET4, at, before) == bits_of(headers[height // 2016 * 2016])
    assert seen["easy"] > 15
    assert seen["hard after easy"] >= 2


def test_signet_has_no_20_minute_rule() -> None:
    headers = real(SIGNET)
    for height in range(2_017, 2_023):
        follows(SIGNET, height)
    # Block 2,019 came 1,631 seconds after its parent, and is as hard as the others.
    assert time_s_of(headers[2_019]) - time_s_of(headers[2_018]) == 1_631
    assert bits_of(headers[2_019]) == bits_of(headers[2_018])


@pytest.mark.parametrize("network", [TESTNET4, SIGNET])
def test_no_byte_of_a_real_header_can_be_changed(network: BitcoinNetwork) -> None:
    headers = real(network)
    for height in sorted(headers)[-3:]:
        for at in range(80):
            changed = bytearray(headers[height])
            changed[at] ^= 1
            with pytest.raises(HeaderError):
                verify_work(network, bytes(changed))
