"""Anchoring: checkpoints into Bitcoin transactions, and what became of them back into the ledger.

    rpc           the only code that talks to a Bitcoin node
    keyring       keys of the anchor wallet: BIP 84 and BIP 86
    wallet        its coins, found by reading blocks
    scan          reading blocks, back where the chain was reorganised
    blocks        raw blocks
    transactions  anchors, replacements, children: what is signed
    book          every anchor with all its versions, on disk before anything leaves
    policy        when, at what cost, what is alarmed of
    tracking      what blocks mean to anchors
    spending      making, sending, paying more
    engine        one step of all this

What is decided of an anchor is decided elsewhere: the ledger's rules say what its states mean (clearing/rules), and every
change reaches them as a signed instruction with its evidence.
"""
