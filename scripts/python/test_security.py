"""Who gets in: TLS on both planes, names that certificates must carry, tokens with quotas, and secrets that are replaced under
running processes. Certificates are made by trustme, clients are grpcio and Python's own ssl."""

import re
import socket
import ssl
import subprocess
import time
from types import SimpleNamespace

import grpc
import pytest
from client import Client, at_bytes, refused
from cluster import Cluster
from etcd import free_port
from grpc import StatusCode as Code
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from observe import Process, Scrape, ask, health
from pool import Pool, binary, environment, until
from secrets_of import CERTIFICATE, KEY, Authority, Secret, channel, make_token, shown, takes
from test_etcd import etcd  # noqa: F401  (a fixture)

LOOPBACK = "127.0.0.1"
READ_AGAIN = 5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def authority(folder):
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def stranger(folder):
    return Authority(folder, "stranger")


@pytest.fixture(scope="module")
def secured(folder, authority, cache):
    """Two ranks and a router with TLS on both sides of both planes."""
    made = SimpleNamespace(worker=authority.issue("pie-worker"), router=authority.issue("pie-router"))
    made.public, made.client = authority.issue(LOOPBACK), authority.issue("editor")
    made.controls, made.metrics = [[f"{LOOPBACK}:{free_port()}" for _ in range(2)] for _ in range(2)]
    processes = []
    try:
        for rank in range(2):
            place = ["--rank", str(rank), "--world-size", "2", "--listen", made.controls[rank]]
            flags = [*place, "--metrics-listen", made.metrics[rank], *made.worker.internal()]
            processes.append(Process(folder, cache, f"rank-{rank}", "worker", *flags))
        ranks = ",".join(f"https://{control}" for control in made.controls)
        flags = ["--world-size", "2", "--listen", f"{LOOPBACK}:0", "--metrics-listen", f"{LOOPBACK}:0", "--ranks", ranks]
        flags += [*made.router.internal(), *made.public.public(), "--tls-client-ca", made.public.authority]
        processes.append(Process(folder, cache, "router", "router", *flags))
        made.process = processes[-1]
        facts = until("the router listens", made.process.facts, deadline=30.0)
        made.address, made.scrape = facts["address"], lambda: Scrape(facts["metrics"])
        until("the group is formed", lambda: ask(facts["metrics"], "/readyz")[0] == 200, deadline=60.0)
        yield made
    finally:
        for process in processes:
            process.end()


def ctl(cache, *arguments: str) -> subprocess.CompletedProcess:
    command = [str(binary()), "ctl", *arguments, "pool"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment(cache))


def test_both_planes_take_only_whom_they_know(secured, authority, stranger, cache):
    held = [socket.create_connection(secured.address.rsplit(":", 1)) for _ in range(20)]
    begun = time.monotonic()
    with channel(secured.address, authority.pem, secured.client) as open_channel:
        client = Client(open_channel)
        client.open("fn main() {}", session="mine")
        assert len(client.complete("mine", max_tokens=4).tokens) == 4
        until("health says so, which is looked at again and again", lambda: health(open_channel) == "SERVING")
        client.close_all()
    assert time.monotonic() - begun < 4.0, "clients that do not shake hands hold up those that do"

    known = (secured.address, authority.file, LOOPBACK)
    assert takes(*known, secured.client)
    assert not takes(*known), "no certificate"
    assert not takes(*known, stranger.issue("editor")), "another authority's"
    assert not takes(*known, authority.issue("editor", expired=True)), "an expired one"
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(secured.address, stranger.file, LOOPBACK, secured.client)
    with socket.create_connection(secured.address.rsplit(":", 1), timeout=5) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answer = plain.recv(100)
        assert not answer or answer[0] == 0x15, "a TLS alert, or nothing"

    for rank, control in enumerate(secured.controls):
        assert takes(control, authority.file, "pie-worker", secured.router)
        assert not takes(control, authority.file, "pie-worker"), "no certificate"
        assert not takes(control, authority.file, "pie-worker", secured.worker), "another role's"
        assert not takes(control, authority.file, "pie-worker", secured.client), "a client's of the same authority"
        assert not takes(control, authority.file, "pie-worker", stranger.issue("pie-router")), "another authority's"
        count = lambda: Scrape(secured.metrics[rank])("pie_connections_refused_total", plane="internal", cause="handshake")  # noqa: B023, E731
        until("all four are counted", lambda: count() == 4)

    flags = ["--pool", f"https://{secured.address}", "--ca", str(authority.file)]
    whole = [*flags, "--client-cert", secured.client.certificate, "--client-key", secured.client.key]
    answered = ctl(cache, *whole)
    assert answered.returncode == 0 and "g0" in answered.stdout, answered.stderr
    for given, says in (
        (flags, "ertificate"),
        (["--pool", f"https://{secured.address}"], "--ca"),
        (["--pool", f"http://{secured.address}", *whole[2:]], "https://"),
        ([*whole[:3], str(stranger.file), *whole[4:]], "UnknownIssuer"),
    ):
        answered = ctl(cache, *given)
        assert answered.returncode == 1 and says in answered.stderr, (given, answered.stderr)

    for stream in held:
        stream.settimeout(max(0.1, begun + 7.0 - time.monotonic()))
        assert stream.recv(1) == b"", "who does not shake hands is disconnected"
        stream.close()
    assert secured.scrape()("pie_connections_refused_total", plane="public", cause="handshake") >= 24


def test_certificates_are_replaced_while_all_runs(secured, authority, stranger, folder):
    secret, router, public = secured.worker, secured.router, secured.public
    with channel(secured.address, authority.pem, secured.client) as before:
        client = Client(before)
        client.open("let a = 1;", session="kept")

        # The public identity and the authority of its clients move to another authority: the old clients are out.
        public.put(**stranger.files(LOOPBACK))
        newcomer = stranger.issue("editor")
        until("a new certificate", lambda: takes(secured.address, stranger.file, LOOPBACK, newcomer), READ_AGAIN)
        assert shown(secured.address, stranger.file, LOOPBACK, newcomer) == public.read(CERTIFICATE)
        assert not takes(secured.address, stranger.file, LOOPBACK, secured.client), "its authority is gone"
        assert client.get("kept").text == "let a = 1;", "connections that are there stay"

        # Half an identity is not taken, and is told.
        public.put(**{KEY: stranger.files(LOOPBACK)[KEY]})
        refused_so_far = lambda: secured.scrape()("pie_reloads_total", what="certificates", outcome="refused")  # noqa: E731
        until("it is refused", lambda: refused_so_far() == 1, READ_AGAIN)
        assert takes(secured.address, stranger.file, LOOPBACK, newcomer), "the old identity holds"
        assert f"--tls-key {public.key}: the key does not belong" in secured.process.output()
        public.put(**authority.files(LOOPBACK))
        until("the first authority is back", lambda: takes(secured.address, authority.file, LOOPBACK, secured.client), READ_AGAIN)
        assert refused_so_far() == 1 and secured.scrape()("pie_reloads_total", outcome="taken") == 2

        # The ranks' identity, under the same authority.
        secret.put(**authority.files("pie-worker"))
        new = secret.read(CERTIFICATE)
        until("a rank's new certificate", lambda: shown(secured.controls[0], authority.file, "pie-worker", router) == new, READ_AGAIN)
        assert len(client.complete("kept", max_tokens=4).tokens) == 4
        client.close_all()


def test_a_router_does_not_talk_to_who_is_no_worker(folder, authority, cache):
    control, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    router, impostor = authority.issue("pie-router"), authority.issue("localhost", LOOPBACK)
    started = [Process(folder, cache, "impostor", "worker", "--rank", "0", "--world-size", "1", "--listen", control, *impostor.internal())]
    flags = ["--world-size", "1", "--listen", f"{LOOPBACK}:0", "--metrics-listen", metrics, "--ranks", f"https://{control}"]
    try:
        until("the rank listens", lambda: takes(control, authority.file, LOOPBACK, router), deadline=30.0)
        started.append(Process(folder, cache, "careful", "router", *flags, *router.internal()))
        why = lambda: ask(metrics, "/readyz")[1] if started[1].facts() else ""  # noqa: E731
        until("it says why", lambda: "rank 0" in why() and 'not valid for name "pie-worker"' in why(), deadline=15.0)
    finally:
        for process in started:
            process.end()


SERVE = ["router", "--world-size", "1", "--ranks", "http://127.0.0.1:1"]
WRONG_STARTS = {
    "half of the public identity": ([*SERVE, "--tls-cert", "{cert}"], ["--tls-cert is given and --tls-key is not"]),
    "clients' authority alone": ([*SERVE, "--tls-client-ca", "{cert}"], ["--tls-client-ca", "--tls-cert"]),
    "a file that is not there": ([*SERVE, "--tls-cert", "/nowhere", "--tls-key", "{key}"], ["--tls-cert /nowhere", "No such file"]),
    "another certificate's key": ([*SERVE, "--tls-cert", "{cert}", "--tls-key", "{other}"], ["--tls-key {other}", "does not belong"]),
    "a key that is none": ([*SERVE, "--tls-cert", "{cert}", "--tls-key", "{cert}"], ["--tls-key {cert}", "no private key"]),
    "a certificate that is none": ([*SERVE, "--tls-cert", "{key}", "--tls-key", "{key}"], ["--tls-cert {key}", "no certificate"]),
    "two thirds of the internal identity": (
        ["worker", "--rank", "0", "--internal-cert", "{cert}", "--internal-key", "{key}"],
        ["--internal-ca is not"],
    ),
    "a worker's wrong key": (
        ["worker", "--rank", "0", "--internal-cert", "{cert}", "--internal-key", "{other}", "--internal-ca", "{cert}"],
        ["--internal-key {other}", "does not belong"],
    ),
    "tokens in clear": ([*SERVE, "--listen", "0.0.0.0:0", "--tokens", "{tokens}"], ["--tokens {tokens}", "--insecure-tokens"]),
    "no tokens": ([*SERVE, "--tokens", "{empty}"], ["--tokens {empty}", "nobody could call"]),
}


@pytest.mark.parametrize("case", WRONG_STARTS)
def test_what_is_wrong_is_said_at_the_start(case, folder, authority, cache):
    one, other = authority.issue("localhost"), authority.issue("localhost")
    tokens, empty = folder / "start.toml", folder / "empty.toml"
    tokens.write_text(make_token("--tenant", "acme")[1])
    empty.write_text("")
    paths = {"cert": one.certificate, "key": one.key, "other": other.key, "tokens": tokens, "empty": empty}
    arguments, says = WRONG_STARTS[case]
    command = [str(binary()), *(argument.format(**paths) for argument in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment(cache))
    assert ended.returncode == 1, ended
    for text in says:
        assert text.format(**paths) in ended.stderr, ended.stderr


@pytest.fixture(scope="module")
def guarded(folder, authority, cache):
    """A pool that asks for tokens over TLS, and takes clients without certificates."""
    made = SimpleNamespace(public=authority.issue(LOOPBACK), tokens=Secret(folder / "tokens"))
    for name, flags in {
        "acme": ["--tenant", "acme"],
        "next": ["--tenant", "acme", "--expires", "1h"],
        "small": ["--tenant", "small"],
        "admin": ["--tenant", "ops", "--admin"],
        "late": ["--tenant", "acme", "--expires", "2020-01-01T00:00:00Z"],
    }.items():
        setattr(made, name, make_token(*flags))
    made.write = lambda *tokens, more="": made.tokens.put(tokens=("\n".join(entry for _, entry in tokens) + more).encode())
    made.write(made.acme, made.small, made.admin, made.late, more="\n[tenant.acme]\nsessions = 2\n")
    flags = ["--metrics-listen", f"{LOOPBACK}:0", "--tenant-sessions", "1", *made.public.public()]
    made.pool = Pool(cache, *flags, "--tokens", made.tokens.path("tokens"), world_size=1)
    made.open = lambda token=None: channel(made.pool.address, authority.pem, token=token)
    try:
        yield made
    finally:
        made.pool.end()


def with_metadata(guarded, *metadata: tuple[str, str], call="pie.v1.Pool/DescribePool"):
    """A call with nothing but this metadata."""
    with guarded.open() as open_channel:
        return refused(open_channel.unary_unary(f"/{call}"), b"", metadata=metadata, timeout=10)


def test_calls_need_a_token(guarded, folder, cache, authority):
    token = guarded.acme[0]
    cases = [
        ([], "NO_TOKEN"),
        ([("authorization", f"Basic {token}")], "NO_TOKEN"),
        ([("authorization", "Bearer ")], "NO_TOKEN"),
        ([("pie-tenant", "acme")], "NO_TOKEN"),
        ([("authorization", f"Bearer {token}x")], "BAD_TOKEN"),
        ([("authorization", f"Bearer {token[:-1]}")], "BAD_TOKEN"),
        ([("authorization", f"Bearer {guarded.late[0]}")], "TOKEN_EXPIRED"),
    ]
    for metadata, reason in cases:
        found = with_metadata(guarded, *metadata)
        assert (found.code, found.reason) == (Code.UNAUTHENTICATED, reason), (metadata, found)
        assert token not in found.message
    scrape = Scrape(guarded.pool.metrics)
    assert scrape("pie_errors_total", code="UNAUTHENTICATED", reason="NO_TOKEN") == 4
    assert scrape("pie_errors_total", reason="BAD_TOKEN") == 2

    bearer = [("authorization", f"bearer {token}")]
    found = with_metadata(guarded, *bearer, call="pie.v1.Admin/Nothing")
    assert (found.code, found.reason) == (Code.PERMISSION_DENIED, "NOT_ADMIN"), found
    admin = [("authorization", f"Bearer {guarded.admin[0]}")]
    assert with_metadata(guarded, *admin, call="pie.v1.Admin/Nothing").code == Code.UNIMPLEMENTED
    for reason in ("NO_TOKEN", "BAD_TOKEN", "TOKEN_EXPIRED", "NOT_ADMIN", "TOO_MANY"):
        explained = subprocess.run([binary(), "explain", reason], capture_output=True, text=True, timeout=10)
        assert explained.returncode == 0 and len(explained.stdout) > 80, explained

    with guarded.open() as open_channel:
        assert health(open_channel) == health(open_channel, "pie.v1.Pool") == "SERVING", "probes have no tokens"
        with pytest.raises(grpc.RpcError) as error:
            ProtoReflectionDescriptorDatabase(open_channel).get_services()
        assert error.value.code() == Code.UNAUTHENTICATED
    with guarded.open(token) as open_channel:
        assert "pie.v1.Pool" in ProtoReflectionDescriptorDatabase(open_channel).get_services()

    file = folder / "token"
    file.write_text(f"{token}\n")
    flags = ["--pool", f"https://{guarded.pool.address}", "--ca", str(authority.file)]
    assert ctl(cache, *flags, "--token-file", str(file)).returncode == 0
    without = ctl(cache, *flags)
    assert without.returncode == 1 and "NO_TOKEN" in without.stderr, without.stderr
    assert token not in guarded.pool.output()


def test_tokens_and_quotas_are_replaced_while_the_pool_runs(guarded):
    calls = [guarded.open(token) for token, _ in (guarded.acme, guarded.small, guarded.next)]
    # A token says whose call it is; what the client says of itself does not matter.
    acme, small, following = (Client(each, tenant="somebody") for each in calls)
    sessions = [acme.open("a").session, acme.open("b").session]
    own, of_all = refused(acme.open, "c"), refused(lambda: (small.open("d"), small.open("e")))
    for found, limit in ((own, "2"), (of_all, "1")):
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "TENANT_LIMIT"), found
        assert f"limit is {limit}" in found.message

    assert refused(following.get, sessions[0]).reason == "BAD_TOKEN"
    guarded.write(guarded.acme, guarded.next, guarded.small, more="\n[tenant.acme]\nsessions = 3\n")
    until("the next token holds", lambda: following_gets(following, sessions[0]), READ_AGAIN)
    sessions.append(acme.open("c").session)
    assert refused(following.open, "d").reason == "TENANT_LIMIT", "one tenant, whichever token"

    guarded.write(guarded.next, guarded.small)
    until("the old token is out", lambda: not following_gets(acme, sessions[0]), READ_AGAIN)
    assert refused(acme.get, sessions[0]).reason == "BAD_TOKEN"
    assert following.get(sessions[0]).text == "a", "the sessions are the tenant's"
    assert "limit is 1" in refused(following.open, "d").message, "its own limits are gone with its table"

    guarded.tokens.put(tokens=b"[[token]]\ntenant = 'acme'\nsha256 = 'my secret'\n")
    count = lambda outcome: Scrape(guarded.pool.metrics)("pie_reloads_total", what="tokens", outcome=outcome)  # noqa: E731
    until("the bad file is refused", lambda: count("refused") == 1, READ_AGAIN)
    assert following.get(sessions[0]).text == "a", "the old tokens hold"
    output = guarded.pool.output()
    assert re.search(r"ERROR.*--tokens .*\[\[token\]\] 1 .*64 hexadecimal digits.*still hold", output), output
    assert "my secret" not in output and count("taken") == 2
    for session in sessions:
        following.close(session)
    small.close_all()
    for each in calls:
        each.close()


def following_gets(client: Client, session: str) -> bool:
    try:
        return bool(client.get(session))
    except grpc.RpcError:
        return False


class Bearer(Client):
    """A client with a token in plaintext, and another tenant's name, which does not count."""

    def __init__(self, open_channel: grpc.Channel, token: str):
        super().__init__(open_channel)
        self._metadata = [("authorization", f"Bearer {token}"), ("pie-tenant", "somebody-else")]


def test_routers_pass_calls_on_over_mtls_in_the_name_of_the_token(folder, authority, stranger, cache, etcd):  # noqa: F811
    """What one router owns is reached through the other, by its tenant alone; the port between them is for routers alone."""
    router, worker = authority.issue("pie-router"), authority.issue("pie-worker")
    made = {"acme": make_token("--tenant", "acme"), "other": make_token("--tenant", "other", "--admin")}
    tokens, admin = folder / "routers-tokens.toml", folder / "routers-admin"
    tokens.write_text("".join(entry for _, entry in made.values()))
    admin.write_text(made["other"][0])
    place = folder / "routers"
    place.mkdir()
    flags = (*router.internal(), "--tokens", str(tokens))
    access = ("--token-file", str(admin))
    cluster = Cluster(
        cache, place, etcd.url, ["g0", "g1"], worker_flags=tuple(worker.internal()), router_flags=flags, access=access
    )
    try:
        with grpc.insecure_channel(cluster.addresses[0]) as first, grpc.insecure_channel(cluster.addresses[1]) as second:
            acme = [Bearer(open_channel, made["acme"][0]) for open_channel in (first, second)]
            other = [Bearer(open_channel, made["other"][0]) for open_channel in (first, second)]
            for number in range(4):
                acme[number % 2].open("fn main() {}", session=f"{number}.rs")
            for number in range(4):
                for client in acme:
                    revision = client.get(f"{number}.rs").session.revision
                    assert client.edit(f"{number}.rs", revision, at_bytes(0, 0, "// x\n")).revision == revision + 1
                    assert len(client.complete(f"{number}.rs", max_tokens=3).tokens) == 3
                for client in other:
                    assert refused(client.get, f"{number}.rs").reason == "SESSION_UNKNOWN"
            assert [client.list().sessions for client in other] == [[], []]
            assert [len(client.list().sessions) for client in acme] == [4, 4]
            assert "sessions moved" in cluster.ctl("drain", "g0")
            assert {session.group for session in acme[1].list().sessions} == {"g1"}
        for number in range(2):
            peer = cluster.peer(number)
            assert takes(peer, authority.file, "pie-router", router)
            assert not takes(peer, authority.file, "pie-router"), "no certificate"
            assert not takes(peer, authority.file, "pie-router", worker), "another role's"
            assert not takes(peer, authority.file, "pie-router", stranger.issue("pie-router")), "another authority's"
    finally:
        cluster.end()
