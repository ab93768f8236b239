"""The service around the documents: what the pool is, who is in it, health, reflection."""

import os

import grpc
import pytest
from client import at_bytes, refused
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from pie.v1 import pie_pb2 as pb
from pool import WORLD_SIZE


def test_the_pool_is_eight_worker_processes(pool):
    assert sorted(pool.workers) == list(range(WORLD_SIZE))
    pids = set(pool.workers.values())
    assert len(pids) == WORLD_SIZE and pool.pid == pool.process.pid and pool.pid not in pids
    for rank, pid in pool.workers.items():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
        assert b"worker" in arguments and arguments[arguments.index(b"--rank") + 1] == str(rank).encode()
        assert os.getpgid(pid) != os.getpgid(pool.pid), "Ctrl-C is for the pool, which stops its workers in order"


def test_describe_pool(client):
    about = client.describe()
    assert about.model and about.version and about.parameters > 0
    assert (about.vocabulary, len(about.groups)) == (8192, 1) and about.context_limit > 1000
    group = about.groups[0]
    assert (group.group, group.state) == ("g0", "serving") and group.epoch > 0
    assert [rank.rank for rank in group.ranks] == list(range(WORLD_SIZE))
    assert len({rank.address for rank in group.ranks}) == WORLD_SIZE
    for rank in group.ranks:
        assert rank.device == "cpu" and rank.weight_bytes > 0
        assert rank.weight_bytes * WORLD_SIZE < about.parameters * 4 * 2, "each rank holds its slice, not the model"
        assert 0 < rank.kv_bytes <= 8 << 20
    assert 0 < group.slots_free <= group.slots_total


def test_slots_and_sessions_are_counted(client):
    before = client.describe().groups[0]
    session = client.open(tokens=[100] * 50).session
    client.complete(session, max_tokens=1)
    during = client.describe().groups[0]
    assert during.sessions == before.sessions + 1
    assert before.slots_free - during.slots_free >= 50
    client.close(session)
    after = client.describe().groups[0]
    assert (after.sessions, after.slots_free) == (before.sessions, before.slots_free)


def test_closed_sessions_are_gone(client):
    opened = client.open("x", session="to be closed")
    session, old = opened.session, client.edit(opened.session, None, at_bytes(0, 0, "y")).revision
    client.close(session)
    found = refused(client.get, session)
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_UNKNOWN")
    again = client.open("x", session=session)
    assert again.revision > old and again.reused == 0, "a new session, though of an old name"
    # What was meant for the first life does not reach the second, whatever its revision says.
    assert refused(client.edit, session, opened.revision, at_bytes(0, 0, "z")).reason == "REVISION_MISMATCH"
    stale = refused(client.edit, session, again.revision, at_bytes(0, 0, "z"), identity=opened.identity)
    assert (stale.code, stale.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_REPLACED"), stale
    assert client.edit(session, again.revision, at_bytes(0, 0, "z"), identity=again.identity).revision == again.revision + 1
    assert client.get(session).session.identity == again.identity != opened.identity
    assert client.list().sessions[-1].identity


@pytest.mark.parametrize("page_size", [1, 2, 3, 100, 0])
def test_sessions_are_listed_in_pages(client, page_size):
    names = [f"page/{name}" for name in ("a", "B", "c", "日", "z z", "🙂", "A")]
    for name in names:
        client.open(name, session=name, strategy=pb.STRATEGY_CONFLICT)
    found, token, pages = [], "", 0
    while True:
        page = client.list(page_size, token)
        assert page_size == 0 or len(page.sessions) <= page_size
        found, token, pages = found + list(page.sessions), page.next_page_token, pages + 1
        if not token:
            break
    assert [each.session for each in found] == sorted(names, key=str.encode)
    assert pages == (-(-len(names) // page_size) if page_size else 1)
    for each in found:
        assert (each.bytes, each.strategy, each.group) == (len(each.session.encode()), pb.STRATEGY_CONFLICT, "g0")


@pytest.mark.parametrize("service", ["", "pie.v1.Pool"])
def test_health(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(request, timeout=5).status == serving
    watch = stub.Watch(request, timeout=5)
    assert next(watch).status == serving
    watch.cancel()


def test_health_of_an_unknown_service(channel):
    request = health_pb2.HealthCheckRequest(service="pie.v1.Nothing")
    with pytest.raises(grpc.RpcError) as error:
        health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def reflect(channel, version: str, **request):
    """Asks the reflection service; its versions have the same messages under different names."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(call(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=5))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_the_api(channel, version):
    listed = reflect(channel, version, list_services="").list_services_response.service
    assert {"pie.v1.Pool", "grpc.health.v1.Health"} <= {service.name for service in listed}
    answer = reflect(channel, version, file_containing_symbol="pie.v1.Pool").file_descriptor_response
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in answer.file_descriptor_proto]
    methods = {method.name for file in files for service in file.service for method in service.method}
    assert methods == {method.name for method in pb.DESCRIPTOR.services_by_name["Pool"].methods}


def test_an_unknown_method_is_unimplemented(channel):
    call = channel.unary_unary("/pie.v1.Pool/Nothing", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=5)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
