"""Bitcoin: formats and their verification, usable alone.

Lives here: what bytes of Bitcoin mean and whether they hold. May not live here: talking to a node, keys that sign, and
what follows for the ledger (rules, handlers).
"""
