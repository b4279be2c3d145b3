"""One step of anchoring: read new blocks, settle states, decide, sign, send.

Lives here: the order of these, and how it all stands. May not live here: asyncio and the ledger's calls (worker.py).

Every step may be cut off anywhere, by kill -9 too, and done again: what costs money is on disk before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from node.workers.anchoring.book import Anchor, Book, Role
from node.workers.anchoring.desk import Desk, Reporting
from node.workers.anchoring.keyring import Branch, Keyring, Kind
from node.workers.anchoring.network import Network
from node.workers.anchoring.policy import ALARM_OF, Alarm, AlarmKind, AnchorPolicy
from node.workers.anchoring.rpc import BitcoinError, BitcoinRpc
from node.workers.anchoring.scan import follow
from node.workers.anchoring.spending import Spender
from node.workers.anchoring.tracking import Tracker
from node.workers.anchoring.wallet import Wallet

SCAN_BLOCKS = 2_000
"""Blocks read in one step, so that a long scan is saved on its way."""

BIRTHDAY_TIP = -1
"""As a birthday: the tip when the wallet is first used."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How anchoring stands; amounts in satoshi, `height` -1 before the first block was read.

    address: where to fund the wallet. due: checkpoints that wait for an anchor. bumps: fee bumps made of all anchors.
    fees_sat: paid, or offered, for all anchors.
    """

    network: Network
    height: int
    address: str
    descriptors: tuple[str, ...]
    spendable_sat: int
    immature_sat: int
    outputs: int
    due: int
    bumps: int
    fees_sat: int
    anchors: tuple[Anchor, ...]
    alarms: tuple[Alarm, ...]


class Engine:
    """Anchoring of one log. One thread steps it; `standing` and `stop` may be called from any."""

    def __init__(
        self,
        directory: Path,
        keyring: Keyring,
        rpc: BitcoinRpc,
        ledger: Reporting,
        *,
        network: Network,
        policy: AnchorPolicy,
        birthday: int,
        now_s: Callable[[], int],
        kind: Kind = Kind.TR,
    ) -> None:
        """Open book and wallet in `directory`.

        birthday: first block that may hold a coin of a new wallet, or BIRTHDAY_TIP. kind: of the address to be funded.
        Raises: DecodeError: a file was altered; SetupError: one cannot be read.
        """
        self._directory = directory
        self._keyring = keyring
        self._rpc = rpc
        self._network = network
        self._birthday = birthday
        self._kind = kind
        self._ends = False
        self.desk = Desk(Book(directory), policy, ledger, now_s)
        self._wallet = Wallet.load(directory, keyring)
        self._parts: tuple[Tracker, Spender] | None = None
        self.standing = self._stand()

    def stop(self) -> None:
        """Have a step under way end early, a call to the Bitcoin node that hangs included."""
        self._ends = True
        self._rpc.abort()

    def step(self, *, now: bool = False) -> tuple[bool, bool]:
        """Do what is due. `now`: anchor what is due whatever the policy says.

        Returns: whether more blocks wait to be read, and whether `now` is done with. A Bitcoin node that fails raises an
        alarm and nothing else.
        Raises: SetupError: the worker's files cannot be written.
        """
        try:
            return self._step(now=now)
        except BitcoinError as error:
            # Cut off because the node is ending: nothing is wrong with the Bitcoin node.
            if self._ends:
                return False, False
            kind = ALARM_OF.get(type(error), AlarmKind.NODE_UNREACHABLE)
            self.desk.alarms.clear_node(but=kind)
            self.desk.alarm(kind, str(error))
            return False, False
        finally:
            self.standing = self._stand()

    def _step(self, *, now: bool) -> tuple[bool, bool]:
        wallet = self._opened_wallet()
        self._parts = self._parts or (
            Tracker(self.desk, wallet),
            Spender(self.desk, wallet, self._rpc),
        )
        tracker, spender = self._parts
        self._rpc.check(self._network, wallet.tip_height + 1)
        if self._read_blocks(wallet, tracker):
            return True, False
        self.desk.alarms.clear_node()
        tracker.settle()
        spender.watch_reserve()
        is_done = spender.begin(now=now)
        spender.push()
        return False, is_done

    def _opened_wallet(self) -> Wallet:
        if self._wallet is None:
            birthday = self._birthday
            if birthday == BIRTHDAY_TIP:
                birthday = self._rpc.check(self._network).blocks
            self._wallet = Wallet(self._keyring, birthday)
            self._wallet.save(self._directory)
        return self._wallet

    def _read_blocks(self, wallet: Wallet, tracker: Tracker) -> bool:
        """Read new blocks; returns whether there are more."""
        before = wallet.trail[-1:]
        try:
            progress = follow(self._rpc, wallet, tracker, SCAN_BLOCKS, lambda: self._ends)
        finally:
            # After the anchors' files: a wallet that has read a block does not show it to them again.
            if wallet.trail[-1:] != before:
                wallet.save(self._directory)
        return progress.more and not self._ends

    # -- reports to the ledger

    def untold(self) -> list[Anchor]:
        """Return the anchors with reports that the ledger has not answered yet, the oldest first."""
        return [
            anchor
            for anchor in self.desk.book
            if any(not statement.told for statement in anchor.statements)
        ]

    def tell(self, number: int, position: int, code: int) -> None:
        """Note that the ledger has answered a report with `code`, 0 for taken. Raises: SetupError: not written."""
        anchor = self.desk.book.anchor(number)
        told = replace(anchor.statements[position], told=True, code=code, payload=b"")
        statements = (
            *anchor.statements[:position],
            told,
            *anchor.statements[position + 1 :],
        )
        self.desk.book.put(replace(anchor, statements=statements))

    # -- for people

    def _stand(self) -> Standing:
        wallet = self._wallet or Wallet(self._keyring, 0)
        balance = wallet.balance()
        anchors = tuple(self.desk.book)
        bumps = [v for anchor in anchors for v in anchor.versions if v.role in _BUMPS]
        after = max(self.desk.book.last_size, self.desk.ledger.last()[1])
        return Standing(
            network=self._network,
            height=wallet.tip_height,
            address=self._keyring.address(wallet.fresh(self._kind, Branch.RECEIVE)),
            descriptors=tuple(self._keyring.descriptors()),
            spendable_sat=balance.spendable_sat,
            immature_sat=balance.immature_sat,
            outputs=balance.outputs,
            due=len(self.desk.ledger.due(after, self.desk.policy.batch_max)),
            bumps=len(bumps),
            fees_sat=sum(anchor.fee_sat for anchor in anchors),
            anchors=anchors,
            alarms=tuple(self.desk.alarms.standing()),
        )


_BUMPS = (Role.REPLACEMENT, Role.CHILD)
