"""Numbers of the page of open and large tasks: what draws say, what the stages moved, and how near the draws come to the truth.

`draws` is a frame of `crystal.drawn.load_draws`. One prompt per narrator: intervals over narrators are over prompts here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from . import coverage as cv
from . import inference as inf
from . import phases as ph
from .open_views import Counts, counted
from .prompts import PROBE
from .telling import fmt
from .views import each_ladder

Statistic = Callable[[np.ndarray], np.ndarray]
FLOOR = "liquidity of a crystal, bits"
QUANTITIES = ("distinct answers", "coverage", "richness", "entropy, bits", "liquidity, bits", FLOOR, "agreement")


def _weights(resamples: int, seed: int) -> np.ndarray:
    return inf.resample(np.arange(len(PROBE)), resamples=resamples, seed=seed)


def _each(draws: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, Counts]]]:
    """(ladder, task, rung -> counts)."""
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            yield ladder, task, counted(mine, task)


def load_numbers(draws: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One row per ladder, task, rung and quantity of QUANTITIES: value, low, high (95 % over narrators).

    Quantities of a single prompt are means over prompts; entropies by Chao, Wang and Jost.
    """
    weights, rows = _weights(resamples, seed), []
    for ladder, task, rungs in _each(draws):
        for rung, (_, counts) in rungs.items():
            found = {name: inf.estimate(statistic, weights) for name, statistic in _statistics(counts).items()}
            found[FLOOR] = inf.exactly(cv.liquidity_floor(counts, inf.generator(seed, f"floor {task} {rung}")))
            rows += [{"ladder": ladder, "task": task, "rung": rung, "quantity": name, "value": found[name].value,
                      "low": found[name].low, "high": found[name].high} for name in QUANTITIES]
    return pd.DataFrame(rows)


def _statistics(counts: np.ndarray) -> dict[str, Statistic]:
    within = {"distinct answers": cv.sample(counts).seen, "coverage": cv.coverage(counts), "richness": cv.richness(counts),
              "entropy, bits": cv.chao_wang_jost(counts)}
    return {name: partial(_mean, values) for name, values in within.items()} | _between(counts)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(-1)


def _between(counts: np.ndarray) -> dict[str, Statistic]:
    return {"liquidity, bits": partial(cv.liquidity, counts), "agreement": partial(cv.agreement, counts)}


def load_moves(draws: pd.DataFrame, first: str, second: str, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """By how much liquidity and agreement changed from rung `first` to `second`: one row per ladder, task and quantity.

    The same narrators are resampled in both, so that what a narrator does to both cancels.
    """
    weights, rows = _weights(resamples, seed), []
    for ladder, task, rungs in _each(draws):
        before, after = (_between(rungs[rung].counts) for rung in (first, second))
        for name in before:
            found = inf.estimate(partial(_difference, before[name], after[name]), weights)
            rows.append({"ladder": ladder, "task": task, "quantity": name, "value": found.value, "low": found.low,
                         "high": found.high})
    return pd.DataFrame(rows)


def _difference(before: Statistic, after: Statistic, weights: np.ndarray) -> np.ndarray:
    return after(weights) - before(weights)


def load_check(draws: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Draws against exact laws, where there are some: one row per ladder, task, rung and quantity, with both values.

    The exact laws are given an option; the draws count what is no option as answers of its own.
    """
    rows = []
    for ladder, task, rungs in _each(draws[draws["task"].isin(truth["task"])]):
        for rung, (_, counts) in rungs.items():
            exact = truth[(truth["ladder"] == ladder) & (truth["task"] == task) & (truth["rung"] == rung)]
            laws = np.stack(exact["probability"].tolist())
            laws = laws / laws.sum(1, keepdims=True)
            square = float((laws**2).sum(1).mean())
            true = {"entropy, bits": ph.entropy_bits(laws).mean(), "liquidity, bits": ph.liquidity_bits(laws),
                    "agreement": 1 - ph.spread(laws) * laws.shape[1] / (2 * square)}
            found = {"entropy, bits": cv.chao_wang_jost(counts).mean(), "liquidity, bits": cv.liquidity(counts),
                     "agreement": cv.agreement(counts)}
            rows += [{"ladder": ladder, "task": task, "rung": rung, "quantity": name, "exact": float(true[name]),
                      "draws": float(found[name]), "off_support": exact["off_support"].mean(),
                      "unresolved": exact["unresolved"].max()} for name in true]
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame, columns: str, values: str = "value") -> str:
    """A MyST table: rows are ladder, task and rung as far as the frame has them, columns the distinct values of one column.

    Where the frame has low and high and they differ, they follow in brackets.
    """
    index = [name for name in ("ladder", "task", "rung") if name in frame and name != columns]
    names = list(frame[columns].unique())
    lines = [[*index, *names], ["---"] * (len(index) + len(names))]
    for place, part in frame.groupby(index, sort=False):
        cells = {row[columns]: _cell(row, values) for row in part.to_dict("records")}
        lines.append([*place, *(cells.get(name, "–") for name in names)])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _cell(row: dict, values: str) -> str:
    if row.get("low", row[values]) == row.get("high", row[values]):
        return fmt(row[values])
    return f"{fmt(row[values])} [{fmt(row['low'])}, {fmt(row['high'])}]"
