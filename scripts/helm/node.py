"""A node for a Kubernetes that has none: schedules pods, and runs their containers as processes.

Each pod has a network of its own (a namespace on one bridge), each container a root file system of its own that is read-only and has the
program, its libraries and nothing else: no shell. Users, environment, volumes, probes, hooks and grace are those of the pod. Names of
services and of their pods are in /etc/hosts. What it does not do: images, limits of resources, cluster IPs, network policies.
"""

import base64
import os
import pathlib
import shlex

import signal
import subprocess
import threading
import time
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIBRARIES = ["/lib/x86_64-linux-gnu", "/lib64"]
BRIDGE = "pie-nodes"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Node:
    """Runs all pods of the cluster behind `api` (cluster.Api). `programs` are files by their name in /usr/local/bin."""

    subnet = "10.213.0"
    # Names that are known, for pods that begin.
    names = "127.0.0.1 localhost\n"

    def __init__(self, api, folder, programs):
        self.api, self.folder, self.programs = api, pathlib.Path(folder), programs
        self.pods, self.addresses, self.events, self.stopping = {}, iter(range(10, 250)), [], False
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{self.subnet}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        api.create("/api/v1/nodes", {"kind": "Node", "metadata": {"name": "node", "labels": {"kubernetes.io/hostname": "node"}}})
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def address(self, _pod):
        return f"{self.subnet}.{next(self.addresses)}"

    def note(self, what, pod, **more):
        self.events.append({"at": time.monotonic(), "what": what, "pod": pod, **more})

    def loop(self):
        while not self.stopping:
            try:
                self.look()
            except Exception as error:  # The server may be stopping.
                if not self.stopping:
                    print(f"node: {error!r}", flush=True)
            time.sleep(0.25)

    def look(self):
        there = {pod["metadata"]["uid"]: pod for pod in self.api.get("/api/v1/pods")["items"]}
        for uid, pod in there.items():
            mine = self.pods.get(uid)
            if mine is None and not pod["metadata"].get("deletionTimestamp"):
                if not pod["spec"].get("nodeName"):
                    self.bind(pod)
                self.pods[uid] = Pod(self, pod, self.address(pod))
            elif mine is not None:
                mine.update(pod)
        for uid in [uid for uid in self.pods if uid not in there]:
            self.pods.pop(uid).remove()
        self.write_hosts()

    def bind(self, pod):
        meta = pod["metadata"]
        self.api.create(
            f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding",
            {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": "node"}},
        )

    def write_hosts(self):
        lines = ["127.0.0.1 localhost"]
        pods = [pod for pod in self.pods.values() if pod.alive]
        for service in self.api.get("/api/v1/services")["items"]:
            selector, meta, spec = service["spec"].get("selector"), service["metadata"], service["spec"]
            if not selector:
                continue
            name = f"{meta['name']}.{meta['namespace']}.svc"
            mine = [pod for pod in pods if selector.items() <= pod.labels.items() and pod.namespace == meta["namespace"]]
            for pod in mine:
                if spec.get("clusterIP") == "None" and pod.spec.get("subdomain") == meta["name"]:
                    lines.append(f"{pod.address} {pod.name}.{name}")
                if pod.ready or spec.get("publishNotReadyAddresses"):
                    lines.append(f"{pod.address} {name}")
        text = self.names = "\n".join(lines) + "\n"
        for pod in pods:
            if pod.hosts.read_text() != text:
                pod.hosts.write_text(text)

    def find(self, prefix):
        return [pod for pod in self.pods.values() if pod.name.startswith(prefix) and pod.alive]

    def stop(self):
        self.stopping = True
        self.thread.join()
        for pod in self.pods.values():
            pod.remove()
        subprocess.run(["ip", "link", "del", BRIDGE])


class Pod:
    """One pod: its network, volumes and containers."""

    def __init__(self, node, pod, address):
        self.node, self.address, self.meta, self.spec = node, address, pod["metadata"], pod["spec"]
        self.name, self.namespace, self.labels = self.meta["name"], self.meta["namespace"], self.meta.get("labels", {})
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.folder = node.folder / f"{self.name}-{self.meta['uid'][:8]}"
        self.net, self.alive, self.ready, self.terminating, self.phase = f"pie-{address.rsplit('.', 1)[1]}", True, False, False, "Pending"
        self.folder.mkdir(parents=True)
        self.hosts = self.folder / "hosts"
        self.hosts.write_text(node.names)
        run("ip", "netns", "add", self.net)
        link = f"v{self.net}"
        run("ip", "link", "add", link, "master", BRIDGE, "type", "veth", "peer", "name", "eth0", "netns", self.net)
        run("ip", "link", "set", link, "up")
        for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            run("ip", "-n", self.net, *words)
        self.volumes = {volume["name"]: self.volume(volume) for volume in self.spec.get("volumes", [])}
        self.containers = [Container(self, spec) for spec in self.spec["containers"]]
        self.node.note("started", self.name)
        threading.Thread(target=self.live, daemon=True).start()

    def volume(self, volume):
        folder = self.folder / "volumes" / volume["name"]
        if "persistentVolumeClaim" in volume:
            folder = self.node.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
        if "hostPath" in volume:
            return pathlib.Path(volume["hostPath"]["path"])
        folder.mkdir(parents=True, exist_ok=True)
        if "secret" in volume:
            source = volume["secret"]
            secret = self.node.api.get(f"/api/v1/namespaces/{self.namespace}/secrets/{source['secretName']}")["data"]
            for item in source.get("items", [{"key": key, "path": key} for key in secret]):
                (folder / item["path"]).write_bytes(base64.b64decode(secret[item["key"]]))
        group = self.spec["securityContext"]["fsGroup"]
        for path in [folder, *folder.glob("*")]:
            os.chown(path, 0, group)
            path.chmod(0o770 if path.is_dir() else 0o440)
        return folder

    def live(self):
        for container in self.containers:
            container.start()
        self.phase = "Running"
        while self.alive and not self.terminating:
            for container in self.containers:
                container.look()
            if self.spec.get("restartPolicy") == "Never" and all(container.code is not None for container in self.containers):
                self.phase = "Succeeded" if all(container.code == 0 for container in self.containers) else "Failed"
            self.ready = self.phase == "Running" and all(container.ready for container in self.containers)
            self.report()
            if self.phase not in ("Pending", "Running"):
                return
            time.sleep(0.25)

    def report(self):
        status = str(self.ready)
        conditions = [
            {"type": kind, "status": value}
            for kind, value in [("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", status), ("Ready", status)]
        ]
        report = {
            "phase": self.phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": conditions,
            "containerStatuses": [container.status() for container in self.containers],
        }
        if report != getattr(self, "reported", None):
            self.reported = report
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            dated = {**report, "startTime": stamp, "conditions": [{**entry, "lastTransitionTime": stamp} for entry in conditions]}
            self.node.api.patch(f"{self.path}/status", {"status": dated}, missing=True)
            if self.ready:
                self.node.note("ready", self.name)

    def update(self, pod):
        if pod["metadata"].get("deletionTimestamp") and not self.terminating:
            self.terminating = True
            threading.Thread(target=self.terminate, args=[pod["metadata"].get("deletionGracePeriodSeconds", 30)], daemon=True).start()

    def terminate(self, grace):
        self.node.note("terminating", self.name)
        end = time.monotonic() + grace
        # As by a node: a pod that goes is no longer an endpoint.
        self.ready = False
        threads = [threading.Thread(target=container.end, args=[end]) for container in self.containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.alive = False
        self.node.note("ended", self.name, codes=[container.code for container in self.containers])
        self.node.api.delete(self.path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.meta["uid"]}})

    def remove(self):
        self.alive = False
        for container in self.containers:
            if container.process and container.process.poll() is None:
                container.process.kill()
                container.process.wait()
        subprocess.run(["ip", "netns", "del", self.net], capture_output=True)


class Container:
    """One container: a process, its probes and its hook."""

    def __init__(self, pod, spec):
        self.pod, self.spec, self.process, self.code = pod, spec, None, None
        self.started = self.ready = False
        self.restarts, self.asked, self.dead = 0, {}, 0
        self.root = pod.folder / spec["name"]
        self.log = pod.folder / f"{spec['name']}.log"

    def environment(self):
        found = {"PATH": "/usr/local/bin", "HOSTNAME": self.pod.name}
        for entry in self.spec.get("env", []):
            value = entry.get("value", "")
            if "valueFrom" in entry:
                path = entry["valueFrom"]["fieldRef"]["fieldPath"]
                if path.startswith("metadata.labels["):
                    value = self.pod.labels[path.split("'")[1]]
                else:
                    value = {"status.podIP": self.pod.address, "metadata.name": self.pod.name}[path]
            found[entry["name"]] = self.expand(value, found)
        return found

    @staticmethod
    def expand(value, known):
        for name, content in known.items():
            value = value.replace(f"$({name})", content)
        return value

    def launch(self, arguments, log):
        """Runs a program of the container in a root of its own: what is mounted there, and nothing else."""
        environment = self.environment()
        security, user = self.spec["securityContext"], self.pod.spec["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        for folder in ["usr/local/bin", "etc", "proc", "dev", *[path.lstrip("/") for path in LIBRARIES]]:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        script = ["set -e", "mount --make-rprivate /"]

        def bind(source, target, options="bind"):
            target = self.root / str(target).lstrip("/")
            if pathlib.Path(source).is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            script.append(f"mount -o bind {shlex.quote(str(source))} {shlex.quote(str(target))}")
            if "ro" in options:
                script.append(f"mount -o remount,bind,ro {shlex.quote(str(target))}")

        mounts = []
        for path in LIBRARIES:
            mounts.append((path, path, "ro"))
        for name, file in self.pod.node.programs.items():
            mounts.append((file, f"/usr/local/bin/{name}", "ro"))
        mounts.append((self.pod.hosts, "/etc/hosts", "ro"))
        for mount in self.spec.get("volumeMounts", []):
            volume = self.pod.volumes[mount["name"]]
            mounts.append((volume, mount["mountPath"], "ro" if mount.get("readOnly") else "rw"))
        for device in ("null", "urandom"):
            mounts.append((f"/dev/{device}", f"/dev/{device}", "rw"))
        script.append(f"mount -o bind {self.root} {self.root}")
        for mount in mounts:
            bind(*mount)
        script.append(f"mount -t proc proc {self.root}/proc")
        script.append(f"mount -o remount,bind,ro {self.root}")
        words = " ".join(shlex.quote(word) for word in ["env", "-i", *[f"{key}={value}" for key, value in environment.items()]])
        command = " ".join(shlex.quote(word) for word in arguments)
        numbers = f"{user['runAsUser']}:{user['runAsGroup']}"
        chroot = f"chroot --userspec={numbers} --groups={user['fsGroup']} {self.root} {command}"
        script.append(f"exec {words} setpriv --no-new-privs --inh-caps=-all /usr/sbin/{chroot}")
        # `env` and `setpriv` are found before the environment is the container's.
        script[-1] = script[-1].replace("setpriv", "/usr/bin/setpriv", 1)
        command = ["ip", "netns", "exec", self.pod.net, "unshare", "--mount", "bash", "-c", "\n".join(script)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def start(self):
        arguments = [*self.spec.get("command", ["/usr/local/bin/pie"]), *self.spec.get("args", [])]
        environment = self.environment()
        arguments = [self.expand(argument, environment) for argument in arguments]
        self.code, self.started, self.ready = None, False, "readinessProbe" not in self.spec and "startupProbe" not in self.spec
        with self.log.open("ab") as log:
            self.process = self.launch(arguments, log)

    def look(self):
        code = self.process.poll()
        if code is not None and self.code is None:
            self.code, self.ready = code, False
            if self.pod.spec.get("restartPolicy", "Always") == "Always" and self.pod.alive and not self.pod.terminating:
                self.pod.node.note("restarted", self.pod.name, container=self.spec["name"], code=code)
                self.restarts += 1
                time.sleep(1)
                self.start()
            return
        if self.code is not None:
            return
        if not self.started and "startupProbe" in self.spec:
            self.started = self.due("startupProbe") is True or self.started
            return
        self.started = True
        answer = self.due("readinessProbe")
        if answer is not None:
            self.ready = answer
        answer = self.due("livenessProbe")
        if answer is not None:
            self.dead = 0 if answer else self.dead + 1
            if self.dead >= self.spec["livenessProbe"].get("failureThreshold", 3):
                self.pod.node.note("killed", self.pod.name, container=self.spec["name"])
                self.process.kill()

    def due(self, kind):
        """Asks if it is time to; None: not now."""
        probe = self.spec.get(kind)
        # Tests are short: what waits for readiness asks every second at the least.
        period = min(probe.get("periodSeconds", 10), 1 if kind != "livenessProbe" else 10) if probe else 0
        if probe is None or time.monotonic() - self.asked.get(kind, time.monotonic() - 99) < period:
            return None
        self.asked[kind] = time.monotonic()
        return self.ask(probe)

    def ask(self, probe):
        timeout = probe.get("timeoutSeconds", 1)
        try:
            if "grpc" in probe:
                with grpc.insecure_channel(f"{self.pod.address}:{probe['grpc']['port']}") as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    answer = stub.Check(health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", "")), timeout=timeout)
                return answer.status == health_pb2.HealthCheckResponse.SERVING
            port = probe["httpGet"]["port"]
            if not isinstance(port, int):
                (port,) = [entry["containerPort"] for entry in self.spec["ports"] if entry["name"] == port]
            url = f"http://{self.pod.address}:{port}{probe['httpGet']['path']}"
            return urllib.request.urlopen(url, timeout=timeout).status < 400
        except (grpc.RpcError, OSError):
            return False

    def end(self, end):
        hook = self.spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            time.sleep(min(hook["sleep"]["seconds"], max(0, end - time.monotonic())))
        elif "exec" in hook and self.process.poll() is None:
            with self.log.with_suffix(".hook").open("ab") as log:
                process = self.launch(hook["exec"]["command"], log)
                try:
                    code = process.wait(max(0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = "timeout"
            self.pod.node.note("hook", self.pod.name, container=self.spec["name"], code=code)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.code = self.process.wait(max(2, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.code = "killed"

    def status(self):
        started = self.code is None and self.process is not None
        state = {"running": {}} if started else {"terminated": {"exitCode": self.code if isinstance(self.code, int) else 137}}
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
        }
