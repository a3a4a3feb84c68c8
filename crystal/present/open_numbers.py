"""Numbers of the page of open and large tasks: what draws say, what the stages moved, and how near the draws come to the truth.

`draws` is a frame of `crystal.keep.drawn.load_draws`. One prompt per narrator: intervals over narrators are over prompts here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..ask.prompts import PROBE
from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..measure import coverage as cv
from ..measure import inference as inf
from ..measure import phases as ph
from . import show
from .open_views import Counts, counted
from .telling import fmt
from .views import each_ladder

Statistic = Callable[[np.ndarray], np.ndarray]
FLOOR = "liquidity of a crystal, bits"
QUANTITIES = ("distinct answers", "coverage", "richness", "entropy, bits", "liquidity, bits", FLOOR, "agreement")


EACH = inf.leave_one_out(np.arange(len(PROBE)))


def _each(draws: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, Counts]]]:
    """(ladder, task, rung -> counts)."""
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            yield ladder, task, counted(mine, task)


def load_numbers(draws: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per ladder, task, rung and quantity of QUANTITIES: value, low, high (95 % over narrators).

    Quantities of a single prompt are means over prompts; entropies by Chao, Wang and Jost.
    """
    rows = []
    for ladder, task, rungs in _each(draws):
        for rung, (_, counts) in rungs.items():
            found = {name: inf.estimate(statistic, EACH, low=0) for name, statistic in _statistics(counts).items()}
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


def load_moves(draws: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """By how much liquidity and agreement changed from rung `first` to `second`: one row per ladder, task and quantity.

    The same narrators are left out of both, so that what a narrator does to both cancels.
    """
    rows = []
    for ladder, task, rungs in _each(draws):
        before, after = (_between(rungs[rung].counts) for rung in (first, second))
        for name in before:
            found = inf.estimate(partial(_difference, before[name], after[name]), EACH)
            rows.append({"ladder": ladder, "task": task, "quantity": name, "value": found.value, "low": found.low,
                         "high": found.high})
    return pd.DataFrame(rows)


def _difference(before: Statistic, after: Statistic, weights: np.ndarray) -> np.ndarray:
    return after(weights) - before(weights)


def load_check(draws: pd.DataFrame, truth: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Draws against exact laws, where there are some, both given an option: one row per ladder, task, rung and quantity.

    Draws that read as an option, thinned at random to the same number in every prompt, so that they can be pooled.
    """
    rows = []
    for ladder, task, rungs in _each(draws[draws["task"].isin(truth["task"])]):
        for rung, found in rungs.items():
            exact = truth[(truth["ladder"] == ladder) & (truth["task"] == task) & (truth["rung"] == rung)]
            kept = thinned(found.counts * np.isin(found.options, TASKS[task].options), inf.generator(seed, f"thin {rung}"))
            true, drawn = _of_laws(np.stack(exact["probability"].tolist())), _of_counts(kept)
            rows += [{"ladder": ladder, "task": task, "rung": rung, "quantity": name, "exact": float(true[name]),
                      "draws": float(drawn[name]), "off_support": exact["off_support"].mean()} for name in true]
    return pd.DataFrame(rows)


def _of_laws(laws: np.ndarray) -> dict[str, float]:
    laws = laws / laws.sum(1, keepdims=True)
    most = 2 * (laws**2).sum(1).mean() / laws.shape[1]  # the spread of laws that share no option
    return {"entropy, bits": ph.entropy_bits(laws).mean(), "liquidity, bits": ph.liquidity_bits(laws),
            "agreement": 1 - ph.spread(laws) / most}


def _of_counts(counts: np.ndarray) -> dict[str, float]:
    return {"entropy, bits": cv.chao_wang_jost(counts).mean(), "liquidity, bits": cv.liquidity(counts),
            "agreement": cv.agreement(counts)}


def thinned(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (prompts, options) with every prompt's draws cut, without replacement, to the number of the one with the fewest."""
    fewest = counts.sum(1).min()
    return np.stack([rng.multivariate_hypergeometric(row, fewest, method="marginals") for row in counts])


def load_nominal(truth: pd.DataFrame, rung: str, task: str, shorter: str) -> pd.DataFrame:
    """What a long list adds to a shorter one that begins it: one row per ladder.

    last: the shorter list's last option; unused: share of the options behind it; beyond: their mean probability; and for MSE
    and total variation the mean distance of two narrators over the whole list (_long) and over the shorter one alone (_short).
    """
    rows, k = [], len(TASKS[shorter].options)
    for ladder, mine in each_ladder(truth[(truth["rung"] == rung) & (truth["task"] == task)]):
        laws = np.stack(mine["probability"].tolist())
        whole, cut = (law / law.sum(1, keepdims=True) for law in (laws, laws[:, :k]))
        row = {"ladder": ladder, "last": TASKS[task].options[k - 1], "unused": 1 - k / laws.shape[1],
               "beyond": whole[:, k:].sum(1).mean()}
        for name, distance in (("mse", ph.mse), ("tv", ph.tv)):
            for length, law in (("long", whole), ("short", cut)):
                row[f"{name}_{length}"] = float(mean_pair(distance(law[:, None], law[None]), np.ones(len(law))))
        rows.append(row)
    return pd.DataFrame(rows)


def check_table(check: pd.DataFrame) -> str:
    """`load_check` as a MyST table, the exact number and the one from draws side by side."""
    long = check.melt(["ladder", "task", "rung", "quantity", "off_support"], ["exact", "draws"], "from")
    long["column"] = long["quantity"] + ", " + long["from"]
    off = check.drop_duplicates(["ladder", "task", "rung"])
    off = off.assign(column="no option, exact", value=off["off_support"])
    order = [f"{quantity}, {side}" for quantity in check["quantity"].unique() for side in ("exact", "draws")]
    long = long.sort_values("column", key=lambda column: column.map(order.index), kind="stable")
    return table(pd.concat([long, off]).sort_values(["ladder", "task"], kind="stable"), "column")


def mean_pair(distance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean distance of two different prompts, (prompts, prompts) -> (...); a prompt drawn twice is not paired with itself."""
    w = weights / weights.sum(-1, keepdims=True)
    return ph.ratio(((w @ distance) * w).sum(-1), 1 - (w**2).sum(-1))


def quantity(name: str, *numbers: float) -> str:
    """"liquidity 0.69 [0.57, 0.81] bit" from "liquidity, bits" and value, low, high, or the value alone."""
    kind, comma, _ = name.partition(", bits")
    value, *ends = map(fmt, numbers)
    return f"{kind} {value}" + (f" [{', '.join(ends)}]" if ends else "") + (" bit" if comma else "")


def table(frame: pd.DataFrame, columns: str, values: str = "value") -> str:
    """A MyST table: rows are task and rung as far as the frame has them, and ladder if it has several; columns the distinct
    values of one column.

    Where the frame has low and high and they differ, they follow in brackets.
    """
    several = "ladder" in frame and frame["ladder"].nunique() > 1
    index = [name for name in ("ladder", "task", "rung") if name in frame and name != columns and (name != "ladder" or several)]
    names = list(frame[columns].unique())
    lines = []
    for place, part in frame.groupby(index, sort=False):
        cells = {row[columns]: _cell(row, values) for row in part.to_dict("records")}
        lines.append([*place, *(cells.get(name, "–") for name in names)])
    return show.table([*index, *names], lines)


def _cell(row: dict, values: str) -> str:
    if row.get("low", row[values]) == row.get("high", row[values]):
        return fmt(row[values])
    return f"{fmt(row[values])} [{fmt(row['low'])}, {fmt(row['high'])}]"


def one(frame: pd.DataFrame, **where: object) -> pd.Series:
    """The one row whose columns have these values.

    Raises: CrystalError if there are none or several.
    """
    rows = frame[np.logical_and.reduce([frame[name] == value for name, value in where.items()])]
    if len(rows) != 1:
        raise CrystalError(f"{len(rows)} rows, not one, where {where}", mend=f"name values of: {', '.join(frame.columns)}")
    return rows.iloc[0]


def measured(name: str, sentence: str, row: pd.Series | None = None, **fields: object) -> str:
    """Record a measured number in the page's claims and give its plain sentence back as MyST.

    row: value, low, high, ladder and task.
    """
    if row is not None:
        fields = {"ladder": row["ladder"], "task": row["task"], "number": row["value"], "low": row["low"],
                  "high": row["high"]} | fields
    show.claim(name, verdict="measured", sentence=sentence, **fields)
    return show.listed([sentence])
