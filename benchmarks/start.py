"""Start of a node's ledger with a long settled history and a small open book; bytes on disk an obligation.

History is made by the real path: submissions of 10,000 items, affirmed, netted and settled through apply and the store.
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np

from benchmarks.cycle import Driver, counterparty_ranges, grouped_records
from benchmarks.measure import Figure, Samples, Target
from benchmarks.workload import CENTRAL_BANK, FIRST_BANK
from clearing.records.instruction import EVIDENCE_LAYOUT, REFERENCE_LAYOUT, InstructionKind
from clearing.rows import Table, key_u32
from clearing.rules.settlement import SettlementInstruction
from clearing.state import State
from clearing.types import SettlementKind
from node.store.startup import open_checked
from node.store.store import Store

ITEMS = 10_000
PARTICIPANTS, ASSETS = 200, 3


def submit_and_affirm(driver: Driver, rng: np.random.Generator, submissions: int) -> None:
    """Put submissions into the open book, affirmed by their counterparties."""
    for number in range(submissions):
        submitter = FIRST_BANK + number % (PARTICIPANTS - FIRST_BANK)
        obligations = grouped_records(rng, ITEMS, submitter, PARTICIPANTS, ASSETS)
        result = driver.block(driver.author.submission(submitter, obligations))
        index = result.outcomes[0].index
        ranges = counterparty_ranges(obligations, submitter)
        driver.block(*(driver.author.affirmation(actor, index, *r) for actor, r in ranges.items()))


def settle(driver: Driver) -> None:
    """Net everything affirmed and carry the cycle through to its end, as the settlement agent."""
    author = driver.author
    driver.block(author.instruction(InstructionKind.RUN_CYCLE, CENTRAL_BANK))
    cycle = driver.state.last_cycle
    rows = list(driver.store.scan(Table.SETTLEMENTS, key_u32(cycle)))
    for kind in (SettlementKind.PAY_IN, SettlementKind.PAY_OUT):
        numbers = [
            int.from_bytes(key[4:], "big")
            for key, value in rows
            if SettlementInstruction.decode(value).kind is kind
        ]
        evidence = [
            EVIDENCE_LAYOUT.encode(cycle=cycle, number=number, evidence_hash=bytes(32))
            for number in numbers
        ]
        references = [REFERENCE_LAYOUT.encode(cycle=cycle, number=number) for number in numbers]
        for instruction, payloads in (
            (InstructionKind.EVIDENCE, evidence),
            (InstructionKind.CONFIRM, references),
        ):
            driver.block(*(author.instruction(instruction, CENTRAL_BANK, p) for p in payloads))


def run(*, quick: bool) -> list[Figure]:
    """Measure with 10,000,000 settled and 100,000 open obligations (200,000 and 20,000 when quick)."""
    history, still_open = (20, 2) if quick else (1_000, 10)
    rng = np.random.default_rng(17)
    opened = Samples()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        driver = Driver(directory, PARTICIPANTS, ASSETS)
        for _ in range(10):
            submit_and_affirm(driver, rng, history // 10)
            settle(driver)
        submit_and_affirm(driver, rng, still_open)
        root = driver.state.state_root
        bytes_used = driver.store.usage().used_bytes
        driver.store.close()

        def start() -> tuple[Store, State]:
            store = open_checked(directory)
            return store, State.load(store)

        for _ in range(3):
            store, state = opened.timed(start)
            same = state.state_root == root
            store.close()
    settled, waiting = history * ITEMS, still_open * ITEMS
    return [
        Figure(
            f"start, {settled:,} settled and {waiting:,} open obligations",
            round(min(opened.seconds), 3),
            "s",
            Target(3, "s", at_most=True),
            {"same_state_root": same, **opened.summary()},
        ),
        Figure(
            "disk, all tables of a full replica, submissions of 10,000",
            round(bytes_used / (settled + waiting), 1),
            "bytes an obligation",
            Target(300, "bytes", at_most=True),
        ),
    ]
