"""Models that are named by a place on a hub: fetched from one of our own, with every fault that a hub, a network and a disk have."""

import http.server
import json
import os
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from pool import Pool, binary, environment, until
from secrets_of import Authority
from stubs import ROOT

sys.path.insert(0, str(ROOT / "scripts/deploy"))
sys.path.insert(0, str(ROOT / "scripts/models"))
import fetch  # noqa: E402
from hub import Faults, Hub  # noqa: E402

DEADLINE = 60.0
SHIPPED = {path.name: path.read_bytes() for path in (ROOT / "models/pie-coder").iterdir() if path.suffix in (".json", ".safetensors", ".md")}
BESIDE = {"README.md": b"# tiny\n", "pytorch_model.bin": b"never asked for"}
GGUF = bytes(range(256)) * 1200  # 300 KiB of no model: it is fetched, not loaded
FILE = {"tiny.gguf": GGUF, "other.gguf": b"other", "big-00001-of-00002.gguf": b"half"}
TOKEN = "hf_secret0123456789"


@pytest.fixture
def home(tmp_path):
    """A cache of the test's own."""
    return tmp_path / "cache"


@pytest.fixture
def hub():
    """Starts hubs."""
    started = []

    def start(files=FILE, repository="acme/tiny", tls=None, **faults):
        started.append(Hub(repository, files, Faults(**faults), tls))
        return started[-1]

    yield start
    for one in started:
        one.__exit__()


def settings(home, hub, **more):
    kept = {name: value for name, value in environment(home).items() if name not in ("PIE_MODEL", "HF_TOKEN") and "proxy" not in name.lower()}
    return kept | {"HF_ENDPOINT": hub if isinstance(hub, str) else hub.url} | more


def start(home, hub, *arguments, **more):
    return subprocess.Popen([str(binary()), *arguments], env=settings(home, hub, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pie(home, hub, *arguments, ends_with=0, **more):
    """What it says on standard output, or, where it fails, on standard error."""
    process = start(home, hub, *arguments, **more)
    out, error = process.communicate(timeout=DEADLINE)
    assert process.returncode == ends_with, f"{arguments}: {process.returncode}\n{out}\n{error}"
    assert TOKEN not in out + error, "the token is a secret"
    return out if ends_with == 0 else error


def fetched(home, hub, name="hf:acme/tiny/tiny.gguf", **more) -> Path:
    return Path(pie(home, hub, "model", "fetch", name, **more).strip())


def listed(home, hub, *flags, ends_with=0):
    process = start(home, hub, "model", "list", "--json", *flags)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == ends_with, out
    return json.loads(out)


def parts(home):
    return sorted(home.rglob("*.part"))


def test_a_pool_serves_a_model_from_a_hub(home, hub, tmp_path):
    one = hub(SHIPPED | BESIDE, store=True)
    flags = ["--model", "hf:acme/tiny", "--hub-endpoint", one.url]
    running = Pool(home, *flags, world_size=2)
    try:
        source = tmp_path / "a.py"
        source.write_text("import os\n\ndef main():\n")
        pie(home, one, "ctl", "--pool", running.address, "open", str(source))
        text = pie(home, one, "ctl", "--pool", running.address, "complete", str(source), "--tokens", "8")
        assert text.strip()
        assert '"tiny"' in pie(home, one, "ctl", "--pool", running.address, "pool", "--json"), "the repository's name is the model's"
        running.stop()
    finally:
        running.end()
    asked = {request.file for request in one.log if "/resolve/" in request.path}
    assert asked == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}, "what the model needs, and no more"
    assert one.sent() == sum(len(SHIPPED[name]) for name in asked), "each byte once"

    # The next one asks nobody: with the hub gone, and offline.
    one.__exit__()
    for more in ([], ["--offline"]):
        again = Pool(home, *flags, *more, world_size=1)
        again.stop()


def test_one_word_is_enough(home, hub, tmp_path):
    """A model that people use, by its short name, over a connection that is cut."""
    names = {entry["name"]: entry["place"] for entry in json.loads(pie(home, "http://127.0.0.1:1", "model", "list", "--names", "--json"))}
    owner, name, file = names["smollm2-135m"].removeprefix("hf:").split("/")
    content = fetch.fetch("smollm2-135m").read_bytes()
    one = hub({file: content}, f"{owner}/{name}", store=True, cuts={file: [len(content) // 2]})
    running = Pool(home, "--model", "smollm2-135m", "--hub-endpoint", one.url, "--kv-memory", "64MiB", world_size=1)
    try:
        source = tmp_path / "a.py"
        source.write_text('def add(a, b):\n    """Returns the sum of a and b."""\n    return')
        pie(home, one, "ctl", "--pool", running.address, "open", str(source))
        assert pie(home, one, "ctl", "--pool", running.address, "complete", str(source), "--tokens", "3") == " a + b"
        running.stop()
    finally:
        running.end()
    assert one.sent(file) == len(content)


def test_what_was_fetched_is_what_the_hub_has(home, hub):
    one = hub()
    path = fetched(home, one)
    assert path.read_bytes() == GGUF and path.name == "tiny.gguf" and parts(home) == []
    manifest = json.loads((path.parents[2] / "manifest.json").read_text())
    assert (manifest["place"], manifest["commit"]) == ("hf:acme/tiny/tiny.gguf", one.commit)
    # A second fetch looks whether it is the newest, and fetches nothing.
    before = one.sent()
    assert fetched(home, one) == path and one.sent() == before
    # A new commit with the file changed and another one the same: only what changed comes.
    one.files["tiny.gguf"], one.commit = GGUF[::-1], "b" * 40
    assert fetched(home, one).read_bytes() == GGUF[::-1]
    assert json.loads((path.parents[2] / "manifest.json").read_text())["commit"] == "b" * 40


def test_a_sharded_folder_and_a_revision(home, hub):
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 5000 for n in (1, 2)}
    index = {"weight_map": {f"x{n}": name for n, name in enumerate(shards)}}
    one = hub(BESIDE | shards | {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()})
    path = fetched(home, one, "hf:acme/tiny@v1")
    assert path.name == "tiny" and {file.name for file in path.iterdir()} == {"config.json", "model.safetensors.index.json", *shards}
    assert [(one["place"], one["state"]) for one in listed(home, one)] == [("hf:acme/tiny@v1", "whole")]


CUT = [
    ("once, with ranges", {"cuts": {"tiny.gguf": [100_000]}}, [None, "bytes=100000-"], len(GGUF)),
    ("three times", {"cuts": {"tiny.gguf": [50_000, 60_000, 0]}}, [None, "bytes=50000-", "bytes=110000-", "bytes=110000-"], len(GGUF)),
    ("in a store", {"cuts": {"tiny.gguf": [100_000]}, "store": True}, [None, "bytes=100000-"], len(GGUF)),
    ("where parts cannot be had", {"cuts": {"tiny.gguf": [100_000]}, "ranges": False}, [None, "bytes=100000-"], len(GGUF) + 100_000),
]


@pytest.mark.parametrize(("faults", "ranges", "sent"), [case[1:] for case in CUT], ids=[case[0] for case in CUT])
def test_a_connection_that_is_cut_is_gone_on_with(home, hub, faults, ranges, sent):
    one = hub(**faults)
    assert fetched(home, one).read_bytes() == GGUF
    last = "store" if one.faults.store else "hub"
    assert [request.range for request in one.requests("tiny.gguf") if request.by == last] == ranges
    assert one.sent("tiny.gguf") == sent, "bytes that came are not fetched again"


def test_a_connection_that_is_always_cut_ends_and_keeps_what_came(home, hub):
    one = hub(cuts={"tiny.gguf": [200_000, 0, 0, 0, 0]})
    said = pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1)
    assert "(HUB_CUT)" in said and "200000" in said, said
    assert [part.stat().st_size for part in parts(home)] == [200_000]
    assert [(model["state"], model["bytes"]) for model in listed(home, one)] == [("begun", 200_000)]
    assert fetched(home, one).read_bytes() == GGUF and one.sent("tiny.gguf") == len(GGUF) and parts(home) == []


def test_files_that_are_whole_are_not_fetched_again_when_another_one_fails(home, hub):
    shards = {f"model-0000{n}-of-00003.safetensors": bytes([n]) * 50_000 for n in (1, 2, 3)}
    one = hub(shards | {"config.json": b"{}", "model.safetensors.index.json": b"{}"}, cuts={"model-00002-of-00003.safetensors": [10_000, 0, 0, 0, 0]})
    assert "(HUB_CUT)" in pie(home, one, "model", "fetch", "hf:acme/tiny", ends_with=1)
    assert list(home.rglob("config.json")) == [], "no file is the model's before all are"
    path = fetched(home, one, "hf:acme/tiny")
    assert all((path / name).read_bytes() == content for name, content in one.files.items())
    assert all(one.sent(name) == len(content) for name, content in one.files.items()) and parts(home) == []


def test_ctrl_c_in_the_middle(home, hub):
    one = hub(speed=60_000)
    process = start(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf")
    until("something came", lambda: any(part.stat().st_size for part in parts(home)))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    (part,) = parts(home)
    kept = part.stat().st_size
    assert 0 < kept < len(GGUF)
    one.faults.speed = None
    assert fetched(home, one).read_bytes() == GGUF
    assert one.requests("tiny.gguf")[-1].range == f"bytes={kept}-" and one.requests("tiny.gguf")[-1].sent == len(GGUF) - kept


def test_a_part_that_was_spoilt_is_fetched_anew(home, hub):
    one = hub(cuts={"tiny.gguf": [100_000, 0, 0, 0, 0]})
    pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1)
    (part,) = parts(home)
    part.write_bytes(bytes(100_000))
    assert fetched(home, one).read_bytes() == GGUF


WRONG = [
    ("another byte", {"content": {"tiny.gguf": GGUF[:-1] + b"x"}}, "HUB_WRONG_BYTES", "sha256"),
    ("more", {"content": {"tiny.gguf": GGUF + b"x"}}, "HUB_WRONG_BYTES", "more comes of tiny.gguf"),
    ("nothing", {"content": {"tiny.gguf": b""}}, "HUB_CUT", "tiny.gguf ended after 0"),
    ("a size that no disk has", {"sizes": {"tiny.gguf": 1 << 59}}, "HUB_DISK", "pie model remove"),
    ("too many requests", {"refusals": [(429, {"Retry_After": "3600"})]}, "HUB_BUSY", "3600 s"),
    ("a failure that stays", {"refusals": [(500, {})] * 5}, "HUB_BUSY", "500"),
    ("a licence", {"token": TOKEN}, "HUB_DENIED", "--hub-token-file"),
    ("a private repository", {"token": TOKEN, "gated": False}, "HUB_NOT_FOUND", "HF_TOKEN"),
]


@pytest.mark.parametrize(("faults", "code", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_goes_wrong_is_named(home, hub, faults, code, words):
    one = hub(**faults)
    said = pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1)
    assert f"({code})" in said and words in said and "tiny" in said, said
    assert listed(home, one) == [] and list(home.rglob("*tiny*")) == [], "nothing came, and nothing is left"
    assert code in pie(home, one, "explain", code)
    # And is over when its cause is.
    one.faults = Faults()
    assert fetched(home, one).read_bytes() == GGUF


PASSING = [
    ("429 with a pause", [(429, {"Retry_After": "1"})]),
    ("503 twice", [(503, {}), (503, {})]),
]


@pytest.mark.parametrize("refusals", [case[1] for case in PASSING], ids=[case[0] for case in PASSING])
def test_what_passes_is_waited_for(home, hub, refusals):
    one = hub(refusals=list(refusals))
    assert fetched(home, one).read_bytes() == GGUF


UNKNOWN = [
    ("hf:acme/other", "HUB_NOT_FOUND", "acme/other"),
    ("hf:acme/tiny@nowhere", "HUB_NOT_FOUND", "nowhere"),
    ("hf:acme/tiny/none.gguf", "HUB_NOT_FOUND", "hf:acme/tiny/tiny.gguf, hf:acme/tiny/other.gguf"),
    ("hf:acme/tiny", "HUB_NO_MODEL", "hf:acme/tiny/tiny.gguf, hf:acme/tiny/other.gguf"),
    ("hf:acme/tiny/big-00001-of-00002.gguf", "HUB_NAME", "split"),
    ("hf:acme/../etc", "HUB_NAME", ".."),
    ("qwen2.5-coder-8b", "HUB_NAME", "did you mean qwen2.5-coder-"),
]


@pytest.mark.parametrize(("name", "code", "words"), UNKNOWN, ids=[case[0] for case in UNKNOWN])
@pytest.mark.parametrize("command", [["model", "fetch"], ["eval", "--model"]], ids=["fetch", "--model"])
def test_names_of_nothing_say_what_there_is(home, hub, command, name, code, words):
    one = hub()
    said = pie(home, one, *command, name, ends_with=1)
    assert f"({code})" in said and words in said, said


def test_the_token_goes_to_the_hub_alone(home, hub, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    for number, (flags, more) in enumerate([([], {"HF_TOKEN": TOKEN}), (["--hub-token-file", str(file)], {})]):
        one = hub(token=TOKEN, store=True)
        cache = home / str(number)
        pie(cache, one, "model", *flags, "fetch", "hf:acme/tiny/tiny.gguf", RUST_LOG="trace", PIE_LOG="trace", **more)
        by = {name: {request.token for request in one.log if request.by == name} for name in ("hub", "store")}
        assert by == {"hub": {f"Bearer {TOKEN}"}, "store": {None}}
        assert all(TOKEN.encode() not in path.read_bytes() for path in cache.rglob("*") if path.is_file())
    one = hub(token="another")
    said = pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", HF_TOKEN=TOKEN, ends_with=1)
    assert "(HUB_DENIED)" in said and "the token that was given is wrong" in said, said


def test_offline(home, hub):
    one = hub()
    for more in ([["eval", "--offline"], {}], [["eval"], {"PIE_OFFLINE": "1"}]):
        said = pie(home, one, *more[0], "--model", "hf:acme/tiny/tiny.gguf", ends_with=1, **more[1])
        assert "(HUB_OFFLINE)" in said and "pie model fetch hf:acme/tiny/tiny.gguf" in said and str(home) in said, said
    assert one.log == [] and list(home.rglob("*.gguf")) == [], "nobody was asked, and nothing made"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = pie(home, nobody, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1)
    assert "(HUB_UNREACHABLE)" in said and "copy the folder" in said and str(home) in said, said
    # A copied folder is a model, wherever it was fetched: times differ, sums do not.
    elsewhere = home / "elsewhere"
    path = fetched(elsewhere, one)
    os.makedirs(home / "pie-pool/hub", exist_ok=True)
    subprocess.run(["cp", "-rT", str(path.parents[2]), str(home / "pie-pool/hub" / path.parents[2].name)], check=True)
    assert [model["state"] for model in listed(home, nobody)] == ["whole"]


def test_a_file_that_is_not_as_it_came_is_found_and_mended(home, hub):
    one = hub(SHIPPED)
    folder = fetched(home, one, "hf:acme/tiny")
    weights = folder / "model.safetensors"
    damages = {
        "cut off": lambda: os.truncate(weights, 5000),
        "removed": weights.unlink,
        "noise": lambda: weights.write_bytes(bytes(len(SHIPPED["model.safetensors"]))),
    }
    for how, damage in damages.items():
        damage()
        said = pie(home, one, "eval", "--offline", "--model", "hf:acme/tiny", ends_with=1)
        assert "(HUB_OFFLINE)" in said and "model.safetensors" in said, (how, said)
        (model,) = listed(home, one, "--check", ends_with=1)
        assert model["state"] == "broken" and "model.safetensors" in model["broken"][0], how
        before = {name: one.sent(name) for name in SHIPPED}
        # Whoever uses it mends it.
        said = pie(home, one, "eval", "--model", "hf:acme/tiny", "--data", str(home / "nothing"), ends_with=1)
        assert "not as it came" in said, said
        assert weights.read_bytes() == SHIPPED["model.safetensors"], how
        after = {name: one.sent(name) - before[name] for name in SHIPPED}
        assert after == {name: len(content) if name == "model.safetensors" else 0 for name, content in SHIPPED.items()}, "only that file"
    # What times do not tell, a full look does.
    kept = weights.stat()
    weights.write_bytes(bytes(len(SHIPPED["model.safetensors"])))
    os.utime(weights, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert listed(home, one)[0]["state"] == "whole" and listed(home, one, "--check", ends_with=1)[0]["state"] == "broken"


def test_two_at_once_fetch_it_once(home, hub):
    one = hub(SHIPPED, speed=10_000_000)
    flags = ["eval", "--model", "hf:acme/tiny", "--data", str(home / "nothing")]
    both = [start(home, one, *flags) for _ in range(3)]
    said = [process.communicate(timeout=DEADLINE)[1] for process in both]
    assert all("HUB_" not in text for text in said), said
    assert sum("waiting for it" in text for text in said) == 2, said
    assert one.sent("model.safetensors") == len(SHIPPED["model.safetensors"]) and parts(home) == []


def test_models_are_listed_and_removed(home, hub):
    one = hub()
    path = fetched(home, one)
    (model,) = listed(home, one)
    assert (model["place"], model["state"], model["bytes"]) == ("hf:acme/tiny/tiny.gguf", "whole", len(GGUF))
    assert "hf:acme/tiny/tiny.gguf" in pie(home, one, "model", "list") and "qwen2.5-coder-0.5b" in pie(home, one, "model", "list", "--names")
    pie(home, one, "model", "remove", "hf:acme/tiny/tiny.gguf")
    assert listed(home, one) == [] and not path.parents[2].exists()
    assert "(HUB_NOT_FOUND)" in pie(home, one, "model", "remove", "hf:acme/tiny/tiny.gguf", ends_with=1)


def test_what_is_there_under_a_path_is_that_path(home, hub, tmp_path):
    """A folder is not asked of a hub, whatever its name means there; and what is neither says what it might be."""
    one = hub()
    (tmp_path / "smollm2-135m").mkdir()
    for name, words in ((str(tmp_path / "smollm2-135m"), "is no model"), ("nowhere/x", "is no model"), ("nowhere", "no short name")):
        assert words in pie(home, one, "eval", "--model", name, ends_with=1)
    assert one.log == []


def tunnel(one, other):
    """Hands on what either says, until one has ended or nobody says anything."""
    pair = {one: other, other: one}
    while ready := select.select(list(pair), [], [], 10)[0]:
        for end in ready:
            piece = end.recv(1 << 16)
            if not piece:
                return
            pair[end].sendall(piece)


class Socks(socketserver.BaseRequestHandler):
    """SOCKS 5 to names and IPv4 addresses, for everybody."""

    def handle(self):
        methods = self.request.recv(2)[1]
        self.request.recv(methods)
        self.request.sendall(b"\x05\x00")
        kind = self.request.recv(4)[3]
        host = socket.inet_ntoa(self.request.recv(4)) if kind == 1 else self.request.recv(self.request.recv(1)[0]).decode()
        port = int.from_bytes(self.request.recv(2), "big")
        self.server.asked.append((host, port))
        with socket.create_connection((host, port)) as other:
            self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
            tunnel(self.request, other)


class Proxy:
    """A proxy that tunnels, for those who say who they are."""

    def __init__(self, user):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                asked.append((urllib.parse.urlsplit(self.path).netloc, self.headers.get("Proxy-Authorization")))
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.path) as answer:
                    body = answer.read()
                    self.send_response(answer.status)
                    for name in ("ETag", "Link"):
                        self.send_header(name, answer.headers.get(name, ""))
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def do_CONNECT(self):
                asked.append((self.path, self.headers.get("Proxy-Authorization")))
                if self.headers.get("Proxy-Authorization") != user:
                    return self.send_error(407)
                host, port = self.path.rsplit(":", 1)
                with socket.create_connection((host, int(port))) as other:
                    self.send_response(200)
                    self.end_headers()
                    tunnel(self.connection, other)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_port


def test_tls_and_a_proxy(home, hub, tmp_path):
    authority = Authority(tmp_path, "authority")
    files = authority.files("127.0.0.1")
    (tmp_path / "chain.pem").write_bytes(files["tls.crt"] + files["tls.key"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    one = hub(tls=context, store=True)
    said = pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1)
    assert "(HUB_UNREACHABLE)" in said and "SSL_CERT_FILE" in said, "an authority that nobody has heard of"
    trusted = {"SSL_CERT_FILE": str(authority.file)}
    assert fetched(home / "straight", one, **trusted).read_bytes() == GGUF
    # "me:open sesame" in base64, as proxies have it.
    proxy = Proxy("Basic bWU6b3BlbiBzZXNhbWU=")
    through = trusted | {"HTTPS_PROXY": f"http://me:open%20sesame@127.0.0.1:{proxy.port}"}
    assert fetched(home / "through", one, **through).read_bytes() == GGUF
    ports = {path.rsplit(":", 1)[1] for path, _ in proxy.asked}
    assert ports == {url.rsplit(":", 1)[1] for url in (one.url, one.store_url)}
    before = len(proxy.asked)
    assert fetched(home / "around", one, **through, NO_PROXY="127.0.0.1").read_bytes() == GGUF and len(proxy.asked) == before
    said = pie(home, one, "model", "fetch", "hf:acme/tiny/tiny.gguf", ends_with=1, **(through | {"HTTPS_PROXY": f"http://me:wrong@127.0.0.1:{proxy.port}"}))
    assert "(HUB_UNREACHABLE)" in said and f"127.0.0.1:{proxy.port}" in said and "wrong" not in said, said
    proxy.server.shutdown()


def test_proxies_of_other_kinds(home, hub):
    """What is not secret goes to a proxy by its whole address; SOCKS carries anything."""
    one = hub()
    proxy = Proxy("Basic bWU6eA==")
    assert fetched(home / "plain", one, HTTP_PROXY=f"http://me:x@127.0.0.1:{proxy.port}").read_bytes() == GGUF
    assert set(proxy.asked) == {(one.url.removeprefix("http://"), "Basic bWU6eA==")}
    proxy.server.shutdown()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Socks) as server:
        server.asked, server.daemon_threads = [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert fetched(home / "socks", one, ALL_PROXY=f"socks5://127.0.0.1:{server.server_address[1]}").read_bytes() == GGUF
        server.shutdown()
    assert {port for _, port in server.asked} == {int(one.url.rsplit(":", 1)[1])}
