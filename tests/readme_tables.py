"""The generated parts of README.md: byte tables, lifecycle diagrams, codes, rights, the examples.

`python -m tests.readme_tables` rewrites them between their markers; test_readme.py fails when they differ.
"""

from __future__ import annotations

import enum
import pathlib
import re
from collections.abc import Callable
from functools import partial

from clearing import ledger
from clearing.bitcoin import provenance, transaction
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.codec import Layout
from clearing.errors import REMEDIES, RejectCode
from clearing.ledger import Outcome
from clearing.records import instruction, leaves, obligation, receipt, solution, submission
from clearing.records import settlement as records_settlement
from clearing.records.instruction import InstructionKind
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from clearing.rules import anchors, bitcoin_terms, cycles, legs, mined, obligations, settlement
from clearing.rules.lifecycle import Lifecycle
from clearing.rules.positions import Position
from clearing.rules.validators import Validator
from clearing.types import CycleState, ObligationKind, Role
from node.auth import RULES, Rule
from node.rpc_errors import Refusal, of_refusal, refusal, rejection
from node.services.facade import NodeCondition, NotServingError

TESTS = pathlib.Path(__file__).parent
README = TESTS.parent / "README.md"


def layout_table(layout: Layout) -> str:
    """Return one record's fields with their offsets as a Markdown table."""
    rows = [
        f"**{layout.name}** ({layout.width} bytes)",
        "",
        "| offset | bytes | field | read as |",
        "| ---: | ---: | --- | --- |",
    ]
    rows += [
        f"| {start} | {field.width} | {field.name} | {field.kind.value} |"
        for field, start in layout.offsets()
    ]
    return "\n".join(rows)


def layouts() -> str:
    """Return the tables of every hashed or signed record."""
    shown = (
        obligation.LAYOUT,
        submission.LAYOUT,
        instruction.LAYOUT,
        instruction.SELECTION_LAYOUT,
        instruction.RANGE_LAYOUT,
        instruction.EVIDENCE_LAYOUT,
        instruction.REFERENCE_LAYOUT,
        instruction.LIQUIDITY_LAYOUT,
        instruction.APPROVAL_LAYOUT,
        solution.LAYOUT,
        leaves.GenesisLeaf.LAYOUT,
        leaves.CycleCutOffLeaf.LAYOUT,
        leaves.CycleNettedLeaf.LAYOUT,
        leaves.CycleEndedLeaf.LAYOUT,
        leaves.ExpiredLeaf.LAYOUT,
        leaves.ValidatorsLeaf.LAYOUT,
        leaves.MisbehaviourLeaf.LAYOUT,
        bitcoin_terms.CHAIN_LAYOUT,
        bitcoin_terms.ROUTE_LAYOUT,
        bitcoin_terms.MINER_LAYOUT,
        bitcoin_terms.PAYOUT_LAYOUT,
        bitcoin_terms.TAX_LAYOUT,
        records_settlement.SCRIPT_LAYOUT,
        legs.NamedCoins.LAYOUT,
        legs.NamedCoins.COIN,
        records_settlement.OFFER_LAYOUT,
        records_settlement.LEG_LAYOUT,
        records_settlement.SIGNING_LAYOUT,
        transaction.PROOF_LAYOUT,
        provenance.CLAIM_LAYOUT,
        records_settlement.ATTEST_LAYOUT,
        Validator.LAYOUT,
        Misbehaviour.LAYOUT,
        leaves.SealLeaf.LAYOUT,
        Position.LAYOUT,
        anchors.REPORT_LAYOUT,
        anchors.ANCHOR_LAYOUT,
        receipt.RECEIPT_LAYOUT,
        receipt.POSITION_LAYOUT,
    )
    return "\n\n".join(map(layout_table, shown))


def lifecycles() -> str:
    """Return the lifecycles as diagrams."""

    def drawing(title: str, lifecycle: Lifecycle) -> str:
        return f"{title}\n\n```mermaid\n{lifecycle.mermaid()}\n```"

    return "\n\n".join(
        (
            drawing("An obligation:", obligations.LIFECYCLE),
            drawing("A netting cycle:", cycles.LIFECYCLE),
            drawing("A settlement instruction:", settlement.LIFECYCLE),
            drawing("An anchor:", anchors.LIFECYCLE),
            drawing("The Bitcoin leg of a cycle:", legs.LIFECYCLE),
            drawing("A declared mined coin:", mined.LIFECYCLE),
        )
    )


def reject_codes() -> str:
    """Return the reject codes in order of precedence."""
    rows = ["| number | code | what to do |", "| ---: | --- | --- |"]
    rows += [f"| {code.value} | {code.name} | {REMEDIES[code]} |" for code in RejectCode if code]
    return "\n".join(rows)


def numbers() -> str:
    """Return what the numbers of records mean, field by field."""
    fields: dict[str, type[enum.IntEnum]] = {
        "`kind` of a leaf": leaves.LeafKind,
        "`kind` of an obligation": ObligationKind,
        "`state` of a cycle's end": CycleState,
        "`state` of an anchor": anchors.AnchorState,
        "`network` of Bitcoin": BitcoinNetwork,
        "`kind` of a payout script": bitcoin_terms.PayoutKind,
        "`way` of mined coin": provenance.Way,
        "`kind` of misbehaviour": MisbehaviourKind,
        "`kind` of a receipt's or position's record": receipt.RecordKind,
        "`opened` by a receipt": receipt.Opened,
    }
    rows = ["| field | numbers |", "| --- | --- |"]
    for field, numbered in fields.items():
        rows.append(f"| {field} | {', '.join(f'{one.value} {one.name}' for one in numbered)} |")
    return "\n".join(rows)


PAYLOADS: dict[InstructionKind, Layout] = {
    **dict.fromkeys(
        (InstructionKind.AFFIRM, InstructionKind.REJECT, InstructionKind.RESCIND),
        instruction.SELECTION_LAYOUT,
    ),
    InstructionKind.EVIDENCE: instruction.EVIDENCE_LAYOUT,
    **dict.fromkeys((InstructionKind.CONFIRM, InstructionKind.FAIL), instruction.REFERENCE_LAYOUT),
    InstructionKind.SET_LIQUIDITY: instruction.LIQUIDITY_LAYOUT,
    InstructionKind.APPROVE: instruction.APPROVAL_LAYOUT,
    InstructionKind.SOLVE: solution.LAYOUT,
    InstructionKind.REPORT_ANCHOR: anchors.REPORT_LAYOUT,
    InstructionKind.SET_SETTLEMENT_SCRIPT: records_settlement.SCRIPT_LAYOUT,
    InstructionKind.NAME_COINS: legs.NamedCoins.LAYOUT,
    InstructionKind.OFFER_LEG: records_settlement.OFFER_LAYOUT,
    **dict.fromkeys(
        (InstructionKind.REFUSE_LEG, InstructionKind.RECAST_CYCLE), records_settlement.LEG_LAYOUT
    ),
    InstructionKind.REPORT_SIGNING: records_settlement.SIGNING_LAYOUT,
    InstructionKind.SHOW_TRANSACTION: transaction.PROOF_LAYOUT,
    InstructionKind.DECLARE_COIN: provenance.CLAIM_LAYOUT,
    InstructionKind.ATTEST_COIN: records_settlement.ATTEST_LAYOUT,
}
OTHER_PAYLOADS = {
    InstructionKind.RUN_CYCLE: "nothing",
    InstructionKind.PROPOSE: "actions (clearing/rules/governance.py)",
    InstructionKind.REPORT_HEADERS: "headers of 80 bytes",
}


def instructions() -> str:
    """Return every kind of instruction: its number, payload, who may give it, by which key and with which licence."""

    def words(role: Role) -> str:
        return role.name.lower().replace("_", " ")

    rows = [
        "| number | instruction | payload | given by | signed by | licence |",
        "| ---: | --- | --- | --- | --- | --- |",
    ]
    for kind in InstructionKind:
        rule = ledger._RULES[kind]
        payload = PAYLOADS[kind].name if kind in PAYLOADS else OTHER_PAYLOADS[kind]
        given = ", ".join(map(words, rule.roles))
        given = "who may owe" if rule.roles == ledger._OBLIGORS_ONLY else given
        key = "node key" if rule.signer is ledger.KeyUse.NODE else "participant's key"
        licence = "in force" if rule.needs_licence else "in force at the cut-off"
        rows.append(f"| {kind.value} | {kind.name} | {payload} | {given} | {key} | {licence} |")
    return "\n".join(rows)


def example(path: str) -> str:
    """Return an example that a test runs, without its docstring."""
    text = (TESTS / path).read_text().partition('"""\n\n')[2]
    return f"```python\n{text.rstrip()}\n```"


def rights() -> str:
    """Return who may make which call."""
    rows = ["| calls | who, and what of |", "| --- | --- |"]
    for rule in Rule:
        names = [method.rpartition(".")[2] for method, found in RULES.items() if found is rule]
        services: dict[str, list[str]] = {}
        for name in names:
            service, _, call = name.partition("/")
            services.setdefault(service, []).append(call)
        calls = "; ".join(f"{service}: {', '.join(found)}" for service, found in services.items())
        rows.append(f"| {calls} | {rule.value} |")
    return "\n".join(rows)


def refusals() -> str:
    """Return the refusals of a node's own with their gRPC status, its conditions, and the statuses of the reject codes."""
    rows = ["| reason | gRPC status | what to do |", "| --- | --- | --- |"]
    for reason in Refusal:
        made = refusal(reason, "")
        rows.append(f"| {reason.value} | {made.status.name} | {made.remedy} |")
    conditions: dict[str, list[str]] = {}
    for condition in NodeCondition:
        if condition is not NodeCondition.SERVING:
            made = of_refusal(NotServingError(condition, ""))
            conditions.setdefault(f"{made.status.name} | {made.remedy}", []).append(condition.name)
    rows += [f"| {', '.join(names)} | {told} |" for told, names in conditions.items()]
    statuses: dict[str, list[str]] = {}
    for code in RejectCode:
        if code is not RejectCode.OK:
            status = rejection(Outcome(code, -1)).status.name
            statuses.setdefault(status, []).append(code.name)
    rows += [f"| {', '.join(codes)} | {status} | see above |" for status, codes in statuses.items()]
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "client example": partial(example, "node/client/example.py"),
    "netting example": partial(example, "clearing/netting/example.py"),
    "rights": rights,
    "refusals": refusals,
    "layouts": layouts,
    "numbers": numbers,
    "instructions": instructions,
    "lifecycles": lifecycles,
    "reject-codes": reject_codes,
}


def filled(text: str) -> str:
    """Return the README's text with every generated part as it should be."""
    for name, render in PARTS.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        text = pattern.sub(lambda _: f"{start}\n{render()}\n{end}", text)  # noqa: B023 - called at once
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
