"""What those who run a pool rely on: metrics that are right, probes that tell the truth, dashboards that name what is there,
and a SIGTERM that loses nothing."""

import json
import re
import signal
import subprocess
import sys
import time

import grpc
import pytest
from client import Client, Completion, at_bytes, connect, refused, refusal
from observe import OPENER, Process, Scrape, ask, health
from pie.v1 import pie_pb2 as pb
from pool import until
from stubs import ROOT
from etcd import free_port
from test_etcd import etcd  # noqa: F401  (a fixture)

LISTEN = ("--metrics-listen", "127.0.0.1:0")
CODE = "".join(f"fn value_{index}(x: u32) -> u32 {{ x * {index} + 1 }}\n" for index in range(40))
NAME = re.compile(r"\bpie_[a-z0-9_]+")


@pytest.fixture
def group(tmp_path, cache):
    """Two ranks and one router, each a process of its own, as on a cluster but for etcd."""
    started = []

    def start(name, *arguments):
        started.append(Process(tmp_path, cache, name, *arguments))
        return started[-1]

    yield Group(start)
    for process in started:
        process.end()


class Group:
    def __init__(self, start):
        self.start = start
        self.metrics = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.controls = [f"127.0.0.1:{free_port()}" for _ in range(2)]

    def worker(self, rank: int, *flags: str) -> Process:
        place = ["--rank", str(rank), "--world-size", "2", "--listen", self.controls[rank]]
        return self.start(f"rank-{rank}", "worker", *place, "--metrics-listen", self.metrics[rank], *flags)

    def router(self, name: str, *flags: str) -> tuple[Process, dict]:
        router = self.start(name, "router", "--world-size", "2", "--listen", "127.0.0.1:0", *LISTEN, *flags)
        return router, until(f"{name} listens", router.facts)


def is_ready(address: str) -> bool:
    return ask(address, "/readyz")[0] == 200


def test_metrics_are_right(start_pool):
    pool = start_pool("--repair", "with-edits", *LISTEN)
    first = Scrape(pool.metrics)
    assert first("pie_build_info") == 1 and first("pie_group_serving") == 1 and first("pie_draining") == 0
    assert first("pie_sessions") == first("pie_steps_total") == first("pie_errors_total") == 0
    with connect(pool.address) as channel:
        client, timings = Client(channel), []
        for name in ("a", "b"):
            client.open(f"// {name}\n{CODE}", session=name)
            timings.append(client.complete(name, max_tokens=8).timings)
            client.edit(name, None, at_bytes(20, 20, "let edited = 1;\n"))
            timings.append(client.complete(name, max_tokens=8).timings)
        assert refused(client.edit, "a", 0, at_bytes(0, 0, "x")).reason == "REVISION_MISMATCH"
        assert refused(client.complete, "c").reason == "SESSION_UNKNOWN"
        assert refused(client.open, "x", session="\n").reason == "BAD_SESSION_NAME"
        during = Scrape(pool.metrics)
        assert during("pie_sessions") == 2 and 0 < during("pie_kv_slots_used") < during("pie_kv_slots")
        client.close_all()
        until("the sessions are closed", lambda: Scrape(pool.metrics)("pie_kv_slots_used") == 0)
        # The ranks are told in a step, which they report a moment later.
        until("all is reported", lambda: (now := Scrape(pool.metrics))("pie_steps_total") == now("pie_step_seconds_count"))
        described = client.describe().groups[0]
        last = Scrape(pool.metrics)

    encoded = sum(each.tokens_encoded + each.tokens_encoded_ahead for each in timings)
    assert last("pie_tokens_encoded_total") == encoded > 0
    assert last("pie_tokens_rotated_total") == sum(each.tokens_rotated for each in timings) > 0
    assert last("pie_tokens_reused_total") == sum(each.tokens_reused for each in timings) > 0
    assert last("pie_tokens_generated_total") == 32
    assert last("pie_completions_total", outcome="finished") == last("pie_completions_total") == 4
    assert last("pie_completions_resumed_total") == 0
    assert last("pie_edits_total") == last("pie_sessions_opened_total") == 2
    assert last("pie_sessions") == last("pie_streams") == last("pie_completions_in_progress") == 0
    for reason in ("REVISION_MISMATCH", "SESSION_UNKNOWN", "BAD_SESSION_NAME"):
        assert last("pie_errors_total", reason=reason) == 1, reason
    assert last("pie_errors_total") == 3
    assert last("pie_group_events_total", event="formed") == last("pie_group_events_total") == 1
    assert last("pie_group_epoch") == described.epoch and last("pie_kv_slots") == described.slots_total

    firsts, edits = [each.first_token_us for each in timings], [each.edit_to_first_token_us for each in timings]
    for name, times in (("pie_time_to_first_token_seconds", firsts), ("pie_edit_to_first_token_seconds", edits)):
        times = [time for time in times if time]
        assert last(f"{name}_count") == last(f"{name}_bucket", le="+Inf") == len(times)
        assert last(f"{name}_sum") == pytest.approx(sum(times) / 1e6, abs=1e-5)
        assert last(f"{name}_bucket", le="0.1") == sum(time <= 100_000 for time in times)
    assert last("pie_inter_token_latency_seconds_count") == 4 * 7
    counters = described.counters
    assert last("pie_steps_total") == last("pie_step_seconds_count") == last("pie_step_skew_seconds_count") == counters.steps
    assert last("pie_step_seconds_sum") == pytest.approx(counters.compute_us / 1e6)
    ranks = [(last("pie_group_rank_compute_seconds_total", rank=str(rank))) for rank in range(8)]
    assert all(0 < each <= last("pie_step_seconds_sum") * 2 for each in ranks), ranks
    pool.stop()


def test_metrics_keep_to_the_conventions(start_pool):
    pool = start_pool(*LISTEN)
    scrape = Scrape(pool.metrics)
    with connect(pool.address) as channel:
        Client(channel, tenant="acme").open("x", session="secret/name.rs")
        later = Scrape(pool.metrics)
    keys = [[(sample.name, tuple(sample.labels.items())) for sample in each.samples] for each in (scrape, later)]
    assert keys[0] == keys[1] and len(set(keys[0])) == len(keys[0]), "the set of series does not grow with use"
    assert "secret" not in later.text and "acme" not in later.text
    for family in scrape.families:
        assert family.documentation, family.name
        assert (family.type == "counter") == family.samples[0].name.endswith("_total"), family.name
        assert not re.search(r"_(us|ms|millis|micros|kib|mib)(_|$)", family.name), family.name
    with OPENER.open(f"http://{pool.metrics}/metrics", timeout=5) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert ask(pool.metrics, "/healthz") == (200, "alive\n") and ask(pool.metrics, "/readyz") == (200, "ready\n")
    assert ask(pool.metrics, "/nothing")[0] == 404
    pool.stop()


def test_ranks_have_metrics_and_health_and_names_match(group, tmp_path):
    """A rank and a router tell the truth from their start on; and what dashboard, alerts and page name is there."""
    controls = ",".join(f"http://{control}" for control in group.controls)
    router, facts = group.router("router", "--ranks", controls, "--http", "127.0.0.1:0")
    until("it says what is missing", lambda: "rank 0" in ask(facts["metrics"], "/readyz")[1])
    assert ask(facts["metrics"], "/readyz")[0] == 503
    with connect(facts["address"]) as channel:
        assert health(channel) == health(channel, "pie.v1.Pool") == "NOT_SERVING"
        assert Scrape(facts["metrics"])("pie_group_serving") == 0
        workers = [group.worker(rank, "--kv-spill", str(tmp_path / "rows")) for rank in range(2)]
        until("the group is formed", lambda: is_ready(facts["metrics"]), deadline=60.0)
        until("health follows", lambda: health(channel) == health(channel, "pie.v1.Pool") == "SERVING")
        client = Client(channel)
        session = client.open(CODE).session
        client.complete(session, max_tokens=4)
        ranks, routers = [Scrape(metrics) for metrics in group.metrics], Scrape(facts["metrics"])
    for rank, scrape in enumerate(ranks):
        label = str(rank)
        assert scrape("pie_rank_info", group="g0", rank=label, device="cpu") == 1
        assert scrape("pie_rank_steps_total") == routers("pie_steps_total") > 0
        assert scrape("pie_rank_epoch") == routers("pie_group_epoch") > 0
        assert scrape("pie_rank_kv_slots_used") > 0 and scrape("pie_rank_failures_total") == 0
        assert scrape("pie_rank_compute_seconds_total") == pytest.approx(
            routers("pie_group_rank_compute_seconds_total", rank=label)
        )
        assert ask(group.metrics[rank], "/readyz")[0] == 200
        with connect(group.controls[rank]) as channel:
            assert health(channel) == health(channel, "pie.worker.v1.Worker") == "SERVING"

    check_names(routers.names() | ranks[0].names(), routers.families + ranks[0].families)
    # A rank that is told to stop first waits for its owner, as long as it holds something, and says so.
    workers[1].process.send_signal(signal.SIGTERM)
    until("rank 1 is not ready", lambda: not is_ready(group.metrics[1]))
    assert is_ready(facts["metrics"]) and workers[1].process.poll() is None
    router.process.send_signal(signal.SIGTERM)
    assert router.process.wait(10) == 0, router.output()
    assert workers[1].process.wait(10) == 0, workers[1].output()
    until("rank 0 is free", lambda: Scrape(group.metrics[0])("pie_rank_epoch") == 0)


def check_names(samples: set[str], families) -> None:
    dashboard = json.loads((ROOT / "helm/pie-pool/dashboards/pie-pool.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 40
    alerts = (ROOT / "helm/pie-pool/alerts/pie-pool.yaml").read_text()
    for text in [*queries, alerts]:
        unknown = set(NAME.findall(text)) - samples
        assert not unknown, f"{unknown} are not exposed: {text}"
    page = (ROOT / "docs/observability.md").read_text()
    described = set(re.findall(r"^\| `(pie_\w+)`", page, re.MULTILINE))
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert described == exposed, f"the page and the program differ: {described ^ exposed}"
    alert_names = re.findall(r"- alert: (\w+)", alerts)
    assert len(alert_names) == alerts.count("runbook: ") == alerts.count("summary: ") > 8
    assert all(f"`{name}`" in page for name in alert_names)


def test_the_dashboard_is_what_its_list_says():
    command = [sys.executable, str(ROOT / "scripts/observe/dashboard.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_pool_that_is_drained_ends_what_runs_and_takes_nothing_new(start_pool):
    pool = start_pool(*LISTEN, "--drain-grace", "60s")
    with connect(pool.address) as channel:
        client = Client(channel)
        session = client.open(CODE).session
        stream = client.stream(session, max_tokens=800, timeout=60.0)
        head = [next(stream) for _ in range(3)]
        pool.process.send_signal(signal.SIGTERM)
        until("it is not ready", lambda: not is_ready(pool.metrics), deadline=5.0)
        assert ask(pool.metrics, "/readyz") == (503, "the router is being drained\n")
        assert ask(pool.metrics, "/healthz")[0] == 200 and Scrape(pool.metrics)("pie_draining") == 1
        assert health(channel) == health(channel, "pie.v1.Pool") == "NOT_SERVING"
        for found in (refused(client.open, "new"), refused(client.complete, session)):
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING"), found
            assert 0 < found.retry_after_ms <= 5000
        assert client.get(session).text == CODE, "what is open can still be read"
        assert Scrape(pool.metrics)("pie_errors_total", reason="SERVER_DRAINING") == 2
        whole = Completion.read(iter([*head, *stream]))
        ended = time.monotonic()
    assert whole.finish in (pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP) and len(whole.tokens) > 50
    assert pool.wait(10.0) == 0, pool.output()
    assert time.monotonic() - ended < 8.0, "it does not wait for the grace to pass when nothing runs"
    assert pool.workers_running() == []


@pytest.mark.parametrize("second", [None, signal.SIGTERM, signal.SIGINT], ids=["grace", "SIGTERM", "SIGINT"])
def test_a_drain_ends_with_its_grace_or_a_second_signal(start_pool, second):
    pool = start_pool(*LISTEN, "--drain-grace", "60s" if second else "1s")
    with connect(pool.address) as channel:
        client = Client(channel)
        session = client.open(CODE).session
        stream = client.stream(session, max_tokens=5000, timeout=60.0)
        next(stream)
        pool.process.send_signal(signal.SIGTERM)
        until("it is not ready", lambda: not is_ready(pool.metrics), deadline=5.0)
        if second:
            pool.process.send_signal(second)
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
    found = refusal(error.value)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"), found
    assert pool.wait(10.0) == 0, pool.output()


def test_another_router_takes_over_from_one_that_is_drained(etcd, group):  # noqa: F811
    flags = ("--etcd", etcd.url)
    for rank in range(2):
        group.worker(rank, *flags)
    first, facts = group.router("first", *flags, "--drain-grace", "30s")
    until("the first owns the group", lambda: is_ready(facts["metrics"]), deadline=60.0)
    _, other = group.router("second", *flags)
    until("the second forwards", lambda: is_ready(other["metrics"]))
    assert [Scrape(about["metrics"])("pie_group_serving") for about in (facts, other)] == [1, 0]
    with connect(facts["address"]) as channel:
        client = Client(channel)
        session = client.open(CODE, session="mine").session
        client.edit(session, None, at_bytes(0, 0, "// mine\n"))
        stream = client.stream(session, max_tokens=200)
        head = [next(stream)]
        first.process.send_signal(signal.SIGTERM)
        whole = Completion.read(iter([*head, *stream]))
    assert whole.finish in (pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP)
    assert first.process.wait(10) == 0, first.output()
    gone = time.monotonic()
    until("the second owns the group", lambda: Scrape(other["metrics"])("pie_group_serving") == 1, deadline=20.0)
    took = time.monotonic() - gone
    assert took < 4.0, f"{took:.1f} s: as if the lease had to run out"
    with connect(other["address"]) as channel:
        client = Client(channel)
        held = client.get("mine")
        assert (held.text, held.session.revision) == ("// mine\n" + CODE, client.heard[session]), "the document came with the group"
        assert len(client.complete("mine", max_tokens=4).tokens) == 4
