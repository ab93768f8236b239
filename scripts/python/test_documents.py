"""Documents: opened, reopened, edited in every way, and always the same as a twin's."""

import json
import random
import shutil

import pytest
from client import Client, at_bytes, at_lsp, connect, splice
from pie.v1 import pie_pb2 as pb
from stubs import ROOT
from twin import apply, decode, places, random_changes

TEXT = 'let s = "naïve 日本語 🙂";\r\nfn f() {}\n\tlast 👩‍👩‍👧'


def text_of(client: Client, session: str) -> str:
    return client.get(session).text


@pytest.mark.parametrize("text", ["", TEXT, "\r\n\r\n", "\ufeff// BOM\n", "x" * 3000, "日本" * 500, "\u0000\u0001"])
def test_a_text_comes_back_as_it_was(client, text):
    opened = client.open(text)
    got = client.get(opened.session)
    assert (got.text, got.session.bytes) == (text, len(text.encode()))
    assert (opened.revision, opened.reused, opened.tokens) == (got.session.revision, 0, len(got.tokens.ids))
    assert decode(got.tokens.ids) == text, "byte-level BPE loses nothing"
    assert got.session.tokens == opened.tokens and got.session.strategy == pb.STRATEGY_PIE


def test_tokens_come_back_as_they_were(client):
    ids = [17, 4000, 17, 8191, 5]
    opened = client.open(tokens=ids, session="tokens-alone")
    got = client.get(opened.session)
    assert (opened.session, opened.tokens, list(got.tokens.ids)) == ("tokens-alone", 5, ids)
    assert not got.HasField("text") and got.session.bytes == 0


def test_content_is_sent_only_when_asked_for(client):
    got = client.get(client.open(TEXT).session, content=False)
    assert not got.HasField("text") and not got.HasField("tokens")


def test_unnamed_sessions_get_names_of_their_own(client):
    names = {client.open("x").session for _ in range(5)}
    assert len(names) == 5 and "" not in names


def test_reopening_keeps_what_is_the_same(client):
    lines = [f"let value_{index} = {index};\n" for index in range(40)]
    first = client.open("".join(lines), session="reopened")
    again = client.open("".join(lines), session="reopened")
    assert (again.revision, again.reused, again.tokens) == (first.revision, first.tokens, first.tokens)

    lines[20] = "let other = 日本;\n"
    changed = client.open("".join(lines), session="reopened")
    assert changed.revision > first.revision
    assert changed.tokens * 3 // 4 < changed.reused < changed.tokens
    got = client.get("reopened")
    assert got.text == "".join(lines) and got.session.revision == changed.revision
    assert got.tokens == client.get(client.open("".join(lines)).session).tokens, "as if opened afresh"

    strategy = client.open("".join(lines), session="reopened", strategy=pb.STRATEGY_FULL)
    assert strategy.reused == strategy.tokens
    assert client.get("reopened").session.strategy == pb.STRATEGY_FULL


# Characters of one, two, three and four bytes, and all kinds of line ends.
LSP_TEXT = "aß日🙂b\r\nçd\rlast"
EDITS = {
    "insert at the start": ([at_bytes(0, 0, "X")], "Xaß日🙂b\r\nçd\rlast"),
    "insert at the end": ([at_bytes(21, 21, "X")], "aß日🙂b\r\nçd\rlastX"),
    "replace all": ([at_bytes(0, 21, "🙂")], "🙂"),
    "delete all": ([at_bytes(0, 21)], ""),
    "delete a character by bytes": ([at_bytes(6, 10)], "aß日b\r\nçd\rlast"),
    "between carriage return and line feed": ([at_bytes(12, 12, "X")], "aß日🙂b\rX\nçd\rlast"),
    "behind the surrogate pair": ([at_lsp((0, 5), (0, 6), "B")], "aß日🙂B\r\nçd\rlast"),
    "the end of a line is before its line end": ([at_lsp((0, 6), (1, 0), " ")], "aß日🙂b çd\rlast"),
    "a carriage return ends a line": ([at_lsp((2, 0), (2, 4), "L")], "aß日🙂b\r\nçd\rL"),
    "from the middle of a line to another": ([at_lsp((0, 2), (2, 1))], "aßast"),
    "several, in any order": (
        [at_bytes(21, 21, "3"), at_lsp((0, 0), (0, 1), "1"), at_bytes(15, 16, "2")],
        "1ß日🙂b\r\nç2\rlast3",
    ),
    "two insertions at one place": ([at_bytes(1, 1, "1"), at_lsp((0, 1), (0, 1), "2")], "a12ß日🙂b\r\nçd\rlast"),
    "an insertion where a replacement starts": (
        [at_bytes(1, 3, "S"), at_bytes(1, 1, "+")],
        "a+S日🙂b\r\nçd\rlast",
    ),
    "neighbours": ([at_bytes(1, 3, "2"), at_bytes(0, 1, "1"), at_bytes(3, 6, "3")], "123🙂b\r\nçd\rlast"),
    "line ends that grow together": ([at_lsp((1, 0), (1, 2), "\n"), at_bytes(21, 21, "\r")], "aß日🙂b\r\n\n\rlast\r"),
}


@pytest.mark.parametrize("edits, expected", EDITS.values(), ids=EDITS)
def test_edits(client, edits, expected):
    session = client.open(LSP_TEXT).session
    opened = client.get(session).session
    answer = client.edit(session, None, *edits)
    got = client.get(session)
    assert got.text == expected
    assert answer.revision == got.session.revision == opened.revision + 1
    assert answer.tokens == got.session.tokens == opened.tokens + answer.tokens_inserted - answer.tokens_deleted
    assert got.tokens == client.get(client.open(expected).session).tokens, "T1: as the whole text tokenized"


def test_edits_follow_each_other_as_in_an_editors_change(client):
    opened = client.open(LSP_TEXT)
    session = opened.session
    edits = [at_lsp((0, 0), (9, 9), "é🙂\nb"), at_lsp((0, 6), (0, 99), "!"), at_lsp((9, 0), (9, 0), "c")]
    answer = client.change(session, None, *edits, encoding=pb.POSITION_ENCODING_UTF8)
    assert (answer.revision, text_of(client, session)) == (opened.revision + 1, "é🙂!\nbc")
    client.change(session, None, at_lsp((0, 2), (0, 3), ""), at_lsp((0, 1), (0, 2), "?"), encoding=pb.POSITION_ENCODING_UTF32)
    assert text_of(client, session) == "é?\nbc"


def test_an_edit_undone_leaves_the_document_as_it_was(client):
    session = client.open(TEXT).session
    before = client.get(session)
    client.edit(session, None, at_lsp((0, 4), (0, 5), "a 🙂\r\nlonger name"))
    assert text_of(client, session) != TEXT
    client.edit(session, None, at_bytes(4, 4 + len("a 🙂\r\nlonger name".encode()), "s"))
    after = client.get(session)
    assert (after.text, after.tokens, after.session.revision) == (before.text, before.tokens, before.session.revision + 2)


def test_a_keystroke_retokenizes_its_surroundings_alone(client):
    session = client.open("".join(f"let value_{index} = {index};\n" for index in range(200))).session
    answer = client.edit(session, None, at_lsp((100, 4), (100, 4), "a"))
    assert 0 < answer.tokens_retokenized < 32 < answer.tokens // 10, "T2"
    assert answer.tokens_inserted < 8 and answer.tokens_deleted < 8


@pytest.mark.parametrize("seed", [1, 2])
def test_the_text_equals_a_twins_after_many_random_edits(client, seed):
    choose, text = random.Random(seed), TEXT
    opened = client.open(text, session=f"random-{seed}")
    session, revision, tokens = opened.session, opened.revision, opened.tokens
    by_lsp = 0
    for _ in range(100):
        changes = random_changes(text, choose, growth_limit=1500)
        before, text = text, apply(text, changes)
        by_lsp += sum(change.as_lsp for change in changes)
        answer = client.edit(session, revision, *[change.wire() for change in changes])
        assert answer.revision == revision + (text != before), "what changes nothing makes no revision"
        assert answer.tokens == tokens + answer.tokens_inserted - answer.tokens_deleted
        revision, tokens = answer.revision, answer.tokens
        if revision % 10 == 0:
            assert text_of(client, session) == text, f"after revision {revision}"
    got = client.get(session)
    assert got.text == text
    assert got.tokens == client.get(client.open(text).session).tokens, "T1: as the whole text tokenized"
    assert by_lsp > 50 and any(ord(character) > 0xFFFF for character in text), "columns mattered"
    assert len(places(text)) > 500


def test_token_splices_equal_a_twins(client):
    choose, ids = random.Random(3), list(range(100, 160))
    opened = client.open(tokens=ids)
    session = opened.session
    for revision in range(opened.revision, opened.revision + 50):
        at = sorted(choose.sample(range(len(ids)), 4))
        splices, twin = [], list(ids)
        for start, stop in zip(at[::2], at[1::2], strict=True):
            insert = [choose.randrange(5, 8192) for _ in range(choose.randint(0, 6))]
            splices.append(splice(start, min(stop - start, 5), *insert))
        for edit in reversed(splices):
            twin[edit.at : edit.at + edit.delete] = edit.insert
        answer = client.splice(session, revision, *splices)
        ids = twin
        assert (answer.revision, answer.tokens) == (revision + 1, len(ids))
    assert list(client.get(session).tokens.ids) == ids


def test_the_begin_of_sentence_may_stand_in_the_configuration_alone(start_pool, tmp_path):
    """As in DeepSeek-Coder's folder. And a document that spells control tokens is text."""
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "pie-coder", folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    pool = start_pool("--model", str(folder))
    with connect(pool.address) as channel:
        client = Client(channel)
        ids = client.get(client.open("a = 1").session).tokens.ids
        assert ids[0] == 0 and 0 not in ids[1:]
        text = 'HOLE = "<｜fim▁hole｜>"  # <｜end▁of▁sentence｜>'
        got = client.get(client.open(text).session)
        assert got.text == text and not set(got.tokens.ids[1:]) & set(range(5))
