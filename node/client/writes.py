"""Signing and recording: submissions and instructions of one participant.

Lives here: Obligation as a client writes it down, Recorded, and the operations that record. May not live here: rules,
layouts (clearing.records), reading.

Invariants: a transaction is in the outbox before it is sent and leaves it when its fate is known; client ids, secrets
and salts are fresh from the system's random source.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from clearing.errors import DecodeError
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.instruction import (
    APPROVAL_LAYOUT,
    EVIDENCE_LAYOUT,
    LIQUIDITY_LAYOUT,
    REFERENCE_LAYOUT,
    InstructionKind,
    ItemSelection,
    make_instruction,
)
from clearing.records.obligation import (
    ITEM_BYTES,
    ITEM_VERSION,
    MINED_COIN,
    SALT_BYTES,
    SECRET_BYTES,
    encode_item,
)
from clearing.records.submission import LEAF_BYTES, Submission, make_submission
from clearing.records.transaction import Transaction
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, Registry
from clearing.types import ObligationKind
from node.client.calls import Call, Operation
from node.client.errors import ClientError, OutcomeUnknownError, RejectedError
from node.client.outbox import Outbox
from node.client.trust import PARTICIPANT, Trust
from node.errors import SetupError
from node.pb.v1 import participant_pb2, types_pb2

CLIENT_ID_BYTES = 16
_NO_HASH = bytes(32)


class MessageSigner(Protocol):
    """Signs with the participant's registered Ed25519 key."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""


@dataclass(frozen=True, slots=True)
class Obligation:
    """One obligation as a client writes it down.

    debtor, creditor: name or LEI of a registered participant; asset: its registered name. amount_units: in the asset's
    smallest unit. due_ms: block time at which it lapses unaffirmed, 0 for never. priority: 0 to 255, higher is paid
    first. The two hashes: SHA-256 of documents that stay with the parties, zero for none. mined_coin: the debtor, a miner,
    pays it with coin that it declared as mined.
    """

    debtor: str
    creditor: str
    asset: str
    amount_units: int
    kind: ObligationKind = ObligationKind.TRADE
    priority: int = 0
    due_ms: int = 0
    trade_ref_hash: bytes = _NO_HASH
    compliance_ref_hash: bytes = _NO_HASH
    mined_coin: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a transaction is recorded: its log index, which with an item number names an obligation for ever.

    items: obligations in the submission, 0 for an instruction. is_final: already covered by a quorum checkpoint.
    repeated: it was recorded by an earlier send.
    """

    client_id: bytes
    index: int
    items: int
    is_final: bool = False
    repeated: bool = False


class Writer:
    """Operations that record; one participant's key signs."""

    def __init__(
        self, trust: Trust, lei: str, outbox: Outbox, signer: Callable[[], MessageSigner]
    ) -> None:
        """Write for the participant with `lei`; `signer` is asked for the key at the first signature."""
        self._trust = trust
        self._lei = lei
        self._outbox = outbox
        self._signer = signer
        self._registry: Registry | None = None

    def registry(self, *, fresh: bool = False) -> Operation[Registry]:
        """Return the registers, fetched once or when `fresh` is asked for."""
        if self._registry is None or fresh:
            self._registry = yield from self._trust.registry()
        return self._registry

    def number(self) -> Operation[int]:
        """Return this participant's registry number.

        Raises: SetupError: it is not registered.
        """
        registry = yield from self.registry()
        number = registry.by_lei(self._lei)
        if number is None:
            raise SetupError(f"LEI {self._lei} is not registered in this network: ask the ministry")
        return number

    def prepare(
        self, obligations: bytes | Iterable[Obligation]
    ) -> Operation[tuple[Submission, ...]]:
        """Sign obligations, records of 102 bytes each or `Obligation`s, as submissions of at most 50,000 items.

        Of fewer where the network takes smaller transactions. Nothing is sent.

        Raises: DecodeError: a name is not registered or a value does not fit, with the obligation's place, or there is none.
        """
        records = obligations
        if not isinstance(records, bytes):
            records = yield from self._encoded(records)
        number = yield from self.number()
        seen = yield from self._trust.ready()
        step = self._items_max() * ITEM_BYTES
        return tuple(
            make_submission(
                network_id=seen.network_id,
                submitter=number,
                client_id=secrets.token_bytes(CLIENT_ID_BYTES),
                secret=secrets.token_bytes(SECRET_BYTES),
                records=records[start : start + step],
                sign=self._signer().sign,
            )
            for start in range(0, max(len(records), 1), step)
        )

    def _items_max(self) -> int:
        """Return how many items one submission may have: what the format takes, or the network less."""
        bytes_max = self._trust.transaction_bytes_max
        if not bytes_max:
            return ITEMS_PER_SUBMISSION_MAX
        room = (bytes_max - LEAF_BYTES - SECRET_BYTES) // ITEM_BYTES
        return min(max(room, 1), ITEMS_PER_SUBMISSION_MAX)

    def _encoded(self, obligations: Iterable[Obligation]) -> Operation[bytes]:
        registry = yield from self.registry()
        participants = {party.name: n for n, party in enumerate(registry.participants)}
        participants |= {party.lei: n for n, party in enumerate(registry.participants)}
        assets = {asset.name: n for n, asset in enumerate(registry.assets)}
        records = []
        for place, obligation in enumerate(obligations):
            if not isinstance(obligation, Obligation):
                raise DecodeError(f"obligation {place}: give an Obligation, got {obligation!r:.80}")
            try:
                records.append(_record_of(obligation, participants, assets))
            except DecodeError as error:
                raise DecodeError(f"obligation {place}: {error}") from error
        return b"".join(records)

    def submit(self, obligations: bytes | Iterable[Obligation]) -> Operation[tuple[Recorded, ...]]:
        """Sign and record obligations, in submissions as `prepare` makes them, each whole or not at all.

        When it returns, all are recorded.

        Raises: as `prepare` and `send`; the error's `recorded` says what was recorded before.
        """
        submissions = yield from self.prepare(obligations)
        recorded: list[Recorded] = []
        for submission in submissions:
            try:
                recorded.append((yield from self.send(submission)))
            except ClientError as error:
                error.recorded = tuple(recorded)
                raise
        return tuple(recorded)

    def send(self, transaction: Transaction) -> Operation[Recorded]:
        """Record a signed transaction.

        Raises: RejectedError, UnavailableError and other CallErrors: definite, it is not recorded.
            OutcomeUnknownError: perhaps; it stays in the outbox.
        """
        is_submission = isinstance(transaction, Submission)
        request_type = (
            participant_pb2.SubmitRequest if is_submission else participant_pb2.InstructRequest
        )
        answer_type = (
            participant_pb2.SubmitResponse if is_submission else participant_pb2.InstructResponse
        )
        method = "Submit" if is_submission else "Instruct"
        request = request_type(transaction=transaction.encode())
        self._outbox.put(transaction)
        try:
            answer = yield Call(
                f"{PARTICIPANT}{method}", request, answer_type, transaction.client_id
            )
        except OutcomeUnknownError:
            raise
        except ClientError:
            self._outbox.remove(transaction.client_id)
            raise
        self._outbox.remove(transaction.client_id)
        return _recorded(transaction.client_id, answer.receipt)

    def resume(self) -> Operation[tuple[Recorded | RejectedError, ...]]:
        """Send what an earlier session left in the outbox; each is recorded once, or its refusal is returned.

        Raises: ClientError: a fate is still unknown; what is left stays in the outbox.
        """
        fates: list[Recorded | RejectedError] = []
        for transaction in self._outbox.pending():
            try:
                fates.append((yield from self.send(transaction)))
            except RejectedError as error:
                fates.append(error)
        return tuple(fates)

    def request(self, client_id: bytes) -> Operation[Recorded | None]:
        """Return what became of a transaction of this participant, or None where none is recorded."""
        answer = yield Call(
            f"{PARTICIPANT}GetRequest",
            participant_pb2.GetRequestRequest(client_id=client_id),
            participant_pb2.GetRequestResponse,
        )
        if answer.receipt.state == types_pb2.REQUEST_STATE_UNKNOWN:
            return None
        return _recorded(client_id, answer.receipt)

    def instruct(self, kind: InstructionKind, payload: bytes = b"") -> Operation[Recorded]:
        """Sign and record one instruction. Raises: as `send`."""
        number = yield from self.number()
        seen = yield from self._trust.ready()
        instruction = make_instruction(
            network_id=seen.network_id,
            kind=kind,
            actor=number,
            client_id=secrets.token_bytes(CLIENT_ID_BYTES),
            salt=secrets.token_bytes(SALT_BYTES),
            payload=payload,
            sign=self._signer().sign,
        )
        return (yield from self.send(instruction))

    def select(
        self, kind: InstructionKind, submission: int, ranges: Sequence[tuple[int, int]]
    ) -> Operation[Recorded]:
        """Affirm, reject or rescind items of a submission: inclusive ranges, none for all that apply.

        Raises: DecodeError: the ranges do not ascend, or overlap.
        """
        payload = ItemSelection(submission, tuple(ranges)).encode()
        # A node would only say that the payload is malformed.
        ItemSelection.decode(payload)
        return self.instruct(kind, payload)

    def evidence(self, cycle: int, number: int, evidence_hash: bytes) -> Operation[Recorded]:
        """Show the SHA-256 of the evidence of payment for a settlement instruction."""
        payload = EVIDENCE_LAYOUT.encode(cycle=cycle, number=number, evidence_hash=evidence_hash)
        return self.instruct(InstructionKind.EVIDENCE, payload)

    def settle(self, kind: InstructionKind, cycle: int, number: int) -> Operation[Recorded]:
        """Confirm or fail a settlement instruction."""
        return self.instruct(kind, REFERENCE_LAYOUT.encode(cycle=cycle, number=number))

    def pledge(self, participant: str, asset: str, amount_units: int) -> Operation[Recorded]:
        """Set the liquidity that a participant has pledged with the settlement agent, who gives this instruction."""
        registry = yield from self.registry()
        names = {party.name: n for n, party in enumerate(registry.participants)}
        names |= {party.lei: n for n, party in enumerate(registry.participants)}
        assets = {one.name: n for n, one in enumerate(registry.assets)}
        payload = LIQUIDITY_LAYOUT.encode(
            participant=_number_of(names, participant, "participant"),
            asset=_number_of(assets, asset, "asset"),
            amount_units=amount_units,
        )
        return (yield from self.instruct(InstructionKind.SET_LIQUIDITY, payload))

    def propose(self, actions: Sequence[Action]) -> Operation[Recorded]:
        """Put governance actions before the governors."""
        return self.instruct(InstructionKind.PROPOSE, encode_actions(actions))

    def approve(self, proposal: int) -> Operation[Recorded]:
        """Approve the proposal at a log index."""
        return self.instruct(InstructionKind.APPROVE, APPROVAL_LAYOUT.encode(proposal=proposal))


def _record_of(
    obligation: Obligation, participants: dict[str, int], assets: dict[str, int]
) -> bytes:
    return encode_item(
        version=ITEM_VERSION,
        kind=obligation.kind,
        flags=MINED_COIN if obligation.mined_coin else 0,
        priority=obligation.priority,
        debtor=_number_of(participants, obligation.debtor, "participant"),
        creditor=_number_of(participants, obligation.creditor, "participant"),
        asset=_number_of(assets, obligation.asset, "asset"),
        due_ms=obligation.due_ms,
        amount_units=obligation.amount_units,
        trade_ref_hash=obligation.trade_ref_hash,
        compliance_ref_hash=obligation.compliance_ref_hash,
    )


def _number_of(numbers: dict[str, int], name: str, what: str) -> int:
    number = numbers.get(name)
    if number is None:
        raise DecodeError(f"no {what} {name!r:.80} is registered")
    return number


def _recorded(client_id: bytes, receipt: participant_pb2.Receipt) -> Recorded:
    is_final = receipt.state == types_pb2.REQUEST_STATE_CHECKPOINTED
    return Recorded(client_id, receipt.log_index, receipt.items, is_final, receipt.repeated)
