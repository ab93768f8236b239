"""The page at `/`, in a browser: what a keystroke shows, and that nothing is asked for but the pool."""

import hashlib
import re
import urllib.error
import urllib.request

import pytest
from browser import CONTROL, Browser
from client import Client, connect
from pool import Pool, serving, until
from stubs import ROOT
from test_http import call, got

# The page asks 80 ms behind a keystroke; the rest is for machines that have much else to do.
PATIENCE = 60.0
TIME = re.compile(r"[\d.]+ m?s")
# On a line of its own, which the editor indents.
TYPED = "let wide"


def fetch(address: str, path: str, headers=()):
    request = urllib.request.Request(f"http://{address}{path}", None, dict(headers))
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)


def test_the_page_was_made_of_its_sources():
    sources = ROOT / "editors/page"
    made_of = dict(reversed(line.split("  ")) for line in (ROOT / "crates/pie-http/page/sources.sha256").read_text().splitlines())
    there = [*sources.glob("src/*"), *sources.glob("sample/*"), *(sources / name for name in ("build.mjs", "package-lock.json", "tsconfig.json"))]
    sums = {str(file.relative_to(sources)): hashlib.sha256(file.read_bytes()).hexdigest() for file in there}
    assert made_of == sums, "run editors/page/build.sh, and commit what it makes"


def document(browser: Browser) -> str:
    """What the editor shows of the document, without the ghost text."""
    lines = "[...document.querySelectorAll('.cm-line')].map(line => { const copy = line.cloneNode(true);"
    lines += "copy.querySelectorAll('.ghost').forEach(ghost => ghost.remove()); return copy.textContent })"
    return "\n".join(browser.run(lines))


def shown(browser: Browser, what: str, selector: str, is_so=bool) -> str:
    return until(what, lambda: is_so(text := browser.text(selector)) and text, PATIENCE)


def quiet(browser: Browser, typed: str) -> None:
    """Until what was typed last has been answered, both ways."""
    until("the answer", lambda: typed in browser.text("#tokens"), PATIENCE)
    until("the one of full", lambda: browser.text("#full-tokens").endswith("encoded"), PATIENCE)


@pytest.fixture(scope="module")
def pool(cache):
    """With room for the page's two sessions, and none that heals: colours stay until the next keystroke."""
    with serving(cache, "--http", "127.0.0.1:0", "--repair", "with-edits", world_size=2) as running:
        yield running


@pytest.fixture
def client(pool):
    with connect(pool.address) as channel:
        yield Client(channel)


@pytest.fixture
def browser():
    with Browser() as browser:
        yield browser


def test_a_keystroke_shows_what_it_did_and_tab_takes_what_is_suggested(pool: Pool, client: Client, browser: Browser):
    origin = f"http://{pool.http}/"
    browser.open(origin)
    shown(browser, "the document is opened", "#pie-tokens", lambda text: "it was opened" in text)
    before = document(browser)
    browser.type("\n" + TYPED)
    quiet(browser, TYPED)
    shown(browser, "a suggestion", ".ghost")
    fates = {fate: browser.count(f"#tokens .{fate}") for fate in ("encoded", "turned", "reused")}
    assert 0 < fates["encoded"] < fates["turned"] and fates["reused"] > 0, fates
    assert {fate: browser.text(f"#n-{fate}") for fate in fates} == {fate: f"{count:,}" for fate, count in fates.items()}
    assert browser.count("#tokens .marker") >= 3, "the markers of filling in the middle are among the tokens"
    for time in ("#pie-time", "#full-time"):
        assert TIME.fullmatch(browser.text(time)), browser.text(time)
    numbers = [int(browser.text(tokens).replace(",", "").split()[0]) for tokens in ("#pie-tokens", "#full-tokens")]
    assert numbers[0] < numbers[1], "full encodes what stands behind the cursor too"
    assert browser.count("#chart circle.pie") > 0 < browser.count("#chart circle.full")
    assert browser.run("const map = document.querySelector('#map'); map.width > 100 && map.height > 10")
    # Tab takes all of it: it is in the document, and the pool has it.
    ghost = browser.text(".ghost")
    browser.press("Tab")
    taken = TYPED + ghost
    assert taken.replace("\n", "") in document(browser).replace("\n", "")
    names = [session.session for session in client.list().sessions if session.session.startswith("http:page-")]
    name = min(names, key=len)
    assert f"{name}-full" in names

    def held() -> bool:
        ids = list(client.get(name).tokens.ids)
        return taken in got(pool.http, "/detokenize", {"tokens": ids})["content"]

    until("the session holds what was taken", held, PATIENCE)
    assert before != document(browser)
    assert browser.complaints == []
    assert browser.requests and all(url.startswith(origin) for url in browser.requests), browser.requests


def test_a_suggestion_is_taken_word_by_word_or_typed_through_or_left(pool: Pool, browser: Browser):
    browser.open(f"http://{pool.http}/")
    # Until then the editor has not got the keys.
    shown(browser, "the document is opened", "#pie-tokens", lambda text: "it was opened" in text)
    browser.type("\n" + TYPED)
    quiet(browser, TYPED)
    shown(browser, "a suggestion", ".ghost")
    ghost = browser.text(".ghost")
    browser.press("ArrowRight", CONTROL)
    left = browser.text(".ghost")
    assert ghost.endswith(left) and len(left) < len(ghost), (ghost, left)
    browser.press("Escape")
    assert browser.count(".ghost") == 0
    browser.type("; let z")
    quiet(browser, "; let z")
    ghost = shown(browser, "another suggestion", ".ghost")
    browser.type(ghost[0])
    assert browser.text(".ghost") == ghost[1:], "what is typed as suggested leaves the rest"
    assert browser.complaints == []


def test_its_files_say_what_they_are_and_are_sent_once(pool: Pool):
    with fetch(pool.http, "/") as index:
        text, headers = index.read().decode(), index.headers
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"], "scripts come from here alone"
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for path in sorted(set(re.findall(r'"(/page/[^"]+)"', text))):
        with fetch(pool.http, path) as answer:
            assert answer.headers["Content-Type"].split(";")[0] == kinds[path.rsplit(".", 1)[1]]
            assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-cache"
            tag = answer.headers["ETag"]
        with pytest.raises(urllib.error.HTTPError) as again:
            fetch(pool.http, path, {"If-None-Match": tag})
        assert again.value.code == 304
    assert call(pool.http, "/page/another.js")[0] == 404
    assert f"see it work at http://{pool.http}/" in pool.output()


def test_it_can_be_hidden(start_pool):
    pool = start_pool("--http", "127.0.0.1:0", "--page", "off", world_size=1)
    for path in ("/", "/page/page.js"):
        status, answer = call(pool.http, path)
        assert status == 404 and answer["error"]["code"] == "not_found"
    assert "see it work" not in pool.output()
    assert got(pool.http, "/health") == {"status": "ok"}


def test_it_asks_for_a_token_where_the_pool_does_and_shows_it_heal(start_pool, tmp_path, browser: Browser):
    file = tmp_path / "tokens.toml"
    file.write_text(f'[[token]]\ntenant = "a"\nsha256 = "{hashlib.sha256(b"a-secret").hexdigest()}"\n')
    pool = start_pool("--http", "127.0.0.1:0", "--tokens", str(file), world_size=2)
    browser.open(f"http://{pool.http}/")
    until("it asks for a token", lambda: browser.run("document.querySelector('#login')?.hidden === false"), PATIENCE)
    assert "token" in browser.text("#trouble")
    browser.run("document.querySelector('#token').focus()")
    browser.type("a-secret")
    browser.run("document.querySelector('#login button').click()")
    shown(browser, "an answer", "#pie-tokens", lambda text: "encoded" in text)
    assert browser.run("document.querySelector('#login').hidden && document.querySelector('#trouble').hidden")
    assert browser.run("localStorage.length") == 0, "it is kept in the tab alone"
    browser.run("document.querySelector('.cm-content').focus()")
    browser.type("\n" + TYPED)
    quiet(browser, TYPED)
    shown(browser, "nothing is stale", "#healing", lambda text: text.startswith("healed"))
    until("what was turned is repaired", lambda: browser.count("#tokens .repaired") > browser.count("#tokens .turned"), PATIENCE)
