"""A pool of two groups and two routers is rolled under load: every worker and every router is replaced, no document is lost, and no
call fails that its client repeats when it is told to."""

import time

import pytest
from client import Client, at_bytes, connect, refused
from cluster import Cluster, Load
from etcd import Etcd
from pool import until

GROUPS = ["g0", "g1"]
TEXT = "fn main() {\n    let answer = 42;\n}\n"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    server = Etcd(tmp_path_factory.mktemp("etcd"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def cluster(cache, etcd, tmp_path_factory):
    running = Cluster(cache, tmp_path_factory.mktemp("cluster"), etcd.url, GROUPS)
    yield running
    running.end()


def homes(etcd) -> dict[str, str]:
    """The group of each session, by name."""
    return {key.rsplit("/", 1)[1]: home["group"] for key, home in etcd.keys("/pie/sessions/").items()}


def test_each_router_serves_every_session(cluster, etcd):
    with connect(cluster.addresses[0]) as first, connect(cluster.addresses[1]) as second:
        one, other = Client(first), Client(second)
        names = [f"s{number}" for number in range(6)]
        for number, name in enumerate(names):
            (one if number % 2 else other).open(TEXT * 40, session=name)
        assert set(homes(etcd).values()) == set(GROUPS), "sessions go where there is room"
        answers = {}
        for name in names:
            revision = one.edit(name, one.get(name).session.revision, at_bytes(0, 0, "// one\n")).revision
            revision = other.edit(name, revision, at_bytes(0, 0, "// other\n")).revision
            assert one.get(name).text == other.get(name).text == "// other\n// one\n" + TEXT * 40
            # What is repaired meanwhile may change an answer, unless it is to be exact.
            answers[name] = [client.complete(name, max_tokens=6, exact=True).text for client in (one, other)]
            assert answers[name][0] == answers[name][1]
        assert len({tuple(answer) for answer in answers.values()}) == 1, "the same text is completed alike in both groups"
        for client in (one, other):
            assert [session.session for session in client.list(page_size=4).sessions] == names[:4]
            assert {group.group: group.state for group in client.describe().groups} == dict.fromkeys(GROUPS, "serving")
        # Unknown, stale and wrong are told alike wherever the call goes in.
        for client in (one, other):
            assert refused(client.get, "nobody").reason == "SESSION_UNKNOWN"
            for name in names:
                assert refused(client.edit, name, 0, at_bytes(0, 0, "x")).reason == "REVISION_MISMATCH"
                assert refused(client.edit, name, client.get(name).session.revision, at_bytes(0, 10**6, "x")).reason == "RANGE_OUT_OF_BOUNDS"
        for number, name in enumerate(names):
            (other if number % 2 else one).close(name)
        assert homes(etcd) == {}


def test_a_drained_group_gives_its_sessions_away(cluster, etcd):
    with connect(cluster.addresses[0]) as first:
        client = Client(first)
        # Routers look at each other's groups twice a second: until then those of the test before seem to be there.
        time.sleep(0.8)
        for number in range(6):
            client.open(TEXT, session=f"d{number}")
            client.edit(f"d{number}", None, at_bytes(0, 0, f"// {number}\n"))
        there = list(homes(etcd).values()).count("g0")
        assert 0 < there < 6
        assert f"{there} sessions moved" in cluster.ctl("drain", "g0")
        assert set(homes(etcd).values()) == {"g1"}
        for number in range(6):
            revision = client.heard[f"d{number}"]
            held = client.get(f"d{number}")
            assert (held.text, held.session.revision, held.session.group) == (f"// {number}\n" + TEXT, revision, "g1")
            assert client.edit(f"d{number}", revision, at_bytes(0, 0, "// moved\n")).revision == revision + 1
        client.open(TEXT, session="late")
        assert homes(etcd)["late"] == "g1", "a closed group takes nobody"
        # The last open group keeps its sessions: there is nowhere to go.
        assert "7 stay" in cluster.ctl("drain", "g1")
        assert sum(group.sessions for group in client.describe().groups) == 7, "each session is in one group"
        assert refused(client.open, TEXT, session="later").reason == "NO_GROUP"
        for group in GROUPS:
            cluster.ctl("uncordon", group)
        client.open(TEXT, session="later")
        for name in homes(etcd):
            client.close(name)
        assert [(group.sessions, group.slots_total - group.slots_free) for group in client.describe().groups] == [(0, 0)] * 2


def test_a_pool_is_rolled_under_load(cluster, tmp_path):
    flags = ["--sessions", "6", "--speed", "2", "--duration", "12s", "--warmup", "1s", "--document-size", "2KiB"]
    load = Load(cluster, tmp_path / "report.json", *flags)
    with connect(cluster.addresses[1]) as channel:
        before = until("the load has begun", lambda: at_work(Client(channel), sessions=6))
    for group in GROUPS:
        cluster.ctl("drain", group, "--for-restart", "--timeout", "5s")
        for worker in cluster.workers[group]:
            worker.restart()
        until(f"group {group} serves again", lambda: cluster.states() == dict.fromkeys(GROUPS, "serving"), 30.0)
        until(f"group {group} takes sessions again", lambda: " no " not in cluster.ctl("pool"), 10.0)
    for router, address in zip(cluster.routers, cluster.addresses, strict=True):
        router.restart()
        cluster.ctl("health", "--wait", "30s", at=address)
        until("all groups serve", lambda address=address: cluster.states(address) == dict.fromkeys(GROUPS, "serving"), 30.0)
    load.expect_running("before the pool was rolled")
    with connect(cluster.addresses[1]) as channel:
        after = until("the load goes on", lambda: at_work(Client(channel), sessions=6))
    report = load.finish(90.0)
    assert report["errors"] == {}
    assert report["edits"]["acknowledged"] == report["edits"]["sent"] > 100
    assert report["completions"]["failed"] == 0
    assert report["compared"]["equal"] >= 6 and report["compared"]["different"] == []
    for group in GROUPS:
        assert after[group].epoch > before[group].epoch, "it has been formed anew"
        assert after[group].owner != before[group].owner, "by another router"


def at_work(client: Client, sessions: int):
    """The groups by name, if all serve and have so many sessions between them."""
    groups = {group.group: group for group in client.describe().groups}
    ready = all(group.state == "serving" for group in groups.values())
    return ready and sum(group.sessions for group in groups.values()) >= sessions and groups
