"""What a JSON document of a netting run claims, parsed strictly: names become numbers, decimal strings integers.

Lives here: the form of a document. May not live here: whether its claims are true (verify.py).
Invariants kept: whatever is in the file, a document is either parsed whole or refused with a sentence that says where; order is
checked here, so that every run has one document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clearing.errors import VerificationError
from clearing.netting.limits import Reason
from clearing.netting.result import Method
from node.netting.table import AGENT_NAME, AssetTable, ObligationTable

AGENT: Final = -1
_POTENTIAL_MAX: Final = 1 << 190
_AMOUNT = re.compile(r"-?(?:0|[1-9][0-9]{0,59})", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REASONS: Final = {reason.name: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class UnsettledClaim:
    """One obligation that is said to stay unsettled."""

    row: int
    reason: Reason
    participant: int
    short: int


@dataclass(frozen=True, slots=True)
class ShortClaim:
    """One participant that is said to fall short in a round without the excluded."""

    participant: int
    reason: Reason
    missing: int


@dataclass(frozen=True, slots=True)
class RoundClaim:
    """One round: who is out from it on, and who falls short in it."""

    out: list[int]
    short: list[ShortClaim]


@dataclass(frozen=True, slots=True)
class PairClaim:
    """One pair: who owes the net to whom, and what each loses."""

    debtor: int
    creditor: int
    net: int
    set_off: int


@dataclass(frozen=True, slots=True)
class TransferClaim:
    """One transfer; AGENT is the settlement agent."""

    payer: int
    payee: int
    amount: int


@dataclass(frozen=True, slots=True, eq=False)
class BypassClaim:
    """What FIFO with bypass is said to have settled before, and the sum of it."""

    settled: NDArray[np.bool_]
    value: int


@dataclass(frozen=True, slots=True)
class CertificateClaim:
    """Potentials by participant, and the bound and gap that they are said to prove."""

    potentials: list[int]
    bound: int
    gap: int


@dataclass(frozen=True, slots=True, eq=False)
class AssetClaim:
    """What is said of one asset; participants and rows are numbers of its table, in whose order everything stands."""

    obligations: int
    gross: int
    net: int
    ratio: str
    liquidity_needed: int
    liquidity_used: int
    liquidity: dict[int, int] | None
    caps: dict[int, int] | None
    positions: list[int]
    movements: list[int]
    excluded: list[int]
    rounds: list[RoundClaim]
    bypass: BypassClaim | None
    settled: NDArray[np.bool_]
    unsettled: list[UnsettledClaim]
    discharged: list[int] | None
    value: int
    pairs: list[PairClaim] | None
    transfers: list[TransferClaim]
    certificate: CertificateClaim | None


@dataclass(frozen=True, slots=True)
class Claims:
    """A whole document; `assets` by name, in code point order."""

    method: Method
    assets: Mapping[str, dict[str, Any]]
    hash: str


def parse_document(data: bytes) -> Claims:
    """Parse the outermost level of a document.

    Raises: VerificationError: it is no JSON, or not of this form.
    """
    try:
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"the result is no JSON document: {error}") from error
    _keys("the document", document, ("method", "engine", "assets", "hash"))
    methods = {method.name.lower(): method for method in Method}
    if not isinstance(document["method"], str) or document["method"] not in methods:
        raise VerificationError(f"method: none of {', '.join(methods)}")
    for key in ("engine", "assets"):
        if not isinstance(document[key], dict):
            raise VerificationError(f"{key} is no object")
    if not isinstance(document["hash"], str) or not _HASH.fullmatch(document["hash"]):
        raise VerificationError("hash is no SHA-256 in hexadecimal")
    return Claims(methods[document["method"]], document["assets"], document["hash"])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has a key twice")
    return made


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _keys(where: str, value: Any, required: Sequence[str], optional: Iterable[str] = ()) -> None:
    if not isinstance(value, dict):
        raise VerificationError(f"{where} is no object")
    missing = [key for key in required if key not in value]
    if missing:
        raise VerificationError(f"{where} has no {missing[0]}")
    further = [key for key in value if key not in required and key not in optional]
    if further:
        raise VerificationError(f"{where} has {further[0]!r}, which means nothing")


class _AssetParser:
    """Parses what is said of one asset; `_at` says where, for sentences."""

    def __init__(self, table: ObligationTable, part: AssetTable) -> None:
        self._names = [table.parties[number] for number in part.parties]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._ids = table.ids.at(part.rows).strings()
        self._asset = part.name

    def _fail(self, where: str, what: str) -> VerificationError:
        return VerificationError(f"asset {self._asset!r}, {where}: {what}")

    def _amount(self, where: str, value: Any, *, negative: bool = False) -> int:
        if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or value == "-0":
            raise self._fail(where, "is no whole number written as a decimal string")
        number = int(value)
        if number < 0 and not negative:
            raise self._fail(where, "is negative")
        return number

    def _party(self, where: str, value: Any) -> int:
        number = self._numbers.get(value) if isinstance(value, str) else None
        if number is None:
            raise self._fail(where, "names no participant of this asset")
        return number

    def _reason(self, where: str, value: Any) -> Reason:
        reason = _REASONS.get(value) if isinstance(value, str) else None
        if reason is None:
            raise self._fail(where, "is no reason")
        return reason

    def _list(self, where: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self._fail(where, "is no list")
        return value

    def _amounts(self, where: str, value: Any) -> list[int]:
        """Parse an amount for every participant, in order."""
        if not isinstance(value, dict) or list(value) != self._names:
            raise self._fail(where, "does not name every participant once, in code point order")
        return [self._amount(where, amount, negative=True) for amount in value.values()]

    def _limits(self, where: str, value: Any) -> dict[int, int] | None:
        """Parse amounts of some participants, in order."""
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fail(where, "is no object")
        limits = {self._party(where, name): self._amount(where, x) for name, x in value.items()}
        if list(limits) != sorted(limits):
            raise self._fail(where, "is not in code point order")
        return limits

    def _rows(self, where: str, ids: Sequence[Any]) -> list[int]:
        """Find the rows of ids that stand in file order."""
        rows, row = [], -1
        for given in ids:
            row += 1
            while row < len(self._ids) and self._ids[row] != given:
                row += 1
            if row == len(self._ids):
                raise self._fail(where, "an id is unknown, double, or not in file order")
            rows.append(row)
        return rows

    def _mask(self, where: str, value: Any) -> NDArray[np.bool_]:
        mask = np.zeros(len(self._ids), np.bool_)
        mask[self._rows(where, self._list(where, value))] = True
        return mask

    def _unsettled(self, value: Any) -> list[UnsettledClaim]:
        entries = self._list("unsettled", value)
        for entry in entries:
            self._form("unsettled", entry, ("id", "reason", "participant", "short"))
        rows = self._rows("unsettled", [entry["id"] for entry in entries])
        return [
            UnsettledClaim(
                row,
                self._reason("unsettled", entry["reason"]),
                self._party("unsettled", entry["participant"]),
                self._amount("unsettled", entry["short"]),
            )
            for row, entry in zip(rows, entries, strict=True)
        ]

    def _form(self, where: str, entry: Any, keys: Sequence[str]) -> None:
        if (
            not isinstance(entry, dict)
            or len(entry) != len(keys)
            or any(k not in entry for k in keys)
        ):
            raise self._fail(where, f"an entry does not have {', '.join(keys)} and nothing else")

    def _discharged(self, value: Any) -> list[int] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fail("discharged", "is no object")
        amounts = [0] * len(self._ids)
        for row, text in zip(self._rows("discharged", list(value)), value.values(), strict=True):
            amounts[row] = self._amount("discharged", text)
            if amounts[row] == 0:
                raise self._fail("discharged", "an obligation that loses nothing is listed")
        return amounts

    def _rounds(self, value: Any) -> list[RoundClaim]:
        rounds = []
        for entry in self._list("rounds", value):
            self._form("rounds", entry, ("out", "short"))
            short = self._list("rounds", entry["short"])
            for one in short:
                self._form("rounds", one, ("participant", "reason", "missing"))
            rounds.append(
                RoundClaim(
                    [self._party("rounds", name) for name in self._list("rounds", entry["out"])],
                    [
                        ShortClaim(
                            self._party("rounds", one["participant"]),
                            self._reason("rounds", one["reason"]),
                            self._amount("rounds", one["missing"]),
                        )
                        for one in short
                    ],
                )
            )
        return rounds

    def _pairs(self, value: Any) -> list[PairClaim] | None:
        if value is None:
            return None
        for entry in self._list("pairs", value):
            self._form("pairs", entry, ("debtor", "creditor", "net", "set_off_each_way"))
        return [
            PairClaim(
                self._party("pairs", entry["debtor"]),
                self._party("pairs", entry["creditor"]),
                self._amount("pairs", entry["net"]),
                self._amount("pairs", entry["set_off_each_way"]),
            )
            for entry in value
        ]

    def _transfers(self, value: Any) -> list[TransferClaim]:
        for entry in self._list("transfers", value):
            self._form("transfers", entry, ("from", "to", "amount"))

        def end(name: Any) -> int:
            return AGENT if name == AGENT_NAME else self._party("transfers", name)

        return [
            TransferClaim(
                end(entry["from"]), end(entry["to"]), self._amount("transfers", entry["amount"])
            )
            for entry in value
        ]

    def _bypass(self, value: Any) -> BypassClaim | None:
        if value is None:
            return None
        self._form("bypass", value, ("settled", "value"))
        return BypassClaim(
            self._mask("bypass", value["settled"]), self._amount("bypass", value["value"])
        )

    def _certificate(self, value: Any) -> CertificateClaim | None:
        if value is None:
            return None
        self._form("certificate", value, ("potentials", "bound", "gap"))
        potentials = value["potentials"]
        if not isinstance(potentials, dict) or list(potentials) != self._names:
            raise self._fail("potentials", "not every participant once, in code point order")
        if any(type(q) is not int or abs(q) > _POTENTIAL_MAX for q in potentials.values()):
            raise self._fail("potentials", "one is no whole number, or beyond 2^190")
        bound = self._amount("bound", value["bound"])
        return CertificateClaim(
            list(potentials.values()), bound, self._amount("gap", value["gap"], negative=True)
        )

    def parse(self, value: Any) -> AssetClaim:
        """Parse everything that is said of the asset."""
        _keys(f"asset {self._asset!r}", value, _REQUIRED, _OPTIONAL)
        if type(value["obligations"]) is not int:
            raise self._fail("obligations", "is no whole number")
        if type(value["ratio"]) is not str:
            raise self._fail("ratio", "is no string")
        excluded = self._list("excluded", value.get("excluded", []))
        return AssetClaim(
            obligations=value["obligations"],
            gross=self._amount("gross", value["gross"]),
            net=self._amount("net", value["net"]),
            ratio=value["ratio"],
            liquidity_needed=self._amount("liquidity_needed", value["liquidity_needed"]),
            liquidity_used=self._amount("liquidity_used", value["liquidity_used"]),
            liquidity=self._limits("liquidity", value.get("liquidity")),
            caps=self._limits("caps", value.get("caps")),
            positions=self._amounts("positions", value["positions"]),
            movements=self._amounts("movements", value["movements"]),
            excluded=[self._party("excluded", name) for name in excluded],
            rounds=self._rounds(value.get("rounds", [])),
            bypass=self._bypass(value.get("bypass")),
            settled=self._mask("settled", value["settled"]),
            unsettled=self._unsettled(value["unsettled"]),
            discharged=self._discharged(value.get("discharged")),
            value=self._amount("value", value["value"]),
            pairs=self._pairs(value.get("pairs")),
            transfers=self._transfers(value["transfers"]),
            certificate=self._certificate(value.get("certificate")),
        )


_REQUIRED: Final = (
    *("obligations", "gross", "net", "ratio", "liquidity_needed", "liquidity_used"),
    *("positions", "movements", "settled", "unsettled", "value", "transfers"),
)
_OPTIONAL: Final = (
    *("liquidity", "caps", "excluded", "rounds", "bypass"),
    *("discharged", "pairs", "certificate"),
)


def parse_asset(claim: Any, table: ObligationTable, part: AssetTable) -> AssetClaim:
    """Parse what a document says of one asset of a file.

    Raises: VerificationError: it is not of this form, or names what is not in the file.
    """
    return _AssetParser(table, part).parse(claim)
