"""The registers as a witness knows them: folded from genesis and governance, which are public.

Lives here: PublicRegisters. May not live here: rules (clearing.rules), whether a governance
instruction was rightly accepted (a full replica's work: what is in the log was accepted).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clearing.errors import DecodeError, RejectCode
from clearing.records.instruction import APPROVAL_LAYOUT, Instruction, InstructionKind
from clearing.records.leaves import GenesisLeaf, LeafKind, MisbehaviourLeaf, SealLeaf, leaf_kind
from clearing.rules.governance import GENESIS_ACTIONS_MAX, Proposal, decode_actions, resolve
from clearing.rules.registry import Action, Registry
from clearing.rules.validators import decode_validators
from node.store import Record, Store
from node.store.tables import Database, number_of


class PublicRegisters:
    """The registers after the blocks taken so far, in order."""

    def __init__(self) -> None:
        """Start before genesis."""
        self.registry = Registry()
        self._proposals: dict[int, tuple[Proposal, tuple[Action, ...]]] = {}

    @classmethod
    def load(cls, store: Store) -> PublicRegisters:
        """Return the registers after all blocks of a witness's store.

        Raises: DecodeError: a public body is not what its leaf says.
        """
        registers = cls()
        with store.snapshot() as view:
            for key, _ in view.items(Database.PUBLIC):
                index = number_of(key)
                end = view.block_range(view.height_of(index))[1]
                time_ms = SealLeaf.decode(view.leaf(end - 1)).time_ms
                registers._take(index, view.records(index, index + 1)[0], time_ms)
        return registers

    def take_block(self, first_index: int, records: Sequence[Record], time_ms: int) -> None:
        """Take the leaves of the next block, of time `time_ms`.

        Raises: DecodeError: a public body is not what its leaf says.
        """
        for index, record in enumerate(records, first_index):
            if record.public:
                self._take(index, record, time_ms)

    def _take(self, index: int, record: Record, time_ms: int) -> None:
        kind = leaf_kind(record.leaf)
        if kind is LeafKind.GENESIS:
            GenesisLeaf.decode(record.leaf)
            self._enact(decode_actions(record.body, GENESIS_ACTIONS_MAX), time_ms)
            return
        if kind is LeafKind.VALIDATORS:
            self.registry = replace(self.registry, validators=decode_validators(record.body))
            return
        if kind is LeafKind.MISBEHAVIOUR:
            leaf = MisbehaviourLeaf.decode(record.leaf)
            self.registry = self.registry.with_suspended(leaf.participant)
            return
        instruction = Instruction.decode(record.leaf + record.body)
        if instruction.kind is InstructionKind.PROPOSE:
            proposal = Proposal(time_ms, enacted=False, approvals=(instruction.actor,))
            self._proposals[index] = proposal, decode_actions(instruction.payload)
            self._tally(index, time_ms)
        elif instruction.kind is InstructionKind.APPROVE:
            number = APPROVAL_LAYOUT.decode(instruction.payload)["proposal"]
            if number not in self._proposals:
                raise DecodeError(
                    f"leaf {index} approves proposal {number}, which is not in the log"
                )
            proposal, actions = self._proposals[number]
            approvals = (*proposal.approvals, instruction.actor)
            self._proposals[number] = replace(proposal, approvals=approvals), actions
            self._tally(number, time_ms)

    def _tally(self, number: int, time_ms: int) -> None:
        proposal, actions = self._proposals[number]
        if proposal.is_carried(self.registry, time_ms):
            self._enact(actions, time_ms)
            del self._proposals[number]

    def _enact(self, actions: tuple[Action, ...], time_ms: int) -> None:
        registry, _, code = resolve(self.registry, actions, time_ms)
        if code is not RejectCode.OK:
            raise DecodeError(f"the log enacts actions that are refused as {code.name}")
        self.registry = registry
