"""Inclusion proofs: made from the store, verified offline; position proofs against a SEAL; the cost of a seal.

The log has 100,000 leaves, the position tree 1,000,000 positions (10,000 participants by 100 assets).
"""

from __future__ import annotations

import hashlib
import pathlib
import tempfile

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from clearing.log import merkle
from clearing.records.leaves import SealLeaf
from clearing.rules.positions import Position, PositionTree, verify_position
from node.store.store import LeafBlock, Store
from node.store.view import Record


def leaves(count: int) -> list[bytes]:
    """Return `count` different leaves of 128 bytes."""
    return [hashlib.sha512(number.to_bytes(8, "big")).digest() * 2 for number in range(count)]


def inclusion(size: int, proofs: int) -> list[Figure]:
    """Measure proofs of random leaves of a stored log."""
    log_leaves = leaves(size)
    made, verified = Samples(), Samples()
    rng = np.random.default_rng(11)
    with tempfile.TemporaryDirectory() as directory:
        store = stored_log(pathlib.Path(directory), log_leaves)
        hashes = [merkle.leaf_hash(leaf) for leaf in log_leaves]
        tree = merkle.HashedLeaves(hashes)
        for index in rng.integers(0, size, proofs).tolist():
            path = made.timed(lambda index=index: proof_from(store, index, size))
            verified.timed(
                lambda index=index, path=path: merkle.verify_inclusion(
                    hashes[index], index, size, path, tree.root
                )
            )
        store.close()
    rate = len(verified.seconds) / sum(verified.seconds)
    return [
        Figure(
            f"inclusion proof made from LMDB, log of {size:,}, p99",
            made.percentile_ms(99),
            "ms",
            Target(2, "ms", at_most=True),
            made.summary(),
        ),
        Figure(
            "inclusion proofs verified", round(rate), "a second", Target(10_000, "", at_most=False)
        ),
    ]


def proof_from(store: Store, index: int, size: int) -> tuple[bytes, ...]:
    """Return the inclusion proof of one leaf, in one read transaction."""
    with store.snapshot() as view:
        return merkle.inclusion_proof(index, size, view)


def stored_log(directory: pathlib.Path, log_leaves: list[bytes]) -> Store:
    """Return a store that holds the leaves and their nodes, as a witness replica's does."""
    store = Store.open(directory, create=True)
    seal = SealLeaf(0, 0, 0, 1, 1, 1, bytes(32), bytes(32)).encode()
    records = (*(Record(leaf) for leaf in log_leaves[:-1]), Record(seal))
    log_leaves[-1] = seal
    log, nodes = merkle.CompactRange().append_many([merkle.leaf_hash(r.leaf) for r in records])
    store.append(LeafBlock(records, tuple(nodes), log.root))
    return store


def seals(participants: int, assets: int, touched: int) -> list[Figure]:
    """Measure what one block's touched positions cost in a large tree."""
    tree = PositionTree(participants, assets)
    everything = {
        (participant, asset): merkle.leaf_hash(participant.to_bytes(4, "big") + bytes((asset,)))
        for participant in range(participants)
        for asset in range(assets)
    }
    tree.advance(tree.change(participants, assets, everything))
    rng = np.random.default_rng(13)
    changed, proved = Samples(), Samples()
    for _ in range(50):
        positions = [
            Position(int(participant), int(asset), payable=1)
            for participant, asset in zip(
                rng.integers(0, participants, touched),
                rng.integers(0, assets, touched),
                strict=True,
            )
        ]
        news = {
            (position.participant, position.asset): merkle.leaf_hash(position.encode())
            for position in positions
        }
        tree.advance(changed.timed(lambda news=news: tree.change(participants, assets, news)))
        shown = positions[0]
        path = tree.proof(shown.participant, shown.asset)
        proved.timed(
            lambda shown=shown, path=path: verify_position(
                shown,
                shown.participant,
                shown.asset,
                participants=participants,
                assets=assets,
                path=path,
                state_root=tree.root,
            )
        )
    total = participants * assets
    return [
        Figure(
            f"new state root, {touched} of {total:,} positions touched, median",
            changed.summary()["ms_median"],
            "ms",
            details=changed.summary(),
        ),
        Figure(
            "position verified against a state root, median", proved.summary()["ms_median"], "ms"
        ),
    ]


def run(*, quick: bool) -> list[Figure]:
    """Measure proofs and seals (smaller when quick)."""
    figures = inclusion(5_000 if quick else 100_000, 500 if quick else 5_000)
    participants, assets = (1_000, 10) if quick else (10_000, 100)
    for touched in (1, 10, 100, 1000):
        figures += seals(participants, assets, touched)
    return figures
