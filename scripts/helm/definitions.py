"""Checks manifests against the definitions of Kubernetes' versions, of cert-manager, of the Prometheus operator and of LeaderWorkerSet."""

import copy
import functools
import json
import os
import pathlib
import subprocess

import jsonschema
import kubernetes_validate
import yaml

import chart

VERSIONS = ["1.30", "1.33", "1.34", "1.35", "1.37"]
# Go modules that have custom resources' definitions in them.
MODULES = {
    "github.com/cert-manager/cert-manager@v1.21.2": "deploy/crds/cert-manager.io_*.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*.yaml",
}


# It reads the definitions anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


class Loader(yaml.CSafeLoader):
    """One that takes `=` as a text."""


Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)


@functools.cache
def custom_definitions():
    """Kind: the whole definition; downloaded with go."""
    found = {}
    for module, files in MODULES.items():
        command = ["go", "mod", "download", "-json", module]
        run = subprocess.run(command, cwd=os.environ.get("TMPDIR", "/tmp"), capture_output=True, text=True, check=True)
        folder = pathlib.Path(json.loads(run.stdout)["Dir"])
        for path in folder.glob(files):
            definition = yaml.load(path.read_text(), Loader)
            found[definition["spec"]["names"]["kind"]] = definition
    return found


def strict(schema):
    """The schema, refusing what it does not name, as a server does that is asked to be strict."""
    schema = copy.deepcopy(schema)

    def close(part):
        if not isinstance(part, dict):
            return
        if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
        if part.pop("x-kubernetes-int-or-string", False):
            part.pop("anyOf", None)
            part["type"] = ["integer", "string"]
        # Go's way to say: whatever the case.
        if "pattern" in part:
            part["pattern"] = part["pattern"].replace("^(?i)", "(?i)^")
        for entry in part.get("properties", {}).values():
            close(entry)
        for key in ("items", "additionalProperties"):
            close(part.get(key))

    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def complaints(document, version):
    """What is wrong with an object for this version of Kubernetes, or nothing."""
    try:
        kind = document["kind"]
        if kind == "LeaderWorkerSet":
            schema = json.loads((pathlib.Path(__file__).parent / "schemas/leaderworkerset.json").read_text())
            jsonschema.validate(document, schema)
            for _, pod in chart.pods([document]):
                kubernetes_validate.validate(chart.as_pod(pod), version, strict=True)
        elif document["apiVersion"].split("/")[0] in ("cert-manager.io", "monitoring.coreos.com"):
            definition = custom_definitions()[kind]["spec"]
            wanted = document["apiVersion"].split("/")[1]
            (served,) = [entry for entry in definition["versions"] if entry["name"] == wanted and entry["served"]]
            jsonschema.Draft202012Validator(strict(served["schema"]["openAPIV3Schema"])).validate(document)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{chart.name(document)}: {'/'.join(map(str, error.path))}: {error.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"{chart.name(document)}: Kubernetes {version} has no {document['apiVersion']} {document['kind']}"
    return None
