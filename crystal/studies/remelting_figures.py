"""Figures of the chapter on remelting: `plot_x` draws the tidy frame that `load_x` makes of those of `crystal.studies.remelting`.

Demonstrated and held-out tasks are told apart by colour and by shape. matplotlib is loaded by the plot functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import STAGES
from ..ask.prompts import CHAT
from ..present.figures import panels
from . import parents
from .hysteresis import BACK, DOWN
from .parents import APART, DEMONSTRATED, HELD_OUT, MEAN, limits, titled
from .remelting import ASKING, CRYSTAL, METHODS, TRAINING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {DEMONSTRATED: "#0072B2", HELD_OUT: "#D55E00"}
MARKERS = {DEMONSTRATED: "o", HELD_OUT: "D"}
GREY = "#767c85"
QUANTITIES = {"regained": "liquidity regained", "distance": "distance to the base", "entropy": "entropy, bits",
              "probmass": "on the seed's options", "kept": "facts right"}
GOALS = {"to_law": ("demonstrator's law", "#E69F00", "^"), "to_uniform": ("uniform law", "#56B4E9", "s"),
         "to_mean": ("base's mean answer", "#009E73", "o")}


# --- all methods side by side ----------------------------------------------------------------------------------------


def load_overview(ends: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """Rows of `parents.intervals` per method, group (apart) and quantity, with base and crystal: what those have of it.

    ends: of `remelting.load_kept` at the end of every run, against the base in chat form; methods: of `load_methods`.
    """
    ends = ends[(ends["against"] == CHAT) & ends["group"].isin(APART)]
    found = pd.concat([parents.intervals(ends, ["method", "group"], name).assign(quantity=name) for name in QUANTITIES])
    references = methods[methods["kind"] == "reference"]
    marks = parents.by_group(references, ["method"], ["entropy", "probmass"]).set_index(["method", "group"])
    for end, kept in (("base", np.nan), ("crystal", 1.0)):
        fixed = {"regained": float(end == "base"), "distance": float(end == "crystal"), "kept": kept}
        found[end] = [fixed[row.quantity] if row.quantity in fixed else marks.loc[(end, row.group), row.quantity]
                      for row in found.itertuples()]
    return found.reset_index(drop=True)


def plot_overview(frame: pd.DataFrame) -> Figure:
    """Methods down, a panel per quantity; base dotted, crystal dashed; small and faint the single parents."""
    names = [method.name for method in METHODS if method.name in set(frame["method"])]
    fig, axes = panels(1, len(QUANTITIES), 9.6, 0.34 * len(names) + 1.5, sharey=True)
    for ax, (quantity, label) in zip(axes[0], QUANTITIES.items(), strict=True):
        mine = frame[frame["quantity"] == quantity]
        for group, shift in zip(APART, (-0.16, 0.16), strict=True):
            part = mine[mine["group"] == group]
            colour, marker, shift = (GREY, "s", 0) if quantity == "kept" else (COLOURS[group], MARKERS[group], shift)
            _dots(ax, part, names, shift, colour=colour, marker=marker, label=group)
            if quantity in ("entropy", "probmass"):
                ax.axvline(part["base"].mean(), color=colour, ls=":", lw=1)
                ax.axvline(part["crystal"].mean(), color=colour, ls="--", lw=1)
        if quantity not in ("entropy", "probmass"):
            ax.axvline(mine["base"].iloc[0], color=GREY, ls=":", lw=1, label="base")
            ax.axvline(mine["crystal"].iloc[0], color=GREY, ls="--", lw=1, label="crystal")
        shown = pd.concat([mine["value"], mine["base"], mine["crystal"]])
        ax.set(xlabel=label, ylim=(len(names) - 0.5, -0.5), xlim=limits(shown))
    axes[0, 0].set_yticks(range(len(names)), names)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def _dots(ax: Axes, part: pd.DataFrame, names: Sequence[str], shift: float, *, colour: str, marker: str, label: str) -> None:
    """A mark with its interval for each method, and a faint one for each parent."""
    mean, each = part[part["parent"] == MEAN], part[part["parent"] != MEAN]
    for rows, look in ((each, {"ms": 2.5, "alpha": 0.35, "mew": 0}), (mean, {"ms": 4.5, "label": label})):
        ax.plot(rows["value"], [names.index(name) + shift for name in rows["method"]], marker, color=colour, **look)
    ax.hlines([names.index(name) + shift for name in mean["method"]], mean["low"], mean["high"], color=colour, lw=1.2)


def load_goals(ends: pd.DataFrame) -> pd.DataFrame:
    """One row per method, group (apart) and goal: JSD in bits of the mean answer to it, with its interval over parents."""
    ends = ends[(ends["against"] == CHAT) & ends["group"].isin(APART)]
    parts = [parents.intervals(ends, ["method", "group"], name).assign(goal=goal) for name, (goal, *_) in GOALS.items()]
    return pd.concat(parts, ignore_index=True)


def plot_goals(frame: pd.DataFrame) -> Figure:
    """Methods down: how far the mean answer lies from three laws; the nearest is where the mass went."""
    names = [method.name for method in METHODS if method.name in set(frame["method"])]
    fig, axes = panels(1, 2, 7.6, 0.34 * len(names) + 1.5, sharey=True, sharex=True)
    for ax, group in zip(axes[0], APART, strict=True):
        for shift, (goal, colour, marker) in zip((-0.2, 0, 0.2), GOALS.values(), strict=True):
            part = frame[(frame["group"] == group) & (frame["goal"] == goal)]
            _dots(ax, part, names, shift, colour=colour, marker=marker, label=goal)
        ax.set(title=f"{titled(group)} tasks", xlabel="JSD of the mean answer to it, bits", ylim=(len(names) - 0.5, -0.5))
        ax.set_xlim(0, limits(frame["value"])[1])
    axes[0, 0].set_yticks(range(len(names)), names)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


# --- temperature -----------------------------------------------------------------------------------------------------


def load_temperatures(methods: pd.DataFrame) -> pd.DataFrame:
    """One row per start (base, rlvr), temperature, group (apart) and quantity, in chat form; value, low, high over parents.

    Quantities: entropy and liquidity, bits; off_support and unresolved mass.
    """
    heat = {method.name: method.temperature for method in METHODS if method.kind == ASKING and method.form == CHAT}
    rows = methods[methods["method"].isin([*heat, "base", "crystal"])]
    rows = rows.assign(temperature=rows["method"].map(heat).fillna(1.0))
    quantities = ["entropy", "liquidity", "off_support", "unresolved"]
    means = parents.by_group(rows, ["parent", "start", "temperature"], quantities)
    keys = ["start", "temperature", "group"]
    found = pd.concat([parents.intervals(means, keys, name).assign(quantity=name) for name in quantities])
    return found[found["group"].isin(APART)].sort_values(["quantity", "start", "group", "temperature"], ignore_index=True)


def plot_temperatures(frame: pd.DataFrame) -> Figure:
    """Entropy, liquidity and the mass outside the options, over temperature; crystal drawn through, base dashed."""
    fig, axes = panels(1, 4, 9.6, 2.9)
    titles = {"entropy": "entropy of an answer, bits", "liquidity": "liquidity, bits", "off_support": "off-support mass",
              "unresolved": "unresolved mass"}
    for ax, (quantity, title) in zip(axes[0], titles.items(), strict=True):
        for (start, group), mine in frame[frame["quantity"] == quantity].groupby(["start", "group"], sort=False):
            name, line, filling = ("crystal", "-", COLOURS[group]) if start == CRYSTAL else ("base", "--", "white")
            look = {"color": COLOURS[group], "mfc": filling, "label": f"{name}, {group}"}
            _lines(ax, mine, "temperature", MARKERS[group] + line, **look)
        ax.axvline(1, color=GREY, lw=0.8, ls=":")
        ax.set(title=title, xlabel="temperature", ylim=(0, None))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def _lines(ax: Axes, mine: pd.DataFrame, x: str, style: str, **look) -> None:
    """The mean over parents, and thin and faint every parent."""
    for parent, line in mine.groupby("parent"):
        if parent != MEAN:
            ax.plot(line[x], line["value"], style[1:], color=look["color"], lw=0.6, alpha=0.4)
    mean = mine[mine["parent"] == MEAN]
    ax.plot(mean[x], mean["value"], style, **look)


# --- training --------------------------------------------------------------------------------------------------------


def load_steps(shares: pd.DataFrame) -> pd.DataFrame:
    """One row per training method, step, group (apart) and quantity (regained, distance); step 0 is the crystal."""
    mine = shares[(shares["kind"] == TRAINING) & shares["group"].isin(APART)]
    start = mine.drop_duplicates(["parent", "method", "group"]).assign(step=0, regained=0.0, distance=1.0)
    both = pd.concat([start, mine])
    keys = ["method", "step", "group"]
    found = pd.concat([parents.intervals(both, keys, name).assign(quantity=name) for name in ("regained", "distance")])
    return found.sort_values(["method", "quantity", "group", "step"], ignore_index=True)


def plot_steps(frame: pd.DataFrame) -> Figure:
    """A column per method: liquidity regained above, distance to the base below, over optimiser steps."""
    names = [method.name for method in METHODS if method.name in set(frame["method"])]
    fig, axes = panels(2, len(names), 3.2 * len(names), 2.3, sharey="row", sharex="col")
    for column, name in zip(axes.T, names, strict=True):
        for ax, quantity in zip(column, ("regained", "distance"), strict=True):
            for group in APART:
                mine = frame[(frame["method"] == name) & (frame["quantity"] == quantity) & (frame["group"] == group)]
                _lines(ax, mine, "step", MARKERS[group] + "-", color=COLOURS[group], label=group)
            ax.axhline(float(quantity == "regained"), color=GREY, ls=":", lw=1, label="base")
            ax.axhline(float(quantity == "distance"), color=GREY, ls="--", lw=1, label="crystal")
            ax.set_xscale("symlog", linthresh=2)
            ax.set_xticks(steps := sorted(mine["step"].unique()), map(str, steps))
            ax.minorticks_off()
        column[0].set_title(name)
        column[1].set_xlabel("optimiser steps")
    for ax, quantity in zip(axes[:, 0], ("regained", "distance"), strict=True):
        ax.set_ylabel(QUANTITIES[quantity])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


# --- hysteresis ------------------------------------------------------------------------------------------------------


def plot_paths(frame: pd.DataFrame) -> Figure:
    """frame: of `hysteresis.load_mean`. The way down drawn through, the way back dashed; thin and faint the single parents."""
    fig, axes = panels(1, 2, 7.6, 3.4)
    for ax, group in zip(axes[0], APART, strict=True):
        for way, colour, style in ((DOWN, "#0072B2", "o-"), (BACK, "#E69F00", "s--")):
            here = frame[(frame["group"] == group) & (frame["way"] == way)]
            for _, line in here[here["parent"] != MEAN].groupby("parent"):
                ax.plot(line["to_law"], line["liquidity"], style[1:], color=colour, lw=0.6, alpha=0.4)
            mine = here[here["parent"] == MEAN]
            x, y = mine["to_law"].to_numpy(), mine["liquidity"].to_numpy()
            ax.plot(x, y, style, color=colour, label=f"way {way}")
            for i in range(len(x) - 1):
                ax.annotate("", ((x[i] + 2 * x[i + 1]) / 3, (y[i] + 2 * y[i + 1]) / 3), (x[i], y[i]),
                            arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.8})
            for row in mine.itertuples():
                if row.label in STAGES or (way == BACK and row.order == mine["order"].max()):
                    text, shift = (row.label, 4) if way == DOWN else (f"{row.label} steps", -9)
                    ax.annotate(text, (row.to_law, row.liquidity), xytext=(5, shift), textcoords="offset points", fontsize=7.5,
                                color=colour)
        ax.set(title=f"{titled(group)} tasks", xlabel="distance to the demonstrator's law (JSD, bits)")
        ax.set(ylim=(0, None), xlim=(0, None))
        ax.margins(0.12)
    axes[0, 0].set_ylabel("liquidity, bits")
    axes[0, -1].legend(loc="lower right")
    return fig
