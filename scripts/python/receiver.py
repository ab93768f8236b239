"""A receiver of traces as others write it: gRPC, OpenTelemetry's own messages, and nothing of pie-pool's."""

from concurrent import futures
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


def values(attributes) -> dict:
    """Attributes as plain values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@dataclass(frozen=True)
class Span:
    """A span, with who sent it."""

    resource: dict
    name: str
    trace: str
    id: str
    parent: str
    state: str
    kind: int
    start: int
    end: int
    attributes: dict
    links: tuple[tuple[str, str], ...]
    status: trace_pb2.Status
    events: int

    @property
    def service(self) -> str:
        return self.resource["service.name"]


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes all that comes."""

    def __init__(self, port: int = 0):
        self.spans: list[Span] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def Export(self, request, context):  # noqa: N802  (the name of the call)
        for sent in request.resource_spans:
            resource = values(sent.resource.attributes)
            self.spans += [self._span(resource, span) for scope in sent.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    @staticmethod
    def _span(resource: dict, span) -> Span:
        links = tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links)
        return Span(
            resource,
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.trace_state,
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            values(span.attributes),
            links,
            span.status,
            len(span.events),
        )

    def named(self, name: str, **attributes) -> list[Span]:
        """The spans of a name that have these attributes."""
        return [each for each in self.spans if each.name == name and attributes.items() <= each.attributes.items()]

    def close(self) -> None:
        self._server.stop(None).wait()
