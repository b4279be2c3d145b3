"""Reports of anchors, signed by a node's key, with blocks that really hold them.

Lives here: what tests of anchors build. Nothing here knows what the right answer is.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from clearing.bitcoin.anchor import anchor_script
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.ots import commitment_of
from clearing.bitcoin.transaction import Outpoint, Output, TransactionProof
from clearing.ledger import Outcome
from clearing.records.instruction import Instruction, InstructionKind, make_instruction
from clearing.rules.anchors import AnchorReport, AnchorState
from clearing.rules.registry import Action, ActionKind
from tests.clearing.bitcoin.bitcoin_kit import Chain, transaction
from tests.clearing.core_kit import Core
from tests.ledger_kit import CB, seeded_key

NODE_KEY = seeded_key("node of the central bank")
REGTEST = BitcoinNetwork.REGTEST


def with_node_key(net: Core) -> Core:
    """Register the central bank's node key, and return the ledger."""
    key = NODE_KEY.public_key().public_bytes_raw()
    net.enact(Action(ActionKind.SET_NODE_KEY, {"participant": CB, "node_key": key}))
    return net


def digest(size: int) -> bytes:
    """Return what stands for the SHA-256 of a checkpoint's note."""
    return hashlib.sha256(b"note %d" % size).digest()


def stated(
    net: Core, report: AnchorReport | bytes, actor: int = CB, key: Any = NODE_KEY
) -> Instruction:
    """Return the instruction by which the node of `actor` reports."""
    payload = report if isinstance(report, bytes) else report.encode()
    unique = hashlib.sha256(payload).digest()
    return make_instruction(
        network_id=net.state.network_id,
        kind=InstructionKind.REPORT_ANCHOR,
        actor=actor,
        client_id=unique[:16],
        salt=unique[16:],
        payload=payload,
        sign=key.sign,
    )


def told(net: Core, report: AnchorReport) -> Outcome:
    """Have the ledger apply one report in a block of its own."""
    return net.one(stated(net, report))


def begin(*sizes: int, number: int = 1) -> AnchorReport:
    """Return the first report of an anchor."""
    return AnchorReport(
        state=AnchorState.PENDING,
        network=REGTEST,
        number=number,
        sequence=0,
        commitment=commitment_of([digest(size) for size in sizes]),
        checkpoints=tuple((size, digest(size)) for size in sizes),
    )


def after(report: AnchorReport, state: AnchorState, **changes: object) -> AnchorReport:
    """Return the next report of the same anchor."""
    bare = replace(report, header=b"", proof=None, depth=0, height=0, checkpoints=())
    return replace(bare, state=state, sequence=report.sequence + 1, **changes)


def anchor_transaction(commitment: bytes, salt: int = 0) -> bytes:
    """Return a transaction that anchors a commitment."""
    outputs = [Output(0, anchor_script(commitment)), Output(5_000 + salt, b"\x00\x14" + bytes(20))]
    return transaction([Outpoint(b"\x07" * 32, salt)], outputs)


def mined(
    report: AnchorReport,
    state: AnchorState = AnchorState.SHALLOW,
    depth: int = 1,
    salt: int = 0,
    chain: Chain | None = None,
) -> AnchorReport:
    """Return the next report of an anchor: a block holds it, the next of `chain`."""
    chain = chain or Chain()
    *_, proof = chain.block(anchor_transaction(report.commitment, salt), salt=salt)
    return _with(after(report, state, depth=depth), chain, proof)


def _with(report: AnchorReport, chain: Chain, proof: TransactionProof) -> AnchorReport:
    return replace(
        report,
        height=chain.height,
        txid=proof.transaction.txid,
        header=chain.headers[-1],
        proof=proof,
    )
