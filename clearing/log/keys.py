"""Verifier keys of signed notes: names, types, key ids, vkeys; and what may sign.

Lives here: public keys as values, their text, and the Signer protocol. May not live here: private
keys in any form.
Invariant: a `VerifierKey` has a valid name and a public key of its type's length; its key id is
always derived.
Source: C2SP signed-note v1.0.0 ("Verifier keys", "Signature types"); C2SP tlog-cosignature for
types 4 and 6.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass, field
from typing import Protocol

from clearing.errors import DecodeError
from clearing.log.text import decode_base64, encode_base64, is_printable_line

KEY_ID_BYTES = 4


class SignatureType(enum.IntEnum):
    """Signature types of signed notes that this package verifies; the numbers are C2SP's."""

    ED25519 = 0x01
    """Ed25519 over the note text: how our log signs."""
    COSIGNATURE_ED25519 = 0x04
    """cosignature/v1: Ed25519 over time and note text: how our nodes cosign."""
    COSIGNATURE_ML_DSA_44 = 0x06
    """subtree/v1: ML-DSA-44 over cosigner, time and checkpoint; withstands quantum computers."""


_PUBLIC_KEY_BYTES = {
    SignatureType.ED25519: 32,
    SignatureType.COSIGNATURE_ED25519: 32,
    SignatureType.COSIGNATURE_ML_DSA_44: 1312,
}

# The plus sign, and the characters with Unicode's White_Space property that are not ASCII controls.
# Written out, because str.isspace follows the Unicode tables of the running Python and every node
# must judge a name alike.
_NOT_IN_NAMES = re.compile("[+ \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def check_key_name(name: str) -> None:
    """Check that `name` may name a key: non-empty, no Unicode space, plus sign or control.

    Raises: DecodeError: otherwise.
    """
    if not name or not is_printable_line(name):
        raise DecodeError("key name must be non-empty and free of control characters")
    if _NOT_IN_NAMES.search(name):
        raise DecodeError(f"key name {name!r} must hold neither spaces nor plus signs")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name and the signature type it is used under.

    `public_key` is 32 bytes (types 1 and 4) or 1312 bytes (type 6). `key_id` is derived: the first
    4 bytes of SHA-256(name || 0x0A || type || public_key). Name and key id together identify the
    key on a signature line.

    Raises: DecodeError: invalid name, or a key of the wrong length.
    """

    name: str
    type: SignatureType
    public_key: bytes
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_BYTES[self.type]:
            raise DecodeError(
                f"public key of type {self.type:#04x} must be {_PUBLIC_KEY_BYTES[self.type]} bytes"
            )
        material = self.name.encode() + b"\n" + bytes([self.type]) + self.public_key
        object.__setattr__(self, "key_id", hashlib.sha256(material).digest()[:KEY_ID_BYTES])

    @property
    def label(self) -> str:
        """Name and key id for messages, with whatever could upset a terminal escaped."""
        return f"{self.name!r} (key id {self.key_id.hex()})"

    @property
    def vkey(self) -> str:
        """The key as text: name+hex(key id)+base64(type || public key)."""
        return (
            f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"
        )

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read a vkey.

        Raises: DecodeError: not three parts, an invalid name, an unsupported type, a key of the
        wrong length, or a key id that is not the one derived (in lowercase hex).
        """
        # The base64 part may itself hold plus signs: only the first two separate.
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise DecodeError("verifier key must be name+keyid+key")
        name, key_id, material_text = parts
        material = decode_base64(material_text, "verifier key")
        if not material or material[0] not in _PUBLIC_KEY_BYTES:
            raise DecodeError("verifier key must be of type 1 (Ed25519), 4 or 6 (cosignatures)")
        key = cls(name, SignatureType(material[0]), material[1:])
        if key.key_id.hex() != key_id:
            raise DecodeError(
                f"verifier key id must be {key.key_id.hex()} in lowercase, got {key_id!r}"
            )
        return key


class Signer(Protocol):
    """Something that holds a private key and signs with it: a key file, an HSM, a test key."""

    @property
    def key(self) -> VerifierKey:
        """The public half, with the name and type it signs under."""

    def sign(self, message: bytes) -> bytes:
        """Return the raw signature: 64 bytes of Ed25519, or 2420 of ML-DSA-44, empty context."""
