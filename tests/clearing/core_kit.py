"""The small network of ledger_kit with eyes: it reads its own rows, dumps its state, and governs.

Lives here: what several tests of the core share. Nothing here knows what the right answer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clearing import ledger
from clearing.errors import RejectCode
from clearing.memory import MemoryStore
from clearing.records import instruction as ins
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.transaction import Transaction
from clearing.rows import Table, key_position, key_u32, key_u64
from clearing.rules.cycles import Cycle
from clearing.rules.governance import Proposal, encode_actions
from clearing.rules.obligations import ItemStates
from clearing.rules.positions import Position
from clearing.rules.registry import Action, ActionKind
from clearing.rules.results import AssetResult
from clearing.rules.settlement import SettlementInstruction
from clearing.state import State
from clearing.types import LicenceStatus, ObligationState
from tests.ledger_kit import BTC, CB, MINISTRY, P01, P02, Net, item, seeded_key

Kind = ins.InstructionKind
NOBODY = 99
"""A registry number that is not given."""


class Watched:
    """A Reader that remembers what was read through it: table and key of each row, "body" and the index of each body."""

    def __init__(self, store: MemoryStore) -> None:
        """Read from `store`."""
        self.store = store
        self.read: list[tuple[str, bytes | int]] = []

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return a row."""
        self.read.append((table, key))
        return self.store.get(table, key)

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows."""
        for row in self.store.scan(table, prefix, start):
            self.read.append((table, row[0]))
            yield row

    def leaf(self, index: int) -> bytes:
        """Return a leaf."""
        return self.store.leaf(index)

    def body(self, index: int) -> bytes | None:
        """Return a body."""
        self.read.append(("body", index))
        return self.store.body(index)

    def count(self, what: str) -> int:
        """Return how many rows of a table, or bodies, have been read, and begin anew."""
        read, self.read = self.read, []
        return sum(table == what for table, _ in read)


class Core(Net):
    """One ledger in memory, driven block by block and read row by row."""

    def give(self, kind: Kind, actor: int, payload: bytes = b"") -> ledger.Outcome:
        """Give one instruction in a block of its own."""
        return self.one(self.instruction(kind, actor, payload))

    def propose(self, actor: int, *actions: Action) -> ledger.Outcome:
        """Propose governance actions."""
        return self.give(Kind.PROPOSE, actor, encode_actions(actions))

    def approve(self, actor: int, proposal: int) -> ledger.Outcome:
        """Approve a proposal."""
        return self.give(Kind.APPROVE, actor, ins.APPROVAL_LAYOUT.encode(proposal=proposal))

    def enact(self, *actions: Action) -> int:
        """Let ministry and central bank enact actions, and return the proposal's log index."""
        proposal = self.propose(MINISTRY, *actions)
        assert proposal.code is RejectCode.OK, proposal
        outcome = self.approve(CB, proposal.index)
        assert outcome.code is RejectCode.OK, outcome
        return proposal.index

    def set_licence(self, participant: int, status: LicenceStatus, expiry_ms: int = 0) -> None:
        """Change one licence by governance."""
        self.enact(licence(participant, status, expiry_ms))

    def suspend(self, participant: int) -> None:
        """Suspend one licence by governance."""
        self.set_licence(participant, LicenceStatus.SUSPENDED)

    def rotate_key(self, participant: int) -> None:
        """Register the next key of a participant; from then on it signs with that."""
        generation = self.generation.get(participant, 0) + 1
        key = seeded_key(self.roles[participant][0], generation).public_key().public_bytes_raw()
        subject = {"participant": participant, "public_key": key}
        self.enact(Action(ActionKind.ROTATE_KEY, subject))
        self.generation[participant] = generation

    def pledge(
        self, participant: int, amount: int, asset: int = BTC, actor: int = CB
    ) -> ledger.Outcome:
        """Record liquidity on the agent's word."""
        values = {"participant": participant, "asset": asset, "amount_units": amount}
        return self.give(Kind.SET_LIQUIDITY, actor, ins.LIQUIDITY_LAYOUT.encode(**values))

    def affirmed(self, submitter: int, other: int, *records: bytes) -> int:
        """Submit, let the other party affirm all, and return the log index."""
        index = self.submit(submitter, *records)
        outcome = self.affirm(other, index)
        assert outcome.code is RejectCode.OK, outcome
        return index

    def item_states(self, submission: int) -> ItemStates:
        """Return where the items of a submission stand."""
        return ItemStates.decode(self.store.get(Table.SUBMISSIONS, key_u64(submission)))

    def states(self, submission: int) -> list[ObligationState]:
        """Return the state of each item of a submission."""
        return [ObligationState(state) for state in self.item_states(submission).states.tolist()]

    def position(self, participant: int, asset: int = BTC) -> Position:
        """Return a position; an untouched one is all zero."""
        row = self.store.get(Table.POSITIONS, key_position(participant, asset))
        return Position(participant, asset) if row is None else Position.decode(row)

    def positions(self) -> list[Position]:
        """Return every position there is."""
        return [Position.decode(row) for _, row in self.store.scan(Table.POSITIONS)]

    def cycle(self, number: int) -> Cycle:
        """Return a cycle."""
        return Cycle.decode(self.store.get(Table.CYCLES, key_u32(number)))

    def results_of(self, cycle: int) -> list[AssetResult]:
        """Return the results of a cycle, asset by asset."""
        rows = self.store.scan(Table.CYCLE_RESULTS, key_u32(cycle))
        return [AssetResult.decode(row) for _, row in rows]

    def instructions(self, cycle: int) -> list[SettlementInstruction]:
        """Return the settlement instructions of a cycle by number."""
        rows = self.store.scan(Table.SETTLEMENTS, key_u32(cycle))
        return [SettlementInstruction.decode(row) for _, row in rows]

    def proposal(self, index: int) -> Proposal:
        """Return a proposal."""
        return Proposal.decode(self.store.get(Table.PROPOSALS, key_u64(index)))

    def watch(self) -> Watched:
        """Have what the ledger reads from now on remembered."""
        self.state.reader = Watched(self.store)
        return self.state.reader

    def reload(self) -> None:
        """Forget everything in memory and start from the store, as after a restart."""
        self.state = State.load(self.store)

    def leaves(self) -> list[LeafKind]:
        """Return the kinds of all leaves but SEALs, in order."""
        entries = (entry for result in self.results for entry in result.entries)
        kinds = [leaf_kind(entry.leaf) for entry in entries]
        return [kind for kind in kinds if kind is not LeafKind.SEAL]

    def rows(self) -> dict[str, list[tuple[bytes, bytes]]]:
        """Return every row of every table."""
        return {table: list(self.store.scan(table)) for table in Table}


def licence(participant: int, status: LicenceStatus, expiry_ms: int = 0) -> Action:
    """Return the action that sets a licence."""
    subject = {
        "participant": participant,
        "status": status,
        "licence_no": f"L-{participant:04d}",
        "licence_expiry_ms": expiry_ms,
    }
    return Action(ActionKind.SET_LICENCE, subject)


def dump(state: State) -> dict[str, Any]:
    """Return all that a state holds as plain values that compare."""
    return {
        "height": state.height,
        "time_ms": state.time_ms,
        "open_items": state.open_items,
        "open_items_of": dict(sorted(state.open_items_of.items())),
        "open_submissions_of": dict(sorted(state.open_submissions_of.items())),
        "last_cycle": state.last_cycle,
        "network_id": state.network_id,
        "log": (state.log.size, state.log.edges),
        "registry": state.registry,
        "state_root": state.state_root,
        "tree": (state.tree.participants, state.tree.assets),
        "cycles": {number: cycle.encode() for number, cycle in state.cycles.items()},
        "open": [
            (index, each.index, each.secret, each.states.encode(), _columns(each.chunk))
            for index, each in state.open.items()
        ],
        "waiting": sorted(state.waiting),
        "expiries": list(state.expiries),
    }


def _columns(chunk: Any) -> list[Any]:
    values = [getattr(chunk, name) for name in chunk.__slots__]
    return [value if isinstance(value, tuple | None) else value.tolist() for value in values]


def tampered(transaction: Transaction, offset: int) -> Transaction:
    """Return the transaction with one bit of `leaf || body` flipped; the offset may count from the end."""
    data = bytearray(transaction.encode())
    data[offset] ^= 1
    return type(transaction).decode(bytes(data))


def signed(
    net: Core, actor: int, kind: Kind, payload: bytes, client_id: bytes | None = None
) -> ins.Instruction:
    """Sign an instruction, also as somebody who is not registered."""
    return ins.make_instruction(
        network_id=net.state.network_id,
        kind=kind,
        actor=actor,
        client_id=client_id or net.fresh("client", 16),
        salt=net.fresh("salt", 16),
        payload=payload,
        sign=(seeded_key("nobody") if actor == NOBODY else net.key(actor)).sign,
    )


def selection(
    net: Core, actor: int, submission: int, *ranges: tuple[int, int], kind: Kind = Kind.AFFIRM
) -> Transaction:
    """Affirm, reject or rescind items."""
    return signed(net, actor, kind, ins.ItemSelection(submission, ranges).encode())


def reference(net: Core, kind: Kind, actor: int, cycle: int, number: int) -> Transaction:
    """Move a settlement instruction."""
    if kind is Kind.EVIDENCE:
        payload = ins.EVIDENCE_LAYOUT.encode(cycle=cycle, number=number, evidence_hash=bytes(32))
    else:
        payload = ins.REFERENCE_LAYOUT.encode(cycle=cycle, number=number)
    return signed(net, actor, kind, payload)


def proposing(net: Core, *actions: Action, actor: int = MINISTRY) -> Transaction:
    """Propose actions."""
    return signed(net, actor, Kind.PROPOSE, encode_actions(actions))


def approving(net: Core, actor: int, proposal: int) -> Transaction:
    """Approve a proposal."""
    return signed(net, actor, Kind.APPROVE, ins.APPROVAL_LAYOUT.encode(proposal=proposal))


def netted(net: Core) -> None:
    """Run cycle 1 over one obligation: instruction 0 is P01's pay-in, 1 is P02's pay-out."""
    net.affirmed(P01, P02, item(P01, P02, 5))
    assert net.run_cycle().code is RejectCode.OK
