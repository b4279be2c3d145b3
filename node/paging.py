"""Page tokens: where the next page of a query starts, opaque to clients and the same on every node.

Lives here: the token's bytes and text. May not live here: queries.

A token carries the key at which to go on and a digest of the query it belongs to, under a checksum: a token cut short,
altered or used with another query is refused, not misread. It is no secret and grants nothing: every page is filtered
by the caller's rights anew, so it needs no signature, and any node takes it.
Source: AIP-158; own design of the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from clearing.errors import DecodeError

TOKEN_CHARS_MAX = 256
_VERSION = b"\1"
_DIGEST_BYTES = 8
_DOMAIN = b"clearing/page/v1\0"
_BAD_TOKEN = "page_token is not one that this query returned"  # noqa: S105 - a message


def query_digest(query: bytes) -> bytes:
    """Return the digest by which a token is bound to a query: its name, caller and filter, as bytes."""
    return hashlib.sha256(_DOMAIN + b"query" + query).digest()[:_DIGEST_BYTES]


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + b"token" + data).digest()[:_DIGEST_BYTES]


def encode_token(query: bytes, key: bytes) -> str:
    """Return the token of the page that starts at `key`."""
    data = _VERSION + query_digest(query) + key
    return base64.urlsafe_b64encode(data + _checksum(data)).decode()


def decode_token(query: bytes, token: str, key_bytes: int) -> bytes:
    """Return the key, of `key_bytes`, at which the page starts; of the empty token, the empty key.

    Raises: DecodeError: not a token, or another query's.
    """
    if not token:
        return b""
    if len(token) > TOKEN_CHARS_MAX:
        raise DecodeError(_BAD_TOKEN)
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(_BAD_TOKEN) from error
    data, checksum = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    head = _VERSION + query_digest(query)
    key = data[len(head) :]
    if checksum != _checksum(data) or not data.startswith(head) or len(key) != key_bytes:
        raise DecodeError(_BAD_TOKEN)
    return key
