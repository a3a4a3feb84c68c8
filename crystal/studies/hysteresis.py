"""Does the way down, from the base to the crystal, equal the way up, back to pretraining? Both ways in one plane.

Across: distance of the mean answer to the demonstrator's law (JSD, bits). Up: liquidity (bits). Means over tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..measure.phases import Array
from . import branches, parents
from .remelting import recorded

DOWN, BACK = "down", "back"
RUN = "pretraining"
COARSE = 0.02  # gap that joining few rungs by straight lines may make by itself


def load_paths(name: str, ladders: Sequence[str]) -> pd.DataFrame:
    """One row per parent, way, rung and group of tasks: to_law, liquidity, to_base, all in bits; order along the way.

    down: base, SFT, DPO, RLVR. back: RLVR, then the steps of further pretraining; absent where it is not recorded.
    """
    grown = sorted({rung.parent for rung in recorded(name, ladders) if rung.run == RUN}, key=list(ladders).index)
    ways = [branches.along(ladders).assign(way=DOWN)]
    if grown:
        back = branches.walk(name, [RUN])
        ways.append(back[back["parent"].isin(grown)].assign(way=BACK))
    frame = pd.concat(ways, ignore_index=True)
    frame["label"] = np.where(frame["way"] == DOWN, frame["rung"], frame["step"].astype(str))
    means = parents.by_group(frame, ["parent", "way", "label", "stage", "step"], ["to_law", "liquidity", "to_base"])
    stages = {stage: place for place, stage in enumerate(("base", "sft", "dpo", "rlvr", "again"))}
    means = means.assign(place=means["stage"].map(stages)).sort_values(["parent", "way", "group", "place", "step"], kind="stable")
    means["order"] = means.groupby(["parent", "way", "group"]).cumcount()
    return means.drop(columns="place").reset_index(drop=True)


def level(distance: Array, liquidity: Array, at: Array) -> Array:
    """Liquidity of a way where it passes the distances `at`: (len(at),), nan where it does not.

    distance, liquidity: (rungs,), joined by straight lines; where the way passes a distance more than once, the mean of all.
    """
    out = np.full(len(at), np.nan)
    for k, x in enumerate(at):
        passed = [y0 if x1 == x0 else y0 + (x - x0) / (x1 - x0) * (y1 - y0)
                  for x0, x1, y0, y1 in zip(distance, distance[1:], liquidity, liquidity[1:], strict=False)
                  if min(x0, x1) <= x <= max(x0, x1)]
        out[k] = np.mean(passed) if passed else np.nan
    return out


def load_gaps(paths: pd.DataFrame, points: int = 41) -> pd.DataFrame:
    """One row per parent with both ways and group: liquidity at equal distance to the law, bits.

    down, back: mean of `level` over the distances that both ways pass (`points` of them, evenly spaced); gap: back less down,
    as a share of the liquidity lost from base to crystal. shared: that range of distances over the range of the way down.
    All nan where the ways share no distance.
    """
    rows = []
    for (parent, group), mine in paths.groupby(["parent", "group"], sort=False):
        down, back = (mine[mine["way"] == way] for way in (DOWN, BACK))
        if len(back):
            rows.append({"parent": parent, "group": group} | _gap(down, back, points))
    return pd.DataFrame(rows)


def side(gaps: pd.Series) -> str:
    """In words, from the gaps of the parents: whether the way back is more liquid, less, or neither."""
    found = parents.estimate(gaps)
    if np.isnan(found.low):
        return "more or less (one parent cannot tell)"
    if found.low <= 0 <= found.high or abs(found.value) < COARSE:
        return "neither more nor less"
    return "more" if found.value > 0 else "less"


def _gap(down: pd.DataFrame, back: pd.DataFrame, points: int) -> dict[str, float]:
    low, high = max(down["to_law"].min(), back["to_law"].min()), min(down["to_law"].max(), back["to_law"].max())
    if low >= high:
        return dict.fromkeys(("down", "back", "gap", "shared"), np.nan)
    at = np.linspace(low, high, points)
    there, again = (level(way["to_law"].to_numpy(), way["liquidity"].to_numpy(), at).mean() for way in (down, back))
    lost = down["liquidity"].iloc[0] - down["liquidity"].iloc[-1]
    return {"down": there, "back": again, "gap": (again - there) / lost,
            "shared": (high - low) / (down["to_law"].max() - down["to_law"].min())}


def load_mean(paths: pd.DataFrame) -> pd.DataFrame:
    """Paths of the parents that went both ways, and before them (parent: MEAN) their mean at the rungs that all were read at."""
    both = set(paths.loc[paths["way"] == BACK, "parent"])
    paths = paths[paths["parent"].isin(both)]
    paths = paths.assign(parents=paths.groupby(["way", "group"])["parent"].transform("nunique"))
    count = paths.groupby(["way", "group", "label", "stage"])["parent"].transform("nunique")
    keys = ["way", "group", "label", "stage", "parents"]
    mean = paths[count == paths["parents"]].groupby(keys, sort=False)[["to_law", "liquidity", "order"]].mean().reset_index()
    return pd.concat([mean.assign(parent=parents.MEAN), paths], ignore_index=True)
