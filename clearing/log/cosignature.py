"""What each type of note signature signs, and the verification of one signature.

Lives here: the signed messages of types 1, 4 and 6, and the signature blobs that stand behind the
key id on a signature line. May not live here: lines, notes (note.py) and quorums (policy.py).
Source: C2SP signed-note v1.0.0 (type 1), C2SP tlog-cosignature (types 4 and 6), RFC 8032, FIPS 204.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import SignatureType, VerifierKey

TIMESTAMP_S_MAX = (1 << 63) - 1
_TIMESTAMP_BYTES = 8
_SIGNATURE_BYTES = {
    SignatureType.ED25519: 64,
    SignatureType.COSIGNATURE_ED25519: 64,
    SignatureType.COSIGNATURE_ML_DSA_44: 2420,
}


def signed_message(key: VerifierKey, text: str, timestamp_s: int | None) -> bytes:
    """Return the bytes that `key` signs for the note `text`.

    `timestamp_s` is the cosignature's time in seconds since 1970, at most 2**63 - 1; None for type
    1, which has none. Cosignatures sign checkpoints only: for types 4 and 6 `text` must be one.

    Raises: DecodeError: a time missing, superfluous or out of range; a text that is no checkpoint.
    """
    if key.type is SignatureType.ED25519:
        if timestamp_s is not None:
            raise DecodeError("a plain Ed25519 note signature carries no time")
        return text.encode()
    if timestamp_s is None or not 0 <= timestamp_s <= TIMESTAMP_S_MAX:
        raise DecodeError("a cosignature needs a time of 0 to 2**63 - 1 seconds")
    checkpoint = Checkpoint.parse(text)
    if key.type is SignatureType.COSIGNATURE_ED25519:
        return f"cosignature/v1\ntime {timestamp_s}\n{text}".encode()
    return b"".join(
        (
            b"subtree/v1\n\0",
            _length_prefixed(key.name, "cosigner name"),
            timestamp_s.to_bytes(8, "big"),
            _length_prefixed(checkpoint.origin, "log origin"),
            bytes(8),  # start of the subtree: a checkpoint begins at leaf 0
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _length_prefixed(text: str, what: str) -> bytes:
    """Return `opaque text<1..2^8-1>` in the encoding of RFC 8446, section 3."""
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise DecodeError(
            f"{what} must be 1 to 255 bytes to be signed with ML-DSA-44, got {len(data)}"
        )
    return bytes([len(data)]) + data


def encode_blob(key: VerifierKey, signature: bytes, timestamp_s: int | None) -> bytes:
    """Return what stands behind the key id on a signature line: the time, if any, and signature.

    Raises: DecodeError: a signature of the wrong length, or a time out of range.
    """
    if len(signature) != _SIGNATURE_BYTES[key.type]:
        raise DecodeError(
            f"signature of type {key.type:#04x} must be {_SIGNATURE_BYTES[key.type]} bytes"
        )
    if timestamp_s is None:
        return signature
    return timestamp_s.to_bytes(_TIMESTAMP_BYTES, "big") + signature


def split_blob(key_type: SignatureType, blob: bytes) -> tuple[int | None, bytes]:
    """Return time in seconds (None for type 1) and raw signature, from behind the key id.

    Raises: DecodeError: a wrong length, or a time above 2**63 - 1.
    """
    time_bytes = 0 if key_type is SignatureType.ED25519 else _TIMESTAMP_BYTES
    if len(blob) != time_bytes + _SIGNATURE_BYTES[key_type]:
        raise DecodeError(f"signature of type {key_type:#04x} has {len(blob)} bytes")
    if not time_bytes:
        return None, blob
    timestamp_s = int.from_bytes(blob[:time_bytes], "big")
    if timestamp_s > TIMESTAMP_S_MAX:
        raise DecodeError("cosignature time is above 2**63 - 1 seconds")
    return timestamp_s, blob[time_bytes:]


def verify_blob(key: VerifierKey, text: str, blob: bytes) -> None:
    """Verify the signature behind a key id against the note text it stands under.

    Raises: VerificationError: it does not verify; a wrong length, an impossible time, or a
    cosignature on a text that is no checkpoint count as that.
    """
    try:
        timestamp_s, signature = split_blob(key.type, blob)
        message = signed_message(key, text, timestamp_s)
    except DecodeError as error:
        raise VerificationError(f"signature of {key.label}: {error}") from error
    try:
        if key.type is SignatureType.COSIGNATURE_ML_DSA_44:
            MLDSA44PublicKey.from_public_bytes(key.public_key).verify(signature, message)
        else:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, message)
    except (
        InvalidSignature,
        ValueError,
    ) as error:  # ValueError: bytes that are no point of the curve
        raise VerificationError(f"signature of {key.label} does not verify") from error
