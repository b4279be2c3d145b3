"""Anchors: checkpoints committed to in Bitcoin, as the node that pays for them reports them.

Lives here: an anchor's lifecycle, the report that moves it, the record of where it stands. May not live here: Bitcoin's
formats (clearing/bitcoin), who may report (ledger.py), talking to a Bitcoin node (node/workers/anchoring).

An anchor is outside evidence that checkpoints existed by a time; it moves no obligation and makes nothing final. A report is
signed by the reporting node and holds its evidence: with the first the sizes of the checkpoints and the SHA-256 of each
one's note; with SHALLOW and FINAL the block's header and the proof that it holds the transaction, which every replica checks. What no
replica can check from a report alone, that the block is on the best chain and how deep, is the reporting node's word; who
doubts it asks headers: the ledger's own where it follows that network (handlers/chain.py), or a Bitcoin node.
Invariants: reports of an anchor are numbered without gaps; anchors of one node are too, and cover ever greater log sizes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from clearing.bitcoin.anchor import verify_mined
from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork, header_hash
from clearing.bitcoin.ots import DIGEST_BYTES, commitment_of
from clearing.bitcoin.transaction import TransactionProof
from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError, RejectCode, VerificationError
from clearing.rules.lifecycle import Lifecycle

CHECKPOINTS_MAX = 800
"""Most checkpoints of one anchor: 40 bytes each, within PAYLOAD_BYTES_MAX."""

TRANSACTION_BYTES_MAX = 1_000
"""Greatest transaction without witnesses in which timestamp tools look for a commitment."""

_CHECKPOINT_BYTES = 8 + DIGEST_BYTES


class AnchorState(enum.IntEnum):
    """How an anchor stands."""

    PENDING = 1
    BROADCAST = 2
    SHALLOW = 3
    FINAL = 4
    REORGED = 5
    LOST = 6


MINED = frozenset((AnchorState.SHALLOW, AnchorState.FINAL))
"""States in which a block of the best chain holds the anchor."""

LIFECYCLE = Lifecycle(
    "anchor",
    AnchorState.PENDING,
    (
        (AnchorState.PENDING, AnchorState.BROADCAST, "signed, stored, handed to a Bitcoin node"),
        (AnchorState.BROADCAST, AnchorState.SHALLOW, "in a block of the best chain"),
        (AnchorState.SHALLOW, AnchorState.SHALLOW, "more blocks on top"),
        (AnchorState.SHALLOW, AnchorState.FINAL, "deep enough"),
        (AnchorState.PENDING, AnchorState.SHALLOW, "mined before the node could say so"),
        (AnchorState.PENDING, AnchorState.FINAL, "mined before the node could say so"),
        (AnchorState.BROADCAST, AnchorState.FINAL, "deep enough at once"),
        (AnchorState.SHALLOW, AnchorState.REORGED, "its block is no longer on the best chain"),
        (AnchorState.FINAL, AnchorState.REORGED, "its block is no longer on the best chain"),
        (AnchorState.REORGED, AnchorState.SHALLOW, "mined again"),
        (AnchorState.REORGED, AnchorState.FINAL, "mined again, deep enough"),
        (AnchorState.BROADCAST, AnchorState.LOST, "its input is spent elsewhere, or gone"),
        (AnchorState.REORGED, AnchorState.LOST, "its input is spent elsewhere, or gone"),
        (AnchorState.LOST, AnchorState.BROADCAST, "anchored again with other coins"),
        (AnchorState.LOST, AnchorState.SHALLOW, "mined after all"),
        (AnchorState.LOST, AnchorState.FINAL, "mined after all, deep enough"),
    ),
)

REPORT_LAYOUT = Layout(
    "anchor report",
    uint("state", 1),
    uint("network", 1),
    reserved(2),
    uint("number", 4),
    uint("sequence", 4),
    uint("depth", 4),
    uint("height", 4),
    uint("checkpoints", 4),
    raw("commitment", 32),
    raw("txid", 32),
)


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """What a node reports of one of its anchors.

    number: of the anchor, from 1; sequence: of the report, from 0. depth: confirmations, 0 in no block. height: of the block,
    0 in none. txid (internal order): the version handed out or mined; in LOST what took the input away, zeros where it
    is gone. checkpoints: (log size, SHA-256 of the note), in the first report alone. header and proof: in SHALLOW and
    FINAL alone.
    """

    state: AnchorState
    network: BitcoinNetwork
    number: int
    sequence: int
    commitment: bytes
    depth: int = 0
    height: int = 0
    txid: bytes = bytes(32)
    checkpoints: tuple[tuple[int, bytes], ...] = ()
    header: bytes = b""
    proof: TransactionProof | None = None

    def encode(self) -> bytes:
        """Return the canonical payload."""
        head = REPORT_LAYOUT.encode(
            state=self.state,
            network=self.network,
            number=self.number,
            sequence=self.sequence,
            depth=self.depth,
            height=self.height,
            checkpoints=len(self.checkpoints),
            commitment=self.commitment,
            txid=self.txid,
        )
        listed = b"".join(size.to_bytes(8, "little") + digest for size, digest in self.checkpoints)
        return head + listed + self.header + (self.proof.encode() if self.proof else b"")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Parse a canonical payload.

        Raises: DecodeError: not one, or its parts are not those of its state.
        """
        values = REPORT_LAYOUT.decode(payload[: REPORT_LAYOUT.width])
        rest = payload[REPORT_LAYOUT.width :]
        try:
            state = AnchorState(values["state"])
            network = BitcoinNetwork(values["network"])
        except ValueError as error:
            raise DecodeError(f"anchor report: {error}") from error
        count = values.pop("checkpoints")
        # The list stands in the first report and nowhere else.
        if (count > 0) != (values["sequence"] == 0) or count > CHECKPOINTS_MAX:
            raise DecodeError(
                f"a first report lists 1 to {CHECKPOINTS_MAX} checkpoints, later ones none"
            )
        listed = split_records(
            rest[: count * _CHECKPOINT_BYTES], _CHECKPOINT_BYTES, count, "checkpoints"
        )
        evidence = rest[count * _CHECKPOINT_BYTES :]
        if (state in MINED) != bool(evidence):
            raise DecodeError("SHALLOW and FINAL bring a header and a proof, others none")
        return cls(
            **values
            | {
                "state": state,
                "network": network,
                "checkpoints": tuple(
                    (int.from_bytes(one[:8], "little"), bytes(one[8:])) for one in listed
                ),
                "header": evidence[:HEADER_BYTES],
                "proof": TransactionProof.decode(evidence[HEADER_BYTES:]) if evidence else None,
            }
        )

    def verify(self) -> None:
        """Check what a report shows by itself.

        Raises: VerificationError: the block's header has no work, or does not hold the anchor's transaction.
        """
        if self.proof is None:
            return
        if self.depth == 0 or len(self.proof.transaction.raw) > TRANSACTION_BYTES_MAX:
            raise VerificationError("a mined anchor has a depth, and a transaction of its own")
        if self.proof.transaction.txid != self.txid:
            raise VerificationError("the proof is of another transaction than reported")
        verify_mined(self.network, self.header, self.proof, self.commitment)


ANCHOR_LAYOUT = Layout(
    "anchor",
    uint("state", 1),
    uint("network", 1),
    reserved(2),
    uint("sequence", 4),
    uint("depth", 4),
    uint("height", 4),
    uint("checkpoints", 4),
    reserved(4),
    uint("first_size", 8),
    uint("last_size", 8),
    uint("begun_index", 8),
    uint("changed_index", 8),
    uint("mined_index", 8),
    uint("changed_ms", 8),
    raw("commitment", 32),
    raw("txid", 32),
    raw("block_hash", 32),
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """One anchor of one node, after its last report.

    checkpoints: how many; first_size and last_size: the least and greatest log size. begun_index, changed_index,
    mined_index: log index of the first report, the last, and the last with evidence (0 for none). changed_ms: block time of the last.
    """

    state: AnchorState
    network: BitcoinNetwork
    sequence: int
    depth: int
    height: int
    checkpoints: int
    first_size: int
    last_size: int
    begun_index: int
    changed_index: int
    mined_index: int
    changed_ms: int
    commitment: bytes
    txid: bytes
    block_hash: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        names = [field.name for field in ANCHOR_LAYOUT.fields if field.name != "reserved"]
        return ANCHOR_LAYOUT.encode(**{name: getattr(self, name) for name in names})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: not an anchor.
        """
        values = ANCHOR_LAYOUT.decode(data)
        try:
            values["state"] = AnchorState(values["state"])
            values["network"] = BitcoinNetwork(values["network"])
        except ValueError as error:
            raise DecodeError(f"anchor: {error}") from error
        return cls(**values)

    @classmethod
    def begun(cls, report: AnchorReport, index: int, time_ms: int) -> Self:
        """Return the anchor that a first report at log index `index` begins."""
        sizes = [size for size, _ in report.checkpoints]
        return cls(
            state=report.state,
            network=report.network,
            sequence=0,
            depth=0,
            height=0,
            checkpoints=len(sizes),
            first_size=sizes[0],
            last_size=sizes[-1],
            begun_index=index,
            changed_index=index,
            mined_index=0,
            changed_ms=time_ms,
            commitment=report.commitment,
            txid=bytes(32),
            block_hash=bytes(32),
        )

    def moved(self, report: AnchorReport, index: int, time_ms: int) -> Self:
        """Return the anchor after a later report at log index `index`."""
        return replace(
            self,
            state=report.state,
            sequence=report.sequence,
            depth=report.depth,
            height=report.height,
            txid=report.txid,
            block_hash=header_hash(report.header) if report.header else bytes(32),
            mined_index=index if report.header else self.mined_index,
            changed_index=index,
            changed_ms=time_ms,
        )


def judge_first(report: AnchorReport, last: Anchor | None, log_size: int) -> RejectCode:
    """Return why a first report is refused, or OK; `last`: the node's anchor before, None where this is number 1."""
    # Numbers of a node's anchors have no gaps.
    if report.sequence or (last is None) != (report.number == 1):
        return RejectCode.ANCHOR_ORDER
    if report.state is not AnchorState.PENDING or report.depth or report.height:
        return RejectCode.ANCHOR_STATE
    sizes = [size for size, _ in report.checkpoints]
    covered = last.last_size if last else 0
    if not _is_ascending([covered, *sizes]) or sizes[-1] > log_size:
        return RejectCode.ANCHOR_CHECKPOINTS
    if commitment_of([digest for _, digest in report.checkpoints]) != report.commitment:
        return RejectCode.ANCHOR_CHECKPOINTS
    return RejectCode.OK


def judge_next(report: AnchorReport, anchor: Anchor) -> RejectCode:
    """Return why a later report of `anchor` is refused, or OK."""
    if report.sequence != anchor.sequence + 1:
        return RejectCode.ANCHOR_ORDER
    if not LIFECYCLE.allows(anchor.state, report.state):
        return RejectCode.ANCHOR_STATE
    # Always of the same anchor, on the same network.
    if (report.commitment, report.network) != (anchor.commitment, anchor.network):
        return RejectCode.ANCHOR_EVIDENCE
    try:
        report.verify()
    except VerificationError:
        return RejectCode.ANCHOR_EVIDENCE
    return RejectCode.OK


def _is_ascending(numbers: Sequence[int]) -> bool:
    return all(numbers[n] < numbers[n + 1] for n in range(len(numbers) - 1))
