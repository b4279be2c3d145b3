"""What is anchored and with what: one file an anchor, replaced whole before anything is done by it.

Lives here: Anchor and its parts, their files. May not live here: what happens to an anchor (engine.py).

    anchors/00000001      the anchor: commitment, checkpoints, every version of its transaction, where it was mined, and
                          what the ledger was told and is still to be told

Invariants: the signed bytes of every version are here before a node has seen them; nothing is ever taken out; a file
that was altered stops anchoring, for what was paid for must not be guessed at.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clearing.errors import DecodeError
from clearing.rules.anchors import AnchorState
from node.files import make_private_directory
from node.workers.anchoring.files import read_guarded, write_guarded
from node.workers.anchoring.transactions import Signed, inputs_of

ANCHORS_NAME = "anchors"


class Role(enum.StrEnum):
    """What a transaction is to its anchor."""

    ANCHOR = "anchor"
    REPLACEMENT = "replacement"
    """Spends the same outpoint at a higher fee (BIP 125)."""
    CHILD = "child"
    """Spends a version's change, so that miners take both (CPFP); carries no commitment."""
    AGAIN = "again"
    """Anchors the same commitment with other coins, after the first could no longer be mined."""


@dataclass(frozen=True, slots=True)
class Version:
    """A signed transaction; made_s and sent_s (0: never handed to a node) in seconds since 1970.

    hint: what the node said when it was handed over last, "" where it took it.
    """

    signed: Signed
    role: Role
    made_s: int
    sent_s: int = 0
    hint: str = ""

    @property
    def inputs(self) -> list[bytes]:
        """The outpoints that it spends."""
        return inputs_of(self.signed.raw)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an anchor was mined: block height, hash and header, and the way from its transaction to the Merkle root.

    transaction: its bytes without witness. position: its number in the block. branch: sibling hashes, lowest first.
    """

    height: int
    block_hash: bytes
    header: bytes
    transaction: bytes
    txid: bytes
    position: int
    branch: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What the ledger is told of a change of state: the payload as it is signed; told once the ledger has answered.

    code: the ledger's answer, 0 where it took it.
    """

    state: AnchorState
    payload: bytes
    told: bool = False
    code: int = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """One anchor, as its file has it.

    sizes: log sizes of its checkpoints, ascending; digests: SHA-256 of each checkpoint's note; versions and statements in
    the order in which they were made. depth: confirmations when the state was reported last. conflict_height,
    conflict_txid: block in which an input of the newest version was seen to be gone, -1 for none, and what spent it.
    """

    number: int
    commitment: bytes
    sizes: tuple[int, ...]
    digests: tuple[bytes, ...]
    made_s: int
    state: AnchorState = AnchorState.PENDING
    versions: tuple[Version, ...] = ()
    place: Place | None = None
    depth: int = 0
    conflict_height: int = -1
    conflict_txid: bytes = b""
    statements: tuple[Statement, ...] = field(default=())

    @property
    def newest(self) -> Version | None:
        """The version that is handed to the node: the last that carries the commitment; None before the first."""
        carrying = [one for one in self.versions if one.role is not Role.CHILD]
        return carrying[-1] if carrying else None

    @property
    def children(self) -> list[Version]:
        """Children of the newest version, in order."""
        newest = self.newest
        return [
            one
            for one in self.versions
            if one.role is Role.CHILD and newest and one.inputs[0][:32] == newest.signed.txid
        ]

    @property
    def fee_sat(self) -> int:
        """What the newest version and its children pay together, in satoshi."""
        newest = self.newest
        return (newest.signed.fee_sat if newest else 0) + sum(
            c.signed.fee_sat for c in self.children
        )

    def confirmations(self, tip_height: int) -> int:
        """Return the depth of its block, 1 at the tip, 0 where it is in none."""
        return tip_height - self.place.height + 1 if self.place else 0


class Book:
    """All anchors, by number. Not safe from several threads."""

    def __init__(self, directory: Path) -> None:
        """Open the book in `directory`, which is made when missing.

        Raises: DecodeError: a file was altered. SetupError: one cannot be read.
        """
        self._directory = directory / ANCHORS_NAME
        make_private_directory(self._directory)
        self._anchors: dict[int, Anchor] = {}
        # A hidden file is one that was being written when its process was killed.
        for path in sorted(self._directory.glob("[0-9]*")):
            document = read_guarded(path)
            if document is not None:
                anchor = _decoded(document)
                self._anchors[anchor.number] = anchor
        for left in self._directory.glob(".*.new"):
            left.unlink()

    def __iter__(self) -> Iterator[Anchor]:
        """Go through the anchors, the oldest first."""
        return iter(list(self._anchors.values()))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._anchors)

    def anchor(self, number: int) -> Anchor:
        """Return one. Raises: KeyError: there is none."""
        return self._anchors[number]

    @property
    def last_size(self) -> int:
        """The greatest log size that an anchor covers, 0 before the first."""
        return max((anchor.sizes[-1] for anchor in self._anchors.values()), default=0)

    def put(self, anchor: Anchor) -> Anchor:
        """Replace or add an anchor; on disk when this returns. Raises: SetupError: it cannot be written."""
        if self._anchors.get(anchor.number) != anchor:
            write_guarded(self._directory / f"{anchor.number:08d}", _encoded(anchor))
            self._anchors[anchor.number] = anchor
        return anchor


def _encoded(anchor: Anchor) -> dict[str, Any]:
    return {name: _texts(value) for name, value in asdict(anchor).items()}


def _texts(value: Any) -> Any:
    if isinstance(value, AnchorState):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _texts(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return value


def _decoded(document: dict[str, Any]) -> Anchor:
    try:
        place = document["place"]
        return Anchor(
            number=int(document["number"]),
            commitment=bytes.fromhex(document["commitment"]),
            sizes=tuple(map(int, document["sizes"])),
            digests=tuple(map(bytes.fromhex, document["digests"])),
            made_s=int(document["made_s"]),
            state=AnchorState[document["state"]],
            versions=tuple(map(_version, document["versions"])),
            place=_place(place) if place else None,
            depth=int(document["depth"]),
            conflict_height=int(document["conflict_height"]),
            conflict_txid=bytes.fromhex(document["conflict_txid"]),
            statements=tuple(
                Statement(
                    AnchorState[one["state"]],
                    bytes.fromhex(one["payload"]),
                    bool(one["told"]),
                    int(one["code"]),
                )
                for one in document["statements"]
            ),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"an anchor's file is of another form: {error}") from error


def _version(document: dict[str, Any]) -> Version:
    signed = document["signed"]
    return Version(
        Signed(
            bytes.fromhex(signed["raw"]),
            bytes.fromhex(signed["txid"]),
            int(signed["fee_sat"]),
            int(signed["vsize"]),
        ),
        Role(document["role"]),
        int(document["made_s"]),
        int(document["sent_s"]),
        str(document["hint"]),
    )


def _place(document: dict[str, Any]) -> Place:
    return Place(
        height=int(document["height"]),
        block_hash=bytes.fromhex(document["block_hash"]),
        header=bytes.fromhex(document["header"]),
        transaction=bytes.fromhex(document["transaction"]),
        txid=bytes.fromhex(document["txid"]),
        position=int(document["position"]),
        branch=tuple(map(bytes.fromhex, document["branch"])),
    )


def with_version(anchor: Anchor, version: Version) -> Anchor:
    """Return the anchor with `version` in the place of the one with its txid, or behind all."""
    kept = [version if one.signed.txid == version.signed.txid else one for one in anchor.versions]
    if version not in kept:
        kept.append(version)
    return replace(anchor, versions=tuple(kept))
