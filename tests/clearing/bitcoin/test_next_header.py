"""Headers on their parents: what follows, and what is refused by name."""

from __future__ import annotations

import pytest

from clearing.bitcoin import next_header as rules
from clearing.bitcoin.transaction import sha256d
from tests.clearing.bitcoin.bitcoin_kit import REGTEST_GENESIS, Chain, mine

REGTEST = rules.BitcoinNetwork.REGTEST


def test_a_mined_chain_follows_from_block_0() -> None:
    chain = Chain()
    chain.blocks(15)
    by_hash = {sha256d(one): one for one in chain.headers}
    for height, header in enumerate(chain.headers[1:]):
        rules.verify_next(REGTEST, header, height, 0, by_hash.__getitem__)
    assert rules.work_of(chain.headers[3]) == 2


def test_no_work_wrong_difficulty_and_time_are_refused_by_name() -> None:
    chain = Chain()
    chain.blocks(12)
    by_hash = {sha256d(one): one for one in chain.headers}
    tip = chain.headers[-1]

    def follows(header: bytes, network: rules.BitcoinNetwork = REGTEST) -> None:
        rules.verify_next(network, header, 12, 0, by_hash.__getitem__)

    good = mine(tip, bytes(32))
    follows(good)
    for nonce in range(100):
        lazy = good[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(lazy), "little") > 1 << 255:
            break
    with pytest.raises(rules.HeaderError, match="WORK"):
        follows(lazy)
    with pytest.raises(rules.HeaderError, match="BITS"):
        follows(good, rules.BitcoinNetwork.MAIN)
    with pytest.raises(rules.HeaderError, match="LENGTH"):
        follows(good[:-1])
    with pytest.raises(rules.HeaderError, match="VERSION"):
        follows(mine(tip, bytes(32), salt=3 - 0x20000000))
    with pytest.raises(rules.HeaderError, match="MEDIAN"):
        follows(mine(tip, bytes(32), time_s=rules.time_s_of(chain.headers[1])))
    harder = good[:72] + bytes.fromhex("ffff7e20") + good[76:]
    for nonce in range(1000):
        harder = harder[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(harder), "little") < 0x7EFFFF << 232:
            break
    with pytest.raises(rules.HeaderError, match="RETARGET"):
        follows(harder)


def test_mainnet_block_1_follows_block_0() -> None:
    # Source: Bitcoin's blocks 0 and 1.
    zero = bytes.fromhex(
        "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
        "67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
    )
    one = bytes.fromhex(
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e"
        "1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299"
    )
    rules.verify_next(rules.BitcoinNetwork.MAIN, one, 0, 0, {sha256d(zero): zero}.__getitem__)
    assert rules.parent_of(one) == rules.header_hash(zero)
    assert rules.is_pinnable(rules.BitcoinNetwork.MAIN, 2016)
    assert not rules.is_pinnable(rules.BitcoinNetwork.MAIN, 2017)
    assert sha256d(REGTEST_GENESIS)[::-1].hex().startswith("0f9188f1")
