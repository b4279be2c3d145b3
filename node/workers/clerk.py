"""What this node reports from outside the ledger, as signed instructions.

Lives here: Clerk, the only user of the node's instruction key. May not live here: what is reported and when (the other
workers), what follows from it (the core).

Invariant: one statement has one form. Client id and salt come from the content and a secret of this key, so a worker that
was killed after it spoke says the same bytes again and gets the ledger's first answer, and nobody without the secret can
guess a statement from its commitment.
Source: own design; the derivation is HMAC-SHA-256 (RFC 2104) under a key that is a deterministic Ed25519 signature.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Protocol

from clearing.ledger import Outcome
from clearing.records.instruction import Instruction, InstructionKind, make_instruction
from clearing.records.transaction import Transaction
from clearing.rules.registry import Registry
from node.errors import SetupError
from node.keys import MessageSigner

_SECRET_DOMAIN = b"clearing/clerk-secret/v1\0"


class Ordering(Protocol):
    """The part of a node's ledger that a clerk needs."""

    @property
    def network_id(self) -> bytes:
        """The leaf hash of leaf 0, 32 bytes."""

    @property
    def registry(self) -> Registry:
        """The registers after the newest block applied here."""

    async def submit(self, transaction: Transaction) -> Outcome:
        """Order one transaction and return what became of it, after its block is durable."""


class Clerk:
    """Signs and submits a node's statements in the name of the participant that runs it."""

    def __init__(
        self, signer: MessageSigner, participant: str, ledger: Callable[[], Ordering]
    ) -> None:
        """Speak for `participant`, by its name in the register; `ledger` returns this node's member."""
        self._signer = signer
        self._participant = participant
        self._ledger = ledger
        # Never signed for anything else: the domain is no instruction's.
        self._secret = hashlib.sha256(signer.sign(_SECRET_DOMAIN)).digest()

    @property
    def public_key(self) -> bytes:
        """The 32-byte key that the register must hold as the participant's node key."""
        return self._signer.public_key

    def instruction(self, kind: InstructionKind, payload: bytes) -> Instruction:
        """Return the one signed instruction that says `payload`.

        Raises: SetupError: the participant is not registered here yet; DecodeError: the payload is too long.
        """
        ledger = self._ledger()
        actor = ledger.registry.by_name(self._participant)
        if actor is None:
            raise SetupError(
                f"no participant called {self._participant} is registered: register it, then the node reports"
            )
        content = bytes([kind]) + payload
        digest = hmac.digest(self._secret, ledger.network_id + content, "sha256")
        return make_instruction(
            network_id=ledger.network_id,
            kind=kind,
            actor=actor,
            client_id=digest[:16],
            salt=digest[16:],
            payload=payload,
            sign=self._signer.sign,
        )

    def may_speak(self) -> bool:
        """Return whether the register holds this node's key, so that the ledger will listen."""
        registry = self._ledger().registry
        number = registry.by_name(self._participant)
        return number is not None and registry.participants[number].node_key == self.public_key

    async def state(self, kind: InstructionKind, payload: bytes) -> Outcome:
        """Submit a statement and return what became of it; repeated, the first answer.

        Raises: SetupError, DecodeError: as `instruction`; NotLeaderError, BusyError, NotServingError: nothing was
        recorded; OutcomeUnknownError: perhaps it was, state it again.
        """
        return await self._ledger().submit(self.instruction(kind, payload))
