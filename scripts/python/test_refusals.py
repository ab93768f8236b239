"""Every refusal: its gRPC code, its stable reason, a message with the numbers, and a session that is as it was."""

import math
import subprocess
from dataclasses import dataclass, field

import grpc
import pytest
from client import at_bytes, at_lsp, refused, splice
from conftest import LIMITS
from grpc import StatusCode as Code
from pie.v1 import pie_pb2 as pb
from pool import binary, until

# The emoji is bytes 13..17; the lines have 12, 9 and 1 UTF-16 units.
TEXT = "let ï = 日;🙂\r\nfn f() {}\n}"
LENGTH = len(TEXT.encode())
BYTES_LIMIT = 64 * 1024
WAITING_LIMIT = 8
assert "64KiB" in LIMITS
# Of metadata: the revision that the session has.
PRESENT = "present"


@dataclass
class Case:
    """A call that must fail. `call` gets the client, a session of text, and one of three tokens."""

    call: object
    code: Code
    reason: str
    # Must be in the message.
    says: list[str]
    metadata: dict[str, str] = field(default_factory=dict)


def edit(*edits, base=None, session=None):
    return lambda c, text, tokens: c.edit(session or text, base, *edits)


def splices(*list_of_splices, base=None):
    return lambda c, text, tokens: c.splice(tokens, base, *list_of_splices)


def complete(**fields):
    return lambda c, text, tokens: list(c.stream(text, **fields))


def wire_edit(**fields):
    return lambda c, text, tokens: c.stub.ApplyEdits(pb.ApplyEditsRequest(session=text, **fields), timeout=10)


GOOD = at_bytes(0, 3, "var")
REPLACED = (Code.FAILED_PRECONDITION, "SESSION_REPLACED")
TEXT_CASES = {
    "a stale revision": Case(
        edit(GOOD, base=7), Code.FAILED_PRECONDITION, "REVISION_MISMATCH", ["7"], {"current_revision": PRESENT}
    ),
    "bytes behind the end": Case(
        edit(GOOD, at_bytes(5, 999)), Code.OUT_OF_RANGE, "RANGE_OUT_OF_BOUNDS", ["999", f"{LENGTH}"], {"edit": "1"}
    ),
    "bytes far behind the end": Case(
        edit(at_bytes(2**63, 2**64 - 1)), Code.OUT_OF_RANGE, "RANGE_OUT_OF_BOUNDS", [f"{LENGTH}"], {"edit": "0"}
    ),
    "reversed bytes": Case(edit(at_bytes(9, 4)), Code.INVALID_ARGUMENT, "RANGE_REVERSED", ["9", "4"], {"edit": "0"}),
    "reversed positions": Case(
        edit(GOOD, at_lsp((1, 2), (0, 1))), Code.INVALID_ARGUMENT, "RANGE_REVERSED", ["edit 1"], {"edit": "1"}
    ),
    "bytes inside a character": Case(
        edit(at_bytes(0, 0, "a"), at_bytes(14, 16)),
        Code.INVALID_ARGUMENT,
        "INSIDE_CHARACTER",
        ["14", "13..17"],
        {"edit": "1"},
    ),
    "overlapping edits": Case(
        edit(at_bytes(8, 9), GOOD, at_bytes(2, 4)), Code.INVALID_ARGUMENT, "EDITS_OVERLAP", ["1", "2"], {"edit": "2"}
    ),
    "an insertion inside a deletion": Case(
        edit(at_bytes(0, 4), at_bytes(2, 2, "x")), Code.INVALID_ARGUMENT, "EDITS_OVERLAP", ["0", "1"], {"edit": "1"}
    ),
    "the same deletion by bytes and by positions": Case(
        edit(at_bytes(0, 3), at_lsp((0, 0), (0, 3))), Code.INVALID_ARGUMENT, "EDITS_OVERLAP", ["0..3"], {"edit": "1"}
    ),
    "a column inside a surrogate pair": Case(
        edit(GOOD, at_lsp((0, 11), (0, 11), "x")),
        Code.INVALID_ARGUMENT,
        "BAD_UTF16_COLUMN",
        ["11", "surrogate"],
        {"edit": "1"},
    ),
    "too many bytes": Case(
        edit(at_bytes(0, 0, "x" * BYTES_LIMIT)),
        Code.INVALID_ARGUMENT,
        "DOCUMENT_TOO_LONG",
        [f"{BYTES_LIMIT + LENGTH}", f"{BYTES_LIMIT}"],
    ),
    "too many bytes, reopened": Case(
        lambda c, text, tokens: c.open("x" * (BYTES_LIMIT + 1), session=text),
        Code.INVALID_ARGUMENT,
        "DOCUMENT_TOO_LONG",
        [f"{BYTES_LIMIT + 1}", f"{BYTES_LIMIT}"],
    ),
    "splices of a text": Case(
        lambda c, text, tokens: c.splice(text, None, splice(0, 1, 7)), Code.FAILED_PRECONDITION, "TEXT_ONLY", ["text"]
    ),
    "a text reopened with tokens": Case(
        lambda c, text, tokens: c.open(tokens=[1, 2], session=text), Code.FAILED_PRECONDITION, "TEXT_ONLY", ["text"]
    ),
    "no edits": Case(wire_edit(), Code.INVALID_ARGUMENT, "FIELD_MISSING", ["edits"]),
    "no range": Case(
        edit(GOOD, pb.TextEdit(text="x")), Code.INVALID_ARGUMENT, "FIELD_MISSING", ["range"], {"edit": "1"}
    ),
    "half a range": Case(
        edit(pb.TextEdit(lsp=pb.LspRange(end=pb.LspPosition()))),
        Code.INVALID_ARGUMENT,
        "FIELD_MISSING",
        ["lsp.start"],
        {"edit": "0"},
    ),
    "an unknown strategy": Case(
        wire_edit(text=pb.TextEdits(edits=[GOOD]), strategy=9), Code.INVALID_ARGUMENT, "FIELD_INVALID", ["9"]
    ),
    "a completion of another revision": Case(
        complete(revision=5), Code.FAILED_PRECONDITION, "REVISION_MISMATCH", ["5"], {"current_revision": PRESENT}
    ),
    "an edit of a former life": Case(
        lambda c, text, tokens: c.edit(text, None, GOOD, identity="0" * 32), *REPLACED, ["opened anew"]
    ),
    "a completion of a former life": Case(complete(identity="0" * 32), *REPLACED, ["opened anew"]),
    "a look at a former life": Case(lambda c, text, tokens: c.get(text, identity="0" * 32), *REPLACED, ["opened anew"]),
    "the end of a former life": Case(lambda c, text, tokens: c.close(text, identity="0" * 32), *REPLACED, ["opened anew"]),
    "a negative temperature": Case(complete(temperature=-0.5), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["-0.5"]),
    "no temperature at all": Case(
        complete(temperature=math.nan), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["temperature"]
    ),
    "a top_p of 0": Case(complete(top_p=0.0), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["top_p is 0"]),
    "a top_p above 1": Case(complete(top_p=1.5), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["1.5"]),
    "too many alternatives": Case(complete(top_logprobs=21), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["21", "20"]),
    "too many tokens wanted": Case(
        complete(max_tokens=2**32 - 1), Code.INVALID_ARGUMENT, "BAD_SAMPLING", [f"{2**32 - 1}"]
    ),
    "an empty stop string": Case(complete(stop=["a", ""]), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["stop"]),
    "too many stop strings": Case(complete(stop=["a"] * 17), Code.INVALID_ARGUMENT, "BAD_SAMPLING", ["16"]),
    "a stop string that is too long": Case(complete(stop=["a" * 1025]), Code.INVALID_ARGUMENT, "TOO_MANY", ["1025", "1024"]),
    "too many stop tokens": Case(complete(stop_tokens=[1] * 257), Code.INVALID_ARGUMENT, "TOO_MANY", ["257", "256"]),
    "too many edits": Case(edit(*[GOOD] * 8_193), Code.INVALID_ARGUMENT, "TOO_MANY", ["8193 edits", "8192"]),
    "too many splices": Case(splices(*[splice(0, 0)] * 65_537), Code.INVALID_ARGUMENT, "TOO_MANY", ["65537 splices"]),
    "an unknown stop token": Case(complete(stop_tokens=[5, 8192]), Code.INVALID_ARGUMENT, "TOKEN_UNKNOWN", ["8192"]),
    "what went before without its revision": Case(
        complete(generated=[5]), Code.INVALID_ARGUMENT, "FIELD_MISSING", ["`revision`"]
    ),
    "what went before without its seed": Case(
        complete(generated=[5], revision=1, temperature=0.5), Code.INVALID_ARGUMENT, "FIELD_MISSING", ["`seed`"]
    ),
    "as much before as there may be": Case(
        complete(generated=[5] * 64, revision=1), Code.INVALID_ARGUMENT, "BAD_GENERATED", ["64 tokens", "max_tokens is 64"]
    ),
    "an end with something behind it": Case(
        lambda c, text, tokens: c.complete(text, generated=[5, 1], revision=c.heard[text]),
        Code.INVALID_ARGUMENT,
        "BAD_GENERATED",
        ["token 1 of generated"],
    ),
    "an unknown token before": Case(
        lambda c, text, tokens: c.complete(text, generated=[8192], revision=c.heard[text]),
        Code.INVALID_ARGUMENT,
        "TOKEN_UNKNOWN",
        ["8192"],
    ),
}

TOKEN_CASES = {
    "text edits of tokens": Case(
        lambda c, text, tokens: c.edit(tokens, None, at_bytes(0, 0, "x")),
        Code.FAILED_PRECONDITION,
        "TOKENS_ONLY",
        ["token"],
    ),
    "tokens reopened with a text": Case(
        lambda c, text, tokens: c.open("x", session=tokens), Code.FAILED_PRECONDITION, "TOKENS_ONLY", ["token"]
    ),
    "an unknown token": Case(
        splices(splice(0, 1, 5), splice(2, 0, 6, 8192)),
        Code.INVALID_ARGUMENT,
        "TOKEN_UNKNOWN",
        ["8192"],
        {"edit": "1"},
    ),
    "an unknown token, reopened": Case(
        lambda c, text, tokens: c.open(tokens=[5, 8192], session=tokens),
        Code.INVALID_ARGUMENT,
        "TOKEN_UNKNOWN",
        ["8192"],
    ),
    "a splice behind the end": Case(
        splices(splice(0, 1), splice(2, 2)), Code.OUT_OF_RANGE, "RANGE_OUT_OF_BOUNDS", ["4", "3"], {"edit": "1"}
    ),
    "a splice whose end overflows": Case(
        splices(splice(2**32 - 1, 2**32 - 1)), Code.OUT_OF_RANGE, "RANGE_OUT_OF_BOUNDS", ["3"], {"edit": "0"}
    ),
    "splices out of order": Case(
        splices(splice(2, 1), splice(0, 1)), Code.INVALID_ARGUMENT, "SPLICES_UNSORTED", [], {"edit": "1"}
    ),
    "splices that overlap": Case(
        splices(splice(0, 2), splice(1, 1)), Code.INVALID_ARGUMENT, "SPLICES_UNSORTED", [], {"edit": "1"}
    ),
    "a stale revision of splices": Case(
        splices(splice(0, 99), base=3),
        Code.FAILED_PRECONDITION,
        "REVISION_MISMATCH",
        ["3"],
        {"current_revision": PRESENT},
    ),
}

UNKNOWN, BAD_NAME = (Code.NOT_FOUND, "SESSION_UNKNOWN"), (Code.INVALID_ARGUMENT, "BAD_SESSION_NAME")
OTHER_CASES = {
    "an edit of nobody": Case(edit(GOOD, session="nobody"), *UNKNOWN, ["nobody"]),
    "a completion of nobody": Case(lambda c, text, tokens: list(c.stream("nobody")), *UNKNOWN, ["nobody"]),
    "a look at nobody": Case(lambda c, text, tokens: c.get("nobody"), *UNKNOWN, ["nobody"]),
    "the end of nobody": Case(lambda c, text, tokens: c.close("nobody"), *UNKNOWN, ["nobody"]),
    "a name too long": Case(lambda c, text, tokens: c.open("x", session="n" * 257), *BAD_NAME, ["257", "256"]),
    "a name of bytes too long": Case(lambda c, text, tokens: c.open("x", session="日" * 86), *BAD_NAME, ["258"]),
    "a name with a line break": Case(lambda c, text, tokens: c.open("x", session="a\nb"), *BAD_NAME, ["control"]),
    "no name": Case(lambda c, text, tokens: c.get(""), *BAD_NAME, ["empty"]),
    "no content": Case(
        lambda c, text, tokens: c.open(session="contentless"), Code.INVALID_ARGUMENT, "FIELD_MISSING", ["content"]
    ),
    "an unknown token at the start": Case(
        lambda c, text, tokens: c.open(tokens=[2**32 - 1]), Code.INVALID_ARGUMENT, "TOKEN_UNKNOWN", [f"{2**32 - 1}"]
    ),
    "an unknown strategy at the start": Case(
        lambda c, text, tokens: c.open("x", strategy=9), Code.INVALID_ARGUMENT, "FIELD_INVALID", ["9"]
    ),
}
CASES = TEXT_CASES | TOKEN_CASES | OTHER_CASES


def check(found, case: Case) -> None:
    assert (found.code, found.reason) == (case.code, case.reason), found
    assert case.metadata.items() <= found.metadata.items(), found
    for part in case.says:
        assert part in found.message, f"{part!r} is not in {found.message!r}"
    assert len(found.message) >= 20, f"that helps nobody: {found.message!r}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refusal_says_why_and_changes_nothing(client, case):
    text = client.open(TEXT).session
    tokens = client.open(tokens=[7, 8, 9]).session
    until("both have their rows", lambda: all(client.get(name).session.resident for name in (text, tokens)))
    before = client.get(text), client.get(tokens), client.list()
    found = refused(case.call, client, text, tokens)
    present = found.metadata.get("current_revision")
    if present in (str(client.heard[text]), str(client.heard[tokens])):
        assert present in found.message
        found.metadata["current_revision"] = PRESENT
    check(found, case)
    assert (client.get(text), client.get(tokens), client.list()) == before


def test_an_empty_context_has_nothing_to_continue(client):
    empty = client.open(tokens=[]).session
    found = refused(client.stream, empty)
    check(found, Case(None, Code.FAILED_PRECONDITION, "CONTEXT_EMPTY", [empty]))


def test_a_document_may_not_fill_the_context(client):
    limit = client.describe().context_limit
    too_long = Case(None, Code.INVALID_ARGUMENT, "DOCUMENT_TOO_LONG", [f"{limit}"])
    check(refused(client.open, tokens=[100] * limit), too_long)
    session = client.open(tokens=[100] * 10).session
    before = client.get(session)
    check(refused(client.splice, session, None, splice(5, 0, *[200] * limit)), too_long)
    assert client.get(session) == before


def test_documents_make_room_for_each_other_and_busy_ones_do_not(client):
    free = client.describe().groups[0].slots_free
    size = free * 7 // 32
    opened = [client.open(tokens=[100 + number] * size).session for number in range(5)]
    resident = [False, True, True, True, True]
    until("the longest idle made room", lambda: [client.get(name).session.resident for name in opened] == resident)
    # Four that are being completed hold what they have; the fifth is told when to come again, and keeps its document.
    streams = [client.stream(session, max_tokens=4000) for session in opened[1:]]
    for stream in streams:
        next(stream)
    busy = Case(None, Code.RESOURCE_EXHAUSTED, "KV_EXHAUSTED", ["retry"])
    found = refused(client.stream, opened[0], max_tokens=1)
    check(found, busy)
    assert found.retry_after_ms > 0 and client.get(opened[0]).session.tokens == size
    for stream in streams:
        stream.cancel()
    until("there is room again", lambda: served(client, opened[0]))


def served(client, session):
    try:
        return len(client.complete(session, max_tokens=2).tokens) == 2
    except grpc.RpcError:
        return False


def test_too_many_waiting_completions_are_refused(client):
    session = client.open(TEXT).session
    streams = [client.stream(session, max_tokens=4000) for _ in range(WAITING_LIMIT)]
    for stream in streams:
        stream.initial_metadata()
    found = refused(client.stream, session)
    for stream in streams:
        stream.cancel()
    check(found, Case(None, Code.RESOURCE_EXHAUSTED, "OVERLOADED", [session, f"{WAITING_LIMIT}"]))


OTHER_REASONS = {"CONTEXT_EMPTY", "KV_EXHAUSTED", "OVERLOADED", "GROUP_LOST", "TENANT_LIMIT", "BAD_TENANT", "FIM_UNSUPPORTED"}
REASONS = sorted(OTHER_REASONS | {case.reason for case in CASES.values()})


@pytest.mark.parametrize("reason", REASONS)
def test_pie_explains_every_reason(reason):
    explained = subprocess.run([binary(), "explain", reason], capture_output=True, text=True, timeout=10)
    assert explained.returncode == 0 and reason in explained.stdout and len(explained.stdout) > 80, explained
