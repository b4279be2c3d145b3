"""The obligation record: 102 bytes, read as numpy columns and never as one object an obligation.

Lives here: the byte layout of an item of a submission, its numpy view, its salts and salted commitments. May not
live here: what makes an item acceptable (rules/obligations.py) or who signs (submission.py).

Layout, little-endian: see LAYOUT; 1 + 16 (salt) + 102 bytes and SHA-256's padding fill exactly two blocks.
Source: own design (README, decisions 1 and 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from clearing.codec import Layout, raw, uint
from clearing.errors import DecodeError
from clearing.log import merkle
from clearing.params import ITEMS_PER_SUBMISSION_MAX

ITEM_VERSION = 1
MINED_COIN = 1
"""Flag of an obligation: it is paid with domestically mined coin (rules/mined.py)."""

SALT_BYTES = 16
SECRET_BYTES = 32

LAYOUT = Layout(
    "obligation",
    uint("version", 1),
    uint("kind", 1),
    uint("flags", 1),
    uint("priority", 1),
    uint("debtor", 4),
    uint("creditor", 4),
    uint("asset", 2),
    uint("due_ms", 8),
    uint("amount_units", 16),
    raw("trade_ref_hash", 32),
    raw("compliance_ref_hash", 32),
)
"""version 1; kind an ObligationKind; flags 0 or MINED_COIN; priority, higher is paid first; debtor, creditor and asset registry
numbers; due_ms 0 for none; amount in the asset's smallest unit; two SHA-256 of documents kept off the ledger."""

ITEM_BYTES = LAYOUT.width

DTYPE = np.dtype(
    [
        ("version", "u1"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("priority", "u1"),
        ("debtor", "<u4"),
        ("creditor", "<u4"),
        ("asset", "<u2"),
        ("due_ms", "<u8"),
        ("amount_lo", "<u8"),
        ("amount_hi", "<u8"),
        ("trade_ref_hash", "V32"),
        ("compliance_ref_hash", "V32"),
    ]
)

Items = npt.NDArray[np.void]


def items_view(records: bytes | memoryview) -> Items:
    """Return the records as a read-only structured array, one row an obligation, in submission order.

    Raises: DecodeError: the length is not a multiple of ITEM_BYTES, is zero, or holds too many items.
    """
    count, rest = divmod(len(records), ITEM_BYTES)
    if rest:
        raise DecodeError(
            f"obligation records take {ITEM_BYTES} bytes each; {rest} bytes are left over"
        )
    if not 0 < count <= ITEMS_PER_SUBMISSION_MAX:
        raise DecodeError(
            f"a submission holds 1 to {ITEMS_PER_SUBMISSION_MAX} obligations, got {count}"
        )
    view: Items = np.frombuffer(records, dtype=DTYPE)
    return view


def encode_item(**values: Any) -> bytes:
    """Return one record's bytes from its fields (see LAYOUT); for clients and tests.

    Raises: DecodeError: a value does not fit its field.
    """
    return LAYOUT.encode(**values)


def salts_of(secret: bytes, count: int) -> bytes:
    """Return the `count` salts of a submission, SALT_BYTES each: the ChaCha20 key stream of its secret.

    One salt reveals nothing of the others, so one item is opened by showing its own salt. Nonce and counter are
    zero: a secret serves one submission only (caller's duty).
    Raises: DecodeError: the secret is not 32 bytes. Source: RFC 8439 (key stream), own design.
    """
    if len(secret) != SECRET_BYTES:
        raise DecodeError(f"a submission's secret is {SECRET_BYTES} bytes")
    stream = Cipher(algorithms.ChaCha20(secret, bytes(16)), mode=None).encryptor()
    return stream.update(bytes(SALT_BYTES * count))


def commitments_of(secret: bytes, records: bytes | memoryview) -> bytes:
    """Return the items' salted commitments in order, packed, 32 bytes each.

    A commitment is the RFC 6962 leaf hash of (salt || record).
    """
    count = len(records) // ITEM_BYTES
    rows = np.empty((count, SALT_BYTES + ITEM_BYTES), dtype=np.uint8)
    rows[:, :SALT_BYTES] = np.frombuffer(salts_of(secret, count), np.uint8).reshape(
        count, SALT_BYTES
    )
    rows[:, SALT_BYTES:] = np.frombuffer(records, np.uint8).reshape(count, ITEM_BYTES)
    return merkle.leaf_hashes_of_rows(rows.tobytes(), SALT_BYTES + ITEM_BYTES)


def opening_of(secret: bytes, records: bytes | memoryview, item: int) -> bytes:
    """Return (salt || record) of one item: what opens its commitment. Caller: 0 <= item < number of records."""
    salt = salts_of(secret, item + 1)[-SALT_BYTES:]
    return salt + bytes(records[item * ITEM_BYTES : (item + 1) * ITEM_BYTES])
