"""The node's durable memory: one LMDB environment, written by one thread, one transaction a block.

Lives here, each module using only those named before it:

    errors        how the store says no: stable codes, findings that name table and key
    tables        which databases there are, their keys, the guarded records of the node's own
    datafile      what the data file says of itself before LMDB maps it
    environment   the directory: process lock, settings, map growth, free space, transactions
    heads         the signed heads' second copy, a small file beside the database
    view          everything that is read, in one read transaction
    writer        what happens inside one write transaction
    store         everything that is written: blocks, heads, checkpoints, cosignatures
    startup       what is checked before the node trusts what it finds
    fsck          everything re-derived from the leaves and compared, byte for byte
    rebuild       indices and state dropped and made anew from leaves and bodies

Only this package imports lmdb. May not live here: rules, signatures made, sockets.

Invariants: a block is there whole or not at all; a record of the ledger is written once and never
replaced; whoever was acknowledged after `commit` returned finds the block after kill -9 and power
loss; a head goes to disk twice before its signature leaves.
"""

from __future__ import annotations

from node.store.environment import StoreSettings, StoreUsage
from node.store.errors import (
    Finding,
    FindingKind,
    ForkDetectedError,
    RollbackDetectedError,
    StoreBusyError,
    StoreClosedError,
    StoreCode,
    StoreConflictError,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreSchemaError,
)
from node.store.store import LeafBlock, Store
from node.store.tables import Head, ReplicaKind, Tip
from node.store.view import Record, View

__all__ = [
    "Finding",
    "FindingKind",
    "ForkDetectedError",
    "Head",
    "LeafBlock",
    "Record",
    "ReplicaKind",
    "RollbackDetectedError",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreCode",
    "StoreConflictError",
    "StoreDamagedError",
    "StoreError",
    "StoreFailedError",
    "StoreFullError",
    "StoreLockedError",
    "StoreSchemaError",
    "StoreSettings",
    "StoreUsage",
    "Tip",
    "View",
]
