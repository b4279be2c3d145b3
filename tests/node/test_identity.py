"""An identity has one spelling, and comes from one URI of the peer's certificate or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.identifiers import make_lei
from node.identity import Identity, IdentityKind, node_server_name, peer_identity

NETWORK = "clearing.example"
LEI = "7ZW8QJWVPR4P1S5PX088"
PARTICIPANT = f"spiffe://{NETWORK}/participant/{LEI}"
NODE = f"spiffe://{NETWORK}/node/central-bank"


def context(*uris: str, spiffe: tuple[str, ...] | None = None) -> dict[str, list[bytes]]:
    """Return an auth_context as grpc.aio gives it for a certificate with these URIs."""
    return {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [LEI.encode()],
        "peer_uri": [uri.encode() for uri in uris],
        "peer_spiffe_id": [uri.encode() for uri in (uris if spiffe is None else spiffe)],
    }


def test_identities_are_parsed_and_written() -> None:
    assert Identity.parse(PARTICIPANT) == Identity(NETWORK, IdentityKind.PARTICIPANT, LEI)
    assert Identity.parse(NODE) == Identity(NETWORK, IdentityKind.NODE, "central-bank")
    assert Identity.parse(PARTICIPANT).uri == PARTICIPANT


labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
leis = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=18, max_size=18).map(make_lei)
identities = st.one_of(
    st.builds(Identity, labels, st.just(IdentityKind.NODE), labels),
    st.builds(Identity, labels, st.just(IdentityKind.PARTICIPANT), leis),
)


@given(identities)
def test_round_trip(identity: Identity) -> None:
    assert Identity.parse(identity.uri) == identity


@given(identities, st.data())
def test_no_other_text_is_the_same_identity(identity: Identity, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(identity.uri) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    for changed in (
        identity.uri[:position] + other + identity.uri[position:],
        identity.uri[:position] + other + identity.uri[position + 1 :],
        identity.uri[:position] + identity.uri[position + 1 :],
        identity.uri.upper(),
    ):
        try:
            parsed = Identity.parse(changed)
        except DecodeError:
            continue
        assert parsed.uri == changed
        assert changed == identity.uri or parsed != identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        NETWORK,
        PARTICIPANT.removeprefix("spiffe://"),
        "spiffe://" + PARTICIPANT,
        "SPIFFE" + PARTICIPANT[6:],
        "https" + PARTICIPANT[6:],
        PARTICIPANT + "/",
        PARTICIPANT + "/x",
        PARTICIPANT + "?a=b",
        PARTICIPANT + "#a",
        PARTICIPANT + "\n",
        PARTICIPANT + "\0",
        f"spiffe://{NETWORK}//{LEI}",
        f"spiffe://{NETWORK}/participants/{LEI}",
        f"spiffe://{NETWORK}/Participant/{LEI}",
        f"spiffe://{NETWORK}/participant/{LEI.lower()}",
        f"spiffe://{NETWORK}/participant/{LEI[:-1]}9",
        f"spiffe://{NETWORK}/participant/central-bank",
        f"spiffe://{NETWORK}/node/{LEI}",
        f"spiffe://{NETWORK}/node/-a",
        f"spiffe://{NETWORK}/node/a.b",
        f"spiffe://{NETWORK}/node/..",
        f"spiffe://{NETWORK}/node/",
        f"spiffe://{NETWORK}/node/{'a' * 64}",
        f"spiffe://{NETWORK}/node/%61",
        f"spiffe:///node/{'a'}",
        f"spiffe://user@{NETWORK}/node/a",
        f"spiffe://{NETWORK}:443/node/a",
        f"spiffe://{NETWORK}./node/a",
        f"spiffe://{'a' * 64}/node/a",
        f"spiffe://{NETWORK}/node/z\u00fcrich",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(DecodeError):
        Identity.parse(uri)


def test_a_long_uri_makes_a_short_sentence() -> None:
    with pytest.raises(DecodeError) as caught:
        Identity.parse("spiffe://" + "a/" * 100_000)
    assert len(str(caught.value)) < 400


def test_peer_is_read_from_the_uri() -> None:
    assert peer_identity(context(PARTICIPANT), NETWORK).name == LEI
    assert peer_identity(context(NODE), NETWORK).name == "central-bank"


@pytest.mark.parametrize(
    ("auth_context", "remedy"),
    [
        ({}, "not TLS"),
        ({**context(PARTICIPANT), "transport_security_type": [b"insecure"]}, "not TLS"),
        ({**context(PARTICIPANT), "transport_security_type": [b"ssl", b"ssl"]}, "not TLS"),
        (context(), "carries 0 URIs"),
        (context(PARTICIPANT, NODE), "carries 2 URIs"),
        (context(PARTICIPANT, PARTICIPANT), "carries 2 URIs"),
        (context(PARTICIPANT, spiffe=()), "no SPIFFE ID"),
        (context(PARTICIPANT, spiffe=(NODE,)), "no SPIFFE ID"),
        (context("https://clearing.example"), "names no identity"),
        (context(PARTICIPANT.replace(NETWORK, "other.example")), "is of network other.example"),
        ({**context(), "peer_uri": [b"\xff\xfe"], "peer_spiffe_id": [b"\xff\xfe"]}, "no identity"),
    ],
)
def test_peer_without_one_identity_of_this_network_is_refused(
    auth_context: dict[str, list[bytes]], remedy: str
) -> None:
    with pytest.raises(VerificationError, match=remedy):
        peer_identity(auth_context, NETWORK)


def test_server_name_is_of_node_and_network() -> None:
    assert node_server_name(NETWORK, "ministry") == "ministry.node.clearing.example"
