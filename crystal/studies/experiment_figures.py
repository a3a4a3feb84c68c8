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
    GREY,
    LINE,
    RED,
    panels,
)
from ..present.verdicts import grid
from . import seed_control as seed
from .figures import SERIES, TASKS, Panels, limits
from .kinetics import BACK, DOWN
from .remelting import ASKING, CRYSTAL, JUDGED, METHODS, REFERENCE, TRAINING, names
from .runs import APART, DEMONSTRATED, HELD_OUT, SCOPES, by_group, means, tidy, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {"vmin": 0, "vmax": 1, "cmap": "cividis"}
BY_SCOPE = "scope", {scope: f"{scope} tasks" for scope in SCOPES}
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
    grid = Panels(rates.assign(who=""), 2.4, BY_SCOPE, y="follow rate", sharey=True)
    grid.marks("run", names, "who", [""], across=True)
    for ax, mine in grid.parts:
        at = mine["run"].map(names.index)
        ax.plot(at, mine["chance"], "_", color=GREY, ms=12, mew=2, label="chance")
    threshold = THRESHOLDS["seed-follows"].value
    grid.line(y=threshold, ls="--", label="threshold of the claim")
    return grid.set(ylim=(0, 1.05)).drawn()


def plot_mixed(tidied: pd.DataFrame) -> Figure:
    """Demonstrators across, demonstrated and held-out tasks side by side; grey: before SFT."""
    runs = [run for run in seed.MIXED if run in set(tidied["run"])]
    grid = Panels(tidied, 2.7, ("quantity", (seed.KEPT, seed.FAR)))
    grid.marks("run", runs, "scope", SCOPES, across=True)
    kept, far = grid.figure.axes
    start = means(tidied, quantity=seed.NEAR)
    at = start["run"].map(runs.index) + start["scope"].map({SCOPES[0]: -0.18, SCOPES[1]: 0.18})
    far.plot(at, start["value"], "_", color=GREY, ms=10, mew=2)
    kept.axhline(1, color=GREY, lw=0.8, ls="--")
    return grid.drawn()


def plot_distances(distances: pd.DataFrame) -> Figure:
    """Distance to the mixture and to each of its parts, before and after SFT, by scope."""
    names, when = (list(distances[column].unique()) for column in ("distribution", "quantity"))
    grid = Panels(distances, 2.4, BY_SCOPE, y="JSD to the distribution, bits", sharey=True)
    return grid.marks("distribution", names, "quantity", when, across=True).drawn()


def plot_doses(tidied: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per style. Doses stand at equal distances."""
    rows, doses = ("quantity", list(tidied["quantity"].unique())), list(seed.DOSES)
    beside = tidied["style"].map({seed.STYLED: -0.12, seed.NEUTRAL: 0.12})
    tidied = tidied.assign(place=tidied["dose"].map(doses.index) + beside)
    how = {"x": "random choices among SFT's answers, %", "sharex": True, "sharey": "row"}
    grid = Panels(tidied, 1.9, BY_SCOPE, rows, **how)
    grid.paths("style", (seed.STYLED, seed.NEUTRAL), "place").line(y=0)
    for ax, mine in grid.parts:
        for (colour, *_), style in zip(SERIES, (seed.STYLED, seed.NEUTRAL)):
            mean = means(mine, style=style)
            ax.vlines(mean["place"], mean["low"], mean["high"], color=colour, lw=1.3)
    return grid.set(xticks=range(len(doses)), xticklabels=doses).drawn()


def plot_controls(frame: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, a line per world over SFT steps; 0 is the base."""
    rows, how = ("quantity", list(frame["quantity"].unique())), {"sharex": True, "sharey": "row"}
    grid = Panels(frame.assign(parent="mean"), 1.9, BY_SCOPE, rows, x="SFT steps", **how)
    return grid.steps(first="base").paths("run", seed.WORLD.keys()).line(y=0).drawn()


# --- remelting


def _each(frame: pd.DataFrame, keys: Sequence[str], quantities: Iterable[str]) -> pd.DataFrame:
    """`runs.tidy`, demonstrated and held-out tasks apart."""
    return tidy(frame[frame["group"].isin(APART)], keys, list(quantities))


def load_overview(ends: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` by method and group; what base and crystal have of each quantity.

    ends: of `remelting.load_kept` at the end of every run; methods: of `load_methods`.
    """
    found = _each(where(ends, against=CHAT), ["method", "group"], QUANTITIES)
    references = by_group(where(methods, kind=REFERENCE), ["method"], ["entropy", "probmass"])
    marks = references.set_index(["method", "group"])
    known = {
        "base": {"regained": 1.0, "distance": 0.0, "kept": np.nan},
        "crystal": {"regained": 0.0, "distance": 1.0, "kept": 1.0},
    }
    for end, fixed in known.items():
        found[end] = [
            fixed[what] if what in fixed else marks.loc[(end, group), what]
            for what, group in zip(found["quantity"], found["group"], strict=True)
        ]
    return found


def plot_overview(frame: pd.DataFrame) -> Figure:
    """Methods down, a panel per quantity; base dotted, crystal dashed."""
    facts = frame["quantity"] == "kept"  # of neither group
    looks = {DEMONSTRATED: SERIES[0], "_facts": (GREY, "s", ""), HELD_OUT: SERIES[1]}
    frame = frame.assign(group=frame["group"].mask(facts, "_facts"))
    ways, columns = names(frame), ("quantity", QUANTITIES)
    grid = Panels(frame, 1.6 * LINE * len(ways) + 0.5, columns, wrap=3, sharey=True)
    grid.marks("method", ways, "group", looks)
    for ax, mine in grid.parts:
        for end, style in (("base", ":"), ("crystal", "--")):
            levels, how = mine.groupby("group")[end].mean(), {"ls": style, "lw": 1}
            if levels.nunique() > 1:
                for group, level in levels.items():
                    ax.axvline(level, color=looks[group][0], **how)
            else:
                ax.axvline(levels.mean(), color=GREY, label=end, **how)
        ax.set_xlim(limits(pd.concat([mine["value"], mine["base"], mine["crystal"]])))
    return grid.drawn()


def load_goals(ends: pd.DataFrame) -> pd.DataFrame:
    """One row per method, group and goal: JSD in bits of the mean answer to it, over parents."""
    found = _each(where(ends, against=CHAT), ["method", "group"], GOALS)
    return found.assign(goal=found.pop("quantity").map(GOALS))


def plot_goals(frame: pd.DataFrame) -> Figure:
    """Methods down: how far the mean answer lies from three distributions."""
    ways, how = names(frame), {"sharey": True, "sharex": True}
    how["x"] = "JSD of the mean answer to it, bits"
    grid = Panels(frame, 0.26 * len(ways) + 1.0, ("group", TASKS), **how)
    grid.marks("method", ways, "goal", GOALS.values())
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
        for group, (colour, marker, _) in zip(APART, SERIES)
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
    grid = Panels(frame, 1.7, ("method", ways), ("quantity", JUDGED), **how)
    grid.steps(2, first="0").paths("group", APART)
    for at, (ax, _) in enumerate(grid.parts):
        base = float(at < len(ways))  # regained is 1 there, the distance 0
        ax.axhline(base, color=GREY, ls=":", lw=1, label="base")
        ax.axhline(1 - base, color=GREY, ls="--", lw=1, label="crystal")
    return grid.drawn()


def plot_hysteresis(frame: pd.DataFrame) -> Figure:
    """frame: of `kinetics.load_mean`. The way down drawn through, the way back dashed."""
    x, y = "distance to the demonstrator's distribution (JSD, bits)", "liquidity, bits"
    grid = Panels(frame, 2.8, ("group", TASKS), x=x, y=y)
    grid.paths("way", (DOWN, BACK), "to_distribution", "liquidity")
    for ax, here in grid.parts:
        for way, (colour, *_) in zip((DOWN, BACK), SERIES):
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
