"""Fetching what the validators have signed of a checkpoint, believing none of it.

Lives here: the operation. May not live here: what a commit proof is and its verification (clearing/commit_proof.py).
"""

from __future__ import annotations

from clearing.commit_proof import CommitProof, VerifiedCommit
from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.records.leaves import SealLeaf
from node.client.calls import Operation
from node.client.errors import BadAnswerError
from node.client.reads import Reader
from node.client.trust import Trust


class Commits:
    """Fetches commit proofs through `reader` and verifies them for the log that `trust` has seen."""

    def __init__(self, trust: Trust, reader: Reader) -> None:
        """Ask through these."""
        self._trust = trust
        self._reader = reader

    def prove(self, head: Checkpoint) -> Operation[tuple[CommitProof, VerifiedCommit]]:
        """Fetch the validators' commit for a checkpoint that was verified before, and verify it.

        Raises: BadAnswerError: it does not hold, or the checkpoint is not of the end of a block; CallError: the network has no
            validators, or the node does not have the commit now.
        """
        seen = yield from self._trust.ready()
        last, _ = yield from self._trust.leaf(head.size - 1, head.size)
        try:
            height = SealLeaf.decode(last).height
        except DecodeError as error:
            raise BadAnswerError(f"leaf {head.size - 1} is not the end of a block") from error
        found = yield from self._reader.block_commit(height)
        leaf, path = yield from self._trust.leaf(found.validators_index, head.size)
        proof = CommitProof(found.validators_index, leaf, path, found.signed)
        try:
            return proof, proof.verify(seen.network_id, head)
        except (DecodeError, VerificationError) as error:
            raise BadAnswerError(f"the validators' commit does not verify: {error}") from error
