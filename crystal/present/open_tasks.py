"""The page of open and large tasks: texts read as answers, counted, estimated and drawn.

`draws` is a frame of `crystal.keep.drawn.load_draws`, `truth` the exact distributions beside them.
One prompt per persona: intervals over personas are over prompts here. `load_x` is the frame drawn,
`plot_x` draws it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ..ask.prompts import PROBE, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS, first_answer, read
from ..measure import inference as inf
from ..measure import quantities as qu
from ..texts import label
from . import show
from .figures import BLUE, COLOURS, GREEN, GREY, MARKERS, PURPLE, RED, each_panel, legend, panels
from .show import number as fmt
from .views import answers, each_ladder, estimated, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Statistic = Callable[[np.ndarray], np.ndarray]
UNREAD = ""  # the answer of a text that holds none; an option like any other, so no draw is lost
FLOOR = "liquidity of a crystal, bits"
QUANTITIES = (
    *("distinct answers", "coverage", "richness", "entropy, bits", "liquidity, bits"),
    *(FLOOR, "agreement"),
)
EACH = inf.leave_one_out(np.arange(len(PROBE)))

DISTANCES = {
    "MSE": qu.mse,
    "total variation": qu.tv,
    "Jensen-Shannon, bits": qu.jsd_bits,
    "1 - overlap": lambda p, q: 1 - qu.overlap(p, q),
}


# -- texts as counts


class Counts(NamedTuple):
    """How often each answer to one task was drawn: counts (prompts, options), in PROBE's order."""

    options: tuple[str, ...]
    counts: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        return self.counts.sum(0)


@functools.cache
def answer(text: str, task: str) -> str:
    """The option that `text` reads as, else its first answer as it stands, else UNREAD."""
    return read(text, TASKS[task]) or first_answer(text) or UNREAD


def counted(draws: pd.DataFrame, task: str) -> dict[str, Counts]:
    """Checkpoint -> Counts over one list of options: all that were drawn, most frequent first.

    draws: of one ladder.
    """
    rows, total, cells = draws[draws["task"] == task], Counter(), []
    for texts in rows["texts"]:
        cells.append(Counter())
        for text, count in texts.items():
            cells[-1][answer(text, task)] += count
        total.update(cells[-1])
    options = tuple(sorted(total, key=lambda option: (-total[option], option)))
    place = {option: k for k, option in enumerate(options)}
    table = np.zeros((len(cells), len(options)), np.int64)
    for row, cell in zip(table, cells, strict=True):
        row[[place[option] for option in cell]] = list(cell.values())
    at = rows["checkpoint"].to_numpy()
    return {name: Counts(options, table[at == name]) for name in dict.fromkeys(at)}


def each_count(draws: pd.DataFrame) -> Iterator[tuple[dict[str, str], Counts]]:
    """({ladder, task, checkpoint}, its answers)."""
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            for checkpoint, counts in counted(mine, task).items():
                yield {"ladder": ladder, "task": task, "checkpoint": checkpoint}, counts


def frequent(counts: Counts) -> list[str]:
    """The ten most frequent answers, of those that could be read."""
    order = np.argsort(-counts.pooled, kind="stable")
    named = (counts.options[k] for k in order if counts.pooled[k])
    return [option for option in named if option != UNREAD][:10]


# -- numbers


def load_numbers(draws: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per ladder, task, checkpoint and quantity of QUANTITIES: value, low, high (95 %).

    Quantities of a single prompt are means over prompts; entropies by Chao, Wang and Jost.
    """
    rows = []
    for place, (_, counts) in each_count(draws):
        within = dict(zip(QUANTITIES, (qu.sample(counts).seen, qu.coverage(counts))))
        within |= {"richness": qu.richness(counts), "entropy, bits": qu.chao_wang_jost(counts)}
        statistics = {name: partial(_mean, values) for name, values in within.items()}
        statistics |= _between(counts)
        found = {name: inf.estimate(one, EACH, low=0) for name, one in statistics.items()}
        chance = inf.generator(seed, f"floor {place['task']} {place['checkpoint']}")
        found[FLOOR] = inf.exactly(qu.liquidity_floor(counts, chance))
        rows += [place | {"quantity": q} | estimated(found[q]) for q in QUANTITIES]
    return pd.DataFrame(rows)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(-1)


def _between(counts: np.ndarray) -> dict[str, Statistic]:
    return {
        "liquidity, bits": partial(qu.liquidity, counts),
        "agreement": partial(qu.agreement, counts),
    }


def load_moves(draws: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Change of liquidity and agreement between two checkpoints: a row a ladder, task and quantity.

    The same personas are left out of both, so that what a persona does to both cancels.
    """
    rows = []
    found = {tuple(place.values()): _between(counts.counts) for place, counts in each_count(draws)}
    for (ladder, task, checkpoint), before in found.items():
        for name in before if checkpoint == first else ():
            after = found[ladder, task, second][name]
            rise = inf.estimate(partial(_difference, before[name], after), EACH)
            rows.append({"ladder": ladder, "task": task, "quantity": name} | estimated(rise))
    return pd.DataFrame(rows)


def _difference(before: Statistic, after: Statistic, weights: np.ndarray) -> np.ndarray:
    return after(weights) - before(weights)


def where(frame: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return frame[np.logical_and.reduce([frame[name] == value for name, value in place.items()])]


def distributions_of(exact: pd.DataFrame) -> np.ndarray:
    """(prompts, options), each row given an option."""
    p = np.stack(exact["probability"].tolist())
    return p / p.sum(1, keepdims=True)


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


def _of_distributions(p: np.ndarray) -> dict[str, float]:
    found = {"entropy, bits": qu.entropy_bits(p).mean(), "liquidity, bits": qu.liquidity_bits(p)}
    most = 2 * (p**2).sum(1).mean() / p.shape[1]  # spread of distributions that share no option
    return found | {"agreement": 1 - qu.spread(p) / most}


def _of_counts(counts: np.ndarray) -> dict[str, float]:
    found = {"entropy, bits": qu.chao_wang_jost(counts).mean()}
    return found | {name: statistic() for name, statistic in _between(counts).items()}


def thinned(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (prompts, options), every prompt's cut at random to those of the one with fewest."""
    fewest, cut = counts.sum(1).min(), rng.multivariate_hypergeometric
    return np.stack([cut(row, fewest, method="marginals") for row in counts])


def mean_pair(distance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean distance of two different prompts, (prompts, prompts) -> (...)."""
    w = weights / weights.sum(-1, keepdims=True)
    return qu.ratio(((w @ distance) * w).sum(-1), 1 - (w**2).sum(-1))


# -- tables and claims


def check_table(check: pd.DataFrame) -> str:
    """`load_check` as a MyST table, the exact number and the one from draws side by side."""
    place, sides, lines = ["ladder", "task", "checkpoint"], ["exact", "draws"], []
    check = check.sort_values(["ladder", "task"], kind="stable")
    for here, mine in check.groupby(place, sort=False):
        numbers = *mine[sides].to_numpy().ravel(), mine["invalid"].iloc[0]
        lines.append([*here, *map(fmt, numbers)])
    named = (f"{q}, {side}" for q in check["quantity"].unique() for side in sides)
    head = [*place, *named, "no option, exact"]
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
        rows = part[[columns, "value", "low", "high"]].itertuples(index=False)
        cells = {name: show.between(*numbers) for name, *numbers in rows}
        lines.append([*place, *(cells.get(name, "–") for name in names)])
    return show.table([*index, *names], lines)


def measured(name: str, sentence: str, row: pd.Series | None = None, **fields: object) -> str:
    """Record a measured number in the page's claims; its sentence as MyST. row: of a frame here."""
    if row is not None:
        names = ["ladder", "task", "low", "high"]
        fields = {name: row[name] for name in names} | {"number": row["value"]} | fields
    show.claim(name, verdict="measured", sentence=sentence, **fields)
    return show.listed([sentence])


# -- drawn


def label_of(task: str) -> str:
    return TASKS[task].label.lower()


def _broken(task: str) -> str:
    """The label in two lines if it is long."""
    return label_of(task).replace(" from ", "\nfrom ")


def load_ranks(draws: pd.DataFrame) -> pd.DataFrame:
    """A row per ladder, task, checkpoint and answer: its rank and share of all prompts' draws."""
    frames = []
    for place, counts in each_count(draws):
        share = np.sort(counts.pooled[counts.pooled > 0])[::-1] / counts.pooled.sum()
        columns = {"rank": np.arange(1, len(share) + 1), "share": share}
        frames.append(pd.DataFrame(place | columns))
    return pd.concat(frames, ignore_index=True)


def plot_ranks(frame: pd.DataFrame) -> Figure:
    """Share against rank, log scales, tasks down, ladders across; flat over many ranks is broad."""
    tasks, decades = list(frame["task"].unique()), np.array([10, 100, 1000])
    fig, axes = panels(len(tasks), frame["ladder"].nunique(), 1.25, sharex=True, sharey=True)
    for column, (ladder, mine) in zip(axes.T, each_ladder(frame), strict=True):
        for ax, task in zip(column, tasks, strict=True):
            for checkpoint, curve in mine[mine["task"] == task].groupby("checkpoint", sort=False):
                at = [0, *(decades[decades <= len(curve)] - 1)]
                look = {"color": COLOURS[checkpoint], "label": checkpoint, "markevery": at}
                ax.loglog(curve["rank"], curve["share"], MARKERS[checkpoint] + "-", **look)
        column[0].set_title(label(title_of(ladder), wide=30))
    for ax, task in zip(axes[:, 0], tasks, strict=True):
        ax.set_ylabel(_broken(task))
    fig.supxlabel("rank of the answer")
    fig.supylabel("share of all draws")
    return legend(fig)


def load_supports(readouts: pd.DataFrame, truth: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """Mean distance of two personas' exact distributions: a row per ladder, task and distance.

    With intervals over personas. The prompts are the probe's, for closed tasks from the read-outs,
    for the large one from the truths beside the draws.
    """
    rows, probe = [], [PROMPTS.index(prompt) for prompt in PROBE]
    for ladder, mine in each_ladder(readouts):
        tables = {task: answers(mine, checkpoint, task)[probe] for task in mine["task"].unique()}
        exact = where(truth, ladder=ladder, checkpoint=checkpoint)
        for task, part in exact.groupby("task", sort=False):
            tables[task] = np.stack(part["probability"].tolist())
        for task, table in tables.items():
            p = table / table.sum(1, keepdims=True)
            place = {"ladder": ladder, "task": task, "options": p.shape[1]}
            for name, distance in DISTANCES.items():
                far = partial(mean_pair, distance(p[:, None], p[None]))
                numbers = estimated(inf.estimate(far, EACH, low=0))
                rows.append(place | {"distance": name} | numbers)
    return pd.DataFrame(rows)


def slope(frame: pd.DataFrame, distance: str) -> float:
    """Least-squares slope of log distance on log K over closed tasks: -1 for a fall like 1/K.

    frame: of one ladder. Not the large task: its distribution is that of a shorter list.
    """
    part = frame[(frame["distance"] == distance) & frame["task"].isin(PHASE_TASKS)]
    return float(np.polyfit(np.log(part["options"]), np.log(part["value"]), 1)[0])


def plot_supports(frame: pd.DataFrame) -> Figure:
    """Both axes logarithmic: MSE falls along a line, the others stay on their decade."""
    fig, each = each_panel(frame, 3.0, sharey=True)
    hues = (RED, BLUE, GREEN, PURPLE)
    looks = list(zip(DISTANCES, hues, "os^D", (1, 0.95, 1, 1.05), strict=True))
    for ax, mine in each:
        for name, colour, marker, aside in looks:
            part = mine[mine["distance"] == name].sort_values("options", kind="stable")
            x = part["options"] * aside  # or two would coincide
            ax.loglog(x, part["value"], marker, color=colour, label=name)
            ax.vlines(x, part["low"], part["high"], color=colour, lw=1)
        mse = mine[(mine["distance"] == "MSE") & mine["task"].isin(PHASE_TASKS)]
        k, b = np.array([mse["options"].min(), mine["options"].max()]), slope(mine, "MSE")
        height = np.exp((np.log(mse["value"]) - b * np.log(mse["options"])).mean())
        ax.plot(k, height * k**b, "--", color=GREY, lw=1, label=f"slope {b:.2f}")
        ax.set_xlabel("options K of the task")
    fig.axes[0].set_ylabel("mean distance between two personas")
    return legend(fig)


def plot_agreement(frame: pd.DataFrame) -> Figure:
    """Agreement of the prompts per task and checkpoint, with intervals; at 1 all prompts are alike.

    frame: of `load_numbers`.
    """
    frame = frame[frame["quantity"] == "agreement"]
    tasks = list(frame["task"].unique())
    fig, each = each_panel(frame, 3.0, sharey=True)
    for ax, mine in each:
        for k, (checkpoint, marks) in enumerate(mine.groupby("checkpoint", sort=False)):
            x, colour = marks["task"].map(tasks.index) + (k - 1.5) * 0.17, COLOURS[checkpoint]
            ax.vlines(x, marks["low"], marks["high"], color=colour)
            ax.plot(x, marks["value"], MARKERS[checkpoint], color=colour, label=checkpoint)
        ax.axhline(1, color=GREY, lw=1, ls="--")
        ax.set_xticks(range(len(tasks)), map(_broken, tasks), rotation=90)
        ax.set(ylim=(0, None))
        ax.grid(False, axis="x")
    fig.axes[0].set_ylabel("agreement of the prompts")
    return legend(fig)
