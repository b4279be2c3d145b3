"""CometBFT orders the blocks of several operators; this node is its application.

Lives here, each module using only those named before it:

    binary        where the engine's program is: PATH, or built once at the pinned version
    home          the engine's directory: keys, genesis.json, config.toml
    transactions  what a transaction of the engine is: one of the ledger's, or a tick
    frames        messages on the socket, each behind its length
    rpc           the engine's own RPC, on loopback
    application   ABCI calls over a Machine: FinalizeBlock computes, Commit makes durable
    server        the unix socket on which the engine calls them, four connections
    driver        the Driver: broadcast, wait for the commit, say what became of each

May not live here: rules (the core), the ledger's own wire, running the engine's process
(node/supervisor.py).

How it fits together. The engine agrees on the order of transactions and calls the application; the
application applies each block by the one pure `ledger.apply`. The engine's heights are not the
ledger's: blocks that change nothing use up no height of the ledger. The app hash is a hash of the
log's size and root and of nothing else, so that the chain goes quiet when there is no work.
Source: CometBFT v0.39, spec/abci; facts measured on it are in the README, "Several operators".
"""
