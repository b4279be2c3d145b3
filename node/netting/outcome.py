"""What netting one asset of a file came to: the result of the library, and what was asked of it.

Lives here: the shape that documents, tables and checks share, and the hash over all assets. May not live here: methods, JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.gridlock import Settlement
from clearing.netting.recast import Round
from clearing.netting.result import NettingResult
from node.netting.table import AssetTable

DOMAIN: Final = b"clearing/netting-document/v1\0"


@dataclass(frozen=True, slots=True)
class Proof:
    """The certificate of a set-off: integer potentials by participant, the bound they prove, and bound - value."""

    potentials: Sequence[int]
    bound: int
    gap: int

    def to_bytes(self) -> bytes:
        """Write the canonical bytes: the potentials, 24 bytes each, little-endian two's complement.

        Raises: OverflowError: a potential outside 192 bits.
        """
        return wide.to_bytes(wide.from_ints(self.potentials))


@dataclass(frozen=True, slots=True, eq=False)
class AssetOutcome:
    """The result of one asset; participants are numbers of `table.parties`, rows those of the asset's table.

    names: of the participants. before: what FIFO with bypass had settled, where it ran. proof: of a set-off. liquidity, caps: the
    limits given, by participant; None where no file was. excluded: who was left out. rounds: who falls short.
    """

    table: AssetTable
    names: Sequence[str]
    result: NettingResult
    before: Settlement | None = None
    proof: Proof | None = None
    liquidity: Mapping[int, int] | None = None
    caps: Mapping[int, int] | None = None
    excluded: Sequence[int] = ()
    rounds: Sequence[Round] = ()

    def context(self) -> bytes:
        """Return the canonical bytes of what was asked."""
        before = None if self.before is None else self.before.settled
        return context_bytes(self.liquidity, self.caps, self.excluded, before)


def context_bytes(
    liquidity: Mapping[int, int] | None,
    caps: Mapping[int, int] | None,
    excluded: Sequence[int],
    before: NDArray[np.bool_] | None,
) -> bytes:
    """Write what was asked of a result, canonically, little-endian.

    liquidity, then caps: 0, or 1, a u32 count and for each a u32 participant and 16 bytes; excluded: a u32 count and a u32 each;
    what bypass settled before: 0, or 1 and a bit a row, lowest first. Participants ascending.
    """
    parts = []
    for limits in (liquidity, caps):
        parts.append(b"\0" if limits is None else b"\1" + len(limits).to_bytes(4, "little"))
        parts += [
            number.to_bytes(4, "little") + amount.to_bytes(16, "little")
            for number, amount in sorted((limits or {}).items())
        ]
    parts.append(len(excluded).to_bytes(4, "little"))
    parts += [number.to_bytes(4, "little") for number in sorted(excluded)]
    parts.append(
        b"\0" if before is None else b"\1" + np.packbits(before, bitorder="little").tobytes()
    )
    return b"".join(parts)


@dataclass(slots=True)
class DocumentHash:
    """The hash over all assets, taken in code point order: SHA-256 of DOMAIN and of an entry for each.

    An entry is the asset's name (u32 length, little-endian, and UTF-8), the SHA-256 of its result's canonical bytes, and the
    SHA-256 of its context's.
    """

    _total: Any = field(default_factory=lambda: hashlib.sha256(DOMAIN))

    def add(self, name: str, result: NettingResult, context: bytes) -> None:
        """Take in one asset."""
        encoded = name.encode()
        self._total.update(len(encoded).to_bytes(4, "little") + encoded + result.hash())
        self._total.update(hashlib.sha256(context).digest())

    def hex(self) -> str:
        """Return the hash so far, in hexadecimal."""
        return str(self._total.hexdigest())
