"""A headless Chromium, driven by its own protocol: what a test of the page needs of it, and no more."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from websockets.sync.client import connect

# Debian has one without windows in a package of its own; CI's machines have Chrome.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
START_DEADLINE = 30.0
ANSWER_DEADLINE = 30.0
# What a key press is made of: a key's code of Windows, its name, the text that it types.
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "Backspace": 8}
OTHER_KEYS = {".": ("Period", 190)}
CONTROL = 2


def program() -> str | None:
    """The browser: `PIE_CHROMIUM`, or what is there."""
    return os.environ.get("PIE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of one browser."""

    def __init__(self, width: int = 1400, height: int = 900, scheme: str = "light"):
        self._folder = tempfile.TemporaryDirectory(prefix="pie-browser-", ignore_cleanup_errors=True)
        found = program()
        assert found, f"none of {', '.join(NAMES)} is there: scripts/test.sh --setup installs one"
        # Its sandbox wants what containers, and root, do not have. It opens pages of this machine alone.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={self._folder.name}", f"--window-size={width},{height}"]
        self._log = Path(self._folder.name, "output")
        with self._log.open("wb") as log:
            command = [found, *flags, "about:blank"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        try:
            self._socket = connect(self._address(), max_size=None, proxy=None, legacy=True)
            target = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **size)
        except BaseException:
            self.end()
            raise

    _session: str | None = None

    def _address(self) -> str:
        """Where it listens, as it says when it does."""
        end = time.monotonic() + START_DEADLINE
        while not (said := re.search(r"DevTools listening on (ws://\S+)", self._log.read_text(errors="replace"))):
            output = self._log.read_text(errors="replace")
            assert self._process.poll() is None, f"the browser ended; it said:\n{output}"
            assert time.monotonic() < end, f"the browser did not start within {START_DEADLINE:.0f} s; it said:\n{output}"
            time.sleep(0.05)
        return said[1]

    def call(self, method: str, **parameters) -> dict:
        """Calls a method of the protocol. Events that come before its answer are taken down."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            said = json.loads(self._socket.recv(timeout=ANSWER_DEADLINE))
            if said.get("id") == number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self._event(said.get("method"), said.get("params", {}))

    def _event(self, name: str | None, told: dict) -> None:
        match name:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(json.dumps(told["entry"]))

    def open(self, url: str) -> None:
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), answer

    def run(self, script: str):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What stands in an element; nothing if there is none."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")

    def count(self, selector: str) -> int:
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def type(self, text: str) -> None:
        """Types letter by letter."""
        for letter in text:
            key = {"key": letter, "text": letter}
            if letter == "\n":
                key = {"key": "Enter", "text": "\r", "windowsVirtualKeyCode": KEYS["Enter"]}
            self.call("Input.dispatchKeyEvent", type="keyDown", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key["key"])

    def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key that types nothing."""
        code, number = (key, KEYS[key]) if key in KEYS else OTHER_KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()))
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self, path: Path) -> None:
        """Writes what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def end(self) -> None:
        # Debian's program is a script that starts the browser, which starts others: the group of them goes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
