"""The engine's side of the application's socket, played by a test: four connections, blocks decided at will.

Lives here: Engine, and a maker of signed transactions. The application, its server and its store are the real ones; the
real engine is what tests/node/test_operators.py runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from clearing.ledger import BlockResult, Outcome
from clearing.records import instruction as ins
from clearing.records.submission import Submission, make_submission
from node.pb.abci import abci_pb2 as abci
from node.sequencer.cometbft.application import Application, Events
from node.sequencer.cometbft.frames import read_frame, write_frame
from node.sequencer.cometbft.home import genesis_document
from node.sequencer.cometbft.server import AbciServer
from node.sequencer.driver import Machine
from node.store import Store
from tests.ledger_kit import GENESIS_MS, seeded_key
from tests.node.sequencer.cometbft.test_home import CAST, actions
from tests.node.store.store_kit import SETTINGS

GENESIS = json.loads(genesis_document(GENESIS_MS, actions()))


@dataclass
class Maker:
    """Signs transactions of the cast."""

    network_id: bytes
    serial: int = 0

    def fresh(self, width: int) -> bytes:
        self.serial += 1
        return hashlib.sha256(f"maker {self.serial}".encode()).digest()[:width]

    def submission(self, submitter: int, *records: bytes) -> Submission:
        return make_submission(
            network_id=self.network_id,
            submitter=submitter,
            client_id=self.fresh(16),
            secret=self.fresh(32),
            records=b"".join(records),
            sign=seeded_key(CAST[submitter][0]).sign,
        )

    def instruction(self, kind: ins.InstructionKind, actor: int, payload: bytes) -> ins.Instruction:
        return ins.make_instruction(
            network_id=self.network_id,
            kind=kind,
            actor=actor,
            client_id=self.fresh(16),
            salt=self.fresh(16),
            payload=payload,
            sign=seeded_key(CAST[actor][0]).sign,
        )


@dataclass
class Told:
    """What the application told."""

    blocks: list[BlockResult] = field(default_factory=list)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    full: list[str | None] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)


class Engine:
    """An application on a store, served on a socket, and the engine that calls it; a context manager."""

    def __init__(self, directory: Path, machine: type[Machine] = Machine) -> None:
        self.store = Store.open(directory / "data", SETTINGS)
        self.machine = machine(self.store)
        self.told = Told()
        events = Events(
            lambda result, _items, _seconds: self.told.blocks.append(result),
            self.told.outcomes.update,
            self.told.full.append,
        )
        self.application = Application(self.machine, events)
        self.path = directory / "abci.sock"
        self.server = AbciServer(self.application, self.path, self.told.failures.append)
        self.server.start()
        self.sockets = {
            name: self._connect() for name in ("query", "snapshot", "mempool", "consensus")
        }
        self.time_ns = GENESIS_MS * 10**6
        self.height = 0

    def _connect(self) -> tuple[socket.socket, Any, Any]:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(30)
        made.connect(str(self.path))
        return made, made.makefile("rb"), made.makefile("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.application.end()
        self.server.stop()
        for made, reader, writer in self.sockets.values():
            reader.close()
            writer.close()
            made.close()
        self.store.close()

    def call(self, connection: str, request: abci.Request) -> abci.Response:
        """Send one request and a flush, and return the answer; both answers come in order."""
        self.send(connection, request)
        answer = self.receive(connection)
        if answer.WhichOneof("value") != "exception":
            assert self.receive(connection).WhichOneof("value") == "flush"
        return answer

    def send(self, connection: str, request: abci.Request) -> None:
        """Send one request and a flush."""
        writer = self.sockets[connection][2]
        for one in (request, abci.Request(flush=abci.RequestFlush())):
            write_frame(writer, one.SerializeToString())
        writer.flush()

    def receive(self, connection: str) -> abci.Response:
        """Return the next answer."""
        return abci.Response.FromString(read_frame(self.sockets[connection][1]))

    def info(self) -> abci.ResponseInfo:
        return self.call("query", abci.Request(info=abci.RequestInfo(version="test"))).info

    def init_chain(self, **changes: Any) -> abci.Response:
        values = {
            "chain_id": GENESIS["chain_id"],
            "app_state_bytes": json.dumps(GENESIS["app_state"]).encode(),
            "initial_height": 1,
            "validators": [
                abci.ValidatorUpdate(
                    pub_key=abci.PublicKey(ed25519=_key(one)), power=int(one["power"])
                )
                for one in GENESIS["validators"]
            ],
        } | changes
        return self.call("consensus", abci.Request(init_chain=abci.RequestInitChain(**values)))

    def begin(self) -> Maker:
        """Start the chain, and return a maker of its transactions."""
        assert self.init_chain().WhichOneof("value") == "init_chain"
        return Maker(self.machine.state.network_id)

    def check(self, data: bytes, *, again: bool = False) -> int:
        kind = abci.RECHECK if again else abci.NEW
        request = abci.Request(check_tx=abci.RequestCheckTx(tx=data, type=kind))
        return self.call("mempool", request).check_tx.code

    def finalize(self, *txs: bytes, height: int | None = None, **fields: Any) -> abci.Response:
        """Decide a block, one second later than the last."""
        request = abci.RequestFinalizeBlock(
            txs=txs,
            height=self.height + 1 if height is None else height,
            time=self.moment(self.time_ns + 10**9),
            **fields,
        )
        return self.call("consensus", abci.Request(finalize_block=request))

    def commit(self) -> abci.Response:
        answer = self.call("consensus", abci.Request(commit=abci.RequestCommit()))
        if answer.WhichOneof("value") == "commit":
            self.height += 1
            self.time_ns += 10**9
        return answer

    def block(self, *txs: bytes, **fields: Any) -> abci.ResponseFinalizeBlock:
        """Decide and commit a block."""
        answer = self.finalize(*txs, **fields)
        assert answer.WhichOneof("value") == "finalize_block", answer
        assert self.commit().commit.retain_height == 0
        return answer.finalize_block

    @staticmethod
    def moment(time_ns: int) -> abci.Timestamp:
        return abci.Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def _key(one: dict[str, Any]) -> bytes:
    return base64.b64decode(one["pub_key"]["value"])
