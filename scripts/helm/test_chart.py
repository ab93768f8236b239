"""The chart: what it renders, refuses and means. Needs helm on the PATH; PIE names the program."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

import answers
import cases
import chart
import definitions
import known

GOLDENS = pathlib.Path(__file__).parent / "goldens"
RENDERED = {}


def render(case):
    if case not in RENDERED:
        values, files, _ = cases.ACCEPTED[case]
        RENDERED[case] = chart.template(values, files)
    return chart.documents(RENDERED[case])


each_case = pytest.mark.parametrize("case", cases.ACCEPTED)


@pytest.mark.parametrize("file", ["values.yaml", "values-laptop.yaml", "values-33b.yaml"])
def test_helm_lint_is_content(file):
    run = subprocess.run(["helm", "lint", "--strict", str(chart.CHART), "--values", str(chart.CHART / file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@each_case
def test_every_version_of_kubernetes_takes_what_is_rendered(case):
    oldest = cases.ACCEPTED[case][2]
    wrong = [
        f"{version}: {complaint}"
        for version in definitions.VERSIONS[definitions.VERSIONS.index(oldest) :]
        for document in render(case)
        if (complaint := definitions.complaints(document, version))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_definitions_are_strict():
    """What the test above trusts: a field that does not exist is found, in each kind."""
    for case in ("default", "lws", "secured", "tls"):
        for document in render(case):
            broken = json.loads(json.dumps(document))
            broken.setdefault("spec", broken)["nonsense"] = 1
            assert definitions.complaints(broken, "1.37"), chart.name(document)


@pytest.mark.parametrize("case", cases.GOLDEN)
def test_renders_are_those_that_were_looked_at(case):
    render(case)
    golden = GOLDENS / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(RENDERED[case])
    assert golden.exists() and RENDERED[case] == golden.read_text(), f"{golden.name} differs: scripts/helm/test.sh --update, and read the diff"


@pytest.mark.parametrize("what", cases.REFUSED)
def test_values_that_make_no_sense_are_refused(what):
    values, kube, word = cases.REFUSED[what]
    with pytest.raises(chart.Refused) as refused:
        chart.template(values, kube=kube)
    assert word in str(refused.value)


@pytest.mark.parametrize("there, wanted", [(1, 1), (3, 3), (1, 3), (3, 1)])
def test_members_of_etcd_are_not_changed_by_an_upgrade(there, wanted, tmp_path):
    manifests = chart.render(cases.CPU)
    member = chart.by_name(manifests)["StatefulSet/pool-pie-pool-etcd"]
    member["metadata"]["namespace"], member["spec"]["replicas"] = "demo", there
    cluster = answers.Answers(manifests, member)
    try:
        flags = ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", str(cluster.config(tmp_path))]
        values = {**cases.CPU, "etcd": {"replicas": wanted}}
        if there == wanted:
            assert chart.template(values, flags=flags)
        else:
            with pytest.raises(chart.Refused) as refused:
                chart.template(values, flags=flags)
            assert f"there are {there}" in str(refused.value) and "Delete the StatefulSet pool-pie-pool-etcd" in str(refused.value)
    finally:
        cluster.close()


def test_images_are_named_by_what_is_in_them():
    images = {container["name"]: container["image"] for _, pod in chart.pods(render("digests")) for container in chart.containers(pod)}
    assert images["router"] == f"pie-pool@{cases.DIGEST}"
    assert images["rank-7"] == f"pie-pool@{cases.DIGEST[:-1]}0"
    assert "PIE_CONNECTION_AGE" not in str(render("digests")) and "PIE_CONNECTION_AGE" in str(render("default"))


@pytest.mark.parametrize(
    "case, wanted",
    [
        ("default", {"PIE_REPAIR": "always", "PIE_REPAIR_WINDOW": "16"}),
        ("scaled", {"PIE_REPAIR": "idle", "PIE_REPAIR_WINDOW": "64", "PIE_FREE_ROWS": "0"}),
    ],
)
def test_routers_repair_as_the_values_say(case, wanted):
    (environment,) = [chart.environment(pod["spec"]["containers"][0]) for name, pod in chart.pods(render(case)) if "router" in name]
    found = {name: value for name, value in environment.items() if "REPAIR" in name or "FREE_ROWS" in name}
    assert found == wanted, "free rows are left to the router unless a number is given"


@pytest.mark.parametrize(("case", "ack", "size"), [("default", "replicated", None), ("scaled", "owner", "200Gi")])
def test_edits_and_rows_are_kept_as_the_values_say(case, ack, size):
    pods = dict(chart.pods(render(case)))
    router, worker = (next(pod for name, pod in pods.items() if role in name) for role in ("router", "worker"))
    assert chart.environment(router["spec"]["containers"][0])["PIE_ACK"] == ack
    for rank in worker["spec"]["containers"]:
        environment = chart.environment(rank)
        assert environment.get("PIE_KV_SPILL_SIZE") == size
        mounts = [mount["mountPath"] for mount in rank["volumeMounts"] if mount["name"] == "spill"]
        assert mounts == ([] if size is None else [str(pathlib.PurePosixPath(environment["PIE_KV_SPILL"]).parent)])


def test_addresses_are_all_of_the_family():
    text = json.dumps(render("ipv6"))
    assert "0.0.0.0" not in text and '"[::]:7400"' in text and '"[$(POD_IP)]:7500"' in text and "http://[::]:2379" in text


@each_case
def test_the_program_knows_every_setting_and_argument(case):
    program = known.Program(chart.program())
    wrong = []
    for pod_name, pod in chart.pods(render(case)):
        for container in chart.containers(pod):
            if container["name"] in ("etcd", "download"):
                continue
            hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
            assert hook is None or hook[0] == "/usr/local/bin/pie"
            hooks = [hook[1:]] if hook else []
            complaints = known.unknown(program, container["args"], chart.environment(container), hooks)
            wrong += [f"{pod_name} {container['name']}: {complaint}" for complaint in complaints]
    assert not wrong, "\n".join(wrong)


def test_an_unknown_setting_would_be_found():
    program = known.Program(chart.program())
    assert known.unknown(program, ["worker"], {"PIE_WORLD_SIZES": "8"}) == ["`pie worker` does not know PIE_WORLD_SIZES"]
    assert known.unknown(program, ["ctl", "pool", "--wait"], {}) == ["`pie ctl pool` has no --wait"]
    assert known.unknown(program, ["wroker"], {}) == ["`pie wroker` is no command"]


def keys(value, path=()):
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from keys(entry, (*path, key))
    else:
        yield ".".join(path)


def test_values_and_their_schema_name_the_same_keys():
    schema = json.loads((chart.CHART / "values.schema.json").read_text())

    def named(part, path=()):
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        if "properties" in part and path[-1:] != ("resources",):
            for key, entry in part["properties"].items():
                yield from named(entry, (*path, key))
        else:
            yield ".".join(path)

    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    for role in ("router", "worker", "etcd"):
        values[role]["resources"] = "amounts"
    assert set(keys(values)) == set(named(schema)) - {"global", "nameOverride"}


@each_case
def test_pods_are_restricted_and_have_no_rights(case):
    manifests = render(case)
    assert not {document["kind"] for document in manifests} & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    for pod_name, pod in chart.pods(manifests):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, pod_name
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in chart.containers(pod):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], container["name"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            # No shell anywhere: images have none.
            assert not {"sh", "bash", "/bin/sh", "/bin/bash"} & {*container.get("command", []), *container.get("args", [])}


@each_case
def test_what_is_mounted_is_there_and_what_is_there_is_mounted(case):
    for pod_name, pod in chart.pods(render(case)):
        mounts = {mount["name"] for container in chart.containers(pod) for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        if "etcd" in pod_name:
            volumes.add("data")
        assert mounts == volumes, pod_name
        for container in chart.containers(pod):
            folders = [mount["mountPath"] for mount in container["volumeMounts"]]
            files = [str(value) for value in chart.environment(container).values() if str(value).startswith("/etc/pie/")]
            for file in [*files, *filter(None, [chart.environment(container).get("XDG_CACHE_HOME")])]:
                assert any(file.startswith(folder) for folder in folders), f"{pod_name}: {file}"


@each_case
def test_services_budgets_and_scalers_find_their_pods(case):
    manifests = render(case)
    found = chart.by_name(manifests)
    pods = [pod for _, pod in chart.pods(manifests)]

    def chosen(labels):
        return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]

    for document in manifests:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert chosen(spec["selector"]), chart.name(document)
            for pod in chosen(spec["selector"]):
                ports = {port["name"]: port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"]}
                for port in spec["ports"]:
                    assert ports[port["targetPort"]] == port["port"]
        elif document["kind"] == "PodDisruptionBudget":
            assert chosen(spec["selector"]["matchLabels"]), chart.name(document)
        elif document["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert "replicas" not in found[f"{target['kind']}/{target['name']}"]["spec"]


def ranks(case):
    """(group, rank, environment, container) of every rank, counted out as Kubernetes would."""
    values, files, _ = cases.ACCEPTED[case]
    for document in render(case):
        if document["kind"] not in ("StatefulSet", "LeaderWorkerSet") or "etcd" in document["metadata"]["name"]:
            continue
        ((_, pod),) = chart.pods([document])
        replicas = document["spec"]["replicas"]
        size = document["spec"].get("leaderWorkerTemplate", {}).get("size", 1)
        for replica in range(replicas):
            for worker in range(size):
                labels = {
                    **pod["metadata"]["labels"],
                    "apps.kubernetes.io/pod-index": str(replica),
                    "leaderworkerset.sigs.k8s.io/group-index": str(replica),
                    "leaderworkerset.sigs.k8s.io/worker-index": str(worker),
                }
                for container in pod["spec"]["containers"]:
                    known_so_far = {}
                    for key, value in chart.environment(container).items():
                        if isinstance(value, dict):
                            path = value["fieldRef"]["fieldPath"]
                            value = "10.0.0.1" if path == "status.podIP" else labels[path.split("'")[1]]
                        for earlier, content in known_so_far.items():
                            value = value.replace(f"$({earlier})", content)
                        known_so_far[key] = value
                    yield known_so_far["PIE_GROUP"], int(known_so_far["PIE_RANK"]), known_so_far, container, pod


@each_case
def test_each_group_has_each_rank_once(case):
    values, files, _ = cases.ACCEPTED[case]
    whole = chart.merged(*[yaml.safe_load((chart.CHART / file).read_text()) for file in ["values.yaml", *files]], values)
    wanted = [(f"g{group}", rank) for group in range(whole["groups"]) for rank in range(whole["worldSize"])]
    found = list(ranks(case))
    assert sorted((group, rank) for group, rank, *_ in found) == sorted(wanted)
    router = chart.by_name(render(case))["Deployment/pool-pie-pool-router"]["spec"]["template"]["spec"]["containers"][0]
    assert chart.environment(router)["PIE_GROUP"].split(",") == sorted({group for group, _ in wanted}, key=lambda group: int(group[1:]))
    for _, _, environment, container, pod in found:
        assert "$(" not in "".join(environment.values())
        ports = {port["name"].rsplit("-", 1)[0]: port["containerPort"] for port in container["ports"]}
        for variable, port in [("PIE_WORKER_LISTEN", "control"), ("PIE_COLLECTIVE_LISTEN", "collective"), ("PIE_METRICS_LISTEN", "metrics")]:
            assert environment[variable].endswith(f":{ports[port]}")
        everything = [port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"]]
        assert len(everything) == len(set(everything)), "ranks of a pod share its ports"
        # The hook, and then the rank's own grace, end before Kubernetes loses patience.
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        assert int(hook[-1].rstrip("s")) + int(environment["PIE_DRAIN_GRACE"].rstrip("s")) < pod["spec"]["terminationGracePeriodSeconds"]


def test_a_group_is_one_pod_with_eight_gpus():
    ((_, pod),) = [entry for entry in chart.pods(render("default")) if "worker" in entry[0]]
    (claim,) = pod["spec"]["resourceClaims"]
    template = chart.by_name(render("default"))[f"ResourceClaimTemplate/{claim['resourceClaimTemplateName']}"]
    assert template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == 8
    assert [container["resources"]["claims"] for container in pod["spec"]["containers"]] == [[{"name": claim["name"]}]] * 8
    # All are seen by all: a rank takes that of its index.
    assert {chart.environment(container)["PIE_DEVICE"] for container in pod["spec"]["containers"]} == {"cuda"}
    ((_, pod),) = [entry for entry in chart.pods(render("plugin")) if "worker" in entry[0]]
    assert [container["resources"]["limits"]["nvidia.com/gpu"] for container in pod["spec"]["containers"]] == [1] * 8
    assert {chart.environment(container)["PIE_DEVICE"] for container in pod["spec"]["containers"]} == {"cuda:0"}


@each_case
def test_probes_wait_for_loading_and_spare_the_busy(case):
    encrypted = cases.ACCEPTED[case][0].get("tls", {}).get("internal", {}).get("source", "none") != "none"
    for _, _, _, container, _ in ranks(case):
        ready = [container["startupProbe"], container["readinessProbe"]]
        assert all(("httpGet" if encrypted else "grpc") in probe for probe in ready)
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 300
        alive = container["livenessProbe"]
        assert alive["httpGet"]["path"] == "/healthz" and alive["periodSeconds"] * alive["failureThreshold"] >= 120


def reaches(manifests, source, target, port):
    """Do the network policies let a pod with labels `source` reach this port of one with labels `target`?"""
    policies = [document["spec"] for document in manifests if document["kind"] == "NetworkPolicy"]
    policies = [spec for spec in policies if spec["podSelector"]["matchLabels"].items() <= target["labels"].items()]
    assert policies, "a pod that no policy guards"

    def open_port(ports):
        names = target["ports"]
        return ports is None or any(
            entry["port"] in (names.get(port), port)
            or (isinstance(entry["port"], int) and entry["port"] <= port <= entry.get("endPort", entry["port"]))
            for entry in ports
        )

    def open_peer(peers):
        def one(peer):
            if "namespaceSelector" in peer:
                return peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == source.get("namespace")
            return "namespace" not in source and peer["podSelector"]["matchLabels"].items() <= source.items()

        return peers is None or any(map(one, peers))

    return any(open_port(rule.get("ports")) and open_peer(rule.get("from")) for spec in policies for rule in spec["ingress"])


def pod_of(component, **more):
    labels = {"app.kubernetes.io/name": "pie-pool", "app.kubernetes.io/instance": "pool", "app.kubernetes.io/component": component}
    ports = {"router": {7400: "grpc", 7401: "peer", 9400: "metrics"}, "etcd": {2379: "client", 2380: "peer", 2381: "metrics"}, "worker": {}}
    return {"labels": {**labels, **more}, "ports": ports.get(component, {})}


def test_network_policies_open_what_is_needed_and_nothing_else():
    manifests = render("secured")
    sources = {
        **{role: pod_of(role)["labels"] for role in ("router", "worker", "etcd", "test")},
        "editor": {"editor": "yes"},
        "stranger": {},
        "prometheus": {"namespace": "monitoring"},
        "other namespace": {"namespace": "x"},
    }
    wanted = {
        ("router", 7400): {"worker", "test", "editor"},
        ("router", 7401): {"router"},
        ("router", 9400): {"prometheus"},
        ("worker", 7500): {"router"},
        ("worker", 7507): {"router"},
        ("worker", 7508): set(),
        ("worker", 7600): set(),
        ("worker", 9407): {"prometheus"},
        ("etcd", 2379): {"router", "worker"},
        ("etcd", 2380): {"etcd"},
        ("etcd", 2381): {"prometheus"},
    }
    for (role, port), who in wanted.items():
        assert {source for source, labels in sources.items() if reaches(manifests, labels, pod_of(role), port)} == who, (role, port)


@pytest.mark.parametrize("case, label", [("pods", {"pie-pool/group": "g{}"}), ("lws", {"leaderworkerset.sigs.k8s.io/group-index": "{}"})])
def test_ranks_reach_those_of_their_own_group(case, label):
    def of(group):
        return pod_of("worker", **{key: value.format(group) for key, value in label.items()})

    manifests = render(case)
    assert reaches(manifests, of(0)["labels"], of(0), 7600) and reaches(manifests, of(1)["labels"], of(1), 40000)
    assert not reaches(manifests, of(0)["labels"], of(1), 7600)
    assert not reaches(manifests, pod_of("router")["labels"], of(0), 7600)


def test_private_keys_stay_where_they_belong():
    """Workers get the routers' public authority, not their key; nobody but the test and the hook gets the admin token."""
    for case in ("tls", "secured"):
        for pod_name, pod in chart.pods(render(case)):
            secrets = {volume["name"]: volume["secret"] for volume in pod["spec"].get("volumes", []) if "secret" in volume}
            if "Deployment" in pod_name:
                assert "token" not in secrets and set(secrets) >= {"public", "internal"}
            elif "etcd" in pod_name:
                assert not secrets
            else:
                assert "public" not in secrets and secrets["ca"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_certificates_name_the_roles():
    certificates = {document["metadata"]["name"]: document["spec"] for document in render("tls") if document["kind"] == "Certificate"}
    for role in ("router", "worker"):
        certificate = certificates[f"pool-pie-pool-{role}-internal"]
        assert certificate["dnsNames"] == [f"pie-{role}"] and set(certificate["usages"]) >= {"server auth", "client auth"}
    # An authority that also signs public names could not vouch for roles.
    assert certificates["pool-pie-pool-public"]["issuerRef"] != certificates["pool-pie-pool-router-internal"]["issuerRef"]
    assert "pool-pie-pool.demo.svc" in certificates["pool-pie-pool-public"]["dnsNames"]


def test_alerts_and_dashboard_are_the_ones_that_ship():
    found = chart.by_name(render("watched"))
    alerts = yaml.safe_load((chart.CHART / "alerts/pie-pool.yaml").read_text())
    assert found["PrometheusRule/pool-pie-pool"]["spec"] == alerts
    board = found["ConfigMap/pool-pie-pool-dashboard"]["data"]["pie-pool.json"]
    assert json.loads(board) == json.loads((chart.CHART / "dashboards/pie-pool.json").read_text())


def test_every_process_is_scraped_once():
    found = chart.by_name(render("watched"))
    monitor = found["ServiceMonitor/pool-pie-pool"]["spec"]
    wanted = set(monitor["selector"]["matchLabels"].items())
    scraped = []
    for document in found.values():
        if document["kind"] == "Service" and wanted <= set(document["metadata"]["labels"].items()):
            names = {entry["port"] for entry in monitor["endpoints"]}
            scraped += [
                (document["spec"]["selector"]["app.kubernetes.io/component"], port["port"])
                for port in document["spec"]["ports"]
                if port["name"] in names
            ]
    assert sorted(scraped) == sorted([("router", 9400), ("etcd", 2381), *(("worker", 9400 + rank) for rank in range(8))])


def test_the_download_takes_what_each_role_needs():
    for pod_name, pod in chart.pods(render("hub")):
        if "etcd" in pod_name or "test" in pod_name:
            continue
        (download,) = pod["spec"]["initContainers"]
        includes = {argument for argument in download["args"] if argument.startswith("--include")}
        assert ("--include=*.safetensors" in includes) == ("StatefulSet" in pod_name)
        assert chart.environment(download)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
        folder = [argument.split("=")[1] for argument in download["args"] if argument.startswith("--local-dir")]
        for container in pod["spec"]["containers"]:
            assert [chart.environment(container)["PIE_MODEL"]] == folder


def test_the_notes_tell_the_next_command(tmp_path):
    """Without a cluster helm prints no notes: a copy of the chart has them as an object."""
    copy = shutil.copytree(chart.CHART, tmp_path / "pie-pool")
    shutil.move(copy / "templates/NOTES.txt", copy / "notes.txt")
    (copy / "templates/notes.yaml").write_text('kind: Notes\nmetadata: {name: notes}\ntext: |{{ tpl (.Files.Get "notes.txt") . | nindent 2 }}\n')

    def notes(values):
        return chart.by_name(chart.render(values, chart=copy))["Notes/notes"]["text"]

    plain = notes(cases.CPU)
    assert "helm -n demo test pool" in plain and "port-forward service/pool-pie-pool 7400" in plain and "tls.internal.source" in plain
    secured = notes({**cases.CPU, **cases.TLS, **cases.TOKENS})
    assert "PIE_CA=ca.crt" in secured and "PIE_TOKEN_FILE" in secured and "plain text" not in secured
    assert "delete pod" in notes({**cases.CPU, "worker": {"layout": "pods"}})
