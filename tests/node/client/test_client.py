"""The clients against a real node: whole flows, lost answers, restarts, lies, and what a person is told."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
import runpy
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clearing.errors import DecodeError, RejectCode
from clearing.log.checkpoint import Checkpoint
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.receipt import verify_receipt
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rules.registry import Action, ActionKind
from clearing.types import (
    CycleState,
    InstructionState,
    NettingMethod,
    ObligationState,
    SettlementKind,
)
from node.client import (
    AsyncClient,
    BadAnswerError,
    Client,
    DeadlineError,
    ForkDetectedError,
    NotAuthorisedError,
    NotFoundError,
    Obligation,
    OutcomeUnknownError,
    Recorded,
    RejectedError,
    RollbackDetectedError,
    TlsError,
    UnavailableError,
)
from node.client.outbox import Outbox
from node.client.session import STATE_NAME
from node.errors import SetupError
from node.identity import Identity, IdentityKind
from node.pki import Authority, Validity
from node.profile import IdentityDirectory
from node.queries import ObligationFilter, PositionFilter, SettlementFilter
from tests.ledger_kit import item
from tests.node.services_kit import LEADER, NETWORK, NUMBERS, OneNode, lei_of

P01, P02, P03 = NUMBERS["p01"], NUMBERS["p02"], NUMBERS["p03"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with OneNode(tmp_path_factory.mktemp("net")) as running:
        yield running


@pytest.fixture
def own_network(tmp_path: Path) -> Iterator[OneNode]:
    """A network that a test may stop and break."""
    with OneNode(tmp_path) as running:
        yield running


def await_final(client: Client, index: int) -> Checkpoint:
    """Wait until a final checkpoint covers the leaf at `index`."""
    return next(checkpoint for checkpoint in client.watch() if checkpoint.size > index)


def settle(central_bank: Client, cycle: int) -> None:
    for kind in (SettlementKind.PAY_IN, SettlementKind.PAY_OUT):
        for row in central_bank.instructions(SettlementFilter(cycle=cycle), everyone=True):
            if row.instruction.kind is kind:
                central_bank.evidence(cycle, row.number, hashlib.sha256(b"txid").digest())
                central_bank.confirm(cycle, row.number)


def test_a_cycle_from_submission_to_final_settlement(own_network: OneNode) -> None:
    client = own_network.client
    with client("p01") as p01, client("p02") as p02, client(LEADER) as central_bank:
        (recorded,) = p01.submit(
            [
                Obligation("p01", "p02", "BTC", 100),
                Obligation("p02", "p01", "BTC", 30),
                Obligation(lei_of("p01"), lei_of("p02"), "ETH", (1 << 100) + 1),
            ]
        )
        assert (recorded.items, recorded.repeated) == (3, False)
        p02.affirm(recorded.index, [(0, 1)])
        p02.reject(recorded.index)
        run = central_bank.run_cycle()
        assert run.items == 0
        row, assets = p01.cycle(1)
        assert row.cycle.state is CycleState.NETTED
        assert [(a.asset, a.gross_units, a.net_units) for a in assets] == [(0, 130, 70)]
        assert [(r.participant, r.net) for r in assets[0].rows] == [(P01, -70)]
        _, everyone = central_bank.cycle(1, everyone=True)
        assert [(r.participant, r.net) for r in everyone[0].rows] == [(P01, -70), (P02, 70)]
        settle(central_bank, 1)
        receipt, _ = p02.receipt(recorded.index, 1)
        assert verify_receipt(receipt, own_network.policy).item is not None
        row, _ = p02.cycle(1)
        assert row.cycle.state is CycleState.SETTLED
        await_final(p02, row.cycle.ended_index)
        assert p02.cycle(1)[0].final
        states = [row.state for row in p01.obligations()]
        assert states == [
            ObligationState.SETTLED,
            ObligationState.SETTLED,
            ObligationState.REJECTED,
        ]
        (position,) = p01.positions()
        assert (position.paid, position.payable, position.locked_net) == (70, 0, 0)
        proof, proven = p01.position_proof(P01, 0)
        assert proven.position is not None
        assert (proven.position.paid, proof[:4]) == (70, b"c2sp")
        assert p01.position_proof(P01, 1)[1].position is None
        assert [row.cycle.state for row in central_bank.cycles()] == [CycleState.SETTLED]
        confirmed = SettlementFilter(states=(InstructionState.CONFIRMED,))
        assert len(p01.instructions(confirmed)) == 1


def test_governance_by_two_clients(own_network: OneNode) -> None:
    with own_network.client("ministry") as ministry, own_network.client(LEADER) as central_bank:
        proposal = ministry.propose([Action(ActionKind.SET_TIMETABLE, (39_600,))])
        (row,) = central_bank.proposals()
        assert (row.log_index, row.proposal.enacted) == (proposal.index, False)
        with pytest.raises(RejectedError) as caught:
            ministry.approve(proposal.index)
        assert caught.value.code is RejectCode.ALREADY_APPROVED
        central_bank.approve(proposal.index)
        other = ministry.propose([Action(ActionKind.SET_TIMETABLE, (39_600,))])
        for index, enacted in ((proposal.index, True), (other.index, False)):
            (row,) = ministry.proposals(index)
            assert (row.log_index, row.proposal.enacted) == (index, enacted)
        assert ministry.proposals(other.index + 1) == ()
        assert ministry.registry().cut_offs_s == (39_600,)
        central_bank.pledge("p01", "BTC", 500)
        (position,) = central_bank.positions(PositionFilter(participant=P01), everyone=True)
        assert position.liquidity == 500


def test_an_instruction_tells_which_cycle_it_began(own_network: OneNode) -> None:
    client = own_network.client
    actions = [Action(ActionKind.SET_METHOD, {"asset": 0, "method": NettingMethod.SETOFF})]
    with client("p01") as p01, client("p02") as p02, client(LEADER) as central_bank:
        with client("ministry") as ministry:
            central_bank.approve(ministry.propose(actions).index)
        # The first is cut off and waits for its set-off; the second, of another asset, is netted at once.
        begins = (LeafKind.CYCLE_CUT_OFF, LeafKind.CYCLE_NETTED)
        for number, asset in enumerate(("BTC", "ETH"), 1):
            (recorded,) = p01.submit([Obligation("p01", "p02", asset, 5)])
            p02.affirm(recorded.index)
            run = central_bank.run_cycle()
            assert central_bank.cycle_begun_by(run.index) == number
            (leaf,) = central_bank.leaves(run.index + 1, run.index + 2)
            assert leaf_kind(leaf) is begins[number - 1]
        with pytest.raises(BadAnswerError):
            central_bank.cycle_begun_by(recorded.index)


def test_the_readme_example_runs(
    network: OneNode, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(network.directory)
    runpy.run_path(str(Path(__file__).with_name("example.py")))
    receipt = (network.directory / "obligation.tlog-proof").read_bytes()
    verified = verify_receipt(receipt, network.policy)
    assert verified.item is not None
    assert (verified.item.debtor, verified.item.amount_units) == (P01, 150_000_000)
    # Nothing is affirmed yet, so nothing is payable.
    assert capsys.readouterr().out == ""


def test_the_async_client_has_the_same_methods() -> None:
    def public(kind: type[Any]) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in vars(kind).items()
            if not name.startswith("_") and callable(method)
        }

    assert public(Client) == public(AsyncClient)
    assert set(public(Client)) >= {"submit", "affirm", "receipt", "obligations", "watch", "close"}


def test_the_async_client_end_to_end(network: OneNode) -> None:
    async def flow() -> None:
        async with network.async_client("p01") as p01, network.async_client("p02") as p02:
            results = await asyncio.gather(
                *(p01.submit([Obligation("p01", "p02", "BTC", n + 1)]) for n in range(10))
            )
            indexes = [recorded.index for (recorded,) in results]
            assert len(set(indexes)) == 10
            await p02.affirm(indexes[0])
            receipt, verified = await p02.receipt(indexes[0], 0)
            assert verified.index == indexes[0]
            assert verify_receipt(receipt, network.policy).checkpoint == verified.checkpoint
            rows = await p01.obligations(ObligationFilter(states=(ObligationState.AFFIRMED,)))
            assert indexes[0] in [row.submission for row in rows]
            leaves = [leaf async for leaf in p01.leaves(0, 2)]
            assert [leaf_kind(leaf) for leaf in leaves] == [LeafKind.GENESIS, LeafKind.SEAL]
            watched = p01.watch()
            first = await anext(watched)
            await p01.submit([Obligation("p01", "p02", "BTC", 1)])
            second = await anext(watched)
            assert second.size > first.size
            await watched.aclose()  # type: ignore[attr-defined]
            with pytest.raises(RejectedError):
                await p01.affirm(indexes[0])
            with pytest.raises(NotAuthorisedError):
                await p01.positions(everyone=True)
            assert await p01.request(bytes(16)) is None
            registry = await p01.registry()
            assert registry.participants[P01].name == "p01"

    network.run(flow())


def test_more_than_a_submission_holds_is_split(
    network: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.client.writes.ITEMS_PER_SUBMISSION_MAX", 40)
    with network.client("p01") as p01:
        recorded = p01.submit(Obligation("p01", "p03", "ETH", n + 1) for n in range(100))
        assert [one.items for one in recorded] == [40, 40, 20]
        rows = p01.obligations(ObligationFilter(counterparty=P03))
        assert [row.amount_units for row in rows] == list(range(1, 101))
        bad = item(P01, P03, 1) * 40 + item(P01, P03, 0) + item(P01, P01, 1)
        with pytest.raises(RejectedError) as caught:
            p01.submit(bad)
        assert [one.items for one in caught.value.recorded] == [40]
        assert caught.value.items == ((0, RejectCode.ZERO_AMOUNT), (1, RejectCode.SAME_PARTY))
        assert caught.value.bad_items == 2
    assert ITEMS_PER_SUBMISSION_MAX == 50_000


def test_many_pages_are_one_list(network: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.client.reads.PAGE_ROWS_MAX", 7)
    with network.client("p01") as p01:
        p01.submit(Obligation("p01", "p04", "BTC", n + 1) for n in range(30))
        wanted = ObligationFilter(counterparty=NUMBERS["p04"])
        rows = p01.obligations(wanted)
        assert [row.amount_units for row in rows] == list(range(1, 31))
        assert p01.obligations(wanted, rows_max=10) == rows[:10]
        assert p01.obligations(wanted, rows_max=0) == ()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"creditor": "nobody"}, "no participant 'nobody' is registered"),
        ({"debtor": 7}, "no participant 7 is registered"),
        ({"asset": "DOGE"}, "no asset 'DOGE' is registered"),
        ({"amount_units": 1 << 128}, "does not fit 16 bytes"),
        ({"amount_units": -1}, "amount_units = -1 does not fit 16 bytes"),
        ({"amount_units": 1.5}, "amount_units must be an integer, got 1.5"),
        ({"amount_units": "150"}, "amount_units must be an integer, got '150'"),
        ({"priority": 256}, "priority = 256 does not fit 1 bytes"),
        ({"trade_ref_hash": b"x"}, "trade_ref_hash must be 32 bytes, got 1"),
        ({"trade_ref_hash": "0" * 32}, "trade_ref_hash must be 32 bytes, got '000"),
    ],
)
def test_what_cannot_be_written_down_is_refused_by_place_and_not_sent(
    network: OneNode, wrong: dict[str, Any], why: str
) -> None:
    good = Obligation("p01", "p02", "BTC", 7)
    with network.client("p01") as p01, network.client(LEADER) as bank:
        size = bank.status().log_size
        with pytest.raises(DecodeError, match=f"^obligation 1: .*{re.escape(why)}"):
            p01.submit([good, replace(good, **wrong)])
        for none in ([], [good, ("p01", "p02", "BTC", 7)]):
            with pytest.raises(DecodeError):
                p01.submit(none)
        with pytest.raises(DecodeError, match="must ascend"):
            p01.rescind(2, [(3, 1)])
        assert bank.status().log_size == size


def test_what_is_not_there_is_not_found(network: OneNode) -> None:
    with network.client("p03") as p03:
        with pytest.raises(NotFoundError):
            p03.receipt(0)
        with pytest.raises(NotFoundError):
            p03.cycle(99)
        with pytest.raises(NotFoundError):
            p03.position_proof(P03, 77)


def test_one_client_serves_many_threads(network: OneNode) -> None:
    with network.client("p01") as p01:
        errors: list[Exception] = []

        def work() -> None:
            try:
                for _ in range(5):
                    (recorded,) = p01.submit([Obligation("p01", "p02", "BTC", 1)])
                    p01.receipt(recorded.index, 0)
                    p01.checkpoint()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


# -- lost answers and restarts


def pending(network: OneNode, name: str) -> list[Path]:
    return sorted((network.identity_path(name) / STATE_NAME / "outbox").glob("*.transaction"))


def test_a_restart_of_the_node_is_waited_out(own_network: OneNode) -> None:
    with own_network.client("p01") as p01:
        (first,) = p01.submit([Obligation("p01", "p02", "BTC", 1)])
        own_network.stop()
        back = threading.Timer(0.5, own_network.start)
        back.start()
        (second,) = p01.submit([Obligation("p01", "p02", "BTC", 2)])
        back.join()
        assert second.index > first.index
        assert len(p01.obligations()) == 2
        assert pending(own_network, "p01") == []


def test_what_was_sent_without_an_answer_is_sent_again_once(own_network: OneNode) -> None:
    with own_network.client("p01") as p01:
        (submission,) = p01.prepare([Obligation("p01", "p02", "BTC", 5)])
        first = p01.send(submission)
        assert pending(own_network, "p01") == []
    # As after a crash between sending and hearing: the transaction is in the outbox, its fate unknown.
    own_network.stop()
    short = own_network.client("p01", timeout_s=1)
    with short as p01, pytest.raises((OutcomeUnknownError, UnavailableError)):
        p01.send(submission)
    own_network.start()
    Outbox(own_network.identity_path("p01") / STATE_NAME / "outbox").put(submission)
    with own_network.client("p01") as p01:
        assert p01.resume() == (Recorded(submission.client_id, first.index, 1, True, True),)
        assert p01.resume() == ()
        assert len(p01.obligations()) == 1
        found = p01.request(submission.client_id)
        assert found is not None
        assert (found.index, found.is_final) == (first.index, True)


def test_an_outbox_with_a_bad_transaction_is_emptied_and_told(own_network: OneNode) -> None:
    with own_network.client("p01") as p01:
        (bad,) = p01.prepare(item(P01, P02, 0))
        (good,) = p01.prepare(item(P01, P02, 7))
        outbox = Outbox(own_network.identity_path("p01") / STATE_NAME / "outbox")
        for transaction in (bad, good):
            outbox.put(transaction)
        fates = p01.resume()
        kinds = {type(fate) for fate in fates}
        assert kinds == {RejectedError, Recorded}
        assert pending(own_network, "p01") == []


def test_a_node_that_is_down_is_unavailable_and_nothing_is_left(own_network: OneNode) -> None:
    with own_network.client("p01") as p01:
        p01.registry()
    own_network.stop()
    with own_network.client("p01", timeout_s=0.5) as p01:
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            p01.checkpoint()
        assert time.monotonic() - started < 5
    own_network.start()


def test_time_that_is_over_is_a_deadline(network: OneNode) -> None:
    with network.client("p01", timeout_s=0.0) as p01, pytest.raises(DeadlineError):
        p01.registry()


# -- nodes that contradict themselves


@contextmanager
def copied(network: OneNode, directory: Path) -> Iterator[Callable[[], None]]:
    """Keep a copy of a stopped node's files; what is yielded puts it back."""
    shutil.copytree(network.node_dir, directory)

    def restore() -> None:
        shutil.rmtree(network.node_dir)
        shutil.copytree(directory, network.node_dir)

    yield restore


def test_a_node_set_back_to_a_backup_is_a_rollback_with_evidence(
    own_network: OneNode, tmp_path: Path
) -> None:
    own_network.stop()
    with copied(own_network, tmp_path / "backup") as restore:
        own_network.start()
        with own_network.client("p01") as p01:
            (recorded,) = p01.submit([Obligation("p01", "p02", "BTC", 5)])
            seen = await_final(p01, recorded.index)
        own_network.stop()
        restore()
        own_network.start()
    with own_network.client("p01") as p01, pytest.raises(RollbackDetectedError) as caught:
        p01.positions()
    text = caught.value.evidence.read_text()
    assert f"\\n{seen.size}\\n" in text
    # It is remembered: the next session starts where this one stood.
    with own_network.client("p01") as p01, pytest.raises(RollbackDetectedError):
        p01.submit([Obligation("p01", "p02", "BTC", 5)])


def test_a_second_history_under_the_same_keys_is_a_fork_with_evidence(
    own_network: OneNode, tmp_path: Path
) -> None:
    own_network.stop()
    with copied(own_network, tmp_path / "backup") as restore:
        own_network.start()
        with own_network.client("p01") as p01:
            (recorded,) = p01.submit([Obligation("p01", "p02", "BTC", 5)])
            await_final(p01, recorded.index)
        own_network.stop()
        restore()
        own_network.start()
    # Somebody whose memory is empty writes the second history on, past the size of the first.
    with own_network.client("p02", state_dir=tmp_path / "other") as p02:
        for _ in range(3):
            (recorded,) = p02.submit([Obligation("p02", "p03", "BTC", 6)])
        await_final(p02, recorded.index)
    with own_network.client("p01") as p01, pytest.raises(ForkDetectedError) as caught:
        p01.positions()
    assert caught.value.evidence.exists()


# -- certificates and files


def reissued(network: OneNode, name: str, directory: Path, authority: Authority, validity: Validity) -> IdentityDirectory:  # fmt: skip
    """Return a copy of an identity with another certificate."""
    shutil.copytree(network.identity_path(name), directory)
    (directory / "cert.pem").unlink()
    (directory / "key.pem").unlink()
    authority.issue(Identity(NETWORK, IdentityKind.PARTICIPANT, lei_of(name)), validity).write(directory)  # fmt: skip
    return IdentityDirectory.open(directory)


def test_a_certificate_that_is_over_is_named_before_anything_is_sent(
    network: OneNode, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    over = Validity(now - timedelta(days=9), now - timedelta(days=1))
    identity = reissued(network, "p01", tmp_path / "p01", network.authority, over)
    with pytest.raises(SetupError, match="expired"):
        Client(identity)


def test_a_node_of_another_authority_is_named(network: OneNode, tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    other = Authority.create(tmp_path / "ca", NETWORK, Validity.days_from_now(9))
    identity = reissued(network, "p01", tmp_path / "p01", other, Validity.days_from_now(1))
    (tmp_path / "p01" / "ca.pem").write_bytes(other.certificate_pem)
    started = time.monotonic()
    with Client(identity) as client, pytest.raises(TlsError, match="certificate"):
        client.checkpoint()
    assert time.monotonic() - started < 10


def test_an_identity_without_a_policy_is_refused(network: OneNode, tmp_path: Path) -> None:
    shutil.copytree(network.identity_path("p01"), tmp_path / "p01")
    profile = tmp_path / "p01" / "profile.toml"
    kept = [line for line in profile.read_text().splitlines() if not line.startswith("policy_path")]
    profile.write_text("\n".join(kept) + "\n")
    with pytest.raises(SetupError, match="policy_path"):
        Client.open(tmp_path / "p01")


def test_the_signing_key_is_opened_once_and_only_for_signing(network: OneNode) -> None:
    opened: list[int] = []

    def signer() -> Any:
        opened.append(1)
        return network.identity("p02").signing_key()

    with network.client("p02", signer=signer) as p02:
        p02.positions()
        assert opened == []
        for n in range(3):
            p02.submit([Obligation("p02", "p03", "BTC", n + 1)])
        assert opened == [1]
