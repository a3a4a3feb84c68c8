"""The three readings of the paper's "MSE distance ratio", in squared error and in other distances, on ladders of known truth.

Each reading says something by lying below a figure: 1/2 for the two of nucleation, 1 for the stage. Where a distance puts it on
the other side than the rest do, that distance misleads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from . import phases as ph
from . import synthetic
from .inference import generator
from .phases import Array
from .synthetic import Design

DISTANCES: dict[str, Callable[[Array, Array], Array]] = {"MSE": ph.mse, "TV": ph.tv, "JSD": ph.jsd_bits}
FIGURES = {"compression": 0.5, "seed": 0.5, "stage": 1.0}
INFORMATION = "liquidity"  # what is left of it stands beside the three compressions


def of_laws(base: Array, sft: Array, final: Array) -> dict[tuple[str, str], float]:
    """(reading, distance) -> number. Laws (prompts, options)."""
    out = {}
    for name, distance in DISTANCES.items():
        pairs = [distance(laws[:, None], laws[None]).sum() for laws in (sft, base)]
        far = distance(base, sft.mean(0))
        moves = distance(sft.mean(0), final.mean(0)), distance(base.mean(0), sft.mean(0))
        out |= {("compression", name): float(ph.ratio(*pairs)), ("seed", name): float(ph.ratio(far.min(), far.mean())),
                ("stage", name): float(ph.ratio(*moves))}
    out["compression", INFORMATION] = float(ph.ratio(ph.liquidity_bits(sft), ph.liquidity_bits(base)))
    return out


def load_readings(options: tuple[int, ...], units: int = 20, tries: int = 20) -> pd.DataFrame:
    """One row per scenario, K, reading and distance: median over ladders, and the share of them below the reading's figure."""
    rows = []
    for scenario in synthetic.SCENARIOS:
        for k in options:
            found: dict[tuple[str, str], list[float]] = {}
            for world in range(tries):
                stages = synthetic.population(scenario, k, world)
                drawn = synthetic.sample(stages, Design(k, units), generator(world, "readings"))
                for key, value in of_laws(*(getattr(drawn, stage).law for stage in synthetic.STAGES)).items():
                    found.setdefault(key, []).append(value)
            rows += [{"scenario": scenario, "options": k, "reading": reading, "distance": distance,
                      "value": float(np.median(values)), "below": float(np.mean(np.array(values) < FIGURES[reading]))}
                     for (reading, distance), values in found.items()]
    return pd.DataFrame(rows)


def disagreements(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of scenario, K and reading in which MSE's median lies on the other side of the figure than that of most others."""
    frame = frame.assign(low=frame["value"] < frame["reading"].map(FIGURES))
    rows = []
    for (scenario, k, reading), mine in frame.groupby(["scenario", "options", "reading"], sort=False):
        rest = mine[mine["distance"] != "MSE"]
        squared = mine[mine["distance"] == "MSE"].iloc[0]
        if squared["low"] != (rest["low"].mean() > 0.5):
            rows.append({"scenario": scenario, "options": k, "reading": reading, "MSE": squared["value"]}
                        | dict(zip(rest["distance"], rest["value"], strict=True)))
    return pd.DataFrame(rows, columns=["scenario", "options", "reading", "MSE", "TV", "JSD", INFORMATION])
