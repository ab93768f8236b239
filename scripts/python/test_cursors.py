"""Completing at a cursor, filling in the middle, and what becomes of accepted suggestions."""

import subprocess

from client import Client, at_bytes, connect, refused
from grpc import StatusCode as Code
from pie.v1 import pie_pb2 as pb
from pool import binary, environment

CODE = (
    'def greet(name):\n    """Says hello."""\n    text = f"Hello, {name}!"\n    return text\n\n\n'
    'def main():\n    names = ["Ada", "Grace"]\n    for name in names:\n        print(greet(name))\n'
) * 12
FIM = pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE


def test_a_cursor_sees_the_text_before_it_and_leaves_the_document_alone(client):
    session, cursor = client.open(CODE).session, CODE.index("return") + len("return")
    before = client.get(session)
    here = client.complete(session, at_byte=cursor, max_tokens=12)
    opened = client.open(CODE[:cursor])
    alone = client.complete(opened.session, max_tokens=12)
    assert here.ids == alone.ids
    assert here.timings.tokens_encoded + here.timings.tokens_reused == opened.tokens
    line = CODE[:cursor].count("\n")
    position = pb.LspPosition(line=line, utf16_column=cursor - CODE.rindex("\n", 0, cursor) - 1)
    assert client.complete(session, at_lsp=position, max_tokens=12).ids == here.ids
    assert client.get(session).text == before.text
    at_end = client.complete(session, max_tokens=12)
    assert client.complete(session, at_byte=len(CODE.encode()), max_tokens=12).ids == at_end.ids


def test_a_cursor_costs_its_own_tokens_wherever_it_is(client):
    session = client.open(CODE).session
    client.complete(session, max_tokens=1)
    for share in (0.9, 0.1, 0.5, 0.52):
        timings = client.complete(session, at_byte=int(len(CODE) * share), max_tokens=1).timings
        assert timings.tokens_encoded <= 4, timings


def test_filling_in_the_middle_moves_its_markers(client):
    session = client.open(CODE).session
    tokens = client.open(CODE).tokens
    client.complete(session, at_byte=40, mode=FIM, max_tokens=1)
    for cursor in (60, 62, 900, 5, 0, len(CODE)):
        timings = client.complete(session, at_byte=cursor, mode=FIM, max_tokens=4).timings
        assert timings.tokens_encoded <= 12, (cursor, timings)
        assert tokens + 3 <= timings.tokens_encoded + timings.tokens_reused <= tokens + 9
    # Another edit, and a completion without markers: all is as if they had never been there.
    client.edit(session, None, at_bytes(4, 9, "welcome"))
    timings = client.complete(session, max_tokens=1).timings
    assert timings.tokens_encoded <= 12, timings
    held = client.get(session)
    assert held.text == CODE[:4] + "welcome" + CODE[9:]
    assert timings.tokens_encoded + timings.tokens_reused == held.session.tokens


def test_full_strategy_fills_in_as_from_scratch(client):
    """With `full` nothing of a moved marker is approximated: the same tokens as of a session that was never moved."""
    moved = client.open(CODE, strategy=pb.STRATEGY_FULL).session
    for cursor in (700, 100, 430):
        found = client.complete(moved, at_byte=cursor, mode=FIM, max_tokens=8).ids
    fresh = client.open(CODE, strategy=pb.STRATEGY_FULL).session
    assert found == client.complete(fresh, at_byte=430, mode=FIM, max_tokens=8).ids


def test_the_text_behind_the_cursor_may_come_first(start_pool, cache):
    """By a template, whatever was edited and filled in before: what a prompt gives that is put together by hand."""
    template = "<｜fim▁hole｜>{suffix}<｜fim▁begin｜>{prefix}<｜fim▁end｜>"
    pool = start_pool("--fim", template, world_size=2)
    with connect(pool.address) as channel:
        client, text = Client(channel), CODE
        moved = client.open(text, strategy=pb.STRATEGY_FULL).session
        edits = {100: at_bytes(4, 9, "welcome"), 430: at_bytes(440, 440, "    pass\n"), 700: at_bytes(700, 700, "x = 1\n")}
        for cursor in (700, 100, 430, 900, 0, len(CODE)):
            if cursor in edits:
                edit = edits[cursor]
                client.edit(moved, None, edit)
                text = text[: edit.bytes.start] + edit.text + text[edit.bytes.end :]
            found = client.complete(moved, at_byte=cursor, mode=FIM, max_tokens=8)
            prompt = template.format(prefix=text[:cursor], suffix=text[cursor:])
            by_hand = client.open(prompt, strategy=pb.STRATEGY_FULL, control_tokens=True).session
            assert found.ids == client.complete(by_hand, max_tokens=8).ids, cursor
            described = client.get(by_hand).session
            assert described.control_tokens and described.tokenizing == pb.TOKENIZING_AROUND_EDITS
        # The same text as text: its markers are characters.
        assert client.open(prompt).tokens > described.tokens + 9
    refusal = pool_refuses(cache, "--fim", "<PRE>{prefix}")
    assert "lacks {suffix}" in refusal and "--fim" in refusal, refusal
    refusal = pool_refuses(cache, "--fim", "qwen")
    assert "no token <|fim_prefix|>" in refusal, refusal


def pool_refuses(cache, *flags):
    command = [binary(), "pool", *flags]
    run = subprocess.run(command, env=environment(cache), capture_output=True, text=True, timeout=60)
    assert run.returncode != 0, "it starts"
    return run.stderr


def test_accepted_text_is_adopted_and_answers_the_same(client):
    session = client.open(CODE).session
    suggested = client.complete(session, max_tokens=24)
    end = len(CODE.encode())
    client.edit(session, None, at_bytes(end, end, suggested.text))
    accepted = client.complete(session, max_tokens=8)
    opened = client.open(client.get(session).text).session
    fresh = client.complete(opened, max_tokens=8)
    assert accepted.ids == fresh.ids
    canonical = client.get(opened).tokens.ids[-24:] == suggested.ids
    if canonical:
        assert accepted.timings.tokens_adopted == 23 and accepted.timings.tokens_encoded == 1
    else:
        assert accepted.timings.tokens_adopted < 24
    assert accepted.timings.tokens_encoded + accepted.timings.tokens_reused == client.get(session).session.tokens


def test_a_completion_may_outlive_edits(client):
    session = client.open(CODE).session
    stream = client.stream(session, max_tokens=40, on_edit=pb.ON_EDIT_GO_ON)
    next(stream)
    client.edit(session, None, at_bytes(0, 0, "# new\n"))
    messages = list(stream)
    assert messages[-1].finish_reason == pb.FINISH_REASON_LENGTH
    assert len(client.complete(session, max_tokens=3).tokens) == 3


def test_cursors_that_are_none_are_refused(client):
    session = client.open("größe = 1\n🙂").session
    # A line that is not there is the document's end, as in the protocol.
    assert list(client.stream(session, at_lsp=pb.LspPosition(line=7), max_tokens=1))
    cases = {
        "behind the end": ({"at_byte": 99}, Code.OUT_OF_RANGE, "RANGE_OUT_OF_BOUNDS"),
        "inside of a character": ({"at_byte": 3}, Code.INVALID_ARGUMENT, "INSIDE_CHARACTER"),
        "inside of a pair": ({"at_lsp": pb.LspPosition(line=1, utf16_column=1)}, Code.INVALID_ARGUMENT, "BAD_UTF16_COLUMN"),
        "inside of a letter": (
            {"at_lsp": pb.LspPosition(utf16_column=3), "position_encoding": pb.POSITION_ENCODING_UTF8},
            Code.INVALID_ARGUMENT,
            "INSIDE_CHARACTER",
        ),
        "a token of a text": ({"at_token": 1}, Code.FAILED_PRECONDITION, "TEXT_ONLY"),
        "no such mode": ({"mode": 9}, Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    }
    for name, (fields, code, reason) in cases.items():
        found = refused(lambda fields=fields: list(client.stream(session, **fields)))
        assert (found.code, found.reason) == (code, reason), name
    tokens = client.open(tokens=[0, 100, 200]).session
    found = refused(lambda: list(client.stream(tokens, mode=FIM)))
    assert (found.code, found.reason) == (Code.FAILED_PRECONDITION, "FIM_UNSUPPORTED")
    assert len(client.complete(tokens, at_token=2, max_tokens=2).tokens) == 2


def test_the_same_text_opened_twice_is_held_once(client):
    text = CODE.replace("greet", "salute")
    first = client.open(text).session
    client.complete(first, max_tokens=1)
    second = client.open(text)
    timings = client.complete(second.session, max_tokens=1).timings
    assert timings.tokens_encoded == 1 and timings.tokens_encoded_ahead <= 1
    assert client.get(second.session).session.tokens_shared >= second.tokens - 1
    client.edit(first, None, at_bytes(0, 0, "import os\n"))
    client.complete(first, max_tokens=1)
    assert client.get(second.session).session.tokens_shared <= 2


def test_each_tenant_has_its_share_and_hears_when_to_retry(start_pool):
    pool = start_pool("--tenant-sessions", "1")
    with connect(pool.address) as channel:
        ada, grace = Client(channel, tenant="ada"), Client(channel, tenant="grace")
        ada.open("x = 1\n", session="a")
        found = refused(ada.open, "y = 2\n", session="b")
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "TENANT_LIMIT")
        assert (found.metadata["limit"], found.retry_after_ms) == ("1", 500) and "sessions" in found.message
        grace.open("y = 2\n", session="b")
        found = refused(Client(channel, tenant="no good").open, "x")
        assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "BAD_TENANT")
        ada.close("a")
        ada.open("z = 3\n", session="c")
