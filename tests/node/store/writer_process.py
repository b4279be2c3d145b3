"""A writer to be killed: commits blocks, records heads, and tells of each once it is durable.

Run as `python -m tests.node.store.writer_process DIR`. Prints a line for what was acknowledged:

    block LOG_SIZE ROOT        after commit returned
    head LOG_SIZE ROOT         after record_head returned: the signature could leave now
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from node.store import Head, StoreSettings
from node.store.startup import check_state, open_checked
from tests.ledger_kit import P01, P02, item
from tests.node.store.store_kit import DiskNet


def tell(what: str, size: int, root: bytes) -> None:
    """Write one line in one system call, however Python buffers."""
    os.write(sys.stdout.fileno(), f"{what} {size} {root.hex()}\n".encode())


def main(directory: Path) -> None:
    """Write until killed; every tenth block is large, so that kills hit long writes as well."""
    settings = StoreSettings(map_bytes=1 << 20, free_bytes_min=0)
    store = open_checked(directory, settings)
    net = DiskNet(store=store)  # type: ignore[arg-type]  # a Net drives any store
    check_state(store, net.state)
    while True:
        count = 3000 if net.state.height % 10 == 5 else 2
        net.submit(P01, *[item(P01, P02, 7)] * count)
        size, root = net.state.log_size, net.state.log.root
        tell("block", size, root)
        store.record_head("log", Head(size, root))
        tell("head", size, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
