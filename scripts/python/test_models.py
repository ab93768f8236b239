"""A model that people use, from its GGUF file: SmolLM2-135M beside what Transformers makes of it (scripts/goldens/smollm2.py)."""

import json
import sys
from pathlib import Path

import client as client_module
import pytest
from stubs import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "models"))
import fetch  # noqa: E402

GOLDEN = json.loads(Path(__file__).with_name("smollm2.json").read_text())
# Of a logit, in f32 on both sides.
TOLERANCE = 1e-3
FLAGS = ["--kv-memory", "64MiB"]


# It has nine heads of queries and three of keys. Who does not say how many ranks he wants gets one.
@pytest.fixture(scope="module", params=[None, 3], ids="{} ranks".format)
def model(request, tmp_path_factory):
    from pool import Pool

    file = fetch.fetch("smollm2-135m")
    pool = Pool(tmp_path_factory.mktemp("cache"), "--model", str(file), *FLAGS, world_size=request.param)
    try:
        assert len(pool.workers) == (request.param or 1)
        with client_module.connect(pool.address) as channel:
            client = client_module.Client(channel)
            yield client
            client.close_all()
        pool.stop()
    finally:
        pool.end()


def test_texts_get_the_tokens_of_transformers(model):
    for case in GOLDEN["texts"]:
        got = model.get(model.open(case["text"]).session)
        assert list(got.tokens.ids) == case["ids"], case["text"]
        # Bytes that the vocabulary lacks have no tokens, and stay in the text.
        assert got.text == case["text"]


def test_logits_and_greedy_tokens_are_those_of_transformers(model):
    session = model.open(GOLDEN["prompt"]).session
    done = model.complete(session, max_tokens=len(GOLDEN["greedy"]), top_logprobs=len(GOLDEN["top"]))
    assert done.ids == GOLDEN["greedy"]
    top = done.tokens[0].top
    assert [token.id for token in top] == [id for id, _ in GOLDEN["top"]]
    # Logits that are all moved by the same are the same distribution.
    (_, highest), logits = GOLDEN["top"][0], [logit for _, logit in GOLDEN["top"]]
    off = max(abs((top[0].logprob - token.logprob) - (highest - logit)) for token, logit in zip(top, logits, strict=True))
    assert off < TOLERANCE


def test_an_edit_is_encoded_alone_and_keeps_what_follows(model):
    text = GOLDEN["prompt"]
    opened = model.open(text)
    model.complete(opened.session, max_tokens=1)
    at = text.index("self.radius = radius")
    edited = model.edit(opened.session, opened.revision, client_module.at_bytes(at, at, "# kept as it is\n        "))
    timings = model.complete(opened.session, max_tokens=1).timings
    inserted = model.get(opened.session).session.tokens - opened.tokens
    assert edited.revision > opened.revision
    # What is inserted, a token beside it that merges otherwise, and the last one.
    assert inserted <= timings.tokens_encoded <= inserted + 3, timings
    assert timings.tokens_rotated > 0
