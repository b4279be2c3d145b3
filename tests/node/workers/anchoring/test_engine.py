"""Every way an anchor can go, on an embedded chain: each ends in a state and an alarm, and nothing is paid twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clearing.errors import DecodeError
from clearing.rules.anchors import AnchorState
from node.workers.anchoring import wallet
from node.workers.anchoring.book import Role
from node.workers.anchoring.policy import AlarmKind
from node.workers.anchoring.transactions import RESERVE_OUTPUTS
from tests.node.workers.anchoring.anchoring_kit import POLICY, Town

PENDING, BROADCAST, SHALLOW, FINAL, REORGED, LOST = AnchorState


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def test_from_checkpoints_to_a_final_anchor(town: Town) -> None:
    anchor = town.begin(10, 20)
    assert (anchor.number, anchor.sizes) == (1, (10, 20))
    assert len(anchor.newest.signed.raw) < 1_000
    for depth in range(1, 6):
        assert town.mine(1) is SHALLOW
        assert town.anchor.confirmations(town.engine.standing.height) == depth
    assert town.mine(1) is FINAL
    assert town.told == [
        *("PENDING", "BROADCAST", "SHALLOW(1)", "SHALLOW(2)", "SHALLOW(3)", "SHALLOW(4)"),
        *("SHALLOW(5)", "FINAL(6)"),
    ]
    assert town.mined(anchor.commitment) == [anchor.newest.signed.txid]
    assert not town.alarms
    # Nothing more is said of what stays as it is.
    town.mine(3)
    assert len(town.told) == 8


def test_what_the_policy_asks_for(town: Town) -> None:
    town.step()
    town.ledger.add(10)
    assert town.step() is None
    town.now += 599
    assert town.step() is None
    town.now += 1
    assert town.step() is BROADCAST
    town.ledger.add(20, 30)
    town.mine(1)
    assert len(town.engine.desk.book) == 1
    town.ledger.add(40)
    assert town.step() is BROADCAST
    assert town.anchor.sizes == (20, 30, 40)
    assert town.engine.standing.due == 0


def test_checkpoints_of_nothing_but_anchoring_wait_for_company(town: Town) -> None:
    town.ledger.add(10, 20, 30, 40)
    town.ledger.quiet = {10, 20, 30, 40}
    town.now += 10_000
    assert town.step() is None
    town.ledger.add(50)
    assert town.step() is BROADCAST
    assert town.anchor.sizes == (10, 20, 30, 40, 50)


def test_one_anchor_on_its_way_at_a_time(town: Town) -> None:
    town.begin(10)
    town.ledger.add(20, 30, 40)
    for _ in range(3):
        town.now += 100
        assert town.engine.step(now=True) == (False, False)
    assert len(town.engine.desk.book) == 1
    town.chain.mine(1)
    assert town.engine.step(now=True) == (False, True)
    assert town.anchor.sizes == (20, 30, 40)


def test_a_backlog_that_one_anchor_does_not_hold_is_anchored_side_by_side(tmp_path: Path) -> None:
    policy = replace(POLICY, batch_max=5, on_their_way_max=3)
    with Town(tmp_path, policy=policy) as town:
        town.ledger.add(*range(1, 32))
        for _ in range(6):
            town.step()
        anchors = list(town.engine.desk.book)
        assert [anchor.sizes for anchor in anchors] == [
            *(tuple(range(1, 6)), tuple(range(6, 11)), tuple(range(11, 16)))
        ]
        spent = [anchor.newest.inputs[0] for anchor in anchors]
        assert len(set(spent)) == 3
        for _ in range(8):
            town.mine(1)
        assert town.engine.standing.due == 1
        assert len(town.mined()) == 6
        town.now += POLICY.every_s
        town.mine(1)
        assert town.engine.standing.due == 0


def test_the_reserve_of_outputs_grows_and_is_kept(town: Town) -> None:
    for number in range(1, 4):
        town.begin(10 * number)
        town.mine(6)
    assert town.engine.standing.outputs >= RESERVE_OUTPUTS
    assert len(town.mined()) == 3
    assert AlarmKind.RESERVE_LOW not in town.alarms


# -- reorganisations


def test_a_reorganisation_and_the_same_transaction_mined_again(town: Town) -> None:
    anchor = town.begin(10)
    fork = town.chain.kernel.height
    assert town.mine(6) is FINAL
    town.chain.branch(fork, 8)
    assert town.step() is REORGED
    assert AlarmKind.REORGANISED in town.alarms
    assert town.mine(1) is SHALLOW
    assert town.mine(5) is FINAL
    assert town.told[-4:] == ["FINAL(6)", "REORGED", "SHALLOW(1)", "FINAL(6)"]
    assert town.mined(anchor.commitment) == [anchor.newest.signed.txid]
    assert not town.alarms


def test_a_branch_that_holds_the_anchor_too(town: Town) -> None:
    anchor = town.begin(10)
    fork = town.chain.kernel.height
    assert town.mine(3) is SHALLOW
    town.chain.branch(fork, 4, transactions=[anchor.newest.signed.raw])
    assert town.step() is SHALLOW
    assert town.told[-2:] == ["REORGED", "SHALLOW(4)"]
    assert len(town.anchor.versions) == 1


def test_a_double_spend_in_the_branch_and_the_anchor_made_again(town: Town) -> None:
    anchor = town.begin(10)
    fork = town.chain.kernel.height
    assert town.mine(6) is FINAL
    town.chain.branch(fork, 8, transactions=[town.theft()])
    # The theft is eight deep already: lost, and made again with another coin in one step.
    assert town.step() is BROADCAST
    assert town.told[-3:] == ["REORGED", "LOST", "BROADCAST"]
    again = town.anchor.newest
    assert again.role is Role.AGAIN
    assert set(again.inputs).isdisjoint(anchor.newest.inputs)
    assert town.anchor.commitment == anchor.commitment
    assert town.mine(6) is FINAL
    assert town.mined(anchor.commitment) == [again.signed.txid]


def test_a_shallow_double_spend_is_waited_for(town: Town) -> None:
    anchor = town.begin(10)
    fork = town.chain.kernel.height
    town.chain.mempool.drop(anchor.newest.signed.txid)
    town.chain.branch(fork, 2, transactions=[town.theft()])
    assert town.step() is LOST
    assert AlarmKind.INPUT_LOST in town.alarms
    assert town.mine(3) is LOST
    assert len(town.anchor.versions) == 1
    # The theft is taken back before it was certain: the first version is as good as ever.
    town.chain.branch(fork, 9)
    (theft,) = town.chain.mempool
    town.chain.mempool.drop(theft.txid)
    assert town.step() is BROADCAST
    assert AlarmKind.INPUT_LOST not in town.alarms
    assert town.mine(6) is FINAL
    assert town.mined(anchor.commitment) == [anchor.newest.signed.txid]
    assert len(town.anchor.versions) == 1


def test_the_input_itself_is_reorganised_away(town: Town) -> None:
    town.begin(10)
    town.mine(6)
    # The second anchor may spend the first one's change, whose block then goes with the first one.
    second = town.begin(20)
    spends_change = town.engine._wallet.coin(second.newest.inputs[0]).height > 105
    town.mine(1)
    town.chain.branch(town.chain.kernel.height - 8, 12)
    town.step()
    for _ in range(4):
        town.mine(4)
    assert [anchor.state for anchor in town.engine.desk.book] == [FINAL, FINAL]
    assert len(town.mined()) == 2
    assert isinstance(spends_change, bool)


def test_a_reorganisation_deeper_than_is_remembered(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wallet, "TRAIL_BLOCKS", 5)
    anchor = town.begin(10)
    fork = town.chain.kernel.height
    town.mine(8)
    town.chain.branch(fork, 12)
    assert town.step() is REORGED
    assert town.mine(6) is FINAL
    assert town.mined(anchor.commitment) == [anchor.newest.signed.txid]


# -- fees


def test_replaced_on_the_same_outpoint_and_whichever_is_mined_counts(town: Town) -> None:
    first = town.begin(10).newest
    town.now += 599
    town.step()
    assert len(town.anchor.versions) == 1
    town.now += 1
    town.step()
    second = town.anchor.newest
    assert second.role is Role.REPLACEMENT
    assert second.inputs == first.inputs
    assert second.signed.fee_sat > first.signed.fee_sat
    assert [one.txid for one in town.chain.mempool] == [second.signed.txid]
    # A miner that never saw the replacement takes the first.
    town.chain.branch(town.chain.kernel.height, 1, transactions=[first.signed.raw])
    assert town.step() is SHALLOW
    assert town.anchor.place.txid == first.signed.txid
    assert len(town.anchor.versions) == 2


def test_bumps_are_bounded_in_rate_number_and_total(town: Town) -> None:
    town.begin(10)
    for _ in range(40):
        town.now += 300
        town.step()
    versions = town.anchor.versions
    assert [one.role for one in versions] == [
        Role.ANCHOR,
        Role.REPLACEMENT,
        Role.REPLACEMENT,
        Role.CHILD,
    ]
    assert all(b.made_s - a.made_s >= 600 for a, b in itertools.pairwise(versions))
    assert town.alarms == {AlarmKind.BUMPS_EXHAUSTED}
    assert town.anchor.fee_sat <= POLICY.fee_sat_max
    assert town.engine.standing.bumps == 3
    assert {one.txid for one in town.chain.mempool} == {one.signed.txid for one in versions[-2:]}
    assert town.mine(6) is FINAL
    assert not town.alarms
    assert len(town.mined()) == 1
    # The child's output is ours again.
    assert town.engine.standing.spendable_sat > 0


def test_a_fee_spike_before_the_anchor_is_waited_out(town: Town) -> None:
    town.chain.fee_estimate_sat_per_kvb = 90_000
    town.ledger.add(10)
    assert town.step(now=True) is PENDING
    assert AlarmKind.FEE_TOO_HIGH in town.alarms
    town.now += 3_600
    assert town.step() is PENDING
    assert not town.anchor.versions
    town.chain.fee_estimate_sat_per_kvb = 4_000
    assert town.step() is BROADCAST
    assert not town.alarms
    assert 4_000 <= town.anchor.newest.signed.rate_sat_per_kvb < 4_200


def test_a_fee_spike_after_it_makes_the_node_forget_and_a_bump_brings_it_back(town: Town) -> None:
    town.begin(10)
    town.chain.mempool.min_fee_sat_per_kvb = 20_000
    town.chain.mempool.drop(town.anchor.newest.signed.txid)
    assert town.step() is BROADCAST
    assert town.alarms == {AlarmKind.NOT_ACCEPTED}
    town.chain.fee_estimate_sat_per_kvb = 21_000
    town.now += 600
    town.step()
    assert town.step() is BROADCAST
    assert not town.alarms
    assert town.mine(6) is FINAL
    assert len(town.mined()) == 1


def test_a_spike_beyond_the_bound_leaves_the_anchor_as_it_is(town: Town) -> None:
    town.begin(10)
    town.chain.mempool.min_fee_sat_per_kvb = 200_000
    town.chain.fee_estimate_sat_per_kvb = 200_000
    town.chain.mempool.drop(town.anchor.newest.signed.txid)
    for _ in range(20):
        town.now += 600
        assert town.step() is BROADCAST
    assert town.alarms == {AlarmKind.NOT_ACCEPTED, AlarmKind.BUMPS_EXHAUSTED}
    assert max(one.signed.rate_sat_per_kvb for one in town.anchor.versions) <= POLICY.fee_rate_max
    town.chain.mempool.min_fee_sat_per_kvb = 1_000
    town.now += 60
    town.step()
    assert town.mine(6) is FINAL
    assert len(town.mined()) == 1


# -- the wallet and the node


def test_an_empty_wallet_is_told_and_filled(tmp_path: Path) -> None:
    with Town(tmp_path, funded=()) as town:
        town.ledger.add(10)
        assert town.step(now=True) is PENDING
        assert town.alarms == {AlarmKind.WALLET_EMPTY, AlarmKind.RESERVE_LOW}
        assert town.told == ["PENDING"]
        town.ledger.add(20, 30, 40)
        town.now += 3_600
        assert town.step(now=True) is PENDING
        assert len(town.engine.desk.book) == 1
        address = town.engine.standing.address
        assert address.startswith("bcrt1p")
        town.rpc.call("generatetoaddress", 1, address)
        town.chain.mine(100)
        assert town.step() is BROADCAST
        assert not town.alarms


def test_the_node_is_down_for_an_hour(town: Town) -> None:
    anchor = town.begin(10)
    town.rpc.close()
    town.unserve()
    before = town.told
    for _ in range(60):
        town.now += 60
        town.ledger.add(10 + town.now)
        assert town.step(now=True) is BROADCAST
    assert town.alarms == {AlarmKind.NODE_UNREACHABLE}
    (alarm,) = town.engine.standing.alarms
    assert alarm.since_s <= town.now - 3_500
    assert town.told == before
    town.chain.mine(2)
    town.serve(town.port)
    assert town.step() is SHALLOW or town.state is BROADCAST
    assert AlarmKind.NODE_UNREACHABLE not in town.alarms
    assert town.mined(anchor.commitment) == [anchor.newest.signed.txid]
    assert len(town.engine.desk.book.anchor(1).versions) == 1


def test_evicted_from_the_mempool_it_is_sent_again(town: Town) -> None:
    newest = town.begin(10).newest
    for _ in range(3):
        town.chain.mempool.drop(newest.signed.txid)
        assert town.step() is BROADCAST
        assert [one.txid for one in town.chain.mempool] == [newest.signed.txid]
    assert len(town.anchor.versions) == 1


def test_sent_twice_by_others_too(town: Town) -> None:
    newest = town.begin(10).newest
    for _ in range(3):
        town.rpc.send(newest.signed.raw)
        town.now += 60
        town.step()
    assert town.mine(1) is SHALLOW
    assert town.rpc.send(newest.signed.raw) != ""
    assert town.mine(5) is FINAL
    assert len(town.mined()) == 1


def test_a_node_that_was_set_back_is_no_reorganisation(town: Town, tmp_path: Path) -> None:
    town.begin(10)
    assert town.mine(6) is FINAL
    blocks = [town.chain.kernel.block(town.chain.kernel.hash_at(h)) for h in range(1, 50)]
    town.rpc.close()
    town.unserve()
    whole, town.chain = town.chain, type(town.chain)(tmp_path / "younger")
    for block in blocks:
        town.chain.submit(block)
    town.serve(town.port)
    assert town.step() is FINAL
    assert town.alarms == {AlarmKind.NODE_LAGGING}
    town.rpc.close()
    town.unserve()
    town.chain.close()
    town.chain = whole
    town.serve(town.port)
    assert town.step() is FINAL
    assert not town.alarms


def test_a_node_of_another_network_is_named(town: Town) -> None:
    town.step()
    town.engine._network = type(town.engine._network).MAIN
    town.ledger.add(10)
    assert town.step(now=True) is None
    assert town.alarms == {AlarmKind.NODE_WRONG_NETWORK}


# -- beginning anew from files


def test_restarted_after_every_step(town: Town) -> None:
    town.ledger.add(10)
    for _ in range(3):
        town.step(now=not len(town.engine.desk.book))
        town.restart()
    fork = town.chain.kernel.height
    for _ in range(6):
        town.restart()
        town.mine(1)
    assert town.state is FINAL
    town.chain.branch(fork, 8)
    town.restart()
    town.step()
    town.restart()
    assert town.state is REORGED
    for _ in range(6):
        town.restart()
        town.mine(1)
    assert town.state is FINAL
    assert len(town.mined()) == len(town.anchor.versions) == 1


def test_without_the_wallets_file_everything_is_read_again(town: Town) -> None:
    town.begin(10)
    town.mine(6)
    before = town.engine.standing.spendable_sat
    (town.path / "anchoring" / "wallet").unlink()
    town.restart()
    assert town.step() is FINAL
    assert town.engine.standing.spendable_sat == before


def test_reports_wait_until_the_ledger_has_answered(town: Town) -> None:
    town.begin(10)
    town.mine(1)
    (anchor,) = town.engine.untold()
    for position in range(len(anchor.statements)):
        town.engine.tell(1, position, 0)
        town.restart()
    assert not town.engine.untold()
    town.mine(1)
    (anchor,) = town.engine.untold()
    assert [one.told for one in anchor.statements] == [True, True, True, False]


def test_altered_files_stop_it(town: Town) -> None:
    town.begin(10)
    for name in ("wallet", "anchors/00000001"):
        file = town.path / "anchoring" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
        with pytest.raises(DecodeError, match="SHA-256"):
            town.restart()
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    town.restart()
    assert replace(town.anchor) == town.anchor
