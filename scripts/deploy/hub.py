"""A Hugging Face hub with one model: as much of it as `hf download` asks for."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections import Counter

COMMIT = hashlib.sha1(b"pie").hexdigest()


@contextlib.contextmanager
def serve(folder):
    """The folder as pie/NAME; yields the URL, and what was asked: tokens, and how often each file was sent."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    asked = {"tokens": set(), "bytes": Counter()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body, code=200, **headers):
            self.send_response(code)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            asked["tokens"].add(self.headers.get("Authorization"))
            path = self.path.split("?")[0]
            if "/resolve/" in path:
                name = path.split("/")[-1]
                if name not in files:
                    return self.answer(b"", 404, X_Error_Code="EntryNotFound")
                if self.command == "GET":
                    asked["bytes"][name] += 1
                etag = hashlib.sha256(files[name]).hexdigest()
                return self.answer(
                    files[name], ETag=f'"{etag}"', X_Repo_Commit=COMMIT, Content_Type="application/octet-stream", Accept_Ranges="bytes"
                )
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()} for name, content in files.items()
                ]
                return self.answer(json.dumps(tree).encode(), Content_Type="application/json")
            if path.startswith("/api/models/"):
                model = {
                    "id": f"pie/{folder.name}",
                    "modelId": f"pie/{folder.name}",
                    "sha": COMMIT,
                    "siblings": siblings,
                    "private": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "gated": False,
                    "disabled": False,
                }
                return self.answer(json.dumps(model).encode(), Content_Type="application/json")
            return self.answer(b"", 404)

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
