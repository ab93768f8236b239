"""Completions: streamed text, sampling, stops, what the first token costs, and many at once."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from client import Client, Completion, at_bytes, at_lsp, refusal
from pie.v1 import pie_pb2 as pb
from pool import until
from twin import decode

LINES = [f"fn value_{index}(x: u32) -> u32 {{ x * {index} + 1 }}\n" for index in range(30)]
CODE = "".join(LINES) + "// 日本 🙂\nfn last(x: u32) -> u32 {\n    "
LONG = 4000


@pytest.fixture
def session(client) -> str:
    return client.open(CODE).session


def test_a_completion_streams_tokens_and_whole_characters(client, session):
    whole = client.complete(session, max_tokens=48)
    assert (len(whole.tokens), whole.finish) == (48, pb.FINISH_REASON_LENGTH)
    assert whole.text == decode(whole.ids), "the deltas, joined, are the tokens decoded at once"
    assert whole.revision == client.heard[session]
    messages = list(client.stream(session, max_tokens=48))
    assert len(messages) > 4, "streamed, not sent in one go"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_text_is_that_of_the_tokens_however_wild_they_are(client, temperature):
    session = client.open("日本語 🙂 ").session
    whole = client.complete(session, max_tokens=200, temperature=temperature, seed=11)
    end = {1} if whole.finish == pb.FINISH_REASON_STOP else set()
    assert whole.text == decode(token for token in whole.ids if token not in end)


def test_the_default_is_64_greedy_tokens(client, session):
    default = client.complete(session)
    assert (len(default.tokens), default.finish) == (64, pb.FINISH_REASON_LENGTH)
    assert default.ids == client.complete(session, max_tokens=64, temperature=0.0, seed=7).ids


def test_equal_seeds_give_equal_tokens(client, session):
    def sample(seed):
        return client.complete(session, max_tokens=24, temperature=1.0, seed=seed).ids

    one, again, other = sample(1), sample(1), sample(2)
    assert one == again != other


def test_without_a_seed_each_completion_draws_anew_and_says_how(client, session):
    def sample(**seed):
        messages = list(client.stream(session, max_tokens=24, temperature=1.0, **seed))
        said = [message.seed for message in messages if message.HasField("seed")]
        assert said == [messages[0].seed], "with the first token"
        return said[0], [token.id for message in messages for token in message.tokens]

    (one, first), (other, second) = sample(), sample()
    assert one != other and first != second and max(one, other) < 2**53
    # Not the first: that encoded the document in the same pass, and another shape of a product has other last digits.
    assert sample(seed=other) == (other, second), "the seed that it says gives the same text"
    assert sample(seed=0)[0] == 0 and not any(m.HasField("seed") for m in client.stream(session, max_tokens=1))


def test_narrow_sampling_is_greedy(client, session):
    greedy = client.complete(session, max_tokens=16).ids
    assert client.complete(session, max_tokens=16, temperature=1.0, seed=3, top_k=1).ids == greedy
    assert client.complete(session, max_tokens=16, temperature=1.0, seed=3, top_p=1e-6).ids == greedy


def test_a_document_is_not_changed_by_its_completions(client, session):
    before = client.get(session)
    first = client.complete(session, max_tokens=20).ids
    assert client.complete(session, max_tokens=20, temperature=1.0).ids != first
    after = client.get(session)
    assert (after.text, after.tokens, after.session.revision) == (before.text, before.tokens, before.session.revision)
    assert client.complete(session, max_tokens=20).ids == first


def test_stop_strings_cut_the_text(client, session):
    greedy = client.complete(session, max_tokens=40)
    at = len(greedy.text) // 2
    # Long enough to lie across tokens.
    stop = greedy.text[at : at + 5]
    assert len(stop) == 5, f"too little text: {greedy.text!r}"
    expected = greedy.text[: greedy.text.find(stop)]
    for stops in ([stop], ["never said 0123", stop]):
        cut = client.complete(session, max_tokens=40, stop=stops)
        assert (cut.text, cut.finish) == (expected, pb.FINISH_REASON_STOP)
        assert cut.ids == greedy.ids[: len(cut.ids)] and len(cut.ids) < 40
    unstopped = client.complete(session, max_tokens=40, stop=["never said 0123", greedy.text[-1] + "?"])
    assert (unstopped.text, unstopped.finish) == (greedy.text, pb.FINISH_REASON_LENGTH), "what was held back comes"


def test_stop_tokens_end_a_completion(client, session):
    greedy = client.complete(session, max_tokens=16)
    stop = greedy.ids[9]
    first = greedy.ids.index(stop)
    stopped = client.complete(session, max_tokens=16, stop_tokens=[stop])
    assert stopped.finish == pb.FINISH_REASON_STOP and stopped.ids == greedy.ids[: first + 1]
    assert stopped.text == decode(greedy.ids[:first])


@pytest.mark.parametrize("count", [1, 5, 20])
def test_top_logprobs_are_the_likeliest_in_order(client, session, count):
    for temperature in (0.0, 1.0):
        whole = client.complete(session, max_tokens=6, top_logprobs=count, temperature=temperature, seed=4)
        for token in whole.tokens:
            logprobs = [candidate.logprob for candidate in token.top]
            assert len({candidate.id for candidate in token.top}) == count
            assert logprobs == sorted(logprobs, reverse=True) and logprobs[0] <= 0.0
            assert sum(2.718281828**logprob for logprob in logprobs) < 1.0001
            of_token = {candidate.id: candidate.logprob for candidate in token.top}.get(token.id)
            assert of_token is None or of_token == pytest.approx(token.logprob, abs=1e-4)
            assert token.logprob <= logprobs[0] + 1e-4
            if temperature == 0.0:
                assert token.id == token.top[0].id
    assert all(not token.top for token in client.complete(session, max_tokens=2).tokens)


# Strategies that encode nothing but what was inserted, and how many keys they turn when it stands in front.
FRONT_EDITS = {
    "pie": (pb.STRATEGY_PIE, lambda timings: timings.tokens_rotated > timings.tokens_reused // 2),
    "conflict": (pb.STRATEGY_CONFLICT, lambda timings: timings.tokens_rotated == 0),
}


@pytest.mark.parametrize("strategy, turned_as_it_should", FRONT_EDITS.values(), ids=FRONT_EDITS)
def test_an_edit_costs_what_was_inserted(client, session, strategy, turned_as_it_should):
    client.complete(session, max_tokens=1)
    answer = client.edit(session, None, at_bytes(0, 0, "use std::fmt;\n"), strategy=strategy)
    timings = client.complete(session, max_tokens=1).timings
    assert timings.tokens_encoded + timings.tokens_reused == answer.tokens, "N1"
    assert timings.tokens_encoded <= answer.tokens_inserted + 1, "what was inserted, and the last token"
    assert turned_as_it_should(timings), timings
    assert timings.edit_to_first_token_us > 0 and timings.compute_us > 0
    assert timings.queue_us <= timings.first_token_us

    unedited = client.complete(session, max_tokens=1).timings
    assert (unedited.tokens_encoded, unedited.tokens_rotated, unedited.edit_to_first_token_us) == (1, 0, 0)


def test_full_encodes_everything_behind_the_change(client, session):
    client.complete(session, max_tokens=1)
    answer = client.edit(session, None, at_bytes(0, 0, "use std::fmt;\n"), strategy=pb.STRATEGY_FULL)
    timings = client.complete(session, max_tokens=8).timings
    assert timings.tokens_encoded + timings.tokens_reused == answer.tokens, "N1"
    assert timings.tokens_encoded + timings.tokens_encoded_ahead >= answer.tokens - 4
    assert timings.tokens_rotated == 0


def test_full_answers_as_if_the_document_had_been_opened_afresh(client):
    session = client.open(CODE, strategy=pb.STRATEGY_FULL).session
    client.complete(session, max_tokens=1)
    client.edit(session, None, at_lsp((3, 0), (5, 0), "// 日本語\n"), at_lsp((20, 3), (20, 8), "renamed"))
    fresh = client.open(client.get(session).text).session
    assert client.complete(session, max_tokens=12).ids == client.complete(fresh, max_tokens=12).ids


@pytest.mark.parametrize("strategy", [pb.STRATEGY_PIE, pb.STRATEGY_CONFLICT])
def test_an_edit_at_the_end_is_exact_with_every_strategy(client, strategy):
    first = []
    for each in (strategy, pb.STRATEGY_FULL):
        session = client.open(CODE, strategy=each).session
        client.complete(session, max_tokens=1)
        client.edit(session, None, at_bytes(len(CODE.encode()), len(CODE.encode()), "let y = x"))
        first.append(client.complete(session, max_tokens=1).ids)
    assert first[0] == first[1]


def test_an_edit_and_its_undo_turn_nothing(client, session):
    client.complete(session, max_tokens=1)
    client.edit(session, None, at_bytes(0, 0, "use std::fmt;\n"))
    client.edit(session, None, at_bytes(0, len("use std::fmt;\n")))
    timings = client.complete(session, max_tokens=1).timings
    assert timings.tokens_rotated == 0 and timings.tokens_encoded <= 4, timings


def test_a_newer_edit_ends_a_completion(client, session):
    stream = client.stream(session, max_tokens=LONG)
    first, revision = next(stream), client.heard[session]
    answer = client.edit(session, None, at_bytes(0, 0, "// newer\n"))
    rest = list(stream)
    whole = Completion.read(iter([first, *rest]))
    assert (whole.finish, whole.revision) == (pb.FINISH_REASON_EDITED, revision) and len(whole.tokens) < LONG
    assert whole.text == decode(whole.ids)
    assert client.complete(session, revision=answer.revision, max_tokens=4).revision == answer.revision


def slots_after_a_completion(client: Client, session: str) -> int:
    client.complete(session, max_tokens=4)
    return client.slots_free()


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_completion_that_nobody_waits_for_frees_its_work(client, session, how):
    other = client.open("fn other() {}\n").session
    client.complete(session, max_tokens=1)
    free, before = slots_after_a_completion(client, other), client.get(session)
    stream = client.stream(session, timeout=30.0 if how == "cancelled" else 0.3, max_tokens=LONG)
    next(stream)
    if how == "cancelled":
        stream.cancel()
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    wanted = {"cancelled": grpc.StatusCode.CANCELLED, "deadline": grpc.StatusCode.DEADLINE_EXCEEDED}
    assert refusal(error.value).code == wanted[how]
    until("the slots are free again", lambda: slots_after_a_completion(client, other) == free)
    assert client.get(session) == before
    assert len(client.complete(session, max_tokens=4).tokens) == 4


def test_sessions_that_complete_at_once_get_the_tokens_that_they_get_alone(client):
    texts = [CODE, "def f(a, b):\n    return ", "# 日本語 🙂\n" + LINES[3] * 8]
    sessions = [client.open(text).session for text in texts]
    alone = [client.complete(session, max_tokens=32).ids for session in sessions]
    with ThreadPoolExecutor(len(sessions)) as threads:
        together = list(threads.map(lambda session: client.complete(session, max_tokens=32).ids, sessions))
    assert together == alone
    assert len({tuple(ids) for ids in alone}) > 1, "different documents, different answers"


def test_completions_of_one_session_wait_for_each_other(client, session):
    with ThreadPoolExecutor(4) as threads:
        several = list(threads.map(lambda _: client.complete(session, max_tokens=12).ids, range(4)))
    assert several == [client.complete(session, max_tokens=12).ids] * 4


def test_a_large_document_is_encoded_before_it_is_asked_for(client):
    session = client.open(CODE * 2).session
    until("all is encoded", lambda: client.get(session, content=False).session.tokens_pending == 0)
    timings = client.complete(session, max_tokens=1).timings
    assert timings.tokens_encoded == 1 and timings.tokens_rotated == 0
    assert timings.tokens_encoded_ahead == client.get(session).session.tokens


def test_sessions_of_tokens_and_empty_texts_complete(client):
    assert len(client.complete(client.open("").session, max_tokens=5).tokens) == 5
    assert len(client.complete(client.open(tokens=[0, 100, 200]).session, max_tokens=5).tokens) == 5
