"""What was simulated, drawn: coverage, false alarms, power, the readings of the paper's ratio.

Pairs as in `crystal.present.figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.readings import DISTANCES, FIGURES, INFORMATION
from ..measure.simulation import JUDGED
from ..measure.validation import CASTS, EXACT
from .figures import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, LEVEL, WANTED = (0.93, 0.97), 0.05, 0.8  # coverage of a 95 % interval; false alarms; power
SHADES = {2: "#56B4E9", 10: "#0072B2", 100: "#D55E00"}  # by number of options
MARKERS = dict(zip(CASTS, "osD", strict=True))


def ours(trials: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of one kind for the designs of the book, `validation.CASTS`."""
    return trials[(trials["kind"] == kind) & (trials["cast"] != "")]


def load_coverage(trials: pd.DataFrame) -> pd.DataFrame:
    """Coverage of every claim's interval by scenario, cast and K, read out; half of the trials at
    least must have an interval. error: binomial.
    """
    frame = ours(trials, "scenario")
    frame = frame[frame["interval"] >= frame["n"] / 2]
    share = frame["coverage"]
    frame = frame.assign(error=np.sqrt(share * (1 - share) / frame["interval"]))
    columns = [
        "claim",
        "name",
        "cast",
        "options",
        "n",
        "interval",
        "coverage",
        "error",
        "below",
        "above",
        "truth",
    ]
    return frame[columns].reset_index(drop=True)


def plot_coverage(frame: pd.DataFrame) -> Figure:
    """Casts down, claims across; in each scenarios down, coverage along, K by colour; the band is
    nominal within two points.
    """
    claims, names = [c for c in JUDGED if c in set(frame["claim"])], list(frame["name"].unique())
    casts = [cast for cast in CASTS if cast in set(frame["cast"])]
    fig, axes = panels(
        len(casts), len(claims), 10.5, 0.22 * len(names) + 0.5, sharex=True, sharey=True
    )
    for (i, j), ax in np.ndenumerate(axes):
        mine = frame[(frame["claim"] == claims[j]) & (frame["cast"] == casts[i])]
        ax.axvspan(*GOOD, color=COLOURS["rlvr"], alpha=0.15, lw=0)
        for options, part in mine.groupby("options"):
            ax.plot(
                part["coverage"],
                part["name"].map(names.index) + _shift(options),
                "o",
                color=SHADES[options],
                ms=4,
                label=f"K = {options}",
            )
        ax.set_yticks(range(len(names)), names)
        ax.set(
            xlim=(min(0.78, frame["coverage"].min() - 0.01), 1.005),
            ylim=(len(names) - 0.5, -0.5),
            title="" if i else claims[j],
        )
    for ax, cast in zip(axes[:, -1], casts, strict=True):
        ax.annotate(cast, (1.03, 0.5), xycoords="axes fraction", rotation=270, va="center")
    for ax in axes[-1]:
        ax.set_xlabel("coverage")
    widest = max(axes.flat, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
    fig.legend(*widest.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


def load_alarms(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts: at the mark, where either verdict is wrong, and by scenario. kind, name,
    claim, cast, options, rate, of (trials), verdict; rows with fewer than fifty trials in which the
    verdict would be wrong are left out.
    """
    frame, rows = pd.concat([ours(trials, "mark"), ours(trials, "scenario")]), []
    places = ["kind", "name", "claim", "cast", "options"]
    for verdict, wrong, of in (
        ("holds", "false_holds", "not_true"),
        ("fails", "false_fails", "not_false"),
    ):
        mine = frame[frame[of] >= 50]
        rates = {
            "verdict": verdict,
            "of": mine[of],
            "rate": mine[wrong] / mine[of],
            "of all": mine[wrong] / mine["n"],
        }
        rows.append(mine[places].assign(**rates))
    return pd.concat(rows, ignore_index=True)


def load_drawn(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts at the mark from draws: claim, options, draws, wrongly holds, wrongly fails,
    coverage.
    """
    frame = trials[(trials["kind"] == "mark") & (trials["draws"] < EXACT) & (trials["n"] >= 50)]
    names = {"false_holds_rate": "wrongly holds", "false_fails_rate": "wrongly fails"}
    frame = frame[["claim", "options", "draws", *names, "coverage"]]
    return frame.rename(columns=names).reset_index(drop=True)


def plot_alarms(frame: pd.DataFrame) -> Figure:
    """At the mark: claims down, share of wrong verdicts along, one panel a verdict, K by colour and
    cast by mark; the line is what is allowed.
    """
    frame = frame[frame["kind"] == "mark"]
    claims = [claim for claim in JUDGED if claim in set(frame["claim"])]
    fig, axes = panels(1, 2, 8.0, 0.34 * len(claims) + 1.5, sharey=True)
    for ax, verdict in zip(axes[0], ("holds", "fails"), strict=True):
        mine = frame[frame["verdict"] == verdict]
        for (cast, options), part in mine.groupby(["cast", "options"]):
            ax.plot(
                part["rate"],
                part["claim"].map(claims.index) + _shift(options),
                MARKERS[cast],
                color=SHADES[options],
                ms=4.5,
                label=f"{cast}, K = {options}",
            )
        ax.axvline(LEVEL, color=COLOURS["chance"], lw=1)
        ax.set_yticks(range(len(claims)), claims)
        ax.set(
            xlim=(-0.002, max(0.07, frame["rate"].max() * 1.1)),
            ylim=(len(claims) - 0.5, -0.5),
            title=f"wrongly {verdict}",
            xlabel="share of trials at the mark",
        )
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def _shift(options: int) -> float:
    return 0.22 * (list(SHADES).index(options) - 1)


def load_power(trials: pd.DataFrame) -> pd.DataFrame:
    """On a ladder where every claim is true, two wordings of every context: claim, options, draws,
    units, n, power (share that holds), truth.
    """
    columns = ["claim", "options", "draws", "units"]
    frame = trials.loc[trials["kind"] == "power", [*columns, "n", "power", "truth"]]
    return frame.sort_values(columns)


def smallest(power: pd.DataFrame) -> pd.DataFrame:
    """The fewest contexts that reach a power of WANTED, by claim, K and draws; nan if none does."""
    enough = power[power["power"] >= WANTED].groupby(["claim", "options", "draws"])["units"].min()
    return (
        power.groupby(["claim", "options", "draws"])
        .size()
        .index.to_frame(index=False)
        .merge(enough.rename("contexts").reset_index(), how="left")
    )


def plot_smallest(frame: pd.DataFrame) -> Figure:
    """One panel a claim: K down, draws along, the fewest contexts written in; darker needs more."""
    claims = [c for c in JUDGED if c in set(frame["claim"])]
    options, draws = sorted(frame["options"].unique()), sorted(frame["draws"].unique())
    fig, axes = panels(2, 3, 9.0, 2.5, sharex=True, sharey=True)
    for ax, claim in zip(axes.flat, claims, strict=False):
        table = (
            frame[frame["claim"] == claim]
            .pivot(index="options", columns="draws", values="contexts")
            .reindex(options, columns=draws)
        )
        ax.imshow(table, norm="log", vmin=5, vmax=300, cmap="Blues", aspect="auto")
        ax.set_facecolor("#e4e6e9")  # of cells in which none of those tried is enough
        for (i, j), contexts in np.ndenumerate(table.to_numpy()):
            ax.text(
                j,
                i,
                "none" if np.isnan(contexts) else f"{contexts:.0f}",
                ha="center",
                va="center",
                color="black",
                fontsize=8,
            )
        ax.set_xticks(range(len(draws)), ["read out" if d == EXACT else f"{d:.0f}" for d in draws])
        ax.set_yticks(range(len(options)), [f"K = {k}" for k in options])
        ax.set_title(claim)
        ax.grid(False)
    for ax in axes.flat[len(claims) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("draws a prompt")
    return fig


# --- the paper's ratio ----------------------------------------------------------------------------


def plot_readings(frame: pd.DataFrame) -> Figure:
    """One panel per reading and K: scenarios down, the number along in every distance; the line is
    the figure to be below.
    """
    looks = {
        "MSE": ("#D55E00", "o"),
        "TV": ("#0072B2", "s"),
        "JSD": ("#009E73", "^"),
        INFORMATION: ("#CC79A7", "D"),
    }
    readings, options = list(FIGURES), sorted(frame["options"].unique())
    names = list(dict.fromkeys(frame["scenario"]))
    fig, axes = panels(
        len(options), len(readings), 9.6, 0.24 * len(names) + 0.9, sharey=True, sharex="col"
    )
    for row, k in zip(axes, options, strict=True):
        for ax, reading in zip(row, readings, strict=True):
            mine = frame[(frame["options"] == k) & (frame["reading"] == reading)]
            for name in (*DISTANCES, INFORMATION):
                part = mine[mine["distance"] == name]
                ax.plot(
                    np.maximum(part["value"], 1e-3),
                    part["scenario"].map(names.index),
                    looks[name][1],
                    color=looks[name][0],
                    ms=4.5,
                    label=name,
                )
            ax.axvline(FIGURES[reading], color=COLOURS["chance"], lw=1)
            ax.set_xscale("log")
            ax.set_yticks(range(len(names)), names)
            ax.set(ylim=(len(names) - 0.5, -0.5), title=f"{reading}, K = {k}")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig
