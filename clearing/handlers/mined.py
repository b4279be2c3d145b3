"""Declarations of mined coin, and what obligations draw on them.

Lives here: how those change a draft. May not live here: proofs (clearing/bitcoin), the order of drawing (rules/mined.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from clearing.bitcoin.provenance import COINBASE_MATURITY, Claim, Way, claim_message
from clearing.bitcoin.transaction import TransactionProof
from clearing.errors import RejectCode, VerificationError, invariant
from clearing.handlers import chain, legs
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.leg_rows import DECLARED_COIN
from clearing.params import MINED_PARTS_MAX
from clearing.records.instruction import Instruction
from clearing.records.obligation import MINED_COIN
from clearing.rows import Table, key_u32, key_u64
from clearing.rules.bitcoin_terms import PayoutKind
from clearing.rules.mined import LIFECYCLE, Batch, BatchQueue, BatchState, Draw
from clearing.rules.obligations import Numbers
from clearing.state import Draft, OpenSubmission


def declare(draft: Draft, instruction: Instruction, claim: Claim) -> Outcome:
    """Take down that a licensed miner mined a coin; it counts when a supervisor's node has attested that it is unspent."""
    block, code = chain.verify_proof(draft, claim.coinbase)
    if block is None:
        return refused(code)
    paying: chain.Known | None = block
    if claim.payout is not None:
        paying, code = chain.verify_proof(draft, claim.payout)
    if paying is None:
        return refused(code)
    party = draft.registry.participants[instruction.actor]
    message = claim_message(draft.network_id, claim.outpoint, party.lei, party.licence_no)
    try:
        claim.verify(block.height, message)
        paid = claim.paid
    except VerificationError:
        return refused(RejectCode.BITCOIN_PROOF_INVALID)
    code = _declarable(draft, instruction.actor, claim, max(block.height, paying.height))
    if code is not RejectCode.OK:
        return refused(code)
    index = draft.record(instruction.leaf, instruction.body)
    batch = Batch(
        state=BatchState.DECLARED,
        way=claim.way,
        amount_units=paid.amount_sat,
        used_units=0,
        declared_ms=draft.time_ms,
        counted_ms=0,
        block_height=block.height,
        outpoint=claim.outpoint.encode(),
    )
    draft.set_batch(instruction.actor, index, batch)
    coin = DECLARED_COIN + claim.outpoint.encode()
    draft.put(Table.COINS, coin, key_u32(instruction.actor) + key_u64(index))
    return recorded(index)


def _declarable(draft: Draft, miner: int, claim: Claim, height: int) -> RejectCode:
    """Return why a proved coin may not be declared by a miner, or OK; height: of the later of its blocks."""
    terms = draft.registry.bitcoin
    # Only registered miners declare.
    if terms.region_of(miner) is None:
        return RejectCode.NOT_A_MINER
    # One output gives its amount once.
    if draft.get(Table.COINS, DECLARED_COIN + claim.outpoint.encode()) is not None:
        return RejectCode.COIN_DECLARED
    # A coinbase cannot be spent before it is this deep; a pool's payout of it, were it shallow, might yet be paid anew.
    if chain.depth_of(draft, height) < COINBASE_MATURITY:
        return RejectCode.COIN_IMMATURE
    # The paid script must be the miner's by its licence, and a pool's script a pool's.
    own = terms.payout(claim.paid.script)
    if own is None or (own.participant, own.kind) != (miner, PayoutKind.MINER):
        return RejectCode.PAYOUT_SCRIPT_UNKNOWN
    if claim.way is Way.POOL:
        pool = terms.payout(claim.pool_script())
        if pool is None or pool.kind is not PayoutKind.POOL:
            return RejectCode.PAYOUT_SCRIPT_UNKNOWN
    return RejectCode.OK


def attest(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """A supervisor's node says whether a declared coin was unspent at a block of the best chain."""
    # Nobody vouches for its own coin.
    if instruction.actor == values["miner"]:
        return refused(RejectCode.NOT_A_PARTY)
    # The node looked at a chain that the ledger follows.
    if chain.in_best_chain(draft, values["block_hash"]) is None:
        return refused(RejectCode.BLOCK_NOT_IN_CHAIN)
    batch = draft.batch(values["miner"], values["batch"])
    # The declaration must exist and be open.
    if batch is None:
        return refused(RejectCode.UNKNOWN_BATCH)
    if batch.state is not BatchState.DECLARED:
        return refused(RejectCode.BATCH_STATE)
    index = draft.record(instruction.leaf, instruction.body)
    target = BatchState.COUNTED if values["unspent"] else BatchState.VOID
    state = LIFECYCLE.require(batch.state, target)
    counted_ms = draft.time_ms if values["unspent"] else 0
    attested = replace(batch, state=state, counted_ms=counted_ms)
    draft.set_batch(values["miner"], values["batch"], attested)
    return recorded(index)


def report_headers(draft: Draft, instruction: Instruction, headers: tuple[bytes, ...]) -> Outcome:
    """Take in headers, and bring what rests on the chain to where it is now."""
    code = chain.extend(draft, headers)
    if code is not RejectCode.OK:
        return refused(code)
    index = draft.record(instruction.leaf, instruction.body, public=True)
    legs.follow_chain(draft)
    return recorded(index)


def show_transaction(draft: Draft, instruction: Instruction, proof: TransactionProof) -> Outcome:
    """Take in that the best chain holds a transaction: a leg's own, one that spends a leg's coin, or a declared one."""
    block, code = chain.verify_proof(draft, proof)
    if block is None:
        return refused(code)
    declared = _declared_spent_by(draft, proof)
    seen = legs.see_transaction(draft, proof)
    if seen is None and not declared:
        return refused(RejectCode.NOTHING_WATCHED)
    if seen is not None and seen is not RejectCode.OK:
        return refused(seen)
    for miner, number, batch in declared:
        state = LIFECYCLE.require(batch.state, BatchState.VOID)
        draft.set_batch(miner, number, replace(batch, state=state))
    return recorded(draft.record(instruction.leaf, instruction.body))


def _declared_spent_by(draft: Draft, proof: TransactionProof) -> list[tuple[int, int, Batch]]:
    """Return (miner, number, batch) of the declarations, not yet counted, whose coin a transaction spends; a counted one may be spent freely."""
    found = []
    for spent in proof.transaction.inputs:
        row = draft.get(Table.COINS, DECLARED_COIN + spent.encode())
        if row is None:
            continue
        miner, number = int.from_bytes(row[:4], "big"), int.from_bytes(row[4:], "big")
        batch = draft.batch(miner, number)
        if batch is not None and batch.state is BatchState.DECLARED:
            found.append((miner, number, batch))
    return found


def flagged(submission: OpenSubmission, items: Numbers) -> Numbers:
    """Return those of `items` that are paid with mined coin, ascending."""
    flags = submission.chunk.flags
    if flags is None:
        return items[:0]
    wanted: Numbers = items[(flags[submission.chunk.rows[items]] & MINED_COIN) > 0]
    return wanted


def draw_for(
    draft: Draft, submission: OpenSubmission, items: Numbers
) -> tuple[RejectCode, list[int]]:
    """Draw on mined coin for the affirmed `items` that are paid with it.

    Returns: OK; or why not, and the items for which there is not enough. Unless OK nothing is changed.
    """
    wanted = np.sort(flagged(submission, items))
    queues: dict[int, BatchQueue] = {}
    draws: list[tuple[int, Draw]] = []
    short: list[int] = []
    parts_left = MINED_PARTS_MAX
    for item in wanted[: MINED_PARTS_MAX + 1].tolist():
        row = submission.chunk.rows[item]
        miner = int(submission.chunk.debtor[row])
        if miner not in queues:
            queues[miner] = BatchQueue(draft.reserve(miner))
        parts = queues[miner].draw(_amount(submission, int(row)))
        parts_left -= 1 if parts is None else len(parts)
        # What one instruction costs is bounded.
        if parts_left < 0:
            return RejectCode.TOO_MANY_DRAWS, []
        if parts is None:
            short.append(item)
        else:
            draws.append((item, Draw(miner, draft.time_ms, 0, parts)))
    # What is paid with mined coin must be covered by it.
    if short:
        return RejectCode.MINED_COIN_SHORT, short
    for miner, queue in sorted(queues.items()):
        for number, units in queue.drawn():
            _use(draft, miner, number, units)
    for item, one in draws:
        draft.put(Table.DRAWS, _draw_key(submission.index, item), one.encode())
    return RejectCode.OK, []


def _amount(submission: OpenSubmission, row: int) -> int:
    chunk = submission.chunk
    high = 0 if chunk.hi is None else int(chunk.hi[row])
    return int(chunk.lo[row]) | high << 64


def _draw_key(submission: int, item: int) -> bytes:
    return key_u64(submission) + key_u32(item)


def _use(draft: Draft, miner: int, number: int, units: int) -> None:
    """Count what was drawn on a batch, or with a negative number given back to it."""
    batch = draft.batch(miner, number)
    invariant(batch is not None, "a draw is on a batch that was declared")
    if batch is not None:
        draft.set_batch(miner, number, replace(batch, used_units=batch.used_units + units))


def give_back(draft: Draft, submission: OpenSubmission, items: Numbers) -> RejectCode:
    """Give back what rescinded items had drawn, to the batches they drew on; unless OK nothing is changed."""
    wanted = flagged(submission, items)
    draws: list[tuple[bytes, Draw]] = []
    parts_left = MINED_PARTS_MAX
    for item in wanted[: MINED_PARTS_MAX + 1].tolist():
        key = _draw_key(submission.index, item)
        row = draft.get(Table.DRAWS, key)
        invariant(row is not None, "an affirmed item drew on nothing")
        draws.append((key, Draw.decode(row or b"")))
        parts_left -= len(draws[-1][1].parts)
        # What one instruction costs is bounded; one item can always be taken back.
        if parts_left < 0 and len(wanted) > 1:
            return RejectCode.TOO_MANY_DRAWS
    for key, one in draws:
        for number, units in one.parts:
            _use(draft, one.miner, number, -units)
        draft.put(Table.DRAWS, key, replace(one, returned_ms=draft.time_ms).encode())
    return RejectCode.OK
