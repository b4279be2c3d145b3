"""Positions: what each participant owes, is owed, has paid and received in one asset, and the root over them all.

Lives here: the Position record and the two-level tree whose root is the state root. May not live here: what moves a
position (obligations, cycles, settlement decide; ledger.py applies).

Invariants, per asset: payable sums to receivable over all participants; locked_net sums to zero.
The tree: participants by registry number; under each, its positions by the asset's registry number. An untouched
position, and a participant without positions, is ZERO_LEAF, so that absence is an inclusion proof too, and a block
costs only the paths it touches. Source: DESIGN section 5; RFC 6962 for both levels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from clearing.codec import Layout, raw, reserved, sint, uint
from clearing.errors import DecodeError, VerificationError, invariant
from clearing.log import merkle
from clearing.log.merkle_array import MerkleArray, Overlay
from clearing.records.obligation import SECRET_BYTES

ZERO_LEAF = bytes(32)
"""Stands where there is no position: no leaf hashes to it."""

_SALT_DOMAIN = b"clearing/position-salt/v1\0"
_SEED_DOMAIN = b"clearing/position-seed/v1\0"


@dataclass(frozen=True, slots=True)
class Position:
    """One participant's position in one asset; amounts in smallest units.

    payable, receivable: open affirmed obligations, those locked in an unsettled cycle included.
    locked_net: provisional net over all unsettled cycles (+ receives, - pays). paid, received: confirmed settlement
    instructions, all time. liquidity: pledged with the settlement agent. cap: net debit cap, None for none.
    salt: keeps the tree's hashes from being guessed; chained over the blocks that touched the position.
    """

    participant: int
    asset: int
    payable: int = 0
    receivable: int = 0
    locked_net: int = 0
    paid: int = 0
    received: int = 0
    liquidity: int = 0
    cap: int | None = None
    salt: bytes = bytes(16)

    LAYOUT: ClassVar[Layout] = Layout(
        "position",
        uint("participant", 4),
        uint("asset", 2),
        uint("has_cap", 1),
        reserved(1),
        uint("payable", 24),
        uint("receivable", 24),
        sint("locked_net", 24),
        uint("paid", 24),
        uint("received", 24),
        uint("liquidity", 16),
        uint("cap", 16),
        raw("salt", 16),
    )

    def encode(self) -> bytes:
        """Return the canonical 176 bytes: the content of the position's leaf.

        Raises: InvariantViolation: a total is negative or beyond its width.
        """
        totals = (self.payable, self.receivable, self.paid, self.received)
        invariant(min(totals) >= 0 and max(totals) >> 192 == 0, f"position out of range: {self}")
        return b"".join(
            (
                self.participant.to_bytes(4, "little"),
                self.asset.to_bytes(2, "little"),
                b"\1\0" if self.cap is not None else b"\0\0",
                self.payable.to_bytes(24, "little"),
                self.receivable.to_bytes(24, "little"),
                self.locked_net.to_bytes(24, "little", signed=True),
                self.paid.to_bytes(24, "little"),
                self.received.to_bytes(24, "little"),
                self.liquidity.to_bytes(16, "little"),
                (self.cap or 0).to_bytes(16, "little"),
                self.salt,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or a cap beside a zero flag.
        """
        values = cls.LAYOUT.decode(data)
        has_cap = values.pop("has_cap")
        if has_cap > 1 or (not has_cap and values["cap"]):
            raise DecodeError("a position without a cap carries none")
        if not has_cap:
            values["cap"] = None
        return cls(**values)

    def salted(self, seed: bytes) -> Self:
        """Return the position with its salt moved on by `seed`, that of the block which touches it."""
        digest = hashlib.sha256(_SALT_DOMAIN + self.salt + seed).digest()
        return replace(self, salt=digest[:16])


def position_seed(bodies: Iterable[bytes]) -> bytes:
    """Return what one block moves the salts of its positions on by: a hash over the secrets its bodies start with.

    bodies: of the block's entries, in order. Who does not see all of them cannot know it.
    """
    digest = hashlib.sha256(_SEED_DOMAIN)
    for body in bodies:
        digest.update(body[:SECRET_BYTES])
    return digest.digest()


@dataclass(frozen=True, slots=True)
class TreeChange:
    """What changing positions does to the tree; computed by `PositionTree.change`, taken over by `advance`."""

    participants: int
    assets: int
    inner: Mapping[int, Overlay | MerkleArray]
    grown: MerkleArray | None
    outer: Overlay
    root: bytes


class PositionTree:
    """The two-level tree over all positions."""

    __slots__ = ("_inner", "_outer", "assets", "participants")

    def __init__(self, participants: int, assets: int) -> None:
        """Start with every position untouched."""
        self.participants = participants
        self.assets = assets
        self._outer = MerkleArray().grown(participants, ZERO_LEAF)
        self._inner: dict[int, MerkleArray] = {}

    @property
    def root(self) -> bytes:
        """The state root."""
        return self._outer.root

    def change(
        self, participants: int, assets: int, leaves: Mapping[tuple[int, int], bytes]
    ) -> TreeChange:
        """Compute what new position leaves do, changing nothing.

        participants and assets: registered after the block, not fewer than now. leaves: (participant, asset) to
        leaf hash. Costs hashes for the touched paths only, except when an asset is registered: then every
        participant with positions gets a wider inner tree.
        """
        by_participant: dict[int, dict[int, bytes]] = {}
        for (participant, asset), leaf in leaves.items():
            by_participant.setdefault(participant, {})[asset] = leaf
        if assets > self.assets:
            for participant in self._inner:
                by_participant.setdefault(participant, {})
        inner: dict[int, Overlay | MerkleArray] = {}
        outer_leaves: dict[int, bytes] = {}
        for participant, changes in by_participant.items():
            inner[participant] = self._inner_change(participant, assets, changes)
            outer_leaves[participant] = merkle.leaf_hash(inner[participant].root)
        grown = None
        if participants > self.participants:
            grown = self._outer.grown(participants, ZERO_LEAF)
        outer = (grown or self._outer).update(outer_leaves)
        return TreeChange(participants, assets, inner, grown, outer, outer.root)

    def _inner_change(
        self, participant: int, assets: int, changes: Mapping[int, bytes]
    ) -> Overlay | MerkleArray:
        tree = self._inner.get(participant)
        if tree is not None and tree.size == assets:
            return tree.update(changes)
        fresh = (tree or MerkleArray()).grown(assets, ZERO_LEAF)
        fresh.apply(fresh.update(changes))
        return fresh

    def advance(self, change: TreeChange) -> None:
        """Take over a change once its block is durable."""
        self.participants, self.assets = change.participants, change.assets
        for participant, part in change.inner.items():
            if isinstance(part, MerkleArray):
                self._inner[participant] = part
            else:
                self._inner[participant].apply(part)
        if change.grown is not None:
            self._outer = change.grown
        self._outer.apply(change.outer)

    def proof(self, participant: int, asset: int) -> PositionPath:
        """Return the audit paths of one position, present or absent.

        Raises: VerificationError: no such participant or asset is registered.
        """
        outer = self._outer.proof(participant)
        if not 0 <= asset < self.assets:
            raise VerificationError(f"no asset {asset} is registered")
        tree = self._inner.get(participant)
        if tree is None:
            return PositionPath((), outer, has_positions=False)
        return PositionPath(tree.proof(asset), outer, has_positions=True)


@dataclass(frozen=True, slots=True)
class PositionPath:
    """Audit paths of one position: inner to the participant's root, outer to the state root, siblings first.

    has_positions is False for a participant without any: then the outer leaf itself is ZERO_LEAF and inner is empty.
    """

    inner: tuple[bytes, ...]
    outer: tuple[bytes, ...]
    has_positions: bool


def verify_position(
    position: Position | None,
    participant: int,
    asset: int,
    *,
    participants: int,
    assets: int,
    path: PositionPath,
    state_root: bytes,
) -> None:
    """Check that `position`, or its absence (None), is what `state_root` commits to.

    participants and assets: as the SEAL leaf says. The caller has checked the SEAL leaf against the log.
    Raises: VerificationError: the paths do not lead to the state root, or belong to another position.
    """
    leaf = ZERO_LEAF
    if position is not None:
        if (position.participant, position.asset) != (participant, asset):
            raise VerificationError("the position shown is another one")
        leaf = merkle.leaf_hash(position.encode())
    outer_leaf = ZERO_LEAF
    if path.has_positions:
        outer_leaf = merkle.leaf_hash(
            merkle.root_from_inclusion_proof(leaf, asset, assets, path.inner)
        )
    elif position is not None or path.inner or asset >= assets:
        raise VerificationError("a participant without positions shows none")
    merkle.verify_inclusion(outer_leaf, participant, participants, path.outer, state_root)
