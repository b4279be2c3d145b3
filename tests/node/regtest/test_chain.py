"""The embedded chain, in this process: blocks, branches, unconfirmed transactions, and the set of unspent outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitcoin.core import CBlock

from node.errors import SetupError
from node.regtest.calls import Calls, RpcError
from node.regtest.chain import Chain
from node.regtest.coins import Coins
from node.regtest.kernel import MARKER_NAME, BlockRefusedError, shown
from node.regtest.mempool import TransactionRefusedError
from node.regtest.mining import Place, make_block
from tests.node.regtest.regtest_kit import Key

ALICE = Key.wpkh(1)
BOB = Key.tr(2)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Chain(tmp_path / "chain") as opened:
        yield opened


def _soon_s() -> int:
    """Return a time later than any block mined by now, asked for when it is used: a run of all tests is long."""
    return int(time.time()) + 600


def _fresh(chain: Chain) -> dict[bytes, object]:
    """Return the unspent outputs, derived from nothing but the active chain's blocks."""
    coins = Coins()
    for height in range(1, chain.kernel.height + 1):
        coins.connect(CBlock.deserialize(chain.kernel.block(chain.kernel.hash_at(height))), height)
    return dict(coins.by_outpoint)


def _coin(chain: Chain, height: int) -> tuple[str, int, int]:
    block = CBlock.deserialize(chain.kernel.block(chain.kernel.hash_at(height)))
    return shown(block.vtx[0].GetTxid()), 0, block.vtx[0].vout[0].nValue


def _paid(chain: Chain, height: int, fee_sat: int, key: Key = ALICE, to: Key = BOB) -> bytes:
    coin = _coin(chain, height)
    return bytes.fromhex(key.spend([coin], [(to.script.data, coin[2] - fee_sat)]))


def test_a_mined_payment_of_each_kind_of_script(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    chain.mine(1, BOB.script.data)
    chain.mine(101)
    first = chain.send(_paid(chain, 1, 1_000))
    second = chain.send(_paid(chain, 2, 1_000, BOB, ALICE))
    (block,) = chain.mine(1)
    mined = CBlock.deserialize(chain.kernel.block(block))
    assert {one.GetTxid() for one in mined.vtx[1:]} == {first.txid, second.txid}
    assert mined.vtx[0].vout[0].nValue == 50 * 10**8 + 2_000
    assert not len(chain.mempool)
    assert chain.coins.by_outpoint == _fresh(chain)


def test_a_branch_with_more_work_wins_and_brings_transactions_back(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    chain.mine(100)
    entry = chain.send(_paid(chain, 1, 1_000))
    chain.mine(6)
    before = chain.kernel.tip
    # Six against seven, one block at a time: the seventh turns the chain.
    branch = chain.branch(101, 6)
    assert chain.kernel.tip == before
    assert entry.txid not in chain.mempool
    longer = chain.branch(101, 8)
    assert chain.kernel.tip == longer[-1]
    assert not chain.kernel.is_active(before)
    assert not chain.kernel.is_active(branch[-1])
    assert entry.txid in chain.mempool
    assert chain.coins.by_outpoint == _fresh(chain)
    chain.mine(1)
    assert chain.coins.by_outpoint == _fresh(chain)
    assert entry.txid not in chain.mempool


def test_a_branch_that_spends_the_same_coin_removes_the_payment(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    chain.mine(100)
    entry = chain.send(_paid(chain, 1, 1_000))
    chain.mine(6)
    other = _paid(chain, 1, 2_000, to=ALICE)
    chain.branch(101, 8, transactions=[other])
    assert entry.txid not in chain.mempool
    with pytest.raises(TransactionRefusedError, match="missingorspent"):
        chain.send(entry.raw)


def test_an_invalid_branch_is_refused_by_the_engine_s_reason(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    early = _paid(chain, 1, 1_000)
    with pytest.raises(BlockRefusedError, match="premature-spend"):
        chain.branch(1, 3, transactions=[early])
    with pytest.raises(BlockRefusedError, match="prev-blk-not-found"):
        chain.submit(make_block(Place(bytes(32), 5, _soon_s()), b"\x51", [], 0))
    with pytest.raises(BlockRefusedError, match="time-too-old"):
        chain.submit(make_block(Place(chain.kernel.tip, 2, 1_000_000_000), b"\x51", [], 0))
    with pytest.raises(BlockRefusedError, match="bad-cb-height"):
        chain.submit(make_block(Place(chain.kernel.tip, 7, _soon_s()), b"\x51", [], 0))
    with pytest.raises(BlockRefusedError, match="time-too-new"):
        chain.submit(make_block(Place(chain.kernel.tip, 2, _soon_s() + 86_400), b"\x51", [], 0))
    with pytest.raises(BlockRefusedError, match="bad-cb-amount"):
        chain.submit(make_block(Place(chain.kernel.tip, 2, _soon_s()), b"\x51", [], 1))
    with pytest.raises(BlockRefusedError, match="decode"):
        chain.submit(b"\x01" * 90)
    assert chain.kernel.height == 1
    assert chain.coins.by_outpoint == _fresh(chain)


def test_replacement_by_fee(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    chain.mine(100)
    first = chain.send(_paid(chain, 1, 1_000))
    with pytest.raises(TransactionRefusedError, match="not a higher fee rate"):
        chain.send(_paid(chain, 1, 900))
    with pytest.raises(TransactionRefusedError, match="not enough additional fees"):
        chain.send(_paid(chain, 1, 1_050))
    child = BOB.spend([(shown(first.txid), 0, 50 * 10**8 - 1_000)], [(ALICE.script.data, 10**8)])
    chain.send(bytes.fromhex(child))
    # Who replaces a parent pays for its children too.
    with pytest.raises(TransactionRefusedError, match="not enough additional fees"):
        chain.send(_paid(chain, 1, 30_000))
    last = chain.send(_paid(chain, 1, 50 * 10**8 - 10**7))
    assert [entry.txid for entry in chain.mempool] == [last.txid]


@pytest.mark.parametrize(
    ("fee_sat", "height", "words"),
    [(10, 1, "min relay fee"), (-1, 1, "belowout"), (1_000, 90, "premature-spend")],
)
def test_payments_that_are_refused(chain: Chain, fee_sat: int, height: int, words: str) -> None:
    chain.mine(101, ALICE.script.data)
    with pytest.raises(TransactionRefusedError, match=words):
        chain.send(_paid(chain, height, fee_sat))
    assert not len(chain.mempool)


def test_scripts_are_checked_by_the_engine(chain: Chain) -> None:
    chain.mine(1, ALICE.script.data)
    chain.mine(1, BOB.script.data)
    chain.mine(101)
    for height, key in ((1, ALICE), (2, BOB)):
        good = _paid(chain, height, 1_000, key)
        altered = bytearray(good)
        # The amount is signed.
        at = good.index((50 * 10**8 - 1_000).to_bytes(8, "little"))
        altered[at] ^= 1
        with pytest.raises(TransactionRefusedError, match="script-verify"):
            chain.send(bytes(altered))
        chain.send(good)
    with pytest.raises(TransactionRefusedError, match="decode"):
        chain.send(good[:-1])
    with pytest.raises(TransactionRefusedError, match="decode"):
        chain.send(good + b"\x00")


def test_opened_once(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="open in another process"):
        Chain(tmp_path / "chain")


def test_closed_and_opened_again(tmp_path: Path) -> None:
    with Chain(tmp_path) as chain:
        chain.mine(120)
        tip, coins = chain.kernel.tip, dict(chain.coins.by_outpoint)
    assert not (tmp_path / MARKER_NAME).exists()
    with Chain(tmp_path) as chain:
        assert not chain.kernel.reindexed
        assert chain.kernel.tip == tip
        assert chain.coins.by_outpoint == coins


def test_damaged_files_are_told_in_a_sentence(tmp_path: Path) -> None:
    with Chain(tmp_path) as chain:
        chain.mine(3)
    for file in (tmp_path / "blocks" / "index").glob("*"):
        file.write_bytes(b"not a database")
    with pytest.raises(SetupError, match="does not open"):
        Chain(tmp_path)


def test_blocks_go_on_when_the_clock_is_wrong(tmp_path: Path) -> None:
    with Chain(tmp_path, now_s=lambda: 0) as chain:
        chain.mine(30)
        times = [
            int.from_bytes(chain.kernel.header(chain.kernel.hash_at(height))[68:72], "little")
            for height in range(31)
        ]
    assert all(
        after > chain_median for after, chain_median in zip(times[12:], times[6:], strict=False)
    )


def test_calls_that_are_wrong_get_core_s_numbers(chain: Chain) -> None:
    calls = Calls(chain)
    for method, parameters, code in (
        ("getblockhash", [1], -8),
        ("getblockhash", ["0"], -8),
        ("getblockheader", ["00" * 32], -5),
        ("getblockheader", ["zz"], -8),
        ("getblock", [7], -3),
        ("sendrawtransaction", ["zz"], -22),
        ("sendrawtransaction", ["00"], -22),
        ("getmempoolentry", ["00" * 32], -5),
        ("generatetoaddress", [1, "bc1qnothing"], -5),
        ("generatetoaddress", [-1, ALICE.address], -8),
        ("generatetoaddress", [True, ALICE.address], -3),
        ("generatebranch", [9, 1], -8),
        ("setfees", ["x"], -3),
        ("getblockcount", [1], -1),
        ("getblockhash", [], -1),
        ("call", [], -32601),
        ("_known", [], -32601),
    ):
        with pytest.raises(RpcError) as error:
            calls.call(method, parameters)
        assert error.value.code == code, method


def test_facts_of_headers_and_outputs(chain: Chain) -> None:
    calls = Calls(chain)
    hashes = calls.call("generatetoaddress", {"nblocks": 3, "address": ALICE.address})
    facts = calls.call("getblockheader", [hashes[1]])
    assert (facts["height"], facts["confirmations"]) == (2, 2)
    assert (facts["previousblockhash"], facts["nextblockhash"]) == (hashes[0], hashes[2])
    chain.branch(1, 4)
    assert calls.call("getblockheader", [hashes[1]])["confirmations"] == -1
    assert calls.call("getblockcount", []) == 5
    txid = calls.call("getblock", [calls.call("getblockhash", [1])])["tx"][0]
    output = calls.call("gettxout", [txid, 0])
    assert (output["coinbase"], output["confirmations"]) == (True, 5)
    assert output["scriptPubKey"]["address"] == ALICE.address
    assert calls.call("gettxout", [txid, 1]) is None
    assert calls.call("estimatesmartfee", [6])["errors"]
    calls.call("setfees", ["0.00012345"])
    assert calls.call("estimatesmartfee", [6])["feerate"] * 10**8 == 12_345
