"""Renders the chart, and finds things in what comes out."""

import copy
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/pie-pool"


class Refused(Exception):
    """What helm said."""


def template(values=None, files=(), kube="1.37.0", release="pool", namespace="demo", chart=CHART, flags=()):
    """The text that `helm template` prints."""
    command = ["helm", "template", release, str(chart), "--namespace", namespace, "--kube-version", kube, *flags, "--values", "-"]
    for file in files:
        command[-2:-2] = ["--values", str(chart / file)]
    run = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True)
    if run.returncode != 0:
        raise Refused(run.stderr)
    return run.stdout


def documents(text):
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def render(*arguments, **named):
    return documents(template(*arguments, **named))


def name(document):
    return f"{document['kind']}/{document['metadata']['name']}"


def by_name(manifests):
    found = {name(document): document for document in manifests}
    assert len(found) == len(manifests), "two objects have the same name"
    return found


def pods(manifests):
    """Name and template of each kind of pod, as a Pod."""
    for document in manifests:
        spec = document.get("spec", {})
        if document["kind"] == "Pod":
            yield name(document), document
        elif document["kind"] == "LeaderWorkerSet":
            yield name(document), spec["leaderWorkerTemplate"]["workerTemplate"]
        elif "template" in spec and "spec" in spec["template"]:
            yield name(document), spec["template"]


def as_pod(pod):
    pod = copy.deepcopy(pod)
    pod.setdefault("metadata", {})["name"] = "pod"
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def environment(container):
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def merged(*values):
    """Values over values, as helm lays them."""
    into = {}
    for value in values:
        for key, entry in value.items():
            both = isinstance(entry, dict) and isinstance(into.get(key), dict)
            into[key] = merged(into[key], entry) if both else entry
    return into


def program():
    return os.environ["PIE"]
