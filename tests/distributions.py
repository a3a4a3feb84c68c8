"""What a model's answers are, worked out by plain whole-sequence forwards and enumeration; nothing
of `crystal.read.readout`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from scipy import stats

from crystal.ask.tasks import Task, read
from crystal.read.vocabulary import END, VOID


def enumerate_answers(
    model,
    pieces: Sequence[object],
    prompt: tuple[int, ...],
    depth: int,
) -> list[tuple[tuple[int, ...], float]]:
    """Every token sequence of `depth` tokens, or shorter and ended: its probability (float64)."""
    done, open_ = [], [((), 1.0)]
    for _ in range(depth):
        ids = torch.tensor([prompt + path for path, _ in open_])
        with torch.inference_mode():
            logits = torch.cat([model(input_ids=part).logits[:, -1] for part in ids.split(4096)])
        nexts = torch.softmax(logits.double(), -1).numpy()
        grown = [
            ((*path, t), mass * p[t])
            for (path, mass), p in zip(open_, nexts, strict=True)
            for t in range(len(p))
        ]
        done += [g for g in grown if not isinstance(pieces[g[0][-1]], bytes)]
        open_ = [g for g in grown if isinstance(pieces[g[0][-1]], bytes)]
    return done + open_


# Enough continuations to change any answer that can still change, for the spellings of
# tiny.OVERLAPPING.
TAILS = [
    b"",
    *(
        a + b
        for a in (b"x", b"1", b"2", b",", b" ", b"B", b" B", b"A", b"\xa9")
        for b in (b"", b"x", b"B", b",x")
    ),
]


def classify(pieces: Sequence[object], path: tuple[int, ...], task: Task) -> str | None:
    """An option, "off", or "open": by reading the bytes with many different continuations."""
    text, decided = b"", _decided(task)
    for token in path:
        if pieces[token] is END:
            return _read(text, task)
        if pieces[token] is VOID:
            return decided(text) if decided(text) != "open" else "off"
        text += pieces[token]
    return decided(text)


def _read(text: bytes, task: Task) -> str:
    return read(text.decode("utf-8", "replace"), task) or "off"


@cache
def _decided(task: Task) -> Callable[[bytes], str]:
    @cache
    def decided(text: bytes) -> str:
        outcomes = {_read(text + tail, task) for tail in TAILS}
        return outcomes.pop() if len(outcomes) == 1 else "open"

    return decided


def by_class(
    model, pieces: Sequence[object], prompt: tuple[int, ...], task: Task, depth: int
) -> dict[str, float]:
    """Mass of every option, of "off" and of "open" after `depth` tokens."""
    out = dict.fromkeys([*task.options, "off", "open"], 0.0)
    for path, mass in enumerate_answers(model, pieces, prompt, depth):
        out[classify(pieces, path, task)] += mass
    return out


def chi_square_p(observed: dict[str, int], expected: dict[str, float]) -> float:
    """p-value of counts against a distribution given by probability; the rarest cells are pooled
    until the pool expects 5.

    A pool left at 0.01 would raise a false alarm at its first count.
    """
    assert set(observed) <= set(expected), "something was seen that cannot be"
    n = sum(observed.values())
    names = list(expected)
    distribution = np.array([expected[k] for k in names]) / sum(expected.values()) * n
    seen = np.array([observed.get(k, 0) for k in names])
    order = np.argsort(distribution)
    pooled = int(np.searchsorted(distribution[order].cumsum(), 5)) + 1
    distribution, seen = (
        np.append(x[order][pooled:], x[order][:pooled].sum()) for x in (distribution, seen)
    )
    assert len(distribution) > 1, "one cell is no test"
    return float(
        stats.chi2.sf(((seen - distribution) ** 2 / distribution).sum(), len(distribution) - 1)
    )
