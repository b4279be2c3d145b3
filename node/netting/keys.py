"""The keys under which a netting result stands as JSON, in the order in which they are written.

Lives here: what `clearing net` and `clearing cycle show` have in common. May not live here: how either writes its values. The
reader (claims.py) states the form again on purpose: it takes nothing from the writer.
"""

from __future__ import annotations

from typing import Any, Final

from clearing.netting.result import netting_ratio

UNSETTLED: Final = ("id", "reason", "participant", "short")
PAIR: Final = ("debtor", "creditor", "net", "set_off_each_way")
TRANSFER: Final = ("from", "to", "amount")


def figures(*, obligations: int, gross: int, net: int, liquidity_used: int) -> dict[str, Any]:
    """Return the figures of one asset; amounts, in smallest units, as decimal strings."""
    return {
        "obligations": obligations,
        "gross": str(gross),
        "net": str(net),
        "ratio": netting_ratio(gross, net),
        "liquidity_needed": str(net),
        "liquidity_used": str(liquidity_used),
    }
