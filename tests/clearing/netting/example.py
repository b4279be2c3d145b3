"""The README's example of netting on arrays, as it stands there; test_example.py runs it."""

from clearing.netting.columns import AssetColumns
from clearing.netting.limits import Limits
from clearing.netting.methods import by_gridlock, by_positions

# Who owes whom how much, in smallest units: lists of integers, or numpy arrays of them.
book = AssetColumns.of(debtor=[0, 1, 2, 0], creditor=[1, 2, 0, 2], amounts=[90, 70, 60, 50])
everything = by_positions(book, participants=3)
print(everything.gross, everything.net, everything.ratio)  # 270 80 0.703703

# What 30 units that participant 0 has can pay, its queue kept in order: the last row waits.
payable, _ = by_gridlock(book, Limits.of(3, liquidity={0: 30}))
print(payable.settled, payable.liquidity_used)  # [ True  True  True False] 30
