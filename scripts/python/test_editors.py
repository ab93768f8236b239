"""Neovim, Helix and Emacs themselves, of today, on what docs/editors.md tells people to write, with somebody at the keyboard.

scripts/editors/fetch.sh gets them; where they are not, these tests are left out."""

import contextlib
import os
import re
import sys

import client as client_module
import grpc
import pytest
from client import Client
from pool import Pool, binary, until
from stubs import ROOT
from terminal import EDITORS, Terminal, editor
from test_lsp import held, plainly, sessions

sys.path.insert(0, str(ROOT / "scripts" / "models"))
import fetch  # noqa: E402

pytestmark = pytest.mark.skipif(not EDITORS.is_dir(), reason="no editors: scripts/editors/fetch.sh gets them")

FILE = "shapes.py"
TEXT = """def area(width, height):
    return width * height


def perimeter(width, height):


def volume(width, height, depth):
    return width * height * depth
"""
# Typed into the empty line behind `perimeter`, which is line 6.
TYPED = "    return 2 * ("
PLACE = TEXT.index("\n\ndef volume")
# What the page's recipes ask for, and what they leave as it is.
LINES, TOKENS = 8, 64
NEXT_EDIT = "pie: write the next edit around the cursor"
EMBEDDED = re.compile(r"(?P<quote>['\"])--embedded.*?qwen2\.5-coder-0\.5b['\"]")
# What Debian's package does when it is installed, and what would ask for a C compiler.
EMACS = """
(setq native-comp-enable-subr-trampolines nil native-comp-jit-compilation nil)
(with-eval-after-load 'lsp-mode
  (dolist (part '(lsp-lens lsp-headerline lsp-modeline lsp-diagnostics lsp-completion lsp-semantic-tokens)) (require part)))
"""


@pytest.fixture(scope="module")
def served(cache):
    """A pool with a model that people use."""
    pool = Pool(cache, "--model", str(fetch.fetch("smollm2-135m")), "--kv-memory", "64MiB", world_size=1)
    yield pool
    pool.end()


@pytest.fixture
def people(served):
    with client_module.connect(served.address) as channel:
        client = Client(channel)
        yield client
        client.close_all()


@pytest.fixture
def home(tmp_path):
    """Somebody's home, with a folder that they work in."""
    (tmp_path / "work" / ".git").mkdir(parents=True)
    (tmp_path / "work" / FILE).write_text(TEXT)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pie").symlink_to(binary())
    return tmp_path


@pytest.fixture
def sit_down(home, people):
    """Starts an editor."""
    terminals = []

    def start(*command):
        terminals.append(Terminal(home, home / "work", *command, env={"PATH": f"{home / 'bin'}:{os.environ['PATH']}"}))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.end()
    # An editor that dies at once may leave its session, which the next test would find.
    for session in sessions(people, FILE):
        with contextlib.suppress(grpc.RpcError):
            people.close(session.session)


def close_the_window(terminal, people) -> None:
    terminal.end()
    until("the session is closed", lambda: not sessions(people, FILE), 30.0)


def recipes(served, title: str, language: str) -> list[str]:
    """A section's pieces of code, with the pool that runs in place of the one that the editor would start."""
    page = (ROOT / "docs" / "editors.md").read_text()
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", page, re.S | re.M)[1]

    def running(found: re.Match) -> str:
        quote = found["quote"]
        return found[0][0] + f"--pool{quote}{', ' if ',' in found[0] else ' '}{quote}http://{served.address}{quote}"

    return [EMBEDDED.sub(running, code) for code in re.findall(rf"```{language}\n(.*?)```", section, re.S)]


def suggested(people, closed: str = "") -> str:
    """What is suggested behind `TYPED`: what a plain client gets there, where an editor has closed the bracket or not."""
    text = TEXT[:PLACE] + TYPED + closed + TEXT[PLACE:]
    lines = plainly(people, text, PLACE + len(TYPED), max_tokens=TOKENS).split("\n")
    return lines[0].removesuffix(closed) if closed else "\n".join(lines[:LINES])


def until_saved(terminal, home, people, text: str) -> None:
    """The file has a text, and the pool has it too."""
    file = home / "work" / FILE
    terminal.until(f"the file has {text!r}", lambda: file.read_text() == text)
    terminal.until("the pool has it", lambda: held(people, FILE) == text)


def test_neovim_shows_it_in_grey_and_tab_takes_it(served, people, home, sit_down):
    (home / "init.lua").write_text(recipes(served, "Neovim", "lua")[0])
    nvim = sit_down(editor("nvim"), "-u", str(home / "init.lua"), "-n", FILE)
    nvim.until_shown("def volume")
    nvim.until("the pool has the file", lambda: sessions(people, FILE))
    nvim.type("6Gi" + TYPED)
    expected = suggested(people)
    first, *rest = (line for line in expected.split("\n") if line.strip())
    nvim.until_shown(TYPED + first)
    assert all(line in nvim.screen() for line in rest)
    assert expected not in held(people, FILE), "nothing of it is in the document before it is taken"
    nvim.keys("Tab")
    nvim.keys("Escape")
    # What follows an escape at once would be a key with Alt.
    nvim.until("it is back in normal mode", lambda: "-- INSERT --" not in nvim.screen())
    nvim.type(":w")
    nvim.keys("Enter")
    until_saved(nvim, home, people, TEXT[:PLACE] + TYPED + expected + TEXT[PLACE:])
    # The next edit is offered as any other action.
    nvim.type(":lua vim.lsp.buf.code_action()")
    nvim.keys("Enter")
    nvim.until_shown(NEXT_EDIT)
    close_the_window(nvim, people)


def test_helix_offers_it_in_its_list_inside_the_bracket_that_it_closed(served, people, home, sit_down):
    (code,) = recipes(served, "Helix", "toml")
    (home / "config" / "helix").mkdir(parents=True)
    code = code.replace('"rust"', '"python"').replace('"rust-analyzer", ', "")
    (home / "config" / "helix" / "languages.toml").write_text(code)
    helix = sit_down(editor("hx"), FILE)
    helix.until_shown("def volume")
    helix.until("the pool has the file", lambda: sessions(people, FILE))
    helix.type("6gg")
    helix.type("i" + TYPED)
    expected = suggested(people, closed=")")
    assert expected == "width + height"
    helix.until("the list has it", lambda: re.search(rf"^ *\d+ +{re.escape(expected)} +text", helix.screen(), re.M))
    helix.keys("C-n")
    helix.keys("Enter")
    helix.keys("Escape")
    helix.until_shown("NOR")
    helix.type(":w")
    helix.keys("Enter")
    until_saved(helix, home, people, TEXT[:PLACE] + TYPED + expected + ")" + TEXT[PLACE:])
    helix.type(" a")
    helix.until_shown(NEXT_EDIT)
    helix.keys("Enter")
    helix.until("the text is another one", lambda: held(people, FILE) != (home / "work" / FILE).read_text())
    close_the_window(helix, people)


def test_eglot_offers_it_as_a_completion(served, people, home, sit_down):
    code = recipes(served, "Emacs", "elisp")[0].replace("text-mode", "python-mode")
    (home / ".emacs.d").mkdir()
    (home / ".emacs.d" / "init.el").write_text(EMACS + code)
    emacs = sit_down(editor("emacs"), "-nw", FILE)
    emacs.until_shown("For information about GNU Emacs")
    emacs.call("eglot")
    emacs.until_shown("[eglot] Connected!")
    emacs.go_to_line(6)
    emacs.type(TYPED.strip())
    # Emacs has indented it by itself, or not: what is there counts.
    emacs.keys("C-M-i")
    emacs.until_shown("(width + height)")
    emacs.keys("C-x", "C-s")
    emacs.until_shown("Wrote ")
    saved = (home / "work" / FILE).read_text()
    before = TEXT[:PLACE] + TYPED.strip()
    assert saved.startswith(before) and saved.endswith(TEXT[PLACE:])
    whole = plainly(people, before + TEXT[PLACE:], len(before), max_tokens=TOKENS)
    assert saved[len(before) : -len(TEXT[PLACE:])] == "\n".join(whole.split("\n")[:LINES])
    until_saved(emacs, home, people, saved)
    emacs.call("eglot-code-actions")
    emacs.until_shown(NEXT_EDIT)
    emacs.keys("Enter")
    emacs.until_shown("Edit successful")


def test_lsp_mode_offers_it_beside_other_servers(served, people, home, sit_down):
    code = recipes(served, "Emacs", "elisp")[1].replace('"lsp"', f'"lsp" "--pool" "http://{served.address}"')
    (home / ".emacs.d").mkdir()
    (home / ".emacs.d" / "init.el").write_text(EMACS + "(require 'lsp-mode)\n" + code)
    emacs = sit_down(editor("emacs"), "-nw", FILE)
    emacs.until_shown("For information about GNU Emacs")
    emacs.call("lsp")
    emacs.until_shown("Import project at current directory")
    emacs.type(".")
    emacs.until_shown("initialized successfully")
    emacs.go_to_line(6)
    emacs.type(TYPED.strip())
    emacs.keys("C-M-i")
    emacs.until_shown("1 possible completions")
    emacs.until_shown("width + height) pie")
    emacs.keys("M-Down")
    emacs.keys("M-Enter")
    emacs.until_shown("return 2 * (width + height)")
    emacs.keys("C-x", "C-s")
    emacs.until_shown("Wrote ")
    # With lsp-mode's own ideas of white space.
    typed = TEXT[:PLACE] + TYPED.strip()
    whole = plainly(people, typed + TEXT[PLACE:], len(typed), max_tokens=TOKENS)
    saved = (home / "work" / FILE).read_text()
    assert saved.split() == (typed + "\n".join(whole.split("\n")[:12]) + TEXT[PLACE:]).split()
    until_saved(emacs, home, people, saved)
