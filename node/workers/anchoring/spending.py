"""Making anchors, handing them to the node, and paying more for them: all that costs money.

Lives here: what is paid, when, and the bounds on it. May not live here: bytes of transactions (transactions.py), what
became of them (tracking.py).

Invariants: a transaction is stored before a node sees it; versions of one attempt share an outpoint, so two of them can
never both be mined; an anchor is made again only when what took its input is as deep as finality asks; one anchor is on its
way at a time, so a stuck market costs one fee, and more only while more checkpoints wait than one anchor covers. What the node says
of a transaction is a hint.
"""

from __future__ import annotations

from dataclasses import replace

from clearing.rules.anchors import MINED, AnchorState
from node.workers.anchoring.book import Anchor, Role, Version, with_version
from node.workers.anchoring.desk import Desk
from node.workers.anchoring.policy import AlarmKind
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.anchoring.transactions import (
    RATE_SAT_PER_KVB_MIN,
    RESERVE_OUTPUTS,
    FundsError,
    Signed,
    build,
    build_child,
    choose,
    fee_for,
)
from node.workers.anchoring.wallet import Coin, Wallet

VSIZE_GUESS = 250
"""About what an anchor of one input takes, in virtual bytes."""

INCREMENT_SAT_PER_KVB = 1_000
"""What a replacement pays above what it replaces, at least. Source: BIP 125 rule 4; Core's incrementalrelayfee."""


class Spender:
    """Spends the wallet's coins on the anchors of a book."""

    def __init__(self, desk: Desk, wallet: Wallet, rpc: BitcoinRpc) -> None:
        """Spend from `wallet` through the node behind `rpc`."""
        self._desk = desk
        self._wallet = wallet
        self._rpc = rpc
        self._due_since_s: int | None = None

    # -- making an anchor

    @property
    def covered(self) -> int:
        """The greatest log size that is anchored, or about to be."""
        return max(self._desk.book.last_size, self._desk.ledger.last()[1])

    def on_their_way(self) -> int:
        """Return how many anchors are decided and in no block."""
        return sum(anchor.state not in MINED for anchor in self._desk.book)

    def begin(self, *, now: bool) -> bool:
        """Decide an anchor of what is due, if the policy or `now` asks for one and it may be begun.

        Returns: whether `now` is done with: an anchor was decided, or nothing is due.
        """
        policy, after = self._desk.policy, self.covered
        due = self._desk.ledger.due(after, policy.batch_max)
        if not due or not (now or self._desk.ledger.is_news(after, due[-1].size)):
            self._due_since_s = None
            return True
        if self._due_since_s is None:
            self._due_since_s = self._desk.now_s()
        waited = self._desk.now_s() - self._due_since_s
        if not (now or policy.is_due(len(due), waited)):
            return True
        if not policy.may_begin(len(due), self.on_their_way()):
            return False
        known, _ = self._desk.ledger.last()
        number = 1 + max([known, *(anchor.number for anchor in self._desk.book)])
        digests = tuple(one.digest for one in due)
        decided = Anchor(
            number=number,
            commitment=self._desk.ledger.commitment(digests),
            sizes=tuple(one.size for one in due),
            digests=digests,
            made_s=self._desk.now_s(),
        )
        self._desk.change(decided, AnchorState.PENDING, self._wallet.tip_height)
        self._due_since_s = None
        return True

    # -- bringing it into a block

    def push(self) -> None:
        """Do for each anchor that is in no block what brings it into one. Raises: BitcoinError: the node fails."""
        for anchor in self._desk.book:
            if anchor.state is AnchorState.PENDING:
                self._first(anchor)
            elif anchor.state is AnchorState.LOST:
                self._again(anchor)
            elif anchor.state not in MINED:
                self._nurse(anchor)

    def _first(self, anchor: Anchor) -> None:
        # Signed, and killed before it was sent: the very same bytes go on.
        if anchor.newest is None:
            signed = self._signed(anchor)
            if signed is None:
                return
            version = Version(signed, Role.ANCHOR, self._desk.now_s())
            anchor = self._desk.book.put(with_version(anchor, version))
        self._send_all(anchor)
        sent = self._desk.book.anchor(anchor.number)
        self._desk.change(sent, AnchorState.BROADCAST, self._wallet.tip_height)

    def _again(self, anchor: Anchor) -> None:
        """Anchor once more with other coins, when what took the input away is deep enough to stay."""
        depth = self._wallet.tip_height - anchor.conflict_height + 1
        if anchor.conflict_height < 0:
            # Alive again: tracking took the conflict back.
            self._send_all(
                self._desk.change(anchor, AnchorState.BROADCAST, self._wallet.tip_height)
            )
            return
        if depth < self._desk.policy.depth:
            return
        signed = self._signed(anchor)
        if signed is None:
            return
        version = Version(signed, Role.AGAIN, self._desk.now_s())
        fresh = replace(with_version(anchor, version), conflict_height=-1, conflict_txid=b"")
        # One write: signed and no longer in conflict; sent once it is on disk.
        fresh = self._desk.change(fresh, AnchorState.BROADCAST, self._wallet.tip_height)
        self._desk.alarms.clear(AlarmKind.INPUT_LOST, anchor.number)
        self._send_all(fresh)

    def _signed(self, anchor: Anchor) -> Signed | None:
        """Return an anchor transaction of fresh coins at today's fee, or None where that is not to be had now."""
        rate = self._market_rate()
        if rate > self._desk.policy.fee_rate_max:
            self._desk.alarm(
                AlarmKind.FEE_TOO_HIGH,
                f"the market asks {rate} satoshi per 1,000 bytes and the bound is {self._desk.policy.fee_rate_max}: the "
                "anchor waits; raise the bound, or wait too",
                anchor.number,
            )
            return None
        self._desk.alarms.clear(AlarmKind.FEE_TOO_HIGH, anchor.number)
        try:
            coins = choose(self._wallet, self._reserved(), fee_for(rate, VSIZE_GUESS) + 1)
            signed = build(self._wallet, coins, anchor.commitment, rate, split=self._is_short())
        except FundsError as error:
            self._desk.alarm(AlarmKind.WALLET_EMPTY, str(error))
            return None
        self._desk.alarms.clear(AlarmKind.WALLET_EMPTY)
        if signed.fee_sat > self._desk.policy.fee_sat_max:
            self._desk.alarm(
                AlarmKind.FEE_TOO_HIGH,
                f"an anchor costs {signed.fee_sat} satoshi today and the bound is {self._desk.policy.fee_sat_max}: raise "
                "the bound, or wait",
                anchor.number,
            )
            return None
        return signed

    def _market_rate(self) -> int:
        found = self._rpc.fee_rate(self._desk.policy.target_blocks)
        return max(found or self._desk.policy.fee_rate_fallback, RATE_SAT_PER_KVB_MIN)

    def _reserved(self) -> frozenset[bytes]:
        """Return the outpoints that transactions of ours spend which may still be mined."""
        return frozenset(
            name
            for anchor in self._desk.book
            if anchor.state is not AnchorState.FINAL
            for version in anchor.versions
            for name in version.inputs
        )

    def _free(self) -> list[Coin]:
        tip, reserved = self._wallet.tip_height, self._reserved()
        return [
            coin
            for coin in self._wallet
            if coin.is_spendable(tip) and coin.outpoint not in reserved
        ]

    def _is_short(self) -> bool:
        return len(self._free()) < RESERVE_OUTPUTS

    def watch_reserve(self) -> None:
        """Raise or end the alarm about the number of spendable outputs."""
        count = len(self._free()) + sum(
            1 for anchor in self._desk.book if anchor.state not in MINED and anchor.newest
        )
        if count == 0:
            self._desk.alarm(
                AlarmKind.RESERVE_LOW, "the anchor wallet has no spendable output: fund its address"
            )
        else:
            self._desk.alarms.clear(AlarmKind.RESERVE_LOW)

    # -- keeping it before the miners

    def _nurse(self, anchor: Anchor) -> None:
        """Hand an anchor over again where the node forgot it, and pay more where it waits too long."""
        newest = anchor.newest
        if newest is None:
            return
        known = self._rpc.in_mempool(newest.signed.txid)
        if known:
            self._desk.alarms.clear(AlarmKind.NOT_ACCEPTED, anchor.number)
        if not known or self._desk.now_s() - newest.sent_s >= self._desk.policy.rebroadcast_s:
            self._send_all(anchor)
            anchor = self._desk.book.anchor(anchor.number)
        last = max(version.made_s for version in anchor.versions)
        if self._desk.now_s() - last >= self._desk.policy.bump_after_s:
            self._bump(anchor)

    def _send_all(self, anchor: Anchor) -> None:
        """Hand the newest version and its children to the node, in order; what it says is noted."""
        newest = anchor.newest
        if newest is None:
            return
        for version in (newest, *anchor.children):
            hint = self._rpc.send(version.signed.raw)
            sent = replace(version, sent_s=self._desk.now_s(), hint=hint[:200])
            anchor = self._desk.book.put(with_version(anchor, sent))
        if not self._rpc.in_mempool(newest.signed.txid):
            said = anchor.newest.hint if anchor.newest else ""
            self._desk.alarm(
                AlarmKind.NOT_ACCEPTED,
                f"the node does not keep the transaction of anchor {anchor.number}"
                + (f": {said}" if said else "; it is handed over again"),
                anchor.number,
            )

    def _bump(self, anchor: Anchor) -> None:
        """Pay more: by replacing, then by a child; at the bounds raise an alarm and let it be."""
        policy = self._desk.policy
        replaced = sum(version.role is Role.REPLACEMENT for version in self._attempt(anchor))
        made: Version | None = None
        if not anchor.children and replaced < policy.replacements_max:
            made = self._replacement(anchor)
        elif len(anchor.children) < policy.children_max:
            made = self._child(anchor)
        if made is None:
            self._desk.alarm(
                AlarmKind.BUMPS_EXHAUSTED,
                f"anchor {anchor.number} waits in the mempool for {anchor.fee_sat} satoshi, and its bumps are at the "
                "bound: raise the bound, or wait",
                anchor.number,
            )
            return
        self._desk.alarms.clear(AlarmKind.BUMPS_EXHAUSTED, anchor.number)
        self._send_all(self._desk.book.put(with_version(anchor, made)))

    @staticmethod
    def _attempt(anchor: Anchor) -> list[Version]:
        """Return the versions since the last one made of other coins."""
        starts = [n for n, version in enumerate(anchor.versions) if version.role is Role.AGAIN]
        return list(anchor.versions[starts[-1] if starts else 0 :])

    def _replacement(self, anchor: Anchor) -> Version | None:
        newest = anchor.newest
        if newest is None:
            return None
        old = newest.signed
        coins = [coin for name in newest.inputs if (coin := self._wallet.coin(name)) is not None]
        if len(coins) != len(newest.inputs):
            return None
        least = old.fee_sat + fee_for(INCREMENT_SAT_PER_KVB, old.vsize + len(coins))
        rate = max(self._market_rate(), old.rate_sat_per_kvb * 3 // 2)
        for _ in range(2):
            rate = min(rate, self._desk.policy.fee_rate_max)
            try:
                signed = build(self._wallet, coins, anchor.commitment, rate, split=False)
            except FundsError:
                return None
            if signed.fee_sat >= least and signed.rate_sat_per_kvb > old.rate_sat_per_kvb:
                is_within = signed.fee_sat <= self._desk.policy.fee_sat_max
                version = Version(signed, Role.REPLACEMENT, self._desk.now_s())
                return version if is_within else None
            rate = max(rate, -(-least * 1000 // signed.vsize)) + INCREMENT_SAT_PER_KVB
        return None

    def _child(self, anchor: Anchor) -> Version | None:
        newest = anchor.newest
        if newest is None:
            return None
        parent = anchor.children[-1].signed if anchor.children else newest.signed
        target = max(self._market_rate(), parent.rate_sat_per_kvb * 3 // 2)
        target = min(target, self._desk.policy.fee_rate_max)
        try:
            child = build_child(self._wallet, parent, target)
        except FundsError:
            return None
        if anchor.fee_sat + child.fee_sat > self._desk.policy.fee_sat_max:
            return None
        return Version(child, Role.CHILD, self._desk.now_s())
