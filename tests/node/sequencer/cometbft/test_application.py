"""The application over its real socket and store: every call, and everything that must never happen."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearing.consensus.commit import app_hash
from clearing.consensus.validators import address_of
from clearing.errors import RejectCode
from clearing.records import instruction as ins
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rows import Table
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind
from clearing.types import LicenceStatus, Role
from node.pb.abci import abci_pb2 as abci
from node.sequencer.cometbft import application as module
from node.sequencer.cometbft.application import CODE_NOT_DUE, CODE_RECORDED
from node.sequencer.cometbft.home import APP_VERSION
from node.sequencer.cometbft.transactions import Tick
from node.sequencer.driver import Machine
from node.store import StoreFullError
from tests.ledger_kit import CB, GENESIS_MS, MINISTRY, P01, P02, item, participant, seeded_key
from tests.node.sequencer.cometbft.engine_kit import Engine, Maker

OPERATOR_1, OPERATOR_2 = 7, 8


@pytest.fixture
def engine(tmp_path: Path):
    with Engine(tmp_path) as made:
        yield made


@pytest.fixture
def maker(engine: Engine) -> Maker:
    return engine.begin()


def owes(maker: Maker, amount: int = 5, **fields: int) -> bytes:
    return maker.submission(P01, item(P01, P02, amount, **fields)).encode()


def own_hash(engine: Engine) -> bytes:
    tip = engine.store.tip
    return app_hash(tip.log_size, tip.log_root)


def test_the_chain_begins_with_block_zero_and_may_begin_again(engine: Engine) -> None:
    assert (engine.info().last_block_height, engine.info().app_version) == (0, APP_VERSION)
    first = engine.init_chain()
    assert first.init_chain.app_hash == own_hash(engine)
    assert engine.init_chain() == first
    assert engine.store.tip.height == 0
    assert [v.participant for v in engine.machine.state.registry.validators] == [0, 1, 7, 8]


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_id": "clearing-of-others"},
        {"validators": []},
        {"app_state_bytes": b"{}"},
        {"validators": [abci.ValidatorUpdate(pub_key=abci.PublicKey(ed25519=b"x" * 32), power=10)]},
    ],
)
def test_a_genesis_that_contradicts_itself_ends_the_node(engine: Engine, changes: dict) -> None:
    assert engine.init_chain(**changes).WhichOneof("value") == "exception"
    assert len(engine.told.failures) == 1
    assert engine.store.tip is None


def test_a_block_is_computed_first_and_durable_with_commit(engine: Engine, maker: Maker) -> None:
    data = owes(maker)
    answer = engine.finalize(data).finalize_block
    assert [result.code for result in answer.tx_results] == [0]
    assert engine.store.tip.height == 0
    assert engine.told.outcomes == {}
    assert engine.info().last_block_height == 0
    engine.commit()
    assert engine.store.tip.height == 1
    assert answer.app_hash == own_hash(engine) == engine.info().last_block_app_hash
    assert engine.info().last_block_height == 1
    outcome = engine.told.outcomes[hashlib.sha256(data).digest()]
    assert (outcome.code, outcome.repeated) == (RejectCode.OK, False)
    assert engine.store.tip.time_ms == GENESIS_MS + 1_000
    with engine.store.snapshot() as view:
        assert (view.ordered, view.ordered_of(1)) == (1, 1)


def test_a_block_delivered_again_is_the_same(engine: Engine, maker: Maker) -> None:
    data = owes(maker)
    assert engine.finalize(data) == engine.finalize(data)
    # The last delivery counts.
    other = owes(maker, 6)
    engine.finalize(other)
    engine.commit()
    assert set(engine.told.outcomes) == {hashlib.sha256(other).digest()}
    assert engine.told.failures == []


def test_every_transaction_has_a_result_whatever_it_is(engine: Engine, maker: Maker) -> None:
    good, broken = owes(maker), bytearray(owes(maker))
    broken[-1] ^= 1
    txs = (b"", good, b"junk", bytes(broken), Tick(1, 2).encode(), good, owes(maker, 0))
    codes = [result.code for result in engine.block(*txs).tx_results]
    assert codes == [
        RejectCode.MALFORMED,
        RejectCode.OK,
        RejectCode.MALFORMED,
        RejectCode.COMMITMENT_MISMATCH,
        RejectCode.OK,
        RejectCode.OK,
        RejectCode.ZERO_AMOUNT,
    ]
    assert engine.store.tip.height == 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=400), max_size=5), st.data())
def test_no_bytes_are_poison(engine: Engine, junk: list[bytes], data: st.DataObject) -> None:
    maker = Maker(engine.machine.state.network_id) if engine.store.tip else engine.begin()
    maker.serial = data.draw(st.integers(0, 1 << 40))
    mangled = bytearray(owes(maker))
    mangled[data.draw(st.integers(0, len(mangled) - 1))] ^= data.draw(st.integers(1, 255))
    txs = [*junk, bytes(mangled)]
    assert len(engine.block(*txs).tx_results) == len(txs)
    assert engine.told.failures == []


def test_a_block_that_changes_nothing_leaves_the_app_hash_and_costs_no_write(
    engine: Engine, maker: Maker
) -> None:
    before = engine.block(owes(maker)).app_hash
    written = engine.store.usage().used_bytes
    txn = engine.store._environment._env.info()["last_txnid"]
    for _ in range(5):
        assert engine.block(b"junk").app_hash == before
    assert engine.store._environment._env.info()["last_txnid"] == txn
    assert engine.store.usage().used_bytes == written
    # The ledger's height stood still, the engine's did not.
    assert engine.block(owes(maker)).app_hash != before
    assert engine.store.tip.height == 2
    with engine.store.snapshot() as view:
        assert (view.ordered, view.ordered_of(2)) == (7, 7)


def test_idle_blocks_are_written_down_now_and_then(
    engine: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARK_EVERY", 3)
    for _ in range(7):
        engine.block()
    with engine.store.snapshot() as view:
        assert view.ordered == 6


def test_after_a_crash_the_engine_replays_and_comes_to_the_same(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        maker = engine.begin()
        blocks = [(owes(maker),), (), (owes(maker), b"junk"), (), ()]
        hashes = [engine.block(*txs).app_hash for txs in blocks]
        last = owes(maker)
        # Computed and never committed: nothing of it may be there.
        lost = engine.finalize(last).finalize_block
    with Engine(tmp_path) as engine:
        height = engine.info().last_block_height
        # Blocks that changed nothing may have been forgotten.
        assert height == 3
        assert engine.info().last_block_app_hash == hashes[2]
        engine.height, engine.time_ns = height, (GENESIS_MS + height * 1000) * 10**6
        for txs, expected in list(zip(blocks, hashes, strict=True))[height:]:
            assert engine.block(*txs).app_hash == expected
        assert engine.block(last) == lost
        assert engine.told.failures == []


def test_two_operators_come_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Engine(tmp_path / "a") as one, Engine(tmp_path / "b") as other:
        maker = one.begin()
        other.begin()
        for txs in ([owes(maker)], [], [owes(maker), owes(maker, 0), b"x"], [owes(maker)]):
            assert one.block(*txs) == other.block(*txs)
        assert one.store.tip == other.store.tip


@pytest.mark.parametrize("height", [0, 2, 3])
def test_a_block_out_of_turn_ends_the_node(engine: Engine, maker: Maker, height: int) -> None:
    engine.block(owes(maker))
    answer = engine.finalize(height=height + (height == 2))
    assert answer.WhichOneof("value") == "exception"
    assert len(engine.told.failures) == 1
    assert engine.store.tip.height == 1


def test_a_commit_without_its_block_ends_the_node(engine: Engine, maker: Maker) -> None:
    engine.block(owes(maker))
    answer = engine.commit()
    assert "was lost" in answer.exception.error
    assert len(engine.told.failures) == 1


class Defect(Machine):
    def apply(self, block):
        raise ZeroDivisionError("a defect of ours")


def test_after_a_defect_nothing_goes_on(tmp_path: Path) -> None:
    with Engine(tmp_path, Defect) as engine:
        maker = engine.begin()
        assert engine.finalize(owes(maker)).WhichOneof("value") == "exception"
        assert [type(error) for error in engine.told.failures] == [ZeroDivisionError]
        answer = engine.call("query", abci.Request(info=abci.RequestInfo()))
        assert "has stopped" in answer.exception.error
        assert len(engine.told.failures) == 1
        assert engine.store.tip.height == 0


class FullOnce(Machine):
    refusals = 2

    def commit(self, result, *, ordered=None):
        if result.height and self.refusals:
            self.refusals -= 1
            raise StoreFullError("no room")
        super().commit(result, ordered=ordered)


def test_a_full_disk_is_waited_for_and_checks_go_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.3)
    with Engine(tmp_path, FullOnce) as engine:
        maker = engine.begin()
        data = owes(maker)
        engine.finalize(data)
        engine.send("consensus", abci.Request(commit=abci.RequestCommit()))
        assert engine.check(owes(maker)) == 0
        assert engine.receive("consensus").WhichOneof("value") == "commit"
        assert engine.told.full[:2] == ["no room", "no room"]
        assert engine.told.full[-1] is None
        assert engine.store.tip.height == 1


def test_checks_say_what_is_certain(engine: Engine, maker: Maker) -> None:
    good = owes(maker)
    assert engine.check(good) == 0
    forged = bytearray(good)
    forged[-1] ^= 1
    # The body is hashed when its turn comes; the leaf's signature now.
    assert engine.check(bytes(forged)) == 0
    forged[100] ^= 1
    assert engine.check(bytes(forged)) == RejectCode.BAD_SIGNATURE
    assert engine.check(b"") == RejectCode.MALFORMED
    assert engine.check(maker.submission(MINISTRY, item(P01, P02, 1)).encode()) == (
        RejectCode.ROLE_NOT_ALLOWED
    )
    engine.block(good)
    assert engine.check(good) == engine.check(good, again=True) == CODE_RECORDED
    # A second look costs no signature.
    assert engine.check(bytes(forged), again=True) == 0


def test_ticks_are_taken_while_something_is_due(engine: Engine, maker: Maker) -> None:
    assert engine.check(Tick(0, 0).encode()) == CODE_NOT_DUE
    due_ms = GENESIS_MS + 5_000
    engine.block(owes(maker, due_ms=due_ms))
    tick = Tick(due_ms, 1).encode()
    assert engine.application.deadline_ms == due_ms
    assert engine.check(tick) == 0
    assert engine.check(Tick(due_ms + 1, 1).encode()) == CODE_NOT_DUE
    # Its block may come too early: the tick changes nothing, time does.
    engine.block(tick)
    assert engine.check(tick, again=True) == 0
    engine.time_ns = due_ms * 10**6
    engine.block()
    assert engine.check(tick, again=True) == CODE_NOT_DUE
    assert LeafKind.EXPIRED in {leaf_kind(entry.leaf) for entry in engine.told.blocks[-1].entries}


def test_block_time_never_goes_back(engine: Engine, maker: Maker) -> None:
    engine.block(owes(maker))
    engine.time_ns -= 3_600 * 10**9
    engine.block(owes(maker))
    assert [result.time_ms for result in engine.told.blocks] == [GENESIS_MS + 1000] * 2


def prepared(engine: Engine, *txs: bytes, room: int = 1 << 20) -> list[bytes]:
    request = abci.RequestPrepareProposal(txs=txs, max_tx_bytes=room, height=1)
    answer = engine.call("consensus", abci.Request(prepare_proposal=request))
    return list(answer.prepare_proposal.txs)


def test_a_chain_that_stood_still_proposes_an_empty_block_first(
    engine: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = owes(maker)
    assert prepared(engine, data) == []
    engine.block()
    assert prepared(engine, data, b"junk") == [data]
    monkeypatch.setattr(module, "STILL_MS", -1)
    assert prepared(engine, data) == []


def test_proposals_of_canonical_transactions_are_accepted_and_no_others(
    engine: Engine, maker: Maker
) -> None:
    def status(*txs: bytes) -> int:
        request = abci.Request(process_proposal=abci.RequestProcessProposal(txs=txs))
        return engine.call("consensus", request).process_proposal.status

    accept, reject = abci.ResponseProcessProposal.ACCEPT, abci.ResponseProcessProposal.REJECT
    # What the rules refuse is no reason: others may know another height.
    assert status(owes(maker), owes(maker, 0), Tick(1, 2).encode()) == accept
    assert status() == accept
    assert status(owes(maker), b"junk") == reject


@pytest.mark.parametrize(
    "junk", [b"\xff" * 64, b"\x05abc", b"\x03\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b""]
)
def test_whoever_speaks_another_protocol_is_left_and_nothing_else_happens(
    engine: Engine, maker: Maker, junk: bytes
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(30)
        stranger.connect(str(engine.path))
        stranger.sendall(junk)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
    assert engine.block(owes(maker)).tx_results[0].code == 0
    assert engine.told.failures == []


def test_the_calls_that_a_ledger_has_no_use_for_are_answered(engine: Engine) -> None:
    answers = {
        name: engine.call("snapshot", request)
        for name, request in {
            "echo": abci.Request(echo=abci.RequestEcho(message="hello")),
            "query": abci.Request(query=abci.RequestQuery(path="/x")),
            "list": abci.Request(list_snapshots=abci.RequestListSnapshots()),
            "offer": abci.Request(offer_snapshot=abci.RequestOfferSnapshot()),
            "load": abci.Request(load_snapshot_chunk=abci.RequestLoadSnapshotChunk()),
            "apply": abci.Request(apply_snapshot_chunk=abci.RequestApplySnapshotChunk()),
            "extend": abci.Request(extend_vote=abci.RequestExtendVote()),
            "verify": abci.Request(verify_vote_extension=abci.RequestVerifyVoteExtension()),
        }.items()
    }
    assert answers["echo"].echo.message == "hello"
    assert answers["query"].query.code == 1
    assert answers["offer"].offer_snapshot.result == abci.ResponseOfferSnapshot.REJECT
    assert answers["verify"].verify_vote_extension.status == 1
    assert engine.told.failures == []


def govern(engine: Engine, maker: Maker, *actions: Action) -> abci.ResponseFinalizeBlock:
    """Enact actions in two blocks and return what the second one gave."""
    proposal = maker.instruction(ins.InstructionKind.PROPOSE, MINISTRY, encode_actions(actions))
    assert engine.block(proposal.encode()).tx_results[0].code == 0
    index = engine.told.outcomes[hashlib.sha256(proposal.encode()).digest()].index
    approval = ins.APPROVAL_LAYOUT.encode(proposal=index)
    approved = maker.instruction(ins.InstructionKind.APPROVE, CB, approval)
    answer = engine.block(approved.encode())
    assert answer.tx_results[0].code == 0
    return answer


def validator(participant: int, key: bytes, power: int = 10) -> Action:
    subject = {"participant": participant, "power": power, "consensus_key": key}
    return Action(ActionKind.SET_VALIDATOR, subject)


def key_of(name: str) -> bytes:
    return seeded_key(name).public_key().public_bytes_raw()


def test_a_rotated_key_is_one_update_that_adds_and_one_that_removes(
    engine: Engine, maker: Maker
) -> None:
    answer = govern(engine, maker, validator(OPERATOR_1, key_of("rotated")))
    updates = {update.pub_key.ed25519: update.power for update in answer.validator_updates}
    assert updates == {key_of("rotated"): 10, key_of("validator 7"): 0}
    assert not engine.block().validator_updates


def test_a_double_vote_is_recorded_and_suspends_but_never_leaves_three(
    engine: Engine, maker: Maker
) -> None:
    found = abci.Misbehavior(
        type=abci.DUPLICATE_VOTE,
        validator=abci.Validator(address=address_of(key_of("validator 8")), power=10),
        height=1,
        time=engine.moment(engine.time_ns),
        total_voting_power=40,
    )
    answer = engine.block(misbehavior=[found])
    registry = engine.machine.state.registry
    assert [v.participant for v in registry.appointed if v.suspended] == [OPERATOR_2]
    assert not registry.may_cosign("operator-2", 0)
    assert registry.may_cosign("operator-1", 0)
    # Without it there would be three: it stays until another comes.
    assert not answer.validator_updates
    leaves = [leaf_kind(entry.leaf) for entry in engine.told.blocks[-1].entries]
    assert leaves == [LeafKind.MISBEHAVIOUR, LeafKind.SEAL]
    # Appointed anew it stands again.
    govern(engine, maker, validator(OPERATOR_2, key_of("new key")))
    assert engine.machine.state.registry.may_cosign("operator-2", 0)


@pytest.mark.parametrize(
    "found",
    [
        abci.Misbehavior(),
        abci.Misbehavior(type=2, validator=abci.Validator(address=b"x" * 40, power=-1), height=-5),
        abci.Misbehavior(type=1, validator=abci.Validator(address=b"y" * 20)),
    ],
)
def test_odd_evidence_is_recorded_and_moves_nothing(
    engine: Engine, maker: Maker, found: abci.Misbehavior
) -> None:
    before = engine.machine.state.registry
    engine.block(misbehavior=[found])
    assert engine.machine.state.registry == before
    assert engine.store.tip.height == 1
    assert engine.told.failures == []
    assert maker.network_id


@pytest.mark.parametrize("status", [LicenceStatus.SUSPENDED, LicenceStatus.ACTIVE])
def test_a_licence_suspended_or_expired_ends_cosignature_and_vote(
    engine: Engine, maker: Maker, status: LicenceStatus
) -> None:
    number = len(engine.machine.state.registry.participants)
    fifth = participant("operator-3", Role.OPERATOR, number)
    joins = Action(ActionKind.ADD_PARTICIPANT, fifth), validator(number, key_of("fifth"))
    govern(engine, maker, *joins)
    ends_ms = engine.time_ns // 10**6 + 60_000
    licence = {
        "participant": OPERATOR_1,
        "status": status,
        "licence_no": "X",
        "licence_expiry_ms": ends_ms if status is LicenceStatus.ACTIVE else 0,
    }
    answer = govern(engine, maker, Action(ActionKind.SET_LICENCE, licence))
    if status is LicenceStatus.ACTIVE:
        assert not answer.validator_updates
        assert engine.machine.state.registry.may_cosign("operator-1", ends_ms - 1)
        engine.time_ns = ends_ms * 10**6
        answer = engine.block(Tick(ends_ms, engine.height).encode())
    updates = {update.pub_key.ed25519: update.power for update in answer.validator_updates}
    assert updates == {key_of("validator 7"): 0}
    assert not engine.machine.state.registry.may_cosign("operator-1", ends_ms)
    assert engine.store.get(Table.PARAMETERS, b"validators") is not None
