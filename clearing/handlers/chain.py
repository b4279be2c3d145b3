"""The Bitcoin chain as the ledger knows it: headers that nodes reported, judged by their proof of work alone.

Lives here: the tree of headers, its best branch, and what rules ask of it. May not live here: the rules of one header
(clearing/bitcoin/next_header.py), what follows for legs and coins (legs.py, mined.py).

Whoever reports, nothing is believed: a header counts by its work, and the branch with the most work since the header that
governance vouched for is the chain; of equal ones the one reported first. So no node can report a chain that miners did not make, and
a reorganisation is seen by every replica in the same block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clearing.bitcoin.next_header import HEADER_BYTES, header_hash, parent_of, verify_next, work_of
from clearing.bitcoin.transaction import TransactionProof
from clearing.errors import DecodeError, RejectCode, VerificationError, invariant
from clearing.rows import Table, key_u32
from clearing.rules.bitcoin_terms import ChainTerms
from clearing.state import Draft

_TIP = b"bitcoin_tip"
HEADERS_MAX = 400
"""Most headers of one report: within PAYLOAD_BYTES_MAX."""


@dataclass(frozen=True, slots=True)
class Known:
    """A header with its height and the work of its branch up to it, from the first header on."""

    height: int
    work: int
    header: bytes

    def encode(self) -> bytes:
        """Return the row: height, work, header."""
        return self.height.to_bytes(4, "big") + self.work.to_bytes(32, "big") + self.header


def parse_headers(payload: bytes) -> tuple[bytes, ...]:
    """Parse a report: headers one after the other.

    Raises: DecodeError: none, too many, or one cut short.
    """
    count, rest = divmod(len(payload), HEADER_BYTES)
    if rest or not 0 < count <= HEADERS_MAX:
        raise DecodeError(f"a report holds 1 to {HEADERS_MAX} headers of {HEADER_BYTES} bytes")
    return tuple(payload[at : at + HEADER_BYTES] for at in range(0, len(payload), HEADER_BYTES))


def known(draft: Draft, block_hash: bytes) -> Known | None:
    """Return a known header by its hash, on whichever branch, or None."""
    terms = draft.registry.bitcoin.chain
    if terms is not None and header_hash(terms.header) == block_hash:
        return Known(terms.height, 0, terms.header)
    row = draft.get(Table.BITCOIN_HEADERS, block_hash)
    if row is None:
        return None
    return Known(int.from_bytes(row[:4], "big"), int.from_bytes(row[4:36], "big"), row[36:])


def tip(draft: Draft) -> Known | None:
    """Return the last header of the best chain, or None before governance has set a chain."""
    terms = draft.registry.bitcoin.chain
    if terms is None:
        return None
    row = draft.get(Table.PARAMETERS, _TIP)
    return known(draft, row if row is not None else header_hash(terms.header))


def in_best_chain(draft: Draft, block_hash: bytes) -> Known | None:
    """Return a header if the best chain holds it, else None."""
    found = known(draft, block_hash)
    if found is None:
        return None
    terms = draft.registry.bitcoin.chain
    if terms is not None and found.header == terms.header:
        return found
    row = draft.get(Table.BITCOIN_CHAIN, key_u32(found.height))
    return found if row == block_hash else None


def depth_of(draft: Draft, height: int) -> int:
    """Return the confirmations of what the best chain holds at `height`."""
    last = tip(draft)
    return 0 if last is None else last.height - height + 1


def verify_proof(draft: Draft, proof: TransactionProof) -> tuple[Known | None, RejectCode]:
    """Return the block of the best chain that holds a transaction, and OK; or None and why the proof does not show that."""
    if draft.registry.bitcoin.chain is None:
        return None, RejectCode.BITCOIN_NOT_SET
    found = in_best_chain(draft, proof.block_hash)
    if found is None:
        return None, RejectCode.BLOCK_NOT_IN_CHAIN
    try:
        proof.verify(found.header)
    except VerificationError:
        return None, RejectCode.BITCOIN_PROOF_INVALID
    return found, RejectCode.OK


def extend(draft: Draft, headers: tuple[bytes, ...]) -> RejectCode:
    """Take headers in, each on one that is known, and follow the best branch; nothing is changed unless OK."""
    terms = draft.registry.bitcoin.chain
    last = tip(draft)
    if terms is None or last is None:
        return RejectCode.BITCOIN_NOT_SET
    fresh: dict[bytes, Known] = {}
    for header in headers:
        block_hash = header_hash(header)
        if block_hash in fresh or known(draft, block_hash) is not None:
            continue
        parent = fresh.get(parent_of(header)) or known(draft, parent_of(header))
        # Every header stands on one that is known, or before it in the report.
        if parent is None:
            return RejectCode.HEADER_UNCONNECTED
        if not _follows(draft, terms, header, parent, fresh):
            return RejectCode.HEADER_INVALID
        fresh[block_hash] = Known(parent.height + 1, parent.work + work_of(header), header)
    # A report of nothing new would only make noise in the log.
    if not fresh:
        return RejectCode.HEADERS_KNOWN
    for block_hash, one in fresh.items():
        draft.put(Table.BITCOIN_HEADERS, block_hash, one.encode())
    best = max(fresh.values(), key=lambda one: one.work)
    if best.work > last.work:
        _follow(draft, last, best)
    return RejectCode.OK


def _follows(
    draft: Draft, terms: ChainTerms, header: bytes, parent: Known, fresh: dict[bytes, Known]
) -> bool:
    def ancestor(block_hash: bytes) -> bytes:
        """Return a known header, from this report or before. Raises: VerificationError: there is none."""
        found = fresh.get(block_hash) or known(draft, block_hash)
        # Below the first header there is nothing to walk to: a retarget that asked for it would start a period.
        if found is None:
            raise VerificationError("an ancestor is not known")
        return found.header

    try:
        verify_next(terms.network, header, parent.height, terms.height, ancestor)
    except VerificationError:
        return False
    return True


def _follow(draft: Draft, last: Known, best: Known) -> None:
    """Make `best` the tip: write its branch down to the first block that the best chain has too."""
    for height in range(best.height + 1, last.height + 1):
        draft.put(Table.BITCOIN_CHAIN, key_u32(height), None)
    for one in _back(draft, best):
        block_hash = header_hash(one.header)
        if in_best_chain(draft, block_hash) is not None:
            break
        draft.put(Table.BITCOIN_CHAIN, key_u32(one.height), block_hash)
    draft.put(Table.PARAMETERS, _TIP, header_hash(best.header))


def _back(draft: Draft, one: Known) -> Iterator[Known]:
    """Yield a header and those before it, down to the first."""
    while True:
        yield one
        before = known(draft, parent_of(one.header))
        invariant(before is not None or one.work == 0, "a known header has an unknown parent")
        if before is None:
            return
        one = before
