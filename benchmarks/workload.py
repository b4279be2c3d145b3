"""Synthetic networks and obligations for the ledger's benchmarks: seeded, the same in every run.

Lives here: registers, keys, records and signed transactions. May not live here: timing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing.identifiers import make_lei
from clearing.params import Parameters
from clearing.records.instruction import (
    Instruction,
    InstructionKind,
    ItemSelection,
    make_instruction,
)
from clearing.records.obligation import DTYPE
from clearing.records.submission import Submission, make_submission
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Asset, Participant
from clearing.types import LicenceStatus, NettingMethod, ObligationKind, Role

CENTRAL_BANK, MINISTRY, FIRST_BANK = 0, 1, 2
GENESIS_MS = 1_700_000_000_000
_ASSETS = (
    ("BTC", "bip122:000000000019d6689c085ae165831e93/slip44:0", "4H95J0R2X", 8),
    ("ETH", "eip155:1/slip44:60", "X9J9K872S", 18),
    ("USDT", "eip155:1/erc20:0xdac17f958d2ee523a2206206994597c13d831ec7", "", 6),
)


def key_of(number: int) -> Ed25519PrivateKey:
    """Return the signing key of participant `number`."""
    seed = hashlib.sha256(f"benchmark key {number}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def role_of(number: int) -> Role:
    """Return the role of participant `number`: central bank, ministry, then banks."""
    return {CENTRAL_BANK: Role.CENTRAL_BANK, MINISTRY: Role.MINISTRY}.get(number, Role.BANK)


def register(participants: int, assets: int = 3) -> bytes:
    """Return the genesis actions of a network with so many participants and assets."""
    actions = [
        Action(
            ActionKind.ADD_PARTICIPANT,
            Participant(
                name=f"n{number:06d}",
                lei=make_lei(f"BNCH{number:014d}"),
                role=role_of(number),
                status=LicenceStatus.ACTIVE,
                public_key=key_of(number).public_key().public_bytes_raw(),
                licence_no=f"L{number}",
                licence_expiry_ms=0,
            ),
        )
        for number in range(participants)
    ]
    for number in range(assets):
        name, caip19, dti, scale = (
            _ASSETS[number]
            if number < len(_ASSETS)
            else (f"T{number:03d}", f"eip155:1/erc20:0x{number:040x}", "", 18)
        )
        asset = Asset(name, caip19, dti, scale, NettingMethod.POSITIONS)
        actions.append(Action(ActionKind.ADD_ASSET, asset))
    actions.append(Action(ActionKind.SET_PARAMETERS, Parameters()))
    actions.append(Action(ActionKind.SET_TIMETABLE, ()))
    return encode_actions(actions)


def records(
    rng: np.random.Generator,
    count: int,
    submitter: int,
    participants: int,
    assets: int,
    *,
    first_bank: int = FIRST_BANK,
) -> bytes:
    """Return `count` obligations of `submitter` towards random banks, in random assets and amounts.

    Registry numbers first_bank to participants - 1 are banks, the submitter among them.
    """
    rows = np.zeros(count, dtype=DTYPE)
    others = rng.integers(first_bank, participants - 1, count)
    others += others >= submitter
    owes = rng.integers(0, 2, count).astype(bool)
    rows["version"] = 1
    rows["kind"] = ObligationKind.TRADE
    rows["debtor"] = np.where(owes, submitter, others)
    rows["creditor"] = np.where(owes, others, submitter)
    rows["asset"] = rng.integers(0, assets, count)
    rows["amount_lo"] = rng.integers(1, 1 << 40, count)
    rows["trade_ref_hash"] = rng.bytes(32)
    return rows.tobytes()


@dataclass(slots=True)
class Author:
    """Makes signed transactions, each with an id and salts of its own; signs as `sign_as`, or with the benchmark's keys."""

    network_id: bytes
    sign_as: Callable[[bytes], bytes] | None = None
    prefix: str = ""
    serial: int = 0

    def fresh(self, width: int) -> bytes:
        """Return bytes not returned before."""
        self.serial += 1
        return hashlib.sha256(f"{self.prefix} {self.serial}".encode()).digest()[:width]

    def submission(self, submitter: int, obligations: bytes) -> Submission:
        """Sign one submission."""
        return make_submission(
            network_id=self.network_id,
            submitter=submitter,
            client_id=self.fresh(16),
            secret=self.fresh(32),
            records=obligations,
            sign=self.sign_as or key_of(submitter).sign,
        )

    def instruction(self, kind: InstructionKind, actor: int, payload: bytes = b"") -> Instruction:
        """Sign one instruction."""
        return make_instruction(
            network_id=self.network_id,
            kind=kind,
            actor=actor,
            client_id=self.fresh(16),
            salt=self.fresh(16),
            payload=payload,
            sign=self.sign_as or key_of(actor).sign,
        )

    def affirmation(self, actor: int, submission: int, *ranges: tuple[int, int]) -> Instruction:
        """Sign the affirmation of items of one submission."""
        payload = ItemSelection(submission, ranges).encode()
        return self.instruction(InstructionKind.AFFIRM, actor, payload)
