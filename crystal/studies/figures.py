"""How figures of experiments are drawn: panels, paths, marks. Kinetics, format, real checkpoints.

Each draws a tidy frame of a module of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.claims import THRESHOLDS
from ..present import verdicts
from ..present.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    LINE,
    MARKERS,
    PURPLE,
    RED,
    legend,
    name_rows,
    panels,
)
from ..present.views import title_of
from ..texts import label
from .formats import FORM_NAMES
from .runs import ALL, APART, DEMONSTRATED, HELD_OUT, MEAN, means, usable, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"))
TASKS = {DEMONSTRATED: "demonstrated tasks", HELD_OUT: "held-out tasks"}
PARTS = {"form": "base in chat form", "text": "SFT as raw text", "whole": "SFT in chat form"}
ONE = ("", [""])  # a column and its values, of which a panel each: here there is one


class Panels:
    """A figure with a panel for every pair of values of two columns of a tidy frame."""

    def __init__(
        self, frame: pd.DataFrame, height: float, columns=ONE, rows=ONE, x="", y="", **how
    ) -> None:
        """height: of a panel, inches. columns, rows: a column and its values, or a mapping of these
        to titles. x, y: names of the axes. how: wrap, panels side by side; else as of `panels`.
        """
        (across, titles), (down, names) = columns, rows
        titles, names = _titled(titles), _titled(names)
        wide = how.pop("wrap", len(titles))
        self.figure, axes = panels(-(-len(titles) // wide) * len(names), wide, height, **how)
        self.figure.supxlabel(x)
        self.parts: list[tuple[Axes, pd.DataFrame]] = []  # with their rows of the frame
        free, top = iter(axes.flat), next(iter(names))
        for name, beside in names.items():
            for value, title in titles.items():
                ax, place = next(free), {across: value, down: name}
                place.pop("", None)
                self.parts.append((ax, where(frame, **place)))
                if name == top:
                    ax.set_title(label(title, wide=52 // wide))
                if ax.get_subplotspec().is_first_col():
                    ax.set_ylabel(beside or y)
        for ax in free:
            ax.axis("off")

    def paths(self, hue: str, values: Iterable[str], x="step", y="value") -> Panels:
        """A thin line a parent; thick their mean: the rows over parents, or else of the parents
        that were watched at every step. values: of the column `hue`, or a mapping of these to
        colour, marker and line.
        """
        for ax, rows in self.parts:
            for value, (colour, marker, line) in _looks(values).items():
                mine = where(rows, **{hue: value})
                each, mean = mine[mine["parent"] != MEAN], means(mine)
                for _, one in each.groupby("parent"):
                    ax.plot(one[x], one[y], line, color=colour, lw=0.7, alpha=0.45)
                if mean.empty:
                    watched = each.groupby("parent")[x].transform("nunique")
                    mean = each[watched == watched.max()].groupby(x)[y].mean().reset_index()
                if len(mean):
                    ax.plot(mean[x], mean[y], marker + line, color=colour, label=value, lw=1.4)
        return self

    def marks(self, at: str, order: Sequence, by: str, values: Iterable, across=False) -> Panels:
        """`mark` the rows at the place of their value of the column `at` in `order`, down or
        across; those of the values of `by` one beside the other.
        """
        looks = _looks(values)
        shifts = np.linspace(-0.18, 0.18, len(looks)) if len(looks) > 1 else [0]
        for ax, rows in self.parts:
            for shift, (value, (*look, _)) in zip(shifts, looks.items(), strict=True):
                mine = where(rows, **{by: value})
                places = mine[at].map(order.index).astype(float) + shift
                mark(ax, mine, places, *look, value, across)
            if across:
                ax.set_xticks(range(len(order)), order, rotation=90)
            else:
                name_rows(ax, order)
        return self.set(xlim=(-0.5, len(order) - 0.5), ylim=(0, None)) if across else self

    def steps(self, linthresh: float = 1, first: str = "") -> Panels:
        """Before anything is drawn: x is steps. first: names step 0, and every second is named."""
        for ax, rows in self.parts:
            ax.set_xscale("symlog", linthresh=linthresh, linscale=0.5)
            if first:
                _, *there = sorted(rows["step"].unique())[::2]
                ax.set_xticks([0, *there], [first, *map(str, there)], rotation=90)
                ax.minorticks_off()
        return self

    def line(self, y: float | None = None, x: float | None = None, **look) -> Panels:
        """A grey line through all panels."""
        for ax, _ in self.parts:
            draw, at = (ax.axhline, y) if x is None else (ax.axvline, x)
            draw(at, **{"color": GREY, "lw": 0.8} | look)
        return self

    def set(self, **how) -> Panels:
        """As of `Axes.set`. Limits come last: they end the search for limits on shared axes."""
        for ax, _ in self.parts:
            ax.set(**how)
        return self

    def drawn(self) -> Figure:
        """The figure with its legend."""
        return legend(self.figure)


def _titled(values: Iterable | Mapping) -> Mapping[str, str]:
    return values if isinstance(values, Mapping) else {value: value for value in values}


def _looks(values: Iterable[str]) -> Mapping[str, tuple[str, str, str]]:
    return values if isinstance(values, Mapping) else dict(zip(values, cycle(SERIES)))


def mark(
    ax: Axes, rows: pd.DataFrame, at: pd.Series, colour: str, marker: str, name: str, across=False
) -> None:
    """Means over parents with intervals, and every parent a small mark: down the y axis, or across
    the x axis, there the parents of a place side by side in their order. at: the rows' places.
    """
    each, mean = rows[rows["parent"] != MEAN], means(rows)
    there, values, small = at[each.index], each["value"], {"ms": 2, "alpha": 0.35, "mew": 0}
    if across:
        places = there.groupby(there)
        share = (places.cumcount() + 1) / (places.transform("size") + 1)
        there, small = there + 0.22 * (2 * share - 1), {"mfc": "none", "ms": 2.5, "mew": 0.6}
    for places, numbers, look in (
        (there, values, small),
        (at[mean.index], mean["value"], {"label": name}),
    ):
        x, y = (places, numbers) if across else (numbers, places)
        ax.plot(x, y, marker, color=colour, ls="", **look)
    lines = ax.vlines if across else ax.hlines
    lines(at[mean.index], mean["low"], mean["high"], color=colour, lw=1.3)


def limits(values: pd.Series) -> tuple[float, float]:
    """Ends of an axis that shows every value; intervals of few parents may run beyond it."""
    there = usable(values)
    margin = 0.08 * (there.max() - there.min()) or 0.1
    return float(there.min() - margin), float(there.max() + margin)


# --- kinetics


def plot_transition(frame: pd.DataFrame) -> Figure:
    """Liquidity and distance to the demonstrator's distribution along SFT."""
    far = "bits to the demonstrator's distribution"
    titles = {"share": "liquidity, share of the base's", "to_distribution": far}
    frame = frame.melt(["parent", "step", "group"], list(titles), "what")
    grid = Panels(frame, 2.4, ("what", titles), x="SFT step").steps().paths("group", APART)
    grid.parts[0][0].axhline(0.5, color=GREY, lw=0.8, ls=":")
    return grid.set(xlim=(0, None), ylim=(0, None)).drawn()


def plot_half_lives(frame: pd.DataFrame) -> Figure:
    """A dot per parent, a bar at the mean; tasks in the order of their means."""
    means = frame.groupby(["task", "group"])["half_life"].mean().sort_values().reset_index()
    tasks = list(means["task"])
    fig, ((ax,),) = panels(1, 1, 2.8)
    for group, (colour, *_) in zip(APART, SERIES):
        mine, mean = where(frame, group=group), where(means, group=group)
        at = mine["task"].map(tasks.index)
        ax.plot(at, mine["half_life"], "o", color=colour, alpha=0.6, label=group)
        ax.hlines(mean["half_life"], mean.index - 0.3, mean.index + 0.3, color=colour, lw=2.5)
    ax.set_xticks(range(len(tasks)), tasks, rotation=90)
    ax.set(ylim=(0, None), ylabel="SFT step at which half of\nthe liquidity is gone")
    return legend(fig)


def plot_fluctuations(frame: pd.DataFrame) -> Figure:
    """Variance of progress over personas, and over bases, along SFT."""
    titles = {"personas": "over personas", "parents": "over bases"}
    frame = frame.melt(["step", "group"], list(titles), "over").assign(parent=MEAN)
    grid = Panels(frame, 2.2, ("over", titles), x="SFT step", y="variance of progress")
    return grid.steps().paths("group", APART).set(xlim=(0, None), ylim=(0, None)).drawn()


def plot_rates(frame: pd.DataFrame) -> Figure:
    """Against steps, and against steps x rate: one curve where only their product counts."""
    names = {"slow": "lowest rate", "usual": "the ladders' rate", "fast": "highest rate"}
    titles = {"step": "by SFT step", "dose": "by step x learning rate"}
    frame = frame.assign(rate=frame["run"].map(names))
    frame = frame.melt(["parent", "rate", "share"], list(titles), "by")
    how = {"y": "liquidity, share of the base's", "sharey": True}
    grid = Panels(frame, 2.4, ("by", titles), **how)
    grid.steps().parts[1][0].set_xscale("symlog", linthresh=1e-4, linscale=0.5)
    grid.paths("rate", names.values(), "value", "share").line(y=0.5, ls=":")
    return grid.set(xlim=(0, None), ylim=(0, None)).drawn()


def plot_settling(frame: pd.DataFrame) -> Figure:
    """Mass on the seed's options along DPO (two judges) and RLVR; below, liquidity."""
    names = {"probmass": "mass on the seed's options", "liquidity": "liquidity, bit"}
    frame = frame.melt(["parent", "step", "group", "run"], list(names), "what")
    how = {"x": "optimiser step of the stage", "sharex": True, "sharey": "row"}
    grid = Panels(frame, 1.9, ("group", APART), ("what", names), **how)
    grid.steps().paths("run", sorted(frame["run"].unique())).set(xlim=(0, None))
    grid.figure.axes[0].set_ylim(top=1)
    grid.figure.axes[2].set_ylim(bottom=0)
    return grid.drawn()


# --- training runs


def plot_runs(runs: pd.DataFrame) -> Figure:
    """A panel a claim: each run's number over all tasks, or the sign of its verdict without one."""
    names, claims = list(runs["run"].unique()), dict.fromkeys(runs["claim"], "")
    height = 0.16 * len(names) + 0.6
    grid = Panels(runs, height, ("claim", claims), wrap=3, sharey=True)
    for claim, (ax, mine) in zip(claims, grid.parts, strict=True):
        value, above = THRESHOLDS[claim].value, THRESHOLDS[claim].side == "above"
        ends = mine[["low", "high", "number"]].replace(np.inf, np.nan).to_numpy()
        values = [0.0, value, *ends[np.isfinite(ends)]]
        left, right = min(values), 1.08 * max(values)
        for row in mine.itertuples():
            y, colour = names.index(row.run), verdicts.COLOURS[row.verdict]
            ax.plot(np.clip([row.low, row.high], left, right), [y, y], color=colour)
            ax.plot(row.number, y, "o", color=colour)
            if np.isnan(row.number):
                ax.text(left, y, verdicts.SIGNS[row.verdict], ha="left", va="center")
        claimed = (value, right) if above else (left, value)
        ax.axvspan(*claimed, color=verdicts.COLOURS["holds"], alpha=0.1, lw=0)
        ax.axvline(value, color=verdicts.COLOURS["undecided"], lw=1)
        ax.set(xlim=(left, right), title=claim)
        name_rows(ax, names)
    return grid.figure


def plot_settled(settled: pd.DataFrame) -> Figure:
    """Tasks down; by family, mass on the seed's options and promoted from SFT's lower half."""
    families, tasks = list(settled["family"].unique()), list(settled["task"].unique())
    fig, axes = panels(1, 2 * len(families), 0.2 * len(tasks) + 1, sharey=True)
    for (ax, beside), family in zip(axes.reshape(-1, 2), families, strict=True):
        mine = where(settled, family=family)
        for shift, (stage, part) in zip((-0.22, 0, 0.22), mine.groupby("stage", sort=False)):
            y = part["task"].map(tasks.index) + shift
            look = {"color": COLOURS[stage], "ms": 2.5, "alpha": 0.8}
            ax.plot(part["probmass"], y, MARKERS[stage], label=stage, **look)
            if stage != "sft":
                beside.plot(part["promoted"], y, MARKERS[stage], **look)
        levels, at = mine.groupby("task", sort=False)[["own", "chance"]].mean(), range(len(tasks))
        for what, line, name in (("own", "-", "the seed's own"), ("chance", ":", "chance")):
            ends = np.add(at, -0.4), np.add(at, 0.4)
            ax.vlines(levels[what], *ends, color=GREY, lw=1, linestyle=line, label=name)
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
    how = {"x": "checkpoint", "y": "liquidity, bits", "sharey": True}
    grid = Panels(frame, 2.4, ("group", TASKS), **how)
    grid.paths("form", FORM_NAMES.values(), "place", "liquidity")
    stages = {"xticks": range(4), "xticklabels": ["base", "sft", "dpo", "rlvr"]}
    return grid.set(**stages, ylim=(0, None)).drawn()


def plot_moves(frame: pd.DataFrame) -> Figure:
    """Tasks down, demonstrated ones first: how far PARTS take the base's answer as raw text."""
    frame = frame.assign(part=frame["part"].map(PARTS), low=frame["low"].clip(lower=0))
    frame = frame.sort_values("group", kind="stable")
    shown = frame["group"] == DEMONSTRATED
    frame["task"] = frame["task"].where(~shown, frame["task"] + "*")
    tasks, x = list(frame["task"].unique()), "total variation from the base as raw text"
    grid = Panels(means(frame), 0.2 * len(tasks) + 1.0, x=x)
    grid.marks("task", tasks, "part", PARTS.values())
    grid.line(y=frame.loc[shown, "task"].nunique() - 0.5)
    return grid.set(xlim=(0, limits(frame["value"])[1])).drawn()


def plot_forest(frame: pd.DataFrame, threshold: float) -> Figure:
    """Ladders down, a panel per checkpoint; the claim's side of the threshold is shaded."""
    frame = frame.assign(parent=MEAN)
    frame["ladder"] = [label(title_of(name), wide=16) for name in frame["ladder"]]
    ladders, right = list(frame["ladder"].unique()), max(1.05, float(frame["high"].max()) * 1.05)
    columns = "checkpoint", list(frame["checkpoint"].unique())
    how = {"x": "liquidity over the base's, raw text", "sharex": True, "sharey": True}
    grid = Panels(frame, 0.3 * len(ladders) + 1.0, columns, **how)
    looks = {DEMONSTRATED: SERIES[0], ALL: (INK, "D", ""), HELD_OUT: SERIES[1]}
    grid.marks("ladder", ladders, "group", looks).line(x=threshold, lw=1)
    for ax, _ in grid.parts:
        ax.axvspan(threshold, right, color=GREEN, alpha=0.1, lw=0)
    return grid.set(xlim=(0, right)).drawn()


# --- real checkpoints


def plot_answered(numbers: pd.DataFrame) -> Figure:
    """Tasks down, median answered mass across, a sign for each checkpoint and form."""
    tasks, places = (list(numbers[column].unique()) for column in ("task", "place"))
    frame = numbers.assign(value=numbers["answered"], low=np.nan, high=np.nan, parent=MEAN)
    grid = Panels(frame, 3.2, x="median mass on an option")
    return grid.marks("task", tasks, "place", places).line(x=0.2).set(xlim=(0, 1)).drawn()


def plot_apart(numbers: pd.DataFrame) -> Figure:
    """A panel for each checkpoint and form: divergence between contexts and between wordings."""
    tasks, places = (list(numbers[column].unique()) for column in ("task", "place"))
    kinds, parts = {"contexts": "another context", "wordings": "another wording"}, []
    for kind, name in kinds.items():
        ends = {f"{kind}_apart": "value", f"{kind}_apart_low": "low", f"{kind}_apart_high": "high"}
        found = numbers[["place", "task", *ends]].rename(columns=ends)
        parts.append(found.assign(kind=name, parent=MEAN))
    frame, height = pd.concat(parts, ignore_index=True), 1.6 * LINE * len(tasks) + 1.4
    how = {"x": "divergence, bits", "sharex": True, "sharey": True}
    grid = Panels(frame, height, ("place", places), **how)
    return grid.marks("task", tasks, "kind", kinds.values()).drawn()


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
    grid = Panels(means, 2.4, ("run", runs), sharey=True, **how)
    for run, (ax, mine) in zip(runs, grid.parts, strict=True):
        order, at = list(mine["step"]), range(len(mine))
        bits = where(steps, run=run).pivot(index="step", columns="task", values="bits").loc[order]
        ax.plot(at, bits, color=COLOURS["base"], lw=0.8, alpha=0.6)
        reach = np.abs([mine["value"] - mine["low"], mine["high"] - mine["value"]])
        look = {"color": COLOURS["sft"], "marker": "o", "capsize": 2}
        ax.errorbar(at, mine["value"], yerr=reach, **look)
        ax.set_xticks(at, ["base", *map(str, order[1:])], rotation=90)
    return grid.figure
