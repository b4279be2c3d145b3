"""Benchmarks of the ledger and of the netting engine: `python -m benchmarks NAME [--json] [--quick]`.

Figures are printed with the machine, the versions and the sizes they were taken with; no test depends on them.
"""
