"""A verifiable log, usable alone by an auditor: trees, heads, policies, receipts, tiles.

Lives here, each module using only those named before it:

    text          strict base64, decimals and lines, shared by the text formats
    merkle        RFC 6962 hashing, roots, compact ranges, proofs and their verification
    merkle_array  a tree of fixed size whose leaves change (the state root)
    checkpoint    the text of a log's head (C2SP tlog-checkpoint)
    keys          verifier keys, key ids and the Signer protocol (C2SP signed-note)
    cosignature   what each signature type signs, and its verification (C2SP tlog-cosignature)
    note          signed notes: parse, sign, verify (C2SP signed-note)
    policy        who must have signed (C2SP tlog-policy)
    proof         receipts that verify offline (C2SP tlog-proof)
    tiles         the tree as static files (C2SP tlog-tiles)

May not live here: private keys, files, sockets, clocks, and any knowledge of what a leaf means.
Nothing but `clearing.errors` is imported from the rest of the house.

Errors: bytes that are not in a format raise DecodeError; whatever is well formed and does not hold
(a proof, a signature, a quorum; also a proof asked for that cannot exist) raises VerificationError.
"""
