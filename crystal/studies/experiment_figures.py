"""Figures of seed control and remelting: each draws a tidy frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import STAGES
from ..ask.prompts import CHAT
from ..measure.claims import THRESHOLDS
from ..present.figures import (
    BLUE,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    name_rows,
    panels,
)
from ..present.verdicts import grid
from . import seed_control as seed
from .figures import TASKS, Panels, limits, mark
from .kinetics import BACK, DOWN
from .remelting import ASKING, CRYSTAL, JUDGED, METHODS, REFERENCE, TRAINING, names
from .runs import APART, DEMONSTRATED, HELD_OUT, SCOPES, by_group, means, tidy, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {"vmin": 0, "vmax": 1, "cmap": "cividis"}
BY_SCOPE = "scope", {scope: f"{scope} tasks" for scope in SCOPES}
SIDES = {SCOPES[0]: (-0.17, BLUE, "o"), SCOPES[1]: (0.17, RED, "s")}
STYLES = {seed.STYLED: (BLUE, "o", "-"), seed.NEUTRAL: (RED, "s", "--")}
WORLDS = dict(zip(seed.WORLD, zip((BLUE, RED, GREEN, PURPLE), "os^D", "----"), strict=True))
GROUPS = {DEMONSTRATED: (BLUE, "o", "-"), HELD_OUT: (RED, "D", "-")}
QUANTITIES = JUDGED | {
    "entropy": "entropy, bits",
    "probmass": "on the seed's options",
    "kept": "facts right",
}
GOALS = {
    "to_distribution": "demonstrator's distribution",
    "to_uniform": "uniform distribution",
    "to_mean": "base's mean answer",
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
    panels = Panels(matrix, 2.1, BY_SCOPE, x="distribution found", sharey=True)
    for ax, mine in panels.parts:
        mine = mine.pivot(index="intended", columns="found", values="share")
        mine = mine.reindex(index=seed.TEMPERAMENTS, columns=seed.TEMPERAMENTS)
        grid(ax, mine, mine.map(lambda share: f"{100 * share:.0f}"), **SHARES)
    panels.figure.supylabel("demonstrator")
    return panels.figure


def plot_tasks(cells: pd.DataFrame) -> Figure:
    """In how many parents a task followed a demonstrator; a line parts demonstrated tasks."""
    tasks = list(cells["task"].unique())
    fig, ((ax,),) = panels(1, 1, 0.19 * len(tasks) + 0.8)
    text = [f"{s * n:.0f} of {n:.0f}" for s, n in zip(cells["share"], cells["parents"])]
    table = cells.assign(text=text).pivot(index="task", columns="demonstrator").loc[tasks]
    share, texts = (table[what].reindex(columns=seed.TEMPERAMENTS) for what in ("share", "text"))
    grid(ax, share, texts, **SHARES)
    ax.axhline(where(cells, scope=SCOPES[0])["task"].nunique(), color=RED, lw=2)
    ax.set(xlabel="demonstrator", ylabel="demonstrated above, held out below")
    return fig


def plot_rates(rates: pd.DataFrame) -> Figure:
    """Demonstrators across, a panel per scope; chance a grey bar, the claim's threshold a line."""
    names = [run for run in (*seed.TEMPERAMENTS, seed.TOGETHER) if run in set(rates["run"])]
    looks = {"_one": (0, BLUE, "o"), "_all": (0, RED, "D")}  # no names for the legend
    rates = rates.assign(who=np.where(rates["run"] == seed.TOGETHER, "_all", "_one"))
    grid = Panels(rates, 2.4, BY_SCOPE, y="follow rate", sharey=True)
    grid.marks("run", names, "who", looks, across=True)
    for ax, mine in grid.parts:
        at = mine["run"].map(names.index)
        ax.plot(at, mine["chance"], "_", color=GREY, ms=12, mew=2, label="chance")
    threshold = THRESHOLDS["seed-follows"].value
    return (
        grid.line(y=threshold, ls="--", label="threshold of the claim").set(ylim=(0, 1.05)).drawn()
    )


def plot_mixed(tidied: pd.DataFrame) -> Figure:
    """Demonstrators across, demonstrated and held-out tasks side by side; grey: before SFT."""
    runs = [run for run in seed.MIXED if run in set(tidied["run"])]
    grid = Panels(tidied, 2.7, ("quantity", (seed.KEPT, seed.FAR)))
    grid.marks("run", runs, "scope", SIDES, across=True)
    kept, far = grid.figure.axes
    for scope, (side, *_) in SIDES.items():
        start = means(tidied, quantity=seed.NEAR, scope=scope)
        at = start["run"].map(runs.index) + side
        far.plot(at, start["value"], "_", color=GREY, ms=10, mew=2)
    kept.axhline(1, color=GREY, lw=0.8, ls="--")
    return grid.drawn()


def plot_distances(distances: pd.DataFrame) -> Figure:
    """Distance to the mixture and to each of its parts, before (grey) and after SFT, by scope."""
    names = list(distances["distribution"].unique())
    looks = {"before SFT": (-0.12, GREY, "D"), "after SFT": (0.12, BLUE, "o")}
    grid = Panels(distances, 2.4, BY_SCOPE, y="JSD to the distribution, bits", sharey=True)
    return grid.marks("distribution", names, "quantity", looks, across=True).drawn()


def plot_doses(tidied: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per style. Doses stand at equal distances."""
    rows = "quantity", list(tidied["quantity"].unique())
    how = {"x": "random choices among SFT's answers, %", "sharex": True, "sharey": "row"}
    grid = Panels(tidied, 1.9, BY_SCOPE, rows, **how)
    for ax, mine in grid.parts:
        for side, (style, (colour, marker, line)) in zip((-0.17, 0.17), STYLES.items()):
            some = where(mine, style=style)
            at, mean = some["dose"].map(seed.DOSES.index) + side, means(some)
            mark(ax, some, at, colour, marker, style, across=True)
            ax.plot(at[mean.index], mean["value"], line, color=colour, lw=1.2)
    return grid.line(y=0).set(xticks=range(len(seed.DOSES)), xticklabels=seed.DOSES).drawn()


def plot_controls(frame: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per world over SFT steps; 0 is the base."""
    rows, how = ("quantity", list(frame["quantity"].unique())), {"sharex": True, "sharey": "row"}
    grid = Panels(frame.assign(parent="mean"), 1.9, BY_SCOPE, rows, x="SFT steps", **how)
    return grid.paths("run", WORLDS).line(y=0).steps(first="base").drawn()


# --- remelting


def _each(frame: pd.DataFrame, keys: Sequence[str], quantities: Iterable[str]) -> pd.DataFrame:
    """`runs.tidy`, demonstrated and held-out tasks apart."""
    return tidy(frame[frame["group"].isin(APART)], keys, list(quantities))


def load_overview(ends: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs.tidy` per method, group and quantity; what base and crystal have of it.

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
    height = 1.6 * LINE * len(ways) + 0.5
    grid = Panels(frame, height, ("quantity", QUANTITIES), wrap=3, sharey=True)
    for quantity, (ax, mine) in zip(QUANTITIES, grid.parts, strict=True):
        apart = quantity in ("entropy", "probmass")
        for (group, (colour, marker, _)), shift in zip(GROUPS.items(), (-0.16, 0.16)):
            part = where(mine, group=group)
            at, kept = part["method"].map(ways.index), quantity == "kept"
            look = (GREY, "s") if kept else (colour, marker)
            mark(ax, part, at if kept else at + shift, *look, group)
            if apart or group == APART[0]:
                for end, style in (("base", ":"), ("crystal", "--")):
                    line = {"color": colour} if apart else {"color": GREY, "label": end}
                    ax.axvline(part[end].mean(), ls=style, lw=1, **line)
        name_rows(ax, ways)
        ax.set_xlim(limits(pd.concat([mine["value"], mine["base"], mine["crystal"]])))
    return grid.drawn()


def load_goals(ends: pd.DataFrame) -> pd.DataFrame:
    """One row per method, group and goal: JSD in bits of the mean answer to it, over parents."""
    found = _each(where(ends, against=CHAT), ["method", "group"], GOALS)
    return found.assign(goal=found.pop("quantity").map(GOALS))


def plot_goals(frame: pd.DataFrame) -> Figure:
    """Methods down: how far the mean answer lies from three distributions."""
    looks = ((-0.2, ORANGE, "^"), (0, SKY, "s"), (0.2, GREEN, "o"))
    looks, ways = dict(zip(GOALS.values(), looks, strict=True)), names(frame)
    how = {"x": "JSD of the mean answer to it, bits", "sharey": True, "sharex": True}
    grid = Panels(frame, 0.26 * len(ways) + 1.0, ("group", TASKS), **how)
    grid.marks("method", ways, "goal", looks)
    return grid.set(xlim=(0, limits(frame["value"])[1])).drawn()


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
    grid = Panels(frame, 1.8, ("quantity", HEATED), wrap=2, x="temperature")
    grid.paths("who", looks, "temperature").line(x=1, ls=":")
    return grid.set(ylim=(0, None)).drawn()


def load_steps(shares: pd.DataFrame) -> pd.DataFrame:
    """One row per training method, step, group and quantity of JUDGED; step 0 is the crystal."""
    mine = where(shares, kind=TRAINING)
    start = mine.drop_duplicates(["parent", "method", "group"])
    both = pd.concat([start.assign(step=0, regained=0.0, distance=1.0), mine])
    found = _each(both, ["method", "step", "group"], JUDGED)
    return found.sort_values(["method", "quantity", "group", "step"], ignore_index=True)


def plot_steps(frame: pd.DataFrame) -> Figure:
    """A column per method: liquidity regained above, distance to the base below, over steps."""
    ways = names(frame)
    how = {"x": "optimiser steps", "sharey": "row", "sharex": "col"}
    grid = Panels(frame, 1.7, ("method", ways), ("quantity", JUDGED), **how).paths("group", GROUPS)
    for at, (ax, _) in enumerate(grid.parts):
        base = float(at < len(ways))  # regained is 1 there, the distance 0
        ax.axhline(base, color=GREY, ls=":", lw=1, label="base")
        ax.axhline(1 - base, color=GREY, ls="--", lw=1, label="crystal")
    return grid.steps(2, first="0").drawn()


def plot_hysteresis(frame: pd.DataFrame) -> Figure:
    """frame: of `kinetics.load_mean`. The way down drawn through, the way back dashed."""
    looks = {DOWN: (BLUE, "o", "-"), BACK: (ORANGE, "s", "--")}
    x, y = "distance to the demonstrator's distribution (JSD, bits)", "liquidity, bits"
    grid = Panels(frame, 2.8, ("group", TASKS), x=x, y=y)
    grid.paths("way", looks, "to_distribution", "liquidity")
    for ax, here in grid.parts:
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
    return grid.drawn()
