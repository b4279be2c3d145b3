"""Workers beside the ledger: what a node does on its own account.

    witness   this node's cosignatures, each head stored before it is signed
    proposer  solutions of set-offs that cycles wait for, stated through the clerk
    clerk     what other workers report from outside the ledger, as instructions signed with the node key

Deadlines of the ledger need no worker: the sequencer makes an empty block when one falls due.
"""
