"""`pie pool` as a process: started, waited for, watched, stopped. The only place that knows its command line."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from stubs import ROOT

WORLD_SIZE = 8
START_DEADLINE = 120.0
STOP_DEADLINE = 15.0


def binary() -> Path:
    """The program under test: `PIE_BINARY`, or what `cargo build --release` made."""
    built = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "pie"
    path = Path(os.environ.get("PIE_BINARY", built))
    assert path.is_file(), f"{path} is not there: run `cargo build --release --workspace --features pie/etcd`"
    return path


def environment(cache: Path) -> dict[str, str]:
    """Nobody's settings but the test's own; the seeded model, whose text is wild, is made under `cache`."""
    # An emulated GPU is the machine's matter, not the pool's.
    kept = [name for name in os.environ if not name.startswith("PIE_") or name.startswith("PIE_EMULATOR_")]
    inherited = {name: os.environ[name] for name in kept}
    return inherited | {"XDG_CACHE_HOME": str(cache), "PIE_MODEL": "seeded:tiny"}


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def until(what: str, condition, deadline: float = 10.0):
    """Waits until a condition holds, and gives what it gave."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"not within {deadline:.0f} s: {what}"
        time.sleep(0.02)


class Pool:
    """A router and worker processes, eight if nobody says otherwise, on this machine."""

    def __init__(self, cache: Path, *flags: str, world_size: int | None = WORLD_SIZE, listen: str = "127.0.0.1:0"):
        self._folder = tempfile.TemporaryDirectory(prefix="pie-pool-")
        folder = Path(self._folder.name)
        self._log = folder / "output"
        ready_file = folder / "ready.json"
        command = [str(binary()), "pool", "--listen", listen]
        command += ["--world-size", str(world_size)] if world_size else []
        command += ["--ready-file", str(ready_file), *flags]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(cache)
            )
        try:
            self._wait_until_ready(ready_file)
        except BaseException:
            self.end()
            raise
        ready = json.loads(ready_file.read_text())
        self.address: str = ready["address"]
        self.http: str | None = ready["http"]
        self.metrics: str | None = ready["metrics"]
        self.pid: int = ready["pid"]
        self.workers: dict[int, int] = {worker["rank"]: worker["pid"] for worker in ready["workers"]}

    def _wait_until_ready(self, ready_file: Path) -> None:
        end = time.monotonic() + START_DEADLINE
        while not ready_file.exists():
            code = self.process.poll()
            assert code is None, f"the pool ended with {code} before it served; it said:\n{self.output()}"
            late = f"the pool did not serve within {START_DEADLINE:.0f} s; it said:\n{self.output()}"
            assert time.monotonic() < end, late
            time.sleep(0.02)

    def output(self) -> str:
        """What the pool and its workers have said so far."""
        return self._log.read_text(errors="replace")

    def kill_worker(self, rank: int, how: signal.Signals) -> None:
        os.kill(self.workers[rank], how)

    def wait(self, deadline: float) -> int:
        """Waits for the end of the pool's process, and gives its exit code."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pool still runs after {deadline:.0f} s; it said:\n{self.output()}") from None

    def workers_running(self) -> list[int]:
        return [rank for rank, pid in self.workers.items() if is_running(pid)]

    def stop(self) -> None:
        """Stops the pool as Ctrl-C does. It ends in order, leaves no process, and has had nothing to complain of."""
        self.process.send_signal(signal.SIGINT)
        code = self.wait(STOP_DEADLINE)
        output = self.output()
        assert code == 0, f"the pool ended with {code} after SIGINT; it said:\n{output}"
        assert self.workers_running() == [], f"ranks outlive their pool:\n{output}"
        complaints = [line for line in output.splitlines() if " WARN " in line or " ERROR " in line or "panick" in line]
        assert complaints == [], "the pool logged what a healthy run has no reason for:\n" + "\n".join(complaints)

    def end(self) -> None:
        """Ends whatever still runs. For cleaning up: says nothing, fails never."""
        pids = [self.process.pid, *getattr(self, "workers", {}).values()]
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._folder.cleanup()


@contextlib.contextmanager
def serving(cache: Path, *flags: str, world_size: int | None = WORLD_SIZE):
    """A pool that must end in order."""
    running = Pool(cache, *flags, world_size=world_size)
    try:
        yield running
        running.stop()
    finally:
        running.end()
