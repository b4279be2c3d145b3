"""Replication: sealed blocks flow from the leader to its followers, cosignatures flow back.

Lives here, each module using only those named before it:

    registers    the registers as a witness folds them out of public leaves
    divergence   the signed report of a replica that does not agree
    replica      what a full and a witness replica do with a block before they keep it
    link         a follower's connection, blocks put together from parts
    member       what leader and follower have in common towards the services
    follower     catching up, cosigning, reconnecting
    handshake    whether a leader may write and sign: what its followers hold is heard first
    source       blocks as each follower may see them
    leader       sequencer, heads and handshake put together; the stream
    operators    one of several that order: heads exchanged with the others

May not live here: rules, group commit, signing (node/sequencer), serving gRPC (node/services).
"""
