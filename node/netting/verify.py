"""Checks a document of a netting run against its file: by definition, in plain integers, with no solver and no kernel.

Lives here: what must be true of every result, and of each method. May not live here: the form of the document (claims.py), or
any code that computed the result; only the certificate of a set-off is checked by the library's own verifier, which shares
nothing with its solvers.
Invariants kept: everything in a document but `engine` is checked; the first thing that does not hold ends the check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearing.errors import VerificationError
from clearing.netting import certificate, wide
from clearing.netting.bilateral import Pairs
from clearing.netting.engine import Engine
from clearing.netting.gridlock import Unsettled
from clearing.netting.limits import Reason
from clearing.netting.result import Method, NettingResult
from clearing.netting.transfers import Transfers
from node.netting.claims import (
    AGENT,
    AssetClaim,
    Claims,
    PairClaim,
    RoundClaim,
    ShortClaim,
    TransferClaim,
    UnsettledClaim,
    parse_asset,
    parse_document,
)
from node.netting.limits_file import LimitTable
from node.netting.outcome import DocumentHash, Proof, context_bytes
from node.netting.table import AssetTable, ObligationTable, by_asset

NO_LIMIT: Final = 1 << 200
"""More than anybody can owe."""

PASSES_MAX: Final = 256
"""How often FIFO with bypass goes through its queue at most."""


class AssetCheck:
    """The checks of one asset; each raises VerificationError where something does not hold.

    Rows and participants are numbers of the asset's table. Plain lists and integers throughout: what is checked here is
    checked by the definition of the methods, not by how they are computed.
    """

    def __init__(self, part: AssetTable, method: Method, claim: AssetClaim) -> None:
        """Take the obligations of the file and what is said of them."""
        columns = part.columns
        self.part = part
        self.method = method
        self.claim = claim
        self.debtor: list[int] = columns.debtor.tolist()
        self.creditor: list[int] = columns.creditor.tolist()
        self.amount = columns.amounts()
        self.queue = list(range(columns.rows))
        if columns.priority is not None:
            priority = columns.priority.tolist()
            self.queue.sort(key=lambda row: -priority[row])
        self.kept = [True] * columns.rows
        self.settled: list[bool] = claim.settled.tolist()

    def run(self) -> None:
        """Check everything."""
        self._totals()
        self._partition()
        dropped = self._recast()
        expected = {
            Method.POSITIONS: self._positions,
            Method.BILATERAL: self._bilateral,
            Method.GRIDLOCK: self._gridlock,
            Method.SETOFF: self._setoff,
        }[self.method]()
        reasons = sorted([*dropped, *expected], key=lambda entry: entry.row)
        self.hold("unsettled", self.claim.unsettled, reasons)
        self._movements()
        self._transfers()

    def hold(self, what: str, said: object, found: object) -> None:
        """Refuse where what is said is not what was found."""
        if said == found:
            return
        if isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
            said, found = next(pair for pair in zip(said, found, strict=True) if pair[0] != pair[1])
        plain = isinstance(found, (int, str))
        shown = f"{said} is said, {found} is true" if plain else "does not hold"
        raise VerificationError(f"asset {self.part.name!r}, {what}: {shown}")

    def absent(self, **claims: object) -> None:
        """Refuse claims that the method does not make."""
        for what, claim in claims.items():
            if claim is not None:
                raise VerificationError(
                    f"asset {self.part.name!r}, {what}: {self.method.name.lower()} has none"
                )

    def moved(self, amounts: Iterable[int]) -> list[int]:
        """Sum what each participant receives (+) or pays (-) when each row moves its amount."""
        net = [0] * self.part.participants
        for debtor, creditor, amount in zip(self.debtor, self.creditor, amounts, strict=True):
            net[debtor] -= amount
            net[creditor] += amount
        return net

    def _totals(self) -> None:
        claim = self.claim
        positions = self.moved(self.amount)
        gross = sum(self.amount)
        net = sum(position for position in positions if position > 0)
        self.hold("obligations", claim.obligations, len(self.amount))
        self.hold("gross", claim.gross, gross)
        self.hold("positions", claim.positions, positions)
        self.hold("net", claim.net, net)
        self.hold("liquidity_needed", claim.liquidity_needed, net)
        millionths = (gross - net) * 10**6 // gross
        self.hold("ratio", claim.ratio, f"{millionths // 10**6}.{millionths % 10**6:06d}")
        used = sum(amount for amount in claim.movements if amount > 0)
        self.hold("liquidity_used", claim.liquidity_used, used)

    def _partition(self) -> None:
        """Every row is settled or unsettled, not both."""
        seen = list(self.settled)
        for entry in self.claim.unsettled:
            if seen[entry.row]:
                raise VerificationError(
                    f"asset {self.part.name!r}: an obligation is settled and unsettled"
                )
            seen[entry.row] = True
        if not all(seen):
            raise VerificationError(
                f"asset {self.part.name!r}: an obligation is neither settled nor unsettled"
            )

    def _limits(self) -> list[int]:
        """Return the greatest net debit of each participant: the lesser of liquidity and cap."""
        return [min(self._limit(number)) for number in range(self.part.participants)]

    def _limit(self, participant: int) -> tuple[int, int]:
        """Return liquidity and cap of a participant; by positions liquidity is checked only where it is given."""
        claim = self.claim
        absent = NO_LIMIT if self.method is Method.POSITIONS and claim.liquidity is None else 0
        liquidity, caps = claim.liquidity or {}, claim.caps or {}
        return liquidity.get(participant, absent), caps.get(participant, NO_LIMIT)

    def _reason(self, participant: int) -> Reason:
        """Return which limit of a participant is the lesser; liquidity where they are equal."""
        liquidity, cap = self._limit(participant)
        return Reason.CAP if cap < liquidity else Reason.LIQUIDITY

    def _recast(self) -> list[UnsettledClaim]:
        """Check the rounds without the excluded. Returns: the rows left out, with their reasons."""
        claim, method = self.claim, self.method
        limited = claim.liquidity is not None or claim.caps is not None
        limits = self._limits() if method is Method.POSITIONS and limited else None
        if not claim.excluded and limits is None:
            self.hold("rounds", claim.rounds, [])
            return []
        out, rounds, dropped = (
            sorted(set(claim.excluded)),
            list[RoundClaim](),
            list[UnsettledClaim](),
        )
        self.hold("excluded", claim.excluded, out)
        why = dict.fromkeys(out, (Reason.EXCLUDED, 0))
        while True:
            gone = set(out)
            for row, parties in enumerate(zip(self.debtor, self.creditor, strict=True)):
                first = next((number for number in parties if number in gone), None)
                if first is not None and self.kept[row]:
                    self.kept[row] = False
                    dropped.append(UnsettledClaim(row, why[first][0], first, why[first][1]))
            kept = (amount * keep for amount, keep in zip(self.amount, self.kept, strict=True))
            net = self.moved(kept)
            short = [
                ShortClaim(number, self._reason(number), -net[number] - limit)
                for number, limit in enumerate(limits or [])
                if -net[number] > limit
            ]
            rounds.append(RoundClaim(out, short))
            out = [entry.participant for entry in short]
            why = {entry.participant: (entry.reason, entry.missing) for entry in short}
            if not out or not claim.excluded:
                break
        self.hold("rounds", claim.rounds, rounds)
        return dropped

    def _positions(self) -> list[UnsettledClaim]:
        """Everything that is kept settles."""
        claim = self.claim
        self.absent(bypass=claim.bypass, discharged=claim.discharged, pairs=claim.pairs)
        self.absent(certificate=claim.certificate)
        self.hold("settled", self.settled, self.kept)
        return []

    def _gridlock(self) -> list[UnsettledClaim]:
        """The greatest set within the limits that keeps queues in order, after what bypass settled."""
        claim = self.claim
        self.absent(discharged=claim.discharged, pairs=claim.pairs, certificate=claim.certificate)
        limits = self._limits()
        before = [False] * len(self.amount)
        if claim.bypass is not None:
            before = self._bypass(limits)
            self.hold("bypass", claim.bypass.settled.tolist(), before)
            value = sum(a for a, is_in in zip(self.amount, before, strict=True) if is_in)
            self.hold("value of bypass", claim.bypass.value, value)
        stays = list(self.kept)
        net = self.moved(a * keep for a, keep in zip(self.amount, stays, strict=True))
        queues: dict[int, list[int]] = defaultdict(list)
        for row in self.queue:
            if stays[row] and not before[row]:
                queues[self.debtor[row]].append(row)
        # Whatever is taken out here is in no feasible set, so the order does not matter.
        overdrawn = [number for number, amount in enumerate(net) if -amount > limits[number]]
        while overdrawn:
            payer = overdrawn.pop()
            while -net[payer] > limits[payer]:
                row = queues[payer].pop()
                stays[row] = False
                net[payer] += self.amount[row]
                net[self.creditor[row]] -= self.amount[row]
                overdrawn.append(self.creditor[row])
        self.hold("settled", self.settled, stays)
        return self._waiting(net, limits)

    def _waiting(self, net: list[int], limits: list[int]) -> list[UnsettledClaim]:
        """Say for each row that waits how much its payer's limit lacks for it and those before it in the queue."""
        debit, found = [-amount for amount in net], []
        for row in self.queue:
            if self.kept[row] and not self.settled[row]:
                payer = self.debtor[row]
                debit[payer] += self.amount[row]
                short = debit[payer] - limits[payer]
                found.append(UnsettledClaim(row, self._reason(payer), payer, short))
        return found

    def _bypass(self, limits: list[int]) -> list[bool]:
        """Settle row by row in the order of the queue what its payer can pay, again and again."""
        left, settled = list(limits), [False] * len(self.amount)
        queue = [row for row in self.queue if self.kept[row]]
        for _ in range(PASSES_MAX):
            over = []
            for row in queue:
                if left[self.debtor[row]] < self.amount[row]:
                    over.append(row)
                else:
                    left[self.debtor[row]] -= self.amount[row]
                    left[self.creditor[row]] += self.amount[row]
                    settled[row] = True
            if len(over) == len(queue):
                break
            queue = over
        return settled

    def _discharges(self) -> list[int]:
        """Return what each row loses, at most its amount, and none of those left out."""
        if self.claim.discharged is None:
            raise VerificationError(f"asset {self.part.name!r} has no discharged")
        for row, loss in enumerate(self.claim.discharged):
            if loss > self.amount[row] * self.kept[row]:
                raise VerificationError(
                    f"asset {self.part.name!r}, discharged: an obligation loses more than it may"
                )
        return self.claim.discharged

    def _in_queue_order(self, totals: dict[tuple[int, int], int]) -> None:
        """Between the same debtor and creditor, earlier rows of the queue lose first."""
        expected, left = [0] * len(self.amount), dict(totals)
        for row in self.queue:
            pair = self.debtor[row], self.creditor[row]
            if self.kept[row]:
                expected[row] = min(self.amount[row], left.get(pair, 0))
                left[pair] = left.get(pair, 0) - expected[row]
        self.hold("discharged, in queue order", self.claim.discharged, expected)

    def _rests(self, reason: Reason, party: Sequence[int]) -> list[UnsettledClaim]:
        """Check that those are settled that lose everything. Returns: the others, with what is left of them."""
        rests = [a - d for a, d in zip(self.amount, self._discharges(), strict=True)]
        done = [keep and rest == 0 for keep, rest in zip(self.kept, rests, strict=True)]
        self.hold("settled", self.settled, done)
        return [
            UnsettledClaim(row, reason, party[row], rest)
            for row, rest in enumerate(rests)
            if self.kept[row] and rest
        ]

    def _bilateral(self) -> list[UnsettledClaim]:
        """Each pair loses the lesser of what the two owe each other."""
        claim = self.claim
        self.absent(bypass=claim.bypass, certificate=claim.certificate)
        self.absent(liquidity=claim.liquidity, caps=claim.caps)
        owed: dict[tuple[int, int], int] = defaultdict(int)
        for row, amount in enumerate(self.amount):
            if self.kept[row]:
                owed[self.debtor[row], self.creditor[row]] += amount
        pairs, totals = [], {}
        for one, other in sorted({(min(pair), max(pair)) for pair in owed}):
            there, back = owed.get((one, other), 0), owed.get((other, one), 0)
            ends = (one, other) if there >= back else (other, one)
            pairs.append(PairClaim(*ends, abs(there - back), min(there, back)))
            totals[one, other] = totals[other, one] = min(there, back)
        self.hold("pairs", claim.pairs, pairs)
        self._discharges()
        self._in_queue_order(totals)
        return self._rests(Reason.COUNTERCLAIM, self.creditor)

    def _setoff(self) -> list[UnsettledClaim]:
        """The potentials prove the bound that is said."""
        claim, proof = self.claim, self.claim.certificate
        self.absent(bypass=claim.bypass, pairs=claim.pairs, caps=claim.caps)
        if proof is None:
            raise VerificationError(f"asset {self.part.name!r} has no certificate")
        losses, totals = self._discharges(), defaultdict[tuple[int, int], int](int)
        for row, loss in enumerate(losses):
            totals[self.debtor[row], self.creditor[row]] += loss
        self._in_queue_order(totals)
        columns = self.part.columns.take(np.array(self.kept, np.bool_))
        lo, hi = wide.split_amounts(
            [loss for loss, keep in zip(losses, self.kept, strict=True) if keep]
        )
        given = claim.liquidity
        liquidity = None
        if given is not None:
            liquidity = wide.from_ints(given.get(n, 0) for n in range(self.part.participants))
        gap = certificate.verify(
            columns, lo, hi, proof.potentials, liquidity, engine=Engine.PORTABLE
        )
        self.hold("gap", proof.gap, gap)
        self.hold("bound", proof.bound, sum(losses) + gap)
        return self._rests(Reason.CYCLE, self.debtor)

    def _movements(self) -> None:
        """Movements are the net of what is discharged or settled, and the value is the sum of it."""
        moving = self.claim.discharged
        if moving is None:
            moving = [a * done for a, done in zip(self.amount, self.settled, strict=True)]
        self.hold("movements", self.claim.movements, self.moved(moving))
        self.hold("value", self.claim.value, sum(moving))

    def _transfers(self) -> None:
        """The transfers pay the movements, in one of the two ways and in its order."""
        ways = through_agent(self.claim.movements), pairwise(self.claim.movements)
        if self.claim.transfers not in ways:
            raise VerificationError(
                f"asset {self.part.name!r}, transfers: they do not pay the movements in order"
            )


def through_agent(movements: Sequence[int]) -> list[TransferClaim]:
    """Return all pay-ins and then all pay-outs, by participant."""
    pay_ins = [TransferClaim(n, AGENT, -amount) for n, amount in enumerate(movements) if amount < 0]
    return pay_ins + [TransferClaim(AGENT, n, x) for n, x in enumerate(movements) if x > 0]


def pairwise(movements: Sequence[int]) -> list[TransferClaim]:
    """Return what results when the first that owes pays the first that is owed, the lesser of both, until all is paid."""
    left = list(movements)
    payers = [number for number, amount in enumerate(left) if amount < 0]
    payees = [number for number, amount in enumerate(left) if amount > 0]
    found, at = [], 0
    for payee in payees:
        while left[payee]:
            payer = payers[at]
            amount = min(left[payee], -left[payer])
            found.append(TransferClaim(payer, payee, amount))
            left[payer] += amount
            left[payee] -= amount
            at += left[payer] == 0
    return found


def check_document(
    table: ObligationTable, data: bytes, advance: Callable[[int], None] = lambda _: None
) -> Claims:
    """Check that a document is the result of netting the obligations of a file.

    advance: called with the number of obligations whose asset has been checked.

    Returns: its claims, all true, except that nothing says which engine ran.
    Raises: VerificationError: the first that is not.
    """
    claims = parse_document(data)
    if list(claims.assets) != list(table.assets):
        raise VerificationError("the assets are not those of the file, in code point order")
    total, done = DocumentHash(), 0
    for part in by_asset(table):
        claim = parse_asset(claims.assets[part.name], table, part)
        AssetCheck(part, claims.method, claim).run()
        before = None if claim.bypass is None else claim.bypass.settled
        context = context_bytes(claim.liquidity, claim.caps, claim.excluded, before)
        done += len(part.rows)
        advance(done)
        total.add(part.name, result_of(claims.method, part, claim), context)
    if claims.hash != total.hex():
        raise VerificationError(f"hash: {claims.hash} is said, {total.hex()} is true")
    return claims


def check_limits(claims: Claims, table: ObligationTable, key: str, limits: LimitTable) -> None:
    """Check that a document was made with these limits; `key` is "liquidity" or "caps", the claims have been checked.

    Raises: VerificationError.
    """
    for asset in table.assets:
        claim, given = claims.assets[asset], limits.of(asset)
        expected = {name: str(given[name]) for name in claim["positions"] if name in given}
        if claim.get(key) != expected:
            raise VerificationError(f"asset {asset!r}, {key}: not those of the file that is given")


def result_of(method: Method, part: AssetTable, claim: AssetClaim) -> NettingResult:
    """Put a claim into the library's record, for its canonical bytes."""
    lo, hi = (None, None) if claim.discharged is None else wide.split_amounts(claim.discharged)
    pairs = claim.pairs or []
    return NettingResult(
        method=method,
        rows=claim.obligations,
        gross=claim.gross,
        positions=wide.from_ints(claim.positions),
        touched=np.ones(part.participants, np.bool_),
        movements=wide.from_ints(claim.movements),
        settled=claim.settled,
        unsettled=Unsettled(
            _numbers(entry.row for entry in claim.unsettled),
            _numbers(entry.reason for entry in claim.unsettled).astype(np.uint8),
            _numbers(entry.participant for entry in claim.unsettled),
            wide.from_ints(entry.short for entry in claim.unsettled),
        ),
        value=claim.value,
        discharged_lo=lo,
        discharged_hi=hi,
        pairs=Pairs(
            _numbers(pair.debtor for pair in pairs).astype(np.uint32),
            _numbers(pair.creditor for pair in pairs).astype(np.uint32),
            wide.from_ints(pair.net for pair in pairs),
            wide.from_ints(pair.set_off for pair in pairs),
        ),
        transfers=Transfers(
            _numbers(transfer.payer for transfer in claim.transfers),
            _numbers(transfer.payee for transfer in claim.transfers),
            wide.from_ints(transfer.amount for transfer in claim.transfers),
        ),
        certificate=None
        if claim.certificate is None
        else Proof(claim.certificate.potentials, 0, 0),
    )


def _numbers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64)
