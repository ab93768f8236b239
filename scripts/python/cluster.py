"""Routers and workers as processes of their own, which find each other through etcd, as on a cluster."""

import json
import signal
import subprocess
from pathlib import Path

from etcd import free_port
from pool import binary, environment, until


class Process:
    """One `pie` process. What it says goes to a file."""

    def __init__(self, cache: Path, log: Path, *command: str):
        self.command, self.log, self.cache = command, log, cache
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(binary()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.cache),
            )

    def stop(self, deadline: float = 30.0) -> None:
        """Stops it as a platform does."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(deadline)
        assert code == 0, f"{self.command} ended with {code} after SIGTERM:\n{self.output()}"

    def restart(self) -> None:
        self.stop()
        self.start()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Cluster:
    """Groups of workers, and routers that all want all groups."""

    def __init__(
        self,
        cache: Path,
        folder: Path,
        etcd: str,
        groups: list[str],
        routers: int = 2,
        world_size: int = 1,
        worker_flags: tuple[str, ...] = (),
        router_flags: tuple[str, ...] = (),
        access: tuple[str, ...] = (),
    ):
        """`access`: how `pie ctl` calls these routers."""
        self.cache, self.folder, self.access = cache, folder, access
        common = ["--etcd", etcd, "--world-size", str(world_size)]
        self.workers: dict[str, list[Process]] = {}
        for group in groups:
            worker = ["--log", "info", "worker", *common, "--group", group, "--kv-memory", "128MiB", "--threads", "1"]
            worker += worker_flags
            self.workers[group] = [
                Process(cache, folder / f"{group}-{rank}.log", *worker, "--rank", str(rank)) for rank in range(world_size)
            ]
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(routers)]
        self.routers = []
        for number, address in enumerate(self.addresses):
            router = ["--log", "info", "router", *common, "--group", ",".join(groups), "--listen", address, *router_flags]
            router += ["--ready-file", str(folder / f"router-{number}.json")]
            self.routers.append(Process(cache, folder / f"router-{number}.log", *router))
        for address in self.addresses:
            self.ctl("health", "--wait", "60s", at=address)
        until("all groups serve", lambda: self.states() == dict.fromkeys(groups, "serving"), 60.0)

    def ctl(self, *command: str, at: str | None = None) -> str:
        """What `pie ctl` says."""
        address = at or self.addresses[0]

        def run():
            arguments = [str(binary()), "ctl", "--pool", f"http://{address}", *self.access, *command]
            return subprocess.run(
                arguments, capture_output=True, text=True, timeout=90, env=environment(self.cache), check=False
            )

        done = run()
        # A router that has just been started does not listen yet.
        if "CONNECT" in done.stderr or "no pool answers" in done.stderr:
            done = until(f"{address} listens", lambda: (done := run()).returncode == 0 and done, 30.0)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.output()}"
        return done.stdout

    def states(self, at: str | None = None) -> dict[str, str]:
        """What is said of each group's state."""
        lines = [line.split() for line in self.ctl("pool", at=at).splitlines()]
        begin = next(number for number, line in enumerate(lines) if line[:1] == ["group"])
        return {line[0]: line[1] for line in lines[begin + 1 :] if line}

    def peer(self, number: int) -> str:
        """Where other routers reach a router."""
        return json.loads((self.folder / f"router-{number}.json").read_text())["peer"]

    def output(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def all(self) -> list[Process]:
        return [*self.routers, *(worker for group in self.workers.values() for worker in group)]

    def end(self) -> None:
        for process in self.all():
            process.end()


class Load:
    """`pie load` beside whatever else is done to a cluster."""

    def __init__(self, cluster: Cluster, report: Path, *flags: str):
        self.report = report
        pools = ",".join(f"http://{address}" for address in cluster.addresses)
        command = [str(binary()), "load", "--pool", pools, "--verify", "--json", str(report), *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(cluster.cache)
        )

    def expect_running(self, when: str) -> None:
        if self.process.poll() is not None:
            said, _ = self.process.communicate()
            raise AssertionError(f"the load was over {when}: {self.process.returncode}\n{said}")

    def finish(self, deadline: float) -> dict:
        """Its report; it has found every document right, and no call has failed for good."""
        said, _ = self.process.communicate(timeout=deadline)
        assert self.process.returncode == 0, f"the load ended with {self.process.returncode}:\n{said}"
        return json.loads(self.report.read_text())
