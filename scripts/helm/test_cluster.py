"""The chart in a real Kubernetes (kube-apiserver, kube-controller-manager, etcd), whose node runs the pods' own commands.

The tests follow each other: one release is installed, tested, used, upgraded, rolled back and removed.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

import pytest
import yaml

import cases
import chart
import cluster
import definitions

NAMESPACE = "demo"
SETTINGS = ["--namespace", NAMESPACE, "--values", str(chart.CHART / "values-laptop.yaml")]
OVER = {"etcd": {"replicas": 3, "storage": "1Gi"}, "groups": 2, "router": {"replicas": 2}, "worker": {"drainTimeoutSeconds": 20}}


@pytest.fixture(scope="module")
def pool():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pie-cluster-", dir="/var/tmp"))
    folder.chmod(0o755)
    started = cluster.Cluster(folder, {"pie": os.environ["PIE"], "etcd": shutil.which("etcd")})
    try:
        labels = "pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted".split()
        started.command("kubectl", "create", "namespace", NAMESPACE)
        started.command("kubectl", "label", "namespace", NAMESPACE, *labels)
        yield started
    finally:
        keep = os.environ.get("KEEP_LOGS")
        started.stop()
        if keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def serving(pool):
    """All pods but that of `helm test`."""
    return [pod for pod in pool.node.find("pie-pool") if not pod.name.endswith("-test")]


def helm(pool, verb, *words, over=None):
    text = yaml.safe_dump(chart.merged(OVER, over or {}))
    return pool.command("helm", verb, "pie-pool", str(chart.CHART), *SETTINGS, "--values", "-", "--wait", "--timeout", "6m", *words, text=text)


def logs(pool):
    return "\n".join(f"== {path.parent.name}/{path.name}\n{path.read_text()[-1500:]}" for path in sorted(pool.folder.glob("node/*/*.log")))


def ctl(pool, *words):
    (router, *_) = [pod for pod in pool.node.find("pie-pool-router") if pod.ready]
    run = subprocess.run([os.environ["PIE"], "ctl", "--pool", f"http://{router.address}:7400", *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr + logs(pool)
    return run.stdout


def test_the_server_takes_every_render_and_warns_of_none(pool):
    for definition in definitions.custom_definitions().values():
        pool.command("kubectl", "create", "-f", "-", text=yaml.safe_dump(definition))
    for kind in (
        "certificates.cert-manager.io",
        "issuers.cert-manager.io",
        "servicemonitors.monitoring.coreos.com",
        "prometheusrules.monitoring.coreos.com",
    ):
        pool.command("kubectl", "wait", "--for=condition=Established", f"crd/{kind}", "--timeout=60s")
    # A pod, unlike a template of pods, is refused without its account.
    pool.command("kubectl", "-n", NAMESPACE, "create", "serviceaccount", "pool-pie-pool", "--save-config")
    for case, (values, files, _) in cases.ACCEPTED.items():
        if case == "lws":
            continue
        text = chart.template(values, files, namespace=NAMESPACE)
        # Classes are the cluster's own.
        text = "\n".join(line for line in text.splitlines() if "priorityClassName" not in line)
        run = pool.command("kubectl", "apply", "--namespace", NAMESPACE, "--dry-run=server", "--validate=strict", "-f", "-", text=text)
        # The level `restricted` warns of what it would refuse: a folder of the node, as values.yaml says.
        assert ("hostPath" in run.stderr) == (case == "hostpath"), f"{case}: {run.stderr}"
        assert case == "hostpath" or "Warning" not in run.stderr, f"{case}: {run.stderr}"


def test_install(pool):
    run = helm(pool, "install")
    assert "helm -n demo test pie-pool" in run.stdout
    assert len(pool.node.find("pie-pool-etcd")) == 3 and len(pool.node.find("pie-pool-worker")) == OVER["groups"]
    assert all(pod.ready for pod in serving(pool))
    # Until here a rank may have been started again, because etcd was not there yet.
    pool.installed = len(pool.node.events)


def test_helm_test_passes(pool):
    pool.command("helm", "test", "pie-pool", "--namespace", NAMESPACE, "--timeout", "2m")


def test_the_pool_completes(pool, tmp_path):
    file = tmp_path / "main.rs"
    file.write_text("fn main() {\n    let numbers = vec![1, 2, 3];\n    for number in ")
    ctl(pool, "open", str(file))
    assert ctl(pool, "complete", "main.rs", "--tokens", "4")
    described = ctl(pool, "pool")
    assert "g0" in described, described


def test_processes_are_nobody_and_their_files_read_only(pool):
    for pod in serving(pool):
        for container in pod.containers:
            status = pathlib.Path(f"/proc/{container.process.pid}/status").read_text()
            lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert lines["Uid"].split()[0] == "65532" and lines["CapEff"].strip() == "0000000000000000" and lines["NoNewPrivs"].strip() == "1"


def within_a_minute(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_upgrade_rolls_routers_without_a_gap_and_groups_one_at_a_time(pool):
    before = len(pool.node.events)
    gaps, done = [], threading.Event()

    def watch():
        while not done.is_set():
            ready = [pod for pod in pool.node.find("pie-pool-router") if pod.ready]
            if len(ready) < OVER["router"]["replicas"]:
                gaps.append(len(ready))
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    over = {"router": {"podAnnotations": {"roll": "1"}}, "worker": {"podAnnotations": {"roll": "1"}}}
    try:
        helm(pool, "upgrade", over=over)
        pool.command("kubectl", "-n", NAMESPACE, "rollout", "status", "statefulset/pie-pool-worker", "--timeout", "5m")
        pool.command("kubectl", "-n", NAMESPACE, "rollout", "status", "deployment/pie-pool-router", "--timeout", "5m")
    finally:
        done.set()
        thread.join()
    assert not [gap for gap in gaps if gap < 1], "at a time no router was ready"

    def ended():
        return [event for event in pool.node.events[before:] if event["what"] == "ended" and "router" in event["pod"]]

    # The rollout is over when the new ones are ready; the old ones may still be handing documents over.
    within_a_minute(lambda: len(ended()) == OVER["router"]["replicas"])
    happened = pool.node.events[before:]
    # A group ends only when the one before it is ready again.
    down, order = set(), []
    for event in happened:
        if "worker" in event["pod"] and event["what"] in ("terminating", "ready"):
            (down.add if event["what"] == "terminating" else down.discard)(event["pod"])
            assert len(down) <= 1, happened
            order.append(event["pod"])
    assert len(set(order)) == OVER["groups"]
    hooks = [event for event in happened if event["what"] == "hook"]
    assert len(hooks) == OVER["groups"] * 2, "each rank drains"
    assert {event["code"] for event in hooks} == {0}, hooks
    # Nobody had to be killed.
    for event in happened:
        if event["what"] == "ended":
            assert "killed" not in event["codes"], event


def test_documents_outlive_the_upgrade(pool):
    """Every router and every rank is another process by now; nobody opened the document again."""
    assert "let numbers" in ctl(pool, "show", "main.rs")
    assert ctl(pool, "complete", "main.rs", "--tokens", "4")


def test_rollback(pool):
    pool.command("helm", "rollback", "pie-pool", "1", "--namespace", NAMESPACE, "--wait", "--timeout", "6m")
    worker = pool.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/pie-pool-worker")
    assert "roll" not in worker["spec"]["template"]["metadata"]["annotations"]
    pool.command("helm", "test", "pie-pool", "--namespace", NAMESPACE, "--timeout", "2m")


def test_a_value_that_makes_no_sense_changes_nothing(pool):
    run = pool.command("helm", "upgrade", "pie-pool", str(chart.CHART), *SETTINGS, "--set", "groups=0", check=False)
    assert run.returncode != 0 and "groups" in run.stderr
    # Those that the rollback replaced may still be ending.
    within_a_minute(lambda: all(pod.ready for pod in serving(pool)))


def test_a_group_of_several_pods_serves(pool):
    """The layout `pods`: rank and address come from each pod's own label and address."""
    words = ["--set", "worker.layout=pods,groups=1,worldSize=4", "--wait", "--timeout", "5m"]
    pool.command("helm", "install", "spread", str(chart.CHART), *SETTINGS, *words)
    assert sorted(pod.name for pod in pool.node.find("spread-pie-pool-g0")) == [f"spread-pie-pool-g0-{rank}" for rank in range(4)]
    pool.command("helm", "test", "spread", "--namespace", NAMESPACE, "--timeout", "2m")
    pool.command("helm", "uninstall", "spread", "--namespace", NAMESPACE, "--wait", "--timeout", "3m")


def test_no_rank_was_restarted_by_a_probe(pool):
    wrong = [
        event for event in pool.node.events[pool.installed :] if event["what"] in ("killed", "restarted") and event["pod"].startswith("pie-pool")
    ]
    assert not wrong, wrong


def test_uninstall_leaves_only_the_data_of_etcd(pool):
    pool.command("helm", "uninstall", "pie-pool", "--namespace", NAMESPACE, "--wait", "--timeout", "3m")
    for _ in range(240):
        left = serving(pool)
        if not left:
            break
        time.sleep(0.5)
    assert not left
    run = pool.command(
        "kubectl",
        "-n",
        NAMESPACE,
        "get",
        "deployments,statefulsets,services,networkpolicies,poddisruptionbudgets,persistentvolumeclaims",
        "-o",
        "name",
    )
    assert {line.split("/")[0] for line in run.stdout.split()} == {"persistentvolumeclaim"}
