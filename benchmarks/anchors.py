"""Anchors verified offline: notes by the policy, timestamps to their blocks, a chain of headers with its work.

1,000 anchors of one checkpoint each, one anchor in one regtest block among four transactions, and the headers from genesis;
then 8 checkpoints an anchor. Everything is verified as a stranger with the files would, nothing is kept between two runs.
"""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Figure, Samples
from clearing.bitcoin.headers import genesis_pin, verify_chain
from clearing.bitcoin.next_header import BitcoinNetwork
from clearing.bitcoin.ots import OtsProof, commitment_of, make_proofs, verify_ots
from clearing.bitcoin.transaction import Outpoint, Output
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from tests.clearing.bitcoin.bitcoin_kit import Chain, taproot, transaction
from tests.clearing.bitcoin.header_kit import START_HEIGHT, mainnet, mainnet_pin
from tests.proof_kit import COSIGNED_S, COSIGNER, LOG, ORIGIN, POLICY

DEPTH = 6


@dataclass(frozen=True, slots=True)
class Files:
    """What a stranger holds: each note with its .ots, and the headers."""

    anchored: Sequence[tuple[bytes, bytes]]
    headers: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return len(self.headers) + sum(len(note) + len(ots) for note, ots in self.anchored)


def _note(number: int) -> bytes:
    root = hashlib.sha256(number.to_bytes(8, "big")).digest()
    text = Checkpoint(ORIGIN, number + 1, root).text
    return Note(text, (sign(text, LOG), sign(text, COSIGNER, COSIGNED_S))).encode()


def make_files(anchors: int, notes_per_anchor: int) -> Files:
    """Mine the chain and make the proofs."""
    chain, anchored = Chain(), []
    for number in range(anchors):
        notes = [_note(number * notes_per_anchor + at) for at in range(notes_per_anchor)]
        digests = [hashlib.sha256(note).digest() for note in notes]
        script = b"\x6a\x20" + commitment_of(digests)
        mine = transaction(
            [Outpoint(digests[0], 0)], [Output(0, script), Output(9_000, taproot("change"))]
        )
        others = [
            transaction([Outpoint(digests[0], n)], [Output(5_000, taproot("other"))])
            for n in (1, 2)
        ]
        place = chain.block(others[0], mine, others[1])[1]
        anchored += zip(notes, make_proofs(digests, place, chain.height), strict=True)
    chain.blocks(DEPTH)
    return Files(anchored, b"".join(chain.headers))


def verify(files: Files) -> None:
    """Verify every file as a stranger would."""
    network = BitcoinNetwork.REGTEST
    chain = verify_chain(network, 0, files.headers, genesis_pin(network))
    for data, ots in files.anchored:
        POLICY.check(Note.parse(data))
        verify_ots(OtsProof.decode(ots), hashlib.sha256(data).digest(), chain, DEPTH)


def _anchors(anchors: int, notes_per_anchor: int, runs: int) -> Figure:
    files, samples = make_files(anchors, notes_per_anchor), Samples()
    for _ in range(runs):
        samples.timed(lambda: verify(files))
    return Figure(
        f"{anchors:,} anchors of {notes_per_anchor} checkpoints verified offline, fastest",
        round(min(samples.seconds), 3),
        "s",
        details={
            "files_mb": round(files.size_bytes / 1e6, 3),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            **samples.summary(),
        },
    )


def _headers(runs: int) -> Figure:
    headers, samples = b"".join(mainnet()), Samples()
    for _ in range(runs):
        samples.timed(
            lambda: verify_chain(BitcoinNetwork.MAIN, START_HEIGHT, headers, mainnet_pin())
        )
    rate = len(mainnet()) / min(samples.seconds)
    return Figure(
        "headers of mainnet verified, fastest", round(rate), "a second", details=samples.summary()
    )


def run(*, quick: bool) -> list[Figure]:
    """Measure anchors and headers (fewer when quick)."""
    anchors, runs = (50, 2) if quick else (1_000, 5)
    return [_headers(runs), _anchors(anchors, 1, runs), _anchors(anchors // 8, 8, runs)]
