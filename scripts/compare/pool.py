"""Drives a pool that already runs, through its gRPC API as any client would: documents of token ids, token splices.

    python scripts/compare/pool.py --url 127.0.0.1:7400 --model FOLDER
    python scripts/compare/pool.py --url 127.0.0.1:7400 --prompt 300 301 302     # only what follows these tokens

From the edit to the first token: ApplyEdits is sent, and when it has answered Complete, until its first token arrives.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "python"))

import stubs  # noqa: E402  (in scripts/python)

stubs.generate()

import client as client_module  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402
from workload import Splice  # noqa: E402

TIMEOUT = 600.0
client_module.TIMEOUT = TIMEOUT


class Held:
    """A session, on a connection of its own."""

    def __init__(self, address: str):
        self.channel = client_module.connect(address)
        self.client = client_module.Client(self.channel)
        self.session, self.revision, self.tokens = "", 0, []

    def open(self, tokens: list[int]) -> "Held":
        opened = self.client.open(tokens=tokens)
        if opened.reused:
            raise SystemExit(f"{opened.reused} tokens of a new document were held already")
        self.session, self.revision, self.tokens = opened.session, opened.revision, tokens
        return self

    def splice(self, splice: Splice) -> None:
        own = client_module.splice(splice.at, splice.delete, *splice.insert)
        self.revision = self.client.splice(self.session, self.revision, own).revision
        self.tokens = splice.apply(self.tokens)

    def complete(self, count: int) -> list[tuple[float, pb.CompleteResponse]]:
        """The messages that bring tokens, each with the time of its arrival."""
        stream = self.client.stream(self.session, timeout=TIMEOUT, max_tokens=count)
        messages = [(time.perf_counter(), message) for message in stream]
        with_tokens = [(at, message) for at, message in messages if message.tokens]
        produced = sum(len(message.tokens) for _, message in with_tokens)
        if produced != count:
            raise SystemExit(f"{count} tokens were asked for; {produced} came: {messages[-1:]}")
        return with_tokens

    def close(self) -> None:
        self.client.close_all()
        self.channel.close()


class Pool:
    name = "pie-pool"
    kinds = frozenset({"prefill", "type", "insert", "delete", "decode", "sessions"})

    def __init__(self, address: str):
        self._address = address
        self._held: dict[int, Held] = {}

    def prefill(self, tokens: list[int]) -> float:
        # Connecting is no part of it.
        held = Held(self._address)
        sent = time.perf_counter()
        seconds = held.open(tokens).complete(1)[0][0] - sent
        held.close()
        return seconds

    def hold(self, slot: int, tokens: list[int]) -> None:
        held = self._held.get(slot)
        if held and held.tokens == tokens:
            return
        if held and len(held.tokens) > 1 and len(tokens) > 1:
            held.splice(Splice.between(held.tokens, tokens))
            held.complete(1)
            return
        if held:
            self._held.pop(slot).close()
        if tokens:
            self._held[slot] = Held(self._address).open(tokens)
            self._held[slot].complete(1)

    def edit(self, slot: int, splice: Splice) -> tuple[float, int]:
        held = self._held[slot]
        sent = time.perf_counter()
        held.splice(splice)
        at, message = held.complete(1)[0]
        return at - sent, message.tokens[0].id

    def decode(self, slot: int, count: int) -> float:
        messages = self._held[slot].complete(count)
        (first, message), (last, _) = messages[0], messages[-1]
        return (count - len(message.tokens)) / (last - first)

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        held = Held(self._address).open(tokens)
        found = [token.id for _, message in held.complete(count) for token in message.tokens]
        held.close()
        return found

    def close(self) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()

    def describe(self) -> dict:
        with client_module.connect(self._address) as channel:
            pool = client_module.Client(channel).describe()
        ranks = [rank.device for group in pool.groups for rank in group.ranks]
        return {"version": pool.version, "model": pool.model, "parameters": pool.parameters, "ranks": ranks}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", required=True, help="HOST:PORT")
    arguments.add_argument("--model", type=Path, help="the folder with the tokenizer")
    arguments.add_argument("--context", type=int, default=4000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--prompt", type=int, nargs="+", help="only say what follows these tokens")
    arguments = arguments.parse_args()
    pool = Pool(arguments.url)
    if arguments.prompt:
        print(pool.greedy(arguments.prompt, 16))
        return
    import workload

    try:
        workload.alone(pool, arguments.model, arguments.context, arguments.repeat)
    finally:
        pool.close()


if __name__ == "__main__":
    main()
