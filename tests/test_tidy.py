"""The rules of the house as tests: each finds offenders by file and line, and says what to write instead.

What a linter can check is checked by ruff and import-linter (pyproject.toml). Here stands what they cannot: the
purity of clearing/, lengths, docstrings, frozen numbers, and that vectors name their source.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Iterator

import pytest

from clearing.errors import REMEDIES, RejectCode

ROOT = pathlib.Path(__file__).parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

PURE_IMPORTS = {
    *(
        "__future__",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "collections.abc",
        "dataclasses",
    ),
    *("enum", "functools", "hashlib", "heapq", "itertools", "math", "operator", "re", "struct"),
    *("typing", "numpy", "numpy.typing"),
}
"""What every module of clearing/ may import besides clearing itself and `cryptography`."""

PURE_IMPORTS_OF_ONE = {
    "clearing/netting/engine.py": {"importlib.util", "numba"},
    "clearing/netting/instructions.py": {"llvmlite"},
}
"""Set-up that needs an import guard lives in one place."""

INTEGER_MATH = {"gcd", "isqrt", "comb", "prod", "lcm", "factorial", "perm"}

IMPURE_NAMES = {
    **dict.fromkeys(("print", "input", "open"), "the core does no I/O"),
    **dict.fromkeys(("float", "round", "complex"), "amounts are integers"),
    **dict.fromkeys(("hash", "id"), "differs from process to process"),
    **dict.fromkeys(
        ("eval", "exec", "compile", "__import__", "globals", "locals"), "say it plainly"
    ),
}

FROZEN_CODES = """
    OK 0
    MALFORMED 100  UNKNOWN_ACTOR 101  BAD_SIGNATURE 102  COMMITMENT_MISMATCH 103  EXISTS_DIFFERENT 104
    NOT_LICENSED 200  ROLE_NOT_ALLOWED 201  NOT_A_PARTY 202
    ITEM_VERSION 300  ITEM_KIND 301  ITEM_FLAGS 302  SAME_PARTY 303  SUBMITTER_NOT_PARTY 304
    UNKNOWN_PARTICIPANT 305  PARTICIPANT_NOT_LICENSED 306  UNKNOWN_ASSET 307  ZERO_AMOUNT 308  DUE_PASSED 309
    BOOK_FULL 310
    SUBMITTER_BOOK_FULL 311
    UNKNOWN_SUBMISSION 400  UNKNOWN_ITEM 401  NOTHING_SELECTED 402  ITEM_STATE 403  TOO_MANY_DRAWS 404
    NOTHING_TO_NET 500  UNKNOWN_INSTRUCTION 501  NOT_FUNDED 502  INSTRUCTION_STATE 503 NO_SETTLEMENT_AGENT 504 NO_SOLUTION_AWAITED 510 SOLUTION_INVALID 511 SOLUTION_NOT_OPTIMAL 512
    UNKNOWN_PROPOSAL 600  PROPOSAL_CLOSED 601  ALREADY_APPROVED 602  ACTION_UNKNOWN_SUBJECT 603
    ACTION_DUPLICATE 604  ACTION_VALUE 605  GOVERNANCE_STRANDED 606
    VALIDATOR_ROLE 620  VALIDATOR_KEY_TAKEN 621  VALIDATORS_TOO_FEW 622  VALIDATORS_TOO_MANY 623
    VALIDATOR_TOO_STRONG 624  VALIDATORS_CHANGE_TOO_GREAT 625
    ANCHOR_ORDER 700  ANCHOR_STATE 701  ANCHOR_CHECKPOINTS 702  ANCHOR_EVIDENCE 703
    BITCOIN_NOT_SET 730  HEADER_UNCONNECTED 731  HEADER_INVALID 732  HEADERS_KNOWN 733  BLOCK_NOT_IN_CHAIN 734
    BITCOIN_PROOF_INVALID 735  TOO_SHALLOW 736  NOTHING_WATCHED 737
    SETTLES_BY_TRANSACTION 740  NO_SUCH_LEG 741  LEG_STATE 742  LEG_NOT_READY 743  NOT_A_PAYER 744  COIN_IN_USE 745
    TOO_MANY_COINS 746  COINS_SHORT 747  FEE_RATE 748  DEADLINE_AHEAD 749  NO_ROUTE 750  SCRIPT_PROOF_INVALID 751
    NOT_A_MINER 770  COIN_DECLARED 771  COIN_IMMATURE 772  PAYOUT_SCRIPT_UNKNOWN 773  UNKNOWN_BATCH 774
    BATCH_STATE 775  MINED_COIN_SHORT 776
"""
"""Clients have written these down: a number is never changed and never given to another code."""


@dataclasses.dataclass(frozen=True)
class _Module:
    """One module of our own; its path, text, and syntax tree, whole and flat."""

    name: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]


@functools.cache
def _folder(folder: str) -> tuple[_Module, ...]:
    modules = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        is_hidden = any(
            part.startswith(".") for part in pathlib.PurePath(name).parts
        )  # environments
        if not is_hidden and not name.startswith("node/pb/"):  # generated
            text = path.read_text()
            tree = ast.parse(text)
            modules.append(_Module(name, text, tree, tuple(ast.walk(tree))))
    assert modules, f"nothing found in {folder}: has the layout changed?"
    return tuple(modules)


def _modules(*folders: str) -> Iterator[_Module]:
    return itertools.chain.from_iterable(map(_folder, folders))


def _nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    return ((module.name, node) for module in _modules(*folders) for node in module.nodes)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def test_the_core_imports_only_what_is_pure() -> None:
    found = [
        f"{name}:{node.lineno} imports {module}"
        for name, node in _nodes("clearing")
        for module in _imported(node)
        if module.split(".")[0] not in ("clearing", "cryptography")
        if module.split(".")[0] != "btclib" or not name.startswith("clearing/bitcoin/")
        if module not in PURE_IMPORTS | PURE_IMPORTS_OF_ONE.get(name, set())
    ]
    assert not found, found


def test_the_core_uses_only_the_integer_part_of_math() -> None:
    found = [
        f"{name}:{node.lineno} uses math.{node.attr}"
        for name, node in _nodes("clearing")
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "math"
        and node.attr not in INTEGER_MATH
    ]
    found += [
        f"{name}:{node.lineno} imports names out of math"
        for name, node in _nodes("clearing")
        if isinstance(node, ast.ImportFrom) and node.module == "math"
    ]
    assert not found, found


def test_the_core_has_no_floats() -> None:
    found = []
    for name, node in _nodes("clearing"):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append(f"{name}:{node.lineno} float {node.value}")
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append(f"{name}:{node.lineno} true division: use //")
        if isinstance(node, ast.Attribute) and re.fullmatch(
            r"float\d*|double|true_divide", node.attr
        ):
            found.append(f"{name}:{node.lineno} {node.attr}")
    assert not found, found


def test_the_core_calls_nothing_impure() -> None:
    found = [
        f"{name}:{node.lineno} calls {node.func.id}: {IMPURE_NAMES[node.func.id]}"
        for name, node in _nodes("clearing")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in IMPURE_NAMES
    ]
    assert not found, found


def test_the_core_never_depends_on_the_order_of_a_set() -> None:
    found = []
    for name, node in _nodes("clearing"):
        if not isinstance(node, ast.For | ast.comprehension):
            continue
        source = node.iter
        is_call = isinstance(source, ast.Call) and isinstance(source.func, ast.Name)
        if isinstance(source, ast.Set | ast.SetComp) or (
            is_call and source.func.id in ("set", "frozenset")
        ):
            found.append(
                f"{name}:{source.lineno} iterates over a set: sort it, or use dict.fromkeys"
            )
    assert not found, found


def test_the_core_has_no_global_statement_and_no_broad_except() -> None:
    found = [
        f"{name}:{node.lineno} {type(node).__name__}"
        for name, node in _nodes("clearing")
        if isinstance(node, ast.Global | ast.Nonlocal)
    ]
    for name, node in _nodes("clearing"):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            if caught in ("", "Exception", "BaseException"):
                found.append(f"{name}:{node.lineno} catches everything")
    assert not found, found


def test_no_bare_assert_guards_anything() -> None:
    found = [
        f"{name}:{node.lineno} assert vanishes under -O: use invariant()"
        for name, node in _nodes("clearing", "node")
        if isinstance(node, ast.Assert)
    ]
    assert not found, found


def test_files_are_short_enough_to_read() -> None:
    found = [
        f"{module.name}: {module.text.count(chr(10))} lines"
        for module in _modules("clearing", "node", "tests", "benchmarks")
        if module.text.count("\n") > FILE_LINES_MAX
    ]
    assert not found, found


def test_functions_are_short_enough_to_read() -> None:
    found = [
        f"{name}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, node in _nodes("clearing", "node", "tests", "benchmarks")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not found, found


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _public(node.body, f"{prefix}{node.name}.")


def test_everything_public_has_a_docstring() -> None:
    found = []
    for module in _modules("clearing", "node"):
        if module.text.strip() and not ast.get_docstring(module.tree):
            found.append(f"{module.name}: what lives here, what may not?")
        found += [
            f"{module.name}:{node.lineno} {label}"
            for label, node in _public(module.tree.body)
            if not ast.get_docstring(node)
        ]
    assert not found, found


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|for no[w])\b")
    found = [
        f"{module.name}:{number} {line.strip()}"
        for module in _modules("clearing", "node", "tests", "benchmarks")
        for number, line in enumerate(module.text.splitlines(), 1)
        if later.search(line)
    ]
    assert not found, found


def test_what_a_machine_lacks_is_skipped_there_and_fails_in_ci() -> None:
    found = []
    for name, node in _nodes("tests"):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = [part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)]
            marked = {"skipif", "xfail", "importorskip"} & set(words)
            if marked or ("skip" in words and "fail" not in words):
                found.append(f"{name}:{node.lineno} {node.name}: no test may pass by not running")
    assert not found, found


def test_the_numbers_of_reject_codes_are_frozen() -> None:
    words = FROZEN_CODES.split()
    frozen = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert {code.name: code.value for code in RejectCode} == frozen


def test_reject_codes_stand_in_order_of_precedence() -> None:
    numbers = [code.value for code in RejectCode]
    assert numbers == sorted(set(numbers))


def test_every_reject_code_says_what_to_do() -> None:
    assert list(REMEDIES) == list(RejectCode)
    for code, remedy in REMEDIES.items():
        assert re.fullmatch(r"[A-Z].{5,120}\.", remedy), (code, remedy)


VECTORS = sorted((ROOT / "tests" / "vectors").glob("*.json"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.name)
def test_vectors_name_their_source(path: pathlib.Path) -> None:
    section = f"## {path.name}\n"
    assert section in (path.parent / "README.md").read_text(), "describe the file in the README"
    content = json.loads(path.read_text())
    assert content.get("source") or content.get("sources"), "say where the vectors come from"


def test_every_vector_file_is_data_with_a_readme() -> None:
    names = {path.name for path in (ROOT / "tests" / "vectors").iterdir()}
    assert names == {path.name for path in VECTORS} | {"README.md"}
