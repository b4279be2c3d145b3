"""Signed heads over a ledger in memory, for tests of receipts and position proofs."""

from __future__ import annotations

from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Log, Policy, Witness
from node.keys import CosignerSigner, LogSigner, SigningKey
from tests.ledger_kit import Net

ORIGIN = "clearing.test/log"
LOG = LogSigner(SigningKey.from_seed(bytes(range(32))), ORIGIN)
COSIGNER = CosignerSigner(SigningKey.from_seed(bytes(range(32, 64))), "clearing.test/node/cb")
STRANGER = LogSigner(SigningKey.from_seed(bytes(range(64, 96))), ORIGIN)
POLICY = Policy((Log(LOG.key),), (Witness("cb", COSIGNER.key),), (), "cb")
COSIGNED_S = 1_700_000_100


def head_note(net: Net) -> Note:
    """Return the present head of the ledger, signed by the log and cosigned to the quorum."""
    text = Checkpoint(ORIGIN, net.state.log_size, net.state.log.root).text
    return Note(text, (sign(text, LOG), sign(text, COSIGNER, COSIGNED_S)))
