"""Processes that start fast, to be killed: forked from one that has loaded what they run and opened nothing.

Loading the libraries is most of a start, and what is killed again and again is not that.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

LOADED = ["tests.node.store.writer_process", "tests.node.workers.anchoring.killed_process"]
"""What the mother of all forked processes has loaded: she starts once for a whole run of tests."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LOADED)


def forked(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Return a started process that does `work`."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process
