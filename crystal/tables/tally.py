"""Answers, read by the rule of their task and counted: of each prompt, how often or how probably each option was given.

Knows neither files nor what the counts mean. Rows of one prompt: every option of its task in order, then the empty option,
which is "answered with none of them".

Option scores become probabilities exp(log-likelihood), nothing renormalised; what they lack of 1 is the empty option's. They
are not the probability of reading that option in a reply: there is no boundary behind a score (the score of 1 holds 14 and 19)
and one tokenisation only, which is off by a total variation of up to 0.43 on 1-100.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from ..ask.tasks import Task, read
from ..errors import CrystalError
from ..texts import whole
from .foreign import AGAIN, Answer

SHOWN = 30  # characters of a reply that is no option
EXCESS = 1e-6  # by which scores may sum to more than 1: rounding


class Place(NamedTuple):
    """What the rows of one prompt share."""

    ladder: str
    stage: str
    task: str
    prompt: str


@dataclass
class Tally:
    """What was read so far."""

    tasks: dict[str, Task] = field(default_factory=dict)
    draws: dict[Place, Counter[str]] = field(default_factory=dict)  # option, or "" -> replies
    scores: dict[Place, dict[str, float]] = field(default_factory=dict)  # text as scored -> probability
    units: dict[Place, str | None] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)  # identity -> where
    failed: list[Answer] = field(default_factory=list)
    decodings: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    empty: int = 0  # replies without text
    cut: int = 0  # replies whose answer might have gone on, had there been room: 1 of 17, seven of seventeen
    unread: dict[str, Counter[str]] = field(
        default_factory=dict
    )  # task -> beginning of a reply that is no option -> how often

    @property
    def kind(self) -> str:
        return "probability" if self.scores else "count"

    def add(self, answer: Answer, task: Task, place: Place) -> None:
        """Raises: CrystalError if a reply is there twice, if a prompt has two units or an option two scores."""
        if answer.identity is not None and answer.identity in self.seen:
            raise CrystalError(f"this reply is there twice, first in {self.seen[answer.identity]}", where=answer.where,
                               mend="name every log once, in one of its forms")
        if answer.identity is not None:
            self.seen[answer.identity] = answer.where
        if answer.failed is not None:
            self.failed.append(answer)
            return
        self.tasks[task.name] = task
        if self.units.setdefault(place, answer.unit) != answer.unit:
            raise CrystalError(
                f"prompt {place.prompt!r:.60} is of unit {self.units[place]!r:.60} "
                f"and of {answer.unit!r:.60}",
                where=answer.where,
                mend="give prompts of two units two names",
            )
        if answer.score is None:
            self._count(answer, task, place)
        else:
            self._score(answer.text or "", answer.score, place, answer.where)
        if self.draws and self.scores:
            raise CrystalError("replies and option scores, which one table cannot hold", where=answer.where,
                               mend="import them into two tables")

    def _count(self, answer: Answer, task: Task, place: Place) -> None:
        text = whole(answer.text or "")
        option = read(text, task)
        self.draws.setdefault(place, Counter())[option or ""] += 1
        self.empty += not text.strip()
        self.cut += answer.cut and option is not None and read(text + "x", task) != option
        self.unread.setdefault(task.name, Counter())[text.strip()[:SHOWN]] += option is None
        self.decodings |= {answer.decoding} if answer.decoding else set()

    def _score(self, text: str, score: float, place: Place, where: str) -> None:
        if not score <= EXCESS:  # NaN, too
            raise CrystalError(
                f"{score} is no log-likelihood of {text!r:.60}", where=where, mend=AGAIN
            )
        scored = self.scores.setdefault(place, {})
        if text in scored:
            raise CrystalError(
                f"{text!r:.60} is scored twice for prompt {place.prompt!r:.60}",
                where=where,
                mend="name every log once, and prompts by what tells them apart (--prompt-from)",
            )
        scored[text] = math.exp(score)

    def table(self) -> pd.DataFrame:
        """Columns ladder, stage, task, prompt, unit if there is any, option, and count or probability.

        Raises: CrystalError if an option was not scored, or if the scores of a prompt sum to more than 1.
        """
        found = [(*place, unit or "", *row) for place, unit in self.units.items() for row in self._rows(place)]
        frame = pd.DataFrame(found, columns=[*Place._fields, "unit", "option", self.kind])
        return frame if any(self.units.values()) else frame.drop(columns="unit")

    def _rows(self, place: Place) -> Iterator[tuple[str, float]]:
        options = self.tasks[place.task].options
        if self.kind == "count":
            return ((option, self.draws[place][option]) for option in (*options, ""))
        return iter(self._law(place, self.tasks[place.task]).items())

    def _law(self, place: Place, task: Task) -> dict[str, float]:
        where = f"task {task.name}, prompt {place.prompt}"
        named = {text: read(whole(text), task) for text in self.scores[place]}
        if lacking := [option for option in task.options if option not in named.values()]:
            raise CrystalError(f"{len(lacking)} of {len(task.options)} options have no score, first {lacking[0]}", where=where,
                               mend="score every option; or say --task with a new name and --options with those that are scored")
        law = dict.fromkeys(task.options, 0.0)
        for text, option in named.items():
            if option is not None:
                law[option] += self.scores[place][text]
        total = math.fsum(law.values())
        if total == 0:
            raise CrystalError(
                "every option has the probability 0", where=where, mend="leave that prompt out"
            )
        if total > 1 + EXCESS:
            raise CrystalError(f"the scores sum to {total:.6g}", where=where,
                               mend="let no choice begin another (1 and 14), or import replies of generate_until")
        return law | {"": max(0.0, 1 - total)}

    def told(self) -> Iterator[str]:
        """What was read, in sentences: prompts, draws, the share read as an option, and whatever was left out."""
        if self.scores:
            mass = sum(1 - self._law(place, self.tasks[place.task])[""] for place in self.scores) / len(self.scores)
            yield (f"{len(self.scores)} prompts, option scores that sum to {mass:.3f} on average; "
                   "they know no boundary behind an option and one tokenisation of it")
        else:
            draws = sum(counts.total() for counts in self.draws.values())
            lost = sum(counts[""] for counts in self.draws.values())
            yield f"{len(self.draws)} prompts, {draws} draws, {1 - lost / draws:.1%} read as an option"
        if self.empty:
            yield f"empty replies, counted as none of the options: {self.empty}"
        if often := most_often(sum(self.unread.values(), Counter())):
            yield f"read as no option, most often: {often}"
        if self.cut:
            yield f"replies cut at the limit of tokens right behind the option, which a longer answer may begin with: {self.cut}"
        if self.failed:
            first = self.failed[0]
            yield f"failed requests, left out: {len(self.failed)}, first {first.where}: {first.failed:.80}"
        for decoding in sorted(self.decodings):
            yield f"decoding as logged: {', '.join(' '.join(pair) for pair in decoding)}" + (
                "; this is greedy: repeats of one answer are not draws" if _greedy(dict(decoding)) else "")


    def nothing(self) -> Iterator[str]:
        """The tasks of which no reply was read as an option, with their most frequent replies."""
        for task, unread in self.unread.items():
            if not any(
                counts.total() - counts[""]
                for place, counts in self.draws.items()
                if place.task == task
            ):
                yield f"{task}: {most_often(unread) or 'every reply is empty'}"


def most_often(unread: Counter[str]) -> str:
    """The three most frequent texts, with how often; "" if all are empty."""
    often = [f"{text!r} ({count})" for text, count in unread.most_common(4) if text and count]
    return ", ".join(often[:3])


def _greedy(decoding: dict[str, str]) -> bool:
    return decoding.get("do_sample") == "False" or decoding.get("temperature") in ("0", "0.0")
