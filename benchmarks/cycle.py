"""Affirmation, cut-off, netting and sealing of a large open book, through apply to durable.

Submissions of 10,000 items towards ten counterparties each, so that an affirmation names a range of about 1,000 items; the
open book spreads over all participants.
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from benchmarks.workload import CENTRAL_BANK, FIRST_BANK, GENESIS_MS, Author, records, register
from clearing import ledger
from clearing.errors import RejectCode, invariant
from clearing.netting.warm import warm as warm_up
from clearing.records.instruction import InstructionKind
from clearing.records.obligation import DTYPE
from clearing.records.transaction import Transaction
from clearing.state import State
from node.store.store import Store

COUNTERPARTIES = 10


class Driver:
    """A store and its state, driven block by block; every block is durable when `block` returns."""

    def __init__(self, directory: pathlib.Path, participants: int, assets: int) -> None:
        """Make the store and commit genesis."""
        self.store = Store.open(directory, create=True)
        self.store.commit(ledger.genesis(GENESIS_MS, register(participants, assets)))
        self.state = State.load(self.store)
        self.author = Author(self.state.network_id)

    def block(self, *transactions: Transaction) -> ledger.BlockResult:
        """Apply, commit and advance; every transaction must be accepted."""
        time_ms = self.state.time_ms + 1000
        block = ledger.Block(self.state.height + 1, time_ms, transactions)
        result = ledger.apply(self.state, block)
        codes = {outcome.code for outcome in result.outcomes}
        invariant(codes <= {RejectCode.OK}, f"the workload is refused: {codes}")
        self.store.commit(result)
        self.state.advance(result.delta)
        return result


def counterparty_ranges(obligations: bytes, submitter: int) -> dict[int, list[tuple[int, int]]]:
    """Return, for each counterparty, the ranges of items that it has to affirm; records are sorted by it."""
    view = np.frombuffer(obligations, dtype=DTYPE)
    other = np.where(view["debtor"] == submitter, view["creditor"], view["debtor"])
    starts = np.flatnonzero(np.diff(other, prepend=-1))
    ends = [*starts[1:].tolist(), len(other)]
    ranges: dict[int, list[tuple[int, int]]] = {}
    for start, end in zip(starts.tolist(), ends, strict=True):
        ranges.setdefault(int(other[start]), []).append((start, end - 1))
    return ranges


def grouped_records(
    rng: np.random.Generator, items: int, submitter: int, participants: int, assets: int
) -> bytes:
    """Return records towards COUNTERPARTIES banks, those of one bank in a row."""
    rows = np.frombuffer(records(rng, items, submitter, participants, assets), DTYPE).copy()
    banks = participants - FIRST_BANK
    other = (submitter + 1 - FIRST_BANK + np.arange(items) * COUNTERPARTIES // items) % banks
    owes = rows["debtor"] == submitter
    rows["debtor"] = np.where(owes, submitter, other + FIRST_BANK)
    rows["creditor"] = np.where(owes, other + FIRST_BANK, submitter)
    return rows.tobytes()


def run(*, quick: bool) -> list[Figure]:
    """Measure at 1,000,000 obligations, 500 participants, 3 assets (100,000 when quick)."""
    total, items, participants, assets = (100_000 if quick else 1_000_000), 10_000, 500, 3
    rng = np.random.default_rng(7)
    affirm, cut_off = Samples(), Samples()
    warm_up()
    with tempfile.TemporaryDirectory() as directory:
        driver = Driver(pathlib.Path(directory), participants, assets)
        affirmations = []
        for number in range(total // items):
            submitter = FIRST_BANK + number
            ordered = grouped_records(rng, items, submitter, participants, assets)
            result = driver.block(driver.author.submission(submitter, ordered))
            index = result.outcomes[0].index
            affirmations += [
                driver.author.affirmation(actor, index, *ranges)
                for actor, ranges in counterparty_ranges(ordered, submitter).items()
            ]
        affirm.timed(lambda: driver.block(*affirmations))
        run_cycle = driver.author.instruction(InstructionKind.RUN_CYCLE, CENTRAL_BANK)
        result = cut_off.timed(lambda: driver.block(run_cycle))
        driver.store.close()
    return [
        Figure(
            f"affirm {total:,} obligations by ranges, to durable",
            round(affirm.seconds[0], 3),
            "s",
            Target(1, "s", at_most=True),
            {
                "affirmations": len(affirmations),
                "submissions": total // items,
                "cpu_s": round(affirm.cpu_seconds[0], 3),
            },
        ),
        Figure(
            f"cut-off, net and seal {total:,} open obligations in {assets} assets, to durable",
            round(cut_off.seconds[0], 3),
            "s",
            Target(1, "s", at_most=True),
            {"rows_written": len(result.delta.rows), "cpu_s": round(cut_off.cpu_seconds[0], 3)},
        ),
    ]
