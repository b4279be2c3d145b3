"""Workers beside the ledger: what a node does on its own account.

    witness   this node's cosignatures, each head stored before it is signed

Deadlines of the ledger need no worker: the sequencer makes an empty block when one falls due.
"""
