"""Estimates and verdicts as page text: the one place where a number of a phase page becomes words.

Everything told is recorded in the page's claims first, so that prose elsewhere can quote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..ask.ladders import load_ladder
from ..measure.inference import Estimate
from ..measure.judging import Verdict, finite
from ..texts import markdown
from . import show

Numbers = Mapping[str, Mapping[str, Estimate]]  # ladder -> what was measured -> estimate


def fmt(x: float) -> str:
    """As `show.fmt`; a number that does not exist is a dash."""
    return "∞" if x == np.inf else show.fmt(finite(x))


def interval(estimate: Estimate) -> str:
    """`value [low, high]`; the value alone if there is no interval, or one without width."""
    if not estimate.low < estimate.high:
        return fmt(estimate.value)
    return f"{fmt(estimate.value)} [{fmt(estimate.low)}, {fmt(estimate.high)}]"


def each(numbers: Numbers, label: str) -> str:
    """One measured number of every ladder, plain; a ladder alone goes without its title."""
    texts = {load_ladder(ladder).title: interval(found[label]) for ladder, found in numbers.items()}
    return ", ".join(f"{title} {text}" if len(texts) > 1 else text for title, text in texts.items())


def captioned(numbers: Numbers, label: str) -> str:
    """The same as `each`, as MyST."""
    return markdown(each(numbers, label))


def slug(label: str) -> str:
    """A label as a claim's name: lower-case words joined by hyphens."""
    return re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")


def tell_numbers(numbers: Numbers, task: str) -> None:
    """Record every number as measured and put the table on the page: one row per number, one column per ladder."""
    for ladder, found in numbers.items():
        for label, estimate in found.items():
            show.claim(slug(label), ladder=ladder, task=task, verdict="measured", sentence=f"{label}: {interval(estimate)}",
                       number=finite(estimate.value), low=finite(estimate.low), high=finite(estimate.high))
    labels = list(dict.fromkeys(label for found in numbers.values() for label in found))
    cells = [[interval(found[label]) if label in found else "–" for found in numbers.values()]
             for label in labels]
    show.tell(show.table(["measured", *(load_ladder(ladder).title for ladder in numbers)],
                         ([label, *row] for label, row in zip(labels, cells, strict=True))))


def tell_verdicts(found: Mapping[str, Sequence[Verdict]], task: str) -> None:
    """Record the verdicts of every ladder and put them on the page, after the claims and their marks."""
    for ladder, verdicts in found.items():
        for verdict in verdicts:
            show.claim(verdict.claim, ladder=ladder, task=task, **verdict.fields())
    show.verdicts()
    marks = {v.claim: v.mark for verdicts in found.values() for v in verdicts}
    show.tell(show.table(["claim", "in words", "mark", "why this mark"], (
        [name, mark.claim, f"{mark.side} {mark.mark:g}", mark.why]
        for name, mark in marks.items())))
