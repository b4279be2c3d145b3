"""Ordering: transactions become blocks, blocks become durable, heads become final.

Lives here, each module using only those named before it:

    clock      block time: never decreasing, never carried ahead by a clock that jumped
    driver     the seam: what a driver of `ledger.apply` offers and asks, and the ledger it moves
    halt       what is kept of a block that could not be applied
    embedded   the driver of one operator: bounded queue, group commit, one writer thread
    heads      the log's signature on heads, cosignatures, finality

May not live here: rules, transport, protobuf. With several operators a second driver takes the
place of `embedded` (DESIGN, section 8); nothing else changes.
"""
