"""The check of a document: nothing in it can be changed unseen, whatever it is changed to, and nothing makes the check die."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import VerificationError
from clearing.netting.result import Method
from node.netting.obligation_file import read_cells
from node.netting.run import Options, Paying
from node.netting.table import ObligationTable
from node.netting.verify import check_document, check_limits
from tests.node.netting.document_kit import Row, csv_of, document_of, limits_of, runs

ROWS = [
    Row("A", "B", "BTC", 10),
    Row("B", "C", "BTC", 7),
    Row("C", "A", "BTC", 5),
    Row("A", "B", "BTC", 2, priority=9),
    Row("B", "A", "BTC", 4),
    Row("D", "A", "BTC", 3),
    Row("A", "B", "ETH", 2**128 - 1),
    Row("B", "A", "ETH", 2**100),
]
TABLE = read_cells(csv_of(ROWS))
LIMITS = limits_of({("BTC", "A"): 3, ("BTC", "B"): 6, ("BTC", "D"): 9, ("ETH", "B"): 2**99})
CAPS = limits_of({("BTC", "B"): 5, ("BTC", "C"): 0})
WITHOUT = frozenset({"D"})
RUNS = {
    "positions": Options(),
    "positions, pairwise": Options(paying=Paying.PAIRWISE),
    "positions, limited": Options(liquidity=LIMITS, caps=CAPS),
    "positions, recast": Options(liquidity=LIMITS, caps=CAPS, exclude=WITHOUT),
    "bilateral": Options(Method.BILATERAL),
    "bilateral, recast": Options(Method.BILATERAL, exclude=WITHOUT),
    "gridlock": Options(Method.GRIDLOCK, liquidity=LIMITS),
    "gridlock, capped": Options(Method.GRIDLOCK, liquidity=LIMITS, caps=CAPS, exclude=WITHOUT),
    "gridlock, bypass": Options(Method.GRIDLOCK, bypass=True, liquidity=LIMITS, caps=CAPS),
    "setoff": Options(Method.SETOFF),
    "setoff, money": Options(Method.SETOFF, liquidity=LIMITS, paying=Paying.PAIRWISE),
    "setoff, recast": Options(Method.SETOFF, exclude=WITHOUT),
}
DOCUMENTS = {name: document_of(TABLE, options) for name, options in RUNS.items()}


def check(document: Any, table: ObligationTable = TABLE) -> None:
    check_document(table, json.dumps(document).encode())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a document but what says which engine ran."""
    if path != ("engine",):
        yield path
        children: Any = value.items() if isinstance(value, dict) else ()
        if isinstance(value, list):
            children = enumerate(value)
        for key, child in children:
            yield from places(child, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def changes(value: Any) -> Iterator[Any]:
    """Yield what a value could be changed to: near to it, far from it, and of another type."""
    yield from (None, [], {}, "", 0, True, {"A": "1"}, ["r0"], "A", "1", "-1", 1 << 300, 0.5)
    if isinstance(value, str):
        yield from (value + " ", value + "0", value[:-1], value.upper())
        if value.lstrip("-").isdigit():
            number = int(value)
            yield from (str(number + 1), str(number - 1), str(-number), number, "0" + value)
        yield from ("LIQUIDITY", "CAP", "CYCLE", "COUNTERCLAIM", "EXCLUDED", "r1", "B", "C")
    if type(value) is int:
        yield from (value + 1, value - 1, -value, str(value), float(value))
    if isinstance(value, list):
        yield from (value[:-1], value[1:], value[::-1], [*value, *value[:1]], [*value, "r9"])
    if isinstance(value, dict):
        items = list(value.items())
        yield from (dict(items[:-1]), dict(items[1:]), dict(items[::-1]))
        yield value | {"further": "1"}


def same(one: Any, other: Any) -> bool:
    """Whether two documents say the same: equal text, so that 1, 1.0 and true differ and order counts."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_in_a_document_can_be_changed_unseen(name: str) -> None:
    document = DOCUMENTS[name]
    check(document)
    for path in places(document):
        if not path:
            continue
        value = at(document, path)
        for change in changes(value):
            if same(change, value) or (isinstance(value, dict) and change == value and fixed(path)):
                continue
            tampered = copy.deepcopy(document)
            at(tampered, path[:-1])[path[-1]] = change
            with pytest.raises(VerificationError):
                check(tampered)


def fixed(path: tuple[Any, ...]) -> bool:
    """Whether the object there has fixed keys, whose order says nothing."""
    named = ("positions", "movements", "potentials", "liquidity", "caps", "discharged", "assets")
    return path[-1] not in named


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_holds_for_its_own_file_only(name: str) -> None:
    for changed in (
        [*ROWS[:-1], Row("B", "A", "ETH", 2**100 + 1)],
        ROWS[:-1],
        [*ROWS, Row("A", "C", "BTC", 1)],
        [*ROWS, Row("A", "C", "XRP", 1)],
        [Row("B", "A", "BTC", 10), *ROWS[1:]],
        [],
    ):
        with pytest.raises(VerificationError):
            check(DOCUMENTS[name], read_cells(csv_of(changed)))


def test_another_method_is_not_what_ran() -> None:
    for name, document in DOCUMENTS.items():
        for method in Method:
            if document["method"] != method.name.lower():
                with pytest.raises(VerificationError):
                    check(document | {"method": method.name.lower()})
        assert name


def test_a_set_off_that_could_be_greater_says_so_and_a_false_gap_does_not_hold() -> None:
    document = copy.deepcopy(DOCUMENTS["setoff"])
    certificate = document["assets"]["BTC"]["certificate"]
    potentials = certificate["potentials"]
    # Potentials of zero prove no more than that nothing beyond gross is discharged.
    certificate["potentials"] = dict.fromkeys(potentials, 0)
    with pytest.raises(VerificationError, match="gap"):
        check(document)


@pytest.mark.parametrize("name", [name for name, options in RUNS.items() if options.liquidity])
def test_the_limits_can_be_compared_with_ones_own(name: str) -> None:
    document = DOCUMENTS[name]
    claims = check_document(TABLE, json.dumps(document).encode())
    check_limits(claims, TABLE, "liquidity", LIMITS)
    with pytest.raises(VerificationError, match="liquidity"):
        check_limits(claims, TABLE, "liquidity", limits_of({("BTC", "A"): 4}))
    if RUNS[name].caps is None:
        with pytest.raises(VerificationError, match="caps"):
            check_limits(claims, TABLE, "caps", CAPS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"method": NaN}',
        b'{"method": "positions", "method": "positions"}',
        b'{"method": "positions", "engine": {}, "assets": {}}',
        b'{"method": [], "engine": {}, "assets": {}, "hash": ""}',
        b'{"method": "positions", "engine": 1, "assets": {}, "hash": ""}',
        b'{"method": "positions", "engine": {}, "assets": [], "hash": ""}',
        b'{"method": "positions", "engine": {}, "assets": {"BTC": 1, "ETH": 1}, "hash": "'
        + b"0" * 64
        + b'"}',
        b'{"hash": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_document_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(VerificationError) as refused:
        check_document(TABLE, data)
    assert str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(DOCUMENTS)), json_values, st.data())
def test_any_value_anywhere_is_refused_and_not_a_crash(
    name: str, value: Any, data: st.DataObject
) -> None:
    document = copy.deepcopy(DOCUMENTS[name])
    paths = [path for path in places(document) if path]
    path = data.draw(st.sampled_from(paths))
    if same(at(document, path), value) or (at(document, path) == value and fixed(path)):
        return
    at(document, path[:-1])[path[-1]] = value
    with pytest.raises(VerificationError):
        check(document)


@given(runs(), st.data())
def test_a_changed_amount_anywhere_in_a_random_run_is_seen(
    run: tuple[ObligationTable, Options], data: st.DataObject
) -> None:
    table, options = run
    document = document_of(table, options)
    numbers = [
        path
        for path in places(document)
        if path and isinstance(at(document, path), str) and at(document, path).lstrip("-").isdigit()
    ]
    if not numbers:
        return
    path = data.draw(st.sampled_from(numbers))
    changed = int(at(document, path)) + data.draw(st.sampled_from([-(2**64), -1, 1, 2**64]))
    at(document, path[:-1])[path[-1]] = str(changed)
    with pytest.raises(VerificationError):
        check(document, table)
