"""Figures of the page of open and large tasks, in pairs of `load_x` and `plot_x`, as in `crystal.present.figures`.

`draws` is a frame of `crystal.keep.drawn.load_draws`, of one or several ladders; ladders stand in rows of panels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.prompts import PROBE, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..measure import coverage as cv
from ..measure import inference as inf
from ..measure import phases as ph
from ..texts import label
from .answering import answers
from .figures import COLOURS, MARKERS, panels, title_of
from .open_numbers import mean_pair
from .open_views import KINDS, counted, shares_of_kinds
from .views import each_ladder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe-Ito; "other" and "none" in greys, for they are what no list of ours explains
KIND_COLOURS = dict(zip(KINDS, ("#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#000000",
                                "#9aa0a8", "#d9dce0"), strict=True))
ESTIMATORS = {"plug-in": ("#767c85", ":"), "Miller-Madow": ("#E69F00", "--"), "Chao-Shen": ("#CC79A7", "-."),
              "Chao-Wang-Jost": ("#0072B2", "-")}
IN_PROBE = np.array([PROMPTS.index(prompt) for prompt in PROBE])  # rows of `crystal.present.answering.answers`


def label_of(task: str) -> str:
    return TASKS[task].label.lower()


def broken(task: str) -> str:
    """The label in two lines if it is long."""
    return label_of(task).replace(" from ", "\nfrom ")


# --- what was answered -----------------------------------------------------------------------------------------------


def load_kinds(draws: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder, task and rung: the share of all draws that each kind of answer has."""
    return pd.DataFrame([
        {"ladder": ladder, "task": task, "rung": rung} | shares_of_kinds(counts)
        for ladder, mine in each_ladder(draws) for task in mine["task"].unique() for rung, counts in counted(mine, task).items()
    ])


def plot_kinds(frame: pd.DataFrame) -> Figure:
    """One bar per task and rung, divided by kind."""
    tasks = list(frame["task"].unique())
    fig, axes = panels(1, frame["ladder"].nunique(), 7.2, 4.6, sharey=True)
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        rungs = list(mine["rung"].unique())
        y = np.array([tasks.index(row.task) * (len(rungs) + 0.8) + rungs.index(row.rung) for row in mine.itertuples()])
        left = np.zeros(len(mine))
        for kind in [kind for kind in KINDS if mine[kind].max() > 0]:
            ax.barh(y, mine[kind], left=left, height=0.9, color=KIND_COLOURS[kind], label=kind, edgecolor="white", lw=0.4)
            left += mine[kind].to_numpy()
        ax.set_yticks(y, [f"{label_of(row.task)}   {row.rung}" if row.rung == "base" else row.rung for row in mine.itertuples()])
        ax.set(xlim=(0, 1), ylim=(y.max() + 0.6, -0.6), xlabel="share of all draws")
        ax.set_title(label(title_of(ladder)))
        ax.grid(False)
        ax.tick_params(axis="y", length=0)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


# --- rank and frequency ----------------------------------------------------------------------------------------------


def load_ranks(draws: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder, task, rung and answer drawn: its rank and its share of all prompts' draws."""
    frames = []
    for ladder, mine in each_ladder(draws):
        for task in mine["task"].unique():
            for rung, counts in counted(mine, task).items():
                share = np.sort(counts.pooled[counts.pooled > 0])[::-1] / counts.pooled.sum()
                frames.append(pd.DataFrame({"ladder": ladder, "task": task, "rung": rung,
                                            "rank": np.arange(1, len(share) + 1), "share": share}))
    return pd.concat(frames, ignore_index=True)


def plot_ranks(frame: pd.DataFrame) -> Figure:
    """Share against rank, both on log scales, one panel per task; a flat line over many ranks is a broad law."""
    tasks = list(frame["task"].unique())
    fig, axes = panels(frame["ladder"].nunique(), len(tasks), 9.6, 2.7, sharex=True, sharey=True)
    for row, (ladder, mine) in zip(axes, each_ladder(frame), strict=True):
        for ax, task in zip(row, tasks, strict=True):
            for rung, curve in mine[mine["task"] == task].groupby("rung", sort=False):
                ax.loglog(curve["rank"], curve["share"], MARKERS[rung] + "-", color=COLOURS[rung], label=rung, ms=3.5,
                          markevery=[0, *(10 ** np.arange(1, 4) - 1)[10 ** np.arange(1, 4) <= len(curve)]])
            ax.set(title=broken(task), xlabel="rank of the answer")
        row[0].set_ylabel(f"{label(title_of(ladder))}\nshare of all draws")
    axes[0, -1].legend(loc="lower left")
    return fig


# --- entropy against the number of draws -----------------------------------------------------------------------------


def zipf(options: int) -> np.ndarray:
    """Probabilities proportional to 1/rank."""
    weight = 1 / np.arange(1, options + 1)
    return weight / weight.sum()


def load_convergence(draws: pd.DataFrame, truth: pd.DataFrame, task: str, *, options: int, sizes: Sequence[int], repeats: int,
                     seed: int = 0) -> pd.DataFrame:
    """Entropy estimates at several n: one row per panel, estimator and n, with mean, central 95 % over repeats, and the truth.

    One panel samples a Zipf law; one per ladder samples, without replacement, the draws of the base's broadest cell, whose
    true entropy is that of its exact law given an option. truth: of `load_draws` with decoding TRUTH.
    """
    rng, law = inf.generator(seed, "convergence"), zipf(options)
    title = f"Zipf law, {options:,} options"
    sampled = {n: rng.multinomial(n, law, size=repeats) for n in sizes}
    frames = [_convergence(title, sampled, float(ph.entropy_bits(law)))]
    for ladder, mine in each_ladder(draws[draws["task"] == task]):
        exact = truth[(truth["ladder"] == ladder) & (truth["rung"] == "base") & (truth["task"] == task)]
        laws = np.stack(exact["probability"].tolist())
        entropies = ph.entropy_bits(laws / laws.sum(1, keepdims=True))
        broad = int(entropies.argmax())
        base = counted(mine[mine["rung"] == "base"], task)["base"]
        pool = base.counts[broad] * np.isin(base.options, TASKS[task].options)
        sampled = {n: _without_replacement(rng, pool, n, repeats) for n in sizes if n <= pool.sum()}
        frames.append(_convergence(f"{title_of(ladder)}, base, prompt {PROBE[broad].id}", sampled, float(entropies[broad])))
    return pd.concat(frames, ignore_index=True)


def _without_replacement(rng: np.random.Generator, pool: np.ndarray, n: int, repeats: int) -> np.ndarray:
    return rng.multivariate_hypergeometric(pool, n, size=repeats, method="marginals")


def _convergence(panel: str, sampled: Mapping[int, np.ndarray], true: float) -> pd.DataFrame:
    rows = []
    for n, counts in sampled.items():
        for name, estimator in cv.ENTROPIES.items():
            found = estimator(counts)
            low, high = np.quantile(found, [inf.ALPHA / 2, 1 - inf.ALPHA / 2])
            rows.append({"panel": panel, "estimator": name, "n": n, "mean": found.mean(), "low": low, "high": high,
                         "truth": true})
    return pd.DataFrame(rows)


def plot_convergence(frame: pd.DataFrame) -> Figure:
    """Mean estimate against n, with the central 95 % of the first and the last estimator shaded; the truth is the line."""
    names = list(frame["panel"].unique())
    fig, axes = panels(1, len(names), 7.2, 3.2)
    for ax, name in zip(axes[0], names, strict=True):
        mine = frame[frame["panel"] == name]
        ax.axhline(mine["truth"].iloc[0], color="black", lw=1, label="truth")
        for estimator, (colour, style) in ESTIMATORS.items():
            curve = mine[mine["estimator"] == estimator]
            ax.semilogx(curve["n"], curve["mean"], style, color=colour, label=estimator)
            if estimator in ("plug-in", "Chao-Wang-Jost"):
                ax.fill_between(curve["n"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
        ax.set(xlabel="draws", title=label(name))
    axes[0, 0].set_ylabel("estimated entropy, bits")
    axes[0, -1].legend(loc="lower right")
    return fig


# --- where MSE stops -------------------------------------------------------------------------------------------------


def load_supports(readouts: pd.DataFrame, truth: pd.DataFrame, rung: str) -> pd.DataFrame:
    """Mean distance between two narrators' exact laws, one row per ladder, task and distance, with its interval over narrators.

    The prompts are the probe's, for closed tasks from the read-outs, for the large one from the truths beside the draws.
    """
    weights, rows = inf.leave_one_out(np.arange(len(PROBE))), []
    for ladder, mine in each_ladder(readouts):
        exact = truth[(truth["ladder"] == ladder) & (truth["rung"] == rung)]
        laws = {task: answers(mine, rung, task)[IN_PROBE] for task in mine["task"].unique()}
        laws |= {task: np.stack(part["probability"].tolist()) for task, part in exact.groupby("task", sort=False)}
        for task, table in laws.items():
            table = table / table.sum(1, keepdims=True)
            for name, distance in DISTANCES.items():
                found = inf.estimate(partial(mean_pair, distance(table[:, None], table[None])), weights, low=0)
                rows.append({"ladder": ladder, "task": task, "options": table.shape[1], "distance": name, "value": found.value,
                             "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "MSE": ph.mse, "total variation": ph.tv, "Jensen-Shannon, bits": ph.jsd_bits,
    "1 - overlap": lambda p, q: 1 - cv.laws_overlap(p, q),
}


def slope(frame: pd.DataFrame, distance: str) -> float:
    """Least-squares slope of log distance on log K, the large task left out: -1 for a fall like 1/K, 0 for none.

    frame: of one ladder. Left out because its law is that of a shorter list: it would not fall like the others.
    """
    part = frame[(frame["distance"] == distance) & frame["task"].isin(PHASE_TASKS)]
    return float(np.polyfit(np.log(part["options"]), np.log(part["value"]), 1)[0])


def plot_supports(frame: pd.DataFrame) -> Figure:
    """Both axes logarithmic: MSE falls along a line, the others stay on their decade."""
    fig, axes = panels(1, frame["ladder"].nunique(), 7.2, 3.8, sharey=True)
    styles = dict(zip(DISTANCES, (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "D")), strict=True))
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        for aside, (name, (colour, marker)) in zip((1, 0.95, 1, 1.05), styles.items(), strict=True):  # or two would coincide
            part = mine[mine["distance"] == name].sort_values("options", kind="stable")
            ax.loglog(part["options"] * aside, part["value"], marker, color=colour, label=name, ms=4.5)
            ax.vlines(part["options"] * aside, part["low"], part["high"], color=colour, lw=1)
        mse, b = mine[(mine["distance"] == "MSE") & mine["task"].isin(PHASE_TASKS)], slope(mine, "MSE")
        k = np.array([mse["options"].min(), mine["options"].max()])
        height = np.exp((np.log(mse["value"]) - b * np.log(mse["options"])).mean())
        ax.plot(k, height * k**b, "--", color="#767c85", lw=1, label=f"slope {b:.2f}")
        ax.set(xlabel="options K of the task", title=label(title_of(ladder)))
    axes[0, 0].set_ylabel("mean distance between two narrators")
    axes[0, 0].legend(loc="lower left")
    return fig


def load_same(supports: Sequence[int], n: int, *, repeats: int, seed: int = 0) -> pd.DataFrame:
    """Two samples of n draws from one Zipf law, and from two laws that are half alike: one row per K, pair and measure.

    "one law": the truth is 0 for every distance. "two laws": the second is the first with every other option's probability
    moved to an option of its own, so the true distance is known; mean and central 95 % over repeats.
    """
    rng, rows = inf.generator(seed, "same"), []
    for k in supports:
        p = np.append(zipf(k), np.zeros(k))
        q = np.where(np.arange(2 * k) % 2 == 0, p, 0) + np.roll(np.where(np.arange(2 * k) % 2 == 1, p, 0), k)
        for pair, other in (("one law", p), ("two laws", q)):
            first, second = (rng.multinomial(n, law, size=repeats) for law in (p, other))
            found = {"total variation, plug-in": (ph.tv(first / n, second / n), ph.tv(p, other)),
                     "1 - overlap, unbiased": (1 - cv.overlap(first, second), 1 - cv.laws_overlap(p, other))}
            for measure, (values, true) in found.items():
                low, high = np.nanquantile(values, [inf.ALPHA / 2, 1 - inf.ALPHA / 2])
                rows.append({"options": k, "pair": pair, "measure": measure, "mean": np.nanmean(values), "low": low, "high": high,
                             "truth": float(true)})
    return pd.DataFrame(rows)


def plot_same(frame: pd.DataFrame) -> Figure:
    """Estimated distance against K; the dashed line is the truth."""
    fig, axes = panels(1, 2, 7.2, 3.2, sharey=True)
    styles = {"total variation, plug-in": ("#0072B2", "s"), "1 - overlap, unbiased": ("#CC79A7", "D")}
    for ax, (measure, mine) in zip(axes[0], frame.groupby("measure", sort=False), strict=True):
        colour, marker = styles[measure]
        for (pair, curve), fill in zip(mine.groupby("pair", sort=False), ("white", colour), strict=True):
            ax.plot(curve["options"], curve["truth"], "--", color="black", lw=1, label=None if fill == "white" else "truth")
            ax.semilogx(curve["options"], curve["mean"], marker + "-", color=colour, mfc=fill, label=pair)
            ax.vlines(curve["options"], curve["low"], curve["high"], color=colour, lw=1)
        ax.set(xlabel="options K", title=measure)
        ax.legend(loc="upper left")
    axes[0, 0].set_ylabel("estimated distance")
    return fig


# --- what to read instead --------------------------------------------------------------------------------------------


def plot_agreement(frame: pd.DataFrame) -> Figure:
    """Agreement of the prompts per task and rung, with intervals over narrators; at 1 every prompt has the same law.

    frame: of `crystal.present.open_numbers.load_numbers`.
    """
    mine = frame[frame["quantity"] == "agreement"]
    tasks = list(mine["task"].unique())
    fig, axes = panels(1, mine["ladder"].nunique(), 7.2, 3.4, sharey=True)
    for ax, (ladder, part) in zip(axes[0], each_ladder(mine), strict=True):
        for k, (rung, marks) in enumerate(part.groupby("rung", sort=False)):
            x = np.array([tasks.index(task) for task in marks["task"]]) + (k - 1.5) * 0.17
            ax.vlines(x, marks["low"], marks["high"], color=COLOURS[rung])
            ax.plot(x, marks["value"], MARKERS[rung], color=COLOURS[rung], label=rung, ms=6)
        ax.axhline(1, color="#767c85", lw=1, ls="--")
        ax.set_xticks(range(len(tasks)), [broken(task) for task in tasks], rotation=35, ha="right", rotation_mode="anchor")
        ax.set(ylim=(0, None), title=label(title_of(ladder)))
        ax.grid(False, axis="x")
    axes[0, 0].set_ylabel("agreement of the prompts")
    axes[0, -1].legend(loc="lower right", ncols=2)
    return fig
