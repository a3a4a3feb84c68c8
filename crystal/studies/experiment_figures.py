"""Figures of seed control and remelting: each draws a tidy frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import STAGES
from ..ask.prompts import CHAT
from ..measure.claims import THRESHOLDS
from ..present.figures import LINE, legend, panels
from ..present.verdicts import grid
from ..texts import label
from . import seed_control as seed
from .controls import WORLD
from .figures import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    PINK,
    RED,
    SKY,
    TASKS,
    dots,
    facets,
    limits,
    paths,
    rows_down,
    shifted,
    spots,
)
from .kinetics import BACK, DOWN
from .remelting import ASKING, CRYSTAL, JUDGED, METHODS, REFERENCE, TRAINING, names
from .runs import APART, SCOPES, by_group, means, tidy, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = {"vmin": 0, "vmax": 1, "cmap": "cividis"}
BY_SCOPE = "scope", {scope: f"{scope} tasks" for scope in SCOPES}
LOOKS = ((SCOPES[0], -0.17, BLUE, "o"), (SCOPES[1], 0.17, RED, "s"))
STYLES = {seed.STYLED: (BLUE, "o", "-"), seed.NEUTRAL: (RED, "s", "--")}
WORLDS = dict(zip(WORLD, zip((BLUE, RED, GREEN, PINK), "os^D", "----"), strict=True))
GROUPS = dict(zip(APART, ((BLUE, "o", "-"), (RED, "D", "-")), strict=True))
QUANTITIES = JUDGED | {
    "entropy": "entropy, bits",
    "probmass": "on the seed's options",
    "kept": "facts right",
}
GOALS = {
    "to_distribution": ("demonstrator's distribution", -0.2, AMBER, "^"),
    "to_uniform": ("uniform distribution", 0, SKY, "s"),
    "to_mean": ("base's mean answer", 0.2, GREEN, "o"),
}
HEATED = {
    "entropy": "entropy of an answer, bits",
    "liquidity": "liquidity, bits",
    "invalid": "invalid-answer mass",
    "residual": "residual mass",
}


# --- seed control


def plot_matrix(matrix: pd.DataFrame) -> Figure:
    """Intended distributions down, found ones across, a panel per scope; shares in per cent."""
    fig, parts = facets(matrix, 2.1, BY_SCOPE, x="distribution found", sharey=True)
    for ax, mine in parts:
        mine = mine.pivot(index="intended", columns="found", values="share")
        mine = mine.reindex(index=seed.TEMPERAMENTS, columns=seed.TEMPERAMENTS)
        grid(ax, mine, mine.map(lambda share: f"{100 * share:.0f}"), **SHARES)
    fig.supylabel("demonstrator")
    return fig


def plot_tasks(cells: pd.DataFrame) -> Figure:
    """In how many parents a task followed a demonstrator; a line parts demonstrated tasks."""
    tasks = list(dict.fromkeys(cells["task"]))
    fig, ((ax,),) = panels(1, 1, 0.19 * len(tasks) + 0.8)
    text = [f"{s * n:.0f} of {n:.0f}" for s, n in zip(cells["share"], cells["parents"])]
    table = cells.assign(text=text).pivot(index="task", columns="demonstrator").loc[tasks]
    share, texts = (table[what].reindex(columns=seed.TEMPERAMENTS) for what in ("share", "text"))
    grid(ax, share, texts, **SHARES)
    ax.axhline(where(cells, scope=SCOPES[0])["task"].nunique(), color=RED, lw=2)
    ax.set(xlabel="demonstrator", ylabel="demonstrated above, held out below")
    return fig


def _across(ax: Axes, labels: Sequence[str]) -> None:
    """Names along the x axis."""
    ax.set_xticks(range(len(labels)), labels, rotation=90)
    ax.set(xlim=(-0.5, len(labels) - 0.5), ylim=(0, None))


def plot_rates(rates: pd.DataFrame) -> Figure:
    """Demonstrators across, a panel per scope; chance a grey bar, the claim's threshold a line."""
    names = [run for run in (*seed.TEMPERAMENTS, seed.TOGETHER) if run in set(rates["run"])]
    fig, parts = facets(rates, 2.4, BY_SCOPE, y="follow rate", sharey=True)
    for ax, mine in parts:
        at = mine["run"].map(names.index)
        for whole, look in (False, (BLUE, "o")), (True, (RED, "D")):
            spots(ax, mine[(mine["run"] == seed.TOGETHER) == whole], at, look)
        ax.plot(at, mine["chance"], "_", color=GREY, ms=12, mew=2, label="chance")
        threshold = THRESHOLDS["seed-follows"].value
        ax.axhline(threshold, color=GREY, lw=0.8, ls="--", label="threshold of the claim")
        _across(ax, names)
        ax.set_ylim(0, 1.05)
    return legend(fig)


def plot_mixed(tidied: pd.DataFrame) -> Figure:
    """Demonstrators across, demonstrated and held-out tasks side by side; grey: before SFT."""
    runs = [run for run in seed.MIXED if run in set(tidied["run"])]
    fig, parts = facets(tidied, 2.7, ("quantity", (seed.KEPT, seed.FAR)))
    for ax, mine in parts:
        shifted(ax, mine, "run", runs, "scope", LOOKS, spots)
        for scope, side, *_ in LOOKS if ax is not fig.axes[0] else ():
            start = means(tidied, quantity=seed.NEAR, scope=scope)
            at = start["run"].map(runs.index) + side
            ax.plot(at, start["value"], "_", color=GREY, ms=10, mew=2)
        _across(ax, runs)
    fig.axes[0].axhline(1, color=GREY, lw=0.8, ls="--")
    return legend(fig)


def plot_distances(distances: pd.DataFrame) -> Figure:
    """Distance to the mixture and to each of its parts, before (grey) and after SFT, by scope."""
    names = list(dict.fromkeys(distances["distribution"]))
    looks = (("before SFT", -0.12, GREY, "D"), ("after SFT", 0.12, BLUE, "o"))
    fig, parts = facets(distances, 2.4, BY_SCOPE, y="JSD to the distribution, bits", sharey=True)
    for ax, mine in parts:
        shifted(ax, mine, "distribution", names, "quantity", looks, spots)
        _across(ax, names)
    return legend(fig)


def plot_doses(tidied: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per style. Doses stand at equal distances."""
    rows = "quantity", list(tidied["quantity"].unique())
    how = {"x": "random choices among SFT's answers, %", "sharex": True, "sharey": "row"}
    fig, parts = facets(tidied, 1.9, BY_SCOPE, rows, **how)
    for ax, mine in parts:
        for side, (style, (colour, marker, line)) in zip((-0.17, 0.17), STYLES.items()):
            some = where(mine, style=style)
            at, mean = some["dose"].map(seed.DOSES.index) + side, means(some)
            spots(ax, some, at, (colour, marker), style)
            ax.plot(at[mean.index], mean["value"], line, color=colour, lw=1.2)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xticks(range(len(seed.DOSES)), seed.DOSES)
    return legend(fig)


def plot_controls(frame: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per world over SFT steps; 0 is the base."""
    rows, steps = ("quantity", list(frame["quantity"].unique())), sorted(frame["step"].unique())
    how = {"x": "SFT steps", "sharex": True, "sharey": "row"}
    fig, parts = facets(frame.assign(parent="mean"), 1.9, BY_SCOPE, rows, **how)
    for ax, mine in parts:
        paths(ax, mine, "run", WORLDS)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks(steps[::2], [str(step or "base") for step in steps[::2]], rotation=90)
        ax.minorticks_off()
    return legend(fig)


# --- remelting


def _each(frame: pd.DataFrame, keys: Sequence[str], quantities: Iterable[str]) -> pd.DataFrame:
    """`runs.intervals` of every quantity, demonstrated and held-out tasks apart."""
    return tidy(frame[frame["group"].isin(APART)], keys, list(quantities))


def load_overview(ends: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs.intervals` per method, group and quantity; what base and crystal have of it.

    ends: of `remelting.load_kept` at the end of every run; methods: of `load_methods`.
    """
    found = _each(where(ends, against=CHAT), ["method", "group"], QUANTITIES)
    references = by_group(where(methods, kind=REFERENCE), ["method"], ["entropy", "probmass"])
    marks = references.set_index(["method", "group"])
    for end, *known in (("base", 1.0, 0.0, np.nan), ("crystal", 0.0, 1.0, 1.0)):
        fixed = dict(zip(("regained", "distance", "kept"), known, strict=True))
        found[end] = [
            fixed[what] if what in fixed else marks.loc[(end, group), what]
            for what, group in zip(found["quantity"], found["group"], strict=True)
        ]
    return found


def plot_overview(frame: pd.DataFrame) -> Figure:
    """Methods down, a panel per quantity; base dotted, crystal dashed."""
    ways = names(frame)
    fig, axes = panels(2, 3, 1.6 * LINE * len(ways) + 0.5, sharey=True)
    axes.flat[-1].axis("off")
    for ax, (quantity, title) in zip(axes.flat, QUANTITIES.items()):
        mine = where(frame, quantity=quantity)
        ax.set_title(label(title, wide=16))
        apart = quantity in ("entropy", "probmass")
        for (group, (colour, marker, _)), shift in zip(GROUPS.items(), (-0.16, 0.16)):
            part = where(mine, group=group)
            at, kept = part["method"].map(ways.index), quantity == "kept"
            look = (GREY, "s") if kept else (colour, marker)
            dots(ax, part, at if kept else at + shift, look, group)
            if apart or group == APART[0]:
                for end, style in (("base", ":"), ("crystal", "--")):
                    line = {"color": colour} if apart else {"color": GREY, "label": end}
                    ax.axvline(part[end].mean(), ls=style, lw=1, **line)
        rows_down(ax, ways)
        ax.set_xlim(limits(pd.concat([mine["value"], mine["base"], mine["crystal"]])))
    return legend(fig)


def load_goals(ends: pd.DataFrame) -> pd.DataFrame:
    """One row per method, group and goal: JSD in bits of the mean answer to it, over parents."""
    found = _each(where(ends, against=CHAT), ["method", "group"], GOALS)
    return found.assign(goal=[GOALS[value][0] for value in found.pop("quantity")])


def plot_goals(frame: pd.DataFrame) -> Figure:
    """Methods down: how far the mean answer lies from three distributions."""
    ways, x = names(frame), "JSD of the mean answer to it, bits"
    how = {"x": x, "sharey": True, "sharex": True}
    fig, parts = facets(frame, 0.26 * len(ways) + 1.0, ("group", TASKS), **how)
    for ax, mine in parts:
        shifted(ax, mine, "method", ways, "goal", GOALS.values(), dots)
        rows_down(ax, ways)
        ax.set_xlim(0, limits(frame["value"])[1])
    return legend(fig)


def load_temperatures(methods: pd.DataFrame) -> pd.DataFrame:
    """One row per start (base, rlvr), temperature, group and quantity, chat form; over parents."""
    heat = {way.name: way.temperature for way in METHODS if (way.kind, way.form) == (ASKING, CHAT)}
    rows = methods.assign(temperature=methods["method"].map(heat | {"base": 1.0, "crystal": 1.0}))
    rows, quantities = rows.dropna(subset="temperature"), list(HEATED)
    means = by_group(rows, ["parent", "start", "temperature"], quantities)
    found = _each(means, ["start", "temperature", "group"], quantities)
    return found.sort_values(["quantity", "start", "group", "temperature"], ignore_index=True)


def plot_temperatures(frame: pd.DataFrame) -> Figure:
    """Over temperature; crystal drawn through, base dashed."""
    start = frame["start"].where(frame["start"] != CRYSTAL, "crystal")
    frame = frame.assign(who=start + ", " + frame["group"])
    looks = {
        f"{start}, {group}": (colour, marker, line)
        for start, line in (("base", "--"), ("crystal", "-"))
        for group, (colour, marker, _) in GROUPS.items()
    }
    fig, axes = panels(2, 2, 1.8)
    for ax, (quantity, title) in zip(axes.flat, HEATED.items(), strict=True):
        paths(ax, where(frame, quantity=quantity), "who", looks, "temperature")
        ax.set_title(title)
        ax.axvline(1, color=GREY, lw=0.8, ls=":")
        ax.set_ylim(0, None)
    fig.supxlabel("temperature")
    return legend(fig)


def load_steps(shares: pd.DataFrame) -> pd.DataFrame:
    """One row per training method, step, group and quantity of JUDGED; step 0 is the crystal."""
    mine = where(shares, kind=TRAINING)
    start = mine.drop_duplicates(["parent", "method", "group"])
    both = pd.concat([start.assign(step=0, regained=0.0, distance=1.0), mine])
    found = _each(both, ["method", "step", "group"], JUDGED)
    return found.sort_values(["method", "quantity", "group", "step"], ignore_index=True)


def plot_steps(frame: pd.DataFrame) -> Figure:
    """A column per method: liquidity regained above, distance to the base below, over steps."""
    ways = ("method", names(frame))
    how = {"x": "optimiser steps", "sharey": "row", "sharex": "col"}
    fig, parts = facets(frame, 1.7, ways, ("quantity", JUDGED), **how)
    for at, (ax, mine) in enumerate(parts):
        paths(ax, mine, "group", GROUPS)
        base = float(at < len(ways[1]))  # regained is 1 there, the distance 0
        ax.axhline(base, color=GREY, ls=":", lw=1, label="base")
        ax.axhline(1 - base, color=GREY, ls="--", lw=1, label="crystal")
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks(steps := sorted(mine["step"].unique())[::2], map(str, steps), rotation=90)
        ax.minorticks_off()
    return legend(fig)


def plot_hysteresis(frame: pd.DataFrame) -> Figure:
    """frame: of `kinetics.load_mean`. The way down drawn through, the way back dashed."""
    looks = {DOWN: (BLUE, "o", "-"), BACK: (AMBER, "s", "--")}
    x, y = "distance to the demonstrator's distribution (JSD, bits)", "liquidity, bits"
    fig, parts = facets(frame, 2.8, ("group", TASKS), x=x, y=y)
    for ax, here in parts:
        paths(ax, here, "way", looks, "to_distribution", "liquidity")
        for way, (colour, *_) in looks.items():
            mine = means(here, way=way)
            points = mine[["to_distribution", "liquidity"]].to_numpy()
            arrow = {"arrowstyle": "->", "color": colour, "lw": 0.8}
            for start, end in zip(points, points[1:], strict=False):
                ax.annotate("", (start + 2 * end) / 3, start, arrowprops=arrow)
            for row in mine.itertuples():
                if row.label in STAGES or (way == BACK and row.order == mine["order"].max()):
                    text, up = (row.label, 4) if way == DOWN else (f"{row.label} steps", -9)
                    look = {"textcoords": "offset points", "color": colour}
                    ax.annotate(text, (row.to_distribution, row.liquidity), xytext=(5, up), **look)
        ax.set(ylim=(0, None), xlim=(0, None))
        ax.margins(0.12)
    return legend(fig)
