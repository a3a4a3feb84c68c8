"""An OpenAI-compatible server in a thread, as well or as badly behaved as a test wants it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DISTRIBUTION = {" 7": 0.75, " 3, sure.\nMore": 0.2, "?": 0.05}
PENALTIES = ("presence_penalty", "frequency_penalty")
KNOWN = ("top_p", "top_k", "min_p", "repetition_penalty", *PENALTIES)
USUAL = {"model", "prompt", "messages", "n", "max_tokens", "seed", "temperature"}


@dataclass
class Fake:
    """What the server does, and what it has been asked.

    distribution: text sent -> token text -> probability, of answers of one token. A temperature
    from 2 on makes it flat over `words`; one above `hottest` is refused. mischief: called with the
    number of the request; returns what goes wrong with it, or None.
    """

    distribution: Callable[[str], dict[str, float]] = lambda text: DISTRIBUTION
    words: Sequence[str] = tuple(f"w{i}" for i in range(500))
    hottest: float = np.inf
    model: str = "served"
    root: str | None = None
    ends: str = "stop"
    most: int = 1000  # answers a request gets at most
    slots: int = 1000  # answers a request may ask for, or be refused
    known: Sequence[str] = KNOWN
    endpoints: Sequence[str] = ("completions", "chat/completions")
    # what the n-th answer is drawn with
    seeds: Callable[[int, int], int] = lambda seed, index: seed * 1000 + index
    mischief: Callable[[int], str | None] = lambda number: None
    asked: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    given: int = 0  # answers sent whole, at temperature 1, of more than one token
    url: str = ""

    def answers(self, body: dict, text: str) -> list[str]:
        flat = dict.fromkeys(self.words, 1 / len(self.words))
        distribution = flat if body["temperature"] >= 2 else self.distribution(text)
        seeds = (self.seeds(body["seed"], i) for i in range(min(body.get("n", 1), self.most)))
        odds = list(distribution.values())
        return [
            list(distribution)[np.random.default_rng(one).choice(len(distribution), p=odds)]
            for one in seeds
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "fake", ""
    wbufsize, disable_nagle_algorithm = -1, True  # in one packet: else each reply waits 40 ms

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def _send(self, status: int, payload: object, cut: int = 0, **headers: str) -> None:
        data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        self.wfile.flush()
        self.close_connection = self.close_connection or bool(cut)

    def do_GET(self) -> None:
        fake = self.server.fake
        self._send(200, {"data": [{"id": fake.model} | ({"root": fake.root} if fake.root else {})]})

    def do_POST(self) -> None:
        fake, path = self.server.fake, self.path.removeprefix("/v1/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(fake.asked)
            fake.asked.append(body)
            fake.keys.append(self.headers["Authorization"])
        if path not in fake.endpoints or body["model"] != fake.model:
            return self._no(404, "not found")
        if odd := body.keys() - USUAL - {*fake.known}:
            return self._send(422, {"detail": f"Unexpected fields in the request: {odd}"})
        if body.get("n", 1) > fake.slots:
            return self._no(400, f"Field 'n': Value must be between 1 <= value <= {fake.slots}")
        if body["temperature"] > fake.hottest:
            return self._no(400, f"temperature must be in [0, {fake.hottest:g}]")
        plain = path == "completions"
        texts = fake.answers(body, body["prompt"] if plain else body["messages"][0]["content"])
        choices = [{"text": text} if plain else {"message": {"content": text}} for text in texts]
        reply = {"choices": [{**choice, "finish_reason": fake.ends} for choice in choices]}
        return self._misbehave(fake.mischief(number), reply, len(texts) * (body["max_tokens"] > 1))

    def _no(self, status: int, said: str, **headers: str) -> None:
        self._send(status, {"error": {"message": said}}, **headers)

    def _misbehave(self, how: str | None, reply: dict, answers: int) -> None:
        if how is None:
            with self.server.lock:
                self.server.fake.given += answers
            self._send(200, reply)
        elif how == "drop":
            self.close_connection = True
        elif how == "truncate":
            self._send(200, reply, cut=9)
        elif how == "cut json":
            self._send(200, json.dumps(reply)[:-9])
        elif how == "slow":
            self.server.stop.wait(2)
            self.close_connection = True
        elif how[:3].isdigit():  # "429 7": status, then Retry-After or what is said
            status, more = int(how[:3]), how[4:]
            later = {"Retry_After": more} if status == 429 and more else {}
            self._no(status, "no" if status == 429 else more or "no", **later)
        else:
            self._send(200, how)


@contextlib.contextmanager
def running(fake: Fake, port: int = 0) -> Iterator[Fake]:
    """The server, at fake.url, until the block ends; then nothing answers there."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads, server.fake = True, fake
    server.lock, server.stop = threading.Lock(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
