"""Figures of the page on a real base, post-trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.marks import MARKS
from ..present.axes import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_spread(tasks: pd.DataFrame) -> Figure:
    """Runs down, the spread that SFT leaves across: a dot a task, filled where the run was
    shown choices of it.
    """
    runs = list(dict.fromkeys(tasks["run"]))
    fig, axes = panels(1, 1, 4.2, 0.5 * len(runs) + 1.4)
    ax, mark, named = axes[0, 0], MARKS["collapse"].mark, {False: False, True: False}
    for at, run in enumerate(runs):
        mine = tasks[(tasks["run"] == run) & tasks["spread"].notna()]
        for filled in (False, True):
            some = mine[mine["shown"] == filled]
            if some.empty:
                continue
            shift = np.linspace(-0.22, 0.22, len(some)) if len(some) > 1 else np.zeros(len(some))
            ax.plot(
                some["spread"],
                at + shift,
                "D" if filled else "o",
                ls="",
                ms=6,
                mfc=COLOURS["sft"] if filled else "none",
                mec=COLOURS["sft"],
                label=None if named[filled] else ("choices shown" if filled else "not shown"),
            )
            named[filled] = True
    ax.axvline(mark, color=COLOURS["seed"], lw=1.5)
    ax.axvline(1, color=COLOURS["base"], lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_xticks([0.125, 0.25, 0.5, 1, 2, 4], ["1/8", "1/4", "1/2", "1", "2", "4"], minor=False)
    ax.minorticks_off()
    ax.set_yticks(range(len(runs)), runs)
    ax.invert_yaxis()
    ax.set_xlabel("spread among contexts, SFT over base")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, frameon=False)
    return fig


def plot_steps(steps: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """A panel a run: liquidity of every task along SFT, and their mean with its interval."""
    runs = list(dict.fromkeys(means["run"]))
    fig, axes = panels(len(runs), 1, 4.2, 2.6, sharey=True)
    for ax, run in zip(axes[:, 0], runs, strict=True):
        mine = means[means["run"] == run]
        order = list(mine["step"])
        for _, one in steps[steps["run"] == run].groupby("task"):
            ax.plot(
                range(len(order)),
                one.set_index("step").loc[order, "bits"],
                color=COLOURS["base"],
                lw=0.8,
                alpha=0.6,
            )
        ax.errorbar(
            range(len(order)),
            mine["value"],
            yerr=np.abs([mine["value"] - mine["low"], mine["high"] - mine["value"]]),
            color=COLOURS["sft"],
            marker="o",
            ms=4,
            lw=1.8,
            capsize=2,
        )
        ax.set_xticks(range(len(order)), ["base", *map(str, order[1:])], rotation=60)
        ax.set(title=run, xlabel="SFT steps", ylabel="liquidity, bits")
    return fig
