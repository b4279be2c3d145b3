"""The result of netting one asset: what it says, its canonical bytes and their hash.

Lives here: the record that every method fills and that reports and the ledger read. May not live here: names,
texts for people, and the methods themselves.
Invariants kept: integers only; equal results have equal bytes, whatever engine, tier or number of threads made
them, and, for positions, whatever the order of the rows.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.bilateral import Pairs
from clearing.netting.gridlock import Unsettled
from clearing.netting.transfers import Transfers

U64: TypeAlias = NDArray[np.uint64]
Mask: TypeAlias = NDArray[np.bool_]

DOMAIN: Final = b"clearing/netting-result/v1\0"
_MILLION: Final = 10**6
_REASONS: Final = np.dtype(
    [("row", "<u4"), ("reason", "u1"), ("participant", "<u4"), ("short", "<u8", 3)]
)
_PAIRS: Final = np.dtype(
    [("debtor", "<u4"), ("creditor", "<u4"), ("net", "<u8", 3), ("set_off", "<u8", 3)]
)
_TRANSFERS: Final = np.dtype([("payer", "<u4"), ("payee", "<u4"), ("amount", "<u8", 3)])


class Method(enum.IntEnum):
    """How an asset was netted; the numbers are part of hashed results."""

    POSITIONS = 1
    BILATERAL = 2
    GRIDLOCK = 3
    SETOFF = 4


class Certificate(Protocol):
    """What proves a result to whoever does not trust its solver."""

    def to_bytes(self) -> bytes:
        """Write the canonical bytes."""


def netting_ratio(gross: int, net: int) -> str:
    """Return 1 - net / gross with six digits, rounded down; 0.000000 of nothing."""
    saved = (gross - net) * _MILLION // gross if gross else 0
    return f"{saved // _MILLION}.{saved % _MILLION:06d}"


@dataclass(frozen=True, slots=True, eq=False)
class NettingResult:
    """What netting one asset gives; amounts in smallest units, arrays by participant or row number.

    rows: obligations. gross: their sum. positions: wide, uint64[participants, 3], over all rows whatever the
    method; + receives, - pays. touched: bool[participants], who occurs in the asset. movements: wide, what each
    pays or receives in this run. settled: bool[rows], fully. unsettled: why the others are not. discharged_lo,
    discharged_hi: uint64[rows], what each obligation loses, for bilateral and setoff. value: the sum of that, or
    of the settled amounts. pairs: bilateral only. transfers: those that settle the movements, if asked for.
    """

    method: Method
    rows: int
    gross: int
    positions: U64
    touched: Mask
    movements: U64
    settled: Mask
    unsettled: Unsettled
    value: int
    discharged_lo: U64 | None = None
    discharged_hi: U64 | None = None
    pairs: Pairs | None = None
    transfers: Transfers | None = None
    certificate: Certificate | None = None

    @property
    def net(self) -> int:
        """What moves when everything is netted, and the liquidity needed for it: the sum of positive positions."""
        return wide.total(self.positions[wide.sign(self.positions) > 0])

    @property
    def ratio(self) -> str:
        """1 - net / gross with six digits, rounded down; 0.000000 of nothing."""
        return netting_ratio(self.gross, self.net)

    @property
    def liquidity_used(self) -> int:
        """What the payers of this run pay in."""
        return -wide.total(self.movements[wide.sign(self.movements) < 0])

    def to_bytes(self) -> bytes:
        """Write the canonical bytes.

        DOMAIN; method u8, rows u64, participants u64; gross and value 24 bytes each; positions, movements 24
        bytes a participant; touched, settled as bits, lowest first; then, each after its number of entries u64:
        unsettled (row u32, reason u8, participant u32, short 24), discharged (16 a row), pairs (debtor u32,
        creditor u32, net 24, set-off 24), transfers (payer u32, payee u32, 2^32 - 1 being the agent, amount 24),
        and the certificate's bytes. All little-endian. net and ratio follow from these and are not in them.
        """
        participants = self.positions.shape[0]
        parts = [
            DOMAIN,
            struct.pack("<BQQ", self.method, self.rows, participants),
            wide.to_bytes(wide.from_ints([self.gross, self.value])),
            wide.to_bytes(self.positions),
            wide.to_bytes(self.movements),
            np.packbits(self.touched, bitorder="little").tobytes(),
            np.packbits(self.settled, bitorder="little").tobytes(),
            *_counted(self._unsettled_entries()),
            *_counted(self._discharged_entries()),
            *_counted(self._pair_entries()),
            *_counted(self._transfer_entries()),
        ]
        proof = b"" if self.certificate is None else self.certificate.to_bytes()
        return b"".join([*parts, struct.pack("<Q", len(proof)), proof])

    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def _unsettled_entries(self) -> NDArray[np.void]:
        entries = np.zeros(self.unsettled.row.shape[0], _REASONS)
        for name in ("row", "reason", "participant", "short"):
            entries[name] = getattr(self.unsettled, name)
        return entries

    def _discharged_entries(self) -> U64:
        if self.discharged_lo is None:
            return np.empty((0, 2), np.uint64)
        entries = np.zeros((self.rows, 2), "<u8")
        entries[:, 0] = self.discharged_lo
        if self.discharged_hi is not None:
            entries[:, 1] = self.discharged_hi
        return entries

    def _pair_entries(self) -> NDArray[np.void]:
        entries = np.zeros(0 if self.pairs is None else self.pairs.debtor.shape[0], _PAIRS)
        if self.pairs is not None:
            for name in ("debtor", "creditor", "net", "set_off"):
                entries[name] = getattr(self.pairs, name)
        return entries

    def _transfer_entries(self) -> NDArray[np.void]:
        entries = np.zeros(
            0 if self.transfers is None else self.transfers.payer.shape[0], _TRANSFERS
        )
        if self.transfers is not None:
            entries["payer"] = self.transfers.payer.astype(np.uint32)
            entries["payee"] = self.transfers.payee.astype(np.uint32)
            entries["amount"] = self.transfers.amount
        return entries


def _counted(entries: NDArray[np.void] | U64) -> tuple[bytes, bytes]:
    return struct.pack("<Q", entries.shape[0]), entries.tobytes()
