"""Checking an anchor as a stranger would: notes, proofs, the block's header, and the chain of headers it stands in.

Lives here: the check of what a node hands out. May not live here: making it, where headers come from, printing.
"""

from __future__ import annotations

import hashlib

from clearing.bitcoin.headers import HeaderChain
from clearing.bitcoin.next_header import header_hash, verify_work
from clearing.bitcoin.ots import OtsProof, commitment_of
from clearing.errors import VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.wire_anchors import AnchorProofs


def check_anchor(found: AnchorProofs, policy: Policy, chain: HeaderChain | None = None) -> int:
    """Check an anchor that a block holds, and return its confirmations, 0 where no chain of headers is there to count them.

    policy: by which the notes must be final. chain: verified headers, which must hold the block.
    Raises: DecodeError, VerificationError: something does not hold; it says what.
    """
    row = found.row
    digests = [hashlib.sha256(note).digest() for _, note, _ in found.notes]
    if not found.header:
        raise VerificationError(f"anchor {row.id} is {row.state.name}: no block holds it")
    if tuple(size for size, _, _ in found.notes) != row.log_sizes:
        raise VerificationError("notes are missing, or of other sizes than listed")
    if commitment_of(digests) != row.commitment:
        raise VerificationError("the notes are others than the commitment is of")
    verify_work(row.network, found.header)
    if header_hash(found.header) != row.block_hash:
        raise VerificationError("the header is another block's")
    for (size, note, proof), digest in zip(found.notes, digests, strict=True):
        policy.check(Note.parse(note))
        if Checkpoint.parse(Note.parse(note).text).size != size:
            raise VerificationError(f"the note listed for {size} leaves is of another size")
        check_proof(proof, digest, found.header, row.height)
    return 0 if chain is None else _confirmations(found, chain)


def check_proof(proof: bytes, digest: bytes, header: bytes, height: int) -> None:
    """Check that an .ots file leads from a digest to the Merkle root of the block with this header.

    Raises: DecodeError: not one of our proofs; VerificationError: it does not.
    """
    read = OtsProof.decode(proof)
    if read.digest != digest:
        raise VerificationError("the .ots file is of another note")
    if (read.root(), read.height) != (header[36:68], height):
        raise VerificationError("the .ots file does not lead to the block's Merkle root")


def _confirmations(found: AnchorProofs, chain: HeaderChain) -> int:
    height = found.row.height
    if chain.network is not found.row.network:
        raise VerificationError("the headers are of another Bitcoin network")
    if chain.header(height) != found.header:
        raise VerificationError(
            f"block {height} of the best chain is another one: the chain was reorganised"
        )
    return chain.depth(height)
