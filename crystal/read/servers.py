"""A model behind an OpenAI-compatible server: vLLM, SGLang, TGI, llama.cpp, `transformers serve`.

Every setting that could truncate the distribution is sent: for what is not sent, a server may take
the model's generation_config.json, top-k 50, or no sampling at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import tenacity

from ..ask.prompts import CHAT, COMPLETION
from ..errors import CrystalError
from ..texts import is_number, line

ENDPOINTS = {COMPLETION: "completions", CHAT: "chat/completions"}
TRIES = 6  # of a reply that makes no sense, or of a server's own error: these may not pass
_ENDS = (None, "stop", "length", "eos", "eos_token", "stop_sequence", "tool_calls")
_BUSY = (408, 425, 429, 502, 503, 504)
_EXAMPLE, _KEY = "--server http://127.0.0.1:8000", "export CRYSTAL_API_KEY=..."
_AGAIN = "see its log, start it again, and run the same command: what was drawn is kept"


# -- settings: temperature -> what is sent


def everything(temperature: float) -> dict:
    """vLLM, SGLang and llama.cpp know all of it or ignore the rest; to each, top_k -1 is none."""
    return {**openai(temperature), "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def transformers(temperature: float) -> dict:
    """`transformers serve` refuses top_k, and is greedy unless this one field says otherwise."""
    cuts = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0}
    more = {"eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1}
    config = json.dumps({"do_sample": True, "temperature": temperature, **cuts, **more})
    return {"temperature": temperature, "top_p": 1.0, "generation_config": config}


def openai(temperature: float) -> dict:
    """What the published interface knows."""
    return {**tgi(temperature), "top_p": 1.0}


def tgi(temperature: float) -> dict:
    """TGI takes only a top_p below 1; unset, it truncates nothing."""
    return {"temperature": temperature, "presence_penalty": 0.0, "frequency_penalty": 0.0}


DIALECTS: tuple[Callable[[float], dict], ...] = (everything, transformers, openai, tgi)


# -- one server


class Reply(NamedTuple):
    """Whole answers to one request."""

    texts: tuple[str, ...]
    cut: int  # of these, ended by max_tokens


class Failed(Exception):
    """How a request ended. tries: how many may be made of it; after: seconds before the next."""

    def __init__(self, said: str, *, tries: float = TRIES, status=0, after: float = 0.0) -> None:
        super().__init__(said)
        self.tries, self.status, self.after = tries, status, after


@dataclass(kw_only=True)
class Server:
    """Where the model is and how to talk to it; safe to use from several threads."""

    url: str  # without /v1
    model: str  # as the server calls it
    timeout: float = 120.0  # seconds for one reply
    patience: float = 300.0  # seconds for a request to a busy or lost server, all tries together
    pause: float = 0.5  # seconds of the first wait, at most; each next one may be twice as long
    batch: int = 50  # answers per request; a server may return fewer, or refuse and so lower it
    settings: Callable[[float], dict] = everything
    software: str = ""  # as it names itself in its replies
    halted: threading.Event = field(default_factory=threading.Event)  # set: no more tries
    session: requests.Session = field(default_factory=requests.Session)

    def ask(
        self, template: str, text: str, *, n: int, max_tokens: int, seed: int, temperature=1.0
    ) -> Reply:
        """1 to n answers to a text (COMPLETION) or to a user's message (CHAT).

        Raises: CrystalError in the server's words (from Failed), or once patience is at its end.
        """
        turns = [{"role": "user", "content": text}]
        put = {"prompt": text} if template == COMPLETION else {"messages": turns}
        put |= {"max_tokens": max_tokens, "seed": seed, **self.settings(temperature)}
        few = n
        while True:
            try:
                reply = self._tried(template, {"model": self.model, **put, "n": few})
                break
            except Failed as error:
                if few == 1 or error.status not in (400, 422):
                    what, hint = self._refusal(template, error)
                    raise CrystalError(what, where=self.url, hint=hint) from error
            # perhaps it takes fewer answers a request: llama.cpp as many as it has slots
            few = 1 << (few - 1).bit_length() - 1
        self.batch = min(self.batch, few) if few < n else self.batch
        return reply

    def models(self) -> list[dict]:
        """What the server says it serves, each with an "id"; empty where it cannot say.

        Raises: CrystalError if there is no server.
        """
        try:
            listed = self._once("models").get("data")
        except Failed as error:
            if not isinstance(error.__cause__, requests.RequestException):
                return []
            hint = "start it, or say where it is: --server URL, or $CRYSTAL_SERVER"
            what = f"no server answers there: {error}"
            raise CrystalError(what, where=self.url, hint=hint) from error
        entries = listed if isinstance(listed, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]

    def _once(self, path: str, body: dict | None = None) -> dict:
        """One try. Raises: Failed."""
        ask = self.session.post if body else self.session.get
        seconds = min(10.0, self.timeout), self.timeout  # to connect, to reply
        how = dict(json=body, auth=_sign, timeout=seconds, allow_redirects=False)
        try:
            reply = ask(f"{self.url}/v1/{path}", **how)
        except requests.RequestException as error:
            late = isinstance(error, requests.Timeout)
            kind = "no reply in time" if late else "no connection"
            raise Failed(f"{kind} ({_short(str(error))})", tries=math.inf) from error
        self.software = reply.headers.get("Server", self.software)
        if (status := reply.status_code) != 200:
            after = reply.headers.get("Retry-After", "")
            how = {"status": status, "after": float(after) if is_number(after) else 0.0}
            how["tries"] = math.inf if status in _BUSY else TRIES if status >= 500 else 1
            raise Failed(f"status {status}: {_said(reply)}", **how)
        try:
            payload = reply.json()
        except ValueError as error:
            raise Failed(f"a reply that is no JSON: {_short(reply.text)!r}") from error
        if not isinstance(payload, dict):
            raise Failed(f"a reply that is no JSON object: {_short(reply.text)!r}")
        return payload

    def _tried(self, template: str, body: dict) -> Reply:
        """Once and again; waits are random, so that threads do not return together."""
        wait = tenacity.wait_random_exponential(multiplier=self.pause, max=60 * self.pause)

        def hopeless(state: tenacity.RetryCallState) -> bool:
            return self.halted.is_set() or state.attempt_number >= state.outcome.exception().tries

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Failed),
            reraise=True,
            sleep=tenacity.sleep_using_event(self.halted),
            wait=lambda state: max(wait(state), state.outcome.exception().after),
            stop=tenacity.stop_any(hopeless, tenacity.stop_before_delay(self.patience)),
        )(lambda: _reply(self._once(ENDPOINTS[template], body), template, body["n"]))

    def _refusal(self, template: str, error: Failed) -> tuple[str, str]:
        """What an error means, and what helps."""
        if error.tries > 1:
            return f"the server did not give an answer: {error}", _AGAIN
        if error.status in (401, 403):
            return f"the server wants another key: {error}", _KEY
        served = [str(entry["id"]) for entry in self.models()]
        listed = ", ".join(served[:20]) or "nothing that it lists"
        if served and self.model not in served and error.status in (400, 404, 422):
            what = f"the server has no model {self.model!r}, it has {listed} ({error})"
            return what, f"--model {served[0]}"
        if error.status in (404, 405):
            other = CHAT if template == COMPLETION else COMPLETION
            what = f"the server has no /v1/{ENDPOINTS[template]} for {self.model!r}: {error}"
            return what, f"another server, or --form {other}"
        return f"the server refuses: {error}; it serves {listed}", "check --server and --model"


def address(given: str | None) -> str:
    """The server's base URL, without a closing /v1: `given`, else $CRYSTAL_SERVER.

    Raises: CrystalError if there is none, if it is no http(s) URL, or if it holds a password.
    """
    url = (given or os.environ.get("CRYSTAL_SERVER", "")).rstrip("/").removesuffix("/v1")
    if not url:
        raise CrystalError("which server?", hint=f"{_EXAMPLE}, or export CRYSTAL_SERVER=...")
    with contextlib.suppress(ValueError):  # an open bracket, a port beyond 65535
        parts = urlsplit(url)
        if "@" in parts.netloc:
            what = "a server's address must hold no user or password"
            raise CrystalError(what, where=f"{parts.scheme}://...", hint=_KEY)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if known and not (parts.query or parts.fragment or re.search(r"[\s\x00-\x20\x7f]", url)):
            return url
    what = "a server's address must begin with http:// or https:// and name a host"
    raise CrystalError(what, where=line(url), hint=_EXAMPLE)


def _reply(payload: dict, template: str, n: int) -> Reply:
    """Raises: Failed for anything but 1 to n whole answers."""
    try:
        choices = payload["choices"]
        plain = template == COMPLETION
        texts = [c["text"] if plain else c["message"].get("content") or "" for c in choices]
        ends = [choice.get("finish_reason") for choice in choices]
    except (KeyError, TypeError, AttributeError) as error:
        raise Failed(f"a reply without answers: {_short(json.dumps(payload))}") from error
    if not 1 <= len(texts) <= n or not all(isinstance(text, str) for text in texts):
        raise Failed(f"{len(texts)} answers where 1 to {n} texts were asked for")
    if odd := [end for end in ends if end not in _ENDS]:
        raise Failed(f"an answer that was not finished: {odd[0]!r}")
    return Reply(tuple(texts), ends.count("length"))


def _key() -> str:
    """The API key, "" if there is none. Raises: CrystalError if no header can hold it."""
    key = (os.environ.get("CRYSTAL_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):
        what = "the API key in the environment holds a character that no header can"
        raise CrystalError(what, hint=_KEY)
    return key


def _sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add the key. Given as `auth`, this also keeps requests from looking into ~/.netrc."""
    if key := _key():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _said(reply: requests.Response) -> str:
    try:
        body = reply.json()
        error = body.get("error", body.get("detail", body.get("message", body)))
        return _short(str(error.get("message", error) if isinstance(error, dict) else error))
    except (ValueError, AttributeError):
        return _short(reply.text) or str(reply.reason)


def _short(text: str) -> str:
    """One line, without the key: servers repeat it when they refuse it."""
    text = " ".join((text.replace(_key(), "***") if _key() else text).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


# -- the first words with it


def connect(url: str, model: str, template: str, **settings) -> Server:
    """A server that has given one answer, with the fullest settings that it takes.

    settings: timeout, patience, batch of `Server`.
    Raises: CrystalError if there is no server, or no such model or endpoint.
    """
    server = Server(url=url, model=model, **settings)
    server.session.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=64))
    server.models()
    for server.settings in DIALECTS:
        try:
            server.ask(template, "A word:", n=1, max_tokens=1, seed=1)
            return server
        except CrystalError as error:
            if getattr(error.__cause__, "status", 0) not in (400, 422):
                raise
            refused = error
    raise refused


HOT, WARM, PROBES, ASKED, SHARE = 100.0, 2.0, 128, 16, 0.7  # see `probe`


def probe(server: Server, template: str, workers: int = 4) -> str:
    """Measure that the server samples, from more than a few tokens; what was found, in few words.

    At temperature 100 any token is about as likely as any other: PROBES answers of one token nearly
    all differ, unless the server is greedy, repeats itself for a seed, or keeps only K tokens.
    Refused if fewer than SHARE of those with a text differ: a vocabulary of 500 tokens gives 0.88
    (standard deviation 0.03), K = 100 0.57 at most. Where answers to one request repeat each other,
    `server.batch` becomes 1. At temperature 2, the most that OpenAI and vLLM take, few different
    tokens prove nothing, unless every seed gives the same answers: the model may be so sure.
    Raises: CrystalError if the server does not draw from its whole distribution.
    """
    for temperature in (HOT, WARM):
        try:
            return _probed(server, template, workers, temperature)
        except CrystalError as error:
            if getattr(error.__cause__, "tries", 0) != 1:
                raise
    return f"not probed: it refuses a temperature of {WARM:g}"


def _probed(server: Server, template: str, workers: int, temperature: float) -> str:
    for batch in (ASKED, 1):
        seen = _hot(server, template, batch, workers, temperature)
        readable = [text for part in seen for text in part if text and "\ufffd" not in text]
        differ = f"{len({*readable})} of {len(readable)} hot tokens differ"
        if len(readable) < PROBES // 3:
            return f"not probed: only {len(readable)} of {PROBES} hot tokens have a text"
        whole, alone = len({*readable}) >= SHARE * len(readable), batch == 1
        unseeded = len({*map(tuple, seen)}) == 1
        repeating = not alone and all(len({*part}) == 1 for part in seen)
        if whole or (temperature == WARM and not unseeded and not repeating):
            server.batch = 1 if alone else server.batch
            sure = f"and at {WARM:g}, the most it takes, a model may be so sure"
            return differ if whole else f"not probed: {differ}, {sure}"
    what = "the server does not draw from the whole distribution"
    where = f"{server.url}, asked as {server.settings.__name__}"
    hint = "start it so that it samples, without top-k, and minds seeds "
    hint += "(vLLM: --generation-config vllm)"
    raise CrystalError(f"{what}: {differ}, where nearly all should", where=where, hint=hint)


def _hot(
    server: Server, template: str, batch: int, workers: int, temperature: float
) -> list[list[str]]:
    """PROBES texts of one token, ASKED to a part; every request of `batch` has its own seed."""

    def some(part: int) -> list[str]:
        texts: list[str] = []
        while len(texts) < ASKED:
            n, seed = min(batch, ASKED - len(texts)), 1 + part * ASKED + len(texts)
            asked = dict(n=n, max_tokens=1, seed=seed, temperature=temperature)
            texts += server.ask(template, "A word:", **asked).texts
        return texts

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(some, range(PROBES // ASKED)))
