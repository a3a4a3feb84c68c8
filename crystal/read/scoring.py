"""Lower bounds on a served model's answers, from the log-probabilities that some servers give with a prompt.

Not a read-out. A server names the few likeliest next tokens, and breaks whatever text it is sent into tokens in one way of
its own; the model may write the same text in others. So a path of tokens is followed only where the server, sent its text,
answers with just these tokens behind the prompt's. What is found is exact; what is not found is unresolved, and is no
option's. Completions only: no server repeats the prompt of a chat.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np

from ..ask.tasks import Task
from ..errors import CrystalError
from .automaton import START, Automaton, option_code
from .servers import Server

_NO_TEXT = ("", "\ufffd", "bytes:")  # how servers write a token that is no whole text: it cannot be sent back


class Bounds(NamedTuple):
    """Of one prompt; options + off_support + unresolved = 1. An option's probability lies in [options, options + unresolved]."""

    options: np.ndarray  # (K,) float64, in the task's order: at least that much
    off_support: float  # decided, and no option: at least that much
    unresolved: float  # on none of the paths that were followed to a decision
    broken: float  # of that, on paths whose text the server breaks into other tokens
    requests: int


def score(server: Server, text: str, task: Task, *, top: int = 20, requests: int = 100, least: float = 1e-4) -> Bounds:
    """Follow the likeliest beginnings of an answer to a completion prompt, one request each, until they are decided.

    top: next tokens to ask for (vLLM gives 20 at most, OpenAI 5). requests: at most. least: smallest probability followed.
    Raises: CrystalError for an open task, or a server that gives no log-probabilities with a prompt.
    """
    automaton = Automaton(task)
    options, off, broken, asked = np.zeros(len(task.options)), 0.0, 0.0, 0
    number = {option_code(k): k for k in range(len(task.options))}
    head: tuple[str, ...] | None = None
    heap: list[tuple[float, tuple[str, ...], int]] = [(-1.0, (), START)]  # least first: minus the probability
    while heap and asked < requests:
        chance, path, state = heapq.heappop(heap)
        tokens, following = _asked(server, text + "".join(path), top)
        asked, head = asked + 1, tokens if head is None else head
        if tokens != head + path:
            broken -= chance
            continue
        for token, logarithm in following.items():
            if token in _NO_TEXT[:1] or any(sign in token for sign in _NO_TEXT[1:]):
                continue
            share, code = -chance * math.exp(logarithm), _follow(automaton, state, token)
            if code in number:
                options[number[code]] += share
            elif code < 0:
                off += share
            elif share >= least:
                heapq.heappush(heap, (-share, (*path, token), code))
    return Bounds(options, off, 1 - float(options.sum()) - off, broken, asked)


def _follow(automaton: Automaton, state: int, token: str) -> int:
    """The state behind a token, or the code of what it decides."""
    for byte in token.encode():
        state = int(automaton.step(np.array([state]), np.array([byte]))[0])
        if state < 0:
            break
    return state


def _asked(server: Server, text: str, top: int) -> tuple[tuple[str, ...], dict[str, float]]:
    """The tokens of a text as the server breaks it, and the log-probabilities of the likeliest next ones."""
    choice = server.echo(text, top)
    told = choice.get("logprobs")
    told, length = told if isinstance(told, dict) else {}, choice.get("prompt_tokens")
    tokens, likeliest = told.get("tokens") or [], told.get("top_logprobs") or []
    if not isinstance(length, int) or not (len(tokens) == len(likeliest) > length > 0) or not isinstance(likeliest[length], dict):
        raise CrystalError("the server gives no log-probabilities with a prompt", where=server.url,
                           mend="one whose /v1/completions takes echo and logprobs, such as vLLM; or draw instead: crystal draw")
    if not "".join(tokens[:length]).endswith(text):
        raise CrystalError("the server's tokens do not spell the text that it was sent", where=server.url,
                           mend="draw instead: crystal draw")
    return tuple(tokens[:length]), likeliest[length]
