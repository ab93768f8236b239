"""compose.yaml without a container engine: its pool and its Prometheus, as processes in networks of their own, by the node of the chart's tests.

The collector and Grafana are not run: no registry of packages has them.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest
import yaml

import stages

sys.path.insert(0, str(stages.ROOT / "scripts/helm"))
import node  # noqa: E402

DEPLOY = stages.ROOT / "deploy"
ENTRYPOINTS = {"pie-pool": ["/usr/local/bin/pie"], "prom/prometheus": ["/usr/local/bin/prometheus"], "gcr.io/etcd-development/etcd": []}
NOBODY = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}


def image_environment():
    lines = [rest for word, rest in stages.stages()["cpu"][1] if word == "ENV"]
    return dict(entry.split("=", 1) for line in lines for entry in line.split())


def pod(name, service, address):
    """A service as a pod of one container."""
    mounts, volumes = [], []
    binds = [*service.get("volumes", []), *(f"tmpfs:{entry.split(':')[0]}" for entry in service.get("tmpfs", []))]
    for number, bind in enumerate(binds):
        source, target, *mode = bind.split(":")
        volume = {"hostPath": {"path": str((DEPLOY / source).resolve())}} if source.startswith(".") else {"emptyDir": {}}
        volumes.append({"name": f"v{number}", **volume})
        mounts.append({"name": f"v{number}", "mountPath": target, "readOnly": mode == ["ro"]})
    environment = service.get("environment", {})
    if service["image"].startswith("pie-pool"):
        environment = {**image_environment(), **environment}
    environment = [{"name": key, "value": value} for key, value in environment.items()]
    container = {
        "name": name,
        "image": service["image"],
        "command": ENTRYPOINTS[service["image"].rsplit(":", 1)[0]],
        "args": service["command"],
        "env": environment,
        "volumeMounts": mounts,
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
    }
    return {
        "metadata": {"name": name, "namespace": "compose", "uid": f"{name}-uid", "annotations": {"address": address}},
        "spec": {"nodeName": "node", "securityContext": NOBODY, "containers": [container], "volumes": volumes},
    }


class Engine:
    """Answers the node in the place of a server: these are the pods."""

    def __init__(self, pods):
        self.pods = pods

    def get(self, path):
        return {"items": self.pods if path.endswith("pods") else []}

    def create(self, *_):
        pass

    def patch(self, *_, **__):
        pass

    delete = patch


class Machine(node.Node):
    """A node whose names are those of services."""

    subnet = "172.30.74"

    def address(self, pod):
        return pod["metadata"]["annotations"]["address"]

    def write_hosts(self):
        text = "".join(f"{pod.address} {pod.name}\n" for pod in self.pods.values())
        for pod in self.pods.values():
            pod.hosts.write_text("127.0.0.1 localhost\n" + text)


@pytest.fixture
def machine():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pie-compose-", dir="/var/tmp"))
    folder.chmod(0o755)
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    pods = []
    for number, (name, service) in enumerate(services.items()):
        if service["image"].rsplit(":", 1)[0] in ENTRYPOINTS:
            networks = service["networks"]
            address = networks["pool"]["ipv4_address"] if isinstance(networks, dict) else f"172.30.74.{130 + number}"
            pods.append(pod(name, service, address))
    programs = {"pie": os.environ["PIE"], "etcd": shutil.which("etcd"), "prometheus": shutil.which("prometheus")}
    made = Machine(Engine(pods), folder, programs)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def up():
    """What Prometheus says of its targets."""
    answer = json.load(urllib.request.urlopen("http://172.30.74.135:9090/api/v1/targets?state=active", timeout=3))
    return {target["labels"]["instance"]: target["health"] for target in answer["data"]["activeTargets"]}


def test_the_pool_of_compose_serves_and_is_watched(machine, tmp_path):
    file = tmp_path / "main.rs"
    file.write_text("fn main() {")
    (prometheus,) = [index for index, name in enumerate(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]) if name == "prometheus"]
    assert 130 + prometheus == 135

    def ctl(*words):
        return subprocess.run([os.environ["PIE"], "ctl", "--pool", "http://172.30.74.10:7400", *words], capture_output=True, text=True)

    end, healthy = time.monotonic() + 120, {}
    while time.monotonic() < end:
        opened = ctl("open", str(file))
        try:
            healthy = up()
        except OSError as error:
            healthy = {"prometheus": repr(error)}
        if opened.returncode == 0 and set(healthy.values()) == {"up"}:
            break
        time.sleep(1)
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-800:]}" for path in machine.folder.glob("*/*.log"))
    assert opened.returncode == 0, opened.stderr + logs
    assert healthy == {target: "up" for target in ("router:9400", "rank-0:9400", "rank-1:9400", "etcd:2379")}, f"{healthy}{logs}"
    assert ctl("complete", "main.rs", "--tokens", "4").stdout
