"""The claims over training runs: each run judged over all tasks, and what its family says together.

A family is one recipe trained from several seeds. A run's verdict is the one on all tasks together
(`crystal.measure.chain`); the training run is the unit of what is said of a family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..files import root
from ..measure import chain
from ..measure.judging import Verdict
from ..measure.marks import MARKS
from ..present import show
from ..present.figures import panels
from ..present.overview import COLOURS, SIGNS
from ..present.training_figures import load_report
from .branches import family, over_parents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]  # run -> task -> verdicts, of a survey
CLAIMS = [claim for claims in chain.CLAIMS.values() for claim in claims]


def load_runs(found: Found) -> pd.DataFrame:
    """One row per run and claim: the verdict over all tasks, its number and interval (over tasks),
    and of tasks those on which it holds alone.
    """
    rows = []
    for run, tasks in found.items():
        whole = {v.claim: v for v in tasks.get(chain.POOLED, ())}
        alone = [v for task, mine in tasks.items() if task != chain.POOLED for v in mine]
        for claim in (claim for claim in CLAIMS if claim in whole):
            v = whole[claim]
            rows.append(
                {
                    "family": family(run),
                    "run": run,
                    "claim": claim,
                    "verdict": v.verdict,
                    "number": v.estimate.value,
                    "low": v.estimate.low,
                    "high": v.estimate.high,
                    "tasks": sum(o.claim == claim for o in alone),
                    "holds": sum(o.claim == claim and o.verdict == "holds" for o in alone),
                }
            )
    return pd.DataFrame(rows)


def load_families(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and claim: in how many runs it holds; mean of their numbers with Student's
    interval over runs (nan where fewer than two runs have a number).
    """
    rows = []
    for (name, claim), mine in runs.groupby(["family", "claim"], sort=False):
        numbers = mine["number"].dropna()
        over = over_parents(numbers) if len(numbers) > 1 else None
        rows.append(
            {
                "family": name,
                "claim": claim,
                "runs": len(mine),
                "verdicts": mine["verdict"].tolist(),
                "number": float(numbers.mean()) if len(numbers) else np.nan,
                "low": over.low if over else np.nan,
                "high": over.high if over else np.nan,
            }
        )
    return pd.DataFrame(rows)


def said(row) -> str:
    """One row of `load_families` in words: holds in 2 of 3 training runs, undecided in 1."""
    counts = {verdict: row.verdicts.count(verdict) for verdict in chain.VERDICTS}
    others = [
        f"{verdict.replace('-', ' ')} in {n}"
        for verdict, n in counts.items()
        if n and verdict != "holds"
    ]
    return ", ".join([f"holds in {counts['holds']} of {row.runs} training runs", *others])


def table(families: pd.DataFrame, runs: pd.DataFrame, fmt) -> str:
    """Markdown: claim and family; verdict run by run; number with its interval over runs; on how
    many tasks each run holds alone.
    """
    head = ["claim", "ladder", "verdict, run by run", "mean over runs", "holds on tasks alone"]
    lines = []
    for row in families.itertuples():
        mine = runs[(runs["family"] == row.family) & (runs["claim"] == row.claim)]
        alone = ", ".join(
            f"{n} of {tasks}" if tasks else "–"
            for n, tasks in zip(mine["holds"], mine["tasks"], strict=True)
        )
        number = (
            "–"
            if np.isnan(row.number)
            else fmt(row.number)
            + ("" if np.isnan(row.low) else f" [{fmt(row.low)}, {fmt(row.high)}]")
        )
        lines.append([row.claim, row.family, ", ".join(row.verdicts), number, alone])
    return show.table(head, lines)


def plot_runs(runs: pd.DataFrame) -> Figure:
    """One panel a claim: each run's number over all tasks with its interval, and the threshold; a
    run without a number has the sign of its verdict at the left edge.
    """
    claims, names, columns = list(runs["claim"].unique()), list(runs["run"].unique()), 4
    fig, axes = panels(
        -(-len(claims) // columns), columns, 9.6, 0.22 * len(names) + 1.0, sharey=True
    )
    for ax in axes.flat[len(claims) :]:
        ax.set_visible(False)
    for ax, (claim, mine) in zip(axes.flat, runs.groupby("claim", sort=False), strict=False):
        mark = MARKS[claim]
        ends = mine[["low", "high", "number"]].replace(np.inf, np.nan).to_numpy()
        values = [0.0, mark.mark, *ends[np.isfinite(ends)]]
        left, right = min(values), 1.08 * max(values)
        for row in mine.itertuples():
            y, colour = names.index(row.run), COLOURS[row.verdict]
            if np.isnan(row.number):
                ax.text(left, y, SIGNS[row.verdict], ha="left", va="center")
                continue
            ax.plot(np.clip([row.low, row.high], left, right), [y, y], color=colour)
            ax.plot(row.number, y, "o", color=colour, ms=5)
        claimed = (mark.mark, right) if mark.side == "above" else (left, mark.mark)
        ax.axvspan(*claimed, color=COLOURS["holds"], alpha=0.1, lw=0)
        ax.axvline(mark.mark, color=COLOURS["undecided"], lw=1)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlim=(left, right), ylim=(len(names) - 0.5, -0.5), title=claim)
    return fig


def unconverged(runs: Sequence[str]) -> list[str]:
    """The runs whose SFT ended after a fixed number of steps, by their training reports."""
    there = [run for run in runs if (root() / "data/training" / f"{run}.json").is_file()]
    return [run for run in there if "until" not in load_report(run)["recipe"]["sft"]]
