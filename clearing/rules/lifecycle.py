"""Transition tables: how a lifecycle is written down, checked and drawn.

Lives here: the `Lifecycle` value and its Mermaid drawing, from which the README's diagrams are made. May not live
here: any particular lifecycle (each rule module owns its table) or who may cause a move.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from clearing.errors import invariant

StateT = TypeVar("StateT", bound=enum.IntEnum)


@dataclass(frozen=True, slots=True)
class Lifecycle(Generic[StateT]):
    """A transition table: `moves` lists (from, to, what causes it), in the order a reader should meet them."""

    name: str
    initial: StateT
    moves: tuple[tuple[StateT, StateT, str], ...]
    _tables: dict[int, npt.NDArray[np.bool_]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def allows(self, origin: StateT, target: StateT) -> bool:
        """Return whether the table has a move from `origin` to `target`."""
        return any(a is origin and b is target for a, b, _ in self.moves)

    def require(self, origin: StateT, target: StateT) -> StateT:
        """Return `target`.

        Raises: InvariantViolation: the table has no such move; the caller had to check the user's wish before.
        """
        invariant(
            self.allows(origin, target), f"{self.name}: no move {origin.name} -> {target.name}"
        )
        return target

    def sources(self, target: StateT) -> tuple[StateT, ...]:
        """Return the states from which `target` can be reached in one move."""
        return tuple(origin for origin, reached, _ in self.moves if reached is target)

    def is_terminal(self, state: StateT) -> bool:
        """Return whether nothing leaves `state`."""
        return not any(origin is state for origin, _, _ in self.moves)

    def mask_of(self, states: npt.NDArray[np.uint8], target: StateT) -> npt.NDArray[np.bool_]:
        """Return which entries of a state column may move to `target`."""
        table = self._tables.get(target.value)
        if table is None:
            table = self._tables[target.value] = np.zeros(256, dtype=np.bool_)
            table[[int(origin) for origin in self.sources(target)]] = True
        return table[states]

    def mermaid(self) -> str:
        """Return the table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial.name}"]
        lines += [f"    {a.name} --> {b.name}: {cause}" for a, b, cause in self.moves]
        ends = dict.fromkeys(b for _, b, _ in self.moves if self.is_terminal(b))
        lines += [f"    {state.name} --> [*]" for state in ends]
        return "\n".join(lines)
