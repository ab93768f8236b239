"""The images and the compose file, where there is no container engine: linted, and done step by step in roots of their own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import pytest
import yaml

import stages

sys.path.insert(0, str(stages.ROOT / "scripts/helm"))
import known  # noqa: E402

DEPLOY = stages.ROOT / "deploy"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"


@pytest.fixture(scope="module")
def folder():
    made = pathlib.Path(tempfile.mkdtemp(prefix="pie-deploy-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_hadolint_is_content():
    run = subprocess.run(["hadolint", "--failure-threshold", "style", str(stages.DOCKERFILE)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_images_run_as_nobody_without_a_shell():
    found = stages.stages()
    for name in ("cpu", "cuda", "download"):
        instructions = dict(found[name][1])
        assert instructions["USER"] == "65532:65532", name
        assert instructions["ENTRYPOINT"].startswith("["), "the form with a shell"
    for base, _ in found.values():
        assert ":" in base or base in found, f"{base} has no version"
        assert not base.endswith(":latest")


def test_the_build_sees_all_that_it_reads():
    """Files that the crates take into the program lie in the context."""
    seen = stages.context()
    lines = subprocess.run(
        ["grep", "-rnoE", "--exclude-dir=tests", "--exclude-dir=benches", r'include_(str|bytes)!\("(\.\./)+[^"]+"', "crates", "--include=*.rs"],
        cwd=stages.ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert lines
    for line in lines.splitlines():
        file, _, match = line.split(":", 2)
        path = os.path.normpath(os.path.join(os.path.dirname(file), match.split('"')[1]))
        assert path.split("/")[0] in seen, line


def cpu(folder):
    """The stage `cpu` around the program that is there."""
    build = folder / "build"
    (build / "src/target/release").mkdir(parents=True)
    (build / "empty").mkdir()
    subprocess.run(["strip", "--strip-debug", "-o", str(build / "src/target/release/pie"), os.environ["PIE"]], check=True)
    root = folder / "cpu"
    root.mkdir()
    made = stages.Root(stages.distroless(root))
    made.build(stages.stages()["cpu"][1], {"build": build}, subprocess.DEVNULL)
    return made


def test_the_cpu_image_serves_read_only_as_nobody_without_a_shell(folder):
    made = cpu(folder)
    assert not [path for path in ("bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/env") if (made.folder / path).exists()]
    script = [
        "set -e",
        "mount --make-rprivate /",
        f"mkdir -p {made.folder}/dev {made.folder}/proc",
        f"touch {made.folder}/dev/null {made.folder}/dev/urandom",
        f"mount --bind /dev/null {made.folder}/dev/null",
        f"mount --bind /dev/urandom {made.folder}/dev/urandom",
        f"mount --bind {made.folder} {made.folder}",
        f"mount -t proc proc {made.folder}/proc",
        f"mount -t tmpfs -o uid=65532 tmpfs {made.folder}/cache",
        f"mount --bind /dev/null {made.folder}/dev/null",
        f"mount --bind /dev/urandom {made.folder}/dev/urandom",
        f"mount -o remount,bind,ro {made.folder}",
        "ip link set lo up",
    ]
    run = f"env -i {' '.join(f'{key}={value}' for key, value in made.env.items())} /usr/bin/setpriv --no-new-privs --inh-caps=-all /usr/sbin/chroot --userspec={made.user} {made.folder} {' '.join(made.entry)}"
    script += [
        f"if {run} pool --model /nowhere 2>&1; then exit 9; fi",
        f"{run} pool --world-size 2 --kv-memory 16MiB --threads 1 --metrics-listen 127.0.0.1:9400 & pool=$!",
        # A pool that is there answers; one that is not, is asked again.
        f"for try in $(seq 120); do if answer=$({run} ctl pool 2>&1); then break; fi; sleep 0.5; done",
        'kill -TERM $pool; wait $pool; echo "$answer"',
    ]
    run = subprocess.run(["unshare", "--mount", "--net", "bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "is no model" in run.stdout and "pie-coder" in run.stdout, run.stdout


def test_the_download_image_downloads(folder):
    """Its packages, in a Python environment; from a hub of our own, whose files it leaves where the chart expects them."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (install,) = [rest for word, rest in stages.stages()["download"][1] if word == "RUN"]
    requirements = (DEPLOY / "download-requirements.txt").read_text()
    words = install.replace("/requirements.txt", str(DEPLOY / "download-requirements.txt")).split()
    subprocess.run([str(venv / "bin/pip"), "-q", *words[1:]], check=True)
    assert subprocess.run([str(venv / "bin/pip"), "check"], capture_output=True).returncode == 0, requirements
    import hub

    with hub.serve(stages.ROOT / "models/pie-coder") as (url, asked):
        target = folder / "models/pie-coder"
        environment = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(folder / "hub"),
            "HF_TOKEN": "hf_secret",
            "PATH": f"{venv}/bin",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        command = ["hf", "download", "pie/pie-coder", "--revision=main", f"--local-dir={target}", "--include=*.json", "--include=*.safetensors"]
        for _ in range(2):
            run = subprocess.run(command, env=environment, executable=str(venv / "bin/hf"), capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, run.stderr
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (target / name).read_bytes() == (stages.ROOT / "models/pie-coder" / name).read_bytes()
    assert not (target / "README.md").exists()
    assert "Bearer hf_secret" in asked["tokens"] and asked["bytes"]["model.safetensors"] == 1, "what is there already is not fetched again"


def test_compose_is_what_its_specification_says(compose):
    run = subprocess.run(["go", "mod", "download", "-json", COMPOSE], cwd=tempfile.gettempdir(), capture_output=True, text=True, check=True)
    schema = json.loads((pathlib.Path(json.loads(run.stdout)["Dir"]) / "schema/compose-spec.json").read_text())
    jsonschema.validate(compose, schema)
    broken = {**compose, "services": {"router": {"imagge": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_program_knows_what_compose_tells_it(compose):
    program = known.Program(os.environ["PIE"])
    ours = {name: service for name, service in compose["services"].items() if service["image"].startswith("pie-pool")}
    assert set(ours) == {"router", "rank-0", "rank-1"}
    for name, service in ours.items():
        hooks = [service["healthcheck"]["test"][2:]] if "healthcheck" in service else []
        assert not known.unknown(program, service["command"], service["environment"], hooks), name
        assert service["read_only"] and service["user"] == "65532:65532" and service["cap_drop"] == ["ALL"]


def test_compose_mounts_files_that_are_there_and_opens_only_this_machine(compose):
    subnet = compose["networks"]["pool"]["ipam"]["config"][0]["subnet"].rsplit(".", 1)[0]
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for key, value in service.get("environment", {}).items():
            if key in ("PIE_WORKER_LISTEN", "PIE_COLLECTIVE_LISTEN", "PIE_ADVERTISE"):
                assert value.split(":")[0] == service["networks"]["pool"]["ipv4_address"] and value.startswith(subnet)


def test_prometheus_and_its_rules_are_sound(compose, folder):
    place = folder / "prometheus"
    place.mkdir()
    text = (DEPLOY / "prometheus/prometheus.yaml").read_text().replace("/etc/prometheus/alerts", str(stages.ROOT / "helm/pie-pool/alerts"))
    (place / "prometheus.yaml").write_text(text)
    run = subprocess.run(["promtool", "check", "config", str(place / "prometheus.yaml")], capture_output=True, text=True)
    assert run.returncode == 0 and "SUCCESS" in run.stdout, run.stdout + run.stderr
    targets = [target for job in yaml.safe_load(text)["scrape_configs"] for config in job["static_configs"] for target in config["targets"]]
    assert {target.split(":")[0] for target in targets} == {"router", "rank-0", "rank-1", "etcd"} <= set(compose["services"])


def test_the_collector_s_pipeline_names_what_is_there():
    config = yaml.safe_load((DEPLOY / "otel/collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= set(config[kind]), kind
