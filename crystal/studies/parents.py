"""What is said of several parents at once: means over tasks, demonstrated and held out apart, and claims judged over parents.

A parent is one trained ladder. Two or more give an interval (Student's t); of one there is a number and no verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..measure.inference import NOTHING, Estimate
from ..measure.judging import Verdict, judge
from ..present import show
from . import branches

DEMONSTRATED, HELD_OUT, ALL = "demonstrated", "held out", "all tasks"
APART = (DEMONSTRATED, HELD_OUT)
MEAN = "mean"  # in place of a parent
POSITIVE, SHARE = (0.0, np.inf), (0.0, 1.0)
BOUNDS = {  # what a quantity cannot leave, by the name of its series; those not named have no bounds
    **dict.fromkeys(("distance", "entropy", "liquidity", "kept", "ratio", "down", "back", "tv", "liquidity kept"), POSITIVE),
    **dict.fromkeys(("to_base", "to_law", "to_uniform", "to_mean"), POSITIVE),
    **dict.fromkeys(("probmass", "off_support", "unresolved", "shared", "follow rate"), SHARE)}


def by_group(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over tasks: one row per key and group (demonstrated, held out, all tasks). frame: one
    row per key and task.

    A mean over tasks of which one has no number is none.
    """
    apart = frame.assign(group=np.where(frame["held_out"], HELD_OUT, DEMONSTRATED))
    both = pd.concat([apart, frame.assign(group=ALL)], ignore_index=True)
    groups = both.groupby([*keys, "group"], sort=False)[list(values)]
    whole = groups.count().eq(groups.size(), axis=0)
    return groups.mean().where(whole).reset_index()


def usable(values: pd.Series) -> pd.Series:
    """The parents' values that exist."""
    return values[np.isfinite(values)]


def estimate(values: pd.Series) -> Estimate:
    """`branches.over_parents` within BOUNDS; of one parent its value without an interval, of none nothing (nan)."""
    there = usable(values)
    if len(there) > 1:
        return branches.over_parents(there, *BOUNDS.get(values.name, ()))
    return Estimate(float(there.mean()) if len(there) else np.nan, np.nan, np.nan, np.array([np.nan]))


def judge_over(claim: str, values: pd.Series) -> Verdict:
    """The verdict on a claim over parents; values: one number a parent. Undecided, with the reason, of fewer than two."""
    there = usable(values)
    if len(there) > 1:
        found = judge(claim, estimate(values))
        return dataclasses.replace(found, reason=f"{found.reason} ({counted(len(there))})")
    said = "no parent was read"
    if len(there):
        said = f"{show.fmt(float(there.iloc[0]))} in the only parent read, and one gives no interval"
    return judge(claim, NOTHING, nothing=said)


def told(values: pd.Series) -> str:
    """Mean and interval over parents, `0.61 [0.52, 0.70]`; of one parent the value alone; a dash of none."""
    found = estimate(values)
    if np.isnan(found.value):
        return "–"
    return show.fmt(found.value) + ("" if np.isnan(found.low) else f" [{show.fmt(found.low)}, {show.fmt(found.high)}]")


def titled(group: str) -> str:
    """A group before a noun: held-out tasks."""
    return "held-out" if group == HELD_OUT else group


def counted(parents: int) -> str:
    """`3 parents`, `1 parent`."""
    return f"{parents} parent{'' if parents == 1 else 's'}"


def intervals(frame: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Of a frame with one row per parent and key: the mean over parents and its interval, and beside it every parent's value.

    Columns: keys, parent (MEAN or a parent's name), value, low, high (nan of one parent), parents (how many have a value).
    """
    rows = []
    for key, mine in frame.groupby(list(keys), sort=False):
        found, place = estimate(mine[value]), dict(zip(keys, key, strict=True)) | {"parents": len(usable(mine[value]))}
        rows.append(place | {"parent": MEAN, "value": found.value, "low": found.low, "high": found.high})
        rows += [place | {"parent": parent, "value": x, "low": np.nan, "high": np.nan}
                 for parent, x in zip(mine["parent"], mine[value], strict=True)]
    return pd.DataFrame(rows)


def limits(values: pd.Series, *more: float) -> tuple[float, float]:
    """Ends of an axis that shows every value; intervals of few parents, far wider, may run beyond it."""
    there = np.append(usable(values), more)
    margin = 0.08 * (there.max() - there.min()) or 0.1
    return float(there.min() - margin), float(there.max() + margin)
