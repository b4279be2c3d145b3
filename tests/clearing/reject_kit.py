"""The register of cases that must be refused, each with its one code; cases stand in test_reject_codes.py and beside it."""

from __future__ import annotations

from collections.abc import Callable

from clearing.errors import RejectCode
from clearing.records.transaction import Transaction
from tests.clearing.core_kit import Core

Case = Callable[[Core], Transaction]
CASES: list[tuple[RejectCode, Case]] = []


def case(code: RejectCode) -> Callable[[Case], Case]:
    """Register a case that must get this code."""

    def register(make: Case) -> Case:
        CASES.append((code, make))
        return make

    return register
