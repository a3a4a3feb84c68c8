"""One model behind an OpenAI-compatible server (vLLM, SGLang, TGI, llama.cpp, `transformers serve`), asked over HTTP.

Every setting that could truncate or bend the law is sent, because what is not sent is the server's to choose: it takes the
model's generation_config.json, top-k 50, or no sampling at all. `crystal.read.dialects` knows how to say it to whom.
Only a reply that came whole counts; whatever else comes back is asked for again. Knows nothing of tasks, prompts and laws.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import tenacity

from ..ask.prompts import CHAT, COMPLETION
from ..errors import CrystalError
from ..texts import line

ENDPOINTS = {COMPLETION: "completions", CHAT: "chat/completions"}  # of a template (`crystal.ask.prompts.template_of`)
TRIES = 6  # of a reply that makes no sense, or of a server's own error: these may not pass, so patience is not the limit
_ENDS = (None, "stop", "length", "eos", "eos_token", "stop_sequence", "tool_calls")  # how a drawn answer may finish


class Reply(NamedTuple):
    """Whole answers to one request."""

    texts: tuple[str, ...]
    cut: int  # of these, ended by max_tokens


class Passing(Exception):
    """What another try may mend. after: seconds the server asked to wait; brief: give up after TRIES."""

    def __init__(self, said: str, *, after: float = 0.0, brief: bool = False) -> None:
        super().__init__(said)
        self.after, self.brief = after, brief


class Refused(Exception):
    """The server will not, however often it is asked."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"status {status}: {said}")
        self.status = status


@dataclass(kw_only=True)
class Server:
    """Where the model is and how it is talked to; `crystal.read.dialects.connect` makes one. Safe to use from several threads."""

    url: str  # without /v1
    model: str  # as the server calls it
    timeout: float = 120.0  # seconds for one reply
    patience: float = 300.0  # seconds a request may wait for a server that is busy or gone, all its tries together
    pause: float = 0.5  # seconds of the first wait, at most; each next one may be twice as long
    batch: int = 50  # answers to ask for in one request; a server may return fewer, or refuse so many and lower it
    settings: Callable[[float], dict] = lambda temperature: {"temperature": temperature}  # of the request; one of the dialects
    software: str = ""  # as it names itself in its replies
    halted: threading.Event = field(default_factory=threading.Event)  # set: no request is tried again
    session: requests.Session = field(default_factory=requests.Session)

    def ask(self, template: str, text: str, *, n: int, max_tokens: int, seed: int, temperature: float = 1.0) -> Reply:
        """1 to n answers to a text (COMPLETION) or to a user's message (CHAT); servers that know no `n` return one.

        Raises: CrystalError in the server's words, or once patience is at its end.
        """
        with self.told(template):
            return self.asked(template, text, n=n, max_tokens=max_tokens, seed=seed, temperature=temperature)

    def asked(self, template: str, text: str, *, n: int, max_tokens: int, seed: int, temperature: float = 1.0) -> Reply:
        """The same. Raises: Refused; Passing, once patience is at its end."""
        put = {"prompt": text} if template == COMPLETION else {"messages": [{"role": "user", "content": text}]}
        body = {"model": self.model, **put, **self.settings(temperature), "n": n, "max_tokens": max_tokens, "seed": seed}
        try:
            return self._tried(lambda: _reply(self._once(ENDPOINTS[template], body), template, n))
        except Refused as error:
            if n == 1 or error.status not in (400, 422):
                raise
        # perhaps it takes fewer answers a request: llama.cpp as many as it has slots
        fewer = 1 << (n - 1).bit_length() - 1
        reply = self.asked(template, text, n=fewer, max_tokens=max_tokens, seed=seed, temperature=temperature)
        self.batch = min(self.batch, fewer)
        return reply

    def echo(self, text: str, top: int) -> dict:
        """The one choice of a completion by one token that repeats its prompt, with log-probabilities of both, as it came.

        prompt_tokens is added, None where the server does not say. Raises: CrystalError, as `ask`.
        """
        body = {"model": self.model, "prompt": text, **self.settings(1.0), "max_tokens": 1, "echo": True, "logprobs": top}
        with self.told(COMPLETION):
            payload = self._tried(lambda: self._once(ENDPOINTS[COMPLETION], body))
        choice, usage = (payload.get("choices") or [{}])[0], payload.get("usage") or {}
        return {**choice, "prompt_tokens": usage.get("prompt_tokens")}

    def models(self) -> list[dict]:
        """What the server says it serves, each with an "id"; empty where it cannot say.

        Raises: CrystalError if there is no server.
        """
        try:
            listed = self._once("models").get("data")
        except Refused:
            return []
        except Passing as error:
            if isinstance(error.__cause__, requests.RequestException):
                raise CrystalError(f"no server answers there: {error}", where=self.url,
                                   mend="start it, or say where it is: --server URL, or $CRYSTAL_SERVER") from error
            return []
        return [entry for entry in listed if isinstance(entry, dict) and "id" in entry] if isinstance(listed, list) else []

    def _once(self, path: str, body: dict | None = None) -> dict:
        """One try. Raises: Passing, Refused."""
        try:
            reply = self.session.request("GET" if body is None else "POST", f"{self.url}/v1/{path}", json=body, auth=_sign,
                                         timeout=(min(10.0, self.timeout), self.timeout), allow_redirects=False)
        except requests.RequestException as error:
            raise Passing(_plainly(error)) from error
        self.software = reply.headers.get("Server", self.software)
        if reply.status_code in (408, 425, 429) or reply.status_code >= 500:
            busy = reply.status_code in (408, 425, 429, 502, 503, 504)
            raise Passing(f"status {reply.status_code}: {_said(reply)}", after=_after(reply), brief=not busy)
        if reply.status_code != 200:
            raise Refused(reply.status_code, _said(reply))
        try:
            payload = reply.json()
        except ValueError as error:
            raise Passing(f"a reply that is no JSON: {_short(reply.text)!r}", brief=True) from error
        if not isinstance(payload, dict):
            raise Passing(f"a reply that is no JSON object: {_short(reply.text)!r}", brief=True)
        return payload

    def _tried(self, once: Callable):
        """`once`, again and again: waits grow to sixty pauses, and are random, so that threads do not return together."""
        spread = tenacity.wait_random_exponential(multiplier=self.pause, max=60 * self.pause)

        def hopeless(state: tenacity.RetryCallState) -> bool:
            return self.halted.is_set() or (state.outcome.exception().brief and state.attempt_number >= TRIES)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing), reraise=True, sleep=tenacity.sleep_using_event(self.halted),
            wait=lambda state: max(spread(state), state.outcome.exception().after),
            stop=tenacity.stop_any(hopeless, tenacity.stop_before_delay(self.patience)),
        )(once)

    @contextlib.contextmanager
    def told(self, template: str) -> Iterator[None]:
        """What went wrong, as a sentence."""
        try:
            yield
        except Passing as error:
            raise CrystalError(f"the server did not give an answer: {error}", where=self.url,
                               mend="see its log, start it again, and run the same command: what was drawn is kept") from error
        except Refused as error:
            raise self._refusal(template, error) from error

    def _refusal(self, template: str, error: Refused) -> CrystalError:
        served = [str(entry["id"]) for entry in self.models()]
        listed = ", ".join(served[:20]) or "nothing that it lists"
        if error.status in (401, 403):
            return CrystalError(f"the server wants another key: {error}", where=self.url, mend="export CRYSTAL_API_KEY=...")
        if served and self.model not in served and error.status in (400, 404, 422):
            return CrystalError(f"the server has no model {self.model!r}, it has {listed} ({error})", where=self.url,
                                mend=f"--model {served[0]}")
        if error.status in (404, 405):
            other = CHAT if template == COMPLETION else COMPLETION
            return CrystalError(f"the server has no /v1/{ENDPOINTS[template]} for {self.model!r}: {error}", where=self.url,
                                mend=f"another server, or --form {other}")
        return CrystalError(f"the server refuses: {error}; it serves {listed}", where=self.url, mend="check --server and --model")


def address(given: str | None) -> str:
    """The server's base URL, without a closing /v1: `given`, else $CRYSTAL_SERVER.

    Raises: CrystalError if there is none, if it is no http(s) URL, or if it holds a password.
    """
    url = (given or os.environ.get("CRYSTAL_SERVER", "")).rstrip("/").removesuffix("/v1")
    if not url:
        raise CrystalError("which server?", mend="--server http://127.0.0.1:8000, or export CRYSTAL_SERVER=...")
    try:
        parts = urlsplit(url)
        whole = parts.port != 0 and not re.search(r"[\s\x00-\x20\x7f]", url) and not (parts.query or parts.fragment)
    except ValueError as error:  # an open bracket, a port beyond 65535
        raise CrystalError(f"a server's address is no URL: {error}", where=line(url),
                           mend="--server http://127.0.0.1:8000") from error
    if "@" in parts.netloc:
        raise CrystalError("a server's address must hold no user or password", where=f"{parts.scheme}://...",
                           mend="export CRYSTAL_API_KEY=...")
    if parts.scheme not in ("http", "https") or not parts.hostname or not whole:
        raise CrystalError("a server's address must begin with http:// or https:// and name a host", where=line(url),
                           mend="--server http://127.0.0.1:8000")
    return url


def _reply(payload: dict, template: str, n: int) -> Reply:
    """Raises: Passing for anything but 1 to n whole answers."""
    try:
        choices = payload["choices"]
        texts = [c["text"] if template == COMPLETION else c["message"].get("content") or "" for c in choices]
        ends = [choice.get("finish_reason") for choice in choices]
    except (KeyError, TypeError, AttributeError) as error:
        raise Passing(f"a reply without answers: {_short(json.dumps(payload))}", brief=True) from error
    if not 1 <= len(texts) <= n or not all(isinstance(text, str) for text in texts):
        raise Passing(f"{len(texts)} answers where 1 to {n} texts were asked for", brief=True)
    if odd := [end for end in ends if end not in _ENDS]:
        raise Passing(f"an answer that was not finished: {odd[0]!r}", brief=True)
    return Reply(tuple(texts), ends.count("length"))


def _key() -> str:
    """The API key, "" if there is none. Raises: CrystalError, without the key, if no header can hold it."""
    key = (os.environ.get("CRYSTAL_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CrystalError("the API key in the environment holds a character that no header can",
                           mend="export CRYSTAL_API_KEY=...")
    return key


def _sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The key, from the environment only: given as `auth`, it also keeps requests from looking into ~/.netrc."""
    if key := _key():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _said(reply: requests.Response) -> str:
    """What the server says is wrong."""
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


def _plainly(error: requests.RequestException) -> str:
    kinds = {requests.Timeout: "no reply in time", requests.exceptions.ChunkedEncodingError: "the reply broke off",
             requests.ConnectionError: "no connection"}
    kind = next((said for kind, said in kinds.items() if isinstance(error, kind)), "no reply")
    return f"{kind} ({_short(str(error))})"


def _after(reply: requests.Response) -> float:
    """Seconds that Retry-After asks for: a number or a date."""
    value = reply.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0
