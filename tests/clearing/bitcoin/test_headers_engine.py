"""Chains of headers against Bitcoin Core's consensus engine: what it accepts we accept, what it refuses we refuse."""

from __future__ import annotations

import random
from pathlib import Path

import pbk
import pytest

from clearing.bitcoin.headers import genesis_pin, verify_chain
from clearing.bitcoin.next_header import BitcoinNetwork, HeaderError, HeaderFault
from clearing.bitcoin.transaction import sha256d
from node.regtest.kernel import Kernel
from tests.clearing.bitcoin.bitcoin_kit import BITS, TARGET, Chain

REGTEST = BitcoinNetwork.REGTEST
FORMS = 400


def _engine_takes(kernel: Kernel, header: bytes) -> bool:
    try:
        state = kernel._manager.process_block_header(pbk.BlockHeader(header))
    except pbk.ProcessBlockHeaderException:
        return False
    return bool(state.validation_mode == pbk.ValidationMode.VALID)


def _fault(headers: list[bytes]) -> HeaderFault | None:
    try:
        verify_chain(REGTEST, 0, b"".join(headers), genesis_pin(REGTEST))
    except HeaderError as error:
        return error.fault
    return None


def _form(rng: random.Random, chain: Chain) -> bytes:
    """Return a header that may follow the chain's tip, or be wrong in one or more ways."""
    tip, middle = chain.headers[-1], int.from_bytes(chain.headers[-6][68:72], "little")
    version = rng.choice([4, 4, 0x20000000, 0x3FFFE000, 3, 2, 1, 0, -1, -(1 << 31), (1 << 31) - 1])
    time_s = middle + rng.choice([-9_999, -1, 0, 1, 2, 600, 3_600, 90_000])
    bits = rng.choice(
        [BITS, BITS, BITS, BITS, bytes.fromhex("feff7f20"), bytes.fromhex("ffff3f20")]
    )
    parent = rng.choice([sha256d(tip)] * 5 + [sha256d(tip)[::-1]])
    head = version.to_bytes(4, "little", signed=True) + parent + rng.randbytes(32)
    head += time_s.to_bytes(4, "little") + bits
    wants_work = rng.random() < 0.8
    for nonce in range(1 << 16):
        header = head + nonce.to_bytes(4, "little")
        if (int.from_bytes(sha256d(header), "little") <= TARGET // 2) is wants_work:
            return header
    raise AssertionError("no nonce was found")


def test_the_engine_and_we_agree_on_what_may_follow(tmp_path: Path) -> None:
    chain, rng = Chain(), random.Random(822_528)
    chain.blocks(14)
    kernel = Kernel(tmp_path / "chain")
    seen: dict[HeaderFault | None, int] = {}
    try:
        for header in chain.headers[1:]:
            assert _engine_takes(kernel, header)
        for _ in range(FORMS):
            header = _form(rng, chain)
            fault = _fault([*chain.headers, header])
            assert _engine_takes(kernel, header) is (fault is None), (fault, header.hex())
            seen[fault] = seen.get(fault, 0) + 1
    finally:
        kernel.close()
    met = (None, *(HeaderFault[name] for name in ("GAP", "WORK", "RETARGET", "MEDIAN", "VERSION")))
    assert all(seen.get(one, 0) > 3 for one in met), seen


@pytest.mark.parametrize("chain_type", ["REGTEST", "MAINNET", "TESTNET_4", "SIGNET"])
def test_the_engine_knows_the_genesis_blocks_that_we_pin(chain_type: str, tmp_path: Path) -> None:
    networks = {"MAINNET": "MAIN", "TESTNET_4": "TESTNET4"}
    network = BitcoinNetwork[networks.get(chain_type, chain_type)]
    options = pbk.ChainstateManagerOptions(
        pbk.make_context(pbk.ChainType[chain_type]), str(tmp_path), str(tmp_path / "blocks")
    )
    manager = pbk.ChainstateManager(options)
    manager.import_blocks([])
    entry = manager.get_active_chain().block_tree_entries[0]
    assert bytes(entry.block_hash) == genesis_pin(network).block_hash
