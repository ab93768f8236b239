"""Groups whose workers are gone: their router says so, goes on with what is left, and ends when it is told to."""

import signal
import urllib.error
import urllib.request

import pytest
from client import Client, connect, refused
from cluster import Cluster
from etcd import Etcd, free_port
from pool import until

TEXT = "fn main() {\n    let answer = 42;\n}\n"


@pytest.fixture
def etcd(tmp_path):
    server = Etcd(tmp_path)
    yield server
    server.end()


def probe(address: str, path: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(f"http://{address}{path}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_router_goes_on_while_groups_are_lost(etcd, cache, tmp_path):
    metrics = f"127.0.0.1:{free_port()}"
    flags = ("--metrics-listen", metrics)
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0", "g1"], routers=1, router_flags=flags)
    try:
        with connect(cluster.addresses[0]) as channel:
            client = Client(channel)
            client.open(TEXT, session="one")
            lost = client.get("one").session.group
            other = {"g0": "g1", "g1": "g0"}[lost]

            def kill(group: str) -> None:
                cluster.workers[group][0].process.send_signal(signal.SIGKILL)
                until(f"{group} is lost", lambda: cluster.states()[group] != "serving")

            kill(lost)
            client.open(TEXT, session="two")
            assert client.get("two").session.group == other, "the group that is left takes it"
            assert client.get("one").text == TEXT, "the document is still there"
            assert [probe(metrics, path) for path in ("/healthz", "/readyz")] == [200, 200]
            kill(other)
            refusals = [refused(client.open, TEXT, session=name) for name in ("three", "four")]
            assert [refusal.reason for refusal in refusals] == ["NO_GROUP"] * 2
            assert all(refusal.retry_after_ms for refusal in refusals)
            assert [client.get(name).text for name in ("one", "two")] == [TEXT] * 2
            assert [probe(metrics, path) for path in ("/healthz", "/readyz")] == [200, 503]
        cluster.routers[0].stop()
    finally:
        cluster.end()
