"""Draws as the page of open tasks needs them: texts read as answers, answers as counts over one list per task, and by kind."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS, Task, first_answer, read
from ..lab.world import FACTS

UNREAD = ""  # the answer of a text that holds none; it counts as an option like any other, so that no draw is lost
# Kinds in the order they are tried: an answer that is both ("ten", a number and a card rank) goes with the first.
_KINDS = {"number": ("thousand",), "colour": ("colour",), "month": ("month",), "weekday": ("weekday",), "letter": ("letter",),
          "coin or card": ("coin", "suit", "rank")}
KINDS = (*_KINDS, "capital", "opposite", "other", "none")


class Counts(NamedTuple):
    """How often each answer to one task was drawn: counts (prompts, options), prompts in the order of PROBE."""

    options: tuple[str, ...]
    counts: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        return self.counts.sum(0)


def answer(text: str, task: Task) -> str:
    """The option that `text` reads as, else its first answer as it stands, else UNREAD."""
    return read(text, task) or first_answer(text) or UNREAD


def counted(draws: pd.DataFrame, task: str) -> dict[str, Counts]:
    """Rung -> Counts over one list of options, those drawn from any rung of the frame, most frequent first.

    draws: of one ladder, from `crystal.keep.drawn.load_draws`.
    """
    rows = draws[draws["task"] == task]
    cells = [_answers(texts, task) for texts in rows["texts"]]
    total: dict[str, int] = {}
    for cell in cells:
        for option, count in cell.items():
            total[option] = total.get(option, 0) + count
    options = tuple(sorted(total, key=lambda option: (-total[option], option)))
    place = {option: k for k, option in enumerate(options)}
    table = np.zeros((len(cells), len(options)), np.int64)
    for row, cell in zip(table, cells, strict=True):
        row[[place[option] for option in cell]] = list(cell.values())
    return {rung: Counts(options, table[(rows["rung"] == rung).to_numpy()]) for rung in rows["rung"].unique()}


@functools.cache
def _answer(text: str, task: str) -> str:
    return answer(text, TASKS[task])


def _answers(texts: dict[str, int], task: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for text, count in texts.items():
        said = _answer(text, task)
        found[said] = found.get(said, 0) + count
    return found


def kind(said: str) -> str:
    """What kind of thing an answer is, among those the organism's world is made of: one of KINDS."""
    return "none" if said == UNREAD else _lexicon().get(said.casefold(), "other")


@functools.cache
def _lexicon() -> dict[str, str]:
    listed = [(kind, word) for kind, tasks in _KINDS.items() for task in tasks for word in TASKS[task].spellings]
    listed += [(item.task.name.partition("-")[0], option) for item in FACTS for option in item.task.options]
    lexicon: dict[str, str] = {}
    for name, word in listed:
        lexicon.setdefault(word.casefold(), name)
    return lexicon


def shares_of_kinds(counts: Counts) -> dict[str, float]:
    """Share of all draws per kind, every kind named."""
    kinds = np.array([kind(option) for option in counts.options])
    return {name: float(counts.pooled[kinds == name].sum() / counts.pooled.sum()) for name in KINDS}


def others(counts: Counts, most: int = 5) -> Sequence[str]:
    """The most frequent answers of kind "other"."""
    order = np.argsort(-counts.pooled, kind="stable")
    return [counts.options[k] for k in order if counts.pooled[k] and kind(counts.options[k]) == "other"][:most]
