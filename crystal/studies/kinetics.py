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
from ..measure.quantities import Array
from . import runs
from .remelting import AGAIN, recorded
from .runs import ALL, APART, DEMONSTRATED, HELD_OUT, by_group, over_parents, per_parent, where

RATES = ("slow", "usual", "fast")  # runs at three learning rates
ALONG = ("liquidity", "to_distribution", "fluctuation", "progress", "entropy")


def load_means(path: pd.DataFrame, values: Sequence[str] = ALONG) -> pd.DataFrame:
    """Means over tasks, by parent, run, step and group; share: of the liquidity at step 0."""
    means = by_group(path, ["parent", "run", "step"], values).sort_values("step", kind="stable")
    start = means.groupby(["parent", "run", "group"])["liquidity"].transform("first")
    return means.assign(share=means["liquidity"] / start)


def load_transition(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """`load_means` of one run, demonstrated and held-out tasks apart."""
    means = where(load_means(path), run=run)
    means = means[means["group"].isin(APART)]
    return means.sort_values(["parent", "group", "step"], ignore_index=True)


def load_rates(path: pd.DataFrame, name: str = "kinetics") -> pd.DataFrame:
    """Liquidity share of all tasks by step and dose, step x rate; parents that have all RATES."""
    path = path[path["run"].isin(RATES)]
    number = path.groupby("parent")["run"].transform("nunique")
    means = where(load_means(path[number == len(RATES)], ["liquidity"]), group=ALL)
    settings = {run.name: run.set for run in load_experiment(name).runs}
    places = list(zip(means["parent"], means["run"], strict=True))
    rates = {
        (parent, run): load_recipe(parent, settings[run]).sft["learning_rate"]
        for parent, run in set(places)
    }
    means["rate"] = [rates[place] for place in places]
    means["dose"] = means["step"] * means["rate"]
    means = means.sort_values(["parent", "rate", "step"], ignore_index=True)
    return means[["parent", "run", "step", "liquidity", "rate", "share", "dose"]]


def load_half_lives(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """`half_life` by parent and task."""
    mine = where(path, run=run).sort_values("step")
    tasks = mine.groupby(["parent", "task", "group"], sort=False)[["step", "liquidity"]]
    found = tasks.apply(lambda one: half_life(one["step"], one["liquidity"]))
    return found.rename("half_life").reset_index()


def load_fluctuations(path: pd.DataFrame, run: str = "usual") -> pd.DataFrame:
    """By step and group: variance of progress over personas, and over parents."""
    steps = load_transition(path, run).groupby(["group", "step"], sort=False)
    columns = {"personas": ("fluctuation", "mean"), "parents": ("progress", "var")}
    return steps.agg(**columns, progress=("progress", "mean")).reset_index()


def load_settling(ladders: pd.DataFrame, opposed: pd.DataFrame) -> pd.DataFrame:
    """Along DPO and RLVR, by parent, run, step and group; step 0 is the end of the stage before.

    ladders: `runs.along`; opposed: `runs.walk` of the DPO whose judge prefers another distribution.
    """
    parts = []
    for run, stage, before in (("dpo, favouring", "dpo", "sft"), ("rlvr", "rlvr", "dpo")):
        start = where(ladders, checkpoint=before).assign(step=0)
        parts.append(pd.concat([start, where(ladders, stage=stage)]).assign(run=run))
    parts.append(opposed.assign(run="dpo, opposing"))
    values = ["probmass", "to_distribution", "liquidity", "to_base"]
    means = load_means(pd.concat(parts, ignore_index=True), values).drop(columns="share")
    means = means[means["group"].isin(APART)]
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
    mine = where(load_means(path), run=run, group=group)
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
    mine, far = where(load_means(path), run="usual", group=HELD_OUT), "to_distribution"
    recede = lambda one: one[far].iloc[-1] / one[far].min()  # noqa: E731
    return over_parents(per_parent(mine, recede), 1)


def fluctuations_peak(path: pd.DataFrame) -> Estimate:
    """Variance of progress over personas, all tasks: its peak over its last value."""
    peak = lambda one: one["fluctuation"].max() / one["fluctuation"].iloc[-1]  # noqa: E731
    return over_parents(per_parent(where(load_means(path), run="usual", group=ALL), peak), 1)


def peak_step(path: pd.DataFrame, run: str = "usual") -> Estimate:
    """Step at which personas differ most in progress, all tasks together."""
    peak = lambda one: one["step"].iloc[int(one["fluctuation"].argmax())]  # noqa: E731
    return over_parents(per_parent(where(load_means(path), run=run, group=ALL), peak), 0)


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
    """One row per parent, way, checkpoint and group: to_distribution, liquidity, to_base, bits.

    down: base, SFT, DPO, RLVR. back: RLVR, then steps of further pretraining, where recorded.
    """
    ways = [runs.along(ladders).assign(way=DOWN)]
    if grown := {c.parent for c in recorded(name, ladders) if c.run == AGAIN}:
        ways.append(runs.walk(name, [AGAIN], parents=grown).assign(way=BACK))
    frame = pd.concat(ways, ignore_index=True)
    frame["label"] = np.where(frame["way"] == DOWN, frame["checkpoint"], frame["step"].astype(str))
    keys = ["parent", "way", "label", "stage", "step"]
    means = by_group(frame, keys, ["to_distribution", "liquidity", "to_base"])
    place = ["parent", "way", "group"]
    means = means.sort_values(place, kind="stable", ignore_index=True)
    return means.assign(order=means.groupby(place).cumcount())


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
        if passed:
            out[k] = np.mean(passed)
    return out


def load_gaps(paths: pd.DataFrame) -> pd.DataFrame:
    """By parent with both ways and group: liquidity at equal distance to the distribution, bits.

    down, back: mean of `level` at POINTS over the distances that both ways pass. gap: back less
    down, as a share of the liquidity lost from base to crystal. shared: that range of distances
    over that of the way down. All nan where the ways share no distance.
    """
    rows = []
    for (parent, group), mine in paths.groupby(["parent", "group"], sort=False):
        down, back = (where(mine, way=way) for way in (DOWN, BACK))
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
    """Paths of the parents that went both ways, and first (parent: MEAN) their mean, over the
    checkpoints that all were read at.
    """
    paths = paths[paths["parent"].isin(where(paths, way=BACK)["parent"])]
    number = paths.groupby(["way", "group"])["parent"].transform("nunique")
    paths, keys = paths.assign(parents=number), ["way", "group", "label", "stage"]
    shared = paths[paths.groupby(keys)["parent"].transform("nunique") == number]
    groups = shared.groupby([*keys, "parents"], sort=False)
    mean = groups[["to_distribution", "liquidity", "order"]].mean().reset_index()
    return pd.concat([mean.assign(parent=runs.MEAN), paths], ignore_index=True)
