"""Names in place of registry numbers, both ways.

Lives here: looking parties and assets up in a register. May not live here: fetching the register (node.client).
"""

from __future__ import annotations

from clearing.rules.registry import Asset, Registry
from clearing.types import SUPERVISORS
from node.cli.errors import WrongUseError
from node.cli.obligation_file import Directory
from node.cli.render import scaled, trimmed

_LISTED_MAX = 12


class Names:
    """A register, read by people."""

    def __init__(self, registry: Registry) -> None:
        """Read `registry`."""
        self.registry = registry
        self._parties = {party.name: n for n, party in enumerate(registry.participants)}
        self._parties |= {party.lei: n for n, party in enumerate(registry.participants)}
        self._assets = {asset.name: n for n, asset in enumerate(registry.assets)}
        self._assets |= {asset.caip19: n for n, asset in enumerate(registry.assets)}
        self._assets |= {asset.dti: n for n, asset in enumerate(registry.assets) if asset.dti}

    def party(self, number: int) -> str:
        """Return a participant's name, or its number where the register does not have it."""
        found = self.registry.participant(number)
        return found.name if found else f"#{number}"

    def party_no(self, text: str) -> int:
        """Return the number of the participant with this name or LEI.

        Raises: WrongUseError: there is none.
        """
        if text not in self._parties:
            known = ", ".join(party.name for party in self.registry.participants[:_LISTED_MAX])
            raise WrongUseError(
                "UNKNOWN_PARTICIPANT",
                f"no participant {text!r} is registered",
                f"Registered are {known}{self._more(len(self.registry.participants))}.",
            )
        return self._parties[text]

    def asset(self, number: int) -> Asset | None:
        """Return an asset, or None where the register does not have it."""
        return self.registry.assets[number] if number < len(self.registry.assets) else None

    def asset_name(self, number: int) -> str:
        """Return an asset's name, or its number where the register does not have it."""
        found = self.asset(number)
        return found.name if found else f"#{number}"

    def asset_no(self, text: str) -> int:
        """Return the number of the asset with this name, CAIP-19 or DTI.

        Raises: WrongUseError: there is none.
        """
        if text not in self._assets:
            known = ", ".join(asset.name for asset in self.registry.assets[:_LISTED_MAX])
            raise WrongUseError(
                "UNKNOWN_ASSET",
                f"no asset {text!r} is registered",
                f"Registered are {known}{self._more(len(self.registry.assets))}.",
            )
        return self._assets[text]

    @staticmethod
    def _more(count: int) -> str:
        return f" and {count - _LISTED_MAX} more" if count > _LISTED_MAX else ""

    def scaled(self, amount_units: int, asset: int) -> str:
        """Return an amount with the decimal point of its asset."""
        found = self.asset(asset)
        return scaled(amount_units, found.scale if found else 0)

    def trimmed(self, amount_units: int, asset: int) -> str:
        """Return an amount with the decimal point of its asset and no zeros behind what counts."""
        found = self.asset(asset)
        return trimmed(amount_units, found.scale if found else 0)

    def is_supervisor(self, name: str) -> bool:
        """Return whether the participant with this name or LEI sees everybody's data."""
        return self.registry.participants[self.party_no(name)].role in SUPERVISORS

    def directory(self) -> Directory:
        """Return what an obligation file may call parties and assets."""
        return Directory(self._parties, self._assets)
