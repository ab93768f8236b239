"""The same pool with its placement in a real etcd: ranks, owner and sessions are visible there, and leave with it."""

import pytest
from client import Client, connect
from etcd import Etcd
from pool import WORLD_SIZE, until


@pytest.fixture
def etcd(tmp_path):
    server = Etcd(tmp_path)
    yield server
    server.end()


def test_a_pool_in_etcd(etcd, start_pool):
    pool = start_pool("--etcd", etcd.url, "--group", "blue")
    with connect(pool.address) as channel:
        client = Client(channel)
        ranks = {f"/pie/groups/blue/ranks/{rank:05}" for rank in range(WORLD_SIZE)}
        found = etcd.keys("/pie/")
        assert set(found) == ranks | {"/pie/groups/blue/owner"}
        addresses = {rank.address for rank in client.describe().groups[0].ranks}
        assert {found[key]["control"] for key in ranks} == addresses
        assert found["/pie/groups/blue/owner"]["address"] == client.describe().groups[0].owner != f"http://{pool.address}"

        for name in ("src/main.rs", "src/日本.rs"):
            client.open("fn main() {}\n", session=name)
        assert {name: home["group"] for name, home in etcd.keys("/pie/sessions/").items()} == {
            "/pie/sessions//src/main.rs": "blue",
            "/pie/sessions//src/日本.rs": "blue",
        }
        assert client.get("src/main.rs").session.group == "blue"
        assert len(client.complete("src/main.rs", max_tokens=4).tokens) == 4
        client.close("src/日本.rs")
        assert set(etcd.keys("/pie/sessions/")) == {"/pie/sessions//src/main.rs"}

    pool.stop()
    until("nothing of the pool is left in etcd", lambda: etcd.keys("/pie/") == {}, deadline=2.0)
