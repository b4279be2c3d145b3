"""What the consensus engine's signatures prove, checked without the engine and without I/O.

Lives here, each module using only those named before it:

    encoding     the few protobuf encodings that the engine hashes and signs
    validators   a set of validators: power, hash, addresses
    commit       headers and commits: more than two thirds of the power over a header
    light_block  both as bytes, as the engine's own light clients keep them

May not live here: who is a validator (rules/validators.py), where headers come from (node/).
Source: CometBFT v0.39, spec/core/data_structures.md and spec/core/encoding.md.
"""
