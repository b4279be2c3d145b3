"""What a receipt and a position proof carry beside the log's own proof: canonical records for a tlog-proof's `extra`.

Lives here: the two records and their bytes. May not live here: making or verifying them (clearing/receipt.py,
clearing/position_proof.py), the proof around them (log/proof.py).

`extra` is not authenticated by the log's proof; each field of these records is checked by a hash, and says which:
the leaf by the log's inclusion proof, the opening by the signed commitment in the leaf, the network id by an
inclusion proof of leaf 0, whose leaf hash it is.

A record is a head of fixed width followed by its parts, whose lengths the head gives; hashes of audit paths stand
leaf's sibling first. Source: own design.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError
from clearing.log.merkle import HASH_BYTES
from clearing.params import ITEMS_PER_SUBMISSION_MAX, LEAF_BYTES_MAX, PAYLOAD_BYTES_MAX
from clearing.records.obligation import SALT_BYTES

RECORD_VERSION = 1
LOG_PATH_HASHES_MAX = 64
ITEM_PATH_HASHES_MAX = (ITEMS_PER_SUBMISSION_MAX - 1).bit_length()
REGISTER_PATH_HASHES_MAX = 32
OPENING_BYTES_MAX = SALT_BYTES + PAYLOAD_BYTES_MAX


class RecordKind(enum.IntEnum):
    """Which record it is; the second byte."""

    RECEIPT = 1
    POSITION = 2


class Opened(enum.IntEnum):
    """What a receipt's opening opens."""

    NOTHING = 0
    ITEM = 1
    PAYLOAD = 2


RECEIPT_LAYOUT = Layout(
    "receipt record",
    uint("version", 1),
    uint("kind", 1),
    uint("opened", 1),
    uint("genesis_path_hashes", 1),
    uint("item_path_hashes", 1),
    reserved(3),
    uint("leaf_bytes", 4),
    uint("opening_bytes", 4),
    uint("item", 4),
    reserved(4),
    raw("network_id", 32),
)
"""Followed by: leaf, opening, item path, genesis path."""

POSITION_LAYOUT = Layout(
    "position record",
    uint("version", 1),
    uint("kind", 1),
    uint("has_positions", 1),
    uint("genesis_path_hashes", 1),
    uint("inner_path_hashes", 1),
    uint("outer_path_hashes", 1),
    uint("asset", 2),
    uint("participant", 4),
    uint("leaf_bytes", 4),
    uint("position_bytes", 4),
    reserved(4),
    raw("network_id", 32),
)
"""Followed by: SEAL leaf, position (none when absent), inner path, outer path, genesis path."""


class _Parts:
    """Cuts the parts behind a head, in order, and refuses what is left over."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise DecodeError("the record is cut short")
        self._at += count
        return part

    def hashes(self, count: int, count_max: int) -> tuple[bytes, ...]:
        if count > count_max:
            raise DecodeError(f"an audit path of {count} hashes is longer than {count_max}")
        data = self.take(count * HASH_BYTES)
        return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))

    def end(self) -> None:
        if self._at != len(self._data):
            raise DecodeError("bytes are left over behind the record")


def _decode_head(layout: Layout, kind: RecordKind, data: bytes) -> tuple[dict[str, int], bytes]:
    values = layout.decode(data[: layout.width])
    if values.pop("version") != RECORD_VERSION or values.pop("kind") != kind:
        raise DecodeError(f"not a {layout.name} of version {RECORD_VERSION}")
    return values, values.pop("network_id")


def _check_hashes(*paths: tuple[bytes, ...]) -> None:
    if any(len(value) != HASH_BYTES for path in paths for value in path):
        raise DecodeError(f"hashes of an audit path are {HASH_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A leaf of the log and, where something is opened, what opens its signed commitment.

    opened ITEM: `opening` is salt || record of item `item`, `item_path` leads to the leaf's commitment root. PAYLOAD:
    `opening` is an instruction's whole body. NOTHING: both are empty and `item` is 0. genesis_path: that leaf 0 has
    the hash `network_id`, in the tree of the checkpoint that the surrounding proof carries.
    Raises: DecodeError: a hash is not 32 bytes.
    """

    network_id: bytes
    leaf: bytes
    genesis_path: tuple[bytes, ...]
    opened: Opened = Opened.NOTHING
    opening: bytes = b""
    item: int = 0
    item_path: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _check_hashes(self.genesis_path, self.item_path)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = RECEIPT_LAYOUT.encode(
            version=RECORD_VERSION,
            kind=RecordKind.RECEIPT,
            opened=self.opened,
            genesis_path_hashes=len(self.genesis_path),
            item_path_hashes=len(self.item_path),
            leaf_bytes=len(self.leaf),
            opening_bytes=len(self.opening),
            item=self.item,
            network_id=self.network_id,
        )
        return head + self.leaf + self.opening + b"".join(self.item_path + self.genesis_path)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: another record, a wrong length, or fields that contradict each other.
        """
        head, network_id = _decode_head(RECEIPT_LAYOUT, RecordKind.RECEIPT, data)
        try:
            opened = Opened(head["opened"])
        except ValueError as error:
            raise DecodeError(f"a receipt does not open {head['opened']}") from error
        if head["leaf_bytes"] > LEAF_BYTES_MAX or head["opening_bytes"] > OPENING_BYTES_MAX:
            raise DecodeError("the leaf or the opening is longer than any")
        # What is not an item's has no number and no path; what opens nothing has no bytes.
        if opened is not Opened.ITEM and (head["item"] or head["item_path_hashes"]):
            raise DecodeError("only the opening of an item has an item number and a path")
        if (opened is Opened.NOTHING) != (head["opening_bytes"] == 0):
            raise DecodeError("an opening has bytes, and nothing else has")
        parts = _Parts(data, RECEIPT_LAYOUT.width)
        leaf = parts.take(head["leaf_bytes"])
        opening = parts.take(head["opening_bytes"])
        item_path = parts.hashes(head["item_path_hashes"], ITEM_PATH_HASHES_MAX)
        genesis_path = parts.hashes(head["genesis_path_hashes"], LOG_PATH_HASHES_MAX)
        parts.end()
        return cls(network_id, leaf, genesis_path, opened, opening, head["item"], item_path)


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """A SEAL leaf and the paths that show one position, or its absence, under its state root.

    position: its canonical bytes, b"" when the participant never had one in the asset. has_positions: whether the
    participant has a position in any asset; without, inner_path is empty. genesis_path: as in ReceiptRecord.
    Raises: DecodeError: a hash is not 32 bytes.
    """

    network_id: bytes
    leaf: bytes
    genesis_path: tuple[bytes, ...]
    participant: int
    asset: int
    position: bytes
    has_positions: bool
    inner_path: tuple[bytes, ...]
    outer_path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_hashes(self.genesis_path, self.inner_path, self.outer_path)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = POSITION_LAYOUT.encode(
            version=RECORD_VERSION,
            kind=RecordKind.POSITION,
            has_positions=int(self.has_positions),
            genesis_path_hashes=len(self.genesis_path),
            inner_path_hashes=len(self.inner_path),
            outer_path_hashes=len(self.outer_path),
            asset=self.asset,
            participant=self.participant,
            leaf_bytes=len(self.leaf),
            position_bytes=len(self.position),
            network_id=self.network_id,
        )
        paths = self.inner_path + self.outer_path + self.genesis_path
        return head + self.leaf + self.position + b"".join(paths)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: another record, a wrong length, or fields that contradict each other.
        """
        head, network_id = _decode_head(POSITION_LAYOUT, RecordKind.POSITION, data)
        if head["has_positions"] > 1 or head["leaf_bytes"] > LEAF_BYTES_MAX:
            raise DecodeError("a flag or a length of the position record is out of range")
        # Who has no position in any asset has none in this one and no inner tree.
        if not head["has_positions"] and (head["position_bytes"] or head["inner_path_hashes"]):
            raise DecodeError("a participant without positions shows none")
        parts = _Parts(data, POSITION_LAYOUT.width)
        leaf = parts.take(head["leaf_bytes"])
        position = parts.take(head["position_bytes"])
        inner_path = parts.hashes(head["inner_path_hashes"], REGISTER_PATH_HASHES_MAX)
        outer_path = parts.hashes(head["outer_path_hashes"], REGISTER_PATH_HASHES_MAX)
        genesis_path = parts.hashes(head["genesis_path_hashes"], LOG_PATH_HASHES_MAX)
        parts.end()
        return cls(
            network_id,
            leaf,
            genesis_path,
            head["participant"],
            head["asset"],
            position,
            bool(head["has_positions"]),
            inner_path,
            outer_path,
        )


def record_kind(data: bytes) -> RecordKind:
    """Return which record `data` claims to be.

    Raises: DecodeError: neither.
    """
    if len(data) < 2 or data[0] != RECORD_VERSION:
        raise DecodeError("a record starts with version 1 and its kind")
    try:
        return RecordKind(data[1])
    except ValueError as error:
        raise DecodeError(f"record kind {data[1]} is unknown") from error
