"""A Kubernetes of its own: etcd, kube-apiserver and kube-controller-manager as processes, and the node of node.py.

With SIMULATED_CONTROLLERS set, controllers.py stands for kube-controller-manager.
"""

import json
import os
import pathlib
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import controllers
import node


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Api:
    """The few calls that a node makes."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        # A server of our own on this machine, with a certificate that it made itself.
        self.context = ssl._create_unverified_context()

    def call(self, method, path, body=None, kind="application/json", missing=False):
        request = urllib.request.Request(self.url + path, method=method, data=json.dumps(body).encode() if body is not None else None)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if missing and error.code in (404, 409):
                return None
            raise RuntimeError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from error

    def get(self, path):
        return self.call("GET", path)

    def create(self, path, body):
        return self.call("POST", path, body)

    def patch(self, path, body, missing=False):
        return self.call("PATCH", path, body, "application/strategic-merge-patch+json", missing)

    def delete(self, path, body):
        return self.call("DELETE", path, body, missing=True)


class Cluster:
    """Starts with the first use and ends with `stop`. `kubeconfig` is for helm and kubectl."""

    def __init__(self, folder, programs):
        self.folder, self.processes = pathlib.Path(folder), []
        self.token = secrets.token_hex(16)
        etcd, peer, port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{port}"
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{self.token},admin,1,"system:masters"\n')
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "own",
                    "clusters": [{"name": "own", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
                    "users": [{"name": "admin", "user": {"token": self.token}}],
                    "contexts": [{"name": "own", "context": {"cluster": "own", "user": "admin"}}],
                }
            )
        )
        self.start(
            "etcd",
            "--data-dir",
            str(self.folder / "etcd"),
            "--listen-client-urls",
            f"http://127.0.0.1:{etcd}",
            "--advertise-client-urls",
            f"http://127.0.0.1:{etcd}",
            "--listen-peer-urls",
            f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls",
            f"http://127.0.0.1:{peer}",
            "--initial-cluster",
            f"default=http://127.0.0.1:{peer}",
        )
        self.start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.folder}/certificates",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        self.api = Api(self.url, self.token)
        self.wait("kube-apiserver", 120, lambda: self.api.get("/api/v1/namespaces/default"))
        self.controllers = None
        if os.environ.get("SIMULATED_CONTROLLERS"):
            self.controllers = controllers.Controllers(self.api)
        else:
            self.start(
                "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                f"--service-account-private-key-file={key}",
                "--leader-elect=false",
                "--secure-port=0",
                "--node-monitor-grace-period=24h",
                "--controllers=*,-node-lifecycle-controller,-node-ipam-controller,-service-lb-controller,-node-route-controller",
            )
        self.node = node.Node(self.api, self.folder / "node", programs)

    def start(self, name, *arguments):
        log = (self.folder / f"{name}.log").open("wb")
        self.processes.append(subprocess.Popen([name, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT))

    def wait(self, what, seconds, ask):
        end = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except (OSError, RuntimeError) as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"{what} does not answer: {error}") from error
                time.sleep(0.5)

    def command(self, *words, check=True, text=None):
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        run = subprocess.run(words, env=environment, input=text, capture_output=True, text=True)
        assert not check or run.returncode == 0, f"{' '.join(words)}: {run.stdout}{run.stderr}"
        return run

    def stop(self):
        if getattr(self, "controllers", None):
            self.controllers.stop()
        if hasattr(self, "node"):
            self.node.stop()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(60)
