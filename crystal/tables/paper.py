"""The paper's claims beside each other: on the ladders of this book task by task, on published ones over all their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..measure import chain
from ..measure.judging import Verdict
from ..measure.marks import MARKS
from ..present import show
from ..present.figures import panels, title_of
from ..present.overview import COLOURS, SIGNS, load_counts
from ..texts import label
from .tabled import POOLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]
SAID = {  # the abstract's words, in ours
    "many-laws": "the pretrained model is liquid: many answer distributions can be prompted out of it",
    "collapse": "at SFT all prompts collapse",
    "one-seed": "onto a seed distribution that the base already held",
    "stays-frozen": "and the crystal stays one (our reading)",
    "same-options": "DPO and RL move probability, but largely on the seed's options",
    "little-promoted": "the same, from below: what ranked low stays low (our reading)",
}


def load_sides(ours: Found, theirs: Found) -> pd.DataFrame:
    """One row per claim of SAID and ladder: kind "tasks", ours, with on how many tasks each verdict
    stands; "all", ours and published, with the verdict and number over all tasks.

    ours, theirs: task -> verdicts, of a survey.
    """
    rows = [
        {"claim": row.claim, "kind": "tasks", "ladder": row.ladder, "tasks": row.tasks}
        | {(name := verdict.replace("-", "_")): getattr(row, name) for verdict in chain.VERDICTS}
        for row in load_counts(ours).itertuples()
        if row.claim in SAID
    ]
    rows += [
        {
            "claim": v.claim,
            "kind": "all",
            "ladder": ladder,
            "verdict": v.verdict,
            "number": v.estimate.value,
            "low": v.estimate.low,
            "high": v.estimate.high,
        }
        for ladder, tasks in {**ours, **theirs}.items()
        for v in tasks.get(POOLED, ())
        if v.claim in SAID
    ]
    frame = pd.DataFrame(rows)
    return frame.sort_values("claim", key=lambda column: column.map(list(SAID).index), kind="stable").reset_index(drop=True)


def told(frame: pd.DataFrame) -> str:
    """Every claim in half a sentence, plain."""
    said = []
    for claim, mine in frame.groupby("claim", sort=False):
        here = [
            f"holds on {row.holds:.0f} of {row.tasks:.0f} tasks on {title_of(row.ladder)}"
            for row in mine[mine["kind"] == "tasks"].itertuples()
        ]
        there = [f"over all tasks {row.verdict} on {title_of(row.ladder)}"
                 for row in mine[mine["kind"] == "all"].itertuples()]
        said.append(f"{claim} " + ", ".join([*here, *there]))
    return ". ".join(said)


def plot_sides(frame: pd.DataFrame) -> Figure:
    """Claims down; a bar of tasks per ladder of ours, a sign per published ladder."""
    claims = list(dict.fromkeys(frame["claim"]))
    mine, theirs = (frame[frame["kind"] == kind] for kind in ("tasks", "all"))
    ladders = list(dict.fromkeys(mine["ladder"])), list(dict.fromkeys(theirs["ladder"]))
    fig, axes = panels(1, len(ladders[0]) + 1, 9.6, 0.42 * len(claims) + 1.4, sharey=True)
    for ax, ladder in zip(axes[0], ladders[0], strict=False):
        for row in mine[mine["ladder"] == ladder].itertuples():
            left = 0
            for verdict, colour in COLOURS.items():
                tasks = getattr(row, verdict.replace("-", "_"))
                ax.barh(claims.index(row.claim), tasks, left=left, color=colour, height=0.7)
                left += tasks
        ax.set(title=label(title_of(ladder)), xlabel="tasks")
    last = axes[0, -1]
    for row in theirs.itertuples():
        place = ladders[1].index(row.ladder), claims.index(row.claim)
        last.plot(*place, "s", color=COLOURS[row.verdict], ms=15)
        last.text(*place, SIGNS[row.verdict], ha="center", va="center", color="black")
    last.set_xticks(range(len(ladders[1])), map(label, ladders[1]), rotation=30, ha="right")
    last.set(title="all tasks together", xlim=(-0.6, len(ladders[1]) - 0.4))
    last.grid(False)
    axes[0, 0].set_yticks(range(len(claims)), claims)
    axes[0, 0].set_ylim(len(claims) - 0.5, -0.5)
    shown = [verdict for verdict in COLOURS if verdict in (*chain.TESTED, *frame["verdict"])
             or frame[verdict.replace("-", "_")].sum()]
    handles = [axes[0, 0].plot([], [], "s", color=COLOURS[verdict], ms=8)[0] for verdict in shown]
    fig.legend(
        handles, [f"{SIGNS[v]} {v}" for v in shown], loc="outside lower center", ncols=len(shown)
    )
    return fig


def table(frame: pd.DataFrame, fmt: Callable[[float], str]) -> str:
    """Markdown: the claim as the paper is known to make it, our number for it, and what each ladder shows."""
    ladders = list(dict.fromkeys(frame["ladder"]))
    head = ["what is claimed", "measured as", *(title_of(ladder) for ladder in ladders)]
    lines = []
    for claim, mine in frame.groupby("claim", sort=False):
        cells: dict[str, str] = {}
        for row in mine.sort_values("kind").itertuples():
            number = "" if pd.isna(row.number) else (
                f": {fmt(row.number)} [{fmt(row.low)}, {fmt(row.high)}]")
            text = f"{row.verdict}{number}" if row.kind == "all" else (
                f"holds on {row.holds:.0f} of {row.tasks:.0f} tasks alone")
            cells[row.ladder] = "; ".join(filter(None, (cells.get(row.ladder), text)))
        mark = MARKS[claim]
        lines.append(
            [SAID[claim], f"{mark.number}, {mark.side} {fmt(mark.mark)}", *(cells.get(ladder, "not known") for ladder in ladders)]
        )
    return show.table(head, lines)
