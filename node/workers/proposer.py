"""Proposing set-offs: solve what cycles wait for, and state the solution with its proof.

Lives here: Proposer, run by nodes that order. May not live here: the solver (clearing/netting), and any judgement of a
solution: every replica checks what is stated here as if a stranger had said it.

A refused or lost proposal costs nothing: the next look at the ledger finds what is still awaited. Where several nodes
propose, the first valid one in the block order is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from clearing.errors import DecodeError, RejectCode
from clearing.handlers.cutoff import engine_for
from clearing.handlers.solutions import Problem
from clearing.netting.pairs import pair_totals, stated
from clearing.netting.setoff import set_off
from clearing.records.instruction import InstructionKind
from clearing.records.solution import Solution
from node.broadcast import Broadcast
from node.sequencer.driver import Machine
from node.services.facade import NodeRefusalError, OutcomeUnknownError
from node.workers.clerk import Clerk

_log = structlog.get_logger(__name__)

RETRY_S: Final = 1.0
"""How soon to look again when the node could not take a proposal."""


def solved(problem: Problem, participants: int) -> Solution:
    """Solve one set-off; participants: registered."""
    found = set_off(
        problem.columns, participants, problem.liquidity, engine=engine_for(problem.columns)
    )
    pairs = pair_totals(problem.columns, found.discharged_lo, found.discharged_hi)
    told = stated(problem.columns, pairs)
    return Solution.of(problem.cycle, problem.asset, told, found.potentials)


class Proposer:
    """Watches the ledger of this node for set-offs that are awaited, and states a solution of each."""

    def __init__(
        self,
        machine: Machine,
        clerk: Clerk,
        broadcast: Broadcast,
        solve: Callable[[Problem, int], Solution] = solved,
    ) -> None:
        """Look whenever `broadcast` fires; `solve` may be slow, it runs in a thread."""
        self._machine = machine
        self._clerk = clerk
        self._broadcast = broadcast
        self._solve = solve
        self._told_mute = False

    async def run(self) -> None:
        """Watch and propose until cancelled."""
        while True:
            ticket = self._broadcast.ticket()
            if await self._look():
                await ticket.wait()
            else:
                await asyncio.sleep(RETRY_S)

    async def _look(self) -> bool:
        """Propose what is awaited; return whether nothing is left to be tried again soon."""
        problems = await asyncio.to_thread(self._machine.set_offs_awaited)
        if problems and not self._clerk.may_speak():
            if not self._told_mute:
                _log.error(
                    "set-off not proposed: the register has another node key for this node",
                    node_key=self._clerk.public_key.hex(),
                )
            self._told_mute = True
            return True
        return all([await self._propose(problem) for problem in problems])

    async def _propose(self, problem: Problem) -> bool:
        participants = len(self._machine.state.registry.participants)
        solution = await asyncio.to_thread(self._solve, problem, participants)
        try:
            outcome = await self._clerk.state(InstructionKind.SOLVE, solution.encode())
        except DecodeError as error:
            _log.error("set-off too large to be stated", cycle=problem.cycle, reason=str(error))
            return True
        except (NodeRefusalError, OutcomeUnknownError) as error:
            _log.warning("set-off not proposed", cycle=problem.cycle, reason=str(error))
            return False
        # Another node was first, or what may be paid has changed since.
        if outcome.code is not RejectCode.OK:
            _log.info("set-off not taken", cycle=problem.cycle, code=outcome.code.name)
            return outcome.code is RejectCode.NO_SOLUTION_AWAITED
        _log.info("set-off proposed", cycle=problem.cycle, asset=problem.asset, index=outcome.index)
        return True
