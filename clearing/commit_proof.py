"""Commit proofs: that more than two thirds of the validators' power have signed the log's head under which a proof stands.

Lives here: the file as a value, its text, its verification, offline. May not live here: the proofs it is put before
(receipt.py, position_proof.py, anchored_receipt.py), what a commit is (consensus/), who fetches it.

    clearing/commit-proof@v1
    index 0                      log index of the VALIDATORS leaf that names the set
    leaf <base64>                that leaf
    path <base64>                its inclusion proof, hashes of 32 bytes from the leaf upwards
    block <base64>               the engine's LightBlock: header, commit, set
    (empty line)
    <any proof of this ledger, verbatim>

It is evidence beside the quorum's cosignatures, by other keys: the policy says whose cosignatures count, the log says who its
validators are. What it shows is that this set, which the log names before the checkpoint, has signed a header whose app hash is
the checkpoint's size and root. That no later leaf has replaced the set is not shown here: who must know names the set that is
trusted, or checks the whole log (`clearing audit verify --consensus`).
Invariant: `CommitProof.split` accepts exactly the image of `CommitProof.carrying`.
Source: own design (README, decision 41).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from clearing.consensus import light_block
from clearing.consensus.commit import SignedHeader, app_hash, chain_id, verify_signed_header
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.merkle import HASH_BYTES
from clearing.log.proof import PATH_HASHES_MAX
from clearing.log.text import (
    decode_base64,
    decode_decimal,
    decode_fields,
    encode_base64,
    encode_fields,
)
from clearing.records.leaves import ValidatorsLeaf

FILE_HEADER = "clearing/commit-proof@v1"
HEAD_BYTES_MAX = 120_000
"""Most bytes before the proof that is carried: the greatest block in base64, and the rest."""

_FIELDS = ("index", "leaf", "path", "block")


@dataclass(frozen=True, slots=True)
class VerifiedCommit:
    """What a commit proof proves.

    engine_height, time_s (since 1970): of the engine's block whose header was signed. validators: the leaf that names the set,
    at log index validators_index. power: that signed, of validators.total_power.
    """

    engine_height: int
    time_s: int
    validators_index: int
    validators: ValidatorsLeaf
    power: int


@dataclass(frozen=True, slots=True)
class CommitProof:
    """The file's parts before the proof it carries; nothing of it may be trusted before `verify`."""

    validators_index: int
    validators_leaf: bytes
    path: tuple[bytes, ...]
    signed: SignedHeader

    def carrying(self, proof: bytes) -> bytes:
        """Return the file: this, before a proof under the same checkpoint.

        Raises: DecodeError: the commit's votes are not those of its set.
        """
        values = (
            str(self.validators_index),
            encode_base64(self.validators_leaf),
            encode_base64(b"".join(self.path)),
            encode_base64(light_block.encode(self.signed)),
        )
        return encode_fields(FILE_HEADER, dict(zip(_FIELDS, values, strict=True))) + proof

    @classmethod
    def split(cls, data: bytes) -> tuple[Self, bytes]:
        """Read a file; return the commit proof and the proof that it carries.

        Raises: DecodeError: too long, not UTF-8, a line missing, superfluous or not canonical.
        """
        end = data.find(b"\n\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            raise DecodeError("the commit proof has no empty line before the proof that it carries")
        values = decode_fields(data[:end], FILE_HEADER, _FIELDS, "a commit proof")
        path = decode_base64(values[2], "path")
        count, rest = divmod(len(path), HASH_BYTES)
        if rest or count > PATH_HASHES_MAX:
            raise DecodeError("the path of the commit proof is not of hashes of 32 bytes")
        found = cls(
            decode_decimal(values[0], "index"),
            decode_base64(values[1], "leaf"),
            tuple(path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES)),
            light_block.decode(decode_base64(values[3], "block")),
        )
        return found, data[end + 2 :]

    def verify(
        self, network_id: bytes, head: Checkpoint, trusted_set: bytes | None = None
    ) -> VerifiedCommit:
        """Verify it, offline, for a checkpoint that the proof which it carries was verified under.

        network_id: of the log, verified too. trusted_set: hash of the only set that is accepted; None: any that the log names.
        Raises: DecodeError: the leaf names no validators. VerificationError: the leaf is not under the checkpoint, the set is
            another than the leaf's or the trusted one, too little power has signed, or the header is of another log.
        """
        leaf = ValidatorsLeaf.decode(self.validators_leaf)
        merkle.verify_inclusion(
            merkle.leaf_hash(self.validators_leaf),
            self.validators_index,
            head.size,
            self.path,
            head.root,
        )
        header = self.signed.header
        if header.validators_hash != leaf.validators_hash:
            raise VerificationError(
                f"the block is signed by the set {header.validators_hash.hex()}, not by that of the leaf"
            )
        if trusted_set is not None and trusted_set != leaf.validators_hash:
            raise VerificationError(
                f"the block is signed by the set {leaf.validators_hash.hex()}, not by {trusted_set.hex()}"
            )
        power = verify_signed_header(self.signed, chain_id(network_id))
        if header.app_hash != app_hash(head.size, head.root):
            raise VerificationError(
                f"the commit is of another log than this one of {head.size} leaves"
            )
        return VerifiedCommit(
            header.height, header.time.seconds, self.validators_index, leaf, power
        )


def has_commit_proof(data: bytes) -> bool:
    """Return whether a file says that it starts with a commit proof."""
    return data.startswith(b"clearing/commit-proof@")


def without_commit(data: bytes) -> bytes:
    """Return the proof that a file carries, or the file itself where it has no commit proof.

    Raises: DecodeError: as `CommitProof.split`.
    """
    return CommitProof.split(data)[1] if has_commit_proof(data) else data
