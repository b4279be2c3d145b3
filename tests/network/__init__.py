"""Whole networks under load and faults: `python -m tests.network SCENARIO|all [--engine cometbft|embedded] [--docker] [--seed N]`."""
