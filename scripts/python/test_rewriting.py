"""The next edit: the lines around a cursor, written anew, come as edits; the document stays as it is until somebody applies them."""

import json
import subprocess
import sys

import pytest
from client import Client, at_bytes, connect, refused
from pie.v1 import pie_pb2 as pb
from pool import binary
from stubs import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "models"))
import fetch  # noqa: E402

REWRITE = pb.COMPLETION_MODE_REWRITE
CODE = "".join(f"def value_{index}(x):\n    return x + {index}\n\n\n" for index in range(12))


def rewritten(client: Client, session: str, text: str, **asked):
    """The region's text, what it becomes, and the messages. Edits are disjoint, sorted, and inside of it."""
    messages = list(client.stream(session, mode=REWRITE, **asked))
    assert messages[0].HasField("region") and not any(message.HasField("region") for message in messages[1:])
    whole = text.encode()
    region = messages[0].region
    edits = [edit for message in messages for edit in message.edits]
    places = [place for edit in edits for place in (edit.bytes.start, edit.bytes.end)]
    assert places == sorted(places) and all(region.start <= place <= region.end for place in places)
    new, end = b"", region.start
    for edit in edits:
        new += whole[end : edit.bytes.start] + edit.text.encode()
        end = edit.bytes.end
    new += whole[end : region.end]
    return whole[region.start : region.end].decode(), new.decode(), messages


def test_edits_are_what_was_written_and_the_document_is_not_touched(client):
    session = client.open(CODE).session
    at = len(CODE) // 2
    client.edit(session, None, at_bytes(4, 9, "number"))
    text = client.get(session).text
    client.complete(session, max_tokens=1)
    before = client.complete(session, max_tokens=20, at_byte=at)
    old, new, messages = rewritten(client, session, text, at_byte=at, lines_before=3, lines_behind=3, max_tokens=60)
    assert old in text and 1 <= old.count("\n") <= 7
    answer = "".join(message.text_delta for message in messages)
    finish = messages[-1].finish_reason
    # A model that has learned nothing ends nowhere: what it wrote by then and is settled counts, and no more.
    assert finish in (pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP)
    assert all(line in old + answer for line in new.split("\n"))
    assert client.get(session).text == text
    assert client.complete(session, max_tokens=20, at_byte=at).ids == before.ids
    # What the model was told is all that was encoded: the document was there.
    timings = next(message.timings for message in messages if message.HasField("timings"))
    tokens = client.get(session, content=False).session.tokens
    assert timings.tokens_reused >= tokens - 2 and timings.tokens_encoded < tokens


def test_the_same_question_has_the_same_answer_and_is_encoded_once(client):
    session = client.open(CODE).session
    text = client.get(session).text
    ask = lambda: rewritten(client, session, text, at_byte=40, max_tokens=30, temperature=0.8, seed=5)  # noqa: E731
    first, again = ask(), ask()
    assert first[:2] == again[:2]
    assert [token.id for message in first[2] for token in message.tokens] == [token.id for message in again[2] for token in message.tokens]
    assert again[2][0].timings.tokens_encoded <= 1


def test_an_edit_ends_it_and_what_is_not_settled_changes_nothing(client):
    session = client.open(CODE).session
    stream = client.stream(session, mode=REWRITE, max_tokens=2000)
    first = next(stream)
    edited = client.edit(session, first.revision, at_bytes(0, 0, "# x\n"))
    messages = [first, *stream]
    assert messages[-1].finish_reason == pb.FINISH_REASON_EDITED and not messages[-1].edits
    assert {message.revision for message in messages} == {first.revision}
    # The edited document is as one that was never asked.
    other = client.open("# x\n" + CODE).session
    assert client.get(session).text == client.get(other).text and edited.revision > first.revision


@pytest.mark.parametrize(
    "reason, asked",
    [
        ("RANGE_OUT_OF_BOUNDS", {"at_byte": 10_000}),
        ("REVISION_MISMATCH", {"revision": 3}),
        ("BAD_GENERATED", {"generated": [40], "seed": 1}),
        ("BAD_SAMPLING", {"stop": ["x"]}),
        ("BAD_SAMPLING", {"stop_tokens": [40]}),
        ("TOKENS_ONLY", {"tokens": True}),
        ("SESSION_UNKNOWN", {"unknown": True}),
    ],
)
def test_what_cannot_be_answered_is_refused(client, reason, asked):
    asked = dict(asked)
    if asked.pop("tokens", False):
        session = client.open(tokens=[40, 41, 42]).session
    else:
        session = client.open(CODE).session
    if asked.pop("unknown", False):
        client.close(session)
    if "generated" in asked:
        asked["revision"] = client.get(session).session.revision
    assert refused(client.stream, session, mode=REWRITE, **asked).reason == reason


def test_the_command_line_shows_a_diff_and_makes_it(start_pool):
    pool = start_pool("--model", str(fetch.fetch("smollm2-135m")), "--kv-memory", "64MiB", world_size=1)
    client = Client(connect(pool.address))
    opened = client.open(CODE)
    text = client.get(opened.session).text

    def ctl(*arguments):
        command = [str(binary()), "ctl", "--pool", f"http://{pool.address}", "--json", *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    *changes, last = ctl("rewrite", opened.session, "--at", "8:0", "--lines", "4")
    assert changes and last["changes"] == len(changes) and last["revision"] == opened.revision
    assert all(change["removed"] == text[change["start"] : change["end"]] for change in changes)
    assert client.get(opened.session).text == text
    applied = ctl("rewrite", opened.session, "--at", "8:0", "--lines", "4", "--apply")
    expected = text
    for change in reversed(changes):
        expected = expected[: change["start"]] + change["inserted"] + expected[change["end"] :]
    assert client.get(opened.session).text == expected
    assert applied[-1]["revision"] > opened.revision
