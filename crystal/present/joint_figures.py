"""The joint test, drawn: on ladders of known truth, and on organisms whose demonstrator is known.

Pairs as in `crystal.present.figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.joint_synthetic import MIXED, PROGRESS, SHARE, Panel
from ..measure.marks import MARKS
from ..measure.validation import EXACT
from .figures import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALLOWED, POWER = 0.025, 0.9  # of one-seed: false alarms in any scenario, power at the main design
VERDICTS = {  # share of ladders called so -> look
    "small": ("p at most 5 %", COLOURS["chance"], "o"),
    "one-seed": ("one-seed holds", "#0072B2", "s"),
    "unmixed": ("unmixed holds, too", "#D55E00", "D"),
}


def load_scenarios(joint: pd.DataFrame) -> pd.DataFrame:
    """Every scenario at the main design: name, seed, pure, n, whole, shares of ladders (VERDICTS),
    named, progress.
    """
    main = _at(joint[joint["kind"] == "joint"], Panel())
    order = main.sort_values(["pure", "seed"], ascending=False, kind="stable")
    columns = ["name", "seed", "pure", "n", "whole", *VERDICTS, "named", "progress"]
    return order[columns].reset_index(drop=True)


def plot_scenarios(frame: pd.DataFrame) -> Figure:
    """Scenarios down, those with a seed above the line; along, the share of ladders of which a
    claim is said to hold. Dotted: false alarms allowed, power wanted.
    """
    fig, axes = panels(1, 1, 7.4, 0.27 * len(frame) + 1.3)
    ax = axes[0, 0]
    for column, (label, colour, marker) in VERDICTS.items():
        ax.plot(frame[column], range(len(frame)), marker, color=colour, ms=5, label=label)
    for x in (ALLOWED, POWER):
        ax.axvline(x, color=COLOURS["chance"], lw=1, ls=":")
    ax.axhline(frame["seed"].sum() - 0.5, color=COLOURS["chance"], lw=1)
    ax.set_yticks(range(len(frame)), frame["name"])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(frame) - 0.5, -0.5), xlabel="share of ladders")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def load_thresholds(joint: pd.DataFrame) -> pd.DataFrame:
    """What each mark would have made of the ladders that set it: claim, mark, taken, false alarms
    (most in any scenario where the claim is not true) and in which, power (least) and at which.

    A mixture has no seed that explains it alone: it counts for unmixed, for one-seed neither way.
    """
    frame = joint[joint["kind"] == "threshold"].set_index("name")
    kinds = {
        "one-seed": (PROGRESS, ~frame["seed"], frame["pure"]),
        "unmixed": (SHARE, ~frame["pure"], frame["pure"]),
    }
    rows = []
    for claim, (marks, false, true) in kinds.items():
        for mark in marks:
            alarms, power = (frame.loc[mine, f"{claim} {mark}"] for mine in (false, true))
            rows.append(
                {
                    "claim": claim,
                    "mark": mark,
                    "taken": mark == MARKS[claim].mark,
                    "false alarms": alarms.max(),
                    "in": alarms.idxmax(),
                    "power": power.min(),
                    "at": power.idxmin(),
                }
            )
    return pd.DataFrame(rows)


def load_designs(joint: pd.DataFrame) -> pd.DataFrame:
    """One row per design: what is varied, to what, then by scenario the share of ladders of which
    one-seed holds; of the mixture also unmixed. The main design first.
    """
    frame = joint[joint["kind"] == "joint"]
    fields, main = list(Panel.__dataclass_fields__), vars(Panel())
    names = list(dict.fromkeys(frame.loc[frame["n"] < frame["n"].max(), "name"]))
    rows = {}
    for place, mine in frame.groupby(fields):
        changed = {f: x for f, x in zip(fields, place, strict=True) if x != main[f]}
        mine = mine.set_index("name")
        order = [(fields.index(f), x) for f, x in changed.items()]
        rows[tuple(order)] = (
            {
                "varied": ", ".join(changed) or "main",
                "to": _said(changed),
                "n": int(mine["n"].min()),
            }
            | {name: mine["one-seed"].get(name, np.nan) for name in names}
            | {f"{MIXED}, unmixed": mine["unmixed"].get(MIXED, np.nan)}
        )
    return pd.DataFrame([rows[order] for order in sorted(rows)])


def _said(changed: dict) -> str:
    return ", ".join("read out" if x == EXACT else f"{x:.0f}" for x in changed.values())


def _at(joint: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    return joint[np.all([joint[field] == x for field, x in vars(panel).items()], axis=0)]


def plot_named(frame: pd.DataFrame) -> Figure:
    """Runs along, one mark a parent and seed: progress towards the context that tasks of other kinds name
    with its interval; filled where one-seed holds. The line is the mark.
    """
    runs = list(dict.fromkeys(frame["run"]))
    fig, axes = panels(1, 1, 7.6, 3.0)
    ax = axes[0, 0]
    for run, mine in frame.groupby("run", sort=False):
        at = runs.index(run) + np.linspace(-0.25, 0.25, len(mine))
        for x, row in zip(at, mine.to_dict("records"), strict=True):
            colour = COLOURS["sft"] if row["sort"] == "one demonstrator" else COLOURS["base"]
            full = colour if row["one-seed"] == "holds" else "white"
            ax.plot([x, x], [row["low"], row["high"]], "-", color=colour, lw=1)
            ax.plot(x, row["progress"], "o", color=colour, mfc=full, ms=4.5)
    ax.axhline(MARKS["one-seed"].mark, color=COLOURS["chance"], lw=1)
    ax.set_xticks(range(len(runs)), runs, rotation=20)
    ax.set_ylabel("progress")
    return fig
