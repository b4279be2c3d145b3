"""What a node's clerk signs is one form of one statement, believed only under the registered node key."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from clearing import ledger
from clearing.errors import RejectCode
from clearing.ledger import KeyUse, Outcome
from clearing.records.instruction import InstructionKind
from clearing.records.transaction import Transaction
from clearing.rules.registry import Action, ActionKind, Registry
from node.errors import SetupError
from node.keys import SigningKey
from node.workers.clerk import Clerk
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB, P01, P02, item, seeded_key

KEY = SigningKey.from_seed(b"\x07" * 32)
REPORT = InstructionKind.RUN_CYCLE


class Node:
    """A real ledger in memory, as a node's member offers it."""

    def __init__(self) -> None:
        self.core = Core()

    @property
    def network_id(self) -> bytes:
        return self.core.state.network_id

    @property
    def registry(self) -> Registry:
        return self.core.state.registry

    async def submit(self, transaction: Transaction) -> Outcome:
        return self.core.one(transaction)

    def clerk(self, signer: SigningKey = KEY, name: str = "central-bank") -> Clerk:
        return Clerk(signer, name, lambda: self)

    def register(self, key: bytes) -> None:
        self.core.enact(Action(ActionKind.SET_NODE_KEY, {"participant": CB, "node_key": key}))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """A ledger in which RUN_CYCLE is a node's report, and a cycle has something to net."""
    rule = ledger._RULES[REPORT]
    monkeypatch.setitem(ledger._RULES, REPORT, replace(rule, signer=KeyUse.NODE))
    made = Node()
    made.core.affirm(P02, made.core.submit(P01, item(P01, P02, 5)))
    return made


def test_a_statement_is_believed_once_its_key_is_registered(node: Node) -> None:
    clerk = node.clerk()
    assert not clerk.may_speak()
    assert asyncio.run(clerk.state(REPORT, b"")).code is RejectCode.BAD_SIGNATURE
    node.register(KEY.public_key)
    assert clerk.may_speak()
    assert asyncio.run(clerk.state(REPORT, b"")).code is RejectCode.OK
    node.register(SigningKey.from_seed(b"\x08" * 32).public_key)
    assert not clerk.may_speak()


def test_said_again_it_is_the_same_bytes_and_has_the_first_answer(node: Node) -> None:
    node.register(KEY.public_key)
    first = asyncio.run(node.clerk().state(REPORT, b""))
    again = asyncio.run(node.clerk().state(REPORT, b""))
    assert (again.code, again.index, again.repeated) == (RejectCode.OK, first.index, True)
    assert node.clerk().instruction(REPORT, b"") == node.clerk().instruction(REPORT, b"")


def test_other_words_another_key_or_another_kind_have_other_ids(node: Node) -> None:
    made = [
        node.clerk().instruction(REPORT, b""),
        node.clerk().instruction(REPORT, b"\0"),
        node.clerk().instruction(InstructionKind.CONFIRM, b""),
        node.clerk(SigningKey.from_seed(b"\x09" * 32)).instruction(REPORT, b""),
    ]
    assert len({one.client_id for one in made}) == len({one.body[:16] for one in made}) == len(made)


def test_neither_key_serves_in_the_others_place(node: Node) -> None:
    participant = SigningKey.from_seed(seeded_key("central-bank").private_bytes_raw())
    node.register(KEY.public_key)
    assert asyncio.run(node.clerk(participant).state(REPORT, b"")).code is RejectCode.BAD_SIGNATURE
    pledged = asyncio.run(node.clerk().state(InstructionKind.SET_LIQUIDITY, bytes(24)))
    assert pledged.code is RejectCode.BAD_SIGNATURE


def test_under_no_key_nothing_is_believed(node: Node) -> None:
    """The key of zeros is a point of small order: signatures under it can be made by anybody."""

    class Forger:
        public_key = bytes(32)

        def __init__(self, number: int) -> None:
            self.number = number

        def sign(self, message: bytes) -> bytes:
            if message.startswith(b"clearing/clerk-secret"):
                return bytes([self.number])
            return (1).to_bytes(32, "little") + bytes(32)

    outcomes = set()
    # A signature of small order verifies for one message in eight, so there must be many.
    for number in range(64):
        clerk = Clerk(Forger(number), "central-bank", lambda: node)
        outcomes.add(asyncio.run(clerk.state(REPORT, b"")).code)
    assert outcomes == {RejectCode.BAD_SIGNATURE}


def test_a_stranger_is_told_to_register(node: Node) -> None:
    with pytest.raises(SetupError, match="no participant called nobody"):
        node.clerk(name="nobody").instruction(REPORT, b"")
    assert not node.clerk(name="nobody").may_speak()
