"""Who is at the other end of a connection: SPIFFE identities of participants and nodes.

Lives here: the grammar of an identity and reading it from a gRPC connection. May not live here:
certificates (pki.py), what an identity may do (auth).

    spiffe://<network>/participant/<LEI>     a licensed party: submits, affirms, asks
    spiffe://<network>/node/<name>           a node: serves, and replicates from another node

Invariants: an identity has one spelling; it comes from the URI in the certificate's subject
alternative name, never from the common name; a certificate carries exactly one URI, as X.509-SVID
demands. So a bank that also runs a node holds two certificates, and a stolen node key submits
nothing in the bank's name.
Source: SPIFFE-ID 1.0, X.509-SVID 1.0 (spiffe.io); network and node names are narrowed to DNS names,
because the server name that a client checks is made of them.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from clearing.errors import DecodeError, VerificationError
from clearing.identifiers import check_lei

NETWORK_NAME_LENGTH_MAX = 63
"""Greatest length of a network's name; it stands in a certificate's subject, where 64 is the
limit."""

_SCHEME = "spiffe://"
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NODE_NAME = re.compile(_LABEL)
_NETWORK_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def check_network_name(text: str) -> None:
    """Accept `text` as a network's name: a lower-case DNS name of at most 63 characters.

    Raises: DecodeError: otherwise.
    """
    if len(text) > NETWORK_NAME_LENGTH_MAX or not _NETWORK_NAME.fullmatch(text):
        raise DecodeError(
            f"a network's name is a lower-case DNS name of at most {NETWORK_NAME_LENGTH_MAX} characters, such as "
            f"clearing.example, got {text[:80]!r}"
        )


def check_node_name(text: str) -> None:
    """Accept `text` as a node's name: one lower-case DNS label.

    Raises: DecodeError: otherwise.
    """
    if not _NODE_NAME.fullmatch(text):
        raise DecodeError(
            f"a node's name is 1 to 63 characters of a-z, 0-9 and inner hyphens, such as central-bank, "
            f"got {text[:80]!r}"
        )


class IdentityKind(enum.StrEnum):
    """What an identity names; the values stand in its URI."""

    PARTICIPANT = "participant"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Identity:
    """A participant or node of a network; `name` is a participant's LEI or a node's name.

    Raises: DecodeError: a network, LEI or node name that is none.
    """

    network: str
    kind: IdentityKind
    name: str

    def __post_init__(self) -> None:
        """Check the parts."""
        check_network_name(self.network)
        if self.kind is IdentityKind.PARTICIPANT:
            check_lei(self.name)
        else:
            check_node_name(self.name)

    @property
    def uri(self) -> str:
        """The identity's SPIFFE URI."""
        return f"{_SCHEME}{self.network}/{self.kind}/{self.name}"

    @classmethod
    @functools.lru_cache(maxsize=4096)  # asked anew at every call of every connection
    def parse(cls, uri: str) -> Self:
        """Parse a SPIFFE URI of this ledger; `parse(i.uri) == i`, and no other text gives `i`.

        Raises: DecodeError: another scheme, shape or kind, or a part that is none of ours.
        """
        parts = uri.removeprefix(_SCHEME).split("/")
        if not uri.startswith(_SCHEME) or len(parts) != 3 or parts[1] not in tuple(IdentityKind):
            raise DecodeError(
                "an identity is spiffe://<network>/participant/<LEI> or spiffe://<network>/node/<name>, "
                f"got {uri[:160]!r}"
            )
        return cls(parts[0], IdentityKind(parts[1]), parts[2])


def node_server_name(network: str, node: str) -> str:
    """Return the DNS name in a node's certificate that proves to a client which node serves it.

    A client passes it as `grpc.ssl_target_name_override`, whatever address it dials.
    """
    return f"{node}.node.{network}"


def _texts(auth_context: Mapping[str, Iterable[bytes]], key: str) -> list[str]:
    # Latin-1 never fails; what is not ASCII is refused by the grammar.
    return [value.decode("latin-1") for value in auth_context.get(key, ())]


def peer_identity(auth_context: Mapping[str, Iterable[bytes]], network: str) -> Identity:
    """Return the identity of the peer of a gRPC connection, proven by its client certificate.

    `auth_context` is that of a grpc.aio servicer context; `network` is the node's own network.
    Raises: VerificationError: no TLS, no or several URIs, not an identity, or one of another
    network.
    """
    # Without TLS nothing in the context is proven.
    if _texts(auth_context, "transport_security_type") != ["ssl"]:
        raise VerificationError("the connection is not TLS: connect with a client certificate")
    uris = _texts(auth_context, "peer_uri")
    # Two URIs would leave it to the reader's order which party acts.
    if len(uris) != 1:
        raise VerificationError(
            f"the client certificate carries {len(uris)} URIs and must carry one: ask the network's authority for another"
        )
    # gRPC's own reading of the same field must agree; it is empty where gRPC finds the URI no valid
    # SPIFFE ID.
    if _texts(auth_context, "peer_spiffe_id") != uris:
        raise VerificationError(f"the client certificate's URI {uris[0][:160]!r} is no SPIFFE ID")
    try:
        identity = Identity.parse(uris[0])
    except DecodeError as error:
        raise VerificationError(
            f"the client certificate names no identity of this ledger: {error}"
        ) from error
    # One authority may serve two networks (a test and a live one): a certificate counts in its own
    # only.
    if identity.network != network:
        raise VerificationError(
            f"the client certificate is of network {identity.network}, this node is of {network}: use the other one"
        )
    return identity
