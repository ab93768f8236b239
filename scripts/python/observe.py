"""What a platform sees of a process: its metrics, liveness and readiness, and its gRPC health."""

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc
from pool import binary, environment
from prometheus_client.parser import text_string_to_metric_families

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(address: str, path: str) -> tuple[int, str]:
    """The status and text of an endpoint."""
    try:
        with OPENER.open(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Scrape:
    """One scrape: samples by name and labels."""

    def __init__(self, address: str):
        status, self.text = ask(address, "/metrics")
        assert status == 200, self.text
        self.families = list(text_string_to_metric_families(self.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        found = [each.value for each in self.samples if each.name == name and labels.items() <= each.labels.items()]
        assert found, f"no sample {name} {labels}"
        return sum(found)

    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}


def health(channel, service: str = "") -> str:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


class Process:
    """`pie router` or `pie worker`, started by hand."""

    def __init__(self, folder: Path, cache: Path, name: str, *arguments: str):
        self.log, self.ready = folder / f"{name}.log", folder / f"{name}.json"
        more = ["--ready-file", str(self.ready)] if arguments[0] == "router" else []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(binary()), *arguments, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(cache)
            )

    def facts(self) -> dict | None:
        """What a router wrote when it began to listen."""
        assert self.process.poll() is None, self.output()
        text = self.ready.read_text() if self.ready.exists() else ""
        return json.loads(text) if text.endswith("\n") else None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
