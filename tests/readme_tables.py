"""The generated parts of README.md: byte tables from the layouts, lifecycle diagrams, reject codes.

`python -m tests.readme_tables` rewrites them between their markers; test_readme.py fails when they differ.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

from clearing.codec import Layout
from clearing.errors import REMEDIES, RejectCode
from clearing.records import instruction, leaves, obligation, submission
from clearing.rules import cycles, obligations, settlement
from clearing.rules.lifecycle import Lifecycle
from clearing.rules.positions import Position

README = pathlib.Path(__file__).parent.parent / "README.md"


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
        leaves.GenesisLeaf.LAYOUT,
        leaves.CycleNettedLeaf.LAYOUT,
        leaves.CycleEndedLeaf.LAYOUT,
        leaves.ExpiredLeaf.LAYOUT,
        leaves.SealLeaf.LAYOUT,
        Position.LAYOUT,
    )
    return "\n\n".join(map(layout_table, shown))


def lifecycles() -> str:
    """Return the three lifecycles as diagrams."""

    def drawing(title: str, lifecycle: Lifecycle) -> str:
        return f"{title}\n\n```mermaid\n{lifecycle.mermaid()}\n```"

    return "\n\n".join(
        (
            drawing("An obligation:", obligations.LIFECYCLE),
            drawing("A netting cycle:", cycles.LIFECYCLE),
            drawing("A settlement instruction:", settlement.LIFECYCLE),
        )
    )


def reject_codes() -> str:
    """Return the reject codes in order of precedence."""
    rows = ["| number | code | what to do |", "| ---: | --- | --- |"]
    rows += [f"| {code.value} | {code.name} | {REMEDIES[code]} |" for code in RejectCode if code]
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "layouts": layouts,
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
