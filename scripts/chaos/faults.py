"""What is done to the world, by name."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import network
from pool import until
from world import Process, World

MOMENT, LEASE_AND_MORE, LONG = 2, 8, 30


@dataclass
class Damage:
    """What was done, and how it ends."""

    what: str
    # Ends it.
    mend: Callable[[], None]


@dataclass(frozen=True)
class Fault:
    name: str
    seconds: float
    begin: Callable[[World, random.Random], Damage]


def some_worker(world: World, choose: random.Random) -> Process:
    return choose.choice([worker for group in world.workers.values() for worker in group])


def an_owner(world: World, choose: random.Random) -> Process:
    owners = until("somebody owns a group", world.owners, 10.0)
    return owners[choose.choice(sorted(owners))]


def least_owner(world: World, _choose: random.Random) -> Process:
    """The router that owns the fewest groups: none, once the other one took them all over."""
    owned = [owner.name for owner in world.owners().values()]
    return min(world.routers, key=lambda router: owned.count(router.name))


def leader(world: World, _choose: random.Random) -> Process:
    return until("etcd has a leader", lambda: next((member for member in world.etcd if member.leads()), None), 10.0)


def follower(world: World, choose: random.Random) -> Process:
    first = leader(world, choose)
    return choose.choice([member for member in world.etcd if member is not first])


def freeze(whom):
    def begin(world: World, choose: random.Random) -> Damage:
        process = whom(world, choose)
        process.freeze()
        return Damage(f"{process.name} frozen", process.thaw)

    return begin


def kill(whom):
    def begin(world: World, choose: random.Random) -> Damage:
        process = whom(world, choose)
        process.stop(signal.SIGKILL)
        return Damage(f"{process.name} killed", process.start)

    return begin


def cut(ends):
    def begin(world: World, choose: random.Random) -> Damage:
        one, others = ends(world, choose)
        for other in others:
            network.cut(one.place, other.place)

        def mend() -> None:
            for other in others:
                network.mend(one.place, other.place)

        return Damage(f"{one.name} cut off from {' '.join(other.name for other in others)}", mend)

    return begin


def owner_and_etcd(world: World, choose: random.Random):
    return an_owner(world, choose), world.etcd


def owner_and_rank(world: World, choose: random.Random):
    owners = until("somebody owns a group", world.owners, 10.0)
    group = choose.choice(sorted(owners))
    return owners[group], [choose.choice(world.workers[group])]


def router_and_router(world: World, _choose: random.Random):
    one, *others = world.routers
    return one, others


def etcd_away(how: signal.Signals, wiped: bool):
    def begin(world: World, _choose: random.Random) -> Damage:
        for member in world.etcd:
            member.stop(how)
            if wiped:
                member.wipe()

        def mend() -> None:
            for member in world.etcd:
                member.start()
            until("etcd answers", lambda: all(member.healthy() for member in world.etcd), 20.0)

        return Damage("etcd wiped" if wiped else "all of etcd stopped", mend)

    return begin


def all_faults(members: int) -> dict[str, Fault]:
    faults = []
    frozen = {"worker": some_worker, "owner": an_owner, "router": least_owner}
    frozen |= {"etcd": leader} if members == 1 else {"leader": leader, "follower": follower}
    for name, whom in frozen.items():
        faults += [Fault(f"freeze-{name}-{s}", s, freeze(whom)) for s in (MOMENT, LEASE_AND_MORE, LONG)]
        faults.append(Fault(f"kill-{name}", 1, kill(whom)))
    cuts = {"owner-etcd": owner_and_etcd, "owner-rank": owner_and_rank, "routers": router_and_router}
    for name, ends in cuts.items():
        faults += [Fault(f"cut-{name}-{s}", s, cut(ends)) for s in (MOMENT, LEASE_AND_MORE, LONG)]
    faults.append(Fault("restart-etcd", 1, etcd_away(signal.SIGTERM, wiped=False)))
    faults.append(Fault("stop-etcd-15", 15, etcd_away(signal.SIGTERM, wiped=False)))
    faults.append(Fault("wipe-etcd", 1, etcd_away(signal.SIGKILL, wiped=True)))
    return {fault.name: fault for fault in faults}


def do(fault: Fault, world: World, choose: random.Random) -> tuple[Damage, float]:
    """Does it, waits, mends it; gives the moment of its end."""
    damage = fault.begin(world, choose)
    time.sleep(fault.seconds)
    damage.mend()
    return damage, time.monotonic()
