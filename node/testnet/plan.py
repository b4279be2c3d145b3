"""Who takes part in a test network: names, roles, identifiers, assets.

Lives here: the fixed cast of a test network, the same each time for the same number of participants. May not live
here: keys, files, processes.

The LEIs have right check digits and a prefix that no issuer of LEIs has ("TEST"); they name nobody.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearing.errors import DecodeError
from clearing.identifiers import check_lei, make_lei
from clearing.rules.registry import Asset
from clearing.types import NettingMethod, Role
from node.errors import SetupError

NETWORK_NAME = "testnet.clearing.example"
"""Name of every test network; two of them differ by their network id, the hash of their genesis."""

LEADER = "central-bank"
"""The node that is asked unless another is named; where one node orders, it is this one."""

NODES = ("central-bank", "ministry", "p01", "p02", "p03")
"""Nodes of a test network of one operator, whatever its number of participants."""

WITNESSES = ("p01", "p02", "p03")
"""Nodes that hold only the bodies of their own participant, where there is one operator."""

OPERATORS_DEFAULT = 4
OPERATORS_MIN = 4
"""Fewer survive no fault: of 3f + 1 operators f may fail."""
OPERATORS_MAX = 10

PARTICIPANTS_DEFAULT = 6
PARTICIPANTS_MIN = 3
PARTICIPANTS_MAX = 1_000

_FIRST = (Role.BANK, Role.BANK, Role.EXCHANGE)
_ROTATION = (Role.BANK, Role.EXCHANGE, Role.MINER)
_NOT_IN_NAMES = re.compile(r"[^0-9a-z]+")


@dataclass(frozen=True, slots=True)
class Party:
    """One licensed party of the network, before it has keys."""

    name: str
    role: Role
    lei: str


class Engine(enum.StrEnum):
    """Who orders a network's transactions."""

    EMBEDDED = "embedded"
    """One operator, the central bank."""
    COMETBFT = "cometbft"
    """Several operators, by CometBFT."""


class Runner(enum.StrEnum):
    """As what a network's nodes run."""

    PROCESSES = "processes"
    """Processes of this machine, on loopback."""
    DOCKER = "docker"
    """Containers on a network of their own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which nodes a network has.

    operators order transactions, fulls apply them again, witnesses hold their own participant's bodies; `nodes` are all
    of them, in the order in which they are shown.
    """

    engine: Engine
    operators: tuple[str, ...]
    fulls: tuple[str, ...]
    witnesses: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes."""
        return (*self.operators, *self.fulls, *self.witnesses)

    def followed(self, node: str) -> str:
        """Return the operator from which a node prefers to receive its blocks, "" for an operator."""
        return "" if node in self.operators else self.dialled(node)[0]

    def dialled(self, node: str) -> tuple[str, ...]:
        """Return the operators that a node dials, the one that it prefers first; an operator dials all others."""
        if node in self.operators:
            return tuple(name for name in self.operators if name != node)
        # Spread, so that no operator feeds all followers.
        first = (*self.fulls, *self.witnesses).index(node) % len(self.operators)
        return (*self.operators[first:], *self.operators[:first])


def plan_of(engine: Engine, operators: int | None = None) -> Plan:
    """Return the nodes of a network; `operators` is their number where there are several.

    Raises: SetupError: the engine cannot have so many.
    """
    if engine is Engine.EMBEDDED:
        if operators not in (None, 1):
            raise SetupError(
                f"--operators {operators}: the embedded engine has one; give --engine {Engine.COMETBFT}"
            )
        return Plan(engine, (LEADER,), ("ministry",), WITNESSES)
    count = operators or OPERATORS_DEFAULT
    if not OPERATORS_MIN <= count <= OPERATORS_MAX:
        raise SetupError(
            f"--operators {count}: give {OPERATORS_MIN} to {OPERATORS_MAX}; fewer survive no fault"
        )
    others = tuple(f"operator-{number}" for number in range(1, count - 1))
    return Plan(engine, (LEADER, "ministry", *others), (), ("p01", "p02"))


AUTHORITIES = (
    Party("central-bank", Role.CENTRAL_BANK, make_lei("TEST00CENTRALBANK0")),
    Party("ministry", Role.MINISTRY, make_lei("TEST00MINISTRY0000")),
    Party("regulator", Role.REGULATOR, make_lei("TEST00REGULATOR000")),
)
"""Supervisors; they stand first in the register."""

ASSETS = (
    Asset(
        name="BTC",
        caip19="bip122:000000000019d6689c085ae165831e93/slip44:0",
        dti="4H95J0R2X",
        scale=8,
        method=NettingMethod.POSITIONS,
    ),
    Asset(
        name="ETH",
        caip19="eip155:1/slip44:60",
        dti="X9J9K872S",
        scale=18,
        method=NettingMethod.POSITIONS,
    ),
    Asset(
        name="USDT",
        caip19="eip155:1/erc20:0xdac17f958d2ee523a2206206994597c13d831ec7",
        dti="",
        scale=6,
        method=NettingMethod.POSITIONS,
    ),
)
"""Assets of a test network. USDT has no DTI here: it has one for each of its chains, none of them verified by us."""


def role_name(role: Role) -> str:
    """Return a role as it is written in JSON and tables, such as central-bank."""
    return role.name.lower().replace("_", "-")


def operator_parties(plan: Plan) -> list[Party]:
    """Return the licensed clearing operators beside the authorities: operator-1 and on."""
    names = [name for name in plan.operators if name.startswith("operator-")]
    return [
        Party(name, Role.OPERATOR, make_lei(f"TEST00OPERATOR{number:04d}"))
        for number, name in enumerate(names, 1)
    ]


def numbered_parties(count: int) -> list[Party]:
    """Return participants p01 to p`count`: two banks, an exchange, then bank, exchange, miner over and over."""
    roles = [*_FIRST, *(_ROTATION[i % len(_ROTATION)] for i in range(max(0, count - len(_FIRST))))]
    return [
        Party(f"p{number:02d}", role, make_lei(f"TEST00P{number:011d}"))
        for number, role in enumerate(roles[:count], 1)
    ]


def named_parties(names: Sequence[str], first: int) -> list[Party]:
    """Return a participant for each of a back office's own `names`, in order, in the roles of the rotation.

    A name that is an LEI keeps it; others get one made of `first` and their place. Registered names are lower-case
    letters, digits and hyphens: other characters become hyphens, and of names that then are alike the later ones get a
    number behind them.
    """
    parties = []
    taken = {party.name for party in (*AUTHORITIES, *numbered_parties(PARTICIPANTS_MAX))}
    for place, name in enumerate(names):
        plain = _NOT_IN_NAMES.sub("-", name.lower())[:24].strip("-")
        registered = _unique(plain or "party", taken)
        taken.add(registered)
        role = _ROTATION[place % len(_ROTATION)]
        parties.append(Party(registered, role, _lei_of(name, first + place)))
    return parties


def cast_of(names: Sequence[str]) -> tuple[list[Party], dict[str, str]]:
    """Return the participants of a network for a back office's own `names`, and each name's registered name.

    Names and LEIs of a test network's own parties mean these (p07 makes a network of at least seven); others become
    participants behind them, see `named_parties`.
    """
    known = {party.name: party.name for party in AUTHORITIES}
    known |= {party.lei: party.name for party in AUTHORITIES}
    numbered = numbered_parties(PARTICIPANTS_MAX)
    places = {party.name: place for place, party in enumerate(numbered, 1)}
    places |= {party.lei: place for place, party in enumerate(numbered, 1)}
    others = [name for name in names if name not in known and name not in places]
    least = PARTICIPANTS_MIN if others else PARTICIPANTS_DEFAULT
    count = max([least, *(places[name] for name in names if name in places)])
    made = named_parties(others, 1)
    called = {name: party.name for name, party in zip(others, made, strict=True)}
    return [*numbered[:count], *made], called


def _unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _lei_of(name: str, number: int) -> str:
    try:
        check_lei(name)
    except DecodeError:
        return make_lei(f"TEST00X{number:011d}")
    return name
