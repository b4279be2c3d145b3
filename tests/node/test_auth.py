"""The table of rights is complete, and its rules hold for every role and standing."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from clearing.identifiers import make_lei
from clearing.rules.registry import Registry
from clearing.types import SUPERVISORS, LicenceStatus, Role
from node.auth import RULES, Access, Caller, Rule
from node.identity import Identity, IdentityKind
from node.pb.v1 import anchor_pb2, audit_pb2, operator_pb2, participant_pb2, replication_pb2
from node.rpc_errors import RpcError
from tests.ledger_kit import participant

NETWORK = "clearing.test"
FILES = (
    participant_pb2,
    audit_pb2,
    anchor_pb2,
    operator_pb2,
    replication_pb2,
    health_pb2,
    reflection_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ONE_OF_EACH = {rule: next(method for method, r in RULES.items() if r is rule) for rule in Rule}
TIME_MS = 1_000


def auth_context(identity: Identity | str) -> dict[str, list[bytes]]:
    uri = (identity if isinstance(identity, str) else identity.uri).encode()
    return {
        "transport_security_type": [b"ssl"], "peer_uri": [uri], "peer_spiffe_id": [uri],
    }  # fmt: skip


def access_for(registry: Registry, node_lei: str = "") -> Access:
    return Access(
        network=NETWORK,
        node_lei=lambda: node_lei,
        peers=frozenset({"ministry"}),
        registry=lambda: (registry, TIME_MS),
    )


def admitted(access: Access, rule: Rule, identity: Identity) -> Caller | None:
    try:
        return access.admit(ONE_OF_EACH[rule], auth_context(identity))
    except RpcError:
        return None


def test_the_table_names_every_method_and_no_other() -> None:
    assert set(RULES) == METHODS


def test_a_method_that_the_table_lacks_is_refused_to_everybody() -> None:
    registry = Registry((participant("cb", Role.CENTRAL_BANK, 1),))
    identity = Identity(NETWORK, IdentityKind.PARTICIPANT, registry.participants[0].lei)
    for caller in (identity, Identity(NETWORK, IdentityKind.NODE, "ministry")):
        with pytest.raises(RpcError) as caught:
            access_for(registry).admit("/clearing.v1.AuditService/New", auth_context(caller))
        assert caught.value.reason == "NOT_AUTHORISED"


IN_FORCE = [(LicenceStatus.ACTIVE, 0), (LicenceStatus.ACTIVE, TIME_MS + 1)]
NOT_IN_FORCE = [
    (LicenceStatus.ACTIVE, TIME_MS), (LicenceStatus.SUSPENDED, 0), (LicenceStatus.WITHDRAWN, 0)
]  # fmt: skip


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("licence", IN_FORCE + NOT_IN_FORCE)
@pytest.mark.parametrize("node_of", ["caller", "another"])
def test_rules_by_role_and_standing(
    role: Role, licence: tuple[LicenceStatus, int], node_of: str
) -> None:
    (status, expiry_ms), licensed = licence, licence in IN_FORCE
    runs_the_node = node_of == "caller"
    someone = replace(participant("x", role, 1), status=status, licence_expiry_ms=expiry_ms)
    registry = Registry((participant("other", Role.BANK, 0), someone))
    access = access_for(registry, someone.lei if runs_the_node else "")
    identity = Identity(NETWORK, IdentityKind.PARTICIPANT, someone.lei)
    supervises = licensed and role in SUPERVISORS
    expected = {
        Rule.OWN: True,
        Rule.WRITE: True,
        Rule.PUBLIC: True,
        Rule.CONNECTED: True,
        Rule.SUPERVISOR: supervises,
        Rule.OPERATOR: supervises or (licensed and role is Role.OPERATOR) or runs_the_node,
        Rule.NODE: False,
    }
    for rule, allowed in expected.items():
        caller = admitted(access, rule, identity)
        assert (caller is not None) == allowed, rule
        if caller is not None:
            assert caller == Caller(identity, 1, role, licensed)
            assert caller.number == 1
            assert caller.is_supervisor == supervises


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ministry", {Rule.NODE, Rule.CONNECTED}), ("p07", {Rule.CONNECTED})],
)
def test_nodes_may_replicate_and_nothing_else(name: str, expected: set[Rule]) -> None:
    access = access_for(Registry((participant("ministry", Role.MINISTRY, 0),)))
    identity = Identity(NETWORK, IdentityKind.NODE, name)
    allowed = {rule for rule in Rule if admitted(access, rule, identity) is not None}
    assert allowed == expected
    with pytest.raises(RpcError, match="no data of their own"):
        _ = Caller(identity).number


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"transport_security_type": [b"insecure"]},
        auth_context("spiffe://clearing.test/participant/NOT-A-LEI"),
        auth_context(Identity("other.test", IdentityKind.PARTICIPANT, make_lei("TEST00000000000000"))),
        auth_context(Identity(NETWORK, IdentityKind.PARTICIPANT, make_lei("TEST00000000000099"))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/none/Such"])
def test_whoever_is_not_proven_or_not_registered_is_nobody(
    context: dict[str, list[bytes]], method: str
) -> None:
    access = access_for(Registry((participant("x", Role.BANK, 0),)))
    with pytest.raises(RpcError) as caught:
        access.admit(method, context)
    known = context.get("peer_uri", [b""])[0].startswith(b"spiffe://clearing.test/participant/TEST")
    assert caught.value.reason == ("NOT_AUTHORISED" if known and "none" in method else "UNAUTHENTICATED")  # fmt: skip


@pytest.mark.parametrize("method", RULES)
def test_a_node_without_its_first_block_asks_to_come_back(method: str) -> None:
    identity = Identity(NETWORK, IdentityKind.PARTICIPANT, make_lei("TEST00000000000000"))
    with pytest.raises(RpcError) as caught:
        access_for(Registry()).admit(method, auth_context(identity))
    assert caught.value.reason == "CATCHING_UP"
    assert caught.value.status is grpc.StatusCode.UNAVAILABLE
    assert caught.value.retry_after_ms


def test_rights_follow_the_register_at_once() -> None:
    party = participant("x", Role.REGULATOR, 0)
    registers = [Registry((party,))]
    access = Access(
        network=NETWORK,
        node_lei=lambda: "",
        peers=frozenset(),
        registry=lambda: (registers[-1], TIME_MS),
    )
    identity = Identity(NETWORK, IdentityKind.PARTICIPANT, party.lei)
    assert admitted(access, Rule.SUPERVISOR, identity) is not None
    registers.append(Registry((replace(party, status=LicenceStatus.SUSPENDED),)))
    assert admitted(access, Rule.SUPERVISOR, identity) is None
    assert admitted(access, Rule.OWN, identity) is not None
    registers.append(Registry((participant("first", Role.BANK, 1), party)))
    caller = admitted(access, Rule.SUPERVISOR, identity)
    assert caller is not None
    assert caller.number == 1
