"""The page of open and large tasks: texts read as answers, counted and estimated.

`draws` is a frame of `crystal.keep.drawn.load_draws`, `truth` the exact distributions beside them.
One prompt per persona: intervals over personas are over prompts here.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..ask.prompts import PROBE
from ..ask.tasks import TASKS, Task, first_answer, read
from ..errors import CrystalError
from ..lab.world import FACTS
from ..measure import inference as inf
from ..measure import quantities as cv
from ..measure import quantities as ph
from . import show
from .show import number as fmt
from .views import each_ladder, estimated

Statistic = Callable[[np.ndarray], np.ndarray]
UNREAD = ""  # the answer of a text that holds none; an option like any other, so no draw is lost
# In the order they are tried: what is both ("ten", a number and a card rank) goes with the first.
_KINDS = {"number": ("thousand",)}
_KINDS |= {name: (name,) for name in ("colour", "month", "weekday", "letter")}
_KINDS |= {"coin or card": ("coin", "suit", "rank")}
KINDS = (*_KINDS, "capital", "opposite", "other", "none")
FLOOR = "liquidity of a crystal, bits"
QUANTITIES = (
    *("distinct answers", "coverage", "richness", "entropy, bits", "liquidity, bits"),
    *(FLOOR, "agreement"),
)
EACH = inf.leave_one_out(np.arange(len(PROBE)))


# -- texts as counts


class Counts(NamedTuple):
    """How often each answer to one task was drawn: counts (prompts, options), in PROBE's order."""

    options: tuple[str, ...]
    counts: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        return self.counts.sum(0)


def answer(text: str, task: Task) -> str:
    """The option that `text` reads as, else its first answer as it stands, else UNREAD."""
    return read(text, task) or first_answer(text) or UNREAD


@functools.cache
def _answer(text: str, task: str) -> str:
    return answer(text, TASKS[task])


def counted(draws: pd.DataFrame, task: str) -> dict[str, Counts]:
    """Checkpoint -> Counts over one list of options: those drawn from any checkpoint, most frequent
    first.

    draws: of one ladder.
    """
    rows, total, cells = draws[draws["task"] == task], Counter(), []
    for texts in rows["texts"]:
        cells.append(Counter())
        for text, count in texts.items():
            cells[-1][_answer(text, task)] += count
        total.update(cells[-1])
    options = tuple(sorted(total, key=lambda option: (-total[option], option)))
    place = {option: k for k, option in enumerate(options)}
    table = np.zeros((len(cells), len(options)), np.int64)
    for row, cell in zip(table, cells, strict=True):
        row[[place[option] for option in cell]] = list(cell.values())
    at = {
        checkpoint: (rows["checkpoint"] == checkpoint).to_numpy()
        for checkpoint in rows["checkpoint"].unique()
    }
    return {checkpoint: Counts(options, table[mine]) for checkpoint, mine in at.items()}


def each_count(draws: pd.DataFrame) -> Iterator[tuple[dict[str, str], Counts]]:
    """({ladder, task, checkpoint}, its answers)."""
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            for checkpoint, counts in counted(mine, task).items():
                yield {"ladder": ladder, "task": task, "checkpoint": checkpoint}, counts


def kind(said: str) -> str:
    """What kind of thing an answer is, among those the organism's world is made of."""
    return "none" if said == UNREAD else _lexicon().get(said.casefold(), "other")


@functools.cache
def _lexicon() -> dict[str, str]:
    tasks = [(name, task) for name, of in _KINDS.items() for task in of]
    listed = [(name, word) for name, task in tasks for word in TASKS[task].spellings]
    listed += [(f.task.name.partition("-")[0], option) for f in FACTS for option in f.task.options]
    return {word.casefold(): name for name, word in reversed(listed)}  # the first one stays


def others(counts: Counts) -> Sequence[str]:
    """The five most frequent answers of kind "other"."""
    order = np.argsort(-counts.pooled, kind="stable")
    named = (counts.options[k] for k in order if counts.pooled[k])
    return [option for option in named if kind(option) == "other"][:5]


# -- numbers


def load_numbers(draws: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per ladder, task, checkpoint and quantity of QUANTITIES: value, low, high (95 %).

    Quantities of a single prompt are means over prompts; entropies by Chao, Wang and Jost.
    """
    rows = []
    for place, (_, counts) in each_count(draws):
        within = dict(zip(QUANTITIES, (cv.sample(counts).seen, cv.coverage(counts))))
        within |= {"richness": cv.richness(counts), "entropy, bits": cv.chao_wang_jost(counts)}
        statistics = {name: partial(_mean, values) for name, values in within.items()}
        statistics |= _between(counts)
        found = {name: inf.estimate(one, EACH, low=0) for name, one in statistics.items()}
        chance = inf.generator(seed, f"floor {place['task']} {place['checkpoint']}")
        found[FLOOR] = inf.exactly(cv.liquidity_floor(counts, chance))
        rows += [place | {"quantity": q} | estimated(found[q]) for q in QUANTITIES]
    return pd.DataFrame(rows)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(-1)


def _between(counts: np.ndarray) -> dict[str, Statistic]:
    return {
        "liquidity, bits": partial(cv.liquidity, counts),
        "agreement": partial(cv.agreement, counts),
    }


def load_moves(draws: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Change of liquidity and agreement between two checkpoints: a row per ladder, task and
    quantity.

    The same personas are left out of both, so that what a persona does to both cancels.
    """
    rows = []
    found = {tuple(place.values()): _between(counts.counts) for place, counts in each_count(draws)}
    for (ladder, task, checkpoint), before in found.items():
        for name in before if checkpoint == first else ():
            rise = partial(_difference, before[name], found[ladder, task, second][name])
            place = {"ladder": ladder, "task": task, "quantity": name}
            rows.append(place | estimated(inf.estimate(rise, EACH)))
    return pd.DataFrame(rows)


def _difference(before: Statistic, after: Statistic, weights: np.ndarray) -> np.ndarray:
    return after(weights) - before(weights)


def where(frame: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return frame[np.logical_and.reduce([frame[name] == value for name, value in place.items()])]


def distributions_of(exact: pd.DataFrame) -> np.ndarray:
    """(prompts, options), each row given an option."""
    distributions = np.stack(exact["probability"].tolist())
    return distributions / distributions.sum(1, keepdims=True)


def load_check(draws: pd.DataFrame, truth: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Draws against exact distributions: one row per ladder, task, checkpoint and quantity.

    Both given an option; draws are thinned at random to the same number in every prompt.
    """
    rows = []
    for place, found in each_count(draws[draws["task"].isin(truth["task"])]):
        exact = where(truth, **place)
        read = found.counts * np.isin(found.options, TASKS[place["task"]].options)
        drawn = _of_counts(thinned(read, inf.generator(seed, f"thin {place['checkpoint']}")))
        for name, true in _of_distributions(distributions_of(exact)).items():
            row = place | {"quantity": name, "exact": float(true), "draws": float(drawn[name])}
            rows.append(row | {"invalid": exact["invalid"].mean()})
    return pd.DataFrame(rows)


def _of_distributions(distributions: np.ndarray) -> dict[str, float]:
    most = (
        2 * (distributions**2).sum(1).mean() / distributions.shape[1]
    )  # the spread of distributions that share no option
    found = {"entropy, bits": ph.entropy_bits(distributions).mean()}
    found |= {"liquidity, bits": ph.liquidity_bits(distributions)}
    return found | {"agreement": 1 - ph.spread(distributions) / most}


def _of_counts(counts: np.ndarray) -> dict[str, float]:
    found = {"entropy, bits": cv.chao_wang_jost(counts).mean()}
    return found | {name: statistic() for name, statistic in _between(counts).items()}


def thinned(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (prompts, options), every prompt's cut at random to those of the one with fewest."""
    fewest, cut = counts.sum(1).min(), rng.multivariate_hypergeometric
    return np.stack([cut(row, fewest, method="marginals") for row in counts])


def load_nominal(truth: pd.DataFrame, checkpoint: str, task: str, shorter: str) -> pd.DataFrame:
    """What a long list adds to a shorter one that begins it: one row per ladder.

    last: the shorter list's last option; unused: share of the options behind it; beyond: their mean
    probability; MSE and TV: mean distance of two personas over the whole list (_long) and over the
    shorter one alone (_short).
    """
    rows, k = [], len(TASKS[shorter].options)
    for ladder, mine in each_ladder(where(truth, checkpoint=checkpoint, task=task)):
        distributions = np.stack(mine["probability"].tolist())
        whole, cut = (
            distribution / distribution.sum(1, keepdims=True)
            for distribution in (distributions, distributions[:, :k])
        )
        row = {"ladder": ladder, "last": TASKS[task].options[k - 1]}
        row |= {"unused": 1 - k / distributions.shape[1], "beyond": whole[:, k:].sum(1).mean()}
        for name, distance in (("mse", ph.mse), ("tv", ph.tv)):
            for length, distribution in (("long", whole), ("short", cut)):
                far = distance(distribution[:, None], distribution[None])
                row[f"{name}_{length}"] = float(mean_pair(far, np.ones(len(distribution))))
        rows.append(row)
    return pd.DataFrame(rows)


def mean_pair(distance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean distance of two different prompts, (prompts, prompts) -> (...)."""
    w = weights / weights.sum(-1, keepdims=True)
    return ph.ratio(((w @ distance) * w).sum(-1), 1 - (w**2).sum(-1))


# -- tables and claims


def check_table(check: pd.DataFrame) -> str:
    """`load_check` as a MyST table, the exact number and the one from draws side by side."""
    place, sides, lines = ["ladder", "task", "checkpoint"], ["exact", "draws"], []
    check = check.sort_values(["ladder", "task"], kind="stable")
    for here, mine in check.groupby(place, sort=False):
        numbers = *mine[sides].to_numpy().ravel(), mine["invalid"].iloc[0]
        lines.append([*here, *map(show.number, numbers)])
    named = (f"{q}, {side}" for q in check["quantity"].unique() for side in sides)
    head = [*place[:2], "checkpoint", *named, "no option, exact"]
    left = 0 if check["ladder"].nunique() > 1 else 1  # a ladder alone is not named
    return show.table(head[left:], (line[left:] for line in lines))


def quantity(name: str, *numbers: float) -> str:
    """ "liquidity 0.69 [0.57, 0.81] bit" from "liquidity, bits" and value, low, high."""
    kind, comma, _ = name.partition(", bits")
    value = show.between(*numbers) if len(numbers) > 1 else fmt(*numbers)
    return f"{kind} {value}" + (" bit" if comma else "")


def table(frame: pd.DataFrame, columns: str) -> str:
    """A MyST table: columns the distinct values of one column, in the cells value [low, high].

    Rows are task and checkpoint as far as the frame has them, and ladder if it has several.
    """
    index = ["ladder"] if frame["ladder"].nunique() > 1 else []
    index += [name for name in ("task", "checkpoint") if name in frame and name != columns]
    names, lines = list(frame[columns].unique()), []
    for place, part in frame.groupby(index, sort=False):
        cells = {row[columns]: _cell(row) for row in part.to_dict("records")}
        lines.append([*place, *(cells.get(name, "–") for name in names)])
    head = [{"checkpoint": "checkpoint"}.get(name, name) for name in index]
    return show.table([*head, *names], lines)


def _cell(row: dict) -> str:
    return show.between(row["value"], row.get("low", np.nan), row.get("high", np.nan))


def one(frame: pd.DataFrame, **place: object) -> pd.Series:
    """The one row of `where`. Raises: CrystalError if there are none or several."""
    if len(rows := where(frame, **place)) != 1:
        hint = f"name values of: {', '.join(frame.columns)}"
        raise CrystalError(f"{len(rows)} rows, not one, where {place}", hint=hint)
    return rows.iloc[0]


def measured(name: str, sentence: str, row: pd.Series | None = None, **fields: object) -> str:
    """Record a measured number in the page's claims; its sentence as MyST. row: of a frame here."""
    if row is not None:
        names = ["ladder", "task", "low", "high"]
        fields = {name: row[name] for name in names} | {"number": row["value"]} | fields
    show.claim(name, verdict="measured", sentence=sentence, **fields)
    return show.listed([sentence])
