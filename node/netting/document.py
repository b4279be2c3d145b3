"""The JSON document of a netting run: what `clearing net --json` prints and `--out` writes.

Lives here: its form and how millions of entries are written fast. May not live here: reading it back (verify.py).

Amounts are decimal strings; participants and assets stand in code point order, obligations in file order. The document is
UTF-8, one entry a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.engine import Engine, describe
from clearing.netting.limits import Reason
from clearing.netting.recast import Round
from clearing.netting.result import Method
from node.netting.keys import PAIR, TRANSFER, UNSETTLED, figures
from node.netting.outcome import AssetOutcome, DocumentHash
from node.netting.table import AGENT_NAME
from node.netting.texts import Texts, decimals, join_lines

Write: TypeAlias = Callable[[bytes], object]
Column: TypeAlias = Texts | bytes
U64: TypeAlias = NDArray[np.uint64]

_PIECE_ROWS: Final = 1 << 14  # a piece stays in the cache, and its memory is used again
_SEPARATOR: Final = b",\n"
_SIGNS: Final = Texts.of([b"", b"-"])
_REASONS: Final = Texts.of(
    Reason(number).name.encode() if number in list(Reason) else b"" for number in range(256)
)


def quoted(text: str) -> bytes:
    """Return a text as JSON, in UTF-8."""
    return json.dumps(text, ensure_ascii=False).encode()


def amount_columns(amounts: U64, engine: Engine) -> list[Column]:
    """Write wide integers in decimal, signs and digits as columns."""
    negative = amounts[:, 2] >> np.uint64(63)
    magnitude = np.where(negative[:, np.newaxis] != 0, wide.negate(amounts), amounts)
    if magnitude[:, 2].any():
        digits = Texts.of(b"%d" % number for number in wide.to_ints(magnitude))
    else:
        hi = np.ascontiguousarray(magnitude[:, 1])
        digits = decimals(
            np.ascontiguousarray(magnitude[:, 0]), hi if hi.any() else None, engine=engine
        )
    return [_SIGNS.at(negative.astype(np.int64)), digits]


def _string(*columns: Column) -> list[Column]:
    """Put quotes around columns that make one string."""
    return [b'"', *columns, b'"']


def _objects(keys: Sequence[str], *values: Sequence[Column]) -> list[Column]:
    """Write one object a line, with the value of each key as columns."""
    columns: list[Column] = []
    for key, value in zip(keys, values, strict=True):
        columns += [b"," if columns else b"{", quoted(key) + b":", *value]
    return [*columns, b"}"]


def _merged(columns: Sequence[Column]) -> list[Column]:
    """Join constants that stand beside each other, so that each costs one pass."""
    merged: list[Column] = []
    for column in columns:
        if merged and isinstance(column, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += column
        else:
            merged.append(column)
    return merged


class DocumentWriter:
    """Writes one document, asset by asset."""

    def __init__(self, write: Write, ids: Texts, engine: Engine) -> None:
        """Take where the bytes go, the ids of all rows of the file, and what runs the kernels."""
        self._write = write
        self._engine = engine
        # Ids are control-free, so quotes and backslashes are all that JSON escapes in them.
        if b'"' in ids.data or b"\\" in ids.data:
            ids = Texts.of(quoted(text)[1:-1] for text in ids.strings())
        self._ids = ids
        self._hash = DocumentHash()
        self._reasons = _REASONS

    def write(
        self, method: Method, outcomes: Iterable[AssetOutcome], ran: Engine | None = None
    ) -> str:
        """Write the whole document.

        ran: what ran the kernels of the methods, as the document says; None: the same as writes it.

        Returns: its hash, in hexadecimal.
        """
        engine = json.dumps(describe(self._engine if ran is None else ran))
        self._write(b'{\n"method": %s,\n' % quoted(method.name.lower()))
        self._write(b'"engine": %s,\n"assets": {' % engine.encode())
        separator = b"\n"
        for outcome in outcomes:
            self._write(separator)
            self._asset(outcome)
            separator = _SEPARATOR
        self._write(b'\n},\n"hash": "%s"\n}\n' % self._hash.hex().encode())
        return self._hash.hex()

    def _asset(self, outcome: AssetOutcome) -> None:
        result = outcome.result
        self._hash.add(outcome.table.name, result, outcome.context())
        names = Texts.of(quoted(name) for name in outcome.names)
        ids = self._ids.at(outcome.table.rows)
        self._write(quoted(outcome.table.name) + b": {\n")
        summary = figures(
            obligations=result.rows,
            gross=result.gross,
            net=result.net,
            liquidity_used=result.liquidity_used,
        )
        for key, figure in summary.items():
            self._field(key, figure)
        for key, limits in (("liquidity", outcome.liquidity), ("caps", outcome.caps)):
            if limits is not None:
                self._limits(key, names, limits)
        for key, amounts in (("positions", result.positions), ("movements", result.movements)):
            columns = [names, b':"', *amount_columns(amounts, self._engine), b'"']
            self._many(key, "{}", columns)
        if outcome.excluded:
            self._field("excluded", [outcome.names[number] for number in outcome.excluded])
        if outcome.rounds:
            self._field("rounds", [_round(entry, outcome.names) for entry in outcome.rounds])
        if outcome.before is not None:
            self._write(b'"bypass": {\n')
            columns = [b'"', ids.at(np.flatnonzero(outcome.before.settled)), b'"']
            self._many("settled", "[]", columns)
            value = outcome.before.value(outcome.table.columns)
            self._field("value", str(value), last=True)
            self._write(b"\n},\n")
        self._obligations(outcome, ids, names)
        self._field("value", str(result.value))
        if result.pairs is not None:
            self._pairs(outcome, names)
        self._transfers(outcome, names)
        self._write(b"}")

    def _obligations(self, outcome: AssetOutcome, ids: Texts, names: Texts) -> None:
        result, unsettled = outcome.result, outcome.result.unsettled
        self._many("settled", "[]", [b'"', ids.at(np.flatnonzero(result.settled)), b'"'])
        columns = _objects(
            UNSETTLED,
            _string(ids.at(unsettled.row)),
            _string(self._reasons.at(unsettled.reason)),
            [names.at(unsettled.participant)],
            _string(*amount_columns(unsettled.short, self._engine)),
        )
        self._many("unsettled", "[]", columns)
        lo, hi = result.discharged_lo, result.discharged_hi
        if lo is not None:
            rows = np.flatnonzero(lo if hi is None else lo | hi)
            amounts = decimals(lo[rows], None if hi is None else hi[rows], engine=self._engine)
            self._many("discharged", "{}", [b'"', ids.at(rows), b'":"', amounts, b'"'])

    def _pairs(self, outcome: AssetOutcome, names: Texts) -> None:
        pairs = outcome.result.pairs
        if pairs is not None:
            columns = _objects(
                PAIR,
                [names.at(pairs.debtor)],
                [names.at(pairs.creditor)],
                _string(*amount_columns(pairs.net, self._engine)),
                _string(*amount_columns(pairs.set_off, self._engine)),
            )
            self._many("pairs", "[]", columns)

    def _transfers(self, outcome: AssetOutcome, names: Texts) -> None:
        transfers = outcome.result.transfers
        if transfers is not None:
            # The agent's number is -1: the last entry.
            ends = Texts.of([*names.raw(), quoted(AGENT_NAME)])
            columns = _objects(
                TRANSFER,
                [ends.at(transfers.payer)],
                [ends.at(transfers.payee)],
                _string(*amount_columns(transfers.amount, self._engine)),
            )
            self._many("transfers", "[]", columns, last=outcome.proof is None)
        else:
            self._many("transfers", "[]", [Texts.of([])], last=outcome.proof is None)
        if outcome.proof is not None:
            potentials = wide.from_ints(outcome.proof.potentials)
            self._write(b'"certificate": {\n')
            self._many("potentials", "{}", [names, b":", *amount_columns(potentials, self._engine)])
            self._field("bound", str(outcome.proof.bound))
            self._field("gap", str(outcome.proof.gap), last=True)
            self._write(b"\n}\n")

    def _limits(self, key: str, names: Texts, limits: Mapping[int, int]) -> None:
        numbers = np.array(sorted(limits), np.int64)
        amounts = wide.from_ints(limits[number] for number in numbers.tolist())
        columns = [names.at(numbers), b':"', *amount_columns(amounts, self._engine), b'"']
        self._many(key, "{}", columns)

    def _field(self, key: str, value: Any, *, last: bool = False) -> None:
        text = json.dumps(value, ensure_ascii=False).encode()
        self._write(quoted(key) + b": " + text + (b"" if last else _SEPARATOR))

    def _many(
        self, key: str, brackets: str, columns: Sequence[Column], *, last: bool = False
    ) -> None:
        """Write a list or object with one entry a line, in pieces, so that no more is in memory at once."""
        entries = next(len(column) for column in columns if isinstance(column, Texts))
        self._write(quoted(key) + b": " + brackets[0].encode())
        for begin in range(0, entries, _PIECE_ROWS):
            end = min(begin + _PIECE_ROWS, entries)
            piece = slice(begin, end)
            chosen = [c.at(piece) if isinstance(c, Texts) else c for c in columns]
            lines = join_lines(_merged([b"\n", *chosen, b","]), engine=self._engine)
            self._write(lines[:-1] if end == entries else lines)
        closing = b"\n" if entries else b""
        self._write(closing + brackets[1].encode() + (b"\n" if last else _SEPARATOR))


def _round(entry: Round, names: Sequence[str]) -> dict[str, Any]:
    """Return one round of a recast as JSON says it."""
    short = [
        {"participant": names[number], "reason": Reason(reason).name, "missing": str(missing)}
        for number, reason, missing in zip(
            entry.short.tolist(), entry.reason.tolist(), wide.to_ints(entry.missing), strict=True
        )
    ]
    return {"out": [names[number] for number in entry.out.tolist()], "short": short}
