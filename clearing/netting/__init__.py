"""Exact netting of obligations on arrays, usable alone: no ledger, no files, no names, only numbers.

    columns      the input: obligations of one asset as columns, or of many assets as a book
    methods      one asset in, one `NettingResult` out, by each method
    positions    net positions            bilateral    set-off of pairs
    gridlock     simultaneous settlement  bypass       first in, first out, with overtaking
    setoff       greatest set-off         certificate  its proof
    transfers    who pays whom            recast       without some participants
    limits       liquidity and caps       wide         integers of 192 bits
    engine       numba or numpy           warm         compile everything once

Amounts are below 2^128 and sums below 2^191, all exact. Results do not depend on the machine, on threads or, where
no queue order is an input, on the order of the rows.
"""
