"""A network of the run's own: each process in a namespace with an address on one bridge, and cables that can be cut.

All of it lives in namespaces of this process, so nothing of the machine is touched, and all of it ends when this process does.
"""

import os
import subprocess
import sys

SUBNET = "10.77.0"
# Set in the process that has namespaces of its own.
INSIDE = "PIE_CHAOS_INSIDE"
# Nobody has this address: what is sent to it is lost without a word, as on a network that was cut.
NOBODY = "02:00:00:00:00:01"


def enter() -> None:
    """Starts this program again in namespaces of its own (network, processes), and ends with its status."""
    if os.environ.get(INSIDE):
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge0", "type", "bridge")
        _run("ip", "address", "add", f"{SUBNET}.1/24", "dev", "bridge0")
        _run("ip", "link", "set", "bridge0", "up")
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*unshare, "ip", "link", "add", "try0", "type", "bridge"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        sys.exit(f"namespaces are not permitted here, and without them nothing can be cut:\n{tried.stderr}")
    os.environ[INSIDE] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])


class Place:
    """Where one process runs: a network namespace with one address."""

    _next = iter(range(2, 250))

    def __init__(self, name: str):
        number = next(self._next)
        self.name, self.address = name, f"{SUBNET}.{number}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        # The namespace is there once it says so.
        self._holder.stdout.readline()
        cable = f"cable{number}"
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._holder.pid))
        _run("ip", "link", "set", cable, "master", "bridge0", "up")
        self._inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            self._inside("ip", "link", "set", link, "up")

    def command(self, *command: str) -> list[str]:
        """What starts a command here."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *command]

    def lose(self, other: "Place") -> None:
        """What this one sends to the other is lost from now on."""
        self._inside("ip", "neighbour", "replace", other.address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def find(self, other: "Place") -> None:
        self._inside("ip", "neighbour", "delete", other.address, "dev", "eth0")

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()

    def _inside(self, *command: str) -> None:
        _run(*self.command(*command))


def cut(one: Place, other: Place) -> None:
    """Nothing gets through between the two, in neither direction, and neither is told."""
    one.lose(other)
    other.lose(one)


def mend(one: Place, other: Place) -> None:
    one.find(other)
    other.find(one)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
