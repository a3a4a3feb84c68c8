"""Figures of the page of open and large tasks: `load_x` is the frame drawn, `plot_x` draws it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.prompts import PROBE, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..measure import inference as inf
from ..measure import quantities as cv
from ..measure import quantities as ph
from ..texts import label
from .figures import COLOURS, GREY, MARKERS, each_panel, legend, panels
from .open_tasks import EACH, KINDS, each_count, kind, mean_pair, where
from .views import answers, each_ladder, estimated, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe-Ito; "other" and "none" in greys, for they are what no list of ours explains
HUES = ("#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#000000")
KIND_COLOURS = dict(zip(KINDS, (*HUES, "#9aa0a8", "#d9dce0"), strict=True))
DISTANCES = {
    "MSE": ph.mse,
    "total variation": ph.tv,
    "Jensen-Shannon, bits": ph.jsd_bits,
    "1 - overlap": lambda p, q: 1 - cv.distributions_overlap(p, q),
}


def label_of(task: str) -> str:
    return TASKS[task].label.lower()


def _broken(task: str) -> str:
    """The label in two lines if it is long."""
    return label_of(task).replace(" from ", "\nfrom ")


def load_kinds(draws: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder, task and checkpoint: the share of draws that each kind of answer has."""
    rows = []
    for place, counts in each_count(draws):
        kinds, pooled = np.array([kind(o) for o in counts.options]), counts.pooled
        shares = {name: float(pooled[kinds == name].sum() / pooled.sum()) for name in KINDS}
        rows.append(place | shares)
    return pd.DataFrame(rows)


def plot_kinds(frame: pd.DataFrame) -> Figure:
    """One bar per task and checkpoint, divided by kind."""
    tasks = list(frame["task"].unique())
    fig, each = each_panel(frame, 5.4, sharey=True)
    for ax, mine in each:
        checkpoints, left = list(mine["checkpoint"].unique()), np.zeros(len(mine))
        y = mine["task"].map(tasks.index) * (len(checkpoints) + 0.8) + mine["checkpoint"].map(
            checkpoints.index
        )
        for name in [name for name in KINDS if mine[name].max() > 0]:
            look = {"color": KIND_COLOURS[name], "label": name, "edgecolor": "white", "lw": 0.4}
            ax.barh(y, mine[name], left=left, height=0.9, **look)
            left += mine[name].to_numpy()
        places = mine[["task", "checkpoint"]].itertuples(index=False)
        named = [
            f"{_broken(t)}   {checkpoint}" if checkpoint == "base" else checkpoint
            for t, checkpoint in places
        ]
        ax.set_yticks(y, named)
        ax.set(xlim=(0, 1), ylim=(y.max() + 0.6, -0.6), xlabel="share of all draws")
        ax.grid(False)
        ax.tick_params(axis="y", length=0)
    return legend(fig)


def load_ranks(draws: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder, task, checkpoint and answer drawn: its rank and share of all prompts'
    draws.
    """
    frames = []
    for place, counts in each_count(draws):
        share = np.sort(counts.pooled[counts.pooled > 0])[::-1] / counts.pooled.sum()
        columns = {"rank": np.arange(1, len(share) + 1), "share": share}
        frames.append(pd.DataFrame(place | columns))
    return pd.concat(frames, ignore_index=True)


def plot_ranks(frame: pd.DataFrame) -> Figure:
    """Share against rank, log scales, tasks down, ladders across; flat over many ranks is broad."""
    tasks, decades = list(frame["task"].unique()), np.array([10, 100, 1000])
    fig, axes = panels(len(tasks), frame["ladder"].nunique(), 1.25, sharex=True, sharey=True)
    for column, (ladder, mine) in zip(axes.T, each_ladder(frame), strict=True):
        for ax, task in zip(column, tasks, strict=True):
            for checkpoint, curve in mine[mine["task"] == task].groupby("checkpoint", sort=False):
                at = [0, *(decades[decades <= len(curve)] - 1)]
                look = {"color": COLOURS[checkpoint], "label": checkpoint, "markevery": at}
                ax.loglog(curve["rank"], curve["share"], MARKERS[checkpoint] + "-", **look)
        column[0].set_title(label(title_of(ladder), wide=30))
    for ax, task in zip(axes[:, 0], tasks, strict=True):
        ax.set_ylabel(_broken(task))
    fig.supxlabel("rank of the answer")
    fig.supylabel("share of all draws")
    return legend(fig)


# -- where MSE stops


def load_supports(readouts: pd.DataFrame, truth: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """Mean distance of two personas' exact distributions: a row per ladder, task and distance.

    With intervals over personas. The prompts are the probe's, for closed tasks from the read-outs,
    for the large one from the truths beside the draws.
    """
    rows, probe = [], [PROMPTS.index(prompt) for prompt in PROBE]
    for ladder, mine in each_ladder(readouts):
        distributions = {
            task: answers(mine, checkpoint, task)[probe] for task in mine["task"].unique()
        }
        exact = where(truth, ladder=ladder, checkpoint=checkpoint)
        for task, part in exact.groupby("task", sort=False):
            distributions[task] = np.stack(part["probability"].tolist())
        for task, table in distributions.items():
            table = table / table.sum(1, keepdims=True)
            for name, distance in DISTANCES.items():
                far = partial(mean_pair, distance(table[:, None], table[None]))
                place = {"ladder": ladder, "task": task, "options": table.shape[1]}
                numbers = estimated(inf.estimate(far, EACH, low=0))
                rows.append(place | {"distance": name} | numbers)
    return pd.DataFrame(rows)


def slope(frame: pd.DataFrame, distance: str) -> float:
    """Least-squares slope of log distance on log K over closed tasks: -1 for a fall like 1/K.

    frame: of one ladder. Not the large task: its distribution is that of a shorter list.
    """
    part = frame[(frame["distance"] == distance) & frame["task"].isin(PHASE_TASKS)]
    return float(np.polyfit(np.log(part["options"]), np.log(part["value"]), 1)[0])


def plot_supports(frame: pd.DataFrame) -> Figure:
    """Both axes logarithmic: MSE falls along a line, the others stay on their decade."""
    fig, each = each_panel(frame, 3.0, sharey=True)
    hues = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
    looks = list(zip(DISTANCES, hues, "os^D", (1, 0.95, 1, 1.05), strict=True))
    for ax, mine in each:
        for name, colour, marker, aside in looks:
            part = mine[mine["distance"] == name].sort_values("options", kind="stable")
            x = part["options"] * aside  # or two would coincide
            ax.loglog(x, part["value"], marker, color=colour, label=name)
            ax.vlines(x, part["low"], part["high"], color=colour, lw=1)
        mse = mine[(mine["distance"] == "MSE") & mine["task"].isin(PHASE_TASKS)]
        k, b = np.array([mse["options"].min(), mine["options"].max()]), slope(mine, "MSE")
        height = np.exp((np.log(mse["value"]) - b * np.log(mse["options"])).mean())
        ax.plot(k, height * k**b, "--", color=GREY, lw=1, label=f"slope {b:.2f}")
        ax.set_xlabel("options K of the task")
    fig.axes[0].set_ylabel("mean distance between two personas")
    return legend(fig)


def plot_agreement(frame: pd.DataFrame) -> Figure:
    """Agreement of the prompts per task and checkpoint, with intervals; at 1 all prompts are alike.

    frame: of `open_tasks.load_numbers`.
    """
    frame = frame[frame["quantity"] == "agreement"]
    tasks = list(frame["task"].unique())
    fig, each = each_panel(frame, 3.0, sharey=True)
    for ax, mine in each:
        for k, (checkpoint, marks) in enumerate(mine.groupby("checkpoint", sort=False)):
            x, colour = marks["task"].map(tasks.index) + (k - 1.5) * 0.17, COLOURS[checkpoint]
            ax.vlines(x, marks["low"], marks["high"], color=colour)
            ax.plot(x, marks["value"], MARKERS[checkpoint], color=colour, label=checkpoint)
        ax.axhline(1, color=GREY, lw=1, ls="--")
        ax.set_xticks(range(len(tasks)), map(_broken, tasks), rotation=90)
        ax.set(ylim=(0, None))
        ax.grid(False, axis="x")
    fig.axes[0].set_ylabel("agreement of the prompts")
    return legend(fig)
