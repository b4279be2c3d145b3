"""A Bitcoin regtest chain of one node, for tests and demonstrations only.

    kernel    Bitcoin Core's own consensus engine (libbitcoinkernel), opened, fed and read
    coins     unspent outputs of the active chain, followed block by block
    mempool   unconfirmed transactions: scripts checked by the engine, replaced by fee, back after a reorganisation
    mining    making blocks
    chain     all of it behind one lock
    calls     the JSON-RPC calls, as Bitcoin Core names and answers them
    server    HTTP in front of the calls
    __main__  the process: python -m node.regtest

What no money may rest on: it has no peers, keeps its blocks without fsync, and mines whatever it is asked to. What is
real: every block and script is judged by the consensus engine, and a branch with more work wins.
Nothing of the node imports it: a test network runs it as a process and talks to it as to any Bitcoin node.
"""
