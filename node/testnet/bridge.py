"""The network on which a test network's containers reach each other: its name, its subnet, the address of each.

Lives here: names and addresses. May not live here: docker (containers.py).
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from node.errors import SetupError

NODE_PORT = 7400
"""Where a node serves inside its container."""

CONSENSUS_PORT = 26656
"""Where its consensus engine listens to the other operators'."""

CHAIN_PORT = 18443
"""Where the Bitcoin chain serves inside its container."""

_SUBNETS = ipaddress.IPv4Network("172.30.0.0/16")
_FIRST_HOST = 11


@dataclass(frozen=True, slots=True)
class Bridge:
    """The containers' network.

    project: what names of containers and networks begin with, of its own for each test network. subnet: in CIDR. names: of the
    containers, in the order of their addresses.
    """

    project: str
    subnet: str
    names: tuple[str, ...]

    @classmethod
    def choose(cls, names: Iterable[str], taken: Iterable[str]) -> Self:
        """Return a network for containers of these names, with a subnet that overlaps none of `taken`.

        Raises: SetupError: all are taken.
        """
        all_used = [ipaddress.ip_network(one, strict=False) for one in taken]
        used = [one for one in all_used if isinstance(one, ipaddress.IPv4Network)]
        subnets = list(_SUBNETS.subnets(new_prefix=24))
        start = secrets.randbelow(len(subnets))
        for subnet in [*subnets[start:], *subnets[:start]]:
            if not any(subnet.overlaps(one) for one in used):
                return cls(f"clearing-{secrets.token_hex(4)}", str(subnet), tuple(names))
        raise SetupError(f"every subnet of {_SUBNETS} is in use: take other test networks down")

    def container(self, name: str) -> str:
        """Return the name of a container."""
        return f"{self.project}-{name}"

    def address(self, name: str) -> str:
        """Return the fixed address of a container."""
        network = ipaddress.ip_network(self.subnet)
        return str(network[_FIRST_HOST + self.names.index(name)])

    def chain(self) -> str:
        """Return the name of this network's chain of packet rules, of at most 28 characters."""
        return self.project.upper()
