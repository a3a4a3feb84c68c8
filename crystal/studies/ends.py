"""Where the runs of an experiment began and where they ended, and how a number of theirs is said over few parents.

A run that was not recorded yet is left out, so that every number says how many parents it stands on. Knows no single
experiment; `crystal.studies.branches` measures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS
from ..lab import experiments
from ..measure import judging
from ..measure.inference import Estimate, Null
from ..present import show
from ..present.show import fmt
from ..present.telling import slug
from . import branches
from .parents import counted as count
from .parents import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCOPES = ("demonstrated", "held-out")
SPAN = 0.22  # half the width over which parents stand side by side
ALL = "all parents"  # in a tidy frame: the row of their mean
BEFORE = ("liquidity", "to_law", "found", "follows", "off_support")  # kept of the start, as <name>_before
PLACE = ["parent", "run", "task"]
Value = Callable[[pd.DataFrame], float]


# --- first and last step ---------------------------------------------------------------------------------------------


def load_ends(name: str, runs: Sequence[str], *, parents: Sequence[str] = (), intended: str | None = None) -> pd.DataFrame:
    """One row per parent, run and task: the run's last step as `branches.walk` measures it, and BEFORE of its first.

    scope: one of SCOPES. parents: none = all. Runs that were never read are left out; if all are, the frame is empty.
    """
    recorded = {key.partition("/")[2] for key in experiments.load_records(name)}
    wanted = [run for run in runs if run in recorded]
    if not wanted:
        return pd.DataFrame(columns=[*PLACE, "scope", *BEFORE, *(f"{column}_before" for column in BEFORE)])
    walked = branches.walk(name, wanted, intended=intended)
    return ends(walked[walked["parent"].isin(parents or walked["parent"].unique())], runs)


def ends(walked: pd.DataFrame, runs: Sequence[str]) -> pd.DataFrame:
    """`load_ends` of a frame that was walked already and holds every run's first and last step, in the order of `runs`."""
    walked = walked.sort_values("step", kind="stable")
    first, last = (walked.drop_duplicates(PLACE, keep=keep) for keep in ("first", "last"))
    both = last.merge(first[[*PLACE, *BEFORE]], on=PLACE, suffixes=("", "_before"))
    both["scope"] = np.where(both["held_out"], *reversed(SCOPES))
    orders = {"parent": sorted(set(walked["parent"])), "run": list(runs), "scope": SCOPES, "task": PHASE_TASKS}
    return both.sort_values(list(orders), key=lambda column: column.map(orders[column.name].index), ignore_index=True)


def kept(frame: pd.DataFrame) -> float:
    """Liquidity after over liquidity before, both the mean over tasks."""
    return frame["liquidity"].mean() / frame["liquidity_before"].mean()


def removed(frame: pd.DataFrame) -> float:
    """One less the distance to the intended law after, over that before, both the mean over tasks: 1 arrived, 0 not moved."""
    return 1 - frame["to_law"].mean() / frame["to_law_before"].mean()


def follow_rate(frame: pd.DataFrame) -> float:
    """Share of rows whose found law is the intended one."""
    return frame["follows"].mean()


# --- over parents ----------------------------------------------------------------------------------------------------


def over(values: pd.Series, quantity: str = "") -> Estimate:
    """`parents.estimate`, within the bounds it knows for the quantity."""
    return estimate(values.astype(float).rename(quantity or None))  # of no parents it has no dtype


def judge(claim: str, values: pd.Series, null: Null | None = None) -> judging.Verdict:
    """`judging.judge` of a number over parents, which its sentence counts; undecided where they are too few for an interval."""
    if len(values) < 2:
        nothing = f"one parent ({judging.percent(values.iloc[0])}) gives no interval" if len(values) else "nothing was read yet"
        return judging.judge(claim, over(values[:0]), null, nothing=nothing)
    found = judging.judge(claim, over(values), null, chance=null.typical if null else None)
    return dataclasses.replace(found, reason=f"{found.reason}, over {count(len(values))}")


def tidy(frame: pd.DataFrame, by: Sequence[str], quantities: Mapping[str, Value]) -> pd.DataFrame:
    """Per group and quantity one row for each parent and one for ALL, with its interval over parents (nan for one parent).

    Columns: those of `by`, quantity, parent, value, low, high, parents (how many).
    """
    rows = []
    for place, mine in frame.groupby(list(by), sort=False):
        for quantity, value in quantities.items():
            values, at = branches.per_parent(mine, value), {**dict(zip(by, place, strict=True)), "quantity": quantity}
            found = over(values, quantity)
            rows += [at | {"parent": parent, "value": each, "low": np.nan, "high": np.nan, "parents": 1}
                     for parent, each in values.items()]
            rows.append(at | {"parent": ALL, "value": found.value, "low": found.low, "high": found.high, "parents": len(values)})
    return pd.DataFrame(rows, columns=[*by, "quantity", "parent", "value", "low", "high", "parents"])


def means(tidied: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The ALL rows of a tidy frame at a place: columns and the values wanted."""
    chosen = tidied["parent"] == ALL
    for column, value in place.items():
        chosen &= tidied[column] == value
    return tidied[chosen]


# --- as text and marks -----------------------------------------------------------------------------------------------


def recorded(name: str, frame: pd.DataFrame) -> str:
    """Which of an experiment's planned runs stand in a frame of `load_ends`, as a sentence."""
    experiment = experiments.load_experiment(name)
    planned = {run.name: len(run.parents or experiment.parents) for run in experiment.runs}
    there = frame.groupby("run")["parent"].nunique().reindex(list(planned), fill_value=0)
    total, parents = there.sum(), count(frame["parent"].nunique())
    text = f"Of {sum(planned.values())} runs planned, {total} are in these numbers, from {parents}."
    short = [f"`{run}` {there[run]} of {n}" for run, n in planned.items() if there[run] < n]
    if short:
        text += f" Parents still missing: {', '.join(short)}."
    if old := set(frame["parent"] + "/" + frame["run"]) & set(experiments.outdated(name)):
        text += (f" SFT of {len(old)} of them ended after a fixed number of steps, by an older rule "
                 f"and in transition; of {total - len(old)} it had converged. They are not one kind.")
    return text


def interval(row) -> str:
    """`value [low, high]` of anything with these three; the value alone without an interval, a dash without a value."""
    if not np.isfinite(row.value):
        return "–"
    return fmt(row.value) + (f" [{fmt(row.low)}, {fmt(row.high)}]" if np.isfinite(row.low) else "")


def said(tidied: pd.DataFrame, **place: object) -> str:
    """The interval of the one ALL row at a place, for captions and alt texts; a dash if there is none."""
    found = means(tidied, **place)
    return "–" if found.empty else interval(next(found.itertuples()))


def record(tidied: pd.DataFrame, *by: str) -> None:
    """Record every mean of a tidy frame as measured: <quantity>-<by...>, at its scope in place of a ladder."""
    for row in means(tidied).itertuples():
        name = slug(" ".join([row.quantity, *(str(getattr(row, column)) for column in by)]))
        numbers = {"number": row.value, "low": row.low, "high": row.high}
        show.claim(name, ladder=slug(row.scope), verdict="measured", **{part: judging.finite(x) for part, x in numbers.items()},
                   sentence=f"{row.quantity}: {interval(row)}, over {count(row.parents)}")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A MyST table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


def draw_spots(ax: Axes, x: float, rows: pd.DataFrame, colour: str, marker: str, label: str | None = None) -> None:
    """One place of a tidy frame: every parent a small open mark, in order, their mean a full one with its interval."""
    each, whole = rows[rows["parent"] != ALL], rows[rows["parent"] == ALL]
    apart = SPAN * np.linspace(-1, 1, len(each) + 2)[1:-1]
    ax.plot(x + apart, each["value"], marker, ls="", color=colour, mfc="none", ms=3, mew=0.7)
    ax.vlines(np.full(len(whole), x), whole["low"], whole["high"], color=colour)
    ax.plot(np.full(len(whole), x), whole["value"], marker, ls="", color=colour, ms=5, label=label)
