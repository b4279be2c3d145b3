"""Settlement of a cycle's Bitcoin leg: what people and machines do with its one transaction.

    files         the documents that go from hand to hand: coins, the settlement file, keys
    signer        a payer checks its own lines and signs them, online or behind an air gap
    coordinator   signatures gathered, the transaction checked by the consensus engine, handed to a Bitcoin node

The template itself and every check of it are the core's (clearing/bitcoin); what the outcome means is the ledger's.
"""
