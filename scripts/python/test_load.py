"""`pie load` against a real pool: what it sends comes to be, and what it says can be read."""

import json
import signal
import subprocess

import pool as pool_module
import pytest


@pytest.fixture(scope="module")
def pool(cache):
    """One rank: load is what is tried here, not the group."""
    running = pool_module.Pool(cache, "--kv-memory", "32MiB", world_size=1)
    try:
        yield running
        running.stop()
    finally:
        running.end()


SCRIPT = """{"pie_load_script":1}
{"open":{"text":"def größe(x):\\n    return x\\n"}}
{"type":{"text":"# 漢字 🙂\\n","key_ms":60}}
{"complete":{"at":"end"}}
{"pause":{"ms":400}}
{"multi_cursor":{"edits":[{"start":4,"end":11,"text":"size"},{"start":12,"end":13,"text":"y"}]}}
{"undo":{"steps":3}}
{"complete":{"at":"end"}}
{"pause":{"ms":3000}}
"""


def load(pool, cache, *flags):
    """Runs the command; its standard output, once it has succeeded."""
    command = [str(pool_module.binary()), "load", *flags, "--pool", f"http://{pool.address}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=pool_module.environment(cache), check=False
    )
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_people_who_are_made_up_leave_every_document_right(pool, cache, tmp_path):
    report_file, page = tmp_path / "report.json", tmp_path / "page.html"
    flags = ["--sessions", "4", "--speed", "3", "--duration", "3s", "--warmup", "0s", "--document-size", "2KiB"]
    said = load(pool, cache, *flags, "--verify", "--json", str(report_file), "--html", str(page))
    assert "4 documents equal here and there" in said
    report = json.loads(report_file.read_text())
    assert report["edits"]["acknowledged"] == report["edits"]["sent"] > 20
    counts = report["completions"]
    ends = ["finished", "superseded_unanswered", "superseded_answered"]
    assert counts["asked"] == sum(counts[end] for end in ends), counts
    assert report["errors"] == {}
    assert page.read_text().count("<svg") == 3


def test_a_script_is_played_to_its_end(pool, cache, tmp_path):
    script, report_file = tmp_path / "script.jsonl", tmp_path / "report.json"
    script.write_text(SCRIPT)
    flags = ["--script", str(script), "--sessions", "2", "--duration", "3s", "--warmup", "0s", "--verify"]
    load(pool, cache, *flags, "--json", str(report_file))
    report = json.loads(report_file.read_text())
    # Of each session: seven keys, the two places, three undone.
    assert report["edits"]["acknowledged"] == 2 * 11
    assert report["completions"]["asked"] == 4
    assert report["tokens"]["generated"] > 0 and report["latencies"]["first_token"]["count"] > 0


def test_a_run_that_is_interrupted_leaves_no_session(pool, cache):
    command = [str(pool_module.binary()), "load", "--pool", pool.address, "--sessions", "3", "--duration", "1h", "--warmup", "0s", "--verify"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=pool_module.environment(cache))
    ctl = [str(pool_module.binary()), "ctl", "--pool", pool.address, "sessions", "--json"]

    def sessions():
        return json.loads(subprocess.run(ctl, capture_output=True, text=True, check=True, env=pool_module.environment(cache)).stdout)

    first: dict[str, int] = {}

    def plays():
        """Each of the three has been edited several times since it was first seen."""
        seen = sessions()
        return len(seen) == 3 and all(each["revision"] > 3 + first.setdefault(each["session"], each["revision"]) for each in seen)

    try:
        pool_module.until("it plays", plays, 60.0)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1 and "the sessions are closed, and the figures are of" in told, told
    assert "the run was cut short" in said and "slots" not in told, (said, told)
    assert sessions() == []
