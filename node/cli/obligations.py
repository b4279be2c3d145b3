"""`clearing submit|affirm|reject|rescind|resume|obligations|positions`: what a participant does day by day.

Lives here: the commands. May not live here: the file format (obligation_file.py), signing and sending (node.client).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.errors import REMEDIES
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.types import ObligationState
from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.input_file import LINE_BYTES_MAX, read_whole
from node.cli.names import Names
from node.cli.obligation_file import ObligationFile, parse_obligations
from node.cli.options import U32_MAX, U64_MAX, AsJson
from node.cli.render import counted, notice, print_json, progress, stdout
from node.cli.rows import OBLIGATIONS, POSITIONS, rows_wanted
from node.cli.session import Access, told, with_access
from node.client import Client, ClientError, Recorded, RejectedError
from node.client.sync import Ranges
from node.queries import ObligationFilter, PositionFilter

FILE_BYTES_MAX = 512 << 20
"""Greatest obligation file: some millions of rows, which are held in memory as a whole."""

SubmissionNo = Annotated[
    int | None,
    typer.Option(
        "--submission", metavar="N", help="Log index of a submission.", min=0, max=U64_MAX
    ),
]
ItemRanges = Annotated[
    str | None,
    typer.Option(metavar="A-B", help="Items of it, counted from 0: 7, 0-99, or 0-99,150-160."),
]
PartyFilter = Annotated[str | None, typer.Option(metavar="NAME", help="Only of this party.")]
AssetFilter = Annotated[str | None, typer.Option(metavar="NAME", help="Only in this asset.")]
CycleFilter = Annotated[
    int | None, typer.Option(metavar="N", help="Only of this cycle.", min=1, max=U32_MAX)
]


@with_access
def submit(
    access: Access,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with the columns id,debtor,creditor,asset,amount[,due][,reference][,priority]."
        ),
    ],
    mined_coin: Annotated[
        bool,
        typer.Option(
            "--mined-coin", help="All are paid with coin that the debtor declared as mined."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sign and record the obligations of a CSV file, in submissions that are recorded whole or not at all.

    Amounts are whole numbers of the asset's smallest unit; parties are names or LEIs; due is a date, a time, or
    milliseconds since 1970; priority is 0 to 255, higher is paid first. Each row must name the submitter as debtor or
    creditor. A file with a wrong line is refused with line, column, code and remedy, and nothing of it is sent.

    A submission has at most 50,000 rows, or what one transaction of the network takes; more become several, recorded one
    after the other.
    """
    data = read_whole(file, FILE_BYTES_MAX, LINE_BYTES_MAX)
    with access.client() as client:
        names = Names(client.registry())
        read = parse_obligations(data, names.directory(), names.party_no(access.name))
        for column in read.ignored_columns:
            notice(f"column {column!r} is ignored")
        if not len(read):
            raise WrongUseError("EMPTY_FILE", f"{file} has no obligations", "Add a line for each.")
        recorded = _send(client, replace(read, mined_coin=mined_coin))
    _show_recorded(recorded, len(read), as_json=as_json)


def _send(client: Client, read: ObligationFile) -> list[Recorded]:
    """Record the rows in submissions of at most 50,000; a refusal names the lines that caused it."""
    starts = range(0, len(read), ITEMS_PER_SUBMISSION_MAX)
    recorded: list[Recorded] = []
    with progress("submitting", len(read)) as bar:
        for start in starts:
            rows = range(start, min(start + ITEMS_PER_SUBMISSION_MAX, len(read)))
            try:
                recorded += client.submit(read.records(rows))
            except RejectedError as error:
                raise _refused_lines(error, read, start, recorded) from error
            except ClientError as error:
                if recorded:
                    notice(_recorded_before(recorded))
                raise told(error) from error
            except KeyboardInterrupt:
                before = _recorded_before(recorded) if recorded else "nothing was acknowledged yet"
                notice(f"{before}; `clearing resume` settles what was on its way")
                raise
            bar.advance(bar.task_ids[0], len(rows))
    return recorded


def _recorded_before(recorded: Sequence[Recorded]) -> str:
    indexes = ", ".join(str(one.index) for one in recorded)
    rows = counted(sum(one.items for one in recorded), "row")
    return f"recorded before that, {rows}: submission {indexes}"


def _refused_lines(
    error: RejectedError, read: ObligationFile, start: int, recorded: Sequence[Recorded]
) -> CheckFailedError:
    """Return the ledger's refusal in terms of the file: line, id, code and remedy of each bad row."""
    rows = [
        {
            "line": read.lines[start + item],
            "id": read.ids[start + item],
            "code": code.name,
            "remedy": REMEDIES[code],
        }
        for item, code in error.items
    ]
    before = f"; {_recorded_before(recorded)}" if recorded else "; nothing of the file is recorded"
    return CheckFailedError(
        error.reason,
        f"{error.fault.message}{before}",
        error.remedy,
        rows,
        error.bad_items or len(rows),
    )


def _show_recorded(recorded: Sequence[Recorded], items: int, *, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {
            "submission": recorded[0].index,
            "items": items,
            "state": state_of(recorded[-1]),
        }
        if len(recorded) > 1:
            facts["submissions"] = [
                {"submission": one.index, "items": one.items, "state": state_of(one)}
                for one in recorded
            ]
        print_json(facts)
        return
    for one in recorded:
        stdout().print(
            f"[green]recorded[/] {one.items:,} obligations as submission [bold]{one.index}[/]"
        )


def state_of(recorded: Recorded) -> str:
    """Return how far a recorded transaction has come, as scripts read it."""
    return "CHECKPOINTED" if recorded.is_final else "RECORDED"


def parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Return item ranges, inclusive, ascending: "7", "0-99", "0-99,150-160".

    Raises: WrongUseError: anything else, or ranges that overlap.
    """
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in numbers):
            raise _bad_ranges(text)
        ranges.append((int(numbers[0]), int(numbers[1])))
    ranges.sort()
    floor = -1
    for low, high in ranges:
        if low <= floor or high < low:
            raise _bad_ranges(text)
        floor = high
    return tuple(ranges)


def _bad_ranges(text: str) -> WrongUseError:
    return WrongUseError(
        "BAD_ITEMS",
        f"--items {text!r} is no list of item ranges",
        "Write it as 7, 0-99, or 0-99,150-160, without overlaps.",
    )


_Move = Callable[[Client, int, Ranges], Recorded]


def _move(
    access: Access,
    done: str,
    move: _Move,
    states: tuple[ObligationState, ...],
    *,
    own: bool,
    everything: bool,
    submission: int | None,
    items: str | None,
    as_json: bool,
) -> None:
    """Give one instruction a submission for the items that the options name.

    own: the caller must be the submitter (else the other party) of what --all selects; states: those it selects.
    """
    if everything == (submission is not None) or (items is not None and submission is None):
        raise WrongUseError(
            "USAGE", "it is not said which items", "Give --all, or --submission N [--items A-B]."
        )
    ranges = parse_ranges(items) if items else ()
    with access.client() as client:
        names = Names(client.registry())
        me = names.party_no(access.name)
        wanted = ObligationFilter(submission=submission, states=states)
        found = Counter(
            row.submission
            for row in client.obligations(wanted)
            if (row.submitter == me) == own and _is_in(row.item, ranges)
        )
        if submission is not None:
            found.setdefault(submission, 0)
        moved = []
        with progress(done, len(found)) as bar:
            for index in sorted(found):
                recorded = move(client, index, ranges)
                moved.append(
                    {"submission": index, "items": found[index], "instruction": recorded.index}
                )
                bar.advance(bar.task_ids[0])
    total = sum(found.values())
    if as_json:
        print_json({"items": total, "submissions": moved})
        return
    said = f"{counted(total, 'obligation')} of {counted(len(moved), 'submission')}"
    stdout().print(f"[green]{done}[/] {said}")


def _is_in(item: int, ranges: Ranges) -> bool:
    return not ranges or any(low <= item <= high for low, high in ranges)


Everything = Annotated[bool, typer.Option("--all", help="Everything that is open to it.")]


@with_access
def affirm(
    access: Access,
    everything: Everything = False,
    submission: SubmissionNo = None,
    items: ItemRanges = None,
    as_json: AsJson = False,
) -> None:
    """Affirm obligations that others have submitted and that name you: from then on they can be netted."""
    _move(
        access,
        "affirmed",
        lambda client, index, ranges: client.affirm(index, ranges),
        (ObligationState.PROPOSED,),
        own=False,
        everything=everything,
        submission=submission,
        items=items,
        as_json=as_json,
    )


@with_access
def reject(
    access: Access,
    everything: Everything = False,
    submission: SubmissionNo = None,
    items: ItemRanges = None,
    as_json: AsJson = False,
) -> None:
    """Refuse obligations that others have submitted and that name you wrongly; they never enter a cycle."""
    _move(
        access,
        "rejected",
        lambda client, index, ranges: client.reject(index, ranges),
        (ObligationState.PROPOSED,),
        own=False,
        everything=everything,
        submission=submission,
        items=items,
        as_json=as_json,
    )


@with_access
def rescind(
    access: Access,
    everything: Everything = False,
    submission: SubmissionNo = None,
    items: ItemRanges = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw obligations that you have submitted, before a cycle takes them in."""
    _move(
        access,
        "rescinded",
        lambda client, index, ranges: client.rescind(index, ranges),
        (ObligationState.PROPOSED, ObligationState.AFFIRMED),
        own=True,
        everything=everything,
        submission=submission,
        items=items,
        as_json=as_json,
    )


@with_access
def resume(access: Access, as_json: AsJson = False) -> None:
    """Send again what an earlier command sent without hearing of its fate; each counts once."""
    with access.client() as client:
        fates = client.resume()
    states = [
        (state_of(fate), fate.index) if isinstance(fate, Recorded) else (fate.reason, None)
        for fate in fates
    ]
    if as_json:
        print_json([{"index": index, "state": state} for state, index in states])
        return
    for state, index in states:
        stdout().print(f"{state.lower()} {'' if index is None else index}")
    stdout().print(f"{len(states)} transactions were waiting")


@with_access
def obligations(
    access: Access,
    *,
    submission: SubmissionNo = None,
    participant: PartyFilter = None,
    counterparty: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only with this other party.")
    ] = None,
    asset: AssetFilter = None,
    cycle: CycleFilter = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Only in this state, such as affirmed; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most rows wanted.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """List the obligations that you may see: your own, or everybody's for a supervisor."""
    with access.client() as client:
        names = Names(client.registry())
        everyone = names.is_supervisor(access.name)
        wanted = ObligationFilter(
            participant=party_filter(names, participant, everyone=everyone),
            submission=submission,
            counterparty=None if counterparty is None else names.party_no(counterparty),
            asset=None if asset is None else names.asset_no(asset),
            cycle=cycle,
            states=tuple(_state(text) for text in state or ()),
        )
        asked = rows_wanted(as_json=as_json, limit=limit)
        rows = client.obligations(wanted, everyone=everyone, rows_max=asked)
    OBLIGATIONS.show(rows, names, as_json=as_json)


def party_filter(names: Names, participant: str | None, *, everyone: bool) -> int | None:
    """Return the number to narrow by; who sees only its own data may name only itself or nobody."""
    if participant is None:
        return None
    number = names.party_no(participant)
    if not everyone:
        raise WrongUseError(
            "USAGE",
            "--participant is for supervisors, who see everybody's data",
            "Leave it out: what is listed is your own.",
        )
    return number


def _state(text: str) -> ObligationState:
    name = text.upper().replace("-", "_")
    if name not in ObligationState.__members__:
        known = ", ".join(member.lower() for member in ObligationState.__members__)
        raise WrongUseError("BAD_STATE", f"no state {text!r}", f"Use one of: {known}.")
    return ObligationState[name]


@with_access
def positions(
    access: Access,
    participant: PartyFilter = None,
    asset: AssetFilter = None,
    as_json: AsJson = False,
) -> None:
    """List positions by asset: open obligations, what unsettled cycles hold, what was paid and received."""
    with access.client() as client:
        names = Names(client.registry())
        everyone = names.is_supervisor(access.name)
        wanted = PositionFilter(
            participant=party_filter(names, participant, everyone=everyone),
            asset=None if asset is None else names.asset_no(asset),
        )
        asked = rows_wanted(as_json=as_json)
        rows = client.positions(wanted, everyone=everyone, rows_max=asked)
    POSITIONS.show(rows, names, as_json=as_json)
