"""`pie lsp` with another project's LSP client in front of it, and a pool behind it."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import client as client_module
import grpc
import pytest
from client import Client, Completion
from editor import WIDTHS, Editor
from lsprotocol import types as lsp
from pie.v1 import pie_pb2 as pb
from pool import is_running, until
from pygls.exceptions import JsonRpcException
from stubs import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "models"))
import fetch  # noqa: E402

URI = "file:///work/main.rs"
TEXT = 'fn main() {\r\n    let s = "naïve 日本語 🙂";\r\n    call(\n}\n// 👩‍👩‍👧\rlast'
# For answers that must equal those of a client that knows nothing of lines.
ALL_LINES = {"maxLines": 0, "maxTokens": 24}
PIECES = ["", "", "x", "let ", " ", "\n", "\r\n", "\r", "🙂", "日本語", "é", "0123456789"]


@pytest.fixture
def edit(cache, pool):
    """Starts editors in front of the pool that most tests share."""
    started = []

    def start(*flags, address=pool.address, **options):
        started.append(Editor(cache, *(flags or ("--pool", f"http://{address}")), **options))
        return started[-1]

    yield start
    for editor in started:
        editor.end()


def sessions(client: Client, uri: str) -> list[pb.Session]:
    listed = client.list(page_size=1000).sessions
    return [session for session in listed if session.session.startswith("lsp/") and session.session.endswith(uri)]


def held(client: Client, uri: str) -> str:
    """What the pool has of a document."""
    (session,) = until(f"one session of {uri}", lambda: sessions(client, uri))
    return client.get(session.session).text


def until_held(client: Client, uri: str, text: str) -> None:
    until("the pool has the editor's text", lambda: held(client, uri) == text)


def plainly(client: Client, text: str, at: int | None = None, **fields) -> str:
    """The same completion by the pool's own API: filled in where the model can. A character that is not whole is not suggested."""
    session = client.open(text).session
    at = len((text if at is None else text[:at]).encode())
    fields = {"max_tokens": ALL_LINES["maxTokens"], "at_byte": at} | fields
    fill = pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE
    try:
        return Completion.read(client.stream(session, mode=fill, **fields)).text.rstrip("\ufffd")
    except grpc.RpcError as error:
        assert client_module.refusal(error).reason == "FIM_UNSUPPORTED"
        return client.complete(session, **fields).text.rstrip("\ufffd")


def generated(client: Client) -> int:
    return client.describe().groups[0].counters.tokens_generated


@pytest.mark.parametrize("at", [None, TEXT.index("(\n") + 1, 0])
def test_a_suggestion_is_what_a_plain_client_gets(client, edit, at):
    editor = edit(options=ALL_LINES)
    editor.open(URI, TEXT)
    assert (editor.complete(URI, at) or "") == plainly(client, TEXT, at)
    editor.stop()


@pytest.mark.parametrize("encoding", WIDTHS)
def test_the_pool_follows_every_change_in_every_encoding(client, edit, encoding):
    editor = edit(encodings=["utf-7", encoding])
    assert editor.encoding == encoding
    editor.open(URI, TEXT)
    until_held(client, URI, TEXT)
    luck = random.Random(encoding)
    for step in range(60):
        changes, text = [], editor.texts[URI]
        for _ in range(luck.randint(1, 4)):
            # Not between \r and \n, where no editor has a position.
            places = [at for at in range(len(text) + 1) if text[at - 1 : at + 1] != "\r\n" or at == 0]
            start = luck.choice(places)
            end = min([place for place in places if place >= start + luck.randint(0, 6)], default=places[-1])
            changes.append((start, max(start, end), luck.choice(PIECES)))
            text = text[:start] + changes[-1][2] + text[changes[-1][1] :]
        editor.change(URI, *changes)
        assert editor.texts[URI] == text
        if step % 20 == 19:
            editor.complete(URI, luck.choice(places))
            assert held(client, URI) == text, "a completion comes behind all changes before it"
        if step == 30:
            editor.replace(URI, text + "\nwhole")
    until_held(client, URI, editor.texts[URI])
    editor.stop()


def test_places_beyond_the_end_are_clamped(client, edit):
    from lsprotocol.types import Position

    editor = edit(options=ALL_LINES)
    editor.open(URI, "one\ntwo")
    assert (editor.complete(URI, Position(99, 0)) or "") == plainly(client, "one\ntwo")
    # Another document: the place where a completion was is stale in the first one.
    editor.open(URI + "2", "one\ntwo")
    assert (editor.complete(URI + "2", Position(0, 99)) or "") == plainly(client, "one\ntwo", 3)
    editor.stop()


def test_limits_of_tokens_lines_and_stops_hold(client, edit):
    text = "fn a() {\n"
    whole = plainly(client, text, max_tokens=60)
    editor = edit(options={"maxTokens": 60, "maxLines": 0})
    editor.open(URI, text)
    assert (editor.complete(URI) or "") == whole
    # Settings are pushed, and hold from some moment on.
    editor.configure({"pie": {"maxTokens": 5}})
    five = plainly(client, text, max_tokens=5)
    until("five tokens", lambda: (editor.complete(URI) or "") == five)
    stop = whole[len(whole) // 2]
    editor.configure({"pie": {"maxTokens": 60, "stop": [stop]}})
    until("a stop", lambda: (editor.complete(URI) or "") == whole.split(stop)[0])
    editor.stop()


def test_typing_through_a_suggestion_costs_no_call(client, edit):
    editor = edit(options=ALL_LINES)
    editor.open(URI, TEXT)
    suggested = editor.complete(URI)
    assert suggested and len(suggested) > 3
    before = generated(client)
    for typed in range(1, 3):
        end = len(editor.texts[URI])
        editor.change(URI, (end, end, suggested[typed - 1]))
        assert editor.complete(URI) == suggested[typed:], "what is left of it"
    end = len(editor.texts[URI])
    editor.change(URI, (end - 1, end, ""))
    assert editor.complete(URI) == suggested[1:], "taken back"
    assert generated(client) == before
    # Accepted whole: the pool goes on from there, and has the text.
    end = len(editor.texts[URI])
    editor.change(URI, (end, end, suggested[1:]))
    editor.complete(URI)
    assert held(client, URI) == TEXT + suggested
    editor.stop()


def test_a_list_has_the_same_text_where_editors_know_no_other(client, edit):
    editor = edit(inline=False, options=ALL_LINES)
    assert editor.capabilities.inline_completion_provider is None
    text = "let äword"
    editor.open(URI, text)
    expected = plainly(client, text)
    listed = editor.list(URI, len(text))
    assert listed.is_incomplete
    (item,) = listed.items
    assert item.text_edit.new_text == "äword" + expected
    assert (item.text_edit.range.start.character, item.text_edit.range.end.character) == (4, 9)
    assert item.label and "\n" not in item.label
    editor.stop()


def test_an_editor_with_inline_completion_gets_no_list_unless_it_asks(edit):
    always = {"ordinaryCompletion": "always"}
    quiet, *both = edit(), edit(options=always), edit(options={"pie": always})
    assert quiet.capabilities.completion_provider is None and quiet.capabilities.inline_completion_provider
    quiet.open(URI, TEXT)
    assert quiet.list(URI, 3) is None
    for editor in both:
        assert editor.capabilities.completion_provider and editor.capabilities.inline_completion_provider
        editor.open(URI, TEXT)
        assert editor.list(URI, 3) is not None


def stops_generating(client: Client) -> None:
    def is_still():
        before = generated(client)
        time.sleep(0.3)
        return generated(client) == before

    until("nothing is generated", is_still)


LONG = {"maxTokens": 4000, "maxLines": 0}


def test_what_is_cancelled_ends_in_the_pool_too(client, edit):
    editor = edit(options=LONG)
    editor.open(URI, "fn a")
    before = generated(client)
    asked = editor.ask(URI)
    until("it runs", lambda: generated(client) > before)
    asked.cancel()
    with pytest.raises(JsonRpcException) as cancelled:
        asked.answer(5)
    assert cancelled.value.code == -32800
    stops_generating(client)


def test_an_edit_and_a_later_question_end_a_completion(client, edit):
    editor = edit(options=LONG)
    editor.open(URI, "fn a")
    before = generated(client)
    first = editor.ask(URI)
    until("it runs", lambda: generated(client) > before)
    editor.change(URI, (0, 0, "// "))
    assert first.answer(5) is None
    second = editor.ask(URI)
    third = editor.ask(URI, 3)
    assert second.answer(5) is None
    third.cancel()
    stops_generating(client)
    until_held(client, URI, "// fn a")


def test_root_folders_have_settings_of_their_own_and_wrong_ones_are_told_once(client, edit):
    folders = {"file:///one": {"maxTokens": 3, "temperature": "hot"}, "file:///two": {"maxTokens": 9, "exclude": ["*.env", "secret/**"]}}
    settings = lambda scope: next((of for folder, of in folders.items() if scope.startswith(folder)), None)  # noqa: E731
    editor = edit(folders=folders, settings=settings, options={"maxLines": 0})
    uris = ["file:///one/a.rs", "file:///two/a.rs", "file:///two/prod.env", "file:///two/secret/a.rs", "untitled:Untitled-1"]
    for uri in uris:
        editor.open(uri, TEXT)
    assert (editor.complete(uris[0]) or "") == plainly(client, TEXT, max_tokens=3)
    assert (editor.complete(uris[1]) or "") == plainly(client, TEXT, max_tokens=9)
    assert (editor.complete(uris[4]) or "") == plainly(client, TEXT, max_tokens=64)
    assert editor.complete(uris[2]) is None and editor.complete(uris[3]) is None
    assert not sessions(client, uris[2]) and not sessions(client, uris[3]), "what is excluded stays with the editor"
    folders["file:///two"] = {"maxTokens": 9}
    folders["file:///one"]["enable"] = False
    editor.configure({})
    until("what is not excluded any more comes to the pool", lambda: sessions(client, uris[2]))
    until("what is disabled goes", lambda: not sessions(client, uris[0]))
    assert editor.complete(uris[0]) is None
    assert [message for message in editor.shown if "temperature" in message] == editor.shown and len(editor.shown) == 1
    editor.stop()


def test_what_was_edited_elsewhere_stands_in_front(client, edit):
    roots, (main, other, secret) = ["file:///one"], ["file:///one/src/main.rs", "file:///one/src/other.rs", "file:///one/prod.env"]
    editor = edit(folders=roots, settings=lambda scope: {"exclude": ["*.env"], "maxTokens": 4, "otherFiles": 1})
    lines = "".join(f"pub fn other_{number}() {{}}\n" for number in range(300))
    for uri, text in ((main, TEXT), (other, lines), (secret, "KEY=1\n")):
        editor.open(uri, text)
    editor.complete(main)

    def front():
        (session,) = sessions(client, main)
        return client.get(session.session).parts

    assert front() == pb.Parts(), "nothing was edited"
    place = lines.index("other_150")
    editor.change(other, (place, place, "the_"))
    editor.change(secret, (0, 0, "SECRET"))
    editor.complete(main)
    # A suggestion that is held is answered before the pool is told anything.
    until("the other's lines are there", lambda: front().parts)
    parts = front()
    assert [part.name for part in parts.parts] == ["src/other.rs"] and parts.document == "src/main.rs"
    shown = parts.parts[0].text
    assert "the_other_150" in shown and shown in editor.texts[other] and shown.startswith("pub fn") and len(shown) <= 2048
    # Typing in this document changes nothing of it.
    editor.change(main, (0, 0, "// "))
    editor.complete(main)
    assert front() == parts
    editor.close(other)
    editor.change(main, (0, 0, "x"))
    editor.complete(main)
    until("what is closed goes", lambda: front().parts == pb.Parts().parts)
    editor.stop()


def test_definitions_at_hand_stand_in_front(client, edit):
    root = "file:///work"
    main, shapes, secret = f"{root}/main.py", f"{root}/shapes.py", f"{root}/secret.py"
    area = "def area_of(shape):\n    return shape.width * shape.height\n"
    filler = "".join(f"def other_{index}():\n    pass\n\n\n" for index in range(200))
    editor = edit(folders=(root,), options={"exclude": ["secret.py"]})
    editor.open(shapes, filler + area + "\n\n" + filler, "python")
    editor.open(secret, "def key_of(door):\n    return door.key\n", "python")
    editor.open(main, "print(1)\n", "python")

    def front():
        (session,) = until("a session", lambda: sessions(client, main))
        return [(part.name, part.text) for part in client.get(session.session).parts.parts]

    editor.complete(main)
    assert front() == [], "nothing that is named here is defined there"
    editor.change(main, (9, 9, "key_of(1)\ntotal = area_of("))
    editor.complete(main)
    until("the definition alone, and nothing of what is not sent", lambda: front() == [("shapes.py", area)])
    # Where its lines stand in front anyway, because somebody edited them, they are not shown twice.
    at = len(filler)
    editor.change(shapes, (at, at, "# a shape\n"))
    editor.complete(main)
    until("the lines around the edit", lambda: "# a shape" in front()[0][1])
    ((name, text),) = front()
    assert name == "shapes.py" and text.count("def area_of") == 1
    editor.close(shapes)
    editor.complete(main, 0)
    until("what is closed goes", lambda: front() == [])


def test_nonsense_ends_nothing(client, edit):
    editor = edit()
    editor.texts["file:///never"] = "x"
    editor.change("file:///never", (0, 1, "y"))
    editor.raw("textDocument/didChange", {"textDocument": {"uri": URI}, "contentChanges": "no list"})
    editor.raw("textDocument/didClose", {"textDocument": {"uri": "file:///never"}})
    editor.raw("no/such/thing", {})
    editor.open(URI, "one")
    editor.open(URI, "two")
    editor._versions[URI] = -5
    editor.change(URI, (3, 3, "!"))
    editor.save(URI)
    editor.open("vscode-notebook-cell:/a.ipynb#c1", "cell")
    assert editor.complete("vscode-notebook-cell:/a.ipynb#c1") is None
    until("one session of the two", lambda: len(sessions(client, URI)) == 1)
    until_held(client, URI, "two!")
    # Renamed: closed, and opened under another name.
    editor.close(URI)
    editor.open(URI + "x", "two!")
    until("the old name is gone", lambda: not sessions(client, URI))
    until_held(client, URI + "x", "two!")
    editor.stop()


def test_long_names_have_sessions(client, edit):
    editor = edit()
    uri = "file:///" + "ordner/" * 60 + "a.rs"
    editor.open(uri, TEXT)
    until("it is there", lambda: [one for one in client.list(1000).sessions if one.session.startswith("lsp/")])
    editor.stop()


@pytest.mark.parametrize("how", ["stop", "hang up", signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_sessions_are_closed_when_the_editor_goes(client, edit, how):
    editor = edit()
    uris = [f"file:///{number}.rs" for number in range(4)]
    for uri in uris:
        editor.open(uri, TEXT + uri)
        until_held(client, uri, TEXT + uri)
    begun = time.monotonic()
    if how == "stop":
        editor.stop()
    elif how == "hang up":
        editor.hang_up()
        assert editor.wait() == 0
    else:
        os.kill(editor.pid, how)
        assert editor.wait() == 0
    assert time.monotonic() - begun < 5
    until("all sessions are closed", lambda: not any(sessions(client, uri) for uri in uris), 3)


def test_the_next_edit_is_an_action_and_what_a_plain_client_gets(cache, edit, start_pool):
    pool = start_pool("--model", str(fetch.fetch("smollm2-135m")), "--kv-memory", "64MiB", world_size=1)
    client = Client(client_module.connect(pool.address))
    text = "".join(f"# 🙂 {index}\ndef value_{index}(number):\n    return number + {index}\n\n\n" for index in range(9))
    changed, at = text.replace("number + 4", "count + 4"), text.index("value_4")
    editor = edit(address=pool.address)
    editor.open(URI, text, "python")
    until_held(client, URI, text)
    start = text.index("number + 4")
    editor.change(URI, (start, start + len("number"), "count"))
    until_held(client, URI, changed)
    assert editor.actions(URI, at, only=["quickfix"]) == []
    assert editor.actions(URI, at, trigger=lsp.CodeActionTriggerKind.Automatic) == []
    (action,) = editor.actions(URI, at, only=["refactor"])
    assert action.edit is None, "nothing is worked out before somebody wants it"
    edits = editor.resolve(action)
    (session,) = sessions(client, URI)
    # The same by the pool's own API.
    plain = client.open(text).session
    client._apply(plain, None, parts=client.get(session.session).parts)
    byte = len(text[:start].encode())
    client.edit(plain, None, client_module.at_bytes(byte, byte + len("number"), "count"))
    messages = client.stream(plain, mode=pb.COMPLETION_MODE_REWRITE, at_byte=len(changed[:at].encode()))
    expected = [one for message in messages for one in message.edits]
    lines = changed.encode()
    as_lsp = [(lines[: one.bytes.start].count(b"\n"), lines[: one.bytes.end].count(b"\n"), one.text) for one in expected]
    assert [(one.range.start.line, one.range.end.line, one.new_text) for one in edits] == as_lsp
    assert edits and all(one.range.start.character == one.range.end.character == 0 for one in edits)
    # An editor that knows no versions in edits gets them without.
    other = edit(address=pool.address, versions=False)
    other.open(URI, changed, "python")
    assert other.resolve(other.actions(URI, at)[0]) is not None
    other.end()
    # The document is as it was: the editor applies what it likes.
    assert held(client, URI) == changed
    assert edit(address=pool.address, actions=False).capabilities.code_action_provider is None


def test_a_window_of_a_long_file_is_in_the_pool(client, edit):
    context = client.describe().context_limit
    lines = [f"let name_{number} = call({number}); // 日本\n" for number in range(context // 4)]
    text = "".join(lines)
    editor = edit(options={"maxTokens": 8, "maxLines": 0})
    editor.open(URI, text)
    luck = random.Random(7)
    for _ in range(6):
        at = luck.randrange(len(editor.texts[URI]))
        at = editor.texts[URI].rindex("\n", 0, at) + 1 if "\n" in editor.texts[URI][:at] else 0
        editor.change(URI, (at, at, "x = "))
        suggested = editor.complete(URI, at + 4)
        window = held(client, URI)
        assert len(window) < len(text) and window in editor.texts[URI]
        around = editor.texts[URI][max(0, at - 100) : at + 100]
        assert around in window, "what stands around the cursor"
        (session,) = sessions(client, URI)
        assert session.tokens + 8 <= context
        assert suggested is None or len(suggested) > 0
    assert [message for message in editor.messages if "no completions" in message] == []
    editor.stop()


def test_a_pool_that_comes_back_has_the_documents_again(cache, edit, start_pool):
    pool = start_pool("--repair", "with-edits", world_size=2)
    editor = edit("--pool", f"http://{pool.address}", options=ALL_LINES)
    editor.open(URI, TEXT)
    before = editor.complete(URI)
    assert before
    for pid in [pool.pid, *pool.workers.values()]:
        os.kill(pid, signal.SIGKILL)
    pool.wait(10)
    for _ in range(3):
        editor.change(URI, (0, 0, "//\n"))
        begun = time.monotonic()
        assert editor.complete(URI) is None
        assert time.monotonic() - begun < 3.5, "nobody waits for a pool that is away"
    again = start_pool("--repair", "with-edits", world_size=2, listen=pool.address)
    assert until("it completes again", lambda: editor.complete(URI))
    with client_module.connect(again.address) as channel:
        assert held(Client(channel), URI) == editor.texts[URI]
    kinds = ["away" if "no completions" in message else "there" for message in editor.messages]
    assert kinds == ["there", "away", "there"], editor.messages
    editor.stop()


def test_a_pool_that_lost_a_session_gets_it_again(client, edit):
    editor = edit(options=ALL_LINES)
    editor.open(URI, TEXT)
    until_held(client, URI, TEXT)
    (session,) = sessions(client, URI)
    client.stub.CloseSession(pb.CloseSessionRequest(session=session.session))
    assert (editor.complete(URI) or "") == plainly(client, TEXT)
    assert held(client, URI) == TEXT
    editor.stop()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_pool_of_its_own_ends_with_it(cache, edit, how):
    editor = edit("--embedded", "--model", "seeded:tiny", "--", "--world-size", "2", options=ALL_LINES)
    editor.open(URI, TEXT)
    assert until("it completes", lambda: editor.complete(URI), 60)
    family = children(editor.pid)
    assert len(family) == 3, "a router and two ranks"
    if how == "stop":
        editor.stop()
    else:
        os.kill(editor.pid, signal.SIGKILL)
    until("all have ended", lambda: not any(map(is_running, family)), 15)


def test_a_pool_of_its_own_is_started_again(edit):
    editor = edit("--embedded", "--model", "seeded:tiny", "--", "--world-size", "1", options=ALL_LINES)
    editor.open(URI, TEXT)
    assert until("it completes", lambda: editor.complete(URI), 60)
    for pid in children(editor.pid):
        os.kill(pid, signal.SIGKILL)
    editor.change(URI, (0, 0, "//\n"))
    assert until("it completes again", lambda: editor.complete(URI), 60)
    editor.stop()
