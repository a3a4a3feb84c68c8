"""Figures of tables of any ladder: the verdicts over all tasks, and how sharp the laws are stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..measure.inference import Estimate, student
from ..measure.judging import Verdict
from ..present import overview
from ..present.figures import panels
from ..texts import label
from . import tabled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]  # ladder -> task -> verdicts, as `tabled.survey` gives them
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def load_matrix(found: Found) -> pd.DataFrame:
    """One row per ladder, task (POOLED the last) and claim, for `overview.plot_matrix`."""
    return overview.load_verdicts(found)


def load_pooled(found: Found) -> pd.DataFrame:
    """The verdicts over all tasks, ladders in the place of tasks, for `overview.plot_forest`; empty if there are none."""
    pooled = {ladder: tasks[tabled.POOLED] for ladder, tasks in found.items() if tabled.POOLED in tasks}
    return overview.load_verdicts({tabled.POOLED: pooled}) if pooled else pd.DataFrame()


def over_tasks(numbers: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over tasks of one column of `tabled_numbers.numbers`, with Student's interval: one row per ladder and stage."""
    rows = []
    for (ladder, stage), mine in numbers.groupby(["ladder", "stage"], sort=False):
        values = mine[column].dropna().to_numpy()
        found = (
            student(values)
            if len(values) > 1
            else Estimate(float(values.mean()) if len(values) else float("nan"), *[float("nan")] * 2)
        )
        rows.append(
            {"ladder": ladder, "stage": stage, "value": found.value, "low": found.low, "high": found.high, "tasks": len(values)}
        )
    return pd.DataFrame(rows)


def plot_stages(frame: pd.DataFrame, stages: Sequence[str], measured: str) -> Figure:
    """One line a ladder over the stages, mean over tasks with its interval. frame: of `over_tasks`."""
    fig, axes = panels(1, 1, 6.4, 3.0)
    ax, ladders = axes[0, 0], list(frame["ladder"].unique())
    for number, ladder in enumerate(ladders):
        mine = frame[frame["ladder"] == ladder]
        at = mine["stage"].map(list(stages).index) + 0.06 * (number - (len(ladders) - 1) / 2)
        colour = LINES[number % len(LINES)]
        ax.plot(at, mine["value"], "o-", color=colour, label=label(ladder))
        ax.vlines(at, mine["low"], mine["high"], color=colour, lw=1)
    ax.set_xticks(range(len(stages)), stages)
    ax.set(ylabel=measured, ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
