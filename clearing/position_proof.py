"""Position proofs: what one participant's position in one asset was after a block, or that it had none.

Lives here: `make_position_proof` for nodes, `verify_position_proof` for whoever holds the file and the policy. May not
live here: files, keys, the tree itself (rules/positions.py).

A position proof is a C2SP tlog-proof of a SEAL leaf whose `extra` is a PositionRecord. What is verified, in this
order: the checkpoint's signatures by the policy; the SEAL leaf's inclusion; leaf 0's inclusion (the network id); the
two audit paths from the position, or from the zero leaf, to the state root in the SEAL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clearing.errors import DecodeError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from clearing.log.proof import LogProof
from clearing.records.leaves import SealLeaf
from clearing.records.receipt import PositionRecord
from clearing.rules.positions import Position, PositionPath, verify_position


@dataclass(frozen=True, slots=True)
class VerifiedPosition:
    """What a position proof proves: `position`, or None for its absence, as block `seal` left it.

    cosigned_s: the policy's names of those who cosigned the checkpoint, each with the second at which it did.
    """

    network_id: bytes
    participant: int
    asset: int
    position: Position | None
    seal: SealLeaf
    checkpoint: Checkpoint
    cosigned_s: Mapping[str, int]


def make_position_proof(
    *,
    network_id: bytes,
    seal_index: int,
    seal_leaf: bytes,
    participant: int,
    asset: int,
    position: Position | None,
    path: PositionPath,
    checkpoint: Note,
    nodes: merkle.NodeReader,
) -> bytes:
    """Return the proof of one position, as the text of a tlog-proof.

    Caller: position and path are those of the block that leaf `seal_index` seals.
    Raises: VerificationError: the checkpoint does not cover the SEAL leaf.
    """
    size = Checkpoint.parse(checkpoint.text).size
    record = PositionRecord(
        network_id,
        seal_leaf,
        merkle.inclusion_proof(0, size, nodes),
        participant,
        asset,
        b"" if position is None else position.encode(),
        path.has_positions,
        path.inner,
        path.outer,
    )
    return LogProof.make(seal_index, checkpoint, nodes, record.encode()).encode()


def verify_position_proof(data: bytes, policy: Policy) -> VerifiedPosition:
    """Verify a position proof, offline.

    Raises: DecodeError: not a position proof; VerificationError: the policy refuses the checkpoint, the SEAL or leaf 0
        is not under it, or the state root commits to something else.
    """
    proof = LogProof.parse(data)
    if proof.extra is None:
        raise DecodeError("the proof carries no position record")
    record = PositionRecord.decode(proof.extra)
    seal = SealLeaf.decode(record.leaf)
    quorum = proof.check(merkle.leaf_hash(record.leaf), policy)
    head = quorum.checkpoint
    # The network id is the leaf hash of leaf 0, so the log itself says which network it is.
    merkle.verify_inclusion(record.network_id, 0, head.size, record.genesis_path, head.root)
    position = Position.decode(record.position) if record.position else None
    verify_position(
        position,
        record.participant,
        record.asset,
        participants=seal.participants,
        assets=seal.assets,
        path=PositionPath(record.inner_path, record.outer_path, record.has_positions),
        state_root=seal.state_root,
    )
    cosigned_s = {name: sig.timestamp_s or 0 for name, sig in quorum.cosignatures.items()}
    return VerifiedPosition(
        record.network_id, record.participant, record.asset, position, seal, head, cosigned_s
    )
