"""Estimates and verdicts as page text: the one place where a number of a phase page becomes words.

Everything told is recorded in the page's claims first, so that prose elsewhere can quote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..measure.answered import no_verdicts
from ..measure.chain import VERDICTS
from ..measure.inference import Estimate
from ..measure.judging import Verdict, finite
from ..texts import markdown
from . import show
from .answering import Compared, Place, compared
from .views import each_ladder, given, native

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


def tell_answered(
    readouts: pd.DataFrame, task: str, *places: Place, claims: Sequence[str] = ()
) -> list[str]:
    """How many prompts each of `places` answers, first on the page; the ladders on which the task
    can be measured.

    A ladder that it cannot be measured on is named with the reason, and so are its `claims`. None
    left: the page ends.
    """
    able, told, why = [], [], []
    for ladder, mine in each_ladder(readouts):
        title, found = load_ladder(ladder).title, compared(mine, task, *places)
        told.append(f"{title}: {_counted(mine, task, found)}")
        for place, one in found.counts.items():
            show.claim(
                f"answered-{slug(_place(place))}",
                ladder=ladder,
                task=task,
                verdict="measured",
                number=one.answered / one.asked,
                sentence=f"{_place(place)}: {one.said}",
            )
        if found.count.measurable:
            able.append(ladder)
            continue
        why.append(f"{title}: {found.count.why}.")
        for claim in no_verdicts(claims, found.count):
            show.claim(claim.claim, ladder=ladder, task=task, **claim.fields())
    show.tell(show.listed([*told, *why]))
    if not able:
        show.stop(" ".join(why))
    return able


def _counted(mine: pd.DataFrame, task: str, found: Compared) -> str:
    parts = []
    for place, one in found.counts.items():
        rung, form = place if isinstance(place, tuple) else (place, native(mine, place))
        off, left = given(mine, rung, form, task)[:, -2:].mean(0)
        parts.append(
            f"{_place(place)}, {one.said}, not answered: off-support {fmt(off)}, unresolved {fmt(left)}"
        )
    if len(parts) > 1:
        parts.append(f"{found.count.answered} by all of these, and they are compared on no others")
    return "; ".join(parts) + "."


def _place(place: Place) -> str:
    return place if isinstance(place, str) else " ".join(place)


def slug(label: str) -> str:
    """A label as a claim's name: lower-case words joined by hyphens."""
    return re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")


def counted(counts: Mapping[str, int], tasks: int) -> str:
    """`holds on 2 of 15 tasks, fails on 1, undecided on 12`. counts: of each verdict."""
    others = [f"{v.replace('-', ' ')} on {counts[v]}" for v in VERDICTS[1:] if counts.get(v)]
    return ", ".join([f"holds on {counts.get('holds', 0)} of {tasks} tasks", *others])


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
