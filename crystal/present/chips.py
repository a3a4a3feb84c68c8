"""What a phase page begins with: the way to its neighbours, and a verdict chip a claim and series.

Both are told as MyST and shown as HTML; a chip's colour, sign and word say the same.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from ..ask.tasks import PHASE_TASKS
from ..measure import chain
from ..measure.claims import MARKS, Mark, Verdict, percent, plain
from ..texts import line
from . import show
from .figures import INK
from .verdicts import COLOURS, SIGNS

METHOD = "Method and source"  # the fold that says how a number was computed
Told = tuple[str, Sequence[Verdict]]  # a series: its title, its verdicts


def strip(phase: str, task: str) -> None:
    """Tell the way to the neighbours: the task before, this one and the next, in every phase."""
    place = PHASE_TASKS.index(task)
    shown = [
        (n, PHASE_TASKS[n]) for n in range(max(0, place - 1), min(place + 2, len(PHASE_TASKS)))
    ]
    lines = []
    for n, name in shown:
        links = [
            f"**{each}**" if (each, name) == (phase, task) else f"{{page}}`{each} <{each}-{name}>`"
            for each in chain.CLAIMS
        ]
        lines.append(f"{'**' + name + '**' if n == place else name}: {' · '.join(links)}")
    names = " · ".join(name for _, name in shown)
    said = f"<p>{html.escape(f'{phase}: {names}')}</p>"
    show.tell("\n\n".join(["::::{div} phase-strip", *lines, "::::"]), said)


def tell(phase: str, found: Sequence[Told]) -> None:
    """Tell a table of chips: the claims of a phase down, series across."""
    text = table(phase, found)
    show.tell(text, text)


def table(phase: str, found: Sequence[Told]) -> str:
    """The same as HTML. A claim that a series has no verdict on gets no chip."""
    heads = "".join(f'<th scope="col">{_safe(title)}</th>' for title, _ in found)
    rows = []
    for claim in chain.CLAIMS[phase]:
        mark, whole = MARKS[claim], " (all tasks)" if claim in chain.OVER_TASKS else ""
        said = f"{mark.number}: {mark.side} {_scale(mark)(mark.mark)}{whole}"
        cells = [f'<th scope="row"><strong>{claim}</strong> {_safe(said)}</th>']
        for title, verdicts in found:
            chips = (chip(verdict) for verdict in verdicts if verdict.claim == claim)
            cells.append(f'<td data-series="{_safe(title)}">{"".join(chips)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    how = f'<a href="#{show.slug(METHOD)}">How was this computed?</a>'
    return (
        f'<table class="verdict-chips"><thead><tr><th scope="col">{how}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def chip(verdict: Verdict) -> str:
    """One verdict as HTML: its sign and word on its colour, its number beside them."""
    word = f"{SIGNS[verdict.verdict]} {verdict.verdict.replace('-', ' ')}"
    look = f"background:{COLOURS[verdict.verdict]};color:{INK}"
    number = numbered(verdict)
    told = f' <span class="number">{number}</span>' if number != "–" else ""
    return f'<span class="chip" style="{look}">{word}</span>{told}'


def numbered(verdict: Verdict) -> str:
    """Its number with the interval, in per cent where the claim is about a share."""
    if not verdict.mark.percent:
        return show.interval(verdict.estimate)
    hundredfold = {name: 100 * getattr(verdict.estimate, name) for name in ("value", "low", "high")}
    number = show.interval(dataclasses.replace(verdict.estimate, **hundredfold))
    return number if number == "–" else f"{number} %"


def _scale(mark: Mark):
    return percent if mark.percent else plain


def _safe(text: object) -> str:
    return html.escape(" ".join(line(str(text)).split()))
