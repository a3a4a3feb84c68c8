"""What a phase page begins with: the way to its neighbours, and a verdict chip a claim and series.

Both are told as MyST and shown as HTML; a chip's colour, sign and word say the same.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from ..ask.tasks import PHASE_TASKS
from ..measure import chain
from ..measure.claims import THRESHOLDS, Verdict, percent, plain
from ..texts import line
from . import show
from .figures import INK
from .verdicts import COLOURS, SIGNS

METHOD = "Method and source"  # the fold that says how a number was computed
Judged = tuple[str, Sequence[Verdict]]  # a series: its title, its verdicts


def strip(phase: str, task: str) -> None:
    """Tell the way to the neighbours: the task before, this one and the next, in every phase."""
    place, lines = PHASE_TASKS.index(task), []
    near = PHASE_TASKS[max(0, place - 1) : place + 2]
    for name in near:
        links = {each: f"{{page}}`{each} <{each}-{name}>`" for each in chain.CLAIMS}
        if name == task:
            links[phase] = f"**{phase}**"
        shown = f"**{name}**" if name == task else name
        lines.append(f"{shown}: {' · '.join(links.values())}")
    seen = f"<p>{html.escape(f'{phase}: ' + ' · '.join(near))}</p>"
    show.prose("\n\n".join(["::::{div} phase-strip", *lines, "::::"]), seen)


def show_chips(phase: str, found: Sequence[Judged]) -> None:
    """Tell a table of chips: the claims of a phase down, series across."""
    text = table(phase, found)
    show.prose(text, text)


def table(phase: str, found: Sequence[Judged]) -> str:
    """The same as HTML. A claim that a series has no verdict on gets no chip."""
    heads = "".join(f'<th scope="col">{_safe(title)}</th>' for title, _ in found)
    rows = []
    for claim in chain.CLAIMS[phase]:
        threshold, whole = THRESHOLDS[claim], " (all tasks)" if claim in chain.OVER_TASKS else ""
        scale = percent if threshold.percent else plain
        wanted = f"{threshold.number}: {threshold.side} {scale(threshold.value)}{whole}"
        cells = [f'<th scope="row"><strong>{claim}</strong> {_safe(wanted)}</th>']
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
    beside = f' <span class="number">{number}</span>' if number != "–" else ""
    return f'<span class="chip" style="{look}">{word}</span>{beside}'


def numbered(verdict: Verdict) -> str:
    """Its number with the interval, in per cent where the claim is about a share."""
    found, shares = verdict.estimate, verdict.threshold.percent
    by = 100 if shares else 1
    number = show.between(by * found.value, by * found.low, by * found.high)
    return f"{number} %" if shares and number != "–" else number


def _safe(text: object) -> str:
    return html.escape(" ".join(line(str(text)).split()))
