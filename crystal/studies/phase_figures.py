"""The figures that open the first page, chapters and phase pages; models are named by title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import ladder_names
from ..ask.tasks import PHASE_TASKS, TASKS
from ..measure import chain
from ..measure import quantities as ph
from ..measure.chain import Survey
from ..measure.claims import THRESHOLDS
from ..present import show, views
from ..present.figures import (
    COLOURS,
    LETTER,
    WIDTH,
    band,
    each_panel,
    legend,
    option_ticks,
    panels,
    steps_axis,
)
from ..texts import label
from . import phase, real
from .phase import STAGE, Data, real_title
from .runs import where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRONT = ("base", "sft", "rlvr")  # stages on the first page
HUES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of models, in order


# --- answers, prompt by prompt


def models(readouts: pd.DataFrame, task: str) -> dict[str, views.Compared]:
    """Title -> the stages of FRONT, as far as they were read: the real base, then each ladder of
    `readouts`; without models that answer too few prompts.
    """
    read = phase.real_there(chain.SETTLING)
    every = phase.models(chain.SETTLING if read else chain.NUCLEATION, readouts, [task])
    found = {one.title: one.at(task, *(s for s in FRONT if s in one.stages)) for one in every}
    return {title: one for title, one in found.items() if one.count.measurable}


def load_models(found: Mapping[str, views.Compared], task: str) -> pd.DataFrame:
    """One row per model, stage and prompt: bits, low, high (liquidity of the stage), prompt, and a
    column per option, conditional on an option. Prompts with the same likeliest answer in the first
    stage stand side by side in all.
    """
    frames = []
    for title, one in found.items():
        first = one.distributions(next(iter(one.tables)))
        order = np.lexsort((-first.max(1), first.argmax(1)))
        for stage in one.tables:
            bits = one.liquidity(stage)
            frame = pd.DataFrame(one.distributions(stage)[order], columns=TASKS[task].options)
            about = {"model": title, "stage": stage, "bits": bits.value}
            about |= {"low": bits.low, "high": bits.high}
            about |= {"prompt": [one.prompts[place].id for place in order]}
            frames.append(pd.DataFrame(about).join(frame))
    return pd.concat(frames, ignore_index=True)


def load_picture(data: Data) -> pd.DataFrame:
    """`load_models` of a page: before and after."""
    return load_models({one.title: one.answers for one in data.series}, data.task)


def plot_picture(frame: pd.DataFrame) -> Figure:
    """`plot_models` of a page: the stages that it compares."""
    return plot_models(frame, frame["stage"].unique(), 1.0)


def plot_models(frame: pd.DataFrame, stages: Sequence[str] = FRONT, height: float = 1.7) -> Figure:
    """Models down, stages across; in a panel prompts down, options across; its bits above it."""
    from matplotlib.colors import PowerNorm

    models, options = list(frame["model"].unique()), list(frame.columns[6:])
    fig, axes = panels(len(models), len(stages), height)
    norm = PowerNorm(0.5, 0, frame[options].to_numpy().max())  # small ones stay visible
    for row, model in zip(axes, models, strict=True):
        row[0].set_ylabel(label(model, most=40, wide=int((height - 0.3) / LETTER)))
        for ax, stage in zip(row, stages, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
            mine = where(frame, model=model, stage=stage)
            if mine.empty:
                ax.text(0.5, 0.5, "not read", ha="center", va="center", transform=ax.transAxes)
                continue
            how = {"aspect": "auto", "norm": norm, "interpolation": "none"}
            image = ax.imshow(mine[options], **how)
            ax.set_title(f"{STAGE[stage]}: {show.number(mine['bits'].iloc[0])} bit")
    for ax in axes[-1]:
        option_ticks(ax, options, WIDTH / len(stages) - 0.4, range(len(options)))
    fig.colorbar(image, ax=axes, shrink=0.85, pad=0.015, aspect=25, label="probability")
    return fig


def _looks(models: Sequence[str]) -> dict[str, dict]:
    """Of each model; the first colour is the real base's, so that ladders look alike without it."""
    first = 0 if real.PARENT in ladder_names() and real_title() == models[0] else 1
    hues = {model: HUES[n % len(HUES)] for n, model in enumerate(models, first)}
    return {
        model: {"color": hues[model], "marker": marker, "label": label(model)}
        for model, marker in zip(models, cycle("osD^"))
    }


# --- what carries the verdict


def load_entropies(data: Data) -> pd.DataFrame:
    """Entropy of the base's answer, bits, a row per model and prompt; mean: of these; whole: of the
    mean answer. The gap of the two is the liquidity.
    """
    frames = []
    for one in data.series:
        p = one.answers.distributions(data.stages[0])
        entropy = ph.entropy_bits(p)
        columns = {"model": one.title, "prompt": [prompt.id for prompt in one.answers.prompts]}
        columns |= {"entropy": entropy, "mean": entropy.mean()}
        columns |= {"whole": ph.entropy_bits(p.mean(0)), "ceiling": np.log2(p.shape[1])}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def plot_entropies(frame: pd.DataFrame) -> Figure:
    """Models down: the prompts' entropies, their mean, and the mean answer's."""
    import seaborn

    models = list(frame["model"].unique())
    fig, ((ax,),) = panels(1, 1, 0.75 + 0.5 * len(models))
    look = {"color": COLOURS["base"], "inner": None, "cut": 0, "linewidth": 0, "alpha": 0.5}
    look |= {"density_norm": "width", "width": 0.5}
    seaborn.violinplot(frame, x="entropy", y="model", order=models, ax=ax, **look)
    for y, (_, mine) in enumerate(frame.groupby("model", sort=False)):
        mean, whole = mine[["mean", "whole"]].iloc[0]
        ax.plot([mean, whole], [y, y], color=COLOURS["seed"], lw=3, solid_capstyle="butt")
        for x, style in (mean, "-"), (whole, ":"):
            ax.plot([x, x], [y - 0.3, y + 0.3], color=COLOURS["sft"], lw=1.5, ls=style)
        gap = f"{show.number(whole - mean)} bit"
        ax.text((mean + whole) / 2, y - 0.34, gap, ha="center", va="bottom")
    ax.set_yticks(range(len(models)), [label(model, wide=16) for model in models])
    reach = np.floor(2 * frame["entropy"].min()) / 2, frame["ceiling"].iloc[0] * 1.01
    about = "entropy of the answer, bits (the axis ends at even odds)"
    ax.set(xlabel=about, ylabel="", xlim=reach, ylim=(len(models) - 0.4, -0.75))
    return fig


def load_pairs(data: Data) -> pd.DataFrame:
    """Share of pairs of base prompts at most `tv` apart: of one persona, and of two."""
    x, frames = np.linspace(0, 1, 101), []
    for ladder in data.ladders:
        alone = ladder.answers
        p, (i, j) = alone.distributions("base"), np.triu_indices(len(alone.prompts), 1)
        alike, apart = alone.clusters[i] == alone.clusters[j], ph.tv(p[i], p[j])
        for pair, chosen in (("one persona, two templates", alike), ("two personas", ~alike)):
            share = np.searchsorted(np.sort(apart[chosen]), x, side="right") / max(1, chosen.sum())
            frames.append(
                pd.DataFrame({"ladder": ladder.name, "pair": pair, "tv": x, "share": share})
            )
    return pd.concat(frames, ignore_index=True)


def plot_pairs(frame: pd.DataFrame) -> Figure:
    """Two distribution functions per ladder."""
    fig, each = each_panel(frame, 2.4, sharey=True)
    for ax, mine in each:
        looks = ({"color": COLOURS["base"], "ls": "--"}, {"color": COLOURS["sft"]})
        for look, (pair, curve) in zip(looks, mine.groupby("pair", sort=False)):
            ax.plot(curve["tv"], curve["share"], label=pair, drawstyle="steps-post", **look)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="TV between the two distributions")
    fig.axes[0].set_ylabel("share of pairs at most so far apart")
    return legend(fig)


def load_fall(data: Data) -> pd.DataFrame:
    """Spread among prompts along SFT (chat form) over the base's (raw text, step 0), with interval:
    a row per model and step that enough prompts answer.
    """
    rows = []
    for one in data.series:
        rows.append((one.title, 0, 1.0, 1.0, 1.0))
        for step, place in sorted(one.steps.items()):
            both = one.read(data.task, {"base": one.stages["base"], "sft": place})
            if both.count.measurable:
                kept = both.kept_spread("base", "sft")
                rows.append((one.title, step, kept.value, kept.low, kept.high))
    return pd.DataFrame(rows, columns=["model", "step", "value", "low", "high"])


def plot_fall(frame: pd.DataFrame) -> Figure:
    """Spread over the base's by SFT step, a line a model; the threshold of a collapse is dotted."""
    fig, ((ax,),) = panels(1, 1, 2.1)
    for model, look in _looks(frame["model"].unique()).items():
        band(ax, where(frame, model=model), look)
    ax.axhline(THRESHOLDS["collapse"].value, color=COLOURS["chance"], lw=1, ls=":")
    ax.set_yscale("log")
    steps = sorted(frame["step"].unique())
    steps_axis(ax, {step: str(step) if step else "base" for step in steps})
    ax.set(xlim=(0, max(steps) * 1.1), xlabel="SFT steps", ylabel="spread over the base's")
    ax.yaxis.set_major_formatter("{x:g}")
    return legend(fig)


# --- all tasks of a phase


def load_every(name: str, ladders: Sequence[str], found: Mapping[str, Survey]) -> pd.DataFrame:
    """Liquidity as a share of its ceiling: value, low, high by model, task and stage. Of a base
    alone the verdict's number (found: by title); else of these prompts, without an interval.
    """
    rows = []
    if name == chain.LIQUID:
        for model, every in found.items():
            for task in PHASE_TASKS:
                if judged := every.of(task).get("many-distributions"):
                    one = judged.estimate
                    rows.append((model, task, "base", one.value, one.low, one.high))
    else:
        stages = list(STAGE)[: 2 if name == chain.NUCLEATION else None]
        readouts = views.read_ladders(ladders, tasks=PHASE_TASKS, checkpoints=stages)
        for model in phase.models(name, readouts, PHASE_TASKS):
            for task in PHASE_TASKS:
                one = model.at(task, *stages)
                for stage in stages if one.count.measurable else ():
                    share = one.bits(stage) / phase.most_bits(task)
                    rows.append((model.title, task, STAGE[stage], *[share] * 3))
    return pd.DataFrame(rows, columns=["model", "task", "stage", "value", "low", "high"])


def plot_every(frame: pd.DataFrame) -> Figure:
    """A small panel a task: share of the ceiling by stage, a line a model or a bar."""
    import seaborn

    models, stages = list(frame["model"].unique()), list(frame["stage"].unique())
    looks, title = _looks(models), "liquidity, share of its ceiling"
    grid = seaborn.FacetGrid(frame, col="task", col_wrap=3, height=0.95, aspect=WIDTH / 3 / 0.95)
    for task, ax in grid.axes_dict.items():
        for n, (model, look) in enumerate(looks.items()):
            mine = where(frame, task=task, model=model)
            if len(stages) == 1:
                ax.plot(mine[["low", "high"]].T, [n, n], color=look["color"], lw=1.2)
                ax.plot(mine["value"], [n] * len(mine), ls="", **look)
            else:
                ax.plot(mine["stage"].map(stages.index), mine["value"], lw=1.2, **look)
        ax.set_title(task, pad=2)
        ax.tick_params(length=2)
    if len(stages) == 1:
        threshold = THRESHOLDS["many-distributions"].value
        for ax in grid.axes.flat:
            ax.axvline(threshold, color=COLOURS["chance"], lw=1, ls=":")
        grid.set(yticks=[], ylim=(len(models) - 0.5, -0.5))
        grid.axes.flat[-2].set_xlabel(title)
    else:
        grid.set(xticks=range(len(stages)), xlim=(-0.3, len(stages) - 0.7))
        grid.set_xticklabels(stages, rotation=90 if len(stages) > 2 else 0)
        grid.axes.flat[6].set_ylabel(title)
    grid.figure.set_layout_engine("constrained")
    names = grid.axes.flat[0].get_legend_handles_labels()
    grid.figure.legend(*names, loc="outside lower center", ncols=len(models))
    return grid.figure
