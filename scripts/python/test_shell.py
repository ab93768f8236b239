"""What a person sees in a shell: names, JSON, pipes, pools that do not serve, pools that start and end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import client as client_module
import pool as pool_module
import pytest
from etcd import free_port
from observe import Process
from pool import Pool, binary, environment, is_running, serving, until

DEADLINE = 60.0


@pytest.fixture(scope="module")
def shared(cache):
    """One rank, and the log as text in a file."""
    with serving(cache, "--log", "info", "--kv-memory", "32MiB", world_size=1) as running:
        yield running


def pie(cache, *arguments: str, **more) -> subprocess.CompletedProcess:
    more = {"capture_output": True, "text": True, "timeout": DEADLINE, "env": environment(cache), "check": False} | more
    return subprocess.run([str(binary()), *arguments], **more)


@pytest.fixture
def ctl(shared, cache):
    """Calls the pool; nothing is left afterwards."""

    def call(*arguments: str, ends_with: int = 0, **more) -> str:
        done = pie(cache, "ctl", "--pool", shared.address, *arguments, **more)
        assert done.returncode == ends_with, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if ends_with == 0 else done.stderr

    yield call
    for session in json.loads(call("sessions", "--json")):
        call("close", session["session"])


def test_two_files_are_two_sessions(ctl, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mod.rs").write_text(f"mod {folder};\n")
    ctl("open", "a/mod.rs", cwd=tmp_path)
    ctl("open", "mod.rs", cwd=tmp_path / "b")
    named = {session["session"] for session in json.loads(ctl("sessions", "--json"))}
    assert named == {str(tmp_path / folder / "mod.rs") for folder in ("a", "b")}, "each by its whole path"

    # By the path from where one stands, by its end, or whole.
    assert ctl("show", "mod.rs", cwd=tmp_path / "a") == "mod a;\n"
    assert ctl("show", "b/mod.rs") == "mod b;\n"
    assert ctl("show", str(tmp_path / "a" / "mod.rs")) == "mod a;\n"
    refused = ctl("edit", "mod.rs", "0..3", "use", ends_with=1)
    assert "a/mod.rs" in refused and "b/mod.rs" in refused and "name more of the path" in refused
    assert ctl("show", "a/mod.rs") + ctl("show", "b/mod.rs") == "mod a;\nmod b;\n", "no edit went anywhere"

    assert "revision" in ctl("edit", "b/mod.rs", "0..3", "use")
    ctl("open", "b/../b/./mod.rs", cwd=tmp_path)
    assert ctl("show", "b/mod.rs") == "mod b;\n", "the same file again is the same session, with the file's content"
    ctl("close", "a/mod.rs")
    assert ctl("show", "mod.rs") == "mod b;\n", "one is left"
    assert "SESSION_UNKNOWN" in ctl("show", "a/mod.rs", ends_with=1)


def test_everything_is_json_when_asked_for(ctl, tmp_path):
    file = tmp_path / "main.rs"
    file.write_text("fn main() {\n")
    fields = {
        ("pool",): {"version", "model", "parameters", "vocabulary", "context_limit", "groups"},
        ("health",): {"serving", "groups"},
        ("ranks",): {"group", "rank", "address", "device", "weight_bytes", "kv_bytes"},
        ("open", str(file)): {"session", "revision", "tokens", "reused"},
        ("edit", str(file), "0..2", "pub fn"): {"revision", "tokens", "tokens_inserted", "tokens_deleted", "tokens_retokenized"},
        ("sessions",): {"session", "group", "revision", "bytes", "tokens", "tokens_pending", "tokens_stale", "tokens_exact", "tokens_repaired", "resident", "strategy"},
        ("show", str(file)): {"session", "revision", "text", "tokens"},
        ("complete", str(file), "--max-tokens", "3"): {"revision", "text_delta", "tokens", "finish_reason", "timings"},
        ("close", str(file)): {"session", "closed"},
    }
    for command, expected in fields.items():
        for line in ctl(*command, "--json").splitlines():
            value = json.loads(line)
            for item in value if isinstance(value, list) else [value]:
                assert expected <= item.keys(), (command, item)
    error = json.loads(ctl("show", "nothing", "--json", ends_with=1))["error"]
    assert error["code"] == "SESSION_UNKNOWN" and "nothing" in error["message"]


def test_a_reader_that_goes_ends_the_command_quietly(ctl, shared, cache, tmp_path):
    file = tmp_path / "main.rs"
    file.write_text("fn main() {}\n" * 20)
    ctl("open", str(file))
    commands = [["ctl", "--pool", shared.address, *rest] for rest in (["sessions"], ["pool"], ["show", "main.rs"], ["pool", "--json"])]
    for command in (*commands, ["explain"], ["completions", "bash"], ["token", "--tenant", "a"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        ended = pie(cache, *command, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert ended.stderr == "" and ended.returncode in (0, 141), (command, ended)
    with open("/dev/full", "w") as full:
        ended = pie(cache, "explain", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1 and "standard output cannot be written" in ended.stderr


def test_health_waits_until_the_time_is_over(cache):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        cases = [(free_port(), "no pool answers"), (silent_port, "did not answer within")]
        for port, says in cases:
            begun = time.monotonic()
            done = pie(cache, "ctl", "--pool", f"127.0.0.1:{port}", "health", "--wait", "1s")
            took = time.monotonic() - begun
            assert done.returncode == 1 and says in done.stderr, done.stderr
            assert took > 0.7, f"it gave up after {took:.1f} s"
        for command in (["pool"], ["sessions"], ["health"], ["complete", "a"], ["drain", "g0"]):
            done = pie(cache, "ctl", "--pool", f"127.0.0.1:{silent_port}", "--timeout", "300ms", *command)
            assert done.returncode == 1 and "something listens there and is silent" in done.stderr, done.stderr


def test_health_tells_the_truth_of_a_drained_pool(ctl):
    assert ctl("health") == "serving: 1 of 1 groups\n"
    ctl("drain", "g0")
    try:
        assert "group g0 is drained (`pie ctl uncordon g0` opens it again)" in ctl("health", "--wait", "1s", ends_with=1)
    finally:
        ctl("uncordon", "g0")
    assert ctl("health") == "serving: 1 of 1 groups\n"


def test_nothing_in_a_file_is_coloured(ctl, shared):
    ctl("pool")
    assert "\x1b" not in shared.output() and " INFO " in shared.output(), shared.output()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_worker(pid: int) -> bool:
    """Not so between fork and exec, when its parent waits for it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda how: how.name)
def test_a_pool_that_is_ended_while_it_starts_leaves_nothing(cache, tmp_path, how):
    ready, log = tmp_path / "ready.json", tmp_path / "log"
    ready.write_text("of a dead pool")
    command = [str(binary()), "pool", "--world-size", "4", "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(cache))
    # One worker is held until the signal is sent: the pool is starting all the while, however late this test runs.
    held = until("a worker is started", lambda: next(filter(is_worker, children(process.pid)), None), DEADLINE)
    os.kill(held, signal.SIGSTOP)
    workers = until("all workers are started", lambda: len(found := children(process.pid)) == 4 and found, DEADLINE)
    assert not ready.exists(), "whoever waits for the file takes the dead pool's for this one's"
    process.send_signal(how)
    # Only of a pool that was killed is a worker left to wake: it notices by itself.
    status = process.wait(10.0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(held, signal.SIGCONT)
    assert status != 0, log.read_text()
    until("no worker is left", lambda: not any(is_running(pid) for pid in workers))
    assert "panick" not in log.read_text() and not ready.exists(), log.read_text()


def test_a_pool_ends_in_order_with_its_terminal_and_outlives_it_under_nohup(cache):
    running = Pool(cache, world_size=2)
    try:
        running.process.send_signal(signal.SIGHUP)
        assert running.wait(10.0) == 0 and "the terminal is closed: stopping" in running.output(), running.output()
    finally:
        running.end()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = Pool(cache, world_size=2)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        running.process.send_signal(signal.SIGHUP)
        with client_module.connect(running.address) as channel:
            client = client_module.Client(channel)
            assert client.complete(client.open("let").session, max_tokens=60).ids
        running.stop()
        assert "terminal" not in running.output()
    finally:
        running.end()


def test_what_is_wrong_with_all_workers_is_said_once(cache):
    """And nothing is served in plaintext to everybody without a word."""
    done = pie(cache, "pool", "--world-size", "4", "--collectives", "nccl", "--listen", "0.0.0.0:0")
    assert done.returncode == 1
    assert done.stderr.count("--collectives nccl is for GPUs") == 1 and "none of the 4 ranks starts" in done.stderr, done.stderr
    assert "--listen 0.0.0.0:0 takes calls in plaintext" in done.stderr, done.stderr


def test_a_json_log_has_nothing_but_json(cache, tmp_path):
    flags = ["--log-format", "json", "--log", "info"]
    for command in (["pool", "--connections", "0"], ["pool", "--world-size", "2", "--collectives", "nccl"], ["pool", "--model", "/nowhere"]):
        done = pie(cache, *flags, *command)
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert done.returncode != 0 and lines[-1]["level"] == "ERROR", done.stderr

    running = Pool(cache, *flags, world_size=2)
    try:
        os.kill(running.workers[1], signal.SIGKILL)
        assert running.wait(15.0) == 1
        lines = [json.loads(line) for line in running.output().splitlines()]
    finally:
        running.end()
    said = [line["message"] for line in lines]
    assert any("a router serve at" in text for text in said) and any("rank 1" in text and "died" in text for text in said), said
    assert {"timestamp", "level", "target", "message", "service"} <= lines[0].keys()


def test_a_group_of_two_models_says_so_everywhere(cache, tmp_path):
    processes = []
    try:
        controls = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        for rank, model in enumerate(("seeded:tiny", "seeded:null")):
            flags = ["--rank", str(rank), "--world-size", "2", "--listen", controls[rank], "--model", model, "--kv-memory", "8MiB"]
            processes.append(Process(tmp_path, cache, f"rank-{rank}", "worker", *flags))
        ranks = ",".join(f"http://{control}" for control in controls)
        flags = ["--ranks", ranks, "--world-size", "2", "--listen", "127.0.0.1:0"]
        router = Process(tmp_path, cache, "router", "router", *flags)
        processes.append(router)
        address = until("the router listens", router.facts, DEADLINE)["address"]
        why = "rank 1 has another model"

        def asked():
            return pie(cache, "ctl", "--pool", address, "pool")

        until("`ctl pool` says why", lambda: why in (done := asked()).stdout and done, DEADLINE)
        assert f"group g0 is not formed: the ranks do not make a group: {why}" in asked().stdout
        done = pie(cache, "ctl", "--pool", address, "health", "--wait", "300ms")
        assert done.returncode == 1 and why in done.stderr, done.stderr
        until("the log says why", lambda: any("WARN" in line and why in line for line in router.output().splitlines()), DEADLINE)
        assert router.output().count(why) == 1, "once, though it is tried again and again"
        ready = router.ready
        router.process.send_signal(signal.SIGINT)
        assert router.process.wait(15.0) == 0 and not ready.exists(), "the ready file goes with what it speaks of"
    finally:
        for process in processes:
            process.end()


def test_a_rank_that_was_frozen_for_a_while_is_taken_back(cache):
    """Its connection is given up meanwhile; nobody has died, so the pool forms the group again and serves on."""
    running = Pool(cache, "--collective-deadline", "10s", world_size=2)
    try:
        file = Path(running._folder.name) / "main.rs"
        file.write_text("fn main() {\n")
        assert pie(cache, "ctl", "--pool", running.address, "open", str(file)).returncode == 0
        os.kill(running.workers[1], signal.SIGSTOP)
        until("the loss is seen", lambda: "forming it again" in running.output(), DEADLINE)
        os.kill(running.workers[1], signal.SIGCONT)
        until("the group serves again", lambda: "group g0 serves again" in running.output(), DEADLINE)
        done = pie(cache, "ctl", "--pool", running.address, "complete", "main.rs", "--tokens", "2")
        assert done.returncode == 0, done.stderr
        ready = Path(running._folder.name) / "ready.json"
        assert ready.exists()
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(pool_module.STOP_DEADLINE + 20) == 0 and not ready.exists(), running.output()
    finally:
        running.end()
