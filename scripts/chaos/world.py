"""What is broken and mended: etcd, two groups of two ranks, two routers, each process in a place of its own, under a supervisor."""

import json
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import grpc
from network import Place
from pie.v1 import pie_pb2 as pb
from pie.v1 import pie_pb2_grpc
from pool import binary, environment, until

GROUPS = ("g0", "g1")
WORLD_SIZE = 2
ROUTERS = 2
# As a platform does it: what has ended is started again in this time.
RESTART = 1.0
# All but a line for each call.
LOG = "info,pie_router::calls=warn"
CLIENTS, PEERS = 2379, 2380
PUBLIC, INTERNAL = 7400, 7401
CONTROL, COLLECTIVE = 7500, 7501


class Process:
    """A program that is started again when it ends, whoever ended it."""

    def __init__(self, name: str, folder: Path, place: Place, command: list[str], env: dict[str, str] | None = None):
        self.name, self.place, self.log, self._env = name, place, folder / f"{name}.log", env
        self.command = command
        # Times that it ended though nobody ended it.
        self.ended_by_itself = 0
        self._wanted = True
        self._turn = threading.Lock()
        self._start()
        threading.Thread(target=self._supervise, daemon=True).start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            command = self.place.command(*self.command)
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env)

    def _supervise(self) -> None:
        while True:
            time.sleep(0.1)
            with self._turn:
                if not self._wanted or self._process.poll() is None:
                    continue
                self.ended_by_itself += 1
            time.sleep(RESTART)
            self.start()

    def start(self) -> None:
        with self._turn:
            self._wanted = True
            if self._process.poll() is not None:
                self._start()

    def stop(self, how: signal.Signals) -> None:
        """Ends it, and keeps it so until it is started."""
        with self._turn:
            self._wanted = False
            self._process.send_signal(how)
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.stop(signal.SIGKILL)
        self.place.end()


class Member(Process):
    """One member of etcd."""

    def __init__(self, name: str, folder: Path, place: Place, cluster: str):
        self.data = folder / f"{name}.data"
        self.url = f"http://{place.address}:{CLIENTS}"
        peer = f"http://{place.address}:{PEERS}"
        command = ["etcd", "--name", name, "--data-dir", str(self.data), "--initial-cluster", cluster, "--logger", "zap"]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--log-level", "warn"]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        super().__init__(name, folder, place, command)

    def wipe(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)

    def leads(self) -> bool:
        try:
            status = self._ask("/v3/maintenance/status", {})
        except (OSError, ValueError):
            return False
        return status.get("leader") == status["header"]["member_id"]

    def healthy(self) -> bool:
        try:
            self._ask("/v3/kv/range", {"key": "Lw=="})
        except (OSError, ValueError):
            return False
        return True

    def _ask(self, path: str, question: dict) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(question).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=2) as answer:
            return json.load(answer)


class World:
    """All processes, and who is what at the moment."""

    def __init__(self, folder: Path, cache: Path, members: int):
        folder.mkdir(parents=True)
        self.folder, env = folder, environment(cache)
        places = {f"etcd{number}": Place(f"etcd{number}") for number in range(members)}
        cluster = ",".join(f"{name}=http://{place.address}:{PEERS}" for name, place in places.items())
        self.etcd = [Member(name, folder, place, cluster) for name, place in places.items()]
        until("etcd answers", lambda: all(member.healthy() for member in self.etcd), 30.0)
        common = ["--etcd", ",".join(member.url for member in self.etcd), "--world-size", str(WORLD_SIZE)]
        self.workers: dict[str, list[Process]] = {}
        for group in GROUPS:
            self.workers[group] = []
            for rank in range(WORLD_SIZE):
                place = Place(f"{group}-{rank}")
                command = [str(binary()), "--log", LOG, "worker", *common, "--group", group, "--rank", str(rank)]
                command += ["--kv-memory", "64MiB", "--threads", "1", "--listen", f"{place.address}:{CONTROL}"]
                command += ["--kv-spill", str(folder / "rows"), "--kv-spill-size", "256MiB"]
                command += ["--collective-listen", f"{place.address}:{COLLECTIVE}"]
                self.workers[group].append(Process(place.name, folder, place, command, env))
        self.routers = []
        for number in range(ROUTERS):
            place = Place(f"router{number}")
            command = [str(binary()), "--log", LOG, "router", *common, "--group", ",".join(GROUPS)]
            command += ["--listen", f"{place.address}:{PUBLIC}", "--peer-listen", f"{place.address}:{INTERNAL}"]
            self.routers.append(Process(place.name, folder, place, command, env))
        self.addresses = [f"{router.place.address}:{PUBLIC}" for router in self.routers]
        self._channels = [grpc.insecure_channel(address, options=OPTIONS) for address in self.addresses]
        until("all groups serve", lambda: len(self.owners()) == len(GROUPS), 60.0)

    def all(self) -> list[Process]:
        return [*self.etcd, *self.routers, *(worker for group in self.workers.values() for worker in group)]

    def groups(self) -> dict[str, pb.Group]:
        """What some router says of the groups."""
        for channel in self._channels:
            try:
                answer = pie_pb2_grpc.PoolStub(channel).DescribePool(pb.DescribePoolRequest(), timeout=3.0)
            except grpc.RpcError:
                continue
            return {group.group: group for group in answer.groups}
        return {}

    def owners(self) -> dict[str, Process]:
        """Who owns each group that serves."""
        by_peer = {f"http://{router.place.address}:{INTERNAL}": router for router in self.routers}
        serving = {name: group.owner for name, group in self.groups().items() if group.state == "serving"}
        return {name: by_peer[owner] for name, owner in serving.items() if owner in by_peer}

    def states(self) -> str:
        return ", ".join(f"{name} {group.state}" for name, group in self.groups().items()) or "no router answers"

    def ended_by_themselves(self) -> dict[str, int]:
        return {process.name: process.ended_by_itself for process in self.all() if process.ended_by_itself}

    def end(self) -> None:
        for channel in self._channels:
            channel.close()
        for process in self.all():
            process.end()


# A channel that lost its router looks for it again at once, as an editor's back end would.
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Two worlds of one run have the same addresses, but not the same connections.
    ("grpc.use_local_subchannel_pool", 1),
]
