"""An editor in a terminal, and somebody at its keyboard: keys go in, and what the screen shows is read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pool import until
from stubs import ROOT

EDITORS = ROOT / ".cache" / "editors" / "bin"
COLUMNS, LINES = 100, 30


def editor(name: str) -> str:
    """A program that scripts/editors/fetch.sh gets."""
    path = EDITORS / name
    assert path.is_file(), f"{path} is not there: run scripts/editors/fetch.sh"
    return str(path)


class Terminal:
    """A command in a terminal of its own. Its home is a folder of the test, and `work` is where it starts."""

    def __init__(self, home: Path, work: Path, *command: str, env: dict[str, str] | None = None):
        self._tmux = [editor("tmux"), "-u", "-S", str(home / "terminal"), "-f", "/dev/null"]
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
        folders = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "CACHE", "DATA", "STATE")}
        self._env = kept | {"HOME": str(home), "LANG": "C.UTF-8", "SHELL": "/bin/sh", "TERM": "screen"} | folders | (env or {})
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        # Otherwise a key behind an escape would be a key with Alt.
        settings = ["set", "-g", "remain-on-exit", "on", ";", "set", "-s", "escape-time", "0", ";"]
        self._run(*settings, "new-session", "-d", *size, "-c", str(work), *command)

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], env=self._env, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def keys(self, *names: str) -> None:
        """Keys by tmux's names: `Enter`, `Escape`, `C-x`, `M-x`."""
        self._run("send-keys", *names)

    def type(self, text: str) -> None:
        """Text, as it is."""
        self._run("send-keys", "-l", text)

    def call(self, command: str) -> None:
        """A command of Emacs by its name."""
        self.keys("M-x")
        self.type(command)
        self.keys("Enter")

    def go_to_line(self, line: int) -> None:
        """In Emacs."""
        self.call("goto-line")
        self.type(str(line))
        self.keys("Enter")

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def until(self, what: str, condition, deadline: float = 40.0):
        """Waits until something holds; what it says otherwise has the screen in it."""
        try:
            return until(what, condition, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.screen()}") from None

    def until_shown(self, text: str) -> str:
        return self.until(f"{text!r} is on the screen", lambda: text in self.screen() and self.screen())

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], env=self._env, capture_output=True, timeout=20)
