"""An anchored receipt in memory, for tests: a ledger, its signed head, and a regtest chain that holds the head's anchor.

Lives here: making one. Real hashes, signatures and regtest proof of work throughout.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from clearing.anchored_receipt import AnchoredReceipt
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.ots import commitment_of, make_proofs
from clearing.bitcoin.transaction import Outpoint, Output
from clearing.log.note import Note
from clearing.receipt import item_tree, make_receipt
from clearing.records.submission import Submission
from tests.clearing.bitcoin.bitcoin_kit import Chain, taproot, transaction
from tests.ledger_kit import BTC, P01, P02, Net, item
from tests.proof_kit import head_note

SUBMISSION = 2


@dataclass(frozen=True)
class Case:
    """What the file was made of; height: of the block that holds the anchor."""

    net: Net
    receipt: bytes
    note: bytes
    chain: Chain
    height: int
    file: AnchoredReceipt


def anchored(net: Net, note: bytes, receipt: bytes) -> Case:
    """Anchor `note` as the second of three, six blocks deep."""
    digests = [hashlib.sha256(one).digest() for one in (b"before", note, b"after")]
    chain = Chain()
    chain.blocks(12)
    anchor = transaction(
        [Outpoint(b"\1" * 32, 0)],
        [Output(0, b"\x6a\x20" + commitment_of(digests)), Output(9_000, taproot("change"))],
    )
    (place,) = chain.block(anchor)
    height = chain.height
    chain.blocks(5)
    ots = list(make_proofs(digests, place, height))[1]
    file = AnchoredReceipt(BitcoinNetwork.REGTEST, 0, b"".join(chain.headers), ots, receipt)
    return Case(net, receipt, note, chain, height, file)


def receipt_under(net: Net, note: Note, index: int = SUBMISSION) -> bytes:
    """Return the receipt of item 1 of a submission, the first if not said."""
    submission = Submission.of_leaf(net.store.leaf(index), net.store.body(index) or b"")
    return make_receipt(
        network_id=net.state.network_id,
        index=index,
        transaction=submission,
        checkpoint=note,
        nodes=net.store,
        item=1,
        tree=item_tree(submission),
    )


def make_case() -> Case:
    """Return a ledger of one submission with its anchored receipt."""
    net = Net()
    index = net.submit(P01, *[item(P01, P02, 1000 + n, asset=BTC) for n in range(3)])
    assert index == SUBMISSION
    note = head_note(net)
    return anchored(net, note.encode(), receipt_under(net, note))
