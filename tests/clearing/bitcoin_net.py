"""A small ledger that follows a Bitcoin chain: legs of cycles and mined coin, acted out on real headers and signatures.

Lives here: one method an act. Nothing here knows what the right answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearing import ledger
from clearing.bitcoin.next_header import header_hash
from clearing.bitcoin.provenance import Claim, Way, claim_message, script_message
from clearing.bitcoin.settlement import Coin, Template
from clearing.bitcoin.transaction import Outpoint, Output, TransactionProof
from clearing.errors import RejectCode
from clearing.handlers.chain import HEADERS_MAX
from clearing.handlers.leg_rows import leg_of, template_of
from clearing.records import instruction as ins
from clearing.records.settlement import (
    ATTEST_LAYOUT,
    LEG_LAYOUT,
    OFFER_LAYOUT,
    SIGNING_LAYOUT,
    ScriptStatement,
)
from clearing.rows import Table, key_party, key_u32
from clearing.rules.bitcoin_terms import pack_script
from clearing.rules.governance import encode_actions
from clearing.rules.legs import NOBODY, Leg, NamedCoins
from clearing.rules.mined import Batch
from clearing.rules.registry import Action, ActionKind
from clearing.state import Draft
from tests.clearing.bitcoin.bitcoin_kit import (
    REGTEST_GENESIS,
    Chain,
    coin,
    coinbase,
    signed_message,
    taproot,
    transaction,
    wpkh,
)
from tests.ledger_kit import BTC, CB, MINISTRY, P04, Net, seeded_key

Kind = ins.InstructionKind
DEPTH = 3
SIGNING_MS = 3_600_000
FEE_RATE_MAX = 50_000
REGTEST = 4


def node_key(name: str) -> Any:
    """Return the key that a participant's node always has in tests, as ledger_kit has it."""
    return seeded_key(f"node of {name}")


def terms(miner: int = P04, **changed: int) -> list[Action]:
    """Return the actions that make a ledger of ledger_kit follow regtest, with one miner and one pool."""
    route = {"depth": DEPTH, "signing_ms": SIGNING_MS, "fee_rate_max": FEE_RATE_MAX} | changed
    keys = [
        Action(
            ActionKind.SET_NODE_KEY,
            {"participant": who, "node_key": node_key(name).public_key().public_bytes_raw()},
        )
        for who, name in ((CB, "central-bank"), (MINISTRY, "ministry"))
    ]
    payouts = [(miner, 1, wpkh("miner")), (miner, 1, taproot("miner")), (CB, 2, wpkh("pool"))]
    return [
        *keys,
        Action(
            ActionKind.SET_BITCOIN_CHAIN,
            {"network": REGTEST, "height": 0, "header": REGTEST_GENESIS},
        ),
        Action(ActionKind.SET_ROUTE, {"asset": BTC, "by_transaction": 1, **route}),
        Action(ActionKind.SET_MINER, {"participant": miner, "active": 1, "region": "KEMEROVO"}),
        *(
            Action(
                ActionKind.SET_PAYOUT_SCRIPT,
                {"participant": who, "kind": kind, "active": 1, **pack_script(script)},
            )
            for who, kind, script in payouts
        ),
        Action(ActionKind.SET_TAX_RULE, {"remaining_ppm": 1_000_000, "used_ppm": 250_000}),
    ]


class Bitcoin:
    """What participants, nodes and miners do; the chain is this one's own until its headers are reported."""

    def __init__(self, net: Net, actions: Sequence[Action] | None = None) -> None:
        """Let governance make the ledger follow a fresh regtest chain."""
        self.net = net
        self.chain = Chain()
        self._reported = 0
        if actions is None:
            registry = net.state.registry
            known = {one.node_key for one in registry.participants}
            actions = [one for one in terms() if one.subject.get("node_key") not in known]
        if actions:
            made = net.one(net.instruction(Kind.PROPOSE, MINISTRY, encode_actions(actions)))
            assert made.code is RejectCode.OK, made
            payload = ins.APPROVAL_LAYOUT.encode(proposal=made.index)
            self.ok(net.one(net.instruction(Kind.APPROVE, CB, payload)))

    @staticmethod
    def ok(outcome: ledger.Outcome) -> ledger.Outcome:
        """Return an outcome that must be good."""
        assert outcome.code is RejectCode.OK, outcome
        return outcome

    def stated(self, kind: Kind, actor: int, payload: bytes, key: Any = None) -> ins.Instruction:
        """Return what an actor's node states."""
        return ins.make_instruction(
            network_id=self.net.state.network_id,
            kind=kind,
            actor=actor,
            client_id=self.net.fresh("client", 16),
            salt=self.net.fresh("salt", 16),
            payload=payload,
            sign=(key or node_key(self.net.roles[actor][0])).sign,
        )

    def state(self, kind: Kind, actor: int, payload: bytes) -> ledger.Outcome:
        """Let an actor's node state something in a block of its own."""
        return self.net.one(self.stated(kind, actor, payload))

    def give(self, kind: Kind, actor: int, payload: bytes) -> ledger.Outcome:
        """Let a participant say something in a block of its own."""
        return self.net.one(self.net.instruction(kind, actor, payload))

    # -- the chain

    def report(self, chain: Chain | None = None, start: int | None = None) -> None:
        """Report all headers that were not, of this or another chain from `start` on."""
        chain = chain or self.chain
        headers = chain.headers[(self._reported if start is None else start) + 1 :]
        for at in range(0, len(headers), HEADERS_MAX):
            part = b"".join(headers[at : at + HEADERS_MAX])
            self.ok(self.state(Kind.REPORT_HEADERS, CB, part))
        self.chain, self._reported = chain, chain.height

    def mine(self, *transactions: bytes, salt: int = 0) -> list[TransactionProof]:
        """Mine a block and report it."""
        found = self.chain.block(*transactions, salt=salt)
        self.report()
        return found

    def show(self, proof: TransactionProof) -> ledger.Outcome:
        """Show a transaction that the chain holds."""
        return self.state(Kind.SHOW_TRANSACTION, MINISTRY, proof.encode())

    # -- legs

    def script(self, actor: int, script: bytes | None = None) -> ledger.Outcome:
        """Register a settlement script of an actor: that of its name."""
        name = self.net.roles[actor][0]
        script = script or wpkh(name)
        lei = self.net.state.registry.participants[actor].lei
        message = script_message(self.net.state.network_id, lei, BTC)
        statement = ScriptStatement(BTC, script, signed_message(name, script, message))
        return self.give(Kind.SET_SETTLEMENT_SCRIPT, actor, statement.encode())

    def coins(self, actor: int, cycle: int, *coins: Coin) -> ledger.Outcome:
        """Name coins of an actor for a leg; without any, one of ten whole coins."""
        name = self.net.roles[actor][0]
        named = coins or (coin(name, 1_000_000_000 + cycle),)
        payload = NamedCoins(cycle, wpkh(name), named).encode()
        return self.give(Kind.NAME_COINS, actor, payload)

    def offer(self, cycle: int, fee_rate: int = 2_000) -> ledger.Outcome:
        """Offer the transaction."""
        payload = OFFER_LAYOUT.encode(cycle=cycle, fee_rate=fee_rate)
        return self.give(Kind.OFFER_LEG, CB, payload)

    def refuse(self, actor: int, cycle: int) -> ledger.Outcome:
        """Refuse to pay."""
        return self.give(Kind.REFUSE_LEG, actor, LEG_LAYOUT.encode(cycle=cycle))

    def recast(self, cycle: int, actor: int = CB) -> ledger.Outcome:
        """Net anew without the culprit."""
        return self.give(Kind.RECAST_CYCLE, actor, LEG_LAYOUT.encode(cycle=cycle))

    def all_signed(self, cycle: int) -> ledger.Outcome:
        """Report that every payer has signed."""
        return self.give(Kind.REPORT_SIGNING, CB, self._signing(cycle, 1, NOBODY))

    def unsigned(self, cycle: int, culprit: int) -> ledger.Outcome:
        """Report that a payer has not signed."""
        return self.give(Kind.REPORT_SIGNING, CB, self._signing(cycle, 0, culprit))

    @staticmethod
    def _signing(cycle: int, signed: int, participant: int) -> bytes:
        return SIGNING_LAYOUT.encode(
            cycle=cycle, signed=signed, participant=participant, transaction_hash=b"\x05" * 32
        )

    def leg(self, cycle: int) -> Leg:
        """Return a cycle's leg."""
        return Leg.decode(self.net.store.get(Table.LEGS, key_u32(cycle)) or b"")

    def template(self, cycle: int) -> Template:
        """Return the transaction that a leg was offered with."""
        draft = Draft(self.net.state, self.net.state.height + 1, self.net.time_ms)
        leg = leg_of(draft, cycle)
        assert leg is not None
        return template_of(draft, cycle, leg, leg.fee_rate)

    # -- mined coin

    def mined(self, amount: int = 5_000, name: str = "miner", deep: int = 100) -> TransactionProof:
        """Mine a coinbase that pays a name, and blocks on it; report them."""
        made = coinbase(self.chain.height + 1, Output(amount, wpkh(name)), tag=b"%d" % amount)
        (proof,) = self.chain.block(made)
        self.chain.blocks(deep - 1)
        self.report()
        return proof

    def claim(self, proof: TransactionProof, miner: int = P04, name: str = "miner") -> Claim:
        """Return the claim of a miner to the first output of a coinbase."""
        outpoint = Outpoint(proof.transaction.txid, 0)
        signature = signed_message(
            name, proof.transaction.outputs[0].script, self._message(miner, outpoint)
        )
        return Claim(Way.OWN, proof, None, 0, signature)

    def pool_claim(self, amount: int, pool: str = "pool", deep: int = 100) -> Claim:
        """Return the claim of the miner to a payout of a pool's coinbase; the payout is mined and reported `deep` too."""
        first = self.mined(amount + 500, pool)
        spent = Outpoint(first.transaction.txid, 0)
        (second,) = self.chain.block(transaction([spent], [Output(amount, taproot("miner"))]))
        self.chain.blocks(deep - 1)
        self.report()
        outpoint = Outpoint(second.transaction.txid, 0)
        signature = signed_message("miner", taproot("miner"), self._message(P04, outpoint))
        return Claim(Way.POOL, first, second, 0, signature)

    def _message(self, miner: int, outpoint: Outpoint) -> bytes:
        party = self.net.state.registry.participants[miner]
        return claim_message(self.net.state.network_id, outpoint, party.lei, party.licence_no)

    def declare(self, claim: Claim, miner: int = P04) -> ledger.Outcome:
        """Declare a mined coin."""
        return self.give(Kind.DECLARE_COIN, miner, claim.encode())

    def attest(
        self, batch: int, unspent: int = 1, miner: int = P04, by: int = CB
    ) -> ledger.Outcome:
        """Let a supervisor's node say whether a declared coin is unspent."""
        payload = ATTEST_LAYOUT.encode(
            miner=miner,
            unspent=unspent,
            batch=batch,
            block_hash=header_hash(self.chain.headers[-1]),
        )
        return self.state(Kind.ATTEST_COIN, by, payload)

    def counted(self, amount: int) -> int:
        """Mine, declare and attest a coin, and return the batch."""
        index = self.ok(self.declare(self.claim(self.mined(amount)))).index
        self.ok(self.attest(index))
        return index

    def batch(self, index: int, miner: int = P04) -> Batch:
        """Return a declared batch."""
        return Batch.decode(self.net.store.get(Table.BATCHES, key_party(miner, index)) or b"")
