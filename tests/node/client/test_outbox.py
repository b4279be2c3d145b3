"""What is on its way survives the process, and nothing else lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.client.outbox import Outbox
from node.errors import SetupError
from tests.ledger_kit import P01, P02, Net, item


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


def test_transactions_come_back_in_order_until_removed(tmp_path: Path, net: Net) -> None:
    made = [net.submission(P01, item(P01, P02, n + 1)) for n in range(4)]
    outbox = Outbox(tmp_path / "box")
    for n, transaction in enumerate(made):
        outbox.put(transaction)
        path = tmp_path / "box" / f"{transaction.client_id.hex()}.transaction"
        assert path.stat().st_mode & 0o777 == 0o600
        os.utime(path, ns=(n, n))
    outbox.put(made[0])
    again = Outbox(tmp_path / "box")
    assert again.pending() == made
    again.remove(made[1].client_id)
    again.remove(made[1].client_id)
    assert outbox.pending() == [made[0], *made[2:]]


def test_a_client_id_cannot_stand_for_two_transactions(tmp_path: Path, net: Net) -> None:
    outbox = Outbox(tmp_path)
    one = net.submission(P01, item(P01, P02, 1), client_id=b"\x01" * 16)
    two = net.submission(P01, item(P01, P02, 2), client_id=b"\x01" * 16)
    outbox.put(one)
    with pytest.raises(SetupError, match="twice"):
        outbox.put(two)
    assert outbox.pending() == [one]


def test_what_is_no_transaction_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.transaction").write_bytes(b"junk")
    with pytest.raises(SetupError, match=r"junk\.transaction"):
        Outbox(tmp_path).pending()


def test_half_written_files_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".aa.transaction.0123.new").write_bytes(b"half")
    assert Outbox(tmp_path).pending() == []
