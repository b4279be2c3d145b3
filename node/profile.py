"""The identity directory of a participant: all that `--identity DIR` needs to act in its name.

    profile.toml   who, where, and which secret opens the signing key
    ca.pem         the authorities of the network
    cert.pem       the participant's certificate       key.pem       its private key, mode 0600
    signing.key    the sealed Ed25519 key that signs submissions and instructions, mode 0600

Lives here: making and opening such a directory. May not live here: talking to a node (client),
asking for a passphrase (cli).
Invariant: an opened directory is of one party: profile and certificate name the same LEI of the
same network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from clearing.identifiers import check_lei
from node.errors import SetupError
from node.files import PUBLIC_MODE, create_file, make_private_directory, read_text
from node.identity import Identity, IdentityKind, check_network_name, check_node_name
from node.keys import KeyFile, Passphrase, SigningKey
from node.pki import (
    AUTHORITY_CERTIFICATE_NAME,
    CERTIFICATE_NAME,
    KEY_NAME,
    Authority,
    Validity,
)
from node.settings import (
    about,
    check_dialled_endpoint,
    check_settings,
    parse_settings,
    render_settings,
)
from node.tls import TlsFiles

PROFILE_NAME = "profile.toml"
SIGNING_KEY_NAME = "signing.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Who a participant is and where its nodes are.

    Raises: SetupError: a value that is none; it names the key.
    """

    network: str = field(metadata=about("Name of the network.", check=check_network_name))
    name: str = field(
        metadata=about("The participant's name in the registry.", check=check_node_name)
    )
    lei: str = field(
        metadata=about("The participant's LEI, which its certificate proves.", check=check_lei)
    )
    endpoints: tuple[str, ...] = field(
        metadata=about(
            "Addresses of nodes, host:port, tried in this order.", check=check_dialled_endpoint
        )
    )
    key_file_path: Path | None = field(
        default=None,
        metadata=about(
            "The key file that opens signing.key, mode 0600; without it a passphrase is asked for."
        ),
    )
    policy_path: Path | None = field(
        default=None,
        metadata=about("The network's C2SP tlog-policy, by which receipts and heads are checked."),
    )

    def __post_init__(self) -> None:
        """Check each setting."""
        check_settings(self)
        if not self.endpoints:
            raise SetupError("endpoints: name at least one node's address")

    @property
    def identity(self) -> Identity:
        """The identity that the participant's certificate must name."""
        return Identity(self.network, IdentityKind.PARTICIPANT, self.lei)


@dataclass(frozen=True, slots=True)
class IdentityDirectory:
    """An identity directory, opened: its profile and the paths of its files."""

    path: Path
    profile: Profile

    @property
    def tls(self) -> TlsFiles:
        """The participant's TLS files."""
        return TlsFiles(
            self.path / AUTHORITY_CERTIFICATE_NAME,
            self.path / CERTIFICATE_NAME,
            self.path / KEY_NAME,
        )

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the profile and check that the certificate beside it is the same party's.

        Raises: SetupError: a file is missing or malformed, or the certificate names another.
        """
        source = path / PROFILE_NAME
        profile = parse_settings(Profile, read_text(source), source=str(source), base=path)
        opened = cls(path, profile)
        shown = opened.tls.identity()
        # Else the profile would say who acts, and the node would see another.
        if shown != profile.identity:
            raise SetupError(
                f"{source} says {profile.identity.uri}, the certificate beside it {shown.uri}: restore the right one"
            )
        return opened

    def signing_key(self, passphrase: Passphrase | None = None) -> SigningKey:
        """Open the signing key, with the profile's key file or else with `passphrase`.

        Raises: SetupError: neither is at hand, or the key does not open.
        """
        key_file = self.profile.key_file_path
        secret = passphrase if key_file is None else KeyFile(key_file)
        if secret is None:
            raise SetupError(
                f"{self.path / SIGNING_KEY_NAME} needs a passphrase: give it, or name key_file_path in {PROFILE_NAME}"
            )
        return SigningKey.load(self.path / SIGNING_KEY_NAME, secret)

    @classmethod
    def create(
        cls,
        path: Path,
        profile: Profile,
        authority: Authority,
        validity: Validity,
        passphrase: Passphrase | None = None,
    ) -> tuple[Self, SigningKey]:
        """Make an identity directory, with a fresh certificate and signing key.

        The key is sealed by the profile's key file, which must exist, or else by `passphrase`. The
        profile is written last, so that a directory left half made does not open.
        Returns: the opened directory and the signing key, whose public half goes into the registry.
        Raises: SetupError: a file exists, no secret is given, or another network's authority.
        """
        secret = passphrase if profile.key_file_path is None else KeyFile(profile.key_file_path)
        # Without a secret the key would have to lie open.
        if secret is None:
            raise SetupError(
                "a signing key needs a passphrase or a key file to be sealed by: give one"
            )
        issued = authority.issue(profile.identity, validity)
        make_private_directory(path)
        key = SigningKey.create(path / SIGNING_KEY_NAME, secret)
        issued.write(path)
        create_file(path / AUTHORITY_CERTIFICATE_NAME, authority.certificate_pem, PUBLIC_MODE)
        text = render_settings(profile, heading="A participant of the clearing ledger.", base=path)
        create_file(path / PROFILE_NAME, text.encode(), PUBLIC_MODE)
        return cls.open(path), key
