"""The record of a cycle; its life is tested with the handlers."""

from __future__ import annotations

import pytest

from clearing.errors import DecodeError
from clearing.rules.cycles import Cycle
from clearing.types import CycleState


@pytest.mark.parametrize("state", [0, 8])
def test_an_unknown_state_is_refused(state: int) -> None:
    cycle = Cycle(CycleState.NETTED, 0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(32)).encode()
    with pytest.raises(DecodeError):
        Cycle.decode(bytes([state]) + cycle[1:])
