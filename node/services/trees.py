"""The commitment trees of submissions whose items were opened lately.

Lives here: a small cache. May not live here: anything about receipts.

Opening one item needs the hashes of all its submission's items, about a microsecond each; who takes receipts takes
them item by item, so the last few trees answer nearly every call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from clearing.log.merkle import HashedLeaves

TREES_MAX = 8
"""Trees kept: 3.2 MB each at most."""


class ItemTrees:
    """The most recently used trees by log index; may be used from several threads."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._trees: OrderedDict[int, HashedLeaves] = OrderedDict()

    def get(self, index: int, make: Callable[[], HashedLeaves]) -> HashedLeaves:
        """Return the tree of the submission at `index`, made by `make` if it is not at hand.

        Two threads may make the same tree at once; they make equal ones.
        """
        with self._lock:
            tree = self._trees.get(index)
            if tree is not None:
                self._trees.move_to_end(index)
                return tree
        tree = make()
        with self._lock:
            self._trees[index] = tree
            while len(self._trees) > TREES_MAX:
                self._trees.popitem(last=False)
        return tree
