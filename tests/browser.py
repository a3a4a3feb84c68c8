"""A headless chromium for tests, spoken to over its own protocol: what a page does."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

CALLED = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, CALLED)), None)
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"


class Page:
    """One tab. `requests`: the address of everything that was asked for since it was opened."""

    def __init__(self, loop: IOLoop, socket) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.requests: list[str] = []
        for domain in ("Page", "Network", "Runtime"):
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
        return said

    def open(self, url: str) -> None:
        """Go there, and wait until it has loaded and come to rest."""
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.run("new Promise(done => setTimeout(done, 1500))")

    def run(self, script: str):
        """The value of an expression on the page, awaited if it is a promise."""
        said = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")


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
