#!/usr/bin/env python3
"""llama.vim in a Vim of its own against a pool: types into a file as a person would, and looks at what it suggests and at what that cost.

    pie pool --model qwen2.5-coder-0.5b --http 127.0.0.1:7480
    scripts/editors/llama_vim.py --vim vim --plugin PATH/TO/llama.vim FILE [--record REQUESTS.jsonl]

Vim must be 9.1 or newer. Needs nothing but Python. What Vim sends passes through a port of this script's own, which can keep it.
"""

import argparse
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VIMRC = """
set nocompatible nomore noswapfile nobackup shortmess=atTIOF
set runtimepath^={plugin}
let g:llama_config = {{'endpoint_fim': '{endpoint}', 'show_info': 0, 'ring_update_ms': 200, 't_max_predict_ms': 4000}}
function! Dump()
  let l:hints = filter(prop_list(1, {{'end_lnum': -1}}), 'has_key(v:val, "text") || v:val.type =~ "hint"')
  let l:state = {{'hints': l:hints, 'cursor': getpos('.'), 'line': getline('.')}}
  call writefile([json_encode(l:state)], '{folder}/state.json')
endfunction
inoremap <F5> <Cmd>call Dump()<CR>
"""


class Recorder:
    """Passes requests on, and keeps them with their answers."""

    def __init__(self, target: str):
        self.seen: list[dict] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                began = time.monotonic()
                request = urllib.request.Request(f"{target}{self.path}", body, {"Content-Type": "application/json"})
                asked = json.loads(body)
                try:
                    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                        status, told = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, told = error.code, error.read()
                took = time.monotonic() - began
                entry = {"path": self.path, "request": asked, "status": status, "answer": json.loads(told), "ms": took * 1e3}
                recorder.seen.append(entry)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(told)))
                    self.end_headers()
                    self.wfile.write(told)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class Vim:
    """A Vim on a terminal that nobody looks at."""

    def __init__(self, vim: str, plugin: str, endpoint: str, file: Path, folder: Path):
        self.folder = folder
        vimrc = folder / "vimrc"
        vimrc.write_text(VIMRC.format(plugin=plugin, endpoint=endpoint, folder=folder))
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execvp(vim, [vim, "-u", str(vimrc), "-i", "NONE", str(file)])
        self.wait(1.0)

    def wait(self, seconds: float) -> None:
        """Reads what Vim draws, so that it is never held up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.terminal], [], [], left)[0]:
                try:
                    os.read(self.terminal, 1 << 16)
                except OSError:
                    # It has ended.
                    return

    def keys(self, text: str, pause: float = 0.15) -> None:
        for key in text:
            os.write(self.terminal, key.encode())
            self.wait(pause)

    def state(self) -> dict:
        told = self.folder / "state.json"
        told.unlink(missing_ok=True)
        os.write(self.terminal, b"\x1b[15~")
        end = time.monotonic() + 5
        while not told.exists():
            assert time.monotonic() < end, "Vim does not answer"
            self.wait(0.05)
        self.wait(0.05)
        return json.loads(told.read_text())

    def hint(self, patience: float) -> str:
        """What stands as ghost text, as soon as something does."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            texts = [hint.get("text", "") for hint in self.state()["hints"]]
            if any(text.strip() for text in texts):
                return "\n".join(texts)
            self.wait(0.1)
        return ""

    def quit(self) -> None:
        self.keys("\x1b:wqa!\r", 0.05)
        os.waitpid(self.pid, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--vim", default="vim")
    parser.add_argument("--plugin", required=True, help="the folder of llama.vim")
    parser.add_argument("--http", default="http://127.0.0.1:7480")
    parser.add_argument("--line", type=int, default=0, help="open a line below this one; the middle of the file if not given")
    parser.add_argument("--type", default="    if ", help="what is typed there")
    parser.add_argument("--record", type=Path, help="keep the requests, a line of JSON each")
    options = parser.parse_args()
    assert shutil.which(options.vim), f"there is no {options.vim}"
    recorder = Recorder(options.http)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / options.file.name
        shutil.copy(options.file, file)
        line = options.line or file.read_text().count("\n") // 2
        vim = Vim(options.vim, options.plugin, f"{recorder.url}/infill", file, Path(folder))
        vim.keys(f":{line}\ro")
        vim.keys(options.type)
        hint = vim.hint(30.0)
        before = len(file.read_text())
        vim.keys("\t")
        vim.wait(1.0)
        accepted = vim.state()["line"]
        # Away and back, so that chunks of the first place go into the ring.
        vim.keys("\x1b", 0.3)
        vim.keys("G", 0.5)
        vim.keys("o", 0.3)
        vim.keys("x = ", 0.3)
        vim.wait(2.0)
        vim.keys("\x1b", 0.1)
        vim.quit()
        written = file.read_text()
    if options.record:
        options.record.write_text("".join(json.dumps(entry["request"]) + "\n" for entry in recorder.seen))
    print(f"{'prompt':>8} {'encoded':>8} {'ms':>8}  answer")
    for entry in recorder.seen:
        answer = entry["answer"]
        prompt = answer.get("tokens_cached", 0) - answer.get("timings/predicted_n", 0)
        encoded, text = answer.get("timings/prompt_n", "-"), answer.get("content", "")
        print(f"{prompt:>8} {encoded:>8} {entry['ms']:>8.1f}  {text[:70]!r}" + ("" if entry["status"] == 200 else f" {answer}"))
    print(f"suggested: {hint!r}\naccepted: the line is now {accepted!r}; {len(written) - before} characters more")
    refused = [entry for entry in recorder.seen if entry["status"] != 200]
    sys.exit(1 if refused or not hint or accepted == options.type else 0)


if __name__ == "__main__":
    main()
