"""What happens on the Bitcoin chain, told to the ledger: headers, transactions that concern it, coins that are unspent.

Lives here: one round of looking and telling. May not live here: what follows from it (the core), when a round is due
(its caller), how a Bitcoin node is asked (anchoring/rpc.py).

A round is idempotent: it compares what the ledger has with what the node says and tells the difference, so it needs no memory,
and a round that was cut short is made up for by the next. Nothing that it says is believed but what carries its own proof of work,
except that a declared coin is unspent, which no header shows and for which the supervisor's node answers by its signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from clearing.bitcoin.next_header import HEIGHT_MAX, header_hash
from clearing.bitcoin.transaction import Outpoint
from clearing.errors import ClearingError, InvariantViolation, RejectCode
from clearing.handlers import chain
from clearing.handlers.chain import HEADERS_MAX
from clearing.handlers.leg_rows import leg_of, named_coins
from clearing.records.instruction import InstructionKind
from clearing.records.settlement import ATTEST_LAYOUT
from clearing.rows import Reader, Table
from clearing.rules.cycles import Cycle
from clearing.rules.legs import NOBODY, LegState
from clearing.rules.mined import Batch, BatchState
from clearing.rules.registry import Registry
from clearing.state import Draft, State
from node.settlement.blocks import proof_of, transactions_of
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.clerk import Clerk

BLOCKS_SCANNED_MAX = 2_016
"""How far back a round looks for the transactions of legs that are open."""

_log = structlog.get_logger(__name__)


def _view(state: State) -> Draft:
    return Draft(state, state.height + 1, state.time_ms)


def missing_headers(state: State, rpc: BitcoinRpc) -> list[bytes]:
    """Return the headers of the node's best chain that the ledger does not know, ascending, at most one report of them.

    Raises: BitcoinError: the node cannot be asked.
    """
    view = _view(state)
    last, terms = chain.tip(view), state.registry.bitcoin.chain
    if last is None or terms is None:
        return []
    best = rpc.block_count()
    height = min(last.height, best)
    # Back to the last block that the ledger has too.
    while height > terms.height:
        block_hash = rpc.block_hash(height)
        if block_hash is not None and chain.known(view, block_hash) is not None:
            break
        height -= 1
    found = []
    for number in range(height + 1, min(best, height + HEADERS_MAX) + 1):
        block_hash = rpc.block_hash(number)
        if block_hash is None:
            break
        found.append(rpc.header(block_hash))
    return found


def watched(state: State) -> dict[Outpoint, int]:
    """Return the coins of legs whose transaction may appear, with the cycle of each."""
    view = _view(state)
    found = {}
    for number in view.running_cycles():
        leg = leg_of(view, number)
        if leg is not None and leg.state in (LegState.OFFERED, LegState.BROADCAST):
            for _, named in named_coins(view, number):
                found.update(dict.fromkeys((coin.outpoint for coin in named.coins), number))
    return found


def sightings(state: State, rpc: BitcoinRpc) -> Iterator[bytes]:
    """Yield the proofs, as payloads, of transactions in the best chain that spend a watched coin; the newest block first.

    Raises: BitcoinError: the node cannot be asked.
    """
    coins, view = watched(state), _view(state)
    last, terms = chain.tip(view), state.registry.bitcoin.chain
    if not coins or last is None or terms is None:
        return
    wanted = {outpoint.encode() for outpoint in coins}
    for height in range(last.height, max(terms.height, last.height - BLOCKS_SCANNED_MAX), -1):
        block_hash = rpc.block_hash(height)
        if block_hash is None or chain.in_best_chain(view, block_hash) is None:
            continue
        block = rpc.block(block_hash)
        # A block without the coins' txids is not taken apart.
        if not any(outpoint[:32] in block for outpoint in wanted):
            continue
        for position, one in enumerate(transactions_of(block)):
            spent = {Outpoint(each.prev_out.tx_id[::-1], each.prev_out.vout) for each in one.vin}
            if spent & coins.keys():
                yield proof_of(block, position).encode()


def verdicts(state: State, rpc: BitcoinRpc) -> Iterator[bytes]:
    """Yield, as payloads, whether each declared coin that waits for it is unspent.

    Raises: BitcoinError: the node cannot be asked.
    """
    view = _view(state)
    last = chain.tip(view)
    if last is None:
        return
    for key, value in state.reader.scan(Table.BATCHES):
        batch = Batch.decode(value)
        if batch.state is BatchState.DECLARED:
            outpoint = Outpoint.decode(batch.outpoint)
            unspent = rpc.output(outpoint.txid, outpoint.index)
            is_same = unspent is not None and unspent.amount_sat == batch.amount_units
            yield ATTEST_LAYOUT.encode(
                miner=int.from_bytes(key[:4], "big"),
                unspent=int(is_same),
                batch=int.from_bytes(key[4:], "big"),
                block_hash=header_hash(last.header),
            )


def _listed(
    look: Callable[[State, BitcoinRpc], Iterator[bytes]], state: State, rpc: BitcoinRpc
) -> list[bytes]:
    return list(look(state, rpc))


class ChainWatch:
    """Tells the ledger of one node what happens on the chain, one round at a time."""

    def __init__(
        self, rpc: BitcoinRpc, clerk: Clerk, reader: Reader, registry: Callable[[], Registry]
    ) -> None:
        """Ask `rpc`, speak through `clerk`; reader and registry: of the node that runs this, always the newest."""
        self._rpc = rpc
        self._clerk = clerk
        self._reader = reader
        self._registry = registry
        self._is_mute = False
        self._warned_cycle = 0

    async def run(self, poll_s: float) -> None:
        """Make rounds until cancelled; what fails is tried again in the next."""
        while True:
            try:
                if self._registry().bitcoin.chain is not None and self._may_speak():
                    await self.round()
            except (ClearingError, OSError) as error:
                if isinstance(error, InvariantViolation):
                    raise
                _log.warning("the Bitcoin chain was not followed", reason=str(error))
            await asyncio.sleep(poll_s)

    def _may_speak(self) -> bool:
        may = self._clerk.may_speak()
        if not may and not self._is_mute:
            _log.warning(
                "the Bitcoin chain is not told of: this node's key is not registered as its participant's node key"
            )
        self._is_mute = not may
        return may

    async def round(self) -> int:
        """Tell what is new, in the order in which it matters, and return how many statements were recorded.

        Raises: BitcoinError: the node cannot be asked, or is none that serves; see Clerk.state for the ledger's.
        """
        terms = self._registry().bitcoin.chain
        if terms is None:
            return 0
        # A node of that chain and caught up; which blocks it still has matters only when one is asked for.
        await asyncio.to_thread(self._rpc.check, Network[terms.network.name], HEIGHT_MAX)
        self._warn_of_agents_legs()
        told = 0
        while headers := await asyncio.to_thread(missing_headers, self._state(), self._rpc):
            if not await self._tell(InstructionKind.REPORT_HEADERS, b"".join(headers)):
                break
            told += 1
        for kind, look in (
            (InstructionKind.SHOW_TRANSACTION, sightings),
            (InstructionKind.ATTEST_COIN, verdicts),
        ):
            for payload in await asyncio.to_thread(_listed, look, self._state(), self._rpc):
                told += await self._tell(kind, payload)
        return told

    def _warn_of_agents_legs(self) -> None:
        """Tell the operator once of each running cycle whose nets one transaction cannot pay."""
        view = _view(self._state())
        for number in view.running_cycles():
            leg = leg_of(view, number)
            if number > self._warned_cycle and leg is not None and leg.state is LegState.BY_AGENT:
                whom = None if leg.culprit == NOBODY else self._registry().participants[leg.culprit]
                _log.warning(
                    "a cycle's Bitcoin nets go through the settlement agent",
                    cycle=number,
                    cause=leg.cause.name,
                    participant=whom.name if whom else None,
                )
                self._warned_cycle = number

    def _state(self) -> State:
        """Return as much of the ledger's state as this needs: registers and the cycles that run."""
        state = State(self._reader)
        state.registry = self._registry()
        for key, _ in self._reader.scan(Table.UNSETTLED):
            row = self._reader.get(Table.CYCLES, key)
            if row is not None:
                state.cycles[int.from_bytes(key, "big")] = Cycle.decode(row)
        return state

    async def _tell(self, kind: InstructionKind, payload: bytes) -> bool:
        outcome = await self._clerk.state(kind, payload)
        if outcome.code is not RejectCode.OK:
            _log.info("the ledger declines", kind=kind.name, reason=outcome.code.name)
        return outcome.code is RejectCode.OK and not outcome.repeated
