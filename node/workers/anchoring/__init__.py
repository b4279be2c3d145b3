"""Anchoring: checkpoints into Bitcoin transactions, and what became of them back into the ledger.

    rpc       the only code that talks to a Bitcoin node

What is decided is decided elsewhere: the ledger's rules say what an anchor's states mean (clearing/rules), and every
change reaches them as a signed instruction with its evidence.
"""
