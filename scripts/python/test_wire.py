"""The wire itself: what is compressed, what is no message, what reflection tells, how old a connection gets."""

import socket
import threading
import time

import grpc
import pytest
from client import Client, connect, refusal, refused
from google.protobuf import descriptor_pool
from grpc import StatusCode as Code
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pie.v1 import pie_pb2 as pb

GZIP = grpc.Compression.Gzip
SERVED = {
    "pie.v1.Pool",
    "pie.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
# Of which type each detail of an error may be.
DETAILS = ["google.rpc.Status", "google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.protobuf.Any", "google.protobuf.Duration"]


def raw(channel, method: str, message: bytes, **how):
    call = channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
    return call(message, timeout=20, **how)


def test_requests_may_be_compressed(channel, client):
    text = "fn main() {}\n" * 200
    opened = client.stub.OpenSession(pb.OpenSessionRequest(session="zipped", text=text), timeout=20, compression=GZIP)
    assert opened.session == "zipped" and opened.revision > 0
    assert client.get("zipped").text == text
    raw(channel, "pie.v1.Pool/CloseSession", pb.CloseSessionRequest(session="zipped").SerializeToString(), compression=GZIP)
    assert refused(client.get, "zipped").reason == "SESSION_UNKNOWN"


class Relay:
    """Stands between a client and the pool, and counts what the pool says."""

    def __init__(self, address: str):
        self.said, self.to = 0, address.rsplit(":", 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.to)
            for whose in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=whose, daemon=True).start()

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(1 << 16):
                self.said += len(part) if source.getpeername()[1] == int(self.to[1]) else 0
                sink.sendall(part)
        except OSError:
            pass
        source.close()
        sink.close()

    def heard(self, call) -> int:
        """Bytes that the pool says in a call."""
        before = self.said
        call()
        return self.said - before


@pytest.fixture
def relay(pool):
    relay = Relay(pool.address)
    yield relay
    relay.listener.close()


def test_large_answers_are_compressed_for_who_compresses_and_no_others(client, relay):
    client.open("fn main() {" + " " * 30_000 + "}\n", session="large")
    client.open("let x = 1;\n", session="small")
    with connect(relay.address) as channel:
        far = Client(channel)

        def got(session: str, compression) -> int:
            request = pb.GetSessionRequest(session=session, content=True)
            answers = []
            heard = relay.heard(lambda: answers.append(far.stub.GetSession(request, timeout=20, compression=compression)))
            # How much of it is encoded changes meanwhile.
            same = client.get(session)
            assert (answers[0].text, answers[0].tokens, answers[0].session.identity) == (same.text, same.tokens, same.session.identity)
            return heard

        def completed(compression) -> int:
            request = pb.CompleteRequest(session="small", max_tokens=100, seed=1)
            return relay.heard(lambda: list(far.stub.Complete(request, timeout=20, compression=compression)))

        # The first call of a connection says more.
        got("small", None), got("small", GZIP)
        plain, zipped = got("large", None), got("large", GZIP)
        assert plain > 30_000 > 10 * zipped, "that it accepts gzip, grpcio says of every call"
        plain, zipped = got("small", None), got("small", GZIP)
        assert plain - 16 < zipped < plain + 64, "small answers are as they are"
        completed(None), completed(GZIP)
        plain, zipped = completed(None), completed(GZIP)
        assert abs(zipped - plain) < 200, "a stream's messages are told at once"


def delimited(field: int, payload: bytes) -> bytes:
    """A field of bytes, a text or a message."""
    length, size = b"", len(payload)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + payload


# Of a document of at most 64 KiB; both are some kilobytes when they are compressed.
BOMBS = {"zeros": delimited(2, bytes(64 << 20)), "a field that nobody knows": delimited(15, b"x" * (8 << 20))}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_message_that_is_small_until_it_is_unpacked_is_refused(channel, bomb):
    with pytest.raises(grpc.RpcError) as error:
        raw(channel, "pie.v1.Pool/OpenSession", bomb, compression=GZIP)
    found = refusal(error.value)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE"), found


NO_MESSAGES = {
    "half a field": b"\x0a\xff",
    "a wrong type": b"\x08\x01",
    "a text that is no UTF-8": delimited(1, b"\xc0\xff"),
    "no field number": b"\x00",
    "an endless number": b"\x10" + b"\xff" * 11,
}
METHODS = ["pie.v1.Pool/OpenSession", "pie.v1.Pool/ApplyEdits", "pie.v1.Pool/Complete", "pie.v1.Admin/DrainGroup", "grpc.health.v1.Health/Check"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("message", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_the_callers_fault(channel, method, message):
    with pytest.raises(grpc.RpcError) as error:
        raw(channel, method, message)
    found = refusal(error.value)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED"), found


def test_a_message_that_is_too_large_is_the_callers_fault(channel):
    with pytest.raises(grpc.RpcError) as error:
        raw(channel, "pie.v1.Pool/OpenSession", delimited(2, b"x" * (2 << 20)))
    found = refusal(error.value)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE"), found


def test_a_tenant_without_a_name_is_refused(client):
    found = refused(client.stub.ListSessions, pb.ListSessionsRequest(), timeout=10, metadata=[("pie-tenant", "")])
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "BAD_TENANT")


def test_reflection_tells_what_the_port_serves_and_nothing_else(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == SERVED
    # Each with all that its files import.
    known = descriptor_pool.DescriptorPool(database)
    for service in SERVED:
        assert known.FindServiceByName(service).methods
    for name in DETAILS:
        assert known.FindMessageTypeByName(name).fields
    for hidden in ("pie.worker.v1.Worker", "pie.peer.v1.Peer"):
        with pytest.raises((KeyError, grpc.RpcError)):
            known.FindServiceByName(hidden)


AGE, GRACE = 2.0, 2.0
GOAWAY = 7


def frames_until_the_end(stream: socket.socket) -> list[int]:
    """The types of the HTTP/2 frames that a server sends to a client that says nothing but hello."""
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    received = b""
    while part := stream.recv(4096):
        received += part
    types = []
    while received:
        types.append(received[3])
        received = received[9 + int.from_bytes(received[:3]) :]
    return types


def test_connections_get_no_older_than_they_may(start_pool):
    pool = start_pool("--connection-age", f"{AGE:.0f}s", "--connection-grace", f"{GRACE:.0f}s")
    host, port = pool.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        assert GOAWAY in frames_until_the_end(stream), "the client is told before it is cut off"
    with connect(pool.address) as channel:
        client = Client(channel)
        kept = client.open("fn main() {}\n", session="kept")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        next(watch)
        begun = time.monotonic()
        # A stream that never ends by itself ends with its connection; all other calls go on, on the next one.
        while time.monotonic() < begun + AGE + GRACE + 1:
            assert client.get("kept").session.revision == kept.revision
            time.sleep(0.05)
        assert watch.done() or refused(lambda: next(watch)).code == Code.UNAVAILABLE
        client.close_all()
    pool.stop()
