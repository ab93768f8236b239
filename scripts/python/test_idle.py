"""Clients that have gone: their sessions are closed, make room for others, and can be seen and closed by who runs the pool."""

import json
import subprocess

import grpc
import pytest
from client import Client, connect, refused
from etcd import Etcd, free_port
from observe import Scrape
from pie.v1 import admin_pb2 as admin
from pie.v1 import admin_pb2_grpc
from pool import binary, environment, until

TEXT = "fn main() {\n    let answer = 42;\n}\n"


@pytest.fixture
def etcd(tmp_path):
    server = Etcd(tmp_path)
    yield server
    server.end()


def small_pool(start_pool, *flags):
    return start_pool("--metrics-listen", f"127.0.0.1:{free_port()}", *flags, world_size=1)


def names(client: Client) -> list[str]:
    return [session.session for session in client.list().sessions]


def test_the_sessions_of_clients_that_are_gone_are_closed(etcd, start_pool):
    pool = small_pool(start_pool, "--session-idle", "3s", "--etcd", etcd.url)
    with connect(pool.address) as channel:
        client = Client(channel)
        for name in ("gone", "read", "completed"):
            client.open(TEXT, session=name)
        stream = client.stream("completed", max_tokens=4000)

        def only_the_one_in_use() -> bool:
            client.get("read", content=False)
            next(stream)
            return names(client) == ["completed", "read"]

        until("the one that nobody uses is closed", only_the_one_in_use, 30.0)
        assert refused(client.edit, "gone", None).reason == "SESSION_UNKNOWN"
        stream.cancel()
        until("all are closed", lambda: names(client) == [], 30.0)
        assert etcd.keys("/pie/sessions/") == {}, "their homes too"
        assert Scrape(pool.metrics)("pie_sessions_closed_total", why="idle") == 3
        assert client.open(TEXT, session="gone").reused == 0
        client.close("gone")
    pool.stop()


def test_dead_clients_shut_nobody_out(start_pool):
    pool = small_pool(start_pool, "--sessions", "3", "--session-room", "2s")
    with connect(pool.address) as channel:
        client = Client(channel)
        for name in ("a", "b", "c"):
            client.open(TEXT, session=name)
        full = refused(client.open, TEXT, session="new")
        assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), full
        assert "2s" in full.message and "--sessions" in full.message and full.retry_after_ms

        def opened() -> bool:
            client.get("a", content=False)
            try:
                return client.open(TEXT, session="new").session == "new"
            except grpc.RpcError:
                return False

        until("the least recently used one makes room", opened, 30.0)
        assert names(client) == ["a", "c", "new"]
        assert Scrape(pool.metrics)("pie_sessions_closed_total", why="room") == 1
        assert len(client.complete("new", max_tokens=3).tokens) == 3


def test_who_runs_the_pool_sees_and_closes_what_tenants_hold(etcd, start_pool, cache):
    pool = small_pool(start_pool, "--group", "g0,g1", "--etcd", etcd.url)
    with connect(pool.address) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        tenants = {name: Client(channel, tenant=name or None) for name in ("", "ada", "grace")}
        for name, client in tenants.items():
            for number in range(3):
                client.open(TEXT, session=f"{name}{number}")

        def held(tenant: str | None = None, size: int = 2) -> list[tuple[str, str]]:
            found, token = [], ""
            while True:
                request = admin.ListTenantSessionsRequest(tenant=tenant, page_size=size, page_token=token)
                page = stub.ListTenantSessions(request, timeout=10)
                assert len(page.sessions) <= size
                found += [(each.tenant, each.session.session) for each in page.sessions]
                assert all(each.session.group in ("g0", "g1") and each.session.identity for each in page.sessions)
                token = page.next_page_token
                if not token:
                    return found

        everything = [(name, f"{name}{number}") for name in tenants for number in range(3)]
        assert held() == everything and held(size=100) == everything
        assert held("ada") == [("ada", f"ada{number}") for number in range(3)] and held("nobody") == []
        one = stub.CloseTenantSessions(admin.CloseTenantSessionsRequest(tenant="ada", session="ada1"), timeout=10)
        assert (one.closed, one.left, one.why) == (1, 0, "")
        assert refused(tenants["ada"].get, "ada1").reason == "SESSION_UNKNOWN"
        close = stub.CloseTenantSessions
        again = refused(close, admin.CloseTenantSessionsRequest(tenant="ada", session="ada1"), timeout=10)
        assert again.reason == "SESSION_UNKNOWN"
        assert refused(close, admin.CloseTenantSessionsRequest(tenant="ada"), timeout=10).reason == "FIELD_MISSING"
        assert close(admin.CloseTenantSessionsRequest(tenant="", all=True), timeout=10).closed == 3
        assert held() == [("ada", "ada0"), ("ada", "ada2"), *[("grace", f"grace{number}") for number in range(3)]]
        assert len(etcd.keys("/pie/sessions/")) == 5

        def ctl(*arguments: str) -> str:
            command = [str(binary()), "ctl", "--pool", f"http://{pool.address}", *arguments]
            return subprocess.run(command, env=environment(cache), check=True, capture_output=True, text=True, timeout=60).stdout

        lines = [line.split() for line in ctl("held").splitlines()]
        assert [tuple(line[:2]) for line in lines[1:]] == held()
        rows = json.loads(ctl("--json", "held", "grace"))
        assert [(row["tenant"], row["session"], row["completions"]) for row in rows] == [("grace", f"grace{n}", 0) for n in range(3)]
        assert "1 sessions closed" in ctl("evict", "grace", "grace1")
        assert json.loads(ctl("--json", "evict", "grace", "--all")) == {"closed": 2, "left": 0, "why": ""}
        assert held() == [("ada", "ada0"), ("ada", "ada2")]
        wrong = admin.ListTenantSessionsRequest(page_token="wrong")
        assert refused(stub.ListTenantSessions, wrong, timeout=10).reason == "BAD_PAGE_TOKEN"
