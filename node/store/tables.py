"""Which databases the store has, how their keys are made, and the node's own records.

Lives here: names, key layouts, key texts for findings, Tip, Head, the guard. May not live here:
transactions, checks.

    database        key                            value
    the Tables of clearing.rows: one each, layouts there; rebuilt from leaves and bodies by replay
    leaves          log index u64                  leaf
    nodes           post-order position u64        32-byte hash of a complete subtree
    bodies          log index u64                  body that only those concerned may see
    public          log index u64                  body that anyone may see
    redacted        log index u64                  commitments and own openings of another's body
    seals           height u64                     log index u64 of the block's SEAL leaf
    ordered         height u64                     height u64 of the consensus engine's block it was made of
    heads           key name                       guarded Head: the last one signed by that key
    checkpoints     size u64                       guarded note: the final checkpoint of that size
    cosignatures    size u64, key id 4 bytes, key name   guarded signature line
    store           "schema", "tip", "counts",     guarded: what this is, how far it has come
                    "ordered"                      in the ledger and in the consensus engine's chain

Invariants: integers are big-endian, so that byte order is numeric order; leaves, nodes, bodies and
seals are appended and never replaced; a body is in one of `bodies` and `public`; values that
nothing else re-derives carry a guard.

Nodes are keyed by post-order position, the order in which subtrees become complete as leaves are
appended: every write of a block goes to the right edge, pages stay full, and an append that is not
new is refused by LMDB itself.
Source: own design; the order is that of Merkle mountain ranges (P. Todd, 2012).
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Self

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError
from clearing.rows import Table

SCHEMA_VERSION = 1
"""Goes up when a key layout or a record of this module changes; others are refused at open."""

GUARD_BYTES = 8
"""Bytes of a guard: against accidents; 64 bits leave one unnoticed alteration in 10^19."""

_GUARD_DOMAIN = b"clearing/store/guard/v1\0"


class Database(enum.StrEnum):
    """LMDB sub-databases beside one for each `Table`."""

    LEAVES = "leaves"
    NODES = "nodes"
    BODIES = "bodies"
    PUBLIC = "public"
    REDACTED = "redacted"
    SEALS = "seals"
    ORDERED = "ordered"
    HEADS = "heads"
    CHECKPOINTS = "checkpoints"
    COSIGNATURES = "cosignatures"
    STORE = "store"


Name = Table | Database
"""Any sub-database."""

ALL: tuple[Name, ...] = (*Table, *Database)
"""Every sub-database of an environment, in a fixed order."""

COUNTED: tuple[Name, ...] = (
    *Table,
    Database.BODIES,
    Database.PUBLIC,
    Database.REDACTED,
    Database.SEALS,
)
"""Databases whose number of records is written down with every block, for the check at start-up."""

KEY_SCHEMA = b"schema"
KEY_TIP = b"tip"
KEY_COUNTS = b"counts"
KEY_ORDERED = b"ordered"

_SCHEMA_LAYOUT = Layout("store schema", uint("version", 4))
_TIP_LAYOUT = Layout(
    "store tip",
    uint("kind", 1),
    reserved(7),
    uint("height", 8),
    uint("time_ms", 8),
    uint("log_size", 8),
    raw("log_root", 32),
    raw("state_root", 32),
)
_HEAD_LAYOUT = Layout("signed head", uint("size", 8), raw("root", 32))
_COUNTS_LAYOUT = Layout("store counts", *(uint(str(name), 8) for name in COUNTED))


class ReplicaKind(enum.IntEnum):
    """What a store holds besides the leaves."""

    FULL = 1  # every body and the state's rows
    WITNESS = 2  # bodies it may see, no rows


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the store stands: the newest block and the log with it.

    height and time_ms (since 1970) of the newest block; log_size and log_root after it; state_root
    of the positions.
    """

    kind: ReplicaKind
    height: int
    time_ms: int
    log_size: int
    log_root: bytes
    state_root: bytes

    def encode(self) -> bytes:
        """Return the canonical 96 bytes."""
        return _TIP_LAYOUT.encode(
            kind=self.kind,
            height=self.height,
            time_ms=self.time_ms,
            log_size=self.log_size,
            log_root=self.log_root,
            state_root=self.state_root,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: not a tip.
        """
        values = _TIP_LAYOUT.decode(data)
        try:
            kind = ReplicaKind(values.pop("kind"))
        except ValueError as error:
            raise DecodeError("unknown kind of replica") from error
        return cls(kind, **values)


@dataclass(frozen=True, slots=True)
class Head:
    """A log head that was signed, or is about to be: number of leaves and 32-byte root."""

    size: int
    root: bytes

    def encode(self) -> bytes:
        """Return the canonical 40 bytes."""
        return _HEAD_LAYOUT.encode(size=self.size, root=self.root)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length.
        """
        return cls(**_HEAD_LAYOUT.decode(data))


def encode_schema() -> bytes:
    """Return the schema record of this program."""
    return _SCHEMA_LAYOUT.encode(version=SCHEMA_VERSION)


def decode_schema(data: bytes) -> int:
    """Return the schema version in a schema record.

    Raises: DecodeError: not a schema record.
    """
    version: int = _SCHEMA_LAYOUT.decode(data)["version"]
    return version


def encode_counts(counts: dict[Name, int]) -> bytes:
    """Return the record of how many entries each COUNTED database has."""
    return _COUNTS_LAYOUT.encode(**{str(name): counts[name] for name in COUNTED})


def decode_counts(data: bytes) -> dict[Name, int]:
    """Return how many entries each COUNTED database had after the newest block.

    Raises: DecodeError: wrong length.
    """
    values = _COUNTS_LAYOUT.decode(data)
    return {name: values[str(name)] for name in COUNTED}


def guarded(name: Name, key: bytes, payload: bytes) -> bytes:
    """Return `payload` with the guard that binds it to its table and key.

    For records that nothing else re-derives. It finds accidents and careless edits; against a
    deliberate one stand the signatures inside the records and the file beside the database.
    """
    return payload + _guard(name, key, payload)


def unguarded(name: Name, key: bytes, value: bytes) -> bytes:
    """Return the payload of a guarded value.

    Raises: DecodeError: the guard does not fit.
    """
    payload, guard = value[:-GUARD_BYTES], value[-GUARD_BYTES:]
    if _guard(name, key, payload) != guard:
        raise DecodeError("the record's bytes do not match its guard")
    return payload


def _guard(name: Name, key: bytes, payload: bytes) -> bytes:
    bound = _GUARD_DOMAIN + name.encode() + b"\0" + len(key).to_bytes(2, "big") + key + payload
    return hashlib.sha256(bound).digest()[:GUARD_BYTES]


def u64(number: int) -> bytes:
    """Return the key of a log index, height, size or position."""
    return number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """Return the number in a u64 key."""
    return int.from_bytes(key, "big")


def node_count(size: int) -> int:
    """Return how many complete subtrees a tree of `size` leaves has, the leaves included."""
    return 2 * size - size.bit_count()


def node_position(level: int, index: int) -> int:
    """Return the post-order position of node (level, index), counted from 0.

    The node becomes complete with its last leaf, after all nodes of the leaves before that one and
    after its own descendants on that leaf's path.
    """
    last_leaf = ((index + 1) << level) - 1
    return node_count(last_leaf) + level


def node_at(position: int) -> tuple[int, int]:
    """Return (level, index) of the node at a post-order position; inverse of `node_position`."""
    low, high = 0, position + 1  # leaves before the node's last leaf: node_count(low) <= position
    while high - low > 1:
        middle = (low + high) // 2
        if node_count(middle) <= position:
            low = middle
        else:
            high = middle
    level = position - node_count(low)
    return level, ((low + 1) >> level) - 1


def cosignature_key(size: int, key_id: bytes, name: str) -> bytes:
    """Return the key of one cosigner's signature on the checkpoint of `size`."""
    return u64(size) + key_id + name.encode()


_Parts = tuple[tuple[str, int], ...]

_LOG_INDEX: _Parts = (("log index", 8),)
_PARTS: dict[Name, _Parts] = {
    Table.PARTICIPANTS: (("participant", 4),),
    Table.ASSETS: (("asset", 2),),
    Table.PROPOSALS: _LOG_INDEX,
    Table.SUBMISSIONS: _LOG_INDEX,
    Table.OPEN: _LOG_INDEX,
    Table.PARTIES: (("participant", 4), ("log index", 8)),
    Table.POSITIONS: (("participant", 4), ("asset", 2)),
    Table.CYCLES: (("cycle", 4),),
    Table.CYCLE_MEMBERS: (("cycle", 4), ("log index", 8)),
    Table.CYCLE_RESULTS: (("cycle", 4), ("asset", 2)),
    Table.CYCLE_UNSETTLED: (("cycle", 4), ("asset", 2), ("log index", 8)),
    Table.CYCLE_REMAINDERS: (("cycle", 4), ("log index", 8)),
    Table.SETTLEMENTS: (("cycle", 4), ("number", 4)),
    Table.LEGS: (("cycle", 4),),
    Table.LEG_COINS: (("cycle", 4), ("participant", 4)),
    Table.SCRIPTS: (("participant", 4), ("asset", 2), ("2^64 - 1 less log index", 8)),
    Table.BITCOIN_CHAIN: (("height", 4),),
    Table.BATCHES: (("miner", 4), ("log index", 8)),
    Table.DRAWS: (("log index", 8), ("item", 4)),
    Table.UNSETTLED: (("cycle", 4),),
    Table.ANCHORS: (("participant", 4), ("number", 4)),
    Database.LEAVES: (("index", 8),),
    Database.BODIES: (("index", 8),),
    Database.PUBLIC: (("index", 8),),
    Database.REDACTED: (("index", 8),),
    Database.SEALS: (("height", 8),),
    Database.ORDERED: (("height", 8),),
    Database.CHECKPOINTS: (("size", 8),),
}
"""Keys that are numbers side by side, with the bytes of each."""

_NAMES: tuple[Name, ...] = (Table.META, Table.PARAMETERS, Database.HEADS, Database.STORE)


def key_text(name: Name, key: bytes) -> str:
    """Return a key in words for findings; hex where it does not have its table's form."""
    if name in _NAMES:
        return key.decode(errors="backslashreplace")
    if name is Table.REQUESTS and len(key) == 20:
        return f"actor {number_of(key[:4])}, client id {key[4:].hex()}"
    if name is Database.NODES and len(key) == 8:
        level, index = node_at(number_of(key))
        return f"level {level} index {index}"
    if name is Database.COSIGNATURES and len(key) > 12:
        key_name = key[12:].decode(errors="replace")
        return f"size {number_of(key[:8])}, {key_name}+{key[8:12].hex()}"
    parts = _PARTS.get(name, ())
    if not parts or len(key) != sum(width for _, width in parts):
        return f"0x{key.hex()}"
    texts, start = [], 0
    for what, width in parts:
        texts.append(f"{what} {number_of(key[start : start + width])}")
        start += width
    return ", ".join(texts)
