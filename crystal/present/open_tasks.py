"""The page of open and large tasks: texts read as answers, counted, estimated and drawn.

`draws` is a frame of `crystal.keep.drawn.load_draws`, `truth` the exact distributions beside them.
One prompt per persona: intervals over personas are over prompts here.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

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
QUANTITIES = ("distinct answers", "coverage", "richness", "entropy, bits", "liquidity, bits")
QUANTITIES += (FLOOR, "agreement")
EACH = inf.leave_one_out(np.arange(len(PROBE)))

DISTANCES = {
    "MSE": qu.mse,
    "total variation": qu.tv,
    "Jensen-Shannon, bits": qu.jsd_bits,
    "1 - overlap": lambda p, q: 1 - qu.overlap(p, q),
}


# -- texts as counts


@functools.cache
def answer(text: str, task: str) -> str:
    """The option that `text` reads as, else its first answer as it stands, else UNREAD."""
    return read(text, TASKS[task]) or first_answer(text) or UNREAD


def counted(draws: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """Checkpoint -> counts: a row a prompt of PROBE, a column an answer, the same for all
    checkpoints, most frequent first. draws: of one ladder.
    """
    rows, total, cells = draws[draws["task"] == task], Counter(), []
    for texts in rows["texts"]:
        cells.append(Counter())
        for text, count in texts.items():
            cells[-1][answer(text, task)] += count
        total.update(cells[-1])
    order = sorted(total, key=lambda option: (-total[option], option))
    table = pd.DataFrame(cells, columns=order).fillna(0).astype(int)
    return dict(list(table.groupby(rows["checkpoint"].to_numpy(), sort=False)))


def each_count(draws: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """({ladder, task, checkpoint}, its answers)."""
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            for checkpoint, counts in counted(mine, task).items():
                yield {"ladder": ladder, "task": task, "checkpoint": checkpoint}, counts


def frequent(counts: pd.DataFrame) -> list[str]:
    """The ten most frequent answers that could be read."""
    pooled = counts.drop(columns=UNREAD, errors="ignore").sum()
    return list(pooled[pooled > 0].sort_values(ascending=False, kind="stable").index[:10])


# -- numbers


def load_numbers(draws: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per ladder, task, checkpoint and quantity of QUANTITIES: value, low, high (95 %).

    Quantities of a single prompt are means over prompts; entropies by Chao, Wang and Jost.
    """
    rows = []
    for place, counts in each_count(draws):
        counts = np.array(counts, order="C")
        each = (qu.sample(counts).seen, qu.coverage(counts), qu.richness(counts))
        each = dict(zip(QUANTITIES, (*each, qu.chao_wang_jost(counts))))
        statistics = {name: partial(_mean, values) for name, values in each.items()}
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


def load_moves(draws: pd.DataFrame) -> pd.DataFrame:
    """Change of liquidity and agreement from base to SFT: a row a ladder, task and quantity.

    The same personas are left out of both.
    """
    rows = []
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            counts = counted(mine, task)
            before, after = (_between(np.array(counts[c], order="C")) for c in ("base", "sft"))
            for name in before:
                rise = inf.estimate(partial(_rise, before[name], after[name]), EACH)
                rows.append({"ladder": ladder, "task": task, "quantity": name} | estimated(rise))
    return pd.DataFrame(rows)


def _rise(before: Statistic, after: Statistic, weights: np.ndarray) -> np.ndarray:
    return after(weights) - before(weights)


def where(frame: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return frame[np.logical_and.reduce([frame[name] == value for name, value in place.items()])]


def load_check(draws: pd.DataFrame, truth: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Draws against exact distributions, both given an option: a row a checkpoint and quantity.

    Draws are thinned at random to the same number in every prompt.
    """
    rows = []
    for place, counts in each_count(draws[draws["task"].isin(truth["task"])]):
        exact = where(truth, **place)
        p = qu.even(np.stack(exact["probability"].tolist()))
        most = 2 * (p**2).sum(1).mean() / p.shape[1]  # spread of distributions that share no option
        true = {
            "entropy, bits": qu.entropy_bits(p).mean(),
            "liquidity, bits": qu.liquidity_bits(p),
            "agreement": 1 - qu.spread(p) / most,
        }
        valid = np.array(counts, order="C") * counts.columns.isin(TASKS[place["task"]].options)
        valid = thinned(valid, inf.generator(seed, f"thin {place['checkpoint']}"))
        drawn = {"entropy, bits": qu.chao_wang_jost(valid).mean()}
        drawn |= {name: statistic() for name, statistic in _between(valid).items()}
        for name in true:
            row = place | {"quantity": name, "exact": float(true[name])}
            row |= {"draws": float(drawn[name]), "invalid": exact["invalid"].mean()}
            rows.append(row)
    return pd.DataFrame(rows)


def thinned(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (prompts, options), cut at random to as many in every prompt."""
    fewest, cut = counts.sum(1).min(), rng.multivariate_hypergeometric
    return np.stack([cut(row, fewest, method="marginals") for row in counts])


def mean_pair(distance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean distance of two different prompts, (prompts, prompts) -> (...)."""
    w = qu.even(weights)
    return qu.ratio(((w @ distance) * w).sum(-1), 1 - (w**2).sum(-1))


# -- tables and claims


def check_table(check: pd.DataFrame) -> str:
    """`load_check` as a MyST table, both numbers side by side."""
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


def table(numbers: pd.DataFrame) -> str:
    """`load_numbers` as a MyST table: a column a quantity, in the cells value [low, high]."""
    cells = map(show.between, numbers["value"], numbers["low"], numbers["high"])
    place = [name for name in numbers if name not in ("quantity", "value", "low", "high")]
    if numbers["ladder"].nunique() == 1:  # a ladder alone is not named
        place.remove("ladder")
    how = {"values": "cell", "aggfunc": "first", "sort": False, "fill_value": "–"}
    wide = numbers.assign(cell=list(cells)).pivot_table(index=place, columns="quantity", **how)
    return show.table([*place, *wide], wide.reset_index().to_numpy())


def measured(name: str, sentence: str, row: pd.Series | None = None, **fields: object) -> str:
    """Record a measured number as a claim; its sentence as MyST. row: of a frame here."""
    if row is not None:
        names = ["ladder", "task", "low", "high"]
        fields = {name: row[name] for name in names} | {"number": row["value"]} | fields
    show.claim(name, verdict="measured", sentence=sentence, **fields)
    return show.listed([sentence])


# -- drawn


def label_of(task: str) -> str:
    return TASKS[task].label.lower()


def _broken(task: str) -> str:
    """In two lines if it is long."""
    return label_of(task).replace(" from ", "\nfrom ")


def load_ranks(draws: pd.DataFrame) -> pd.DataFrame:
    """A row per ladder, task, checkpoint and answer: its rank and share of all prompts' draws."""
    frames = []
    for place, counts in each_count(draws):
        pooled = counts.sum()
        share = np.sort(pooled[pooled > 0])[::-1] / pooled.sum()
        columns = {"rank": np.arange(1, len(share) + 1), "share": share}
        frames.append(pd.DataFrame(place | columns))
    return pd.concat(frames, ignore_index=True)


def plot_ranks(frame: pd.DataFrame) -> Figure:
    """Tasks down, ladders across; a distribution that is flat over many ranks is broad."""
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


def load_supports(readouts: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Mean distance of two personas in the base, exact: a row per ladder, task and distance.

    On the probe's prompts, closed tasks from read-outs, the large one from `truth`.
    """
    rows, probe = [], [PROMPTS.index(prompt) for prompt in PROBE]
    for ladder, mine in each_ladder(readouts):
        tables = {task: answers(mine, "base", task)[probe] for task in mine["task"].unique()}
        exact = where(truth, ladder=ladder, checkpoint="base")
        for task, part in exact.groupby("task", sort=False):
            tables[task] = np.stack(part["probability"].tolist())
        for task, table in tables.items():
            p = qu.even(table)
            place = {"ladder": ladder, "task": task, "options": p.shape[1]}
            for name, distance in DISTANCES.items():
                far = partial(mean_pair, distance(p[:, None], p[None]))
                numbers = estimated(inf.estimate(far, EACH, low=0))
                rows.append(place | {"distance": name} | numbers)
    return pd.DataFrame(rows)


def slope(frame: pd.DataFrame, distance: str) -> float:
    """Least-squares slope of log distance on log K over one ladder's closed tasks.

    Not the large task: its distribution is that of a shorter list.
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
    """`load_numbers`: agreement of the prompts by task and checkpoint."""
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
