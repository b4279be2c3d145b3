"""The scenarios: what is done to a network under load, and what must hold while it lasts.

Each takes a World whose load is on and leaves it healed; the runner then has it settle and checks it. Each returns figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from clearing.anchored_receipt import VerifiedAnchoredReceipt
from clearing.rules.registry import Action, ActionKind
from clearing.types import LicenceStatus
from node.client import NotAnchoredError
from node.services.facade import NodeCondition
from node.testnet import control
from node.testnet.plan import LEADER
from tests.network.load import DEADLINE_S
from tests.network.world import World

Figures = dict[str, object]
BACK_S = 90.0
STILL_S = 6.0
KILLS = 20


def expendable(world: World) -> list[str]:
    """Return the nodes any one of which may fail: an operator of several, or a participant's follower."""
    return list(world.operators if world.has_engine else world.network.plan.witnesses)


def catches_up(world: World, name: str) -> float:
    """Wait until a node has what the others had a moment ago; returns how long it took."""
    target = max(r.status.log_size for r in world.reports().values() if r.status)

    def is_there() -> bool:
        status = world.observer.node(name).status
        return status is not None and status.log_size >= target

    return world.wait(f"{name} has caught up", is_there, BACK_S)


def one_killed(world: World) -> Figures:
    """One is killed: work goes on; started, it catches up alone."""
    name = world.random.choice(expendable(world))
    control.stop_node(world.network, name, at_once=True)
    went_on = world.works()
    control.start_node(world.network, name)
    return {"node": name, "work_s": round(went_on, 1), "back_s": round(catches_up(world, name), 1)}


def one_paused(world: World) -> Figures:
    """One stands still: work goes on; resumed, it catches up alone."""
    name = world.random.choice(expendable(world))
    control.pause_node(world.network, name, paused=True)
    went_on = world.works()
    control.pause_node(world.network, name, paused=False)
    return {"node": name, "work_s": round(went_on, 1), "back_s": round(catches_up(world, name), 1)}


def one_cut_off(world: World) -> Figures:
    """One hears nobody: work goes on; healed, it catches up alone."""
    name = world.random.choice(expendable(world))
    control.partition(world.network, [[name]])
    went_on = world.works()
    control.heal(world.network)
    return {"node": name, "work_s": round(went_on, 1), "back_s": round(catches_up(world, name), 1)}


def lossy(world: World) -> Figures:
    """A tenth of what one node and the others send each other is lost: work goes on."""
    name = world.random.choice(expendable(world))
    control.lose(world.network, name, 10)
    went_on = world.works(60)
    control.heal(world.network)
    return {"node": name, "work_s": round(went_on, 1)}


def quorum_gone(world: World) -> Figures:
    """As many fail as the quorum needs: nothing becomes final, clients get answers, one returns and all goes on."""
    names = world.random.sample(world.operators, 2) if world.has_engine else ["ministry"]
    for name in names:
        control.pause_node(world.network, name, paused=True)
    time.sleep(2)
    before = world.final()
    time.sleep(STILL_S + (DEADLINE_S if world.has_engine else 0))
    still = world.final()
    assert still == before, f"{before} leaves were final, and {still} are, without a quorum"
    repeats = sum(sender.repeats for sender in world.senders)
    control.pause_node(world.network, names[0], paused=False)
    back = world.works(BACK_S)
    for name in names[1:]:
        control.pause_node(world.network, name, paused=False)
    caught = max(catches_up(world, name) for name in names)
    return {
        "nodes": names,
        "repeats": repeats,
        "resumed_s": round(back, 1),
        "back_s": round(caught, 1),
    }


def split(world: World) -> Figures:
    """The network falls into halves: no fork, nothing final; healed, what both sides queued is in the log once."""
    nodes = list(world.network.ports)
    if world.has_engine:
        half = world.random.sample(world.operators, len(world.operators) // 2)
        sides = [half, [name for name in world.operators if name not in half]]
        for place, sender in enumerate(world.senders):
            sender.nodes = sides[place % 2]
    else:
        # The leader on one side, what its quorum needs on the other.
        sides = [[nodes[0], nodes[2]], [nodes[1], *nodes[3:]]]
    control.partition(world.network, sides)
    time.sleep(2)
    before = world.final()
    time.sleep(STILL_S)
    still = world.final()
    control.heal(world.network)
    assert still == before, f"{before} leaves were final, and {still} are, on a half"
    world.load(on=True)
    return {"sides": sides, "resumed_s": round(world.works(BACK_S), 1)}


def kills(world: World, count: int = KILLS) -> Figures:
    """Nodes, engines or both are killed at random under load: nothing acknowledged is lost (the check says so)."""
    killed: dict[str, int] = {}
    names = list(world.operators if world.has_engine else world.network.ports)
    while sum(killed.values()) < count:
        name = world.random.choice(names)
        what = world.random.choice(("node", "cometbft", "both") if world.has_engine else ("both",))
        if what == "both":
            control.stop_node(world.network, name, at_once=True)
            control.start_node(world.network, name)
        else:
            world.kill_part(name, what)
        killed[what] = killed.get(what, 0) + 1
        time.sleep(world.random.uniform(0, 1))
    took = world.works(BACK_S)
    return {"killed": killed, "work_s": round(took, 1)}


def all_restarted(world: World) -> Figures:
    """All nodes are killed and started: the network runs on."""
    for name in world.network.ports:
        control.stop_node(world.network, name, at_once=True)
    before = world.acknowledged()
    started = time.monotonic()
    with ThreadPoolExecutor(len(world.network.ports)) as pool:
        list(pool.map(lambda name: control.start_node(world.network, name), world.network.ports))
    world.wait("work goes on", lambda: world.acknowledged() > before, BACK_S)
    seconds = time.monotonic() - started
    return {"runs_on_s": round(seconds, 1), "within_15_s": seconds <= 15}


def follower_from_nothing(world: World) -> Figures:
    """A follower, and an operator, that have lost their data begin anew and reach the head."""
    figures: Figures = {}
    # A witness's database alone: it knows what it has signed by a file beside it.
    names = ["p02", *([world.random.choice(world.operators)] if world.has_engine else ())]
    for name in names:
        control.stop_node(world.network, name)
        world.wipe(name)
        world.works()
        control.start_node(world.network, name)
        figures[name] = round(catches_up(world, name), 1)
    return {"back_s": figures}


def liar_about_state(world: World) -> Figures:
    """One computes another state: work goes on without it and it is seen to be stuck; made anew, it is back."""
    name = world.random.choice(expendable(world)[1:])
    control.lie(world.network, name, "state")
    went_on = world.works(60)
    seen = 0.0
    if world.has_engine:

        def is_seen() -> bool:
            report = world.observer.node(name)
            return report.status is None or report.status.condition is not NodeCondition.SERVING

        seen = world.wait(f"{name} is seen not to serve", is_seen, 60)
        size = world.observer.node(name).status
        ahead = max(r.status.log_size for r in world.reports().values() if r.status)
        assert size is None or size.log_size < ahead, f"{name} keeps up while it lies"
    control.stop_node(world.network, name, at_once=True)
    world.wipe(name)
    control.lie(world.network, name, "")
    back = catches_up(world, name)
    return {
        "node": name,
        "work_s": round(went_on, 1),
        "seen_s": round(seen, 1),
        "back_s": round(back, 1),
    }


def liar_about_heads(world: World) -> Figures:
    """One signs a second head of each size: work goes on, the other operators keep the evidence, nothing forks."""
    name = world.random.choice(expendable(world)[1:])
    control.lie(world.network, name, "heads")
    went_on = world.works(60)
    kept = 0
    if world.has_engine:

        def evidence() -> int:
            data = [world.network.node_path(one) / "data" for one in world.operators if one != name]
            return sum(len(list(path.glob(f"conflict-{name}-*.note"))) for path in data)

        world.wait("the second head is kept as evidence", lambda: evidence() > 0, 30)
        kept = evidence()
    control.lie(world.network, name, "")
    back = catches_up(world, name)
    return {
        "node": name,
        "work_s": round(went_on, 1),
        "evidence": kept,
        "back_s": round(back, 1),
    }


def anchored(world: World) -> Figures:
    """While one is killed, what was recorded is anchored in the network's Bitcoin chain, and a receipt carries both clocks."""
    name = world.random.choice(expendable(world)[1:])
    control.stop_node(world.network, name, at_once=True)
    world.works()
    chain = world.network.bitcoin
    assert chain is not None, "no Bitcoin chain: the extra `bitcoin` is not installed"
    index = max(one.index for sender in world.senders for one in sender.acknowledged)
    with world.client(LEADER, LEADER) as bank, chain.rpc() as rpc:

        def is_proven() -> bool:
            bank.anchor_now()
            rpc.call("generate", 1)
            time.sleep(0.3)
            with suppress(NotAnchoredError):
                proven.append(bank.anchored_receipt(index)[1])
            return bool(proven)

        proven: list[VerifiedAnchoredReceipt] = []
        took = world.wait("a receipt carries both clocks", is_proven, BACK_S)
        anchors = bank.anchors()
    control.start_node(world.network, name)
    back = catches_up(world, name)
    return {
        "node": name,
        "anchored_s": round(took, 1),
        "anchors": len(anchors),
        "back_s": round(back, 1),
    }


def counts_no_more(world: World, witness: str) -> float:
    """Show, one of the other four operators being away, that who left the set finishes no final note.

    Returns how long finality took to come back with `witness`.
    """
    control.stop_node(world.network, witness)
    time.sleep(1)
    before = world.final()
    ordered = world.acknowledged()
    world.wait("three of four go on ordering", lambda: world.acknowledged() > ordered, 30)
    time.sleep(3)
    assert world.final() == before, "the cosignature of who left the set counted"
    control.start_node(world.network, witness)
    return world.works(BACK_S)


def licence(world: World) -> Figures:
    """Of five operators one is suspended and licensed again: the set follows, and its cosignature counts accordingly."""
    name = world.operators[-1]
    witness = world.operators[-2]
    numbers = [party.name for party in world.network.parties]

    def licensed(status: LicenceStatus) -> Action:
        value = {
            "participant": numbers.index(name),
            "status": status,
            "licence_no": "TEST-0001",
            "licence_expiry_ms": 0,
        }
        return Action(ActionKind.SET_LICENCE, value)

    def voters() -> int:
        return len(world.voters(world.operators[0]))

    assert voters() == 5
    world.govern(licensed(LicenceStatus.SUSPENDED))
    left = world.wait("it has left the set", lambda: voters() == 4, 30)
    # Four of five must cosign: three and a suspended one are not enough.
    counts_no_more(world, witness)
    world.govern(licensed(LicenceStatus.ACTIVE))
    joined = world.wait("it is back in the set", lambda: voters() == 5, 30)
    return {"node": name, "left_s": round(left, 1), "joined_s": round(joined, 1)}


SHARED: dict[str, Callable[[World], Figures]] = {
    "one-killed": one_killed,
    "one-paused": one_paused,
    "one-cut-off": one_cut_off,
    "lossy": lossy,
    "quorum-gone": quorum_gone,
    "split": split,
    "kills": kills,
    "all-restarted": all_restarted,
    "follower-from-nothing": follower_from_nothing,
    "liar-state": liar_about_state,
    "liar-heads": liar_about_heads,
    "anchored": anchored,
}
"""Those that run one after the other on one network."""
