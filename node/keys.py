r"""Ed25519 signing keys, sealed in files.

Lives here: the only code that reads private signing keys, and the shape (`MessageSigner`) by which
all other code sees a key, so that one held by an HSM can take the place of a file. May not live
here: TLS keys (pki.py), what is signed.

Sealed file, 124 bytes, mode 0600; the header is bound to the seal as associated data:

    0    8   magic           "CLRSEAL\0"
    8    2   version         1, little-endian
    10   1   derivation      1 = passphrase by scrypt, 2 = key file by HKDF-SHA-256
    11   1   scrypt_log2_n   scrypt's cost (r = 8, p = 1); 0 for a key file
    12   4   reserved        zero
    16   16  salt            random, so that the derived key serves this file alone
    32   12  nonce           random
    44   32  public_key      Ed25519; unsealing checks it
    76   48  sealed          ChaCha20-Poly1305 of the 32-byte seed

Invariants: a private key is never in a repr, an exception, a pickle or the database; a file is
never overwritten; one that others may read is refused. Python cannot wipe memory: a core dump of
the process holds the key.
Source: own design of RFC 8032, RFC 7914, RFC 5869 and RFC 8439; no format for a sealed Ed25519 key
with a key file is common, and PKCS #8 encryption binds no header.
"""

from __future__ import annotations

import enum
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError
from clearing.log.keys import SignatureType, VerifierKey
from node.errors import SetupError
from node.files import PRIVATE_MODE, create_file, read_private

SEED_BYTES = 32
"""Length of an Ed25519 seed, which is the whole private key."""

KEY_FILE_BYTES = 32
"""Length of a key file: random bytes, such as `openssl rand 32` makes."""

PASSPHRASE_CHARACTERS_MIN = 12
"""Fewest characters of a passphrase that seals a new key."""

SCRYPT_LOG2_N = 17
"""Cost of new seals: 128 MiB and some tenths of a second a guess. Source: OWASP Password Storage
Cheat Sheet."""

SCRYPT_LOG2_N_MAX = 20
"""Greatest cost accepted in a file: 1 GiB; a forged header must not exhaust the machine."""

_MAGIC = b"CLRSEAL\0"
_VERSION = 1
_TAG_BYTES = 16
_INFO = b"clearing sealed key v1"

_HEADER = Layout(
    "sealed key",
    raw("magic", 8),
    uint("version", 2),
    uint("derivation", 1),
    uint("scrypt_log2_n", 1),
    reserved(4),
    raw("salt", 16),
    raw("nonce", 12),
    raw("public_key", 32),
)


class MessageSigner(Protocol):
    """What the rest of the code knows of a signing key: a file or an HSM stands behind it."""

    @property
    def public_key(self) -> bytes:
        """The 32-byte Ed25519 public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032, pure) of `message`."""


class _Derivation(enum.IntEnum):
    PASSPHRASE = 1
    KEY_FILE = 2


@dataclass(frozen=True, slots=True, repr=False)
class Passphrase:
    """A passphrase that seals a key; Unicode spellings that look alike are one (NFC)."""

    text: str

    def __repr__(self) -> str:
        """Return the class's name alone."""
        return "Passphrase(hidden)"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of KEY_FILE_BYTES random bytes, mode 0600, that seals an unattended node's keys."""

    path: Path


Secret = Passphrase | KeyFile
"""What opens a sealed key."""


def create_key_file(path: Path) -> KeyFile:
    """Create a key file of random bytes; keep it on another disk than the keys that it seals.

    Raises: SetupError: the file exists or cannot be written.
    """
    create_file(path, os.urandom(KEY_FILE_BYTES), PRIVATE_MODE)
    return KeyFile(path)


def _derive(secret: Secret, salt: bytes, scrypt_log2_n: int) -> bytes:
    """Return the 32-byte sealing key."""
    if isinstance(secret, Passphrase):
        passphrase = unicodedata.normalize("NFC", secret.text).encode("utf-8", "surrogatepass")
        return Scrypt(salt=salt, length=32, n=1 << scrypt_log2_n, r=8, p=1).derive(passphrase)
    key = read_private(secret.path)
    if len(key) != KEY_FILE_BYTES:
        raise SetupError(
            f"key file {secret.path} is {len(key)} bytes and must be {KEY_FILE_BYTES}: give another"
        )
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=_INFO).derive(key)


class SigningKey:
    """An Ed25519 private key in memory; it signs, and shows nothing but its public key.

    `public_key` is the 32-byte public key.
    """

    __slots__ = ("_key", "public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Hold `key`; callers use `create`, `load` or `from_seed`."""
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        """Return the class's name and public key."""
        return f"SigningKey(public_key={self.public_key.hex()})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a private key stays in the process that opened it."""
        raise TypeError("a SigningKey is neither pickled nor copied")

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of `message`, always the same one."""
        return self._key.sign(message)

    def derive(self, purpose: bytes) -> bytes:
        """Return 32 secret bytes for `purpose`, always the same; they tell nothing of the key or of other purposes.

        For a key that is kept in our files but serves another algorithm, such as that of the anchor wallet.
        """
        seed = self._key.private_bytes_raw()
        return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=purpose).derive(seed)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the key of a 32-byte RFC 8032 seed, for published vectors and repeatable networks.

        Raises: SetupError: the seed is not 32 bytes.
        """
        if len(seed) != SEED_BYTES:
            raise SetupError(f"an Ed25519 seed is {SEED_BYTES} bytes, got {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def create(cls, path: Path, secret: Secret, *, scrypt_log2_n: int = SCRYPT_LOG2_N) -> Self:
        """Make a new random key, seal it in a new file at `path` and return it.

        `scrypt_log2_n` is the cost of guessing a passphrase, 1 to SCRYPT_LOG2_N_MAX; a key file
        ignores it.
        Raises: SetupError: the file exists or cannot be written, the passphrase is too short, the
        key file is unfit.
        """
        if isinstance(secret, Passphrase) and len(secret.text) < PASSPHRASE_CHARACTERS_MIN:
            raise SetupError(
                f"a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters: choose a longer one"
            )
        key = cls(Ed25519PrivateKey.generate())
        create_file(path, key._seal(secret, scrypt_log2_n), PRIVATE_MODE)
        return key

    def _seal(self, secret: Secret, scrypt_log2_n: int) -> bytes:
        by_passphrase = isinstance(secret, Passphrase)
        salt, nonce = os.urandom(16), os.urandom(12)
        header = _HEADER.encode(
            magic=_MAGIC,
            version=_VERSION,
            derivation=_Derivation.PASSPHRASE if by_passphrase else _Derivation.KEY_FILE,
            scrypt_log2_n=scrypt_log2_n if by_passphrase else 0,
            salt=salt,
            nonce=nonce,
            public_key=self.public_key,
        )
        cipher = ChaCha20Poly1305(_derive(secret, salt, scrypt_log2_n))
        return header + cipher.encrypt(nonce, self._key.private_bytes_raw(), header)

    @classmethod
    def load(cls, path: Path, secret: Secret) -> Self:
        """Open the sealed key at `path`.

        Raises: SetupError: the file is missing, readable to others, not a sealed key or altered; or
            the secret is not the one that sealed it. The sentence names the file.
        """
        data = read_private(path)
        header, sealed = data[: _HEADER.width], data[_HEADER.width :]
        values = _parse_header(path, header, len(sealed), secret)
        cipher = ChaCha20Poly1305(_derive(secret, values.salt, values.scrypt_log2_n))
        try:
            seed = cipher.decrypt(values.nonce, sealed, header)
        except InvalidTag as error:
            what = "passphrase" if isinstance(secret, Passphrase) else "key file"
            raise SetupError(
                f"{path} does not open: the {what} is not the one that sealed it, or the file was altered"
            ) from error
        key = cls.from_seed(seed)
        # The header is authentic by now: a difference is a file made by other software.
        if key.public_key != values.public_key:
            raise SetupError(
                f"{path} names another public key than it holds: restore it from a backup"
            )
        return key


@dataclass(frozen=True, slots=True)
class _Header:
    scrypt_log2_n: int
    salt: bytes
    nonce: bytes
    public_key: bytes


def _parse_header(path: Path, header: bytes, sealed_bytes: int, secret: Secret) -> _Header:
    """Return the header's values, checked, before any costly or secret step.

    Raises: SetupError: not a sealed key of this version, or sealed by the other kind of secret.
    """
    try:
        values = _HEADER.decode(header)
    except DecodeError as error:
        raise SetupError(
            f"{path} is not a sealed key ({error}): give the file that key creation wrote"
        ) from error
    if values["magic"] != _MAGIC or sealed_bytes != SEED_BYTES + _TAG_BYTES:
        raise SetupError(
            f"{path} is not a sealed key, or was cut: give the file that key creation wrote"
        )
    if values["version"] != _VERSION:
        raise SetupError(
            f"{path} has format version {values['version']}, this program reads {_VERSION}: update it"
        )
    derivation, cost = values["derivation"], values["scrypt_log2_n"]
    if derivation == _Derivation.PASSPHRASE and 1 <= cost <= SCRYPT_LOG2_N_MAX:
        if not isinstance(secret, Passphrase):
            raise SetupError(
                f"{path} is sealed by a passphrase: give the passphrase, not a key file"
            )
    elif derivation == _Derivation.KEY_FILE and cost == 0:
        if not isinstance(secret, KeyFile):
            raise SetupError(f"{path} is sealed by a key file: give the key file, not a passphrase")
    else:
        raise SetupError(
            f"{path} was altered: its header names no known derivation; restore it from a backup"
        )
    return _Header(cost, values["salt"], values["nonce"], values["public_key"])


class _NoteSigner:
    """A signing key under the name and type of a C2SP note key; a `clearing.log.keys.Signer`."""

    __slots__ = ("_signer", "key")

    def __init__(self, signer: MessageSigner, name: str, signature_type: SignatureType) -> None:
        self._signer = signer
        self.key = VerifierKey(name, signature_type, signer.public_key)

    def __repr__(self) -> str:
        """Return the class's name and verifier key."""
        return f"{type(self).__name__}({self.key.vkey})"

    def sign(self, message: bytes) -> bytes:
        """Return the raw 64-byte Ed25519 signature of `message`."""
        return self._signer.sign(message)


class LogSigner(_NoteSigner):
    """The log's own key, by which its operator signs checkpoints (C2SP signed-note type 1).

    `key` is the verifier key; its name is the log's origin.
    """

    def __init__(self, signer: MessageSigner, origin: str) -> None:
        """Sign as the log `origin`. Raises: DecodeError: not a valid key name."""
        super().__init__(signer, origin, SignatureType.ED25519)


class CosignerSigner(_NoteSigner):
    """A node's key, by which it cosigns checkpoints (C2SP cosignature/v1, type 4).

    `key` is the verifier key. The signed bytes do not hold the cosigner's name, so a key must serve
    one cosigner and nothing else: not the log, not submissions. Source: C2SP tlog-cosignature.
    """

    def __init__(self, signer: MessageSigner, name: str) -> None:
        """Cosign as `name`. Raises: DecodeError: not a valid key name."""
        super().__init__(signer, name, SignatureType.COSIGNATURE_ED25519)
