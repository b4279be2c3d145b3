"""The registers as rows: read whole at start-up, written where governance changed them.

Lives here: which row holds what of a Registry. May not live here: the registers (rules/registry.py), when they are written.
"""

from __future__ import annotations

from collections.abc import Iterator

from clearing.errors import invariant
from clearing.params import Parameters
from clearing.rows import Reader, Table, key_u32
from clearing.rules.bitcoin_terms import BitcoinTerms
from clearing.rules.registry import (
    Asset,
    Participant,
    Registry,
    decode_timetable,
    encode_timetable,
)
from clearing.rules.validators import decode_validators, encode_validators

_KEY_PARAMETERS = b"parameters"
_KEY_TIMETABLE = b"timetable"
_KEY_APPOINTED = b"appointed"
_KEY_VALIDATORS = b"validators"
_KEY_BITCOIN = b"bitcoin"


def load_registry(reader: Reader) -> Registry:
    """Return the registers that committed rows describe.

    Raises: DecodeError: a row is not canonical; InvariantViolation: the parameters are missing.
    """
    parameters = reader.get(Table.PARAMETERS, _KEY_PARAMETERS)
    timetable = reader.get(Table.PARAMETERS, _KEY_TIMETABLE)
    invariant(parameters is not None and timetable is not None, "the parameters are missing")
    return Registry(
        tuple(Participant.decode(value) for _, value in reader.scan(Table.PARTICIPANTS)),
        tuple(Asset.decode(value) for _, value in reader.scan(Table.ASSETS)),
        Parameters.decode(parameters or b""),
        decode_timetable(timetable or b""),
        decode_validators(reader.get(Table.PARAMETERS, _KEY_APPOINTED) or b""),
        decode_validators(reader.get(Table.PARAMETERS, _KEY_VALIDATORS) or b""),
        BitcoinTerms.decode(reader.get(Table.PARAMETERS, _KEY_BITCOIN) or b""),
    )


def registry_rows(old: Registry, new: Registry) -> Iterator[tuple[Table, bytes, bytes]]:
    """Yield (table, key, value) of what `new` changes in `old`; the parameters and the timetable in any case."""
    for number, party in enumerate(new.participants):
        if old.participant(number) is not party:
            yield Table.PARTICIPANTS, key_u32(number), party.encode()
    for number, asset in enumerate(new.assets):
        if number >= len(old.assets) or old.assets[number] is not asset:
            yield Table.ASSETS, number.to_bytes(2, "big"), asset.encode()
    yield Table.PARAMETERS, _KEY_PARAMETERS, new.parameters.encode()
    yield Table.PARAMETERS, _KEY_TIMETABLE, encode_timetable(new.cut_offs_s)
    for key, was, now in (
        (_KEY_APPOINTED, old.appointed, new.appointed),
        (_KEY_VALIDATORS, old.validators, new.validators),
    ):
        if was != now:
            yield Table.PARAMETERS, key, encode_validators(now)
    if old.bitcoin != new.bitcoin:
        yield Table.PARAMETERS, _KEY_BITCOIN, new.bitcoin.encode()
