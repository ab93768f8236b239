"""A Hugging Face hub of our own, with its faults: as much of it as `hf download` and `pie model fetch` ask for."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import unquote

COMMIT = hashlib.sha1(b"pie").hexdigest()
# What a hub keeps in its store of large files rather than in git.
LARGE = (".safetensors", ".gguf", ".bin")
PIECE = 16 << 10


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Faults:
    """What goes wrong, and how the hub is."""

    token: str | None = None  # files are for those who have it
    gated: bool = True  # of those who have not: whether it says so, or that there is nothing
    store: bool = False  # large files are elsewhere: at another port
    ranges: bool = True  # whether parts of files can be had
    cuts: dict[str, list[int]] = field(default_factory=dict)  # of a file's answers: after how many bytes each is cut
    content: dict[str, bytes] = field(default_factory=dict)  # what is sent instead of a file
    refusals: list[tuple[int, dict]] = field(default_factory=list)  # of the next requests: status and fields
    sizes: dict[str, int] = field(default_factory=dict)  # what the tree says instead
    speed: float | None = None  # bytes a second


@dataclass
class Request:
    """What was asked for, and how much of it was sent."""

    by: str  # hub or store
    path: str
    token: str | None
    range: str | None
    sent: int = 0

    @property
    def file(self):
        return self.path.rsplit("/", 1)[-1]


class Hub:
    """A hub that has one repository."""

    def __init__(self, repository, files, faults=None, tls=None):
        self.repository, self.files, self.faults = repository, dict(files), faults or Faults()
        self.commit, self.log = COMMIT, []
        self._scheme = "https" if tls else "http"
        self._lock = threading.Lock()
        self._servers = [self._serve(name, tls) for name in ("hub", "store")]
        self.url, self.store_url = (f"{self._scheme}://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def sent(self, name=None):
        """Bytes of a file, or of all files, that were sent."""
        return sum(request.sent for request in self.log if name in (None, request.file) and ("/resolve/" in request.path or request.by == "store"))

    def requests(self, name):
        return [request for request in self.log if request.file == name and ("/resolve/" in request.path or request.by == "store")]

    def _serve(self, name, tls):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub._answer(self, name)

            do_HEAD = do_GET

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def _answer(self, handler, name):
        path, _, query = handler.path.partition("?")
        request = Request(name, unquote(path), handler.headers.get("Authorization"), handler.headers.get("Range"))
        with self._lock:
            self.log.append(request)
            refusal = self.faults.refusals.pop(0) if self.faults.refusals and ("/resolve/" in path or name == "store") else None
        # One connection a request: what is left of a body that was cut is nobody's next answer.
        handler.close_connection = True
        if refusal:
            return self._send(handler, json.dumps({"error": "not now"}).encode(), refusal[0], **refusal[1])
        if name == "store":
            return self._file(handler, request, request.file)
        if self.faults.token and request.token != f"Bearer {self.faults.token}" and ("/resolve/" in path or not self.faults.gated):
            kind = "GatedRepo" if self.faults.gated else "RepoNotFound"
            text = f"Access to model {self.repository} is restricted." if self.faults.gated else "Repository not found"
            return self._send(handler, json.dumps({"error": text}).encode(), 401, X_Error_Code=kind)
        if "/resolve/" in path:
            return self._resolve(handler, request)
        if self.repository and f"/api/models/{self.repository}" not in request.path:
            return self._send(handler, b'{"error": "Repository not found"}', 404, X_Error_Code="RepoNotFound")
        if "/tree/" in path:
            return self._tree(handler, path, query)
        if "/revision/" in path and request.path.split("/revision/")[1] not in ("main", "v1", self.commit):
            return self._send(handler, b'{"error": "Invalid rev id"}', 404, X_Error_Code="RevisionNotFound")
        if path.startswith("/api/models/"):
            return self._send(handler, json.dumps(self._about()).encode(), Content_Type="application/json")
        return self._send(handler, b"", 404)

    def _about(self):
        siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        about = {"id": self.repository or "pie/model", "modelId": self.repository or "pie/model", "sha": self.commit, "siblings": siblings}
        return about | {"private": False, "downloads": 0, "likes": 0, "tags": [], "gated": "auto" if self.faults.token else False, "disabled": False}

    def _tree(self, handler, path, query):
        entries = []
        for name, content in self.files.items():
            size = self.faults.sizes.get(name, len(content))
            entry = {"type": "file", "path": name, "size": size, "oid": git_blob(content)}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": sha256(content), "size": size, "pointerSize": 135}
            entries.append(entry)
        # Two pages, as a large repository has.
        half, second = (len(entries) + 1) // 2, "cursor=" in query
        link = {} if second else {"Link": f'<{self.url}{path}?recursive=true&cursor=2>; rel="next"'}
        page = entries[half:] if second else entries[:half]
        self._send(handler, json.dumps(page).encode(), Content_Type="application/json", **link)

    def _resolve(self, handler, request):
        name = re.split(r"/resolve/[^/]+/", request.path, maxsplit=1)[1]
        if name not in self.files:
            return self._send(handler, b"", 404, X_Error_Code="EntryNotFound")
        if self.faults.store and name.endswith(LARGE):
            headers = {"Location": f"{self.store_url}/objects/{name}?signature=1", "X_Linked_Etag": f'"{sha256(self.files[name])}"'}
            return self._send(handler, b"", 302, X_Linked_Size=len(self.files[name]), X_Repo_Commit=self.commit, **headers)
        return self._file(handler, request, name)

    def _file(self, handler, request, name):
        content, whole = self.faults.content.get(name, self.files[name]), self.files[name]
        etag = sha256(whole) if name.endswith(LARGE) else git_blob(whole)
        fields = {"ETag": f'"{etag}"', "X_Repo_Commit": self.commit, "Content_Type": "application/octet-stream", "Accept_Ranges": "bytes"}
        begin = int(request.range.removeprefix("bytes=").split("-")[0]) if request.range and self.faults.ranges else 0
        code = 200
        if request.range and self.faults.ranges:
            code, fields["Content_Range"] = 206, f"bytes {begin}-{len(content) - 1}/{len(content)}"
        with self._lock:
            cuts = self.faults.cuts.get(name, [])
            cut = cuts.pop(0) if cuts and handler.command == "GET" else None
        self._send(handler, content[begin:], code, cut=cut, request=request, **fields)

    def _send(self, handler, body, code=200, cut=None, request=None, **headers):
        with contextlib.suppress(OSError):
            handler.send_response(code)
            for name, value in {"Content-Length": len(body), "Connection": "close", **headers}.items():
                handler.send_header(name.replace("_", "-"), str(value))
            handler.end_headers()
            if handler.command == "HEAD":
                return
            body = body if cut is None else body[:cut]
            for at in range(0, len(body), PIECE):
                piece = body[at : at + PIECE]
                handler.wfile.write(piece)
                if request:
                    request.sent += len(piece)
                    if self.faults.speed:
                        time.sleep(len(piece) / self.faults.speed)


@contextlib.contextmanager
def serve(folder):
    """The folder as a repository of whatever name; yields the URL, and what was asked: tokens, and how often each file was sent."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with Hub(None, files) as hub:
        asked = {"tokens": set(), "bytes": Counter()}
        yield hub.url, asked
        asked["tokens"].update(request.token for request in hub.log)
        asked["bytes"].update(request.file for request in hub.log if "/resolve/" in request.path and request.sent)
