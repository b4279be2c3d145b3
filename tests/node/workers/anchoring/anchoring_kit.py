"""Anchoring on an embedded chain over real HTTP, with a clock and a ledger that the test holds in its hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bitcoin.core import CBlock
from embit.script import Script
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from clearing.bitcoin.ots import commitment_of
from clearing.rules.anchors import AnchorState
from node.keys import SigningKey
from node.regtest.calls import Calls
from node.regtest.chain import Chain
from node.regtest.server import RpcServer
from node.workers.anchoring.blocks import commitment_script
from node.workers.anchoring.book import Anchor
from node.workers.anchoring.desk import Due
from node.workers.anchoring.engine import Engine
from node.workers.anchoring.keyring import Branch, KeyPath, Keyring, Kind
from node.workers.anchoring.network import Network
from node.workers.anchoring.policy import AlarmKind, AnchorPolicy
from node.workers.anchoring.proofs import digest_of
from node.workers.anchoring.rpc import BitcoinRpc

CREDENTIALS = "u:p"
START_S = 1_800_000_000
FUNDED = tuple(KeyPath(kind, Branch.RECEIVE, n) for n in (0, 1) for kind in (Kind.TR, Kind.WPKH))
POLICY = AnchorPolicy(
    every_checkpoints=3,
    every_s=600,
    bump_after_s=600,
    fee_rate_fallback=2_000,
    fee_rate_max=50_000,
    fee_sat_max=20_000,
    replacements_max=2,
    children_max=1,
)


def keyring() -> Keyring:
    return Keyring(SigningKey.from_seed(bytes(range(32))), Network.REGTEST)


def note_of(size: int) -> bytes:
    """Return what stands for the note of the checkpoint of `size` leaves."""
    return b"note of a log of %d leaves\n" % size


@dataclass
class Paper:
    """A ledger of nothing but checkpoints, which writes down what it is told."""

    sizes: list[int] = field(default_factory=list)
    quiet: set[int] = field(default_factory=set)

    def add(self, *sizes: int) -> None:
        self.sizes += sizes

    def due(self, after: int, at_most: int) -> Sequence[Due]:
        found = [size for size in self.sizes if size > after][:at_most]
        return [Due(size, digest_of(note_of(size))) for size in found]

    def is_news(self, after: int, size: int) -> bool:
        return any(after < one <= size and one not in self.quiet for one in self.sizes)

    def last(self) -> tuple[int, int]:
        return 0, 0

    def commitment(self, digests: Sequence[bytes]) -> bytes:
        return commitment_of(digests)

    def payload(self, anchor: Anchor) -> bytes:
        return f"{anchor.number} {anchor.state.name} {anchor.depth}".encode()


@dataclass
class Town:
    """A chain, its RPC, and an engine in front of it."""

    path: Path
    policy: AnchorPolicy = POLICY
    now: int = START_S
    rpc: BitcoinRpc | None = None
    ledger: Paper = field(default_factory=Paper)
    funded: Sequence[KeyPath] = FUNDED

    def __enter__(self) -> Self:
        self.chain = Chain(self.path / "chain")
        ring = keyring()
        for path in self.funded:
            self.chain.mine(1, ring.script(path))
        self.chain.mine(101)
        self.serve(0)
        self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self.rpc.close()
        self.unserve()
        self.chain.close()

    def serve(self, port: int) -> None:
        self.server = RpcServer(Calls(self.chain), "127.0.0.1", port, CREDENTIALS)
        self.server.__enter__()
        self.port = self.server.port

    def unserve(self) -> None:
        self.server.__exit__()

    def restart(self) -> None:
        """Begin anew from the files alone, as a process does."""
        if self.rpc is not None:
            self.rpc.close()
        self.rpc = BitcoinRpc(f"http://{CREDENTIALS}@127.0.0.1:{self.port}", timeout_s=5)
        self.engine = Engine(
            self.path / "anchoring",
            keyring(),
            self.rpc,
            self.ledger,
            network=Network.REGTEST,
            policy=self.policy,
            birthday=0,
            now_s=lambda: self.now,
        )

    def step(self, *, now: bool = False) -> AnchorState | None:
        """Make steps until all blocks are read; returns the newest anchor's state."""
        while self.engine.step(now=now)[0]:
            pass
        return self.state

    def mine(self, count: int) -> AnchorState | None:
        self.chain.mine(count)
        return self.step()

    @property
    def anchor(self) -> Anchor:
        return list(self.engine.desk.book)[-1]

    @property
    def state(self) -> AnchorState | None:
        return self.anchor.state if len(self.engine.desk.book) else None

    @property
    def told(self) -> list[str]:
        """What the newest anchor tells the ledger: state and depth, in order."""
        words = [one.payload.decode().split()[1:] for one in self.anchor.statements]
        return [state if depth == "0" else f"{state}({depth})" for state, depth in words]

    @property
    def alarms(self) -> set[AlarmKind]:
        return {alarm.kind for alarm in self.engine.standing.alarms}

    def begin(self, *sizes: int) -> Anchor:
        """Anchor checkpoints of these sizes; returns the anchor once it is broadcast."""
        self.ledger.add(*sizes)
        assert self.step(now=True) is AnchorState.BROADCAST
        return self.anchor

    def mined(self, commitment: bytes | None = None) -> list[bytes]:
        """Return the txids of the best chain's transactions that carry a commitment: any, or the one given."""
        script = commitment_script(commitment or b"")
        heights = range(1, self.chain.kernel.height + 1)
        blocks = [self.chain.kernel.block(self.chain.kernel.hash_at(height)) for height in heights]
        return [
            one.GetTxid()
            for block in blocks
            for one in CBlock.deserialize(block).vtx[1:]
            if any(bytes(output.scriptPubKey).startswith(script) for output in one.vout)
        ]

    def theft(self) -> bytes:
        """Return a transaction of the wallet's own key that spends the newest anchor's input elsewhere."""
        return theft_of(self.engine, self.anchor)


def theft_of(engine: Engine, anchor: Anchor, fee_sat: int = 900) -> bytes:
    """Return a transaction of the wallet's own key that spends an anchor's input elsewhere."""
    newest = anchor.newest
    assert newest is not None
    assert engine._wallet is not None
    coin = engine._wallet.coin(newest.inputs[0])
    assert coin is not None
    made = Transaction(
        version=2,
        vin=[TransactionInput(coin.txid[::-1], coin.index, sequence=0xFFFFFFFD)],
        vout=[TransactionOutput(coin.amount_sat - fee_sat, Script(b"\x00\x14" + b"\x07" * 20))],
    )
    return bytes(keyring().sign(made, [(coin.path, coin.amount_sat)]).serialize())
