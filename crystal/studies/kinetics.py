"""When the distributions freeze: paths along SFT at several rates, along DPO and RLVR; and back.

`path` is a frame of `runs.walk` or `along`. Means over tasks are taken within a parent;
intervals run over parents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..lab.recipes import load_experiment, load_recipe
from ..measure.claims import Verdict, judge
from ..measure.inference import Estimate
from . import runs
from .remelting import AGAIN, recorded
from .runs import DEMONSTRATED, HELD_OUT, Array, by_group, over_parents, per_parent, where

RATES = ("slow", "usual", "fast")  # runs at three learning rates
GROUPS = {False: DEMONSTRATED, True: HELD_OUT}


def load_means(
    path: pd.DataFrame, values: Sequence[str], *, by: Sequence[str] = ("group",)
) -> pd.DataFrame:
    """Mean of `values` over tasks: one row per parent, run, step and `by`; group: of APART."""
    path = path.assign(group=path["held_out"].map(GROUPS))
    groups = path.groupby(["parent", "run", "step", *by], sort=False)
    return groups[list(values)].mean().reset_index()


def load_transition(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """By parent, step and group: liquidity as a share of the base's, and the like."""
    values = ["liquidity", "to_distribution", "fluctuation", "progress", "entropy"]
    means = load_means(where(path, run=run), values)
    start = means[means["step"] == 0].set_index(["parent", "group"])["liquidity"]
    share = means["liquidity"] / means.set_index(["parent", "group"]).index.map(start)
    return means.assign(share=share).sort_values(["parent", "group", "step"], ignore_index=True)


def load_rates(path: pd.DataFrame, name: str = "kinetics") -> pd.DataFrame:
    """Liquidity share of all tasks by step and dose, step x rate; parents that have all RATES."""
    path = path[path["run"].isin(RATES)]
    number = path.groupby("parent")["run"].transform("nunique")
    means = load_means(path[number == len(RATES)], ["liquidity"], by=[])
    settings = {run.name: run.set for run in load_experiment(name).runs}
    index = pd.MultiIndex.from_frame(means[["parent", "run"]])
    rates = {at: load_recipe(at[0], settings[at[1]]).sft["learning_rate"] for at in set(index)}
    first = where(means, step=0).set_index(["parent", "run"])["liquidity"]
    means["rate"] = [rates[at] for at in index]
    means["share"] = means["liquidity"].to_numpy() / first.loc[index].to_numpy()
    means["dose"] = means["step"] * means["rate"]
    return means.sort_values(["parent", "rate", "step"], ignore_index=True)


def load_half_lives(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """`half_life` by parent and task."""
    mine, keys = where(path, run=run).sort_values("step"), ["parent", "task", "held_out"]
    rows = [
        (*place, GROUPS[held_out], half_life(one["step"], one["liquidity"]))
        for (*place, held_out), one in mine.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=["parent", "task", "group", "half_life"])


def load_fluctuations(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """By step and group: variance of progress over personas, and over parents."""
    grouped = load_transition(path, run).groupby(["group", "step"], sort=False)
    means, over = grouped[["fluctuation", "progress"]].mean(), grouped["progress"].var(ddof=1)
    means.insert(1, "parents", over)
    return means.rename(columns={"fluctuation": "personas"}).reset_index()


def load_settling(ladders: pd.DataFrame, opposed: pd.DataFrame) -> pd.DataFrame:
    """Along DPO and RLVR, by parent, run, step and group; step 0 is the end of the stage before.

    ladders: `runs.along`; opposed: `runs.walk` of the DPO whose judge prefers another distribution,
    measured against the same demonstrator.
    """
    parts = [opposed.assign(run="dpo, opposing")]
    for stage, before in (("rlvr", "dpo"), ("dpo", "sft")):
        start = ladders[ladders["checkpoint"] == before].assign(step=0)
        run = "dpo, favouring" if stage == "dpo" else stage
        parts.insert(0, pd.concat([start, ladders[ladders["stage"] == stage]]).assign(run=run))
    frame = pd.concat(parts, ignore_index=True)
    means = load_means(frame, ["probmass", "to_distribution", "liquidity", "to_base"])
    return means.sort_values(["run", "parent", "group", "step"], ignore_index=True)


# --- claims


def half_life(steps: Array, liquidity: Array) -> float:
    """First step at which liquidity is at most half of its first value; nan if it never is.

    Linear between the steps that were watched.
    """
    steps, liquidity = np.asarray(steps, float), np.asarray(liquidity, float)
    share = liquidity / liquidity[0]
    below = np.flatnonzero(share <= 0.5)
    if not below.size:
        return float("nan")
    i = below[0]
    part = (share[i - 1] - 0.5) / (share[i - 1] - share[i])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))


def half_lives(path: pd.DataFrame, group: str, run: str = "usual") -> pd.Series:
    """Half-life of the mean liquidity of a group's tasks, by parent, in steps."""
    mine = where(load_transition(path, run), group=group)
    return per_parent(mine, lambda one: half_life(one["step"], one["liquidity"]))


def demonstrated_first(path: pd.DataFrame) -> Verdict:
    """Half-life of demonstrated over held-out tasks, parent by parent."""
    ratio = half_lives(path, DEMONSTRATED) / half_lives(path, HELD_OUT)
    return judge("demonstrated-first", over_parents(ratio, 0), nothing="liquidity does not halve")


def steps_times_rate(rates: pd.DataFrame) -> Estimate:
    """Factor between the half-lives in steps x rate at the highest and lowest rate."""

    def factor(mine: pd.DataFrame) -> float:
        ends = [half_life(one["dose"], one["liquidity"]) for _, one in mine.groupby("rate")]
        ratio = ends[-1] / ends[0]
        return max(ratio, 1 / ratio)

    return over_parents(per_parent(rates, factor), 1)


def held_out_recedes(path: pd.DataFrame) -> Estimate:
    """Distance of held-out tasks to the distribution: last step over smallest on the way."""
    mine, far = where(load_transition(path), group=HELD_OUT), "to_distribution"
    recede = lambda one: one[far].iloc[-1] / one[far].min()  # noqa: E731
    return over_parents(per_parent(mine, recede), 1)


def _fluctuation(path: pd.DataFrame, run: str) -> pd.DataFrame:
    """Variance of progress over personas, mean over all tasks, by parent and step."""
    return load_means(where(path, run=run), ["fluctuation"], by=[]).sort_values("step")


def fluctuations_peak(path: pd.DataFrame) -> Estimate:
    """Variance of progress over personas, all tasks: its peak over its last value."""
    peak = lambda one: one["fluctuation"].max() / one["fluctuation"].iloc[-1]  # noqa: E731
    return over_parents(per_parent(_fluctuation(path, "usual"), peak), 1)


def peak_step(path: pd.DataFrame, run: str = "usual") -> Estimate:
    """Step at which personas differ most in progress, all tasks together."""
    peak = lambda one: one["step"].iloc[int(one["fluctuation"].argmax())]  # noqa: E731
    return over_parents(per_parent(_fluctuation(path, run), peak), 0)


def reward_decides(settling: pd.DataFrame) -> Verdict:
    """Mass on the seed's options after favouring less that after opposing DPO, by parent."""
    mine = where(settling, group=DEMONSTRATED)
    last = mine.groupby(["run", "parent"])["probmass"].last()
    gap = (last["dpo, favouring"] - last["dpo, opposing"]).dropna()
    return judge("reward-decides", over_parents(gap))


# --- hysteresis: the way down, base to crystal, and the way up, back to pretraining

DOWN, BACK = "down", "back"
POINTS = 41  # distances at which the two ways are compared
COARSE = 0.02  # gap that joining few checkpoints by straight lines may make by itself


def load_paths(name: str, ladders: Sequence[str]) -> pd.DataFrame:
    """One row per parent, way, checkpoint and group: to_distribution, liquidity, to_base, bits;
    order along it.

    down: base, SFT, DPO, RLVR. back: RLVR, then steps of further pretraining, where recorded.
    """
    grown = {c.parent for c in recorded(name, ladders) if c.run == AGAIN}
    ways = [runs.along(ladders).assign(way=DOWN)]
    if grown:
        back = runs.walk(name, [AGAIN])
        ways.append(back[back["parent"].isin(grown)].assign(way=BACK))
    frame = pd.concat(ways, ignore_index=True)
    frame["label"] = np.where(frame["way"] == DOWN, frame["checkpoint"], frame["step"].astype(str))
    keys = ["parent", "way", "label", "stage", "step"]
    means = by_group(frame, keys, ["to_distribution", "liquidity", "to_base"])
    means["place"] = means["stage"].map(["base", "sft", "dpo", "rlvr", "again"].index)
    order = ["parent", "way", "group", "place", "step"]
    means = means.sort_values(order, kind="stable", ignore_index=True).drop(columns="place")
    return means.assign(order=means.groupby(["parent", "way", "group"]).cumcount())


def level(distance: Array, liquidity: Array, at: Array) -> Array:
    """Liquidity of a way where it passes the distances `at`: (len(at),), nan where it does not.

    distance, liquidity: (checkpoints,), joined by straight lines; the mean of all passes.
    """
    pairs = list(zip(distance, distance[1:], liquidity, liquidity[1:], strict=False))
    out = np.full(len(at), np.nan)
    for k, x in enumerate(at):
        passed = [
            y0 if x1 == x0 else y0 + (x - x0) / (x1 - x0) * (y1 - y0)
            for x0, x1, y0, y1 in pairs
            if min(x0, x1) <= x <= max(x0, x1)
        ]
        out[k] = np.mean(passed) if passed else np.nan
    return out


def load_gaps(paths: pd.DataFrame) -> pd.DataFrame:
    """By parent with both ways and group: liquidity at equal distance to the distribution, bits.

    down, back: mean of `level` over the distances that both ways pass (POINTS, evenly spaced).
    gap: back less down, as a share of the liquidity lost from base to crystal. shared: that range
    of distances over the range of the way down. All nan where the ways share no distance.
    """
    rows = []
    for (parent, group), mine in paths.groupby(["parent", "group"], sort=False):
        down, back = (mine[mine["way"] == way] for way in (DOWN, BACK))
        if len(back):
            rows.append((parent, group, *_gap(down, back)))
    return pd.DataFrame(rows, columns=["parent", "group", "down", "back", "gap", "shared"])


def _gap(down: pd.DataFrame, back: pd.DataFrame) -> tuple[float, ...]:
    ends = [(way["to_distribution"].min(), way["to_distribution"].max()) for way in (down, back)]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    if low >= high:
        return (np.nan,) * 4
    at, columns = np.linspace(low, high, POINTS), ["to_distribution", "liquidity"]
    there, again = (level(*way[columns].to_numpy().T, at).mean() for way in (down, back))
    lost = down["liquidity"].iloc[0] - down["liquidity"].iloc[-1]
    return there, again, (again - there) / lost, (high - low) / (ends[0][1] - ends[0][0])


def side(gaps: pd.Series) -> str:
    """In words, from the gaps of the parents: whether the way back is more liquid or less."""
    found = runs.estimate(gaps)
    if np.isnan(found.low):
        return "more or less (one base cannot tell)"
    if found.low <= 0 <= found.high or abs(found.value) < COARSE:
        return "neither more nor less"
    return "more" if found.value > 0 else "less"


def load_mean(paths: pd.DataFrame) -> pd.DataFrame:
    """Paths of the parents that went both ways, and first (parent: MEAN) their mean.

    The mean is over the checkpoints that all were read at.
    """
    both = set(paths.loc[paths["way"] == BACK, "parent"])
    paths = paths[paths["parent"].isin(both)]
    number = paths.groupby(["way", "group"])["parent"].transform("nunique")
    paths = paths.assign(parents=number)
    keys = ["way", "group", "label", "stage"]
    shared = paths[paths.groupby(keys)["parent"].transform("nunique") == number]
    groups = shared.groupby([*keys, "parents"], sort=False)
    mean = groups[["to_distribution", "liquidity", "order"]].mean().reset_index()
    return pd.concat([mean.assign(parent=runs.MEAN), paths], ignore_index=True)
