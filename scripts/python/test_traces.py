"""What those rely on who look for where time went: one trace from a client's call to each rank's step, in a receiver that is not
ours, and log lines that can be queried, without a word of what people write."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from client import Client, Completion, at_bytes, connect, refused
from cluster import Cluster
from etcd import free_port
from opentelemetry.proto.trace.v1 import trace_pb2
from pie.v1 import pie_pb2 as pb
from pool import Pool, binary, environment, until
from receiver import Receiver, Span
from stubs import ROOT
from test_etcd import etcd  # noqa: F401  (a fixture)

CODE = "".join(f"fn value_{index}(x: u32) -> u32 {{ x * {index} + 1 }}\n" for index in range(40))
PHASES = ["queue", "plan", "first token", "decode"]
CALL = "pie.v1.Pool/Complete"


@pytest.fixture
def receiver():
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def two_ranks(cache):
    """Starts pools of two ranks."""
    started = []

    def start(*flags: str) -> Pool:
        started.append(Pool(cache, *flags, world_size=2))
        return started[-1]

    yield start
    for running in started:
        running.end()


class Caller:
    """A caller with a trace of its own, in which each call has a span."""

    def __init__(self, number: int, sampled: bool = True):
        self.trace, self.id, self._flags = f"{number:032x}", f"{number:016x}", "01" if sampled else "00"

    @property
    def parent(self) -> str:
        return f"00-{self.trace}-{self.id}-{self._flags}"

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("traceparent", self.parent), ("tracestate", "vendor=a1"), ("pie-tenant", "acme")]

    def complete(self, client: Client, session: str, **fields):
        request = pb.CompleteRequest(session=session, **fields)
        return client.stub.Complete(request, timeout=30, metadata=self.metadata)

    def edit(self, client: Client, session: str, revision: int, *edits):
        request = pb.ApplyEditsRequest(session=session, base_revision=revision)
        request.text.edits.extend(edits)
        return client.stub.ApplyEdits(request, timeout=30, metadata=self.metadata)


def only(spans: list[Span]) -> Span:
    assert len(spans) == 1, spans
    return spans[0]


def lines(pool: Pool) -> list[dict]:
    """The log, as machines read it."""
    return [json.loads(line) for line in pool.output().splitlines() if line.startswith("{")]


def test_one_trace_leads_from_the_clients_call_to_each_ranks_step(two_ranks, receiver, cache):
    # Rows of repairs, which may ride in any step, and those of drafts would be counted with those that the call needs.
    asked = ["--repair", "with-edits", "--draft-tokens", "0", "--log", "info", "--log-format", "json"]
    pool = two_ranks("--otlp", receiver.url, "--trace-sample", "0", *asked)
    caller, editor, unseen, shell = Caller(0xA11CE), Caller(0xED17), Caller(0xDEAD, sampled=False), Caller(0x5E11)
    with connect(pool.address) as channel:
        client = Client(channel, tenant="acme")
        revision = client.open(CODE, session="a.rs").revision
        client.complete("a.rs", max_tokens=2)
        edit = at_bytes(20, 20, "let edited = 1;\n")
        assert editor.edit(client, "a.rs", revision, edit).revision == revision + 1
        whole = Completion.read(caller.complete(client, "a.rs", max_tokens=40))
        list(unseen.complete(client, "a.rs", max_tokens=2))
        assert refused(caller.complete, client, "nobody").reason == "SESSION_UNKNOWN"
        command = [str(binary()), "ctl", "--pool", f"http://{pool.address}", "--tenant", "acme", "complete", "a.rs", "--tokens", "1"]
        named = environment(cache) | {"TRACEPARENT": shell.parent}
        subprocess.run(command, env=named, check=True, capture_output=True)
        client.close_all()
    pool.stop()

    assert {span.trace for span in receiver.spans} == {caller.trace, editor.trace, shell.trace}, "what nobody samples is nowhere"
    assert only(receiver.named(CALL, session="a.rs", tokens_generated=1)).parent == shell.id
    edited = only(receiver.named("pie.v1.Pool/ApplyEdits"))
    assert (edited.trace, edited.parent, edited.attributes["revision"]) == (editor.trace, editor.id, revision + 1)
    assert edited.attributes["tokens_inserted"] > 0 and edited.attributes["session"] == "a.rs"

    call = only(receiver.named(CALL, session="a.rs", tokens_generated=len(whole.tokens)))
    assert (call.trace, call.parent, call.state, call.service) == (caller.trace, caller.id, "vendor=a1", "pie-router")
    assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER and call.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    timings = {field.name: value for field, value in whole.timings.ListFields() if field.name in call.attributes}
    assert len(timings) >= 6 and timings.items() <= call.attributes.items()
    said = {"rpc.system": "grpc", "rpc.service": "pie.v1.Pool", "rpc.method": "Complete", "rpc.grpc.status_code": 0}
    assert (said | {"revision": revision + 1, "finish": "length", "code": "Ok"}).items() <= call.attributes.items()
    failed = only(receiver.named(CALL, session="nobody"))
    assert (failed.attributes["reason"], failed.attributes["rpc.grpc.status_code"]) == ("SESSION_UNKNOWN", 5)

    below = [span for span in receiver.spans if span.parent == call.id]
    phases = sorted((span for span in below if span.name in PHASES), key=lambda span: span.start)
    assert [span.name for span in phases] == PHASES
    for before, after in zip(phases, phases[1:], strict=False):
        assert abs(before.end - after.start) < 5_000_000, "one phase ends where the next begins"
    assert abs(phases[0].start - call.start) < 20_000_000 and phases[-1].end <= call.end + 20_000_000
    steps = sorted((span for span in below if span.name == "step"), key=lambda span: span.attributes["seq"])
    assert len(steps) >= 2 and len(steps) + len(phases) == len(below), below
    for step in steps:
        check_step(receiver, step)
    ranks = [span for step in steps for span in receiver.spans if span.parent == step.id and span.attributes["rank"] == 0]
    encoded, rotated = (sum(span.attributes[key] for span in ranks) for key in ("encoded", "rotated"))
    assert encoded == whole.timings.tokens_encoded + len(whole.tokens) - 1 and rotated == whole.timings.tokens_rotated > 0
    check_identities(receiver)
    check_page(receiver)
    check_lines(lines(pool), pool, call)


def check_step(receiver: Receiver, step: Span) -> None:
    said = step.attributes
    assert step.service == "pie-router" and said["group"] == "g0" and said["sessions"] == 1 <= said["rows"]
    ranks = sorted((span for span in receiver.spans if span.parent == step.id), key=lambda span: span.attributes["rank"])
    assert [(span.name, span.service, span.trace) for span in ranks] == [("rank step", "pie-worker", step.trace)] * 2
    for rank, span in enumerate(ranks):
        of_rank = span.attributes
        assert (of_rank["rank"], of_rank["epoch"], of_rank["seq"]) == (rank, said["epoch"], said["seq"])
        assert span.resource["rank"] == rank and of_rank["encoded"] == ranks[0].attributes["encoded"] > 0
        assert 0 < of_rank["compute_us"] + of_rank["collective_us"] <= (span.end - span.start) / 1000 + 1000
        assert step.start - 1_000_000 <= span.start and span.state == "vendor=a1"


def check_identities(receiver: Receiver) -> None:
    by_instance = {}
    for span in receiver.spans:
        by_instance.setdefault(span.resource["service.instance.id"], span.resource)
        assert span.resource["group"] == "g0" and span.resource["service.version"] and span.events == 0
    assert sorted(each["service.name"] for each in by_instance.values()) == ["pie-router", "pie-worker", "pie-worker"]


def check_page(receiver: Receiver) -> None:
    """The page names the spans that there are, and each of their attributes."""
    page = (ROOT / "docs/observability.md").read_text().split("## Traces")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", page, re.MULTILINE))
    spans = {re.sub(r"^pie\.v1\.Pool/.*", "pie.v1.Pool/…", span.name): span for span in receiver.spans}
    assert set(rows) == set(spans), "the page and the program differ"
    for span in receiver.spans:
        row = rows[re.sub(r"^pie\.v1\.Pool/.*", "pie.v1.Pool/…", span.name)]
        unknown = set(span.attributes) - set(re.findall(r"`([\w.]+)`", row))
        assert not unknown, f"{span.name}: {unknown} are not on the page"


def check_lines(log: list[dict], pool: Pool, call: Span) -> None:
    answered = [line for line in log if line["message"] == "answered"]
    methods = [line["method"] for line in answered]
    assert methods == ["OpenSession", "Complete", "ApplyEdits", *["Complete"] * 4, "CloseSession"], methods
    assert all(line["level"] == "INFO" and line["service"] == "pie-router" and line["group"] == "g0" for line in answered)
    assert all(line["duration_ms"] > 0 and line["session"] in ("a.rs", "nobody") for line in answered)
    assert not any("." in key for line in log for key in line), "dotted names are for traces"
    opened, _, edited, seen, unseen, failed, *_ = answered
    assert (opened["tenant"], opened["code"], edited["revision"]) == ("acme", "Ok", opened["revision"] + 1)
    assert (seen["revision"], seen["finish"], seen["trace_id"]) == (edited["revision"], "length", call.trace) and "trace_id" not in unseen
    assert (failed["code"], failed["reason"]) == ("NotFound", "SESSION_UNKNOWN")
    serves = [line for line in log if line["message"] == "the group serves"]
    assert [(line["group"], line["world_size"]) for line in serves] == [("g0", 2)] and serves[0]["epoch"] > 0
    forming = [line for line in log if line["message"] == "forming the group"]
    assert sorted((line["rank"], line["epoch"]) for line in forming) == [(rank, serves[0]["epoch"]) for rank in range(2)]


def test_a_step_that_calls_share_is_in_one_trace_and_linked_with_the_others(two_ranks, receiver):
    pool = two_ranks("--otlp", receiver.url, "--trace-sample", "0")
    first, second = Caller(0xF1), Caller(0x5EC)
    with connect(pool.address) as channel:
        client = Client(channel, tenant="acme")
        for session in ("first", "second"):
            client.open(f"// {session}\n{CODE}", session=session)
        long = first.complete(client, "first", max_tokens=300)
        next(long)
        list(second.complete(client, "second", max_tokens=4))
        long.cancel()
        client.close_all()
    # As platforms stop it: the last spans are sent all the same.
    pool.process.send_signal(signal.SIGTERM)
    assert pool.wait(10.0) == 0, pool.output()
    calls = {span.trace: span for span in receiver.named(CALL)}
    shared = [span for span in receiver.named("step") if span.links]
    assert shared and {(span.trace, span.parent) for span in shared} == {(first.trace, calls[first.trace].id)}
    assert {span.links for span in shared} == {((second.trace, calls[second.trace].id),)}
    assert all(span.attributes["sessions"] == 2 for span in shared)
    back = set(calls[second.trace].links)
    assert back and back <= {(first.trace, span.id) for span in shared}, "whose first token it made leads there too"
    assert (calls[first.trace].attributes["code"], calls[second.trace].attributes["code"]) == ("Cancelled", "Ok")


def test_a_forwarded_call_stays_in_its_trace(cache, etcd, receiver, tmp_path):  # noqa: F811
    traced = ("--otlp", receiver.url, "--trace-sample", "0")
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0"], worker_flags=traced, router_flags=traced)
    caller = Caller(0xF0)
    try:
        with connect(cluster.addresses[0]) as first, connect(cluster.addresses[1]) as second:
            clients = [Client(channel, tenant="acme") for channel in (first, second)]
            owner = clients[0].describe().groups[0].owner
            other = next(number for number in (0, 1) if not owner.endswith(cluster.peer(number)))
            clients[other].open(CODE, session="a.rs")
            assert len(Completion.read(caller.complete(clients[other], "a.rs", max_tokens=3)).tokens) == 3
        until("all spans are there", lambda: len(receiver.named(CALL)) == 2 and receiver.named("rank step"))
    finally:
        cluster.end()
    outer, inner = sorted(receiver.named(CALL), key=lambda span: span.parent != caller.id)
    assert (outer.trace, outer.parent, inner.trace, inner.parent) == (caller.trace, caller.id, caller.trace, outer.id)
    assert outer.resource["service.instance.id"] != inner.resource["service.instance.id"], "one span of each router"
    steps = {span.id: span for span in receiver.named("step")}
    assert {span.parent for span in steps.values()} == {inner.id}
    assert {span.parent for span in receiver.named("rank step")} <= set(steps)


def test_a_receiver_that_is_silent_holds_nothing_up(two_ranks):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        pool = two_ranks("--otlp", f"http://127.0.0.1:{port}", "--trace-sample", "1")
        with connect(pool.address) as channel:
            client = Client(channel)
            session = client.open(CODE).session
            took = []
            for _ in range(30):
                began = time.monotonic()
                assert len(client.complete(session, max_tokens=2).tokens) == 2
                took.append(time.monotonic() - began)
            assert sorted(took)[len(took) // 2] < 0.5, took
            until("it is said", lambda: pool.output().count("traces are not taken") == 3)
            client.close_all()
        began = time.monotonic()
        pool.process.send_signal(signal.SIGTERM)
        assert pool.wait(10.0) == 0, pool.output()
        assert time.monotonic() - began < 8.0
    output = pool.output()
    assert (output.count("traces are not taken"), output.count("spans were lost")) == (3, 3), output


def test_a_receiver_that_is_away_is_no_matter_and_may_come_back(two_ranks):
    port = free_port()
    pool = two_ranks("--otlp", f"http://127.0.0.1:{port}", "--trace-sample", "1", "--log", "info")
    with connect(pool.address) as channel:
        client = Client(channel)
        assert len(client.complete(client.open("fn main() {").session, max_tokens=4).tokens) == 4
        until("it is said", lambda: "traces are not taken" in pool.output())
        back = Receiver(port)
        try:
            until("spans come", lambda: client.describe() and back.spans, deadline=15.0)
            until("that is said", lambda: "traces are taken again" in pool.output())
        finally:
            pool.end()
            back.close()


MARK = "zanzibar_quokka"


@pytest.mark.parametrize("shown", [(), ("--log-text",)], ids=["hidden", "shown"])
def test_no_line_of_any_level_holds_what_people_write_unless_asked_to(two_ranks, shown):
    pool = two_ranks("--log", "trace", "--log-format", "json", *shown)
    with connect(pool.address) as channel:
        client = Client(channel)
        client.open(f"// {MARK}\n{CODE}", session="a.rs")
        client.edit("a.rs", None, at_bytes(0, 0, f"// {MARK}_edit\n"))
        refused(client.edit, "a.rs", 7, at_bytes(0, 0, f"{MARK}_refused"))
        refused(client.edit, "a.rs", None, at_bytes(1_000_000, 1_000_000, f"{MARK}_refused"))
        refused(client.complete, "a.rs", stop=[f"{MARK}_stop"] * 100)
        whole = client.complete("a.rs", max_tokens=24, stop=[f"{MARK}_stop"])
        client.get("a.rs")
        client.close_all()
    pool.stop()
    output = pool.output()
    targets = {line["target"] for line in lines(pool)}
    assert {"h2", "tokenizers", "pie_router"} & {target.split(":")[0] for target in targets} == (
        {"h2", "tokenizers", "pie_router"} if shown else {"h2", "pie_router"}
    ), "the tokenizer would spell the document"
    assert len(whole.text.strip()) > 8
    assert whole.text not in output and json.dumps(whole.text)[1:-1] not in output
    with_mark = [line for line in output.splitlines() if MARK in line]
    if not shown:
        assert with_mark == []
    else:
        texts = [json.loads(line) for line in with_mark]
        assert texts and {(line["level"], line["target"]) for line in texts} == {("DEBUG", "pie_router::text")}
        assert all(f"{MARK}_" in line["edits"] for line in texts)


@pytest.mark.parametrize(
    "flag, value, advice",
    [
        ("--otlp", "localhost:4317", "http://HOST:PORT"),
        ("--otlp", "https://receiver", "run a collector beside the pool"),
        ("--trace-sample", "1.5", "between 0 and 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flag, value, advice):
    refused_flag = subprocess.run([str(binary()), "pool", flag, value], capture_output=True, text=True, check=False)
    assert refused_flag.returncode == 2 and flag in refused_flag.stderr and advice in refused_flag.stderr, refused_flag.stderr
