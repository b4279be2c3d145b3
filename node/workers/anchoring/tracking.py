"""Where anchors are in the best chain: found, deep, gone, or never to come.

Lives here: what blocks mean to anchors, and the states that follow. May not live here: reading blocks (scan.py), making
and sending transactions (spending.py).

    PENDING -> BROADCAST -> SHALLOW(k) -> FINAL
    SHALLOW, FINAL -> REORGED      its block is no longer on the best chain
    BROADCAST, REORGED -> LOST     an input is spent by another transaction, or is itself gone
    REORGED, LOST -> SHALLOW       a version is mined after all
    LOST -> BROADCAST              anchored again: the same commitment, other coins

An anchor is matched by its commitment, so that whichever version is mined counts. States are judged by blocks alone.
"""

from __future__ import annotations

from dataclasses import replace

from bitcoin.core import CBlock

from clearing.bitcoin.next_header import HEADER_BYTES
from clearing.bitcoin.transaction import sha256d
from clearing.rules.anchors import MINED, AnchorState
from node.workers.anchoring.blocks import ScannedBlock, carries, commitment_script
from node.workers.anchoring.book import Anchor, Place
from node.workers.anchoring.desk import Desk
from node.workers.anchoring.policy import AlarmKind
from node.workers.anchoring.wallet import TRAIL_BLOCKS, Wallet

_OVER = (
    AlarmKind.REORGANISED,
    AlarmKind.INPUT_LOST,
    AlarmKind.NOT_ACCEPTED,
    AlarmKind.BUMPS_EXHAUSTED,
    AlarmKind.FEE_TOO_HIGH,
)
"""Alarms that end when an anchor is mined."""


class Tracker:
    """Follows the anchors of a book through blocks that come and go; a scan.Listener."""

    def __init__(self, desk: Desk, wallet: Wallet) -> None:
        """Track with the wallet's view of which outputs are spent."""
        self._desk = desk
        self._wallet = wallet

    # -- scan.Listener; the wallet hears of a block after this

    def connect(self, block: ScannedBlock) -> None:
        """Look for anchors in a new block of the best chain."""
        for anchor in self._watched():
            place = anchor.place
            now = anchor
            # Left over from a process that was killed between an anchor's file and the wallet's.
            if place and place.height >= block.height and place.block_hash != block.block_hash:
                now = self._missed(anchor)
            if now.place is None and block.holds(commitment_script(now.commitment)):
                found = place_in(block, now.commitment)
                if found is not None:
                    self._desk.book.put(
                        replace(now, place=found, conflict_height=-1, conflict_txid=b"")
                    )

    def disconnect(self, height: int) -> None:
        """Take note that the best chain's block at `height` is gone."""
        for anchor in self._watched():
            if anchor.place is not None and anchor.place.height >= height:
                self._missed(anchor)

    def _watched(self) -> list[Anchor]:
        """Return the anchors that a block may still concern."""
        least = self._wallet.tip_height - TRAIL_BLOCKS
        return [
            anchor
            for anchor in self._desk.book
            if anchor.place is None or anchor.place.height >= least
        ]

    def _missed(self, anchor: Anchor) -> Anchor:
        self._desk.alarm(
            AlarmKind.REORGANISED,
            f"the block of anchor {anchor.number} is no longer on the best chain",
            anchor.number,
        )
        gone = replace(anchor, place=None)
        if anchor.state in MINED:
            return self._desk.change(gone, AnchorState.REORGED, self._wallet.tip_height)
        return self._desk.book.put(gone)

    # -- after all blocks are read

    def settle(self) -> None:
        """Bring every anchor's state to what the blocks say."""
        for anchor in self._desk.book:
            if anchor.place is not None:
                self._settle_mined(anchor)
            elif anchor.state in (AnchorState.BROADCAST, AnchorState.REORGED, AnchorState.LOST):
                self._settle_unmined(anchor)

    def _settle_mined(self, anchor: Anchor) -> None:
        tip = self._wallet.tip_height
        depth = anchor.confirmations(tip)
        final = depth >= self._desk.policy.depth
        state = AnchorState.FINAL if final else AnchorState.SHALLOW
        if state is not anchor.state or (not final and depth != anchor.depth):
            self._desk.change(anchor, state, tip)
        for kind in _OVER:
            self._desk.alarms.clear(kind, anchor.number)

    def _settle_unmined(self, anchor: Anchor) -> None:
        conflict = self._conflict(anchor)
        known = (anchor.conflict_height, anchor.conflict_txid)
        if conflict is None:
            # What spent the input was taken back in its turn: the old version lives again.
            if anchor.conflict_height >= 0:
                self._desk.book.put(replace(anchor, conflict_height=-1, conflict_txid=b""))
                self._desk.alarms.clear(AlarmKind.INPUT_LOST, anchor.number)
            return
        height, txid = conflict
        self._desk.alarm(
            AlarmKind.INPUT_LOST,
            f"an input of anchor {anchor.number} "
            + (f"was spent by {txid[::-1].hex()}" if txid else "is no longer on the best chain"),
            anchor.number,
        )
        if anchor.state is not AnchorState.LOST:
            noted = replace(anchor, conflict_height=height, conflict_txid=txid)
            self._desk.change(noted, AnchorState.LOST, self._wallet.tip_height)
        elif known != conflict and (txid or anchor.conflict_height < 0):
            self._desk.book.put(replace(anchor, conflict_height=height, conflict_txid=txid))

    def _conflict(self, anchor: Anchor) -> tuple[int, bytes] | None:
        """Return height and txid of what took an input of the newest version away; None while it may be mined.

        An input that is itself no longer on the chain counts from now, without a txid.
        """
        newest = anchor.newest
        if newest is None:
            return None
        ours = {version.signed.txid for version in anchor.versions}
        for name in newest.inputs:
            coin = self._wallet.coin(name)
            if coin is None:
                since = anchor.conflict_height if not anchor.conflict_txid else -1
                return (since if since >= 0 else self._wallet.tip_height), b""
            if coin.is_spent and coin.spent_by not in ours:
                return coin.spent_height, coin.spent_by
        return None


def place_in(block: ScannedBlock, commitment: bytes) -> Place | None:
    """Return where a block holds the anchor of `commitment`, or None.

    Raises: BadAnswerError: the block is malformed.
    """
    parsed = block.parsed()
    for position, transaction in enumerate(parsed.vtx):
        if carries(transaction, commitment):
            return Place(
                height=block.height,
                block_hash=block.block_hash,
                header=block.raw[:HEADER_BYTES],
                transaction=bytes(transaction.serialize(params={"include_witness": False})),
                txid=bytes(transaction.GetTxid()),
                position=position,
                branch=_branch(parsed, position),
            )
    return None


def _branch(block: CBlock, position: int) -> tuple[bytes, ...]:
    """Return the sibling hashes from a transaction to the Merkle root, lowest first.

    Source: Bitcoin Core src/consensus/merkle.cpp: an odd level's last hash is paired with itself.
    """
    level = [bytes(transaction.GetTxid()) for transaction in block.vtx]
    branch = []
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        branch.append(level[position ^ 1])
        level = [sha256d(level[n] + level[n + 1]) for n in range(0, len(level), 2)]
        position //= 2
    return tuple(branch)
