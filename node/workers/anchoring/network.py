"""Bitcoin networks by name.

Lives here: Network, which configuration and RPC client share. May not live here: anything else, for every command loads it; a
network's number and first block stand in clearing/bitcoin.
"""

from __future__ import annotations

import enum


class Network(enum.StrEnum):
    """A Bitcoin network, by the name that getblockchaininfo gives it."""

    MAIN = "main"
    TESTNET4 = "testnet4"
    SIGNET = "signet"
    REGTEST = "regtest"
