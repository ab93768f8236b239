"""What clients that nobody here wrote send and look for: each case was found with one of them, or stands in llama.cpp's own tests of its server."""

import gzip
import json
import sys
import urllib.error
import urllib.request

import pytest
from pool import Pool
from stubs import ROOT
from test_http import call, got
from web import channel, pool  # noqa: F401  (fixtures)

sys.path.insert(0, str(ROOT / "scripts" / "models"))
import fetch  # noqa: E402

CODE = 'def greet(name):\n    text = f"Hello, {name}!"\n    return text\n' * 8
GREEDY = {"temperature": 0, "pie": {"exact": True}}


@pytest.fixture
def http(pool):  # noqa: F811
    return pool.http


def events(address: str, path: str, body: dict) -> list[dict]:
    """The events of a stream, but for the word that ends it."""
    data = json.dumps(body | {"stream": True}).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        lines = [line.decode() for line in answer if line.strip()]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.strip() != "data: [DONE]"]


def test_the_end_of_the_cache_ends_a_text_as_the_end_of_the_models_context_does(cache):
    running = Pool(cache, "--kv-memory", "2MiB", "--http", "127.0.0.1:0", world_size=1)
    try:
        meta = got(running.http, "/v1/models")["data"][0]["meta"]
        context = meta["n_ctx"]
        assert context < meta["n_ctx_train"] and got(running.http, "/props")["default_generation_settings"]["n_ctx"] == context
        for left in (1, 2, 7):
            prompt = [40 + number % 50 for number in range(context - left)]
            answer = got(running.http, "/v1/completions", {"prompt": prompt, "max_tokens": 100, **GREEDY})
            assert answer["choices"][0]["finish_reason"] == "length" and 0 < answer["usage"]["completion_tokens"] <= left
            whole = got(running.http, "/completion", {"prompt": prompt, **GREEDY})
            assert (whole["stop_type"], whole["content"]) == ("limit", answer["choices"][0]["text"])
            *parts, last = events(running.http, "/completion", {"prompt": prompt, **GREEDY})
            assert last["stop"] and "".join(part["content"] for part in parts) == whole["content"]
        # What can never fit is no matter of waiting: clients that ask again at 429 would for ever.
        for over in (0, 1):
            status, refusal = call(running.http, "/v1/completions", {"prompt": [45] * (context + over), "max_tokens": 1})
            assert (status, refusal["error"]["code"]) == (400, "context_length_exceeded"), refusal
        running.stop()
    finally:
        running.end()


def test_lists_of_prompts_are_prompts_and_lists_with_tokens_one(http):
    # Who sends tokens begins the text too.
    ids = got(http, "/tokenize", {"content": CODE, "add_special": True})["tokens"]
    asked = {"n_predict": 6, **GREEDY}
    whole = got(http, "/completion", {"prompt": CODE, **asked})["content"]
    for one in ([CODE], {"prompt_string": CODE}, [{"prompt_string": CODE}], [[CODE]], ids, [ids], [*ids[:5], *ids[5:]]):
        assert got(http, "/completion", {"prompt": one, **asked})["content"] == whole, one
    for several in ([CODE, CODE], [[1, 2], [3]], [[1, 2], CODE]):
        for path in ("/completion", "/v1/completions"):
            status, refusal = call(http, path, {"prompt": several})
            assert status == 400 and "prompt" in refusal["error"]["message"] and "untagged" not in str(refusal), refusal


def test_probabilities_are_told_of_each_token(http):
    asked = {"prompt": CODE, "n_predict": 5, "max_tokens": 5, **GREEDY}
    plain = got(http, "/v1/completions", asked | {"logprobs": 3})["choices"][0]["logprobs"]
    whole = got(http, "/completion", asked | {"n_probs": 3})
    told = whole["completion_probabilities"]
    streamed = [one for event in events(http, "/completion", asked | {"n_probs": 3}) for one in event.get("completion_probabilities", [])]
    assert told == streamed and len(told) == 5
    for one, logprob in zip(told, plain["token_logprobs"], strict=True):
        assert one["logprob"] == pytest.approx(logprob, abs=1e-4) and len(one["top_logprobs"]) == 3
        assert one["top_logprobs"][0]["id"] == one["id"] and bytes(one["bytes"]).decode(errors="replace") == one["token"]
    assert "completion_probabilities" not in got(http, "/completion", asked)
    status, refusal = call(http, "/completion", asked | {"n_probs": 21})
    assert status == 400 and "n_probs" in refusal["error"]["message"]
    # The token that was drawn is among them, however unlikely it was.
    drawn = got(http, "/v1/completions", {"prompt": CODE, "max_tokens": 8, "temperature": 2, "seed": 3, "logprobs": 1})["choices"][0]["logprobs"]
    assert all(token in top for token, top in zip(drawn["tokens"], drawn["top_logprobs"], strict=True))


def test_what_ends_a_stream_has_no_text(http):
    asked = {"prompt": CODE, "n_predict": 6, "max_tokens": 6, **GREEDY}
    *parts, last = events(http, "/completion", asked)
    assert last["stop"] and last["content"] == "" and not any(part["stop"] for part in parts)
    assert "".join(part["content"] for part in parts) == got(http, "/completion", asked)["content"]
    *parts, last = events(http, "/v1/completions", asked)
    assert last["choices"][0]["text"] == "" and last["choices"][0]["finish_reason"] == "length"
    assert all(part["choices"][0]["finish_reason"] is None for part in parts)
    assert "".join(part["choices"][0]["text"] for part in parts) == got(http, "/v1/completions", asked)["choices"][0]["text"]


def test_no_text_ends_within_a_character(start_pool):
    """SmolLM2 writes emoji byte by byte."""
    running = start_pool("--model", str(fetch.fetch("smollm2-135m")), "--kv-memory", "64MiB", "--http", "127.0.0.1:0", world_size=1)
    begun = 0
    for tokens in range(1, 13):
        asked = {"prompt": "🙂🤗🎉 🙂🤗🎉 🙂🤗🎉 🙂", "n_predict": tokens, "max_tokens": tokens, **GREEDY}
        whole = got(running.http, "/completion", asked | {"n_probs": 1})
        text = got(running.http, "/v1/completions", asked)["choices"][0]["text"]
        written = b"".join(bytes(one["bytes"]) for one in whole["completion_probabilities"]).decode(errors="replace")
        assert whole["content"] == text == written.rstrip("\ufffd")
        begun += written != text
    assert begun > 3, "some would have"


@pytest.mark.parametrize(
    ("path", "plain", "other"),
    [
        ("/completion", {"n_predict": 4, "top_k": 5, "seed": 3}, {"n_predict": 4.0, "top_k": 5.0, "seed": 3.0}),
        ("/v1/completions", {"max_tokens": 4, "seed": 3, "n": 1}, {"max_tokens": 4.0, "seed": 3.0, "n": 1.0}),
        ("/v1/completions", {"prompt": [45, 46, 47]}, {"prompt": [45.0, 46, 47.0]}),
        ("/completion", {"prompt": [45, 46, 47]}, {"prompt": [45.0, 46, 47.0]}),
        ("/infill", {"input_prefix": CODE, "input_suffix": ""}, {"input_prefix": CODE, "input_suffix": None, "input_extra": None, "prompt": None}),
        ("/infill", {"input_prefix": CODE, "input_suffix": "x", "n_indent": 4}, {"input_prefix": CODE, "input_suffix": "x", "n_indent": 4.0, "id_slot": -1.0}),
        ("/v1/completions", {"temperature": 0}, {"temperature": 1.3, "top_p": 0}),
        ("/completion", {"temperature": 0}, {"temperature": 1.3, "top_p": 0, "response_fields": []}),
        ("/completion", {}, {"stop": None, "samplers": None, "response_fields": None, "stream": None}),
    ],
)
def test_other_spellings_mean_the_same(http, path, plain, other):
    common = {"prompt": CODE, "max_tokens": 5, "n_predict": 5} if path != "/infill" else {"n_predict": 5}
    text = [
        answer["choices"][0]["text"] if "choices" in answer else answer["content"]
        for answer in (got(http, path, common | GREEDY | fields) for fields in (plain, other))
    ]
    assert text[0] == text[1]


def test_tokens_become_the_text_that_they_were_made_of(http):
    content = "Hello 媽 🤗 <|fim_prefix|> größe\n"
    pieces = got(http, "/tokenize", {"content": content, "with_pieces": True})["tokens"]
    joined = b"".join(bytes(one["piece"]) if isinstance(one["piece"], list) else one["piece"].encode() for one in pieces)
    assert joined.decode() == content and any(isinstance(one["piece"], list) for one in pieces)
    assert got(http, "/detokenize", {"tokens": [one["id"] for one in pieces]})["content"] == content
    status, refusal = call(http, "/detokenize", {"tokens": [10**6]})
    assert status == 400 and "1000000" in refusal["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/completions", {"prompt": 5}, "prompt"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt"),
        ("/v1/completions", {"max_tokens": 3}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": "a", "stop": 5}, "stop"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "stream_options": {"include_usage": 3}}, "stream_options.include_usage"),
    ],
)
def test_refusals_name_the_field(http, path, body, field):
    status, refusal = call(http, path, body)
    assert (status, refusal["error"]["param"]) == (400, field), refusal
    assert "untagged" not in refusal["error"]["message"] and "session" not in refusal["error"]["message"], refusal


def test_bodies_that_cannot_be_read_are_refused_in_json(http):
    status, refusal = call(http, "/infill", {})
    assert status == 400 and "input_prefix" in refusal["error"]["message"]
    cases = [
        (gzip.compress(b'{"prompt": "a"}'), {"Content-Encoding": "gzip"}, 415),
        (b'{"prompt": "' + b"a" * (40 << 20) + b'"}', {}, 413),
        (b"\xef\xbb\xbf" + b'{"prompt": "a", "max_tokens": 1}', {}, 200),
        (b'{"prompt": "a"} and more', {}, 400),
        (b"[]", {}, 400),
        (b'{"prompt": "a",}', {}, 400),
        (b'{"prompt": "a"', {}, 400),
        (b'{"prompt": ' + b"[" * 100 + b"0" + b"]" * 100 + b"}", {}, 400),
    ]
    for data, headers, expected in cases:
        request = urllib.request.Request(f"http://{http}/v1/completions", data, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                status, told = answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            status, told = error.code, json.loads(error.read())
        except OSError:
            # The server has answered before it was sent all, and the client does not read it.
            assert expected == 413
            continue
        assert status == expected, (data[:40], told)
        assert status == 200 or ("?" not in told["error"]["message"] and told["error"]["type"] == "invalid_request_error"), told
