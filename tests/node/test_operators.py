"""Four operators under the real consensus engine, and a witness: what several operators promise.

One network for all tests of this file, in order; each leaves it running.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clearing.commit_proof import CommitProof
from clearing.records.leaves import LeafKind, ValidatorsLeaf, leaf_kind
from clearing.rules.registry import Action, ActionKind
from clearing.types import LicenceStatus, ObligationState
from node.cli.consensus import verify_consensus
from node.client import ClientError, Obligation
from node.config import load_config
from node.queries import ObligationFilter
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX, read_keys, sockets_of
from node.sequencer.cometbft.rpc import EngineRpc
from node.services.facade import BlockCommit, NodeCondition, NodeKind
from tests.node.cli.network_kit import facts, run
from tests.node.operators_kit import FIFTH, NAMES, OperatorsNetwork, engine_program, make_operators

pytestmark = pytest.mark.slow

ONE = [Obligation("p01", "p02", "BTC", amount_units=7)]
PATIENCE_S = 60


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorsNetwork]:
    program = engine_program()
    network = make_operators(tmp_path_factory.mktemp("operators") / "net")
    old = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{old}"
    processes = {name: network.process(name) for name in (*NAMES, FIFTH, "p01")}
    try:
        for name in (*NAMES, "p01"):
            processes[name].start()
        yield network
    finally:
        os.environ["PATH"] = old
        for process in processes.values():
            pid = process.pid()
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
        until("all stopped", lambda: not any(process.pid() for process in processes.values()))


def until(what: str, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.1)


def status(network: OperatorsNetwork, name: str):
    with network.client("central-bank", name) as client:
        return client.status()


def agree(network: OperatorsNetwork, *names: str) -> bool:
    """Whether the nodes stand at one head, all of it final."""
    try:
        found = [status(network, name) for name in names]
    except ClientError:
        return False
    heads = {(one.log_size, one.log_root) for one in found}
    return len(heads) == 1 and all(one.final_size == one.log_size for one in found)


def child(network: OperatorsNetwork, name: str, what: str) -> int:
    return int((network.engine_path(name) / "run" / f"{what}.pid").read_text())


def test_every_operator_takes_transactions_and_all_reach_the_same_bytes(
    network: OperatorsNetwork,
) -> None:
    indices = set()
    for name in NAMES:
        with network.client("p01", name) as client:
            (recorded,) = client.submit(ONE)
            indices.add(recorded.index)
            # It is final, provable, and known to those who did not take it.
            assert client.receipt(recorded.index, item=0)[1].item.amount_units == 7
    assert len(indices) == len(NAMES)
    until("one head", lambda: agree(network, *NAMES, "p01"))
    found = status(network, "ministry")
    assert (found.kind, found.condition) == (NodeKind.OPERATOR, NodeCondition.SERVING)
    assert found.engine.power == 10
    until("all engines meet", lambda: status(network, "ministry").engine.peers == 3)
    assert {one.name for one in found.replicas if one.connected} >= set(NAMES) - {"ministry"}


def test_the_same_bytes_by_two_operators_are_recorded_once(network: OperatorsNetwork) -> None:
    with network.client("p01", "operator-1") as one, network.client("p01", "operator-2") as other:
        (submission,) = one.prepare(ONE)
        first = one.send(submission)
        until("there too", lambda: other.request(submission.client_id) is not None)
        again = other.send(submission)
    assert (again.index, again.repeated) == (first.index, True)


def test_what_is_larger_than_the_network_takes_is_split_and_recorded_whole(
    network: OperatorsNetwork,
) -> None:
    with network.client("p01") as client:
        submissions = client.prepare(ONE * 6_000)
        assert [len(one.encode()) <= TRANSACTION_BYTES_MAX for one in submissions] == [True, True]
        assert sum(one.count for one in submissions) == 6_000
        recorded = client.submit(ONE * 6_000)
    assert sum(one.items for one in recorded) == 6_000


def test_what_falls_due_by_time_alone_happens_on_a_chain_without_work(
    network: OperatorsNetwork,
) -> None:
    due_ms = time.time_ns() // 10**6 + 4_000
    owed = [Obligation("p01", "p02", "BTC", amount_units=7, due_ms=due_ms)]
    with network.client("p01") as client:
        (recorded,) = client.submit(owed)

        def state() -> ObligationState:
            wanted = ObligationFilter(submission=recorded.index)
            return client.obligations(wanted)[0].state

        assert state() is ObligationState.PROPOSED
        until("it lapsed", lambda: state() is ObligationState.EXPIRED)

    def is_quiet() -> bool:
        before = status(network, "ministry").engine.height
        time.sleep(3)
        return status(network, "ministry").engine.height == before

    # No block for blocks' sake.
    until("the chain is quiet", is_quiet)


def test_a_killed_node_and_a_killed_engine_come_back_and_nothing_acknowledged_is_lost(
    network: OperatorsNetwork,
) -> None:
    acknowledged = []
    with network.client("p01", "operator-1", "ministry") as client:
        for what in ("node", "cometbft"):
            victim = child(network, "operator-1", what)
            os.kill(victim, signal.SIGKILL)
            for _ in range(5):
                acknowledged += client.submit(ONE)
            until(
                f"another {what}",
                lambda: child(network, "operator-1", what) != victim,  # noqa: B023
            )
            until("it caught up", lambda: agree(network, *NAMES))
    with network.client("p01", "operator-1") as client:
        found = {client.request(one.client_id).index for one in acknowledged}
    assert found == {one.index for one in acknowledged}
    assert len(found) == 10


def test_an_operator_whose_engine_stands_still_says_that_it_is_stuck_and_takes_nothing(
    network: OperatorsNetwork,
) -> None:
    engine = child(network, "operator-2", "cometbft")
    os.kill(engine, signal.SIGSTOP)
    try:
        with network.client("p01") as client:
            client.submit(ONE)
        assert status(network, "operator-2").condition is NodeCondition.SERVING
        stuck = "stuck behind the others"
        until(stuck, lambda: status(network, "operator-2").condition is NodeCondition.STUCK)
        found = status(network, "operator-2")
        assert found.log_size < status(network, "ministry").log_size
        assert f"the log here stands at {found.log_size} leaves" in found.condition_detail
        # Nothing is to be deleted for that.
        remedy = "does not answer: restart the node"
        until(remedy, lambda: remedy in status(network, "operator-2").condition_detail)
        # What is handed to it goes to another operator.
        with network.client("p01", "operator-2", "ministry") as client:
            (recorded,) = client.submit(ONE)
        assert recorded.index >= found.log_size
        assert status(network, "operator-2").condition is NodeCondition.STUCK
    finally:
        os.kill(engine, signal.SIGCONT)
    until("it caught up", lambda: agree(network, *NAMES))
    assert status(network, "operator-2").condition is NodeCondition.SERVING
    assert child(network, "operator-2", "cometbft") == engine


def govern(network: OperatorsNetwork, *actions: Action) -> None:
    with network.client("ministry") as ministry, network.client("central-bank") as bank:
        bank.approve(ministry.propose(list(actions)).index)


def engine_powers(network: OperatorsNetwork) -> list[int]:
    rpc = EngineRpc(sockets_of(network.engine_path("ministry")).rpc)
    try:
        return [int(one["voting_power"]) for one in rpc.validators(rpc.status().height)]
    finally:
        rpc.close()


def test_a_suspended_operator_counts_no_more_and_leaves_when_a_fifth_has_come(
    network: OperatorsNetwork,
) -> None:
    suspended = network.number("operator-2")
    licence = {
        "participant": suspended,
        "status": LicenceStatus.SUSPENDED,
        "licence_no": "TEST",
        "licence_expiry_ms": 0,
    }
    govern(network, Action(ActionKind.SET_LICENCE, licence))
    # Four are the least: it votes on until another has come, but its cosignature is worth nothing.
    with network.client("p01", "ministry") as client:
        (recorded,) = client.submit(ONE)
        _, proven = client.receipt(recorded.index)
        assert "operator-2" not in proven.cosigned_s
        assert len(client.registry().validators) == 4
    # The fifth starts empty and reaches the head by verifying every block.
    network.process(FIFTH).start()
    until("the fifth caught up", lambda: agree(network, *NAMES[:3], FIFTH))
    key = read_keys(network.engine_path(FIFTH)).consensus_key
    appointed = {"participant": network.number(FIFTH), "power": 10, "consensus_key": key}
    govern(network, Action(ActionKind.SET_VALIDATOR, appointed))
    with network.client("p01", "ministry") as client:
        until(
            "the set moved",
            lambda: suspended not in [v.participant for v in client.registry().validators],
        )
        members = {v.participant for v in client.registry().validators}
        assert members == {network.number(name) for name in (*NAMES[:3], FIFTH)}
        client.submit(ONE)
        until("the engine obeys", lambda: engine_powers(network) == [10] * 4)
        client.submit(ONE)
    until("the fifth votes", lambda: status(network, FIFTH).engine.power == 10)
    until("the suspended one does not", lambda: status(network, "operator-2").engine.power == 0)


def test_the_validators_signatures_prove_the_log_through_every_set(
    network: OperatorsNetwork,
) -> None:
    with network.client("regulator") as client:
        client.checkpoint()
        seen = client.memory.seen
        leaves = list(client.leaves(0, seen.checkpoint.size))
        found = verify_consensus(leaves, seen.network_id, client.block_commit)
        sets = [ValidatorsLeaf.decode(x) for x in leaves if leaf_kind(x) is LeafKind.VALIDATORS]
        assert found.sets == len(sets) == 3
        assert [one.count for one in sets] == [4, 5, 4]
        assert 3 * found.power > 2 * found.total_power == 80

        def half(height: int) -> BlockCommit:
            found = client.block_commit(height)
            commit = found.signed.commit
            fewer = replace(commit, signatures=commit.signatures[:2])
            return replace(found, signed=replace(found.signed, commit=fewer))

        with pytest.raises(Exception, match="more than two thirds"):
            verify_consensus(leaves, seen.network_id, half)


def test_a_participant_and_the_regulator_check_the_validators_by_command(
    network: OperatorsNetwork,
) -> None:
    for party in ("p01", "regulator"):
        identity = ("--identity", str(network.path / "identities" / party))
        found = facts("audit", "verify", "--consensus", *identity)
        assert found["consensus"]["sets"] == 3
        assert 3 * found["consensus"]["power"] > 2 * found["consensus"]["total_power"] == 80


def test_a_receipt_carries_the_validators_commit_as_further_evidence(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    identity = ("--identity", str(network.path / "identities" / "p01"))
    trust = ("--policy", network.path / "policy")
    with network.client("p01") as client:
        (recorded,) = client.submit(ONE)
        first, proven = client.receipt(recorded.index, item=0)
    receipt, plain, later = (tmp_path / name for name in ("receipt", "plain", "later"))
    made = facts("receipt", f"{recorded.index}:0", "--commit", "--out", receipt, *identity)
    found = facts("verify", receipt, *trust, "--validators", made["commit"]["validators_hash"])
    assert (found["kind"], found["amount"]) == ("obligation", "7")
    assert found["commit"] == made["commit"]
    assert (found["commit"]["power"] > 26, found["commit"]["total_power"]) == (True, 40)
    # The set that came third: the leaf is the one that names it.
    with network.client("regulator") as client:
        leaves = list(client.leaves())
    named = ValidatorsLeaf.decode(leaves[found["commit"]["validators_index"]])
    assert named.validators_hash.hex() == found["commit"]["validators_hash"]
    wrong = run("verify", receipt, *trust, "--validators", "00" * 32, "--json")
    assert (wrong.exit_code, json.loads(wrong.stdout)["holds"]) == (1, False)
    # To a receipt that was taken without, it is added; to one that has it, again.
    plain.write_bytes(first)
    for given in (plain, later):
        added = facts("audit", "commit", given, "--out", later, *identity)
        assert added["size"] == proven.checkpoint.size
        assert CommitProof.split(later.read_bytes())[1] == first
        assert facts("verify", later, *trust, "--validators", "any")["holds"]
    # The newest head's commit is shown without a proof to carry it, by a position proof it is carried.
    assert facts("audit", "commit", *identity)["power"] > 26
    proof = ("audit", "proof", "--position", "p01:BTC", "--out", later, "--commit")
    assert facts(*proof, *identity)["commit"]["total_power"] == 40
    assert facts("verify", later, *trust)["kind"] == "position"


def test_another_checkpoints_commit_is_none_for_a_receipt(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    with network.client("p01") as client:
        (recorded,) = client.submit(ONE)
        before, old = client.receipt(recorded.index)
        (second,) = client.submit(ONE)
        newer = client.receipt(second.index)[1].checkpoint
        assert newer.size > old.checkpoint.size
        commit, _ = client.commit_proof(newer)
        found, _ = client.commit_proof(old.checkpoint)
        assert found.signed.header.height < commit.signed.header.height
    mixed = tmp_path / "mixed"
    mixed.write_bytes(replace(found, signed=commit.signed).carrying(before))
    told = run("verify", mixed, "--policy", network.path / "policy", "--json")
    assert "another log" in json.loads(told.stdout)["reason"]


def test_all_stopped_and_started_it_goes_on(network: OperatorsNetwork) -> None:
    names = (*NAMES, FIFTH)
    for name in names:
        os.kill(network.process(name).pid(), signal.SIGTERM)
    until("all stopped", lambda: not any(network.process(name).pid() for name in names))
    for name in names:
        network.process(name).start()
    with network.client("p01") as client:

        def goes_on() -> bool:
            try:
                return len(client.submit(ONE)) == 1
            except ClientError:
                return False

        until("it goes on", goes_on)
    until("one head", lambda: agree(network, *NAMES, FIFTH))


def test_a_node_that_cannot_start_ends_its_pair_at_once(network: OperatorsNetwork) -> None:
    path = network.node_path(FIFTH)
    process = network.process(FIFTH)
    os.kill(process.pid(), signal.SIGTERM)
    until("stopped", lambda: process.pid() is None)
    config = path / "node.toml"
    text = config.read_text()
    config.write_text(text.replace('policy_path = "policy"', 'policy_path = "none"'))
    try:
        assert load_config(config).policy_path.name == "none"
        process.start()
        until("gave up", lambda: process.pid() is None)
        assert "cannot start" in process.log_file.read_text()[-2_000:]
    finally:
        config.write_text(text)
