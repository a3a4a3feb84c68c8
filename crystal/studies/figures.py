"""How figures of experiments are drawn: panels, paths, dots. Kinetics, format, real checkpoints.

Each draws a tidy frame of a module of numbers. Colours: Okabe-Ito.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.claims import THRESHOLDS
from ..present.figures import COLOURS, LINE, MARKERS, legend, panels
from ..present.verdicts import COLOURS as VERDICTS
from ..present.verdicts import SIGNS
from ..present.views import title_of
from ..texts import label
from .formats import FORM_NAMES, places
from .runs import ALL, APART, DEMONSTRATED, HELD_OUT, MEAN, means, usable, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY, GREEN = "#0072B2", "#D55E00", "#767c85", "#009E73"
AMBER, SKY, PINK = "#E69F00", "#56B4E9", "#CC79A7"
FAR = "bits to the demonstrator's distribution"
SHADES = {DEMONSTRATED: (AMBER, "", "-"), HELD_OUT: (BLUE, "", "-")}
SERIES = tuple(zip((BLUE, AMBER, GREEN, PINK), "os^D", strict=True))
TASKS = dict(zip(APART, ("demonstrated tasks", "held-out tasks"), strict=True))
PARTS = {
    "form": ("base in chat form", -0.2, AMBER, "s"),
    "whole": ("SFT in chat form", 0.2, BLUE, "o"),
    "text": ("SFT as raw text", 0, GREEN, "^"),
}
Looks = Mapping[str, tuple[str, str, str]]  # value -> colour, marker, line
Facet = tuple[str, Sequence[str] | Mapping[str, str]]  # a column, its values and how to name them


def facets(
    frame: pd.DataFrame, height: float, columns: Facet, rows: Facet = ("", [""]), x="", y="", **how
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A panel for every pair of values of two columns: the figure, and axes with their rows.

    height: of a panel, inches. x, y: names of the axes.
    """
    (down, names), (across, titles) = rows, columns
    names, titles = (of if isinstance(of, Mapping) else dict(zip(of, of)) for of in (names, titles))
    fig, axes = panels(len(names), len(titles), height, **how)
    parts = []
    for row, (name, left) in zip(axes, names.items(), strict=True):
        row[0].set_ylabel(left or y)
        for ax, title in zip(row, titles, strict=True):
            parts.append((ax, where(frame, **{across: title}, **({down: name} if down else {}))))
    for column, title in zip(axes.T, titles.values(), strict=True):
        column[0].set_title(label(title, wide=52 // len(titles)))
    fig.supxlabel(x)
    return fig, parts


def limits(values: pd.Series) -> tuple[float, float]:
    """Ends of an axis that shows every value; intervals of few parents may run beyond it."""
    there = usable(values)
    margin = 0.08 * (there.max() - there.min()) or 0.1
    return float(there.min() - margin), float(there.max() + margin)


def rows_down(ax: Axes, names: Sequence[str]) -> None:
    """Names down the y axis, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


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


def dots(
    ax: Axes, rows: pd.DataFrame, at: pd.Series, look: tuple[str, str], name: str | None = None
) -> None:
    """Means over parents with intervals down the y axis, every parent a faint small mark.

    at: the rows' places; look: colour and marker.
    """
    each, mean = rows[rows["parent"] != MEAN], means(rows)
    small = {"ms": 2, "alpha": 0.35, "mew": 0}
    ax.plot(each["value"], at[each.index], look[1], color=look[0], **small)
    ax.plot(mean["value"], at[mean.index], look[1], color=look[0], label=name)
    ax.hlines(at[mean.index], mean["low"], mean["high"], color=look[0], lw=1.3)


def spots(
    ax: Axes, rows: pd.DataFrame, at: pd.Series, look: tuple[str, str], name: str | None = None
) -> None:
    """As `dots`, along the x axis, the parents of a place side by side in their order."""
    each, mean = rows[rows["parent"] != MEAN], means(rows)
    places = at[each.index].groupby(at[each.index])
    share = (places.cumcount() + 1) / (places.transform("size") + 1)
    beside, small = 0.22 * (2 * share - 1), {"mfc": "none", "ms": 2.5, "mew": 0.6, "ls": ""}
    ax.plot(at[each.index] + beside, each["value"], look[1], color=look[0], **small)
    ax.plot(at[mean.index], mean["value"], look[1], ls="", color=look[0], label=name)
    ax.vlines(at[mean.index], mean["low"], mean["high"], color=look[0], lw=1.3)


def shifted(ax: Axes, frame: pd.DataFrame, at: str, order: Sequence, by: str, looks, draw) -> None:
    """`draw` the rows of every value of `by`, one beside the other.

    at: the column whose values stand in `order`; looks: (value, shift, colour, marker) each.
    """
    for value, shift, *look in looks:
        mine = where(frame, **{by: value})
        draw(ax, mine, mine[at].map(order.index) + shift, look, value)


# --- kinetics


def _along(frame: pd.DataFrame, height: float, hue: str, looks: Looks, *facet, **how) -> Figure:
    """`facets` of `paths` over the steps of a stage."""
    fig, parts = facets(frame, height, *facet, **how)
    for ax, mine in parts:
        paths(ax, mine, hue, looks)
        ax.set_xscale("symlog", linthresh=1, linscale=0.5)
        ax.set_xlim(0, None)
    return fig


def plot_transition(frame: pd.DataFrame) -> Figure:
    """Liquidity and distance to the demonstrator's distribution along SFT."""
    titles = {"share": "liquidity, share of the base's", "to_distribution": FAR}
    frame = frame.melt(["parent", "step", "group"], list(titles), "what")
    fig = _along(frame, 2.4, "group", SHADES, ("what", titles), x="SFT step")
    for ax in fig.axes:
        ax.set_ylim(0, None)
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
    fig = _along(frame, 2.2, "group", looks, ("over", titles), **how)
    for ax in fig.axes:
        ax.set_ylim(0, None)
    return legend(fig)


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
    looks["rlvr"] = PINK, "", "-"
    names = {"probmass": "mass on the seed's options", "liquidity": "liquidity, bit"}
    frame = frame.melt(["parent", "step", "group", "run"], list(names), "what")
    how = {"x": "optimiser step of the stage", "sharex": True, "sharey": "row"}
    fig = _along(frame, 1.9, "run", looks, ("group", APART), ("what", names), **how)
    fig.axes[0].set_ylim(top=1)  # last: it ends the search for limits on the axes it shares
    fig.axes[2].set_ylim(bottom=0)
    return legend(fig)


# --- training runs


def plot_runs(runs: pd.DataFrame) -> Figure:
    """A panel a claim: each run's number over all tasks, or the sign of its verdict without one."""
    names, claims = list(runs["run"].unique()), runs.groupby("claim", sort=False)
    fig, axes = panels(-(-len(claims) // 3), 3, 0.16 * len(names) + 0.6, sharey=True)
    for ax in axes.flat[len(claims) :]:
        ax.set_visible(False)
    for ax, (claim, mine) in zip(axes.flat, claims, strict=False):
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
        rows_down(ax, names)
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
    rows_down(axes[0, 0], tasks)
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
    looks = dict(zip(FORM_NAMES.values(), ((BLUE, "o", "-"), (AMBER, "s", "--")), strict=True))
    how = {"x": "checkpoint", "y": "liquidity, bits", "sharey": True}
    fig, parts = facets(frame, 2.4, ("group", TASKS), **how)
    for ax, mine in parts:
        paths(ax, mine, "form", looks, "place", "liquidity")
        ax.set_xticks(range(4), ["base", "sft", "dpo", "rlvr"])
        ax.set_ylim(0, None)
    return legend(fig)


def plot_moves(frame: pd.DataFrame) -> Figure:
    """Tasks down, demonstrated ones first: how far PARTS take the base's answer as raw text."""
    order = frame.drop_duplicates(["group", "task"]).sort_values("group", kind="stable")
    tasks, shown = list(order["task"]), (order["group"] == DEMONSTRATED).sum()
    fig, ((ax,),) = panels(1, 1, 0.2 * len(tasks) + 1.0)
    for part, (name, shift, *look) in PARTS.items():
        mine = means(frame, part=part)
        mine["low"] = mine["low"].clip(lower=0)
        dots(ax, mine, mine["task"].map(tasks.index) + shift, look, name)
    ax.axhline(shown - 0.5, color=GREY, lw=0.8)
    rows_down(ax, [f"{task}*" for task in tasks[:shown]] + tasks[shown:])
    ax.set_xlim(0, limits(frame["value"])[1])
    ax.set_xlabel("total variation from the base as raw text")
    return legend(fig)


def plot_forest(frame: pd.DataFrame, threshold: float) -> Figure:
    """Ladders down, a panel per checkpoint; the claim's side of the threshold is shaded."""
    ladders, checkpoints = (list(frame[column].unique()) for column in ("ladder", "checkpoint"))
    looks = ((DEMONSTRATED, -0.2, BLUE, "o"), (ALL, 0, "#000000", "s"), (HELD_OUT, 0.2, RED, "D"))
    frame, right = frame.assign(parent=MEAN), max(1.05, float(frame["high"].max()) * 1.05)
    how = {"x": "liquidity over the base's, raw text", "sharex": True, "sharey": True}
    fig, parts = facets(frame, 0.3 * len(ladders) + 1.0, ("checkpoint", checkpoints), **how)
    for ax, mine in parts:
        shifted(ax, mine, "ladder", ladders, "group", looks, dots)
        ax.axvline(threshold, color=GREY, lw=1)
        ax.axvspan(threshold, right, color=GREEN, alpha=0.1, lw=0)
        rows_down(ax, [label(title_of(name), wide=16) for name in ladders])
        ax.set_xlim(0, right)
    return legend(fig)


# --- real checkpoints


def plot_answered(numbers: pd.DataFrame) -> Figure:
    """Tasks down, median answered mass across, a sign for each checkpoint and form."""
    fig, ((ax,),) = panels(1, 1, 3.2)
    tasks = list(numbers["task"].unique())
    for (colour, sign), (place, mine) in zip(SERIES, places(numbers)):
        at = mine["task"].map(tasks.index)
        ax.plot(mine["answered"], at, sign, color=colour, label=place)
    ax.axvline(0.2, color=GREY, lw=1)
    rows_down(ax, tasks)
    ax.set(xlim=(0, 1), xlabel="median mass on an option")
    return legend(fig)


def plot_apart(numbers: pd.DataFrame) -> Figure:
    """A panel for each checkpoint and form: divergence between contexts and between wordings."""
    parts, tasks = list(places(numbers)), list(numbers["task"].unique())
    fig, axes = panels(1, len(parts), 1.6 * LINE * len(tasks) + 1.4, sharey=True, sharex=True)
    kinds = (("contexts", "another context", -0.15), ("wordings", "another wording", 0.15))
    for ax, (place, mine) in zip(axes[0], parts, strict=True):
        at = mine["task"].map(tasks.index)
        for look, (kind, name, shift) in zip(SERIES, kinds):
            columns = {
                f"{kind}_apart{end}": of
                for end, of in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            dots(ax, mine.rename(columns=columns).assign(parent=MEAN), at + shift, look, name)
        rows_down(ax, tasks)
        ax.set_title(label(place, wide=16))
    fig.supxlabel("divergence, bits")
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
    rows_down(ax, runs)
    ax.set_xlabel("spread among contexts, SFT over base")
    return legend(fig)


def plot_steps(steps: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """A panel a run: liquidity of every task along SFT, and their mean with its interval."""
    runs = list(means["run"].unique())
    fig, axes = panels(1, len(runs), 2.4, sharey=True)
    for ax, run in zip(axes[0], runs, strict=True):
        mine = where(means, run=run)
        order, at = list(mine["step"]), range(len(mine))
        bits = where(steps, run=run).pivot(index="step", columns="task", values="bits").loc[order]
        ax.plot(at, bits, color=COLOURS["base"], lw=0.8, alpha=0.6)
        reach = np.abs([mine["value"] - mine["low"], mine["high"] - mine["value"]])
        look = {"color": COLOURS["sft"], "marker": "o", "capsize": 2}
        ax.errorbar(at, mine["value"], yerr=reach, **look)
        ax.set_xticks(at, ["base", *map(str, order[1:])], rotation=90)
        ax.set_title(run)
    axes[0, 0].set_ylabel("liquidity, bits")
    fig.supxlabel("SFT steps")
    return fig
