"""The HTTP API: OpenAI's own client, llama.cpp's requests as its editors' plugins send them, and nothing of pie-pool's code."""

import json
import random
import threading
import urllib.error
import urllib.request

import grpc
import openai
import pytest
from client import Client, connect
from cluster import Cluster
from etcd import Etcd
from pie.v1 import pie_pb2 as pb
from pool import until
from stubs import ROOT
from web import channel, pool  # noqa: F401  (fixtures)

CODE = (
    'def greet(name):\n    """Says hello."""\n    text = f"Hello, {name}!"\n    return text\n\n\n'
    'def main():\n    names = ["Ada", "Grace"]\n    for name in names:\n        print(greet(name))\n'
) * 12
FIM = pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE
EXACT = {"pie": {"exact": True}}


def call(address: str, path: str, body=None, headers=(), timeout: float = 30.0):
    """Status and parsed body of a request, as curl would send it."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json", **dict(headers)})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def got(address: str, path: str, body=None, headers=()):
    status, answer = call(address, path, body, headers)
    assert status == 200, (status, answer)
    return answer


@pytest.fixture
def http(pool):
    return pool.http


@pytest.fixture
def ai(http):
    """OpenAI's client as its manual has it; the pool asks for no key, and the client insists on one."""
    return openai.OpenAI(base_url=f"http://{http}/v1", api_key="none", max_retries=0)


def complete(ai, prompt, **fields):
    own = {"exact": True, **fields.pop("pie", {})}
    body = {"pie": own, **fields.pop("body", {})}
    return ai.completions.create(model="any", prompt=prompt, extra_body=body, **({"temperature": 0} | fields))


# The same tokens, whichever way the pool is asked.


@pytest.mark.parametrize("draw", [{"temperature": 0}, {"temperature": 0.8, "seed": 7}], ids=["greedy", "seeded"])
def test_openai_gives_the_tokens_that_grpc_gives(ai, http, client, draw):
    cursor = CODE.index("return text\n", 700)
    before, behind = CODE[:cursor], CODE[cursor:]
    session = client.open(CODE).session
    plain = client.complete(session, at_byte=cursor, max_tokens=12, **draw)
    filled = client.complete(session, at_byte=cursor, mode=FIM, max_tokens=12, exact=True, **draw)
    assert complete(ai, before, max_tokens=12, **draw).choices[0].text == plain.text
    answer = complete(ai, before, suffix=behind, max_tokens=12, **draw)
    assert answer.choices[0].text == filled.text
    tokens = filled.timings.tokens_encoded + filled.timings.tokens_reused
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, len(filled.tokens))
    # llama.cpp's endpoints, and what is streamed.
    infill = {"input_prefix": before, "input_suffix": behind, "n_predict": 12, "return_tokens": True, **draw, **EXACT}
    assert got(http, "/infill", infill)["tokens"] == filled.ids
    completion = {"prompt": before, "n_predict": 12, "return_tokens": True, "top_k": 0, "top_p": 1, **draw, **EXACT}
    assert got(http, "/completion", completion)["tokens"] == plain.ids
    deltas = list(complete(ai, before, suffix=behind, max_tokens=12, stream=True, **draw))
    assert "".join(delta.choices[0].text for delta in deltas) == filled.text
    assert [delta.choices[0].finish_reason for delta in deltas][-1] in ("length", "stop")


def test_a_prompt_of_tokens_is_taken_as_it_is(ai, http, client):
    ids = got(http, "/tokenize", {"content": CODE, "add_special": True})["tokens"]
    opened = client.open(CODE)
    assert len(ids) == opened.tokens
    text = client.complete(opened.session, max_tokens=10).text
    assert complete(ai, ids, max_tokens=10).choices[0].text == text
    assert complete(ai, [CODE], max_tokens=10).choices[0].text == text
    begun, rest = ids[:50], got(http, "/detokenize", {"tokens": ids[50:]})["content"]
    mixed = {"prompt": [*begun, rest], "n_predict": 10, "temperature": 0, **EXACT}
    assert got(http, "/completion", mixed)["content"] == text


def test_markers_in_a_prompt_are_markers(ai, client):
    """As Continue, Tabby and scripts send them: the client has put the whole prompt together."""
    begin, hole, end = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"
    cursor = 430
    by_hand = complete(ai, f"{begin}{CODE[:cursor]}{hole}{CODE[cursor:]}{end}", max_tokens=10)
    filled = client.complete(client.open(CODE).session, at_byte=cursor, mode=FIM, max_tokens=10, exact=True)
    assert by_hand.choices[0].text == filled.text
    # In what stands on both sides of a cursor they are text.
    sides = complete(ai, f"x = '{hole}'\n{CODE[:cursor]}", suffix=CODE[cursor:], max_tokens=1)
    assert sides.usage.prompt_tokens > filled.timings.tokens_encoded + filled.timings.tokens_reused + 4


# What a keystroke costs.


def test_a_prompt_that_differs_a_little_costs_what_differs(ai):
    unlike = "".join(f"    total_{line} = parse(source[{line * 37 % 101}])\n" for line in range(120))
    first = complete(ai, unlike, max_tokens=1)
    assert first.pie["found"] == "new"
    at = unlike.index("total_60")
    typed = complete(ai, unlike[:at] + "the_" + unlike[at:], max_tokens=1, pie={"exact": False})
    assert typed.pie["found"] == "alike" and typed.pie["session"] == first.pie["session"]
    assert typed.pie["tokens_encoded"] <= 6, typed.pie
    assert typed.usage.prompt_tokens - typed.usage.prompt_tokens_details.cached_tokens == typed.pie["tokens_encoded"]
    other = complete(ai, "".join(f"let v{line} = {line};\n" for line in range(120)), max_tokens=1)
    assert other.pie["found"] == "new", "another file has a session of its own"
    back = complete(ai, unlike, max_tokens=1, pie={"exact": False})
    assert back.pie["session"] == first.pie["session"] and back.pie["tokens_encoded"] <= 6


def typist(seed: int):
    """Edits as people make them, with a cursor behind each: text before and behind, chunks that come and go."""
    draw = random.Random(seed)
    lines = [f"    let value_{seed}_{number} = compute(input[{number * 31 % 97}]);\n" for number in range(90)]
    row, ring = 45, []
    while True:
        kind = draw.choice(["type", "type", "type", "delete", "line", "move", "chunk", "jump"])
        if kind == "type":
            lines[row] = lines[row][:-1] + draw.choice(["x", " + 1", "é", "💧", "(a, b)"]) + "\n"
        elif kind == "delete":
            lines[row] = lines[row][: max(1, len(lines[row]) - 4)].rstrip("\n") + "\n"
        elif kind == "line":
            lines.insert(row + 1, f"    // note {draw.randrange(1000)}\n")
            row += 1
        elif kind == "move":
            row = min(max(row + draw.choice([-1, 1]), 0), len(lines) - 1)
        elif kind == "jump":
            row = draw.randrange(len(lines))
        else:
            start = draw.randrange(len(lines) - 8)
            ring = [*ring[-3:], {"filename": f"other{draw.randrange(9)}.rs", "text": "".join(lines[start : start + 8])}]
        column = len(lines[row]) - 1
        yield {
            "input_prefix": "".join(lines[max(0, row - 40) : row]),
            "prompt": lines[row][:column],
            "input_suffix": "\n" + "".join(lines[row + 1 : row + 20]),
            "input_extra": list(ring),
        }


def test_the_session_holds_the_prompt_whatever_it_held_before(http, client):
    """F1: its tokens are those of the pieces, each tokenized by itself, in the model's order."""

    def tokens(text):
        return got(http, "/tokenize", {"content": text, "parse_special": False})["tokens"]

    def control(text):
        return got(http, "/tokenize", {"content": text})["tokens"]

    begin, hole, end = (control(text) for text in ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"))
    lead = got(http, "/tokenize", {"content": "", "add_special": True})["tokens"]
    encoded, sent = 0, 0
    for _, step in zip(range(60), typist(3), strict=False):
        answer = got(http, "/infill", {**step, "n_predict": 1})
        expected = list(lead)
        for extra in step["input_extra"]:
            expected += tokens(f"# {extra['filename']}\n{extra['text']}\n")
        expected += begin + tokens(step["input_prefix"]) + hole + tokens(step["input_suffix"]) + end + tokens(step["prompt"])
        held = client.get(answer["pie"]["session"])
        assert list(held.tokens.ids) == expected
        encoded, sent = encoded + answer["timings"]["prompt_n"], sent + len(expected)
    assert encoded < 0.25 * sent, (encoded, sent)


def test_several_people_at_once_get_what_they_would_get_alone(http):
    """F2: prompts that look alike do not disturb each other, and one that runs is not edited."""
    answers: dict[tuple[int, int], str] = {}

    def type_on(person: int, only: list[int] | None = None):
        for number, step in zip(range(10), typist(person), strict=False):
            asked = {**step, "n_predict": 6, "temperature": 0, **EXACT}
            answers[person, number] = got(http, "/infill", asked)["content"]

    # Two of each: the same prompts at the same time.
    people = [threading.Thread(target=type_on, args=(person,)) for person in (1, 2, 3)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    together = dict(answers)
    for person in (1, 2, 3):
        type_on(person)
    assert answers == together


# Sessions.


def test_a_named_session_is_edited_whatever_it_held(http, client):
    name = {"X-Pie-Session": "mine"}
    first = got(http, "/v1/completions", {"prompt": CODE, "max_tokens": 1}, name)["pie"]
    assert (first["session"], first["found"]) == ("http:mine", "new")
    second = got(http, "/v1/completions", {"prompt": "fn main() {", "max_tokens": 1}, name)["pie"]
    assert (second["session"], second["found"]) == ("http:mine", "named")
    # The pool may lose it at any time.
    client.stub.CloseSession(pb.CloseSessionRequest(session="http:mine"))
    third = got(http, "/v1/completions", {"prompt": "fn main() {", "max_tokens": 1}, name)["pie"]
    assert third["session"] == "http:mine" and third["tokens_encoded"] >= 4
    status, refused = call(http, "/v1/completions", {"prompt": "x"}, {"X-Pie-Session": "no spaces"})
    assert (status, refused["error"]["param"]) == (400, "X-Pie-Session")


def test_users_and_slots_part_what_is_looked_for(http):
    def asked(**fields):
        return got(http, "/completion", {"prompt": CODE + "# parted\n", "n_predict": 1, **fields})["pie"]["session"]

    everybody, first, second, slot = asked(), asked(user="a"), asked(user="b"), asked(id_slot=3)
    assert len({everybody, first, second, slot}) == 4
    assert (asked(user="a"), asked(id_slot=3)) == (first, slot)


def test_nothing_is_generated_where_nothing_is_asked_for(http, client):
    """llama.vim warms the cache so."""
    text = CODE.replace("greet", "welcome")
    warm = {"input_prefix": text, "input_suffix": "\n", "prompt": "", "n_predict": 0, "samplers": [], "response_fields": [""]}
    assert got(http, "/infill", warm) == {}
    asked = {"input_prefix": text, "input_suffix": "\n", "prompt": "", "n_predict": 4}
    answer = got(http, "/infill", asked)
    assert answer["pie"]["found"] == "alike" and answer["pie"]["tokens_inserted"] == 0
    assert got(http, "/v1/completions", {"prompt": "ab", "max_tokens": 0, "echo": True})["choices"][0]["text"] == "ab"


def test_what_llama_vim_sent_costs_what_was_typed(start_pool):
    """Recorded by scripts/editors/llama_vim.py: a Vim with that plugin, a line typed, a suggestion taken, another line at the file's end."""
    pool = start_pool("--http", "127.0.0.1:0", "--repair", "with-edits", world_size=2)
    lines = (ROOT / "scripts/python/llama_vim.jsonl").read_text().splitlines()
    requests = [json.loads(line) for line in lines]
    typed = [request for request in requests if request["n_predict"]]
    assert len(typed) >= 4 and all(request["id_slot"] == 0 for request in requests)
    encoded = []
    for request in requests:
        answer = got(pool.http, "/infill", request)
        # Flat, as the plugin reads them.
        wanted = {field for field in request["response_fields"] if field}
        assert set(answer) == wanted and isinstance(answer.get("content", ""), str)
        encoded += [answer["timings/prompt_n"]] if wanted else []
    prompt = answer["tokens_cached"] - answer["timings/predicted_n"]
    assert prompt > 1000 and all(count < 0.05 * prompt for count in encoded[1:]), (prompt, encoded)


# How answers end.


def test_ends_are_told_apart(ai, http, client):
    text = client.complete(client.open(CODE).session, max_tokens=24).text
    word = text[8:11]
    stopped = got(http, "/completion", {"prompt": CODE, "n_predict": 24, "temperature": 0, "stop": ["\0none", word], **EXACT})
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", word)
    assert stopped["content"] == text[: text.index(word)]
    length = complete(ai, CODE, max_tokens=5).choices[0]
    assert length.finish_reason == "length" and complete(ai, CODE, max_tokens=24, stop=word).choices[0].finish_reason == "stop"
    cut = got(http, "/completion", {"prompt": CODE, "n_predict": 5, "temperature": 0})
    assert cut["stop_type"] == "limit" and cut["tokens_predicted"] == 5


def test_a_client_that_goes_away_ends_its_completion(http, pool, start_pool):
    pool = start_pool("--http", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", world_size=2)

    def running():
        text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{pool.metrics}/metrics").read().decode()
        lines = [line for line in text.splitlines() if line.startswith("pie_completions_in_progress{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    client = openai.OpenAI(base_url=f"http://{pool.http}/v1", api_key="none", max_retries=0)
    for stream in (True, False):
        asked = {"model": "any", "prompt": CODE, "max_tokens": 3000, "temperature": 0, "extra_body": {"logit_bias": {}}}
        if stream:
            answer = client.completions.create(stream=True, **asked)
            next(iter(answer))
            answer.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.3).completions.create(**asked)
        until("nothing runs for a client that has gone", lambda: running() == 0, 5.0)


def test_usage_and_logprobs(ai):
    stream = list(complete(ai, CODE, max_tokens=4, stream=True, stream_options={"include_usage": True}))
    assert stream[-1].choices == [] and stream[-1].usage.completion_tokens == 4
    answer = complete(ai, CODE, max_tokens=4, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text and len(logprobs.token_logprobs) == 4
    assert all(max(top.values()) == pytest.approx(own) for top, own in zip(logprobs.top_logprobs, logprobs.token_logprobs))
    assert logprobs.text_offset[1] == len(logprobs.tokens[0])
    assert complete(ai, "ab", max_tokens=1, echo=True).choices[0].text.startswith("ab")


def test_what_is_predicted_changes_nothing(ai):
    plain = complete(ai, CODE, max_tokens=24).choices[0].text
    for content in (plain, [{"type": "text", "text": plain}], "something else"):
        predicted = {"prediction": {"type": "content", "content": content}}
        assert complete(ai, CODE, max_tokens=24, body=predicted).choices[0].text == plain
    assert complete(ai, CODE, max_tokens=24, pie={"prediction": plain}).choices[0].text == plain


# Refusals.

REFUSED = [
    ("/v1/completions", {"prompt": "x", "temperature": -1}, 400, "BAD_SAMPLING"),
    ("/v1/completions", {"prompt": "x", "n": 2}, 400, "unsupported_parameter"),
    ("/v1/completions", {"prompt": ["x", "y"]}, 400, "unsupported_parameter"),
    ("/v1/completions", {"prompt": "x", "logit_bias": {"5": 1}}, 400, "unsupported_parameter"),
    ("/v1/completions", {"prompt": "x", "frequency_penalty": 0.5}, 400, "unsupported_parameter"),
    ("/v1/completions", {"prompt": {"a": 1}}, 400, "invalid_request"),
    ("/v1/completions", {"prompt": "x", "max_tokens": "many"}, 400, "invalid_request"),
    ("/v1/completions", {"prompt": [1 << 30]}, 400, "TOKEN_UNKNOWN"),
    ("/v1/completions", {"prompt": "word " * 9000}, 400, "context_length_exceeded"),
    ("/v1/completions", {"prompt": "x", "pie": {"strategy": "magic"}}, 400, "invalid_request"),
    ("/v1/completions", {"prompt": "x", "prediction": {"content": 1}}, 400, "invalid_request"),
    ("/v1/completions", {"prompt": "x", "prediction": {"content": "x" * 70_000}}, 400, "TOO_MANY"),
    ("/completion", {"n_predict": 1}, 400, "invalid_request"),
    ("/infill", {"prompt": ["x"]}, 400, "invalid_request"),
    ("/tokenize", {}, 400, "invalid_request"),
    ("/v1/chat/completions", {"messages": []}, 404, "not_found"),
    ("/v1/models/none", None, 404, "model_not_found"),
    ("/v1/models", {}, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_say_what_is_wrong(http, path, body, status, code):
    answered, answer = call(http, path, body)
    error = answer["error"]
    # llama.cpp's `code` is the status.
    assert (answered, error.get("reason", error["code"])) == (status, code), answer
    assert len(error["message"]) > 20
    assert call(http, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200, "the front goes on"


def test_openai_raises_its_own_errors(ai):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(ai, "x", temperature=-1)
    assert refused.value.code == "BAD_SAMPLING" and refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("none")


def test_a_page_of_another_site_cannot_post(http):
    status, answer = call(http, "/v1/completions", {"prompt": "x"}, {"Content-Type": "text/plain"})
    assert status == 415 and "application/json" in answer["error"]["message"]


def test_only_this_machine_is_called_where_nobody_shows_a_token(http):
    port = http.rsplit(":", 1)[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert call(http, "/v1/models", headers={"Host": host})[0] == 200, host
    # As a browser sends it when a page's name has come to lead here.
    for path, body in [("/", None), ("/slots", None), ("/v1/completions", {"prompt": "x"})]:
        status, answer = call(http, path, body, {"Host": f"rebound.example:{port}"})
        assert (status, answer["error"]["code"]) == (403, "host_refused") and "--tokens" in answer["error"]["message"], path


def test_sides_that_are_too_long_are_cut_and_chunks_left_out(http):
    context = got(http, "/props")["default_generation_settings"]["n_ctx"]
    line = "    value = compute(input)\n"
    long = "".join(f"{line[:-1]}  # {number}\n" for number in range(context // 4))
    asked = {"input_prefix": long, "prompt": "x = ", "input_suffix": long, "input_extra": [{"text": long}], "n_predict": 8}
    first = got(http, "/infill", asked)
    assert first["truncated"] and first["tokens_evaluated"] <= context - 8
    # A key more does not move the far end.
    typed = got(http, "/infill", {**asked, "prompt": "x = y"})
    assert typed["pie"]["tokens_inserted"] <= 4, typed["pie"]


# What the server says of itself.


def test_what_is_served(ai, http):
    model = ai.models.list().data[0]
    assert ai.models.retrieve(model.id).id == model.id
    assert got(http, "/health") == {"status": "ok"}
    pieces = got(http, "/tokenize", {"content": "def f", "with_pieces": True})["tokens"]
    assert "".join(piece["piece"] for piece in pieces) == "def f"
    assert isinstance(got(http, "/slots"), list) and got(http, "/props")["total_slots"] > 0


def test_tokens_tell_tenants_apart(start_pool, tmp_path):
    import hashlib

    file = tmp_path / "tokens.toml"
    entry = '[[token]]\ntenant = "{0}"\nsha256 = "{1}"\n'
    secrets = {"a": "secret-of-a", "b": "secret-of-b"}
    file.write_text("".join(entry.format(who, hashlib.sha256(key.encode()).hexdigest()) for who, key in secrets.items()))
    pool = start_pool("--http", "127.0.0.1:0", "--tokens", str(file), world_size=2)
    for key in (None, "wrong"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for path, body in [("/v1/completions", {"prompt": "x"}), ("/v1/models", None), ("/tokenize", {"content": "x"}), ("/slots", None)]:
            status, answer = call(pool.http, path, body, headers)
            assert status == 401 and answer["error"]["type"] == "authentication_error", (path, answer)
    assert got(pool.http, "/health") == {"status": "ok"}
    assert got(pool.http, "/health", headers={"Host": "pool.example"}) == {"status": "ok"}, "a proxy in front may call it as it likes"
    sessions = []
    for key in secrets.values():
        client = openai.OpenAI(base_url=f"http://{pool.http}/v1", api_key=key, max_retries=0)
        sessions += [client.completions.create(model="any", prompt=CODE, max_tokens=1).pie["session"] for _ in range(2)]
        assert len(got(pool.http, "/slots", headers={"Authorization": f"Bearer {key}"})) == 1
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3]


def test_sessions_go_with_their_front(cache, tmp_path):
    """A router that ends in order closes what its HTTP API opened, whosever it is; the other one's stay."""
    etcd = Etcd(tmp_path)
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0"], router_flags=("--http", "127.0.0.1:0"))
    try:
        fronts = [json.loads((tmp_path / f"router-{number}.json").read_text())["http"] for number in range(2)]
        for tenant in ("a", "b"):
            for front in fronts:
                got(front, "/v1/completions", {"prompt": CODE, "max_tokens": 1}, {"pie-tenant": tenant})
        with connect(cluster.addresses[1]) as channel:

            def sessions(tenant: str) -> set[str]:
                listed = Client(channel, tenant).stub.ListSessions(pb.ListSessionsRequest(), metadata=[("pie-tenant", tenant)])
                return {session.session for session in listed.sessions}

            before = {tenant: sessions(tenant) for tenant in ("a", "b")}
            assert [len(names) for names in before.values()] == [2, 2]
            cluster.routers[0].process.terminate()

            def gone() -> bool:
                try:
                    return [len(sessions(tenant)) for tenant in ("a", "b")] == [1, 1]
                except grpc.RpcError as error:
                    # The group is being taken over.
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                    return False

            until("those of the router that ended are closed", gone, 40.0)
    finally:
        cluster.end()
        etcd.end()
