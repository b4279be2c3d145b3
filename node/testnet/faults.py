"""Faults of a test network that are on now: which ways between nodes are cut, which lose what they carry, who lies.

Lives here: what a fault is, faults.json, the checks of what a command asks for. May not live here: bringing a fault about
(relay.py for processes, containers.py for containers; processes.py kills and pauses).

A node that is killed, stopped or paused is no entry of this file: whether it runs is asked of the system.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from node.errors import SetupError
from node.files import PUBLIC_MODE, read_text, replace_file

FAULTS_NAME = "faults.json"


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong between the nodes of a network.

    serial: counts changes, so that whoever applies faults can say how far it is. groups: nodes of different groups do not
    hear each other; a node in none hears all. loss_percent: of what a node sends and receives, 0 to 100.
    lies: how a node lies, by name.
    """

    serial: int = 0
    groups: tuple[tuple[str, ...], ...] = ()
    loss_percent: Mapping[str, int] = field(default_factory=dict)
    lies: Mapping[str, str] = field(default_factory=dict)

    def is_cut(self, one: str, other: str) -> bool:
        """Return whether two nodes do not hear each other."""
        of_one = next((group for group in self.groups if one in group), None)
        of_other = next((group for group in self.groups if other in group), None)
        return of_one is not None and of_other is not None and of_one is not of_other

    def lost(self, one: str, other: str) -> float:
        """Return the probability, 0 to 1, that what goes between two nodes is lost on its way."""
        kept = 1.0
        for name in (one, other):
            kept *= 1 - self.loss_percent.get(name, 0) / 100
        return 1 - kept

    def partitioned(self, groups: Sequence[Sequence[str]], nodes: Sequence[str]) -> Self:
        """Return the faults with the network split into `groups`, in place of how it was split before.

        One group is split from all other nodes.
        Raises: SetupError: a node that is not in `nodes` or named twice, or nothing to split.
        """
        named = [name for group in groups for name in group]
        for name in named:
            check_node(name, nodes)
            if named.count(name) > 1:
                raise SetupError(f"partition: {name} is named twice: each node is on one side")
        rest = tuple(name for name in nodes if name not in named)
        split = [tuple(group) for group in groups if group]
        if len(split) == 1 and rest:
            split.append(rest)
        if len(split) < 2:
            raise SetupError("partition: give at least two sides, such as A,B C,D")
        return replace(self, serial=self.serial + 1, groups=tuple(split))

    def losing(self, node: str, percent: int, nodes: Sequence[str]) -> Self:
        """Return the faults with `percent` of what a node sends and receives lost; 0 ends it.

        Raises: SetupError: no such node, or not 0 to 100.
        """
        check_node(node, nodes)
        if not 0 <= percent <= 100:
            raise SetupError(f"loss: {percent} percent cannot be: give 0 to 100")
        changed = {**self.loss_percent, node: percent}
        kept = {name: value for name, value in changed.items() if value}
        return replace(self, serial=self.serial + 1, loss_percent=kept)

    def lying(self, node: str, how: str) -> Self:
        """Return the faults with a node that lies, or no longer does where `how` is ""."""
        lies = {name: value for name, value in {**self.lies, node: how}.items() if value}
        return replace(self, serial=self.serial + 1, lies=lies)

    def healed(self) -> Self:
        """Return the faults with all ways open and lossless; liars stay liars."""
        return replace(self, serial=self.serial + 1, groups=(), loss_percent={})

    def encode(self) -> bytes:
        """Return the text of faults.json."""
        return (
            json.dumps(
                {
                    "serial": self.serial,
                    "groups": self.groups,
                    "loss_percent": dict(self.loss_percent),
                    "lies": dict(self.lies),
                }
            )
            + "\n"
        ).encode()

    def save(self, directory: Path) -> None:
        """Write faults.json of the network in `directory`.

        Raises: SetupError: it cannot be written.
        """
        replace_file(directory / FAULTS_NAME, self.encode(), PUBLIC_MODE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the faults of the network in `directory`; none where there is no such file.

        Raises: SetupError: the file is damaged.
        """
        path = directory / FAULTS_NAME
        if not path.exists():
            return cls()
        try:
            found: dict[str, Any] = json.loads(read_text(path))
            return cls(
                int(found["serial"]),
                tuple(tuple(map(str, group)) for group in found["groups"]),
                {str(name): int(percent) for name, percent in found["loss_percent"].items()},
                {str(name): str(how) for name, how in found["lies"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SetupError(
                f"{path} is damaged ({error}): remove it; no fault is on then"
            ) from error


def check_node(name: str, nodes: Sequence[str]) -> None:
    """Accept the name of a node.

    Raises: SetupError: there is none of that name.
    """
    if name not in nodes:
        raise SetupError(f"there is no node {name!r}: the network has {', '.join(nodes)}")
