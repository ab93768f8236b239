"""A real etcd, for tests of what routers and workers tell each other through it."""

import base64
import json
import shutil
import socket
import subprocess
import urllib.request

from pool import until


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
        self.folder, self.command, self.log = folder, command, folder / "etcd.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("etcd answers", self.answers, deadline=20.0)

    def empty(self) -> None:
        """Ends it, and starts it again with nothing in it."""
        self.end()
        shutil.rmtree(self.folder / "etcd")
        self.start()

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
