"""The same pool with its placement in a real etcd: ranks, owner and sessions are visible there, and leave with it."""

import base64
import json
import shutil
import socket
import subprocess
import urllib.request

import pytest
from client import Client, connect
from pool import WORLD_SIZE, until


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Etcd:
    """A server of one member, in a folder of its own, asked through its HTTP gateway."""

    def __init__(self, folder):
        program = shutil.which("etcd")
        assert program, "these tests need the program etcd on the PATH (Debian, Ubuntu: etcd-server)"
        self.url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        command = [program, "--data-dir", str(folder / "etcd"), "--initial-cluster", f"default={peer}"]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--logger", "zap", "--log-level", "error"]
        self.log = folder / "etcd.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("etcd answers", self.answers, deadline=20.0)

    def answers(self) -> bool:
        code = self.process.poll()
        assert code is None, f"etcd ended with {code}:\n{self.log.read_text(errors='replace')}"
        try:
            self.keys("/")
        except OSError:
            return False
        return True

    def keys(self, prefix: str) -> dict[str, dict]:
        """All keys with a prefix, and their values."""
        first = prefix.encode()
        behind = first[:-1] + bytes([first[-1] + 1])
        encoded = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(behind).decode()}
        request = urllib.request.Request(f"{self.url}/v3/kv/range", json.dumps(encoded).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            pairs = json.load(answer).get("kvs", [])
        return {base64.b64decode(pair["key"]).decode(): json.loads(base64.b64decode(pair["value"])) for pair in pairs}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


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
        assert found["/pie/groups/blue/owner"]["address"] == f"http://{pool.address}"

        for name in ("src/main.rs", "src/日本.rs"):
            client.open("fn main() {}\n", session=name)
        assert {name: home["group"] for name, home in etcd.keys("/pie/sessions/").items()} == {
            "/pie/sessions/src/main.rs": "blue",
            "/pie/sessions/src/日本.rs": "blue",
        }
        assert client.get("src/main.rs").session.group == "blue"
        assert len(client.complete("src/main.rs", max_tokens=4).tokens) == 4
        client.close("src/日本.rs")
        assert set(etcd.keys("/pie/sessions/")) == {"/pie/sessions/src/main.rs"}

    pool.stop()
    until("nothing of the pool is left in etcd", lambda: etcd.keys("/pie/") == {}, deadline=2.0)
