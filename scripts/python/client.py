"""A client as somebody else would write it: grpcio, the generated stub, and nothing of pie-pool's own code."""

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from pie.v1 import pie_pb2 as pb
from pie.v1 import pie_pb2_grpc

TIMEOUT = 30.0
DOMAIN = "pie-pool"


def connect(address: str) -> grpc.Channel:
    """A channel to the pool, past any proxy that the environment names."""
    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
    return channel


def at_bytes(start: int, end: int, text: str = "") -> pb.TextEdit:
    """Replaces bytes of UTF-8."""
    return pb.TextEdit(bytes=pb.ByteRange(start=start, end=end), text=text)


def at_lsp(start: tuple[int, int], end: tuple[int, int], text: str = "") -> pb.TextEdit:
    """Replaces between two (line, UTF-16 column) positions."""
    position = [pb.LspPosition(line=line, utf16_column=column) for line, column in (start, end)]
    return pb.TextEdit(lsp=pb.LspRange(start=position[0], end=position[1]), text=text)


def splice(at: int, delete: int, *insert: int) -> pb.TokenSplice:
    return pb.TokenSplice(at=at, delete=delete, insert=insert)


@dataclass
class Refusal:
    """A failed call, as the client can take it apart."""

    code: grpc.StatusCode
    message: str
    reason: str | None
    metadata: dict[str, str]
    # Of `google.rpc.RetryInfo`.
    retry_after_ms: int | None = None


def refusal(error: grpc.RpcError) -> Refusal:
    """Takes `google.rpc.ErrorInfo` out of a failed call."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # grpcio does not decode the message of an answer that comes before the request is sent whole, and then finds that it differs.
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    pause = None
    for detail in status.details if status else []:
        if detail.Unpack(info):
            assert info.domain == DOMAIN, f"domain {info.domain!r}"
        elif detail.Unpack(retry):
            pause = retry.retry_delay.ToMilliseconds()
    return Refusal(error.code(), error.details(), info.reason or None, dict(info.metadata), pause)


def refused(call, *arguments, **named) -> Refusal:
    """Makes a call that must fail, to the end of its stream if it has one."""
    try:
        answer = call(*arguments, **named)
        answer = list(answer) if hasattr(answer, "__next__") else answer
    except grpc.RpcError as error:
        return refusal(error)
    raise AssertionError(f"the call was not refused, it answered: {answer}")


@dataclass
class Completion:
    """A whole completion, put together from its stream; what holds for every stream is asserted on the way."""

    text: str = ""
    tokens: list[pb.CompletedToken] = field(default_factory=list)
    finish: int = pb.FINISH_REASON_UNSPECIFIED
    timings: pb.Timings | None = None
    revision: int = 0

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @staticmethod
    def read(stream) -> "Completion":
        whole = Completion()
        revisions = set()
        for message in stream:
            assert whole.finish == pb.FINISH_REASON_UNSPECIFIED, "a message behind the one with the finish reason"
            if message.HasField("timings"):
                assert not whole.tokens and message.tokens, "timings come with the first token, once"
                whole.timings = message.timings
            whole.text += message.text_delta
            whole.tokens += message.tokens
            whole.finish = message.finish_reason
            revisions.add(message.revision)
        assert len(revisions) == 1, f"a completion continues one revision, not {revisions}"
        assert whole.finish != pb.FINISH_REASON_UNSPECIFIED, "the stream ended without a finish reason"
        assert (whole.timings is not None) == bool(whole.tokens), "the first token brings the timings"
        whole.revision = revisions.pop()
        return whole


class Client:
    """The pool's calls with the fields spelled as arguments; closes the sessions that it opened."""

    def __init__(self, channel: grpc.Channel, tenant: str | None = None):
        self._metadata = [("pie-tenant", tenant)] if tenant else []
        self.stub = pie_pb2_grpc.PoolStub(channel)
        self._opened: set[str] = set()
        # The latest revision of each session that this client has heard of: they begin anywhere.
        self.heard: dict[str, int] = {}

    def open(self, text: str | None = None, *, tokens=None, session: str = "", strategy: int = 0, control_tokens: bool = False):
        request = pb.OpenSessionRequest(session=session, strategy=strategy, control_tokens=control_tokens)
        if text is not None:
            request.text = text
        if tokens is not None:
            request.tokens.CopyFrom(pb.Tokens(ids=tokens))
        opened = self.stub.OpenSession(request, timeout=TIMEOUT, metadata=self._metadata)
        self._opened.add(opened.session)
        self.heard[opened.session] = opened.revision
        return opened

    def edit(self, session: str, revision: int | None, *edits: pb.TextEdit, strategy: int = 0, identity: str = ""):
        """`None`: the latest revision that this client has heard of."""
        return self._apply(session, revision, strategy=strategy, identity=identity, text=pb.TextEdits(edits=edits))

    def change(self, session: str, revision: int | None, *edits: pb.TextEdit, encoding: int = 0):
        """Edits that follow each other, as an editor's didChange has them."""
        text = pb.TextEdits(edits=edits, sequential=True, position_encoding=encoding)
        return self._apply(session, revision, text=text)

    def _apply(self, session: str, revision: int | None, **fields):
        base = self.heard.get(session, 0) if revision is None else revision
        request = pb.ApplyEditsRequest(session=session, base_revision=base, **fields)
        applied = self.stub.ApplyEdits(request, timeout=TIMEOUT, metadata=self._metadata)
        self.heard[session] = applied.revision
        return applied

    def splice(self, session: str, revision: int | None, *splices: pb.TokenSplice, strategy: int = 0):
        return self._apply(session, revision, strategy=strategy, tokens=pb.TokenSplices(splices=splices))

    def stream(self, session: str, timeout: float = TIMEOUT, **fields):
        return self.stub.Complete(pb.CompleteRequest(session=session, **fields), timeout=timeout, metadata=self._metadata)

    def complete(self, session: str, **fields) -> Completion:
        return Completion.read(self.stream(session, **fields))

    def get(self, session: str, content: bool = True, identity: str = "") -> pb.GetSessionResponse:
        request = pb.GetSessionRequest(session=session, content=content, identity=identity)
        got = self.stub.GetSession(request, timeout=TIMEOUT, metadata=self._metadata)
        self.heard[session] = got.session.revision
        return got

    def close(self, session: str, identity: str = "") -> None:
        request = pb.CloseSessionRequest(session=session, identity=identity)
        self.stub.CloseSession(request, timeout=TIMEOUT, metadata=self._metadata)
        self._opened.discard(session)

    def list(self, page_size: int = 0, page_token: str = "") -> pb.ListSessionsResponse:
        request = pb.ListSessionsRequest(page_size=page_size, page_token=page_token)
        return self.stub.ListSessions(request, timeout=TIMEOUT, metadata=self._metadata)

    def describe(self) -> pb.DescribePoolResponse:
        return self.stub.DescribePool(pb.DescribePoolRequest(), timeout=TIMEOUT)

    def slots_free(self) -> int:
        return self.describe().groups[0].slots_free

    def close_all(self) -> None:
        for session in sorted(self._opened):
            self.close(session)
