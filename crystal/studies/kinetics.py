"""When the laws freeze: paths along SFT at several rates, along DPO and RLVR, and what the claims make of them.

`path` is a frame of `crystal.studies.branches.walk` or `along`. Means over tasks are taken within a parent;
intervals run over parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..lab.experiments import load_experiment
from ..lab.recipes import load_recipe
from ..measure.inference import Estimate
from ..measure.judging import Verdict, judge
from ..present.figures import COLOURS, panels
from . import branches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = {False: "demonstrated", True: "held out"}
SHADES = {"demonstrated": COLOURS["seed"], "held out": COLOURS["sft"]}
NAMES = {"slow": "lowest rate", "usual": "the ladders' rate", "fast": "highest rate"}


# --- frames ----------------------------------------------------------------------------------------------------------


def load_means(path: pd.DataFrame, values: Sequence[str], *, by: Sequence[str] = ("group",)) -> pd.DataFrame:
    """Mean of `values` over tasks: one row per parent, run, step and `by`; `group` is demonstrated or held out."""
    path = path.assign(group=path["held_out"].map(GROUPS))
    return path.groupby(["parent", "run", "step", *by], sort=False)[list(values)].mean().reset_index()


def load_transition(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """By parent, step and group: liquidity as a share of the base's, bits to the demonstrator's law, fluctuation."""
    means = load_means(path[path["run"] == run], ["liquidity", "to_law", "fluctuation", "progress", "entropy"])
    start = means[means["step"] == 0].set_index(["parent", "group"])["liquidity"]
    means["share"] = means["liquidity"] / means.set_index(["parent", "group"]).index.map(start)
    return means.sort_values(["parent", "group", "step"], ignore_index=True)


def load_rates(path: pd.DataFrame, name: str = "kinetics", runs: Sequence[str] = ("slow", "usual", "fast")) -> pd.DataFrame:
    """Liquidity share over all tasks against steps and steps x learning rate, for the parents that have all runs."""
    path = path[path["run"].isin(runs)]
    whole = [parent for parent, mine in path.groupby("parent") if set(runs) <= set(mine["run"])]
    settings = {run.name: run.set for run in load_experiment(name).runs}
    frames = []
    for run in runs:
        mine = load_means(path[(path["run"] == run) & path["parent"].isin(whole)], ["liquidity"], by=[])
        rates = {parent: load_recipe(parent, settings[run]).sft["learning_rate"] for parent in whole}
        first = mine[mine["step"] == 0].set_index("parent")["liquidity"]
        frames.append(mine.assign(rate=mine["parent"].map(rates), share=mine["liquidity"] / mine["parent"].map(first)))
    out = pd.concat(frames, ignore_index=True)
    return out.assign(dose=out["step"] * out["rate"]).sort_values(["parent", "rate", "step"], ignore_index=True)


def load_half_lives(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """Step at which half of the liquidity is gone, by parent and task; nan where that never happens."""
    rows = []
    for (parent, task), mine in path[path["run"] == run].sort_values("step").groupby(["parent", "task"], sort=False):
        group = GROUPS[bool(mine["held_out"].iloc[0])]
        rows.append({"parent": parent, "task": task, "group": group,
                     "half_life": branches.half_life(mine["step"], mine["liquidity"].to_numpy())})
    return pd.DataFrame(rows)


def load_fluctuations(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """By step and group: variance of progress over narrators (mean over parents), and of mean progress over parents."""
    means = load_transition(path, run)
    grouped = means.groupby(["group", "step"], sort=False)
    return pd.DataFrame({"narrators": grouped["fluctuation"].mean(), "parents": grouped["progress"].var(ddof=1),
                         "progress": grouped["progress"].mean()}).reset_index()


def load_settling(ladders: pd.DataFrame, opposed: pd.DataFrame) -> pd.DataFrame:
    """Along DPO and RLVR, by parent, run, step and group: mass on the seed's options, bits to the demonstrator's law.

    ladders: `branches.along`; opposed: `branches.walk` of the DPO whose judge prefers another law, measured against the same
    demonstrator. Step 0 of a stage is the end of the one before.
    """
    parts = []
    for stage, before in (("dpo", "sft"), ("rlvr", "dpo")):
        ends = ladders[ladders["rung"] == before].assign(step=0)
        run = "dpo, favouring" if stage == "dpo" else stage
        parts.append(pd.concat([ends, ladders[ladders["stage"] == stage]]).assign(run=run))
    frame = pd.concat([*parts, opposed.assign(run="dpo, opposing")], ignore_index=True)
    means = load_means(frame, ["probmass", "to_law", "liquidity", "to_base"])
    return means.sort_values(["run", "parent", "group", "step"], ignore_index=True)


# --- claims ----------------------------------------------------------------------------------------------------------


def half_lives(path: pd.DataFrame, group: str, run: str = "usual") -> pd.Series:
    """Half-life of the mean liquidity of a group's tasks, by parent, in steps."""
    means = load_transition(path, run)
    return branches.per_parent(means[means["group"] == group],
                               lambda mine: branches.half_life(mine["step"], mine["liquidity"].to_numpy()))


def demonstrated_first(path: pd.DataFrame) -> Verdict:
    """Half-life of demonstrated over held-out tasks, parent by parent."""
    ratio = half_lives(path, "demonstrated") / half_lives(path, "held out")
    return judge("demonstrated-first", branches.over_parents(ratio, 0), nothing="liquidity does not halve")


def steps_times_rate(rates: pd.DataFrame) -> Estimate:
    """Factor between the half-lives in steps x rate at the highest and the lowest rate; 1 is a perfect scaling."""
    def factor(mine: pd.DataFrame) -> float:
        ends = [branches.half_life(one["dose"], one["liquidity"].to_numpy()) for _, one in mine.groupby("rate")]
        ratio = ends[-1] / ends[0]
        return max(ratio, 1 / ratio)

    return branches.over_parents(branches.per_parent(rates, factor), 1)


def held_out_recedes(path: pd.DataFrame) -> Estimate:
    """Distance of held-out tasks to the demonstrator's law at the last step over the smallest on the way: never below 1."""
    means = load_transition(path)
    ratio = branches.per_parent(means[means["group"] == "held out"], lambda mine: mine["to_law"].iloc[-1] / mine["to_law"].min())
    return branches.over_parents(ratio, 1)


def fluctuations_peak(path: pd.DataFrame) -> Estimate:
    """Variance of progress over narrators, mean over all tasks: its peak over its last value: never below 1."""
    means = load_means(path[path["run"] == "usual"], ["fluctuation"], by=[]).sort_values("step")
    ratio = branches.per_parent(means, lambda mine: mine["fluctuation"].max() / mine["fluctuation"].iloc[-1])
    return branches.over_parents(ratio, 1)


def reward_decides(settling: pd.DataFrame) -> Verdict:
    """ProbMass on the seed's options after favouring DPO minus the same after opposing DPO, parent by parent."""
    last = settling[settling["group"] == "demonstrated"].groupby(["run", "parent"])["probmass"].last()
    gap = (last["dpo, favouring"] - last["dpo, opposing"]).dropna()
    return judge("reward-decides", branches.over_parents(gap))


def peak_step(path: pd.DataFrame, run: str = "usual") -> Estimate:
    """Step at which narrators differ most in progress, all tasks together."""
    means = load_means(path[path["run"] == run], ["fluctuation"], by=[]).sort_values("step")
    peaks = branches.per_parent(means, lambda mine: mine["step"].iloc[int(mine["fluctuation"].argmax())])
    return branches.over_parents(peaks, 0)


# --- figures ---------------------------------------------------------------------------------------------------------


def _steps(ax: Axes, label: str = "SFT step") -> None:
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set(xlabel=label, xlim=(0, None))


def _paths(ax: Axes, frame: pd.DataFrame, x: str, y: str, colour: str, label: str, style: str = "-") -> None:
    """One thin line a parent, the mean thick: over the parents that were watched at every step, or it would jump."""
    for _, mine in frame.groupby("parent"):
        ax.plot(mine[x], mine[y], style, color=colour, lw=0.7, alpha=0.45)
    watched = frame.groupby("parent")[x].nunique()
    whole = frame[frame["parent"].isin(watched.index[watched == watched.max()])]
    mean = whole.groupby(x)[y].mean()
    ax.plot(mean.index, mean, style, color=colour, lw=2.2, label=label)


def plot_transition(frame: pd.DataFrame) -> Figure:
    """Left: liquidity as a share of the base's. Right: distance to the demonstrator's law. Thin lines are parents."""
    fig, axes = panels(1, 2, 8.4, 3.1)
    for group, mine in frame.groupby("group", sort=False):
        _paths(axes[0, 0], mine, "step", "share", SHADES[group], group)
        _paths(axes[0, 1], mine, "step", "to_law", SHADES[group], group)
    axes[0, 0].axhline(0.5, color=COLOURS["chance"], lw=0.8, ls=":")
    axes[0, 0].set(ylim=(0, None), ylabel="liquidity, share of the base's", title="how much the prompt matters")
    axes[0, 1].set(ylim=(0, None), ylabel="JSD to the demonstrator's law, bit", title="where the law goes")
    for ax in axes[0]:
        _steps(ax)
    axes[0, 0].legend(loc="lower left")
    return fig


def plot_half_lives(frame: pd.DataFrame) -> Figure:
    """A dot per parent, a bar at the mean, tasks in the order of their means; demonstrated tasks in another colour."""
    order = frame.groupby("task")["half_life"].mean().sort_values().index
    fig, axes = panels(1, 1, 7.2, 3.2)
    for place, task in enumerate(order):
        mine = frame[frame["task"] == task]
        colour = SHADES[mine["group"].iloc[0]]
        axes[0, 0].plot(np.full(len(mine), place), mine["half_life"], "o", color=colour, ms=4, alpha=0.6)
        axes[0, 0].plot([place - 0.3, place + 0.3], [mine["half_life"].mean()] * 2, color=colour, lw=2.5)
    for group, colour in SHADES.items():
        axes[0, 0].plot([], [], "o", color=colour, label=group)
    axes[0, 0].set_xticks(range(len(order)), order, rotation=45, ha="right")
    axes[0, 0].set(ylim=(0, None), ylabel="SFT step at which half of\nthe liquidity is gone")
    axes[0, 0].legend(loc="upper left")
    return fig


def plot_fluctuations(frame: pd.DataFrame) -> Figure:
    """Variance of progress over narrators, and over parents, along SFT."""
    fig, axes = panels(1, 2, 8.4, 2.9)
    for ax, column, title in zip(axes[0], ("narrators", "parents"), ("over narrators", "over parents"), strict=True):
        for group, mine in frame.groupby("group", sort=False):
            ax.plot(mine["step"], mine[column], "o-", color=SHADES[group], ms=3.5, label=group)
        ax.set(ylim=(0, None), title=f"variance of progress {title}")
        _steps(ax)
    axes[0, 0].set_ylabel("variance")
    axes[0, 0].legend(loc="upper left")
    return fig


def plot_rates(frame: pd.DataFrame) -> Figure:
    """Left against steps, right against steps x rate: one curve for all rates where only their product counts."""
    fig, axes = panels(1, 2, 8.4, 3.0, sharey=True)
    looks = zip(frame.groupby("run", sort=False), (("#56B4E9", ":"), ("#0072B2", "-"), ("#767c85", "--")), strict=False)
    for (run, mine), (colour, style) in looks:
        for ax, x in zip(axes[0], ("step", "dose"), strict=True):
            _paths(ax, mine, x, "share", colour, NAMES.get(run, run), style)
    axes[0, 0].set(ylim=(0, None), ylabel="liquidity, share of the base's")
    _steps(axes[0, 0])
    axes[0, 1].set_xscale("symlog", linthresh=1e-4, linscale=0.5)
    axes[0, 1].set(xlabel="SFT step x learning rate", xlim=(0, None))
    for ax in axes[0]:
        ax.axhline(0.5, color=COLOURS["chance"], lw=0.8, ls=":")
    axes[0, 0].legend(loc="lower left")
    return fig


def plot_settling(frame: pd.DataFrame) -> Figure:
    """Above, mass on the seed's options along DPO (two judges) and RLVR; below, liquidity. Demonstrated and held-out tasks."""
    fig, axes = panels(2, 2, 8.4, 2.5, sharex=True, sharey="row")
    styles = {"dpo, favouring": ("-", COLOURS["rlvr"]), "dpo, opposing": ("--", "#D55E00"), "rlvr": ("-", COLOURS["dpo"])}
    for column, group in zip(axes.T, SHADES, strict=True):
        for run, (style, colour) in styles.items():
            mine = frame[(frame["group"] == group) & (frame["run"] == run)]
            for ax, what in zip(column, ("probmass", "liquidity"), strict=True):
                _paths(ax, mine, "step", what, colour, run, style)
        column[0].set_title(group)
        _steps(column[1], "optimiser step of the stage")
    axes[0, 0].set_ylim(top=1)  # last: it ends the search for limits on the axes it shares
    axes[1, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("mass on the seed's options")
    axes[1, 0].set_ylabel("liquidity, bit")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
