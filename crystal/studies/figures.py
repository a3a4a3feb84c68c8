"""How figures of experiments are drawn: panels, paths, marks. Kinetics, format, real checkpoints.

Each draws a tidy frame of a module of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.claims import THRESHOLDS
from ..present.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    LINE,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    legend,
    name_rows,
    panels,
)
from ..present.verdicts import COLOURS as VERDICTS
from ..present.verdicts import SIGNS
from ..present.views import title_of
from ..texts import label
from .formats import FORM_NAMES
from .runs import ALL, APART, DEMONSTRATED, HELD_OUT, MEAN, means, usable, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = {DEMONSTRATED: (ORANGE, "", "-"), HELD_OUT: (BLUE, "", "-")}
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"))
TASKS = {DEMONSTRATED: "demonstrated tasks", HELD_OUT: "held-out tasks"}
PARTS = {"form": "base in chat form", "whole": "SFT in chat form", "text": "SFT as raw text"}
Looks = Mapping[str, tuple[str, str, str]]  # value -> colour, marker, line
Marks = Mapping[str, tuple[float, str, str]]  # value -> shift, colour, marker
Facet = tuple[str, Sequence[str] | Mapping[str, str]]  # a column, its values and how to name them
NONE: Facet = ("", [""])
Panels = tuple["Figure", list[tuple["Axes", pd.DataFrame]]]  # axes with their rows of a frame


def facets(
    frame: pd.DataFrame, height: float, columns: Facet = NONE, rows: Facet = NONE, x="", y="", **how
) -> Panels:
    """A panel for every pair of values of two columns.

    height: of a panel, inches. x, y: names of the axes. how: wrap, the panels beside each other,
    where there is one row; else as of `panels`.
    """
    (across, titles), (down, names) = columns, rows
    titles, names = (of if isinstance(of, Mapping) else dict(zip(of, of)) for of in (titles, names))
    wide = how.pop("wrap", len(titles))
    fig, axes = panels(-(-len(titles) // wide) * len(names), wide, height, **how)
    parts = []
    for (name, title), ax in zip(product(names, titles), axes.flat, strict=False):
        place = {column: value for column, value in ((across, title), (down, name)) if column}
        parts.append((ax, where(frame, **place)))
        if name == next(iter(names)):
            ax.set_title(label(titles[title], wide=52 // wide))
        if ax in axes[:, 0]:
            ax.set_ylabel(names[name] or y)
    for ax in axes.flat[len(parts) :]:
        ax.axis("off")
    fig.supxlabel(x)
    return fig, parts


def limits(values: pd.Series) -> tuple[float, float]:
    """Ends of an axis that shows every value; intervals of few parents may run beyond it."""
    there = usable(values)
    margin = 0.08 * (there.max() - there.min()) or 0.1
    return float(there.min() - margin), float(there.max() + margin)


def paths(
    ax: Axes, frame: pd.DataFrame, hue: str, looks: Looks, x: str = "step", y: str = "value"
) -> None:
    """A thin line a parent; thick their mean: the rows over parents, or else of the parents that
    were watched at every step. hue: the column that `looks` tells apart.
    """
    for value, (colour, marker, line) in looks.items():
        mine = where(frame, **{hue: value})
        each, mean = mine[mine["parent"] != MEAN], means(mine)
        for _, one in each.groupby("parent"):
            ax.plot(one[x], one[y], line, color=colour, lw=0.7, alpha=0.45)
        if mean.empty:
            watched = each.groupby("parent")[x].transform("nunique")
            mean = each[watched == watched.max()].groupby(x)[y].mean().reset_index()
        if len(mean):
            look = {"color": colour, "label": value, "lw": 1.4 if marker else 2}
            ax.plot(mean[x], mean[y], marker + line, **look)


def mark(
    ax: Axes, rows: pd.DataFrame, at: pd.Series, colour: str, marker: str, name=None, across=False
) -> None:
    """Means over parents with intervals, and every parent a small mark: down the y axis, or across
    the x axis, there the parents of a place side by side in their order. at: the rows' places.
    """
    each, mean, look = rows[rows["parent"] != MEAN], means(rows), {"color": colour, "ls": ""}
    there, values, small = at[each.index], each["value"], {"ms": 2, "alpha": 0.35, "mew": 0}
    if across:
        places = there.groupby(there)
        share = (places.cumcount() + 1) / (places.transform("size") + 1)
        there, small = there + 0.22 * (2 * share - 1), {"mfc": "none", "ms": 2.5, "mew": 0.6}
    turn = slice(None, None, 1 if across else -1)
    ax.plot(*(there, values)[turn], marker, **look, **small)
    ax.plot(*(at[mean.index], mean["value"])[turn], marker, label=name, **look)
    lines = ax.vlines if across else ax.hlines
    lines(at[mean.index], mean["low"], mean["high"], color=colour, lw=1.3)


def marked(
    frame: pd.DataFrame,
    height: float,
    at: tuple[str, Sequence],
    by: tuple[str, Marks],
    columns: Facet = NONE,
    *,
    across: bool = False,
    **how,
) -> Panels:
    """`facets` of marks, the values of `by` one beside the other.

    at: a column and its values, which stand down the y axis, or across the x axis.
    """
    (column, order), (hue, looks) = at, by
    fig, parts = facets(frame, height, columns, **how)
    for ax, rows in parts:
        for value, (shift, *look) in looks.items():
            mine = where(rows, **{hue: value})
            mark(ax, mine, mine[column].map(order.index) + shift, *look, value, across)
        if across:
            ax.set_xticks(range(len(order)), order, rotation=90)
            ax.set(xlim=(-0.5, len(order) - 0.5), ylim=(0, None))
        else:
            name_rows(ax, order)
    return fig, parts


# --- kinetics


def _along(
    frame: pd.DataFrame, height: float, hue: str, looks: Looks, *facet, floor=True, **how
) -> Figure:
    """`facets` of `paths` over the steps of a stage. floor: values begin at 0."""
    fig, parts = facets(frame, height, *facet, **how)
    for ax, mine in parts:
        paths(ax, mine, hue, looks)
        ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    for ax in fig.axes:  # last: limits end the search for limits on the axes that share them
        ax.set_xlim(0, None)
        if floor:
            ax.set_ylim(0, None)
    return fig


def plot_transition(frame: pd.DataFrame) -> Figure:
    """Liquidity and distance to the demonstrator's distribution along SFT."""
    titles = {
        "share": "liquidity, share of the base's",
        "to_distribution": "bits to the demonstrator's distribution",
    }
    frame = frame.melt(["parent", "step", "group"], list(titles), "what")
    fig = _along(frame, 2.4, "group", SHADES, ("what", titles), x="SFT step")
    fig.axes[0].axhline(0.5, color=GREY, lw=0.8, ls=":")
    return legend(fig)


def plot_half_lives(frame: pd.DataFrame) -> Figure:
    """A dot per parent, a bar at the mean; tasks in the order of their means."""
    tasks = list(frame.groupby("task")["half_life"].mean().sort_values().index)
    fig, ((ax,),) = panels(1, 1, 2.8)
    for group, (colour, *_) in SHADES.items():
        mine = where(frame, group=group)
        at, mean = mine["task"].map(tasks.index), mine.groupby("task")["half_life"].mean()
        ax.plot(at, mine["half_life"], "o", color=colour, alpha=0.6, label=group)
        at = mean.index.map(tasks.index)
        ax.hlines(mean, at - 0.3, at + 0.3, color=colour, lw=2.5)
    ax.set_xticks(range(len(tasks)), tasks, rotation=90)
    ax.set(ylim=(0, None), ylabel="SFT step at which half of\nthe liquidity is gone")
    return legend(fig)


def plot_fluctuations(frame: pd.DataFrame) -> Figure:
    """Variance of progress over personas, and over bases, along SFT."""
    titles = {"personas": "over personas", "parents": "over bases"}
    frame = frame.melt(["step", "group"], list(titles), "over").assign(parent=MEAN)
    looks = {group: (colour, "o", "-") for group, (colour, *_) in SHADES.items()}
    how = {"x": "SFT step", "y": "variance of progress"}
    return legend(_along(frame, 2.2, "group", looks, ("over", titles), **how))


def plot_rates(frame: pd.DataFrame) -> Figure:
    """Against steps, and against steps x rate: one curve where only their product counts."""
    names = {"slow": "lowest rate", "usual": "the ladders' rate", "fast": "highest rate"}
    looks = ((SKY, "", ":"), (BLUE, "", "-"), (GREY, "", "--"))
    looks = dict(zip(names.values(), looks, strict=True))
    titles = {"step": "by SFT step", "dose": "by step x learning rate"}
    frame = frame.assign(rate=frame["run"].map(names))
    frame = frame.melt(["parent", "rate", "share"], list(titles))
    share = "liquidity, share of the base's"
    fig, parts = facets(frame, 2.4, ("variable", titles), y=share, sharey=True)
    for (ax, mine), width in zip(parts, (1, 1e-4), strict=True):
        paths(ax, mine, "rate", looks, "value", "share")
        ax.set_xscale("symlog", linthresh=width, linscale=0.5)
        ax.set(xlim=(0, None), ylim=(0, None))
        ax.axhline(0.5, color=GREY, lw=0.8, ls=":")
    return legend(fig)


def plot_settling(frame: pd.DataFrame) -> Figure:
    """Mass on the seed's options along DPO (two judges) and RLVR; below, liquidity."""
    looks = {"dpo, favouring": (GREEN, "", "-"), "dpo, opposing": (RED, "", "--")}
    looks["rlvr"] = PURPLE, "", "-"
    names = {"probmass": "mass on the seed's options", "liquidity": "liquidity, bit"}
    frame = frame.melt(["parent", "step", "group", "run"], list(names), "what")
    how = {"x": "optimiser step of the stage", "sharex": True, "sharey": "row"}
    fig = _along(frame, 1.9, "run", looks, ("group", APART), ("what", names), floor=False, **how)
    fig.axes[0].set_ylim(top=1)
    fig.axes[2].set_ylim(bottom=0)
    return legend(fig)


# --- training runs


def plot_runs(runs: pd.DataFrame) -> Figure:
    """A panel a claim: each run's number over all tasks, or the sign of its verdict without one."""
    names, claims = list(runs["run"].unique()), dict.fromkeys(runs["claim"], "")
    fig, parts = facets(runs, 0.16 * len(names) + 0.6, ("claim", claims), wrap=3, sharey=True)
    for claim, (ax, mine) in zip(claims, parts, strict=True):
        threshold = THRESHOLDS[claim]
        ends = mine[["low", "high", "number"]].replace(np.inf, np.nan).to_numpy()
        values = [0.0, threshold.value, *ends[np.isfinite(ends)]]
        left, right = min(values), 1.08 * max(values)
        for row in mine.itertuples():
            y, colour = names.index(row.run), VERDICTS[row.verdict]
            ax.plot(np.clip([row.low, row.high], left, right), [y, y], color=colour)
            ax.plot(row.number, y, "o", color=colour)
            if np.isnan(row.number):
                ax.text(left, y, SIGNS[row.verdict], ha="left", va="center")
        claimed = (threshold.value, right) if threshold.side == "above" else (left, threshold.value)
        ax.axvspan(*claimed, color=VERDICTS["holds"], alpha=0.1, lw=0)
        ax.axvline(threshold.value, color=VERDICTS["undecided"], lw=1)
        ax.set(xlim=(left, right), title=claim)
        name_rows(ax, names)
    return fig


def plot_settled(settled: pd.DataFrame) -> Figure:
    """Tasks down; by family, mass on the seed's options and promoted from SFT's lower half."""
    families, tasks = list(settled["family"].unique()), list(settled["task"].unique())
    fig, axes = panels(1, 2 * len(families), 0.2 * len(tasks) + 1, sharey=True)
    at, lines = np.arange(len(tasks)), {"own": ("-", "the seed's own"), "chance": (":", "chance")}
    for (ax, beside), family in zip(axes.reshape(-1, 2), families, strict=True):
        mine = where(settled, family=family)
        for shift, (stage, part) in zip((-0.22, 0, 0.22), mine.groupby("stage", sort=False)):
            y, look = part["task"].map(tasks.index) + shift, {"color": COLOURS[stage], "ms": 2.5}
            ax.plot(part["probmass"], y, MARKERS[stage], label=stage, alpha=0.8, **look)
            if stage != "sft":
                beside.plot(part["promoted"], y, MARKERS[stage], alpha=0.8, **look)
        levels = mine.groupby("task", sort=False)[["own", "chance"]].mean()
        for what, (line, name) in lines.items():
            look = {"color": GREY, "lw": 1, "linestyle": line, "label": name}
            ax.vlines(levels[what], at - 0.4, at + 0.4, **look)
        ax.set(title=f"{family}\non the seed", xlim=(0, 1.05))
        beside.set_title("\npromoted")
    name_rows(axes[0, 0], tasks)
    fig.supxlabel("mass")
    return legend(fig)


# --- format


def plot_checkpoints(frame: pd.DataFrame) -> Figure:
    """Liquidity along the ladder, thin by ladder and form, thick the mean where all were read."""
    keys = ["group", "form", "checkpoint"]
    mean = frame[frame["common"]].groupby(keys)[["place", "liquidity"]].mean().reset_index()
    mean = mean.sort_values("place").assign(parent=MEAN)
    frame = pd.concat([frame.rename(columns={"ladder": "parent"}), mean])
    frame["form"] = frame["form"].map(FORM_NAMES)
    looks = dict(zip(FORM_NAMES.values(), ((BLUE, "o", "-"), (ORANGE, "s", "--")), strict=True))
    how = {"x": "checkpoint", "y": "liquidity, bits", "sharey": True}
    fig, parts = facets(frame, 2.4, ("group", TASKS), **how)
    for ax, mine in parts:
        paths(ax, mine, "form", looks, "place", "liquidity")
        ax.set_xticks(range(4), ["base", "sft", "dpo", "rlvr"])
        ax.set_ylim(0, None)
    return legend(fig)


def plot_moves(frame: pd.DataFrame) -> Figure:
    """Tasks down, demonstrated ones first: how far PARTS take the base's answer as raw text."""
    frame = frame.assign(part=frame["part"].map(PARTS), low=frame["low"].clip(lower=0))
    frame = frame.sort_values("group", kind="stable")
    shown = frame["group"] == DEMONSTRATED
    frame["task"] = frame["task"].where(~shown, frame["task"] + "*")
    tasks, looks = (
        list(frame["task"].unique()),
        ((-0.2, ORANGE, "s"), (0.2, BLUE, "o"), (0, GREEN, "^")),
    )
    by = "part", dict(zip(PARTS.values(), looks, strict=True))
    x = "total variation from the base as raw text"
    fig, ((ax, _),) = marked(means(frame), 0.2 * len(tasks) + 1.0, ("task", tasks), by, x=x)
    ax.axhline(frame.loc[shown, "task"].nunique() - 0.5, color=GREY, lw=0.8)
    ax.set_xlim(0, limits(frame["value"])[1])
    return legend(fig)


def plot_forest(frame: pd.DataFrame, threshold: float) -> Figure:
    """Ladders down, a panel per checkpoint; the claim's side of the threshold is shaded."""
    frame = frame.assign(parent=MEAN)
    frame["ladder"] = [label(title_of(name), wide=16) for name in frame["ladder"]]
    ladders, checkpoints = (list(frame[column].unique()) for column in ("ladder", "checkpoint"))
    looks = {DEMONSTRATED: (-0.2, BLUE, "o"), ALL: (0, "#000000", "s"), HELD_OUT: (0.2, RED, "D")}
    columns, right = ("checkpoint", checkpoints), max(1.05, float(frame["high"].max()) * 1.05)
    how = {"x": "liquidity over the base's, raw text", "sharex": True, "sharey": True}
    at, by, height = ("ladder", ladders), ("group", looks), 0.3 * len(ladders) + 1.0
    fig, parts = marked(frame, height, at, by, columns, **how)
    for ax, _ in parts:
        ax.axvline(threshold, color=GREY, lw=1)
        ax.axvspan(threshold, right, color=GREEN, alpha=0.1, lw=0)
        ax.set_xlim(0, right)
    return legend(fig)


# --- real checkpoints


def plot_answered(numbers: pd.DataFrame) -> Figure:
    """Tasks down, median answered mass across, a sign for each checkpoint and form."""
    fig, ((ax,),) = panels(1, 1, 3.2)
    tasks = list(numbers["task"].unique())
    for (colour, sign), (place, mine) in zip(SERIES, numbers.groupby("place", sort=False)):
        at = mine["task"].map(tasks.index)
        ax.plot(mine["answered"], at, sign, color=colour, label=place)
    ax.axvline(0.2, color=GREY, lw=1)
    name_rows(ax, tasks)
    ax.set(xlim=(0, 1), xlabel="median mass on an option")
    return legend(fig)


def plot_apart(numbers: pd.DataFrame) -> Figure:
    """A panel for each checkpoint and form: divergence between contexts and between wordings."""
    tasks, places = list(numbers["task"].unique()), list(numbers["place"].unique())
    looks = {"another context": (-0.15, BLUE, "o"), "another wording": (0.15, ORANGE, "s")}
    parts = []
    for kind, name in zip(("contexts_apart", "wordings_apart"), looks, strict=True):
        ends = {kind: "value", f"{kind}_low": "low", f"{kind}_high": "high"}
        found = numbers[["place", "task", *ends]].rename(columns=ends)
        parts.append(found.assign(kind=name, parent=MEAN))
    frame, height = pd.concat(parts, ignore_index=True), 1.6 * LINE * len(tasks) + 1.4
    how = {"x": "divergence, bits", "sharex": True, "sharey": True}
    fig, _ = marked(frame, height, ("task", tasks), ("kind", looks), ("place", places), **how)
    return legend(fig)


# --- a real base, post-trained


def plot_spread(tasks: pd.DataFrame) -> Figure:
    """Runs down, the spread that SFT leaves across: a dot a task, filled where it was shown."""
    runs = list(tasks["run"].unique())
    fig, ((ax,),) = panels(1, 1, 0.36 * len(runs) + 0.9)
    names = {False: "not shown", True: "choices shown"}
    for (run, filled), some in tasks[tasks["spread"].notna()].groupby(["run", "shown"]):
        shift = np.linspace(-0.22, 0.22, len(some)) if len(some) > 1 else 0
        look = {"mfc": COLOURS["sft"] if filled else "none", "mec": COLOURS["sft"], "ms": 4.5}
        at, sign, name = runs.index(run) + shift, "D" if filled else "o", names.pop(filled, None)
        ax.plot(some["spread"], at, sign, ls="", label=name, **look)
    ax.axvline(THRESHOLDS["collapse"].value, color=COLOURS["seed"], lw=1.5)
    ax.axvline(1, color=COLOURS["base"], lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_xticks([0.125, 0.25, 0.5, 1, 2, 4], ["1/8", "1/4", "1/2", "1", "2", "4"])
    ax.minorticks_off()
    name_rows(ax, runs)
    ax.set_xlabel("spread among contexts, SFT over base")
    return legend(fig)


def plot_steps(steps: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """A panel a run: liquidity of every task along SFT, and their mean with its interval."""
    runs, how = list(means["run"].unique()), {"x": "SFT steps", "y": "liquidity, bits"}
    fig, parts = facets(means, 2.4, ("run", runs), sharey=True, **how)
    for ax, mine in parts:
        order, at = list(mine["step"]), range(len(mine))
        bits = steps[steps["run"].isin(mine["run"])].pivot(
            index="step", columns="task", values="bits"
        )
        ax.plot(at, bits.loc[order], color=COLOURS["base"], lw=0.8, alpha=0.6)
        reach = np.abs([mine["value"] - mine["low"], mine["high"] - mine["value"]])
        look = {"color": COLOURS["sft"], "marker": "o", "capsize": 2}
        ax.errorbar(at, mine["value"], yerr=reach, **look)
        ax.set_xticks(at, ["base", *map(str, order[1:])], rotation=90)
    return fig
