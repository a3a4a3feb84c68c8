"""What was simulated, drawn: coverage, false alarms, power, the readings of the paper's ratio.

Pairs as in `crystal.present.figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.readings import DISTANCES, FIGURES, INFORMATION
from ..measure.simulation import JUDGED
from ..measure.validation import EXACT, SETTLED
from .figures import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, LEVEL, WANTED = (0.93, 0.97), 0.05, 0.8  # coverage of a 95 % interval; false alarms; power
SHADES = {2: "#56B4E9", 6: "#009E73", 10: "#0072B2", 26: "#CC79A7", 100: "#D55E00"}  # by number of options
COLLAPSED = ("frozen onto a base law", "frozen onto a law the base lacks", "frozen with leak", "re-melted", "low ranks promoted")


def ours(trials: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of one kind for the design of the book: twenty narrators by five frames, read out."""
    return trials[(trials["kind"] == kind) & (trials["units"] == 20) & (trials["frames"] == 5) & (trials["draws"] == EXACT)]


def load_coverage(trials: pd.DataFrame) -> pd.DataFrame:
    """Coverage of every claim's interval by scenario and K, read out; half of the trials at least must have an interval.

    seed-in-base only where SFT collapsed, for elsewhere there is no one law to seek the seed of. error: binomial.
    """
    frame = ours(trials, "scenario")
    frame = frame[(frame["interval"] >= frame["n"] / 2) & ((frame["claim"] != "seed-in-base") | frame["name"].isin(COLLAPSED))]
    frame = frame.assign(error=np.sqrt(frame["coverage"] * (1 - frame["coverage"]) / frame["interval"]))
    return frame[["claim", "name", "options", "n", "interval", "coverage", "error", "below", "above", "truth"]].reset_index(
        drop=True
    )


def plot_coverage(frame: pd.DataFrame) -> Figure:
    """One panel a claim, scenarios down, coverage along; the band is nominal within two points."""
    return _dots(
        frame, "coverage", "share of intervals that hold the truth", (min(0.78, frame["coverage"].min() - 0.01), 1.005), GOOD
    )


def load_alarms(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts: at the mark, where either verdict is wrong, and by scenario. kind, name, claim, options, rate, of (trials),
    verdict; rows with fewer than fifty trials in which the verdict would be wrong are left out."""
    frame, rows = pd.concat([ours(trials, "mark"), ours(trials, "scenario")]), []
    for verdict, wrong, of in (("holds", "false_holds", "not_true"), ("fails", "false_fails", "not_false")):
        mine = frame[frame[of] >= 50]
        rates = {"verdict": verdict, "of": mine[of], "rate": mine[wrong] / mine[of], "of all": mine[wrong] / mine["n"]}
        rows.append(mine[["kind", "name", "claim", "options"]].assign(**rates))
    return pd.concat(rows, ignore_index=True)


def load_drawn(trials: pd.DataFrame) -> pd.DataFrame:
    """Wrong verdicts at the mark from draws: claim, options, draws, wrongly holds, wrongly fails, coverage."""
    frame = trials[(trials["kind"] == "mark") & (trials["draws"] < EXACT) & (trials["n"] >= 50)]
    names = {"false_holds_rate": "wrongly holds", "false_fails_rate": "wrongly fails"}
    return frame[["claim", "options", "draws", *names, "coverage"]].rename(columns=names).reset_index(drop=True)


def plot_alarms(frame: pd.DataFrame) -> Figure:
    """At the mark: claims down, share of wrong verdicts along, one mark per K and verdict; the line is what is allowed."""
    frame = frame[frame["kind"] == "mark"]
    claims = [claim for claim in JUDGED if claim in set(frame["claim"])]
    fig, axes = panels(1, 2, 8.0, 0.34 * len(claims) + 1.5, sharey=True)
    for ax, verdict in zip(axes[0], ("holds", "fails"), strict=True):
        for options, mine in frame[frame["verdict"] == verdict].groupby("options"):
            ax.plot(
                mine["rate"],
                mine["claim"].map(claims.index) + _shift(options),
                "o",
                color=SHADES[options],
                ms=5,
                label=f"K = {options}",
            )
        ax.axvline(LEVEL, color=COLOURS["chance"], lw=1)
        ax.set_yticks(range(len(claims)), claims)
        ax.set(
            xlim=(-0.002, max(0.07, frame["rate"].max() * 1.1)),
            ylim=(len(claims) - 0.5, -0.5),
            title=f"wrongly {verdict}",
            xlabel="share of trials at the mark",
        )
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


def _shift(options: int) -> float:
    return 0.15 * (list(SHADES).index(options) - 2)


def _dots(frame: pd.DataFrame, value: str, label: str, limits: tuple[float, float], band: tuple[float, float]) -> Figure:
    claims, names = [c for c in JUDGED if c in set(frame["claim"])], list(dict.fromkeys(frame["name"]))
    fig, axes = panels(2, 3, 9.6, 0.26 * len(names) + 1.3, sharex=True, sharey=True)
    for ax, claim in zip(axes.flat, claims, strict=False):
        mine = frame[frame["claim"] == claim]
        ax.axvspan(*band, color=COLOURS["rlvr"], alpha=0.15, lw=0)
        for options, part in mine.groupby("options"):
            ax.plot(
                part[value],
                part["name"].map(names.index) + _shift(options),
                "o",
                color=SHADES[options],
                ms=4.5,
                label=f"K = {options}",
            )
        ax.set_yticks(range(len(names)), names)
        ax.set(xlim=limits, ylim=(len(names) - 0.5, -0.5), title=claim)
    for ax in axes[-1]:
        ax.set_xlabel(label)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


def load_power(trials: pd.DataFrame) -> pd.DataFrame:
    """On a ladder where every claim is true, every prompt a unit: claim, options, draws, units, power (share that holds)."""
    frame = trials[(trials["kind"] == "scenario") & (trials["name"] == SETTLED) & (trials["frames"] == 1) & (trials["n"] < 400)]
    return frame[["claim", "options", "draws", "units", "n", "power", "truth"]].sort_values(
        ["claim", "options", "draws", "units"]
    )


def smallest(power: pd.DataFrame) -> pd.DataFrame:
    """The fewest prompts that reach a power of WANTED, by claim, K and draws; nan if none of those tried does."""
    enough = power[power["power"] >= WANTED].groupby(["claim", "options", "draws"])["units"].min()
    return (
        power.groupby(["claim", "options", "draws"])
        .size()
        .index.to_frame(index=False)
        .merge(enough.rename("prompts").reset_index(), how="left")
    )


def plot_smallest(frame: pd.DataFrame) -> Figure:
    """One panel a claim: K down, draws along, the fewest prompts written in; darker needs more."""
    claims = [c for c in JUDGED if c in set(frame["claim"])]
    options, draws = sorted(frame["options"].unique()), sorted(frame["draws"].unique())
    fig, axes = panels(2, 3, 9.0, 2.5, sharex=True, sharey=True)
    for ax, claim in zip(axes.flat, claims, strict=False):
        table = (
            frame[frame["claim"] == claim]
            .pivot(index="options", columns="draws", values="prompts")
            .reindex(options, columns=draws)
        )
        ax.imshow(table, norm="log", vmin=5, vmax=800, cmap="Blues", aspect="auto")
        ax.set_facecolor("#e4e6e9")  # of cells in which none of those tried is enough
        for (i, j), prompts in np.ndenumerate(table.to_numpy()):
            ax.text(j, i, "none" if np.isnan(prompts) else f"{prompts:.0f}", ha="center", va="center", color="black", fontsize=8)
        ax.set_xticks(range(len(draws)), ["read out" if d == EXACT else f"{d:.0f}" for d in draws])
        ax.set_yticks(range(len(options)), [f"K = {k}" for k in options])
        ax.set_title(claim)
        ax.grid(False)
    for ax in axes[-1]:
        ax.set_xlabel("draws a prompt")
    return fig


def plot_readings(frame: pd.DataFrame) -> Figure:
    """One panel per reading and K: scenarios down, the number along in every distance; the line is the figure to be below."""
    looks = {"MSE": ("#D55E00", "o"), "TV": ("#0072B2", "s"), "JSD": ("#009E73", "^"), INFORMATION: ("#CC79A7", "D")}
    readings, options = list(FIGURES), sorted(frame["options"].unique())
    names = list(dict.fromkeys(frame["scenario"]))
    fig, axes = panels(len(options), len(readings), 9.6, 0.24 * len(names) + 0.9, sharey=True, sharex="col")
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


def load_named_rates(named: pd.DataFrame) -> pd.DataFrame:
    """Mean of named and chance per run, demonstrated and held-out tasks apart."""
    return named.groupby(["run", "held_out"], sort=False)[["named", "chance"]].mean().reset_index()


def plot_named(frame: pd.DataFrame) -> Figure:
    """Runs along; the share of seeds whose narrator holds the intended law, demonstrated and held-out apart; dashes: chance."""
    runs = list(dict.fromkeys(frame["run"]))
    fig, axes = panels(1, 1, 7.2, 2.8)
    ax = axes[0, 0]
    for shift, held_out, colour, label in (
        (-0.12, False, COLOURS["sft"], "demonstrated tasks"),
        (0.12, True, COLOURS["base"], "held-out tasks"),
    ):
        part = frame[frame["held_out"] == held_out]
        at = part["run"].map(runs.index) + shift
        ax.plot(at, part["named"], "o", color=colour, label=label, ms=6)
        ax.hlines(part["chance"], at - 0.1, at + 0.1, color=COLOURS["chance"], label="chance" if held_out else None)
    ax.set_xticks(range(len(runs)), runs)
    ax.set(ylim=(-0.02, 1.03), ylabel="seeds named rightly")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
