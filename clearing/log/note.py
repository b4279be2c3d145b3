"""Signed notes: a text and lines of signatures under it.

Lives here: parsing, writing, signing and verifying notes. May not live here: what the text means
(checkpoint.py), who must have signed (policy.py), private keys (they stay behind `Signer`).
Invariant: `Note.parse` accepts exactly the image of `Note.encode`.
Source: C2SP signed-note v1.0.0; the limits are those of Go's golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from clearing.errors import DecodeError, VerificationError, invariant
from clearing.log.cosignature import encode_blob, signed_message, split_blob, verify_blob
from clearing.log.keys import KEY_ID_BYTES, Signer, VerifierKey, check_key_name
from clearing.log.text import decode_base64, decode_utf8, encode_base64, is_printable_line

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
_LINE_PREFIX = "\u2014 "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: key name, 4-byte key id, and the bytes behind it (time, if any, first).

    Raises: DecodeError: an invalid key name, a key id that is not 4 bytes, or no signature bytes.
    """

    name: str
    key_id: bytes
    blob: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.key_id) != KEY_ID_BYTES or not self.blob:
            raise DecodeError("signature must be a 4-byte key id and at least one byte more")

    @property
    def line(self) -> str:
        """The line as it stands in a note, without its newline."""
        return f"{_LINE_PREFIX}{self.name} {encode_base64(self.key_id + self.blob)}"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Read one signature line without its newline.

        Raises: DecodeError: any other form than em dash, space, key name, space, base64.
        """
        if not line.startswith(_LINE_PREFIX):
            raise DecodeError("signature line must start with an em dash and a space")
        name, separator, encoded = line[len(_LINE_PREFIX) :].partition(" ")
        if not separator:
            raise DecodeError("signature line must be a key name and a signature")
        data = decode_base64(encoded, "signature")
        return cls(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that verified: its key, and the time in seconds since 1970 (None for type 1)."""

    key: VerifierKey
    timestamp_s: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it.

    `text` ends in a newline and holds no other ASCII control character; it may be trusted only
    after `verified_by` or a policy has accepted the note. `signatures` keep the order of the lines,
    1 to 100 in a complete note.

    Raises: DecodeError: a text that a note cannot carry, or too many signatures.
    """

    text: str
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or not is_printable_line(self.text.replace("\n", "")):
            raise DecodeError("note text must end in a newline and hold no other control character")
        if len(self.signatures) > SIGNATURES_MAX:
            raise DecodeError(f"note has more than {SIGNATURES_MAX} signatures")

    def encode(self) -> bytes:
        """Return the note's bytes: text, blank line, signature lines.

        Raises: DecodeError: without signatures it is no note yet; or it is longer than 1,000,000
        bytes.
        """
        if not self.signatures:
            raise DecodeError("a note needs at least one signature")
        data = (self.text + "\n" + "".join(f"{sig.line}\n" for sig in self.signatures)).encode()
        if len(data) > NOTE_BYTES_MAX:
            raise DecodeError(f"note is longer than {NOTE_BYTES_MAX} bytes")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a signed note; its text ends at the last blank line, and may hold others.

        Raises: DecodeError: longer than 1,000,000 bytes, not UTF-8, no signature block, a malformed
        line, or more than 100 signatures.
        """
        if len(data) > NOTE_BYTES_MAX:
            raise DecodeError(f"note is longer than {NOTE_BYTES_MAX} bytes")
        whole = decode_utf8(data, "note")
        text, separator, block = whole.rpartition("\n\n")
        if not separator or not block.endswith("\n"):
            raise DecodeError(
                "note must end in a blank line and signature lines, each with its newline"
            )
        lines = block[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise DecodeError(f"note has more than {SIGNATURES_MAX} signatures")
        return cls(text + "\n", tuple(Signature.parse(line) for line in lines))

    def verified_by(self, keys: Iterable[VerifierKey]) -> tuple[VerifiedSignature, ...]:
        """Verify all signatures of known keys and return them, at least one, in line order.

        Lines of unknown keys are ignored, also when they share either name or key id with a known
        one. A key may occur several times (cosignatures of different times); count keys, not
        signatures.

        Raises: VerificationError: a signature of a known key does not verify, no key is known, or
        two different known keys share name and key id.
        """
        known: dict[tuple[str, bytes], VerifierKey] = {}
        for key in keys:
            if known.setdefault((key.name, key.key_id), key) != key:
                raise VerificationError(f"two different keys are known as {key.label}")
        verified = []
        for signature in self.signatures:
            signer = known.get((signature.name, signature.key_id))
            if signer is None:
                continue
            verify_blob(signer, self.text, signature.blob)
            verified.append(VerifiedSignature(signer, split_blob(signer.type, signature.blob)[0]))
        if not verified:
            raise VerificationError("note carries no signature of a known key")
        return tuple(verified)

    def with_signatures(self, *signatures: Signature) -> Note:
        """Return the note with further signature lines at its end.

        Raises: DecodeError: more than 100 signatures.
        """
        return replace(self, signatures=self.signatures + signatures)


def sign(text: str, signer: Signer, timestamp_s: int | None = None) -> Signature:
    """Sign a note text with a key of any type.

    `timestamp_s` is the time of a cosignature in seconds since 1970, at most 2**63 - 1, and None
    for type 1. The caller has stored durably, before the signature leaves, what is signed: a log or
    node must never sign two histories.

    Raises: DecodeError: a time missing, superfluous or out of range, or a cosignature on a text
    that is no checkpoint.
    InvariantViolation: what the signer returned does not verify under its own key.
    """
    blob = encode_blob(
        signer.key, signer.sign(signed_message(signer.key, text, timestamp_s)), timestamp_s
    )
    try:
        verify_blob(signer.key, text, blob)
    except VerificationError as error:
        invariant(False, f"signer returned a signature that does not verify: {error}")
    return Signature(signer.key.name, signer.key.key_id, blob)
