"""An OpenAI-compatible server in a thread, as well or as badly behaved as a test wants it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


@dataclass
class Fake:
    """What the server does, and what it has been asked.

    law: text sent -> token text -> probability, of answers of one token. A temperature from 2 on
    makes it flat over `words`; one above `hottest` is refused.
    mischief: called with the number of the request; returns what goes wrong with it, or None.
    """

    law: Callable[[str], dict[str, float]] = lambda text: {
        " 7": 0.75,
        " 3, sure.\nMore": 0.2,
        "?": 0.05,
    }
    words: Sequence[str] = tuple(f"w{i}" for i in range(500))
    hottest: float = np.inf
    model: str = "served"
    root: str | None = None
    ends: str = "stop"
    most: int = 1000  # answers a request gets at most
    slots: int = 1000  # answers a request may ask for, or be refused
    known: Sequence[str] = (
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
    )
    endpoints: Sequence[str] = ("completions", "chat/completions")
    seeds: Callable[[int, int], int] = lambda seed, index: (
        seed * 1000 + index
    )  # what the n-th answer is drawn with
    mischief: Callable[[int], str | None] = lambda number: None
    asked: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    given: int = 0  # answers sent whole, at temperature 1, of more than one token
    url: str = ""

    def answers(self, body: dict, text: str) -> list[str]:
        law = (
            dict.fromkeys(self.words, 1 / len(self.words))
            if body["temperature"] >= 2
            else self.law(text)
        )
        n = min(body.get("n", 1), self.most)
        draws = [
            np.random.default_rng(self.seeds(body["seed"], i)).choice(
                len(law), p=list(law.values())
            )
            for i in range(n)
        ]
        return [list(law)[k] for k in draws]


class _Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "fake", ""
    wbufsize, disable_nagle_algorithm = (
        -1,
        True,
    )  # head and body in one packet: else each reply waits 40 ms

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
        entry = {"id": self.server.fake.model} | (
            {"root": self.server.fake.root} if self.server.fake.root else {}
        )
        self._send(200, {"data": [entry]})

    def do_POST(self) -> None:
        fake, path = self.server.fake, self.path.removeprefix("/v1/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(fake.asked)
            fake.asked.append(body)
            fake.keys.append(self.headers["Authorization"])
        if path not in fake.endpoints or body["model"] != fake.model:
            return self._send(404, {"error": {"message": "not found"}})
        usual = {
            "model",
            "prompt",
            "messages",
            "n",
            "max_tokens",
            "seed",
            "temperature",
            *fake.known,
        }
        if odd := body.keys() - usual:
            return self._send(422, {"detail": f"Unexpected fields in the request: {odd}"})
        if body.get("n", 1) > fake.slots:
            return self._send(
                400,
                {
                    "error": {
                        "message": f"Field 'n': Value must be between 1 <= value <= {fake.slots}"
                    }
                },
            )
        if body["temperature"] > fake.hottest:
            return self._send(
                400, {"error": {"message": f"temperature must be in [0, {fake.hottest:g}]"}}
            )
        text = body["prompt"] if path == "completions" else body["messages"][0]["content"]
        texts = fake.answers(body, text)
        choices = [
            {"text": t} if path == "completions" else {"message": {"content": t}} for t in texts
        ]
        reply = {"choices": [{**choice, "finish_reason": fake.ends} for choice in choices]}
        return self._misbehave(fake.mischief(number), reply, len(texts) * (body["max_tokens"] > 1))

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
            self._send(
                status,
                {"error": {"message": "no" if status == 429 else more or "no"}},
                **({"Retry_After": more} if status == 429 and more else {}),
            )
        else:
            self._send(200, how)


@contextlib.contextmanager
def running(fake: Fake, port: int = 0) -> Iterator[Fake]:
    """The server, at fake.url, until the block ends; then nothing answers there."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads, server.fake, server.lock, server.stop = (
        True,
        fake,
        threading.Lock(),
        threading.Event(),
    )
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
