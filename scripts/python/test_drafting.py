"""Tokens that are looked up ahead: the same answers, in fewer passes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from client import Client, at_bytes, connect, refused
from pie.v1 import pie_pb2 as pb

# What a model that has learned nothing repeats, once it repeats itself.
CODE = "".join(f"fn value_{index}(x: u32) -> u32 {{ x + 1 }}\n" for index in range(12))
ASKED = [
    {"max_tokens": 120},
    {"max_tokens": 90, "temperature": 0.7, "seed": 3},
    {"max_tokens": 60, "temperature": 1.2, "top_k": 5, "seed": 9, "top_logprobs": 3},
    {"max_tokens": 120, "at_byte": 80},
]


@pytest.fixture
def clients(start_pool):
    """Of a pool that looks ahead, and of one that does not."""
    pools = [start_pool("--repair", "with-edits", "--draft-tokens", drafts, world_size=2) for drafts in ("8", "0")]
    return [Client(connect(pool.address)) for pool in pools]


def counters(client: Client) -> pb.Counters:
    return client.describe().groups[0].counters


def test_answers_are_the_same_and_come_in_fewer_passes(clients):
    answers = []
    for client in clients:
        sessions = [client.open(CODE + f"// {index}\n").session for index in range(len(ASKED))]
        alone = [client.complete(session, **asked) for session, asked in zip(sessions, ASKED)]
        with ThreadPoolExecutor() as threads:
            together = list(threads.map(lambda pair: client.complete(pair[0], **pair[1]), zip(sessions, ASKED)))
        assert [whole.ids for whole in together] == [whole.ids for whole in alone]
        tops = [[[top.id for top in token.top] for token in whole.tokens] for whole in alone]
        answers.append([(whole.ids, whole.text, whole.finish) for whole in alone] + tops)
    assert answers[0] == answers[1]
    ahead, plain = map(counters, clients)
    assert ahead.tokens_generated == plain.tokens_generated
    assert 0 < ahead.tokens_accepted <= ahead.tokens_drafted
    assert ahead.passes < plain.passes
    assert (plain.tokens_drafted, plain.tokens_accepted) == (0, 0)


def test_a_completion_that_goes_on_over_an_edit_looks_ahead_in_what_there_is_now(clients):
    texts = []
    for client in clients:
        session = client.open(CODE).session
        stream = client.stream(session, max_tokens=100, on_edit=pb.ON_EDIT_GO_ON)
        text = next(stream).text_delta
        # Where the edit meets the completion is chance: only the tables' own check, and a whole answer, are looked for.
        client.edit(session, None, at_bytes(0, 12, "fn other("))
        text += "".join(message.text_delta for message in stream)
        texts.append(text)
        follow = client.complete(session, max_tokens=40)
        assert len(follow.ids) == 40
        texts.append(follow.text)
    assert all(texts) and texts[1] == texts[3], "what follows the edit is the same"


def test_what_an_edit_removed_is_looked_up(clients):
    ahead, plain = clients
    # Sampled, so that it seldom repeats what it wrote.
    asked = {"max_tokens": 80, "temperature": 0.9, "seed": 5}
    session, other = ahead.open(CODE).session, plain.open(CODE).session
    wanted = plain.complete(other, **asked)
    # How much time rows take is not known before some were encoded.
    ahead.complete(session, max_tokens=8)
    end = len(CODE.encode())
    ahead.edit(session, None, at_bytes(end, end, wanted.text))
    ahead.edit(session, None, at_bytes(end, end + len(wanted.text.encode()), ""))
    accepted = []
    for asked_in in (ahead.open(CODE, session="nothing was removed").session, session):
        before = counters(ahead)
        assert ahead.complete(asked_in, **asked).ids == wanted.ids
        accepted.append(counters(ahead).tokens_accepted - before.tokens_accepted)
    assert accepted[1] > accepted[0], f"most of it was there a moment ago: {accepted}"


def test_what_a_client_expects_is_looked_up(clients):
    ahead, plain = clients
    # Sampled, so that it seldom repeats what it wrote.
    asked = {"max_tokens": 80, "temperature": 0.9, "seed": 5}
    session, other = ahead.open(CODE).session, plain.open(CODE).session
    # How much time rows take is not known before some were encoded.
    ahead.complete(session, max_tokens=8)
    expected = plain.complete(other, **asked)
    accepted = []
    for told in ({}, {"prediction": expected.text}):
        before = counters(ahead)
        assert ahead.complete(session, **told, **asked).ids == expected.ids
        accepted.append(counters(ahead).tokens_accepted - before.tokens_accepted)
    # How many are worth looking up at once, and so how many passes it takes, is the machine's matter.
    assert accepted[1] > accepted[0], f"all of it was told: {accepted}"
    wrong = ahead.complete(session, prediction=CODE[::-1], **asked)
    assert wrong.ids == expected.ids
    too_long = refused(ahead.complete, session, prediction="x" * (32 * 1024 + 1))
    assert too_long.reason == "TOO_MANY", too_long
