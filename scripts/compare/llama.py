"""Drives a llama.cpp server that already runs, through its own /completion endpoint with prompts of token ids.

    python scripts/compare/llama.py --url http://127.0.0.1:8080 --model FOLDER [--cache-reuse 32]
    python scripts/compare/llama.py --url http://127.0.0.1:8080 --prompt 300 301 302     # only what follows these tokens

Each document has a slot of its own, so the server needs four, and its KV cache keeps the longest common prefix of two
prompts; with --cache-reuse also chunks of at least so many tokens that a deletion moved.
"""

import argparse
import contextlib
import http.client
import json
import time
import urllib.parse
from pathlib import Path

TIMEOUT = 600
GREEDY = {"temperature": 0, "top_k": 1, "samplers": ["top_k"], "ignore_eos": True}


class Llama:
    kinds = frozenset({"prefill", "type", "insert", "delete", "decode"})

    def __init__(self, url: str):
        self._address = urllib.parse.urlsplit(url).netloc
        self._held: dict[int, list[int]] = {}
        self.name, self._cache_reuse, self._first_slot = "llama.cpp", 0, 0

    def _request(self, method: str, path: str, body: dict | None = None) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{self.name}: {path} answered {response.status}: {response.read().decode(errors='replace')}")
        return connection, response

    def _get(self, path: str) -> dict:
        connection, response = self._request("GET", path)
        with contextlib.closing(connection):
            return json.load(response)

    def _complete(self, slot: int, tokens: list[int], count: int, **fields) -> list[tuple[float, dict]]:
        """The events of a streamed completion, each with the seconds since the request was sent."""
        body = {
            "prompt": tokens,
            "n_predict": count,
            "id_slot": (self._first_slot + slot) % 4,
            "cache_prompt": True,
            "n_cache_reuse": self._cache_reuse,
            "stream": True,
            "return_tokens": True,
        } | GREEDY
        sent = time.perf_counter()
        connection, response = self._request("POST", "/completion", body | fields)
        events = []
        with contextlib.closing(connection):
            for line in response:
                if line.startswith(b"data: {"):
                    events.append((time.perf_counter() - sent, json.loads(line.removeprefix(b"data: "))))
        if not events or events[-1][1].get("tokens_predicted") != count:
            raise SystemExit(f"{self.name}: {count} tokens were asked for; the last event is {events[-1:]}")
        return events

    def prefill(self, tokens: list[int]) -> float:
        self._held.pop(0, None)
        return self._complete(0, tokens, 1, cache_prompt=False)[0][0]

    def hold(self, slot: int, tokens: list[int]) -> None:
        if self._held.get(slot) != tokens:
            self._complete(slot, tokens, 1, n_cache_reuse=0)
            self._held[slot] = tokens

    def edit(self, slot: int, splice) -> tuple[float, int]:
        self._held[slot] = splice.apply(self._held[slot])
        seconds, event = self._complete(slot, self._held[slot], 1)[0]
        return seconds, event["tokens"][0] if event["tokens"] else -1

    def decode(self, slot: int, count: int) -> float:
        events = self._complete(slot, self._held[slot], count)
        (first, event), (last, _) = events[0], events[-1]
        # Tokens that end inside a character are held back: the first event may bring more than one.
        return (count - event["tokens_predicted"]) / (last - first)

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        self._held.pop(0, None)
        body = {"prompt": tokens, "n_predict": count, "id_slot": self._first_slot, "return_tokens": True} | GREEDY
        connection, response = self._request("POST", "/completion", body)
        with contextlib.closing(connection):
            return json.load(response)["tokens"]

    def describe(self) -> dict:
        properties = self._get("/props")
        slots = properties["total_slots"]
        if slots != 4:
            raise SystemExit(f"{self.name} has {slots} slots; start it with --parallel 4")
        return {"build": properties.get("build_info"), "slots": slots, "model": Path(properties["model_path"]).name}


class LlamaReuse(Llama):
    """The same server, with reuse of what moved."""

    kinds = frozenset({"type", "insert", "delete", "sessions"})

    def __init__(self, url: str, chunk: int):
        super().__init__(url)
        # Not the slot of the other.
        self.name, self._cache_reuse, self._first_slot = f"llama.cpp, cache_reuse {chunk}", chunk, 1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--model", type=Path, help="the folder with the tokenizer")
    arguments.add_argument("--cache-reuse", type=int, default=0)
    arguments.add_argument("--context", type=int, default=4000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--prompt", type=int, nargs="+", help="only say what follows these tokens")
    arguments = arguments.parse_args()
    llama = LlamaReuse(arguments.url, arguments.cache_reuse) if arguments.cache_reuse else Llama(arguments.url)
    if arguments.prompt:
        print(llama.greedy(arguments.prompt, 16))
        return
    import workload

    llama.kinds = Llama.kinds | LlamaReuse.kinds
    workload.alone(llama, arguments.model, arguments.context, arguments.repeat)


if __name__ == "__main__":
    main()
