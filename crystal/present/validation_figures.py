"""What was simulated of the claims and of the joint test, and readings of the paper's ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import known
from ..measure.claims import THRESHOLDS
from ..measure.synthetic import DISTANCES, FIGURES, INFORMATION, MIXED, SCENARIOS, Panel
from ..measure.validation import CASTS, EXACT, JUDGED, PANELS, PROGRESS, SHARE, VARIED
from .figures import BLUE, GREEN, GREY, INK, PURPLE, RED, SKY, legend, name_rows, panels
from .open_tasks import where
from .verdicts import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, LEVEL, WANTED = (0.93, 0.97), 0.05, 0.8  # coverage of a 95 % interval; false alarms; power
ALLOWED, POWER = 0.025, 0.9  # of one-seed: false alarms in any scenario, power at the main design
SHADES = {2: SKY, 10: BLUE, 100: RED}  # by number of options
UP = {2: -0.22, 10: 0, 100: 0.22}  # how far from its row
SIGNS = dict(zip(CASTS, "osD", strict=True))
CALLED = {  # share of ladders called so -> look
    "small": ("p at most 5 %", GREY, "o"),
    "one-seed": ("one-seed holds", BLUE, "s"),
    "unmixed": ("unmixed holds, too", RED, "D"),
}


def ours(trials: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of one kind for the designs of the book, `validation.CASTS`."""
    return trials[(trials["kind"] == kind) & (trials["cast"] != "")]


def _judged(frame: pd.DataFrame) -> list[str]:
    return [claim for claim in JUDGED if claim in set(frame["claim"])]


def load_coverage(trials: pd.DataFrame) -> pd.DataFrame:
    """Coverage by claim, scenario, cast and K, where half of the trials have an interval or more.

    error: binomial.
    """
    frame = ours(trials, "scenario")
    frame = frame[frame["interval"] >= frame["n"] / 2]
    share = frame["coverage"]
    frame = frame.assign(error=np.sqrt(share * (1 - share) / frame["interval"]))
    columns = ["claim", "name", "cast", "options", "n", "interval", "coverage", "error"]
    return frame[[*columns, "below", "above", "truth"]].reset_index(drop=True)


def plot_coverage(frame: pd.DataFrame) -> Figure:
    """Claims down, casts across; in each, scenarios down. The band is nominal within two points."""
    claims, names = _judged(frame), list(frame["name"].unique())
    casts = [cast for cast in CASTS if cast in set(frame["cast"])]
    least = min(0.78, frame["coverage"].min() - 0.01)
    height = 0.13 * len(names) + 0.2
    fig, axes = panels(len(claims), len(casts), height, sharex=True, sharey=True)
    for (i, j), ax in np.ndenumerate(axes):
        mine = where(frame, claim=claims[i], cast=casts[j])
        ax.axvspan(*GOOD, color=GREEN, alpha=0.15, lw=0)
        for options, part in mine.groupby("options"):
            y = part["name"].map(names.index) + UP[options]
            ax.plot(part["coverage"], y, "o", color=SHADES[options], label=f"K = {options}")
        name_rows(ax, names)
        ax.set(xlim=(least, 1.005), title="" if i else casts[j], ylabel="" if j else claims[i])
    fig.supxlabel("coverage")
    return legend(fig)


def load_alarms(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts at the threshold, and by scenario: rate, of (fifty trials or more)."""
    frame, rows = pd.concat([ours(trials, "at threshold"), ours(trials, "scenario")]), []
    places = ["kind", "name", "claim", "cast", "options"]
    for verdict, of in (("holds", "not_true"), ("fails", "not_false")):
        mine = frame[frame[of] >= 50]
        wrong = mine[f"false_{verdict}"]
        rates = {"verdict": verdict, "of": mine[of], "rate": wrong / mine[of]}
        rows.append(mine[places].assign(**rates, **{"of all": wrong / mine["n"]}))
    return pd.concat(rows, ignore_index=True)


def load_drawn(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts at the threshold from draws, by claim, options and draws; and coverage."""
    frame = trials.query("kind == 'at threshold' and draws < @EXACT and n >= 50")
    rates = {"wrongly holds": frame["false_holds"] / frame["not_true"]}
    rates |= {"wrongly fails": frame["false_fails"] / frame["not_false"]}
    columns = ["claim", "options", "draws", *rates, "coverage"]
    return frame.assign(**rates)[columns].reset_index(drop=True)


def plot_alarms(frame: pd.DataFrame) -> Figure:
    """At the threshold: claims down, wrong verdicts along; the line is what is allowed."""
    frame = frame[frame["kind"] == "at threshold"]
    claims = _judged(frame)
    fig, axes = panels(1, 2, 0.22 * len(claims) + 1.3, sharey=True)
    for ax, verdict in zip(axes[0], ("holds", "fails"), strict=True):
        mine = frame[frame["verdict"] == verdict]
        for (cast, options), part in mine.groupby(["cast", "options"]):
            y, name = part["claim"].map(claims.index) + UP[options], f"{cast}, K = {options}"
            ax.plot(part["rate"], y, SIGNS[cast], color=SHADES[options], label=name)
        ax.axvline(LEVEL, color=GREY, lw=1)
        name_rows(ax, claims)
        ax.set(title=f"wrongly {verdict}", xlabel="share of trials")
        ax.set_xlim(-0.002, max(0.07, frame["rate"].max() * 1.1))
    return legend(fig)


def smallest(trials: pd.DataFrame) -> pd.DataFrame:
    """The fewest contexts on which a true claim has a power of WANTED, by claim, K and draws; nan
    if none does.
    """
    power = trials[trials["kind"] == "power"]
    clusters = power["clusters"].where(power["power"] >= WANTED)
    fewest = clusters.groupby([power[name] for name in ("claim", "options", "draws")]).min()
    return fewest.rename("contexts").reset_index()


def plot_smallest(frame: pd.DataFrame) -> Figure:
    """One panel a claim: K down, draws along, the fewest contexts written in."""
    from matplotlib.colors import LogNorm

    options, draws = sorted(frame["options"].unique()), sorted(frame["draws"].unique())
    named = ["read out" if d == EXACT else f"{d:.0f}" for d in draws]
    fig, axes = panels(3, 2, 1.2, sharex=True, sharey=True)
    for ax, claim in zip(axes.flat, _judged(frame), strict=False):
        mine = frame[frame["claim"] == claim]
        table = mine.pivot(index="options", columns="draws", values="contexts")
        table = table.reindex(options, columns=draws)
        how = {"xticklabels": named, "yticklabels": [f"K = {k}" for k in options]}
        grid(ax, table, table.map("{:.0f}".format), cmap="Blues", norm=LogNorm(5, 300), **how)
        ax.set_facecolor("#e4e6e9")  # of cells in which none of those tried is enough
        for i, j in np.argwhere(table.isna().to_numpy()):
            ax.text(j + 0.5, i + 0.5, "none", ha="center", va="center", color=INK)
        ax.set_title(claim)
        ax.tick_params(rotation=0)
    for ax in axes.flat[len(_judged(frame)) :]:
        ax.set_axis_off()
    fig.supxlabel("draws a prompt")
    return fig


def readings_of(readings: pd.DataFrame, options: Sequence[int]) -> pd.DataFrame:
    """Rows with so many options, scenarios in their order. Raises: CrystalError for others."""
    for k in options:
        known(k, sorted(readings["options"].unique()), "number of options")
    mine = readings[readings["options"].isin(options)].rename(columns={"name": "scenario"})
    order = np.lexsort([mine["options"], mine["scenario"].map(list(SCENARIOS).index)])
    columns = ["scenario", "options", "reading", "distance", "value", "below"]
    return mine.iloc[order][columns].reset_index(drop=True)


def plot_readings(frame: pd.DataFrame) -> Figure:
    """A panel per reading and K: scenarios down; the line is the figure to be below."""
    looks = zip((RED, BLUE, GREEN, PURPLE), "os^D", strict=True)
    looks = dict(zip((*DISTANCES, INFORMATION), looks, strict=True))
    readings, options = list(FIGURES), sorted(frame["options"].unique())
    names = list(dict.fromkeys(frame["scenario"]))
    height = 0.15 * len(names) + 0.6
    fig, axes = panels(len(options), len(readings), height, sharey=True, sharex="col")
    for (i, j), ax in np.ndenumerate(axes):
        reading, k = readings[j], options[i]
        mine = where(frame, options=k, reading=reading)
        for name, (colour, marker) in looks.items():
            part = mine[mine["distance"] == name]
            x, y = np.maximum(part["value"], 1e-3), part["scenario"].map(names.index)
            ax.plot(x, y, marker, color=colour, label=name)
        ax.axvline(FIGURES[reading], color=GREY, lw=1)
        ax.set_xscale("log")
        name_rows(ax, names)
        ax.set_title(f"{reading},\nK = {k}")
    return legend(fig)


def disagreements(frame: pd.DataFrame) -> pd.DataFrame:
    """Where MSE's median lies on the other side of the figure than that of most other distances."""
    place = ["scenario", "options", "reading"]
    wide = frame.pivot_table("value", place, "distance", sort=False)
    figures = wide.index.get_level_values("reading").map(FIGURES).to_numpy()
    low = wide.lt(figures, axis=0).astype(float).where(wide.notna())
    most = low.drop(columns="MSE").mean(axis=1) > 0.5
    return wide[low["MSE"] != most].reset_index()


# -- the joint test


def load_scenarios(joint: pd.DataFrame) -> pd.DataFrame:
    """Every scenario at the main design, those with a seed first: shares of ladders (CALLED)."""
    main = where(joint, kind="joint", **vars(Panel()))
    columns = ["name", "seed", "pure", "n", "whole", *CALLED, "named", "progress"]
    order = main[columns].sort_values(["pure", "seed"], ascending=False, kind="stable")
    return order.reset_index(drop=True)


def plot_scenarios(frame: pd.DataFrame) -> Figure:
    """Scenarios down, those with a seed above the line. Dotted: ALLOWED and POWER."""
    fig, ((ax,),) = panels(1, 1, 0.17 * len(frame) + 1.0)
    for column, (named, colour, marker) in CALLED.items():
        ax.plot(frame[column], range(len(frame)), marker, color=colour, label=named)
    for x in (ALLOWED, POWER):
        ax.axvline(x, color=GREY, lw=1, ls=":")
    ax.axhline(frame["seed"].sum() - 0.5, color=GREY, lw=1)
    name_rows(ax, frame["name"])
    ax.set(xlim=(-0.02, 1.02), xlabel="share of ladders")
    return legend(fig)


def load_thresholds(joint: pd.DataFrame) -> pd.DataFrame:
    """What each threshold would have made of the ladders that set it: most false alarms, and `in`
    which scenario; least power, and `at` which. A mixture is no case for or against one-seed.
    """
    frame = joint[joint["kind"] == "threshold"].set_index("name")
    without = {"one-seed": (PROGRESS, ~frame["seed"]), "unmixed": (SHARE, ~frame["pure"])}
    rows = []
    for claim, (thresholds, false) in without.items():
        for threshold in thresholds:
            found = frame[f"{claim} {threshold}"]
            alarms, power = found[false], found[frame["pure"]]
            taken = threshold == THRESHOLDS[claim].value
            row = {"claim": claim, "threshold": threshold, "taken": taken}
            row |= {"false alarms": alarms.max(), "in": alarms.idxmax()}
            rows.append(row | {"power": power.min(), "at": power.idxmin()})
    return pd.DataFrame(rows)


def load_designs(joint: pd.DataFrame) -> pd.DataFrame:
    """One row per design, the main one first: what is varied, and by scenario the share of ladders
    of which one-seed holds; of the mixture also unmixed.
    """
    rows = []
    for panel in (Panel(), *PANELS):
        changed = {field: x for field, x in vars(panel).items() if x != getattr(Panel, field)}
        mine = where(joint, kind="joint", **vars(panel)).set_index("name")
        if mine.empty:  # not simulated yet
            continue
        row = {"varied": ", ".join(changed) or "main"}
        row |= {"to": ", ".join(f"{x:.0f}" for x in changed.values()), "n": int(mine["n"].min())}
        mine = mine.reindex(sorted(VARIED))
        row |= mine["one-seed"].to_dict()
        rows.append(row | {f"{MIXED}, unmixed": mine.loc[MIXED, "unmixed"]})
    return pd.DataFrame(rows)


def plot_named(frame: pd.DataFrame) -> Figure:
    """Progress by run, a mark a parent and seed, filled where one-seed holds. The line is the
    threshold.
    """
    runs = list(dict.fromkeys(frame["run"]))
    fig, ((ax,),) = panels(1, 1, 2.4)
    for run, mine in frame.groupby("run", sort=False):
        at = runs.index(run) + np.linspace(-0.25, 0.25, len(mine))
        for x, row in zip(at, mine.to_dict("records"), strict=True):
            colour = BLUE if row["sort"] == "one demonstrator" else GREY
            full = colour if row["one-seed"] == "holds" else "white"
            ax.plot([x, x], [row["low"], row["high"]], "-", color=colour, lw=1)
            ax.plot(x, row["progress"], "o", color=colour, mfc=full)
    ax.axhline(THRESHOLDS["one-seed"].value, color=GREY, lw=1)
    ax.set_xticks(range(len(runs)), runs, rotation=90)
    ax.set_ylabel("progress")
    return fig
