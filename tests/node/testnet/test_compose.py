"""The compose file: what each container is given and held to."""

from __future__ import annotations

import json
from typing import Any

from node.testnet.bridge import Bridge
from node.testnet.compose import BITCOIN_NAME, IMAGE, LIAR_IMAGE, REGULATOR, compose_file

BRIDGE = Bridge("clearing-test", "172.30.9.0/24", ("central-bank", "p01", REGULATOR, BITCOIN_NAME))
PORTS = {"central-bank": 20_001, "p01": 20_002}


def rendered(chain: tuple[int, int] | None = (20_003, 30), **lies: str) -> dict[str, Any]:
    liar = "tests.network.liar"
    text = compose_file(BRIDGE, PORTS, user="10001:10001", liar=liar, lies=lies, chain=chain)
    document: dict[str, Any] = json.loads(text)
    return document


def test_old_and_new_compose_can_read_it() -> None:
    document = rendered()
    assert document["version"] == "3.8"
    assert document["networks"] == {"clearing": {"ipam": {"config": [{"subnet": "172.30.9.0/24"}]}}}


def test_every_container_is_held_and_has_an_address_and_a_health_check() -> None:
    services = rendered()["services"]
    assert list(services) == ["central-bank", "p01", REGULATOR, BITCOIN_NAME]
    for name, service in services.items():
        assert service["container_name"] == f"clearing-test-{name}"
        assert service["networks"]["clearing"]["ipv4_address"] == BRIDGE.address(name)
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["mem_limit"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["image"] == IMAGE


def test_nodes_are_published_on_loopback_alone_and_the_regulator_not_at_all() -> None:
    services = rendered()["services"]
    assert services["p01"]["ports"] == ["127.0.0.1:20002:7400"]
    assert services["p01"]["volumes"] == ["./nodes/p01:/node"]
    assert "ports" not in services[REGULATOR]
    assert services[REGULATOR]["volumes"] == ["./regulator:/identity"]


def test_a_liar_runs_the_lying_image_and_nobody_else() -> None:
    services = rendered(p01="state")["services"]
    assert services["p01"]["image"] == LIAR_IMAGE
    assert services["p01"]["entrypoint"] == ["python", "-m", "tests.network.liar"]
    assert services["p01"]["command"] == ["state", "--config", "/node"]
    assert services["central-bank"]["image"] == IMAGE
    assert "entrypoint" not in services["central-bank"]


def test_the_chain_serves_its_network_and_loopback_and_a_network_may_have_none() -> None:
    chain = rendered()["services"][BITCOIN_NAME]
    assert chain["ports"] == ["127.0.0.1:20003:18443"]
    assert chain["volumes"] == ["./bitcoin/chain:/chain"]
    command = dict(zip(chain["command"][::2], chain["command"][1::2], strict=True))
    assert command["--host"] == BRIDGE.address(BITCOIN_NAME)
    assert command["--mine-every"] == "30"
    assert BITCOIN_NAME not in rendered(None)["services"]
