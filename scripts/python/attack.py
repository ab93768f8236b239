"""One tenant's hostile calls, of every kind at once. A process of its own: `attack.py ADDRESS NAME [KIND…]`.

Each line of its input is a number of seconds; so long it attacks, each kind once at a time, and then says, in a line of JSON, what became
of the calls of each kind. Several such processes attack together: one of Python would be too slow. They get the processors
that nobody else wants: what is tried is whether the pool shares itself out, not whether two processors do.
"""

import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter, defaultdict

import stubs

stubs.generate()

import grpc  # noqa: E402  (the generated code comes first)
from client import at_bytes, at_lsp, refusal, splice  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402
from pie.v1 import pie_pb2_grpc  # noqa: E402

TENANT = [("pie-tenant", "mallory")]
# Nobody waits longer for an answer, so that an attack ends.
TIMEOUT = 5.0
LINE = "let answer = compute(x, y) + 1;\n"
MIB = 1 << 20
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


class Attacker:
    """One that makes calls of one kind until the time is over."""

    def __init__(self, address: str, name: str, context: int, over: threading.Event, outcomes: Counter):
        self.address, self.over, self.outcomes = address, over, outcomes
        self.name, self.choose = name, random.Random(name)
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        self.stub = pie_pb2_grpc.PoolStub(self.channel)
        self.context = context

    def call(self, method, request, **how):
        """Makes a call; what becomes of it is counted."""
        try:
            answer = method(request, timeout=TIMEOUT, metadata=how.pop("metadata", TENANT), **how)
        except grpc.RpcError as error:
            self.refused(error)
            return None
        self.outcomes["answered"] += 1
        return answer

    def refused(self, error: grpc.RpcError) -> None:
        found = refusal(error)
        self.outcomes[found.reason or found.code.name] += 1

    def open(self, text: str, name: str | None = None):
        return self.call(self.stub.OpenSession, pb.OpenSessionRequest(session=name or self.name, text=text))

    def edit(self, *edits, revision: int = 0, name: str | None = None):
        request = pb.ApplyEditsRequest(session=name or self.name, base_revision=revision)
        request.text.edits.extend(edits)
        return self.call(self.stub.ApplyEdits, request)

    def complete(self, **fields):
        return self.stub.Complete(pb.CompleteRequest(session=self.name, **fields), timeout=TIMEOUT, metadata=TENANT)

    def read(self, stream, messages: int | None = None) -> None:
        """Reads a completion, or only so much of it."""
        try:
            for _ in itertools.islice(stream, messages):
                pass
            self.outcomes["answered"] += 1
        except grpc.RpcError as error:
            self.refused(error)
        stream.cancel()


# Made once: whoever attacks has better things to do with a processor.
CODE = ("".join(random.Random(1).choices("abcdefghij \n(){};", k=1000)) * 16800)[: 16 * MIB]
WORD = "a" * 16 * MIB
TOKENS = pb.Tokens(ids=[7] * 1_000_000)
# A text of 64 MiB, 64 KiB as it is sent.
BOMB = b"\x12\x80\x80\x80\x20" + bytes(64 * MIB)


def huge_opens(one: Attacker) -> None:
    one.open(CODE)


def huge_opens_of_one_word(one: Attacker) -> None:
    one.open(WORD)


def opens_without_end(one: Attacker) -> None:
    # Always other documents, under as many names as leave some of the tenant's sessions to the other kinds.
    one.open(f"// {one.choose.random()}\n" + LINE * 200, name=f"{one.name} {one.choose.randrange(30)}")


def the_same_name_again_and_again(one: Attacker) -> None:
    one.open(f"// {one.choose.random()}\n" + LINE * 50)
    one.call(one.stub.CloseSession, pb.CloseSessionRequest(session=one.name))


def endless_lists_of_tokens(one: Attacker) -> None:
    one.call(one.stub.OpenSession, pb.OpenSessionRequest(session=one.name, tokens=TOKENS))


def huge_edits(one: Attacker) -> None:
    opened = one.open(LINE)
    if opened:
        one.edit(at_bytes(0, 0, CODE[: 8 * MIB]), revision=opened.revision)


def thousands_of_edits_in_a_call(one: Attacker) -> None:
    opened = one.open(" " * 60_000)
    one.edit(*(at_bytes(at, at + 1, "x") for at in range(0, 60_000, 2)), revision=opened.revision if opened else 0)


def floods_of_edits(one: Attacker) -> None:
    opened = one.open(LINE * 20)
    revision = opened.revision if opened else 0
    requests = []
    for number in range(200):
        request = pb.ApplyEditsRequest(session=one.name, base_revision=revision + number)
        request.text.edits.append(at_bytes(number, number, "x"))
        requests.append(one.stub.ApplyEdits.future(request, timeout=TIMEOUT, metadata=TENANT))
    for request in requests:
        error = request.exception()
        one.refused(error) if error else one.outcomes.update(["answered"])


def floods_of_splices(one: Attacker) -> None:
    opened = one.call(one.stub.OpenSession, pb.OpenSessionRequest(session=one.name, tokens=pb.Tokens(ids=range(100, 600))))
    for number in range(50):
        request = pb.ApplyEditsRequest(session=one.name, base_revision=(opened.revision if opened else 0) + number)
        request.tokens.splices.extend([splice(at, 1, 7) for at in range(0, 400, 2)])
        one.call(one.stub.ApplyEdits, request)


def completions_that_nobody_reads(one: Attacker) -> None:
    if one.open(LINE * 20):
        streams = [one.complete(max_tokens=4000) for _ in range(8)]
        one.over.wait(1.0)
        for stream in streams:
            one.read(stream, 1)


def completions_that_are_given_up_at_once(one: Attacker) -> None:
    if one.open(LINE * 20):
        for _ in range(20):
            one.complete(max_tokens=400).cancel()
            one.outcomes["answered"] += 1


def costly_completions(one: Attacker) -> None:
    if one.open(LINE * 20):
        stops = ["never" + "x" * 1000 + str(number) for number in range(16)]
        one.read(one.complete(max_tokens=200, top_logprobs=20, temperature=1.5, top_p=0.99, stop=stops))


def filling_in_at_the_edge_of_the_context(one: Attacker) -> None:
    tokens = one.context - one.choose.choice([3, 2, 1])
    opened = one.open("x\n" * (tokens // 2))
    while opened and opened.tokens < tokens:
        answer = one.edit(at_bytes(0, 0, "\n\n" if opened.tokens % 2 else "x\n"), revision=opened.revision)
        if not answer:
            break
        opened = answer
    one.read(one.complete(max_tokens=50, at_byte=10, mode=pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE))


def completions_that_outgrow_the_context(one: Attacker) -> None:
    opened = one.open("fn f() {}\n")
    if opened:
        stream = one.complete(max_tokens=one.context - 16, on_edit=pb.ON_EDIT_GO_ON)
        one.over.wait(0.1)
        one.edit(at_bytes(0, 0, "x\n" * (one.context // 2 - 20)), revision=opened.revision)
        one.over.wait(0.5)
        one.read(stream, 50)


def control_tokens_in_text(one: Attacker) -> None:
    marks = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜end▁of▁sentence｜>", "<|endoftext|>", "<|fim_middle|>"]
    if one.open("".join(one.choose.choices(marks, k=50))):
        one.read(one.complete(max_tokens=20, mode=pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE, at_byte=0))


def bad_positions(one: Attacker) -> None:
    opened = one.open("é🙂\n" * 10)
    revision = opened.revision if opened else 0
    for edit in (at_bytes(0, 2**63), at_bytes(9, 3), at_bytes(1, 1, "x"), at_lsp((0, 2), (0, 2), "x"), at_lsp((2**32 - 1, 0), (0, 0))):
        one.edit(edit, revision=revision)
    one.edit(at_bytes(0, 0, "x"), revision=2**64 - 1)
    one.read(one.complete(at_byte=2**64 - 1))


def messages_that_are_none(one: Attacker) -> None:
    for method in ("OpenSession", "ApplyEdits", "Complete", "Nothing"):
        call = one.channel.unary_unary(f"/pie.v1.Pool/{method}", request_serializer=bytes, response_deserializer=bytes)
        one.call(call, one.choose.choice([b"\x0a\xff", b"\x0a\x02\xc0\xff", one.choose.randbytes(1000)]))


def bombs(one: Attacker) -> None:
    call = one.channel.unary_unary("/pie.v1.Pool/OpenSession", request_serializer=bytes, response_deserializer=bytes)
    one.call(call, BOMB, compression=grpc.Compression.Gzip)
    # It costs the attacker more than the pool.
    one.over.wait(1.0)


def giant_headers(one: Attacker) -> None:
    for size in (15_000, 100_000):
        one.call(one.stub.ListSessions, pb.ListSessionsRequest(), metadata=[*TENANT, ("x-giant", "y" * size)])


def floods_of_questions(one: Attacker) -> None:
    for request in (pb.ListSessionsRequest(page_size=1000), pb.ListSessionsRequest(page_token="\x00no")):
        one.call(one.stub.ListSessions, request)
    for _ in range(20):
        one.call(one.stub.DescribePool, pb.DescribePoolRequest())
        one.call(one.stub.GetSession, pb.GetSessionRequest(session=str(one.choose.random()), content=True))


def floods_of_reflection(one: Attacker) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(one.channel)
    questions = [reflection_pb2.ServerReflectionRequest(file_containing_symbol="pie.v1.Pool") for _ in range(200)]
    try:
        one.outcomes["answered"] += len(list(stub.ServerReflectionInfo(iter(questions), timeout=TIMEOUT)))
    except grpc.RpcError as error:
        one.refused(error)


def streams_without_end(one: Attacker) -> None:
    stub = health_pb2_grpc.HealthStub(one.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT) for _ in range(300)]
    one.over.wait(1.0)
    for watch in watches:
        watch.cancel()
    one.outcomes["answered"] += len(watches)


def _connect(one: Attacker) -> socket.socket:
    host, port = one.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=TIMEOUT)


def connections_that_say_nothing(one: Attacker) -> None:
    held = [_connect(one) for _ in range(100)]
    one.over.wait(1.0)
    for stream in held:
        stream.close()
    one.outcomes["answered"] += len(held)


def readers_that_do_not_read(one: Attacker) -> None:
    """Pings and settings without end, whose answers nobody takes."""
    with _connect(one) as stream:
        stream.settimeout(0.5)
        ping, settings = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8), bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        try:
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            for _ in range(200):
                stream.sendall((ping + settings) * 500)
                one.outcomes["answered"] += 1
        except OSError:
            one.outcomes["cut"] += 1
    one.over.wait(0.2)


def noise(one: Attacker) -> None:
    with _connect(one) as stream:
        stream.settimeout(1.0)
        try:
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + one.choose.randbytes(100_000))
            while stream.recv(4096):
                pass
        except OSError:
            pass
        one.outcomes["cut"] += 1


KINDS = [kind for kind in list(globals().values()) if getattr(kind, "__annotations__", {}).get("one") is Attacker and kind is not _connect]


def attack(address: str, name: str, context: int, seconds: float, kinds: list) -> dict[str, Counter]:
    over, outcomes = threading.Event(), defaultdict(Counter)
    end = time.monotonic() + seconds

    def work(kind) -> None:
        attacker = Attacker(address, f"{kind.__name__} {name}", context, over, outcomes[kind.__name__])
        with attacker.channel:
            while time.monotonic() < end:
                try:
                    kind(attacker)
                except OSError:
                    attacker.outcomes["cut"] += 1

    threads = [threading.Thread(target=work, args=(kind,), name=kind.__name__, daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, end - time.monotonic()))
    over.set()
    for thread in threads:
        thread.join(2 * TIMEOUT)
        if thread.is_alive():
            outcomes["hung"][thread.name] += 1
    return outcomes


def main() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    address, name, *only = sys.argv[1:]
    kinds = [kind for kind in KINDS if not only or kind.__name__ in only]
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        context = pie_pb2_grpc.PoolStub(channel).DescribePool(pb.DescribePoolRequest(), timeout=60).context_limit
    print(json.dumps([kind.__name__ for kind in kinds]), flush=True)
    for line in sys.stdin:
        print(json.dumps(attack(address, name, context, float(line), kinds)), flush=True)


if __name__ == "__main__":
    main()
