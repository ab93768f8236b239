"""A Kubernetes that has one object: what `lookup` in a template finds, without a cluster."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}


def _plural(kind):
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


class Answers:
    """Knows the kinds that some manifests have, and one object; says so on a port, until it is closed."""

    def __init__(self, manifests, there):
        versions = {}
        for document in [*manifests, there]:
            versions.setdefault(document["apiVersion"], set()).add(document["kind"])
        groups = sorted(version for version in versions if "/" in version)
        self.pages = {"/version": VERSION, "/api": {"kind": "APIVersions", "versions": ["v1"]}}
        self.pages["/apis"] = {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {"name": version.split("/")[0], "versions": [{"groupVersion": version, "version": version.split("/")[1]}]} for version in groups
            ],
        }
        for version in {"v1", *groups}:
            kinds = [{"name": _plural(kind), "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in sorted(versions.get(version, ()))]
            self.pages[self._root(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": kinds}
        meta = there["metadata"]
        path = f"{self._root(there['apiVersion'])}/namespaces/{meta['namespace']}/{_plural(there['kind'])}/{meta['name']}"
        self.pages[path] = there
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def _root(version):
        return f"/apis/{version}" if "/" in version else f"/api/{version}"

    def _handler(answers):  # noqa: N805  (the handler's own self is another)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = answers.pages.get(self.path.split("?")[0])
                missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
                body = json.dumps(missing if page is None else page).encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def config(self, folder):
        """A kubeconfig that leads here."""
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "c", "users": []}
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def close(self):
        self.server.shutdown()
        self.server.server_close()
