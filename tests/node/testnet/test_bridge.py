"""Where containers are: fixed addresses in a subnet of their own, names of their own."""

from __future__ import annotations

import ipaddress

import pytest

from node.errors import SetupError
from node.testnet.bridge import Bridge

NAMES = ("a", "b", "regulator")


def test_every_container_has_a_name_and_a_fixed_address() -> None:
    bridge = Bridge.choose(NAMES, [])
    subnet = ipaddress.ip_network(bridge.subnet)
    addresses = [ipaddress.ip_address(bridge.address(name)) for name in NAMES]
    assert all(address in subnet for address in addresses)
    assert [str(address).rpartition(".")[2] for address in addresses] == ["11", "12", "13"]
    assert bridge.container("a") == f"{bridge.project}-a"
    assert Bridge(bridge.project, bridge.subnet, NAMES) == bridge


def test_two_networks_share_neither_name_nor_subnet() -> None:
    first = Bridge.choose(NAMES, [])
    second = Bridge.choose(NAMES, [first.subnet])
    assert first.project != second.project
    assert not ipaddress.ip_network(first.subnet).overlaps(ipaddress.ip_network(second.subnet))


def test_subnets_in_use_are_passed_over_however_they_are_written() -> None:
    taken = [f"172.30.{number}.0/24" for number in range(256) if number != 77]
    assert Bridge.choose(NAMES, [*taken, "fd00::/64", "10.0.0.1/8"]).subnet == "172.30.77.0/24"
    with pytest.raises(SetupError, match="every subnet"):
        Bridge.choose(NAMES, ["172.16.0.0/12"])


def test_the_chain_of_rules_has_a_name_that_iptables_takes() -> None:
    assert len(Bridge.choose(NAMES, []).chain()) <= 28
