"""Whoever holds a lease takes it again: etcd frozen for longer than all leases, and etcd without its data."""

import signal
import urllib.error
import urllib.request

import grpc
import pytest
from client import at_bytes, connect
from cluster import Cluster
from etcd import Etcd, free_port
from pie.v1 import pie_pb2 as pb
from pie.v1 import pie_pb2_grpc
from pool import until

TEXT = "fn main() {}\n"


@pytest.fixture
def etcd(tmp_path):
    server = Etcd(tmp_path)
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.end()


def ready(port: int) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_pool_comes_back_with_its_documents_when_etcd_does(cache, etcd, tmp_path):
    port = free_port()
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0"], worker_flags=("--metrics-listen", f"127.0.0.1:{port}"))
    try:
        pool = pie_pb2_grpc.PoolStub(connect(cluster.addresses[0]))
        revision = pool.OpenSession(pb.OpenSessionRequest(session="s", text=TEXT), timeout=20).revision
        text = TEXT
        assert ready(port) == (200, "ready\n")

        def edit() -> bool:
            nonlocal revision, text
            request = pb.ApplyEditsRequest(session="s", base_revision=revision)
            request.text.edits.append(at_bytes(0, 0, "// x\n"))
            revision = pool.ApplyEdits(request, timeout=10).revision
            text = "// x\n" + text
            return True

        def well() -> bool:
            try:
                edit()
                list(pool.Complete(pb.CompleteRequest(session="s", max_tokens=2), timeout=10))
            except grpc.RpcError:
                return False
            return ready(port)[0] == 200

        def told() -> bool:
            code, why = ready(port)
            return code == 503 and "registration" in why

        etcd.process.send_signal(signal.SIGSTOP)
        until("the worker says that it may be registered no longer", told, 20.0)
        etcd.process.send_signal(signal.SIGCONT)
        until("all is well after etcd was frozen", well, 20.0)

        etcd.empty()
        written = {"/pie/groups/g0/owner", "/pie/groups/g0/ranks/00000", "/pie/sessions//s"}
        until("everybody has told again what they are", lambda: set(etcd.keys("/pie/")) >= written, 20.0)
        until("all is well after etcd lost its data", well, 20.0)
        held = pool.GetSession(pb.GetSessionRequest(session="s", content=True), timeout=10)
        assert (held.text, held.session.revision) == (text, revision), "no edit that was acknowledged is missing"
    finally:
        cluster.end()
