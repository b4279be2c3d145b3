"""The store contract: what the core asks of whoever keeps its rows.

Lives here: the tables by name and key, a row, the hash over a block's rows, and the read side as a Protocol. May not live here: an implementation
(node/store keeps rows in LMDB; clearing/memory.py in dicts), or the meaning of a value (rules/).

Invariants: keys are big-endian so that byte order is numeric order; a block's rows are written in one transaction
together with its leaves and bodies, or not at all; a Reader shows committed blocks only.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class Table(enum.StrEnum):
    """Tables of the ledger's state; key layout in the comment. Every one can be rebuilt from the log by replay."""

    META = "meta"  # ascii name
    PARAMETERS = "parameters"  # ascii name
    PARTICIPANTS = "participants"  # participant u32
    ASSETS = "assets"  # asset u16
    PROPOSALS = "proposals"  # log index u64
    REQUESTS = "requests"  # actor u32, client id 16 bytes
    SUBMISSIONS = "submissions"  # log index u64: state of each item
    OPEN = "open"  # log index u64: the submission has items that may still move
    PARTIES = "parties"  # participant u32, log index u64: submissions that name the participant
    POSITIONS = "positions"  # participant u32, asset u16
    CYCLES = "cycles"  # cycle u32
    CYCLE_MEMBERS = "cycle_members"  # cycle u32, log index u64: submissions with items in the cycle
    CYCLE_RESULTS = "cycle_results"  # cycle u32, asset u16: result columns of one asset
    CYCLE_UNSETTLED = "cycle_unsettled"  # cycle u32, asset u16, log index u64: why items stayed
    CYCLE_REMAINDERS = (
        "cycle_remainders"  # cycle u32, log index u64: what a running cycle will leave of items
    )
    SETTLEMENTS = "settlements"  # cycle u32, number u32
    ANCHORS = "anchors"  # participant u32, number u32: anchors of a participant's node
    LEGS = "legs"  # cycle u32: the cycle's Bitcoin leg
    LEG_COINS = "leg_coins"  # cycle u32, participant u32: the coins a payer brings
    SCRIPTS = "scripts"  # participant u32, asset u16, 2^64 - 1 less log index u64: settlement script from there on
    COINS = "coins"  # use 1 byte, outpoint 36 bytes: leg or declaration that holds the coin
    BITCOIN_HEADERS = "bitcoin_headers"  # block hash 32 bytes: height, work, header
    BITCOIN_CHAIN = "bitcoin_chain"  # height u32: block hash in the best chain
    BATCHES = "batches"  # participant u32, log index u64: declared mined coin
    DRAWS = "draws"  # log index u64, item u32: what an obligation drew on mined coin
    UNSETTLED = (
        "unsettled"  # cycle u32: the cycle, or a settlement instruction of it, may still move
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One write: `value` replaces what stood under `key`; None deletes it."""

    table: Table
    key: bytes
    value: bytes | None


def changes_hash(rows: tuple[Row, ...]) -> bytes:
    """Return the SHA-256 over rows in order: table name, key and value, each with its length; META rows left out."""
    digest = hashlib.sha256(b"clearing/changes/v1\0")
    for row in rows:
        if row.table is Table.META:
            continue
        value = b"\0" if row.value is None else b"\1" + row.value
        for part in (row.table.encode(), row.key, value):
            digest.update(len(part).to_bytes(4, "little") + part)
    return digest.digest()


class Reader(Protocol):
    """Read access to the committed rows and bodies at one height."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order: keys with `prefix`, not before `start`."""

    def leaf(self, index: int) -> bytes:
        """Return the log leaf at `index`. Raises: KeyError: there is none."""

    def body(self, index: int) -> bytes | None:
        """Return the body that belongs to the leaf at `index`, or None where it is withheld or has none."""


class NoRows:
    """The Reader of a store that holds nothing: what genesis starts from."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return None."""
        del table, key
        return None

    def scan(
        self, table: Table, prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield nothing."""
        del table, prefix, start
        return iter(())

    def leaf(self, index: int) -> bytes:
        """Raise KeyError."""
        raise KeyError(index)

    def body(self, index: int) -> bytes | None:
        """Return None."""
        del index
        return None


def key_u32(*numbers: int) -> bytes:
    """Return the numbers as big-endian u32, one after the other."""
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def key_u64(number: int) -> bytes:
    """Return `number` as big-endian u64."""
    return number.to_bytes(8, "big")


def key_position(participant: int, asset: int) -> bytes:
    """Return the key of one position."""
    return participant.to_bytes(4, "big") + asset.to_bytes(2, "big")


def key_script(participant: int, asset: int, index: int) -> bytes:
    """Return the key of the settlement script registered at log index `index`: the newest comes first in a scan."""
    return key_position(participant, asset) + key_u64((1 << 64) - 1 - index)


def key_party(participant: int, submission: int) -> bytes:
    """Return the key that says: this submission names this participant."""
    return participant.to_bytes(4, "big") + submission.to_bytes(8, "big")


def key_request(actor: int, client_id: bytes) -> bytes:
    """Return the key of a request's first answer."""
    return actor.to_bytes(4, "big") + client_id


def key_result(cycle: int, asset: int) -> bytes:
    """Return the key of one asset's results in one cycle."""
    return cycle.to_bytes(4, "big") + asset.to_bytes(2, "big")
