#!/usr/bin/env python3
"""Replays a git history as llama.vim would send it, and measures what each request costs: to a pool, and to a llama.cpp server.

    pie pool --model qwen2.5-coder-0.5b --world-size 1 --threads 2 --kv-memory 1GiB --http 127.0.0.1:7480
    llama-server --model qwen2.5-coder-0.5b.gguf --threads 2 --ctx-size 16384 --parallel 1 --cache-reuse 256 --port 8080
    scripts/measure/infill.py --git . --edits 500 --out infill.jsonl pool=http://127.0.0.1:7480
    scripts/measure/infill.py --git . --edits 500 --every 10 --out infill.jsonl pool=http://127.0.0.1:7480 llama=http://127.0.0.1:8080

Each edit is a line of a commit's diff, typed in keys of a few characters; then one request goes out: 256 lines before the cursor's line,
64 behind it, and a ring of at most 16 chunks of 64 lines, into which go places that the cursor left and files that were open before, as
llama.vim picks them. Chunks like the text at the cursor are left out, as there. Servers are asked one after the other, one request at a
time; --every N asks all but the first server only at each N-th edit, for those that take long: what they hold is then N edits old, as it
is where somebody types on.
"""

import argparse
import difflib
import http.client
import json
import random
import statistics
import subprocess
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

PREFIX, SUFFIX, RING, CHUNK = 256, 64, 16, 64
FAR = 32


@dataclass
class Editor:
    """An open file, the cursor, and the ring of chunks, as llama.vim has them."""

    draw: random.Random
    name: str = ""
    lines: list[str] = field(default_factory=list)
    ring: list[dict] = field(default_factory=list)
    picked: int = -9999

    def open(self, name: str, text: str) -> None:
        if self.lines:
            self.pick(self.draw.randrange(max(1, len(self.lines) - CHUNK)))
        self.name, self.lines, self.picked = name, text.splitlines(), -9999

    def pick(self, start: int) -> None:
        chunk = self.lines[max(0, start) : max(0, start) + CHUNK]
        if len(chunk) < 3:
            return
        self.ring = [other for other in self.ring if alike(other["lines"], chunk) <= 0.9]
        self.ring = [*self.ring[-(RING - 1) :], {"name": self.name, "lines": chunk}]

    def request(self, row: int, column: int) -> dict:
        line = self.lines[row]
        if abs(row - self.picked) > FAR:
            self.pick(row - PREFIX - CHUNK)
            self.pick(row + SUFFIX)
            self.picked = row
        here = self.lines[max(0, row - CHUNK // 2) : row + CHUNK // 2]
        self.ring = [other for other in self.ring if alike(other["lines"], here) <= 0.5]
        extra = [{"text": "\n".join(chunk["lines"]) + "\n", "time": 0, "filename": chunk["name"]} for chunk in self.ring]
        return {
            "id_slot": 0,
            "input_prefix": "\n".join(self.lines[max(0, row - PREFIX) : row]) + "\n",
            "input_suffix": line[column:] + "\n" + "\n".join(self.lines[row + 1 : row + 1 + SUFFIX]) + "\n",
            "input_extra": extra,
            "prompt": line[:column],
            "n_predict": 1,
            "n_indent": 0,
            "top_k": 40,
            "top_p": 0.90,
            "samplers": ["top_k", "top_p", "infill"],
            "stream": False,
            "cache_prompt": True,
        }


def alike(a: list[str], b: list[str]) -> float:
    """As llama.vim compares chunks: the lines that both have."""
    return 2 * len(set(a) & set(b)) / max(1, len(a) + len(b))


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True, errors="replace").stdout


def history(folder: Path, suffixes: tuple[str, ...], seed: int):
    """Requests without end, as long as there are commits: file by file, line by line, key by key."""
    editor = Editor(random.Random(seed))
    commits = git(folder, "rev-list", "--reverse", "--no-merges", "HEAD").split()[1:]
    for commit in commits:
        changed = git(folder, "diff", "--name-only", "--diff-filter=M", f"{commit}^", commit).splitlines()
        for name in changed:
            if not name.endswith(suffixes):
                continue
            old = git(folder, "show", f"{commit}^:{name}")
            new = git(folder, "show", f"{commit}:{name}").splitlines()
            if not 40 <= old.count("\n") <= 1500:
                continue
            editor.open(name, old)
            yield from typed(editor, new)


def typed(editor: Editor, new: list[str]):
    blocks = difflib.SequenceMatcher(None, editor.lines, new, autojunk=False).get_opcodes()
    shift = 0
    for kind, start, end, come, gone in blocks:
        if kind == "equal":
            continue
        row = start + shift
        del editor.lines[row : end + shift]
        shift -= end - start
        for line in new[come:gone]:
            editor.lines.insert(row, "")
            shift += 1
            stripped = len(line) - len(line.lstrip())
            # Three pauses in a line, at most: after a word, as people stop.
            stops = sorted({stripped, (stripped + len(line)) // 2, len(line)})
            for column in stops:
                editor.lines[row] = line[:column]
                if column > stripped or not line.strip():
                    yield editor.request(row, column)
            row += 1


def ask(url: str, body: dict) -> tuple[float, dict]:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=900)
    sent = time.perf_counter()
    connection.request("POST", "/infill", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    took = time.perf_counter() - sent
    assert answer.status == 200, f"{url}: {answer.status}: {told}"
    connection.close()
    return took, told


def row(took: float, told: dict) -> dict:
    timings = told["timings"]
    own = told.get("pie", {})
    return {
        "ms": took * 1e3,
        "encoded": timings["prompt_n"],
        "prompt": told["tokens_evaluated"],
        "search_us": own.get("search_us"),
        "reading_us": own.get("reading_us"),
        "found": own.get("found"),
        "cut": told.get("truncated"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=URL")
    parser.add_argument("--git", type=Path, default=Path("."), help="a repository")
    parser.add_argument("--suffix", action="append", help="of files that are edited; .rs and .py if not given")
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--skip", type=int, default=0, help="edits of the history that are not made")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a line of JSON for each answer")
    options = parser.parse_args()
    servers = [server.split("=", 1) for server in options.servers]
    rows: dict[str, list[dict]] = {name: [] for name, _ in servers}
    requests = history(options.git, tuple(options.suffix or [".rs", ".py"]), options.seed)
    for number, body in enumerate(requests):
        if number < options.skip:
            continue
        if number >= options.skip + options.edits:
            break
        for position, (name, url) in enumerate(servers):
            if position and number % options.every:
                continue
            rows[name].append({"edit": number, "server": name, **row(*ask(url, body))})
            if options.out:
                with options.out.open("a") as out:
                    out.write(json.dumps(rows[name][-1]) + "\n")
    for name, of in rows.items():
        tell(name, of)
    if len(rows) > 1:
        first, *others = rows.values()
        by_edit = {row["edit"]: row for row in first}
        for other, (name, _) in zip(others, servers[1:]):
            pairs = [row["ms"] / by_edit[row["edit"]]["ms"] for row in other[1:]]
            print(f"{name} takes {statistics.median(pairs):.1f} times as long at p50 of {len(pairs)} pairs")


def tell(name: str, rows: list[dict]) -> None:
    # The first finds nothing.
    rows = rows[1:]
    times = sorted(row["ms"] for row in rows)
    encoded, prompt = sum(row["encoded"] for row in rows), sum(row["prompt"] for row in rows)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: E731
    print(f"{name}: {len(rows)} requests of {prompt / len(rows):.0f} tokens; {100 * encoded / prompt:.1f} % of them encoded")
    print(f"  request to answer of one token: p50 {at(0.5):.1f} ms, p90 {at(0.9):.1f} ms, p99 {at(0.99):.1f} ms")
    searches = sorted(row["search_us"] for row in rows if row["search_us"] is not None)
    readings = sorted(row["reading_us"] for row in rows if row["reading_us"] is not None)
    if searches:
        middle, last = len(searches) // 2, int(len(searches) * 0.99)
        print(f"  finding the session: p50 {searches[middle]} us, p99 {searches[last]} us")
        print(f"  reading the prompt: p50 {readings[middle]} us, p99 {readings[last]} us")
        counts = {way: sum(row["found"] == way for row in rows) for way in ("alike", "new", "named")}
        print(f"  sessions: {', '.join(f'{count} {way}' for way, count in counts.items())}")


if __name__ == "__main__":
    main()
