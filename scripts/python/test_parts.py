"""Texts in front of a document: they come, change, move and go, each at its own cost, and the prompt is what a front makes of the same."""

import random

from client import TIMEOUT, Client, at_bytes, refused
from grpc import StatusCode as Code
from pie.v1 import pie_pb2 as pb
from test_http import CODE, FIM, got
from web import channel, pool  # noqa: F401  (fixtures)


def put(client: Client, session: str, parts: list[tuple[str, str]], document: str = "file", revision: int | None = None):
    listed = [pb.Part(name=name, text=text) for name, text in parts]
    base = client.heard[session] if revision is None else revision
    request = pb.ApplyEditsRequest(session=session, base_revision=base, parts=pb.Parts(parts=listed, document=document))
    applied = client.stub.ApplyEdits(request, timeout=TIMEOUT)
    client.heard[session] = applied.revision
    return applied


def other(number: int, lines: int = 30) -> tuple[str, str]:
    return f"src/other{number}.rs", "".join(f"pub fn other_{number}_{line}(input: &[u8]) -> u32 {{}}\n" for line in range(lines))


def test_the_prompt_is_that_of_a_front(pool, client):
    """gRPC's parts and llama.cpp's chunks: the same tokens in, the same tokens out."""
    cursor = CODE.index("return text\n", 700)
    session = client.open(CODE).session
    parts = [other(1), other(2, 5)]
    put(client, session, parts)
    filled = client.complete(session, at_byte=cursor, mode=FIM, max_tokens=10, exact=True)
    asked = {
        "input_prefix": CODE[:cursor],
        "input_suffix": CODE[cursor:],
        "input_extra": [{"filename": name, "text": text} for name, text in parts],
        "n_predict": 10,
        "return_tokens": True,
        "pie": {"exact": True},
    }
    answer = got(pool.http, "/infill", asked)
    assert answer["tokens"] == filled.ids
    assert answer["tokens_evaluated"] == filled.timings.tokens_encoded + filled.timings.tokens_reused


def test_what_comes_and_goes_costs_itself(client):
    session = client.open(CODE).session
    client.complete(session, at_byte=700, mode=FIM, max_tokens=1)
    alone = client.get(session)
    first, second, third = other(1), other(2), other(3)

    def cost(parts, **fields):
        put(client, session, parts, **fields)
        timings = client.complete(session, at_byte=700, mode=FIM, max_tokens=1).timings
        return timings.tokens_encoded + timings.tokens_encoded_ahead

    each = cost([first])
    assert 100 < each
    assert cost([first, second]) < 1.5 * each, "the first stays"
    assert cost([second]) < 20, "what goes costs nothing"
    assert cost([second, third]) < 1.5 * each
    changed = (second[0], second[1].replace("other_2_15(", "another_2_15("))
    assert cost([changed, third]) < 30, "a line of a part"
    assert cost([]) < 20
    now = client.get(session)
    assert (now.text, list(now.tokens.ids)) == (alone.text, list(alone.tokens.ids))
    # Opening the session again, as a client does that was away, leaves them.
    put(client, session, [first])
    client.open(CODE + "\n", session=session)
    assert [part.name for part in client.get(session).parts.parts] == [first[0]]
    # The same again makes no revision, and ends no completion.
    before = put(client, session, [first]).revision
    assert put(client, session, [first]).revision == before


def test_edits_and_parts_in_any_order_leave_what_opening_anew_gives(client):
    draw = random.Random(11)
    session, text, parts = client.open(CODE).session, CODE, []
    for step in range(40):
        kind = draw.choice(["edit", "edit", "parts", "fill", "continue"])
        if kind == "edit":
            at = draw.randrange(len(text))
            end = min(len(text), at + draw.randrange(6))
            new = draw.choice(["x", "é", "\n", "    if ready:\n"])
            start, stop = len(text[:at].encode()), len(text[:end].encode())
            client.edit(session, None, at_bytes(start, stop, new))
            text = text[:at] + new + text[end:]
        elif kind == "parts":
            parts = [other(draw.randrange(5), draw.randrange(1, 8)) for _ in range(draw.randrange(4))]
            put(client, session, parts)
        elif kind == "fill":
            at = len(text[: draw.randrange(len(text))].encode())
            client.complete(session, at_byte=at, mode=FIM, max_tokens=2)
        else:
            client.complete(session, max_tokens=2)
        if step % 8 == 7:
            fresh = client.open(text).session
            put(client, fresh, parts)
            held, anew = client.get(session), client.get(fresh)
            assert (held.text, list(held.tokens.ids), held.parts) == (anew.text, list(anew.tokens.ids), anew.parts)
            at = len(text[: len(text) // 2].encode())
            for fields in ({}, {"at_byte": at, "mode": FIM}):
                one, two = (client.complete(which, max_tokens=6, exact=True, **fields) for which in (session, fresh))
                assert one.ids == two.ids, (step, fields)
            client.close(fresh)


def test_parts_are_refused_where_they_cannot_be(client):
    tokens = client.open(tokens=[5, 6, 7]).session
    assert refused(put, client, tokens, [other(1)]).reason == "TOKENS_ONLY"
    session = client.open("text").session
    assert refused(put, client, session, [("two\nlines", "x")]).reason == "FIELD_INVALID"
    assert refused(put, client, session, [("a", "x")] * 257).reason == "TOO_MANY"
    assert refused(put, client, session, [("a", "x")], revision=99).reason == "REVISION_MISMATCH"
    long = refused(put, client, session, [("a", "word " * 14000)])
    assert (long.code, long.reason) == (Code.INVALID_ARGUMENT, "DOCUMENT_TOO_LONG")
    assert client.get(session).parts == pb.Parts()
