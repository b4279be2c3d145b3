"""A writer to be killed: commits blocks, records heads, and tells of each once it is durable.

Run by test_kill.py through a fork server. Sends for what was acknowledged:

    block LOG_SIZE ROOT        after commit returned
    head LOG_SIZE ROOT         after record_head returned: the signature could leave now
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from node.store import Head, StoreSettings
from node.store.startup import check_state, open_checked
from tests.ledger_kit import P01, P02, item
from tests.node.store.store_kit import DiskNet


def write(directory: Path, told: Connection) -> None:
    """Write until killed; every tenth block is large, so that kills hit long writes as well."""
    settings = StoreSettings(map_bytes=1 << 20, free_bytes_min=0)
    store = open_checked(directory, settings)
    net = DiskNet(store=store)  # type: ignore[arg-type]  # a Net drives any store
    check_state(store, net.state)
    while True:
        count = 3000 if net.state.height % 10 == 5 else 2
        net.submit(P01, *[item(P01, P02, 7)] * count)
        size, root = net.state.log_size, net.state.log.root
        told.send_bytes(f"block {size} {root.hex()}".encode())
        store.record_head("log", Head(size, root))
        told.send_bytes(f"head {size} {root.hex()}".encode())
