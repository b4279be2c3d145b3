"""What moves the Bitcoin leg of a cycle: coins, the offer, refusal, signatures, the chain, deadlines.

Lives here: how those instructions and moments change a draft. May not live here: the transaction (clearing/bitcoin), the lifecycle
(rules/legs.py), signing and sending (node/settlement).

That everybody signed, or that somebody did not, is the settlement agent's own signed word, for nobody else can know.
What the chain shows is believed from nobody: the transaction is proved in a block of the best chain as headers report it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from clearing.bitcoin.provenance import script_message, verify_message
from clearing.bitcoin.settlement import FEE_RATE_MIN, Payer, common_weight, cost_sat
from clearing.bitcoin.transaction import TransactionProof
from clearing.errors import RejectCode, VerificationError, invariant
from clearing.handlers import chain
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.cycles import fail_cycle, net_without
from clearing.handlers.leg_rows import (
    LEG_COIN,
    close_leg,
    debit_of,
    holder_of,
    instructions_in,
    leg_of,
    named_coins,
    payees_of,
    release_coins,
    set_leg,
    template_of,
)
from clearing.handlers.settlements import count_confirmed
from clearing.records.instruction import Instruction
from clearing.records.settlement import ScriptStatement
from clearing.rows import Table, key_script, key_u32
from clearing.rules.legs import (
    LIFECYCLE,
    NOBODY,
    Leg,
    LegCause,
    LegState,
    NamedCoins,
    coins_max,
    surplus_sat_max,
)
from clearing.rules.settlement import LIFECYCLE as INSTRUCTION_LIFECYCLE
from clearing.state import Draft, State
from clearing.types import CycleState, InstructionState, SettlementKind


def set_script(draft: Draft, instruction: Instruction, statement: ScriptStatement) -> Outcome:
    """Register the script that a participant is paid to in one asset, from the next cycle on; it proves it holds the key."""
    route = draft.registry.bitcoin.route
    # Only an asset that settles by transaction has scripts.
    if route is None or route.asset != statement.asset:
        return refused(RejectCode.NO_ROUTE)
    party = draft.registry.participants[instruction.actor]
    message = script_message(draft.network_id, party.lei, statement.asset)
    try:
        verify_message(statement.script, message, statement.signature)
    except VerificationError:
        return refused(RejectCode.SCRIPT_PROOF_INVALID)
    index = draft.record(instruction.leaf, instruction.body)
    draft.put(
        Table.SCRIPTS, key_script(instruction.actor, statement.asset, index), statement.script
    )
    return recorded(index)


def _leg(draft: Draft, cycle: int, *states: LegState) -> tuple[Leg | None, RejectCode]:
    """Return the leg of a cycle if it is in one of `states`, and OK; or None and why not."""
    leg = leg_of(draft, cycle)
    if leg is None or leg.state is LegState.BY_AGENT:
        return None, RejectCode.NO_SUCH_LEG
    if leg.state not in states:
        return None, RejectCode.LEG_STATE
    return leg, RejectCode.OK


def name_coins(draft: Draft, instruction: Instruction, named: NamedCoins) -> Outcome:
    """Take down which coins a payer brings; said again, the new ones replace the old until the offer."""
    leg, code = _leg(draft, named.cycle, LegState.WAITING)
    if leg is None:
        return refused(code)
    debit = debit_of(draft, named.cycle, leg.asset, instruction.actor)
    # Only who pays brings coins.
    if not debit:
        return refused(RejectCode.NOT_A_PAYER)
    for coin in named.coins:
        holder = holder_of(draft, coin.outpoint)
        # A coin can be spent once: it is in one leg, and there one payer's.
        if holder is not None and holder != (named.cycle, instruction.actor):
            return refused(RejectCode.COIN_IN_USE)
    payer = Payer(instruction.actor, debit, named.coins, named.change_script)
    payees = payees_of(draft, named.cycle, leg)
    surplus_max = surplus_sat_max(leg.payers, sum(payee.amount_sat for payee in payees))
    # The transaction must stay within its limits: of inputs, and of all coin there is.
    if len(named.coins) > coins_max(leg.payers) or payer.brought_sat - debit > surplus_max:
        return refused(RejectCode.TOO_MANY_COINS)
    common = common_weight(payees)
    try:
        # The coins must cover what is owed at the greatest fee, so that no offer fails for one payer's want.
        cost_sat(payer, leg.fee_rate_max, common, leg.payers)
    except VerificationError:
        return refused(RejectCode.COINS_SHORT)
    key = key_u32(named.cycle, instruction.actor)
    before = draft.get(Table.LEG_COINS, key)
    if before is not None:
        for coin in NamedCoins.decode(before).coins:
            draft.put(Table.COINS, LEG_COIN + coin.outpoint.encode(), None)
    for coin in named.coins:
        draft.put(Table.COINS, LEG_COIN + coin.outpoint.encode(), key)
    draft.put(Table.LEG_COINS, key, named.encode())
    return recorded(draft.record(instruction.leaf, instruction.body))


def offer(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """Fix the fee rate and with it the transaction; the agent says so when all coins are named and all else is paid in."""
    number = values["cycle"]
    # The agent puts the transaction before the payers.
    if instruction.actor != _agent_of(draft, number):
        return refused(RejectCode.NOT_A_PARTY)
    leg, code = _leg(draft, number, LegState.WAITING)
    if leg is None:
        return refused(code)
    cycle = draft.cycle(number)
    invariant(cycle is not None, "a leg without its cycle")
    waits = cycle is None or cycle.pay_ins != leg.payers
    # Coin moves last: every other pay-in of the cycle is confirmed, and every payer has named its coins.
    if waits or len(list(named_coins(draft, number))) != leg.payers:
        return refused(RejectCode.LEG_NOT_READY)
    if not FEE_RATE_MIN <= values["fee_rate"] <= leg.fee_rate_max:
        return refused(RejectCode.FEE_RATE)
    template = template_of(draft, number, leg, values["fee_rate"])
    state = LIFECYCLE.require(leg.state, LegState.OFFERED)
    offered = replace(leg, state=state, fee_rate=values["fee_rate"], txid=template.transaction.txid)
    set_leg(draft, number, offered)
    return recorded(draft.record(instruction.leaf, instruction.body))


def refuse(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """A payer says that it will not pay this way: the leg fails with its name, and the cycle with it."""
    number = values["cycle"]
    leg, code = _leg(draft, number, LegState.WAITING, LegState.OFFERED)
    if leg is None:
        return refused(code)
    if not debit_of(draft, number, leg.asset, instruction.actor):
        return refused(RejectCode.NOT_A_PAYER)
    index = draft.record(instruction.leaf, instruction.body)
    _fail(draft, number, LegCause.REFUSED, instruction.actor)
    return recorded(index)


def report_signing(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """The agent says that every payer has signed, or after the deadline who has not."""
    number = values["cycle"]
    if instruction.actor != _agent_of(draft, number):
        return refused(RejectCode.NOT_A_PARTY)
    leg, code = _leg(draft, number, LegState.OFFERED)
    if leg is None:
        return refused(code)
    culprit = values["participant"]
    if values["signed"]:
        index = draft.record(instruction.leaf, instruction.body)
        state = LIFECYCLE.require(leg.state, LegState.BROADCAST)
        set_leg(draft, number, replace(leg, state=state))
        return recorded(index)
    # Only a payer can have failed to sign, and it has time until the deadline.
    if not debit_of(draft, number, leg.asset, culprit):
        return refused(RejectCode.NOT_A_PAYER)
    if draft.time_ms < leg.deadline_ms:
        return refused(RejectCode.DEADLINE_AHEAD)
    index = draft.record(instruction.leaf, instruction.body)
    _fail(draft, number, LegCause.NOT_SIGNED, culprit)
    return recorded(index)


def see_transaction(draft: Draft, proof: TransactionProof) -> RejectCode | None:
    """Take in that the best chain holds a transaction, for the legs that it concerns; None where it concerns none.

    Caller's duty: chain.verify_proof has held. Any answer but OK means that nothing was changed.
    """
    holders = [holder_of(draft, spent) for spent in proof.transaction.inputs]
    cycles = sorted({holder[0] for holder in holders if holder is not None})
    if not cycles:
        return None
    found = chain.in_best_chain(draft, proof.block_hash)
    invariant(found is not None, "a proof was not checked")
    height = 0 if found is None else found.height
    depth = chain.depth_of(draft, height)
    legs = [(number, leg) for number in cycles if (leg := leg_of(draft, number)) is not None]
    own = [(number, leg) for number, leg in legs if leg.txid == proof.transaction.txid]
    if not own:
        # A shallow block may go again: only what is as deep as a payment must be counts against it.
        if any(depth < leg.depth for _, leg in legs):
            return RejectCode.TOO_SHALLOW
        # Headers alone cannot rule out two blocks that spend one coin: what was shown first stands while they hold it.
        if not all(LIFECYCLE.allows(leg.state, LegState.FAILED) for _, leg in legs):
            return RejectCode.LEG_STATE
        for number, _ in legs:
            payer = min(holder[1] for holder in holders if holder and holder[0] == number)
            _fail(draft, number, LegCause.SPENT, payer)
        return RejectCode.OK
    for number, leg in own:
        if leg.state not in (LegState.OFFERED, LegState.BROADCAST):
            return RejectCode.LEG_STATE
        mined = replace(
            leg,
            state=LIFECYCLE.require(leg.state, LegState.MINED),
            block_hash=proof.block_hash,
            block_height=height,
        )
        set_leg(draft, number, mined)
        _move(draft, number, leg, InstructionState.EVIDENCED, leg.txid)
    follow_chain(draft)
    return RejectCode.OK


def follow_chain(draft: Draft) -> None:
    """Bring mined legs to where the best chain has them: deep enough, or out of it again."""
    for number in draft.running_cycles(CycleState.NETTED):
        leg = leg_of(draft, number)
        if leg is None or not leg.may_be_mined:
            continue
        is_held = chain.in_best_chain(draft, leg.block_hash) is not None
        if leg.state is LegState.BROADCAST:
            # The block that held it before a reorganisation may come back with another.
            if is_held:
                state = LIFECYCLE.require(leg.state, LegState.MINED)
                set_leg(draft, number, replace(leg, state=state))
                _move(draft, number, leg, InstructionState.EVIDENCED, leg.txid)
            continue
        if not is_held:
            state = LIFECYCLE.require(leg.state, LegState.BROADCAST)
            set_leg(draft, number, replace(leg, state=state))
            _move(draft, number, leg, InstructionState.PENDING, bytes(32))
        elif chain.depth_of(draft, leg.block_height) >= leg.depth:
            state = LIFECYCLE.require(leg.state, LegState.CONFIRMED)
            set_leg(draft, number, replace(leg, state=state))
            release_coins(draft, number)
            _confirm(draft, number, leg)


def _move(
    draft: Draft, number: int, leg: Leg, target: InstructionState, evidence_hash: bytes
) -> None:
    """Move every instruction of a leg."""
    for item_no, item in instructions_in(draft, number, leg.asset):
        moved = replace(
            item,
            state=INSTRUCTION_LIFECYCLE.require(item.state, target),
            evidence_hash=evidence_hash,
            moved_ms=draft.time_ms,
        )
        draft.set_settlement(number, item_no, moved)


def _confirm(draft: Draft, number: int, leg: Leg) -> None:
    """Confirm every instruction of a leg, pay-ins first: they are the last that the cycle waited for."""
    for kind in (SettlementKind.PAY_IN, SettlementKind.PAY_OUT):
        for item_no, item in instructions_in(draft, number, leg.asset):
            if item.kind is not kind:
                continue
            state = INSTRUCTION_LIFECYCLE.require(item.state, InstructionState.CONFIRMED)
            draft.set_settlement(
                number, item_no, replace(item, state=state, moved_ms=draft.time_ms)
            )
            count_confirmed(draft, number, item)


def _fail(draft: Draft, number: int, cause: LegCause, culprit: int) -> None:
    close_leg(draft, number, cause, culprit)
    fail_cycle(draft, number)


def expire(draft: Draft) -> None:
    """Fail the legs whose time is over, with the name of who kept the others waiting."""
    timeout_ms = draft.registry.parameters.settlement_timeout_ms
    for number in draft.running_cycles(CycleState.NETTED):
        leg, cycle = leg_of(draft, number), draft.cycle(number)
        if leg is None or cycle is None or leg.state not in (LegState.WAITING, LegState.OFFERED):
            continue
        if leg.state is LegState.WAITING and draft.time_ms >= leg.deadline_ms:
            _fail(draft, number, *_late(draft, number, leg))
        elif draft.time_ms >= cycle.netted_ms + timeout_ms:
            _fail(draft, number, LegCause.TIMED_OUT, NOBODY)


def _late(draft: Draft, number: int, leg: Leg) -> tuple[LegCause, int]:
    named = {payer for payer, _ in named_coins(draft, number)}
    for _, item in instructions_in(draft, number, leg.asset):
        if item.kind is SettlementKind.PAY_IN and item.participant not in named:
            return LegCause.NO_COINS, item.participant
    agent = _agent_of(draft, number)
    return LegCause.NOT_OFFERED, NOBODY if agent is None else agent


def _agent_of(draft: Draft, number: int) -> int | None:
    """Return who settles a cycle; of one that does not exist, who would settle it now."""
    cycle = draft.cycle(number)
    return draft.registry.settlement_agent(draft.time_ms) if cycle is None else cycle.agent


def deadlines(state: State) -> Iterator[int]:
    """Yield the block times at which legs of unsettled cycles fall due."""
    for number, cycle in sorted(state.cycles.items()):
        is_netted = cycle.state is CycleState.NETTED
        row = state.reader.get(Table.LEGS, key_u32(number)) if is_netted else None
        if row is not None:
            leg = Leg.decode(row)
            if leg.state is LegState.WAITING:
                yield leg.deadline_ms


def recast(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """Net anew without whoever failed a cycle's leg; its obligations stay affirmed, and open."""
    number = values["cycle"]
    leg, code = _leg(draft, number, LegState.FAILED)
    if leg is None:
        return refused(code)
    cycle, last = draft.cycle(number), draft.cycle(draft.last_cycle)
    if cycle is None or cycle.state is not CycleState.FAILED or leg.culprit == NOBODY:
        return refused(RejectCode.LEG_STATE)
    # An old failure is no licence to leave somebody out for ever: what it returned has been netted since.
    if last is None or last.netted_index > cycle.ended_index:
        return refused(RejectCode.LEG_STATE)
    return net_without(draft, instruction, frozenset((leg.culprit,)))
