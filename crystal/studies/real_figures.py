"""Figures of a real base, post-trained: each draws a tidy frame of `real` or `later`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.claims import MARKS
from ..present.figures import COLOURS, legend, panels
from .figures import rows_down
from .runs import where

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_spread(tasks: pd.DataFrame) -> Figure:
    """Runs down, the spread that SFT leaves across: a dot a task, filled where it was shown."""
    runs = list(dict.fromkeys(tasks["run"]))
    fig, ((ax,),) = panels(1, 1, 0.36 * len(runs) + 0.9)
    names = {False: "not shown", True: "choices shown"}
    for (run, filled), some in tasks[tasks["spread"].notna()].groupby(["run", "shown"]):
        shift = np.linspace(-0.22, 0.22, len(some)) if len(some) > 1 else 0
        look = {"mfc": COLOURS["sft"] if filled else "none", "mec": COLOURS["sft"], "ms": 4.5}
        at, sign, name = runs.index(run) + shift, "D" if filled else "o", names.pop(filled, None)
        ax.plot(some["spread"], at, sign, ls="", label=name, **look)
    ax.axvline(MARKS["collapse"].mark, color=COLOURS["seed"], lw=1.5)
    ax.axvline(1, color=COLOURS["base"], lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_xticks([0.125, 0.25, 0.5, 1, 2, 4], ["1/8", "1/4", "1/2", "1", "2", "4"], minor=False)
    ax.minorticks_off()
    rows_down(ax, runs)
    ax.set_xlabel("spread among contexts, SFT over base")
    return legend(fig)


def plot_steps(steps: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """A panel a run: liquidity of every task along SFT, and their mean with its interval."""
    runs = list(dict.fromkeys(means["run"]))
    fig, axes = panels(1, len(runs), 2.4, sharey=True)
    for ax, run in zip(axes[0], runs, strict=True):
        mine = where(means, run=run)
        order, at = list(mine["step"]), range(len(mine))
        for _, one in where(steps, run=run).groupby("task"):
            bits = one.set_index("step").loc[order, "bits"]
            ax.plot(at, bits, color=COLOURS["base"], lw=0.8, alpha=0.6)
        reach = np.abs([mine["value"] - mine["low"], mine["high"] - mine["value"]])
        look = {"color": COLOURS["sft"], "marker": "o", "capsize": 2}
        ax.errorbar(at, mine["value"], yerr=reach, **look)
        ax.set_xticks(at, ["base", *map(str, order[1:])], rotation=90)
        ax.set_title(run)
    axes[0, 0].set_ylabel("liquidity, bits")
    fig.supxlabel("SFT steps")
    return fig


def plot_later(stages: pd.DataFrame) -> Figure:
    """How far mean answers move: a line a task, from SFT's own move to that of each later stage."""
    names = list(dict.fromkeys(stages["stage"]))
    table = stages.pivot(index="task", columns="stage", values="after")
    before = stages.groupby("task")["before"].first()
    fig, axes = panels(1, 1, 2.4)
    ax = axes[0, 0]
    moves = np.column_stack([before, *(table[name] for name in names)])
    ax.plot(moves.T, color=COLOURS["base"], lw=0.9, alpha=0.7)
    ax.plot(np.exp(np.log(moves).mean(0)), color=COLOURS["sft"], marker="o", lw=2)
    ax.set_yscale("log")
    ax.set_xticks(range(len(names) + 1), ["base to SFT", *(f"SFT to {n.upper()}" for n in names)])
    ax.set_ylabel("total variation")
    return fig
