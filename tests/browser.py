"""A headless chromium for tests, spoken to over its own protocol: what a page does."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from crystal.files import cache, file_sha256

CALLED = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, CALLED)), None)
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
AXE = ("axe-core@4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c")
CHECKS = """axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    rules: {"heading-order": {enabled: true}}, resultTypes: ["violations"], preload: false,
}).then(found => found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.id}: ${node.target} ${node.html.slice(0, 120)} ${
        node.any.map(one => one.message).join(" ").slice(0, 160)}`)))"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNSET = """document.querySelectorAll('[data-mml-node="merror"]').length + Math.max(0,
    document.querySelectorAll(".math.notranslate").length
    - document.querySelectorAll("mjx-container").length)"""
TALL = """(() => {  // pixels, with that fold open in every group which makes the page longest
    const folds = [...document.querySelectorAll("details:not(details details)")], most = {};
    const groups = folds.map(fold => fold.name);
    document.querySelectorAll("details").forEach(fold => fold.removeAttribute("name"));
    const bottom = () => document.querySelector("article")?.getBoundingClientRect().bottom || 0;
    const whole = bottom();
    folds.forEach((fold, number) => {
        fold.querySelectorAll("details").forEach(inner => inner.open = true);
        fold.open = true;
        most[groups[number]] = Math.max(most[groups[number]] || 0, bottom() - whole);
        fold.open = false;
    });
    return Math.round(Object.values(most).reduce((sum, one) => sum + one, whole));
})()"""
TALLEST = 6000  # pixels of a page on a laptop; of folds that follow each other one can be open
OPEN = "document.querySelectorAll('details').forEach(fold => fold.open = true)"
WIDTHS = (390, 768, 1280)
JUDGED = {("light", 390), ("light", 1280), ("dark", 1280)}  # colours do not depend on the width
REST = """Promise.all([document.fonts.ready, window.MathJax?.startup?.promise]).then(() =>
    new Promise(done => {  // at rest: nothing has changed for a fifth of a second
        let timer, watch;
        const rest = () => { clearTimeout(timer); timer = setTimeout(end, 200); };
        const end = () => { watch.disconnect(); done(); };
        watch = new MutationObserver(rest);
        watch.observe(document, {subtree: true, childList: true, attributes: true});
        setTimeout(end, 3000);
        rest();
    }))"""
LOCAL = ("file:", "data:", "blob:")


def axe() -> str:
    """The script that judges how accessible a page is, by its hash; skips where it is not had."""
    package, sha256 = AXE
    script = cache() / "npm" / f"{package}.js"
    if not script.is_file():
        try:
            script.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                packed = ["npm", "pack", "--silent", package]
                subprocess.run(packed, cwd=folder, check=True, capture_output=True, timeout=120)
                with tarfile.open(next(Path(folder).iterdir())) as archive:
                    script.write_bytes(archive.extractfile("package/axe.min.js").read())
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{package} cannot be had: {type(error).__name__}")
    assert file_sha256(script) == sha256
    return script.read_text(encoding="utf-8")


class Page:
    """One tab. `requests`: the address of everything that was asked for since it was opened;
    `errors`: what went wrong since then, as the console has it.
    """

    def __init__(self, loop: IOLoop, socket) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params):
        """The answer of one command; events that come before it are looked through."""
        self._number += 1
        sent = {"id": self._number, "method": method, "params": params}
        self._loop.run_sync(lambda: self._socket.write_message(json.dumps(sent)))
        while (said := self._next()).get("id") != self._number:
            pass
        assert "error" not in said, said
        return said["result"]

    def _next(self) -> dict:
        said = json.loads(self._loop.run_sync(self._socket.read_message, timeout=60))
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(said["params"]["request"]["url"])
        elif said.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(said["params"]["exceptionDetails"]))
        elif said.get("method") == "Runtime.consoleAPICalled" and said["params"]["type"] == "error":
            self.errors.append(str(said["params"]["args"]))
        elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
            self.errors.append(str(said["params"]["entry"]))
        return said

    def open(self, url: str) -> None:
        """Go there, and wait until it has loaded and come to rest."""
        self.requests, self.errors = [], []
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.run(REST)

    def run(self, script: str):
        """The value of an expression on the page, awaited if it is a promise."""
        said = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def resize(self, width: int, height: int = 800) -> None:
        """A window of that many pixels; below 500 a phone's."""
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def faults(self, url: str, axe: str) -> list[str]:
        """What is wrong with a document, all its folds open: in each theme, at each width."""
        self.resize(1280)
        self.open(url)
        found = [f"{tall} pixels tall"] if (tall := self.run(TALL)) > TALLEST else []
        self.run(OPEN)
        self.run(
            "document.head.append(Object.assign(document.createElement('style'),"
            " {textContent: '* {transition: none !important}'}))"
        )
        found += [f"asks for {asked}" for asked in self.requests if not asked.startswith(LOCAL)]
        self.run("window.MathJax?.startup?.promise.then(() => undefined)")
        found += [f"{unset} equations are not set"] if (unset := self.run(UNSET)) else []
        self.run(f"{axe}; undefined")
        for width in WIDTHS:
            self.resize(width)
            self.run("new Promise(done => setTimeout(done, 500))")  # scripts see it later
            for theme in ("light", "dark"):
                self.run(f"document.documentElement.dataset.theme = '{theme}'")
                if (wide := self.run(WIDE)) > 0:
                    found.append(f"{theme}, {width}: {wide} pixels too wide")
                if (theme, width) in JUDGED:
                    found += [f"{theme}, {width}: {fault}" for fault in self.run(CHECKS)]
        return found + self.errors


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser without a network, with an empty profile; it is ended, whatever happens."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        NO_NETWORK,
        "--remote-debugging-port=0",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--remote-allow-origins=*",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = IOLoop(make_current=False)
    try:
        yield Page(loop, loop.run_sync(lambda: _connected(profile), timeout=60))
    finally:
        process.terminate()
        process.wait(30)
        loop.close()


async def _connected(profile: Path):
    """A socket to the first tab, which is there a moment after the port was written down."""
    from tornado.httpclient import AsyncHTTPClient

    began, port = time.monotonic(), profile / "DevToolsActivePort"
    while not (port.is_file() and "\n" in port.read_text()):
        assert time.monotonic() - began < 50, "chromium did not start"
        time.sleep(0.1)
    number = port.read_text().split()[0]
    listed = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{number}/json/list")
    tab = next(tab for tab in json.loads(listed.body) if tab["type"] == "page")
    return await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=2**27)
