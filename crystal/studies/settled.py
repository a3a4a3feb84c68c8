"""Settling over all tasks and training runs: what each stage leaves on the seed's options, and what it lifts from SFT's bottom.

The seed of a task is what the base answers to the narrator whom tasks of other kinds name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS
from ..measure import claims
from ..measure import phases as ph
from ..measure.answered import Count
from ..measure.claims import QUANTILE
from ..measure.inference import Estimate
from ..measure.judging import Verdict
from ..present import show
from ..present import verdicts as store
from ..present.answering import Compared, compared
from ..present.figures import COLOURS, MARKERS, panels
from ..present.views import read_ladders
from .branches import family, over_parents
from .parents import judge_over

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("sft", "dpo", "rlvr")


def load_settled(parents: Sequence[str], quantile: float = QUANTILE) -> pd.DataFrame:
    """One row per parent, task and stage: probmass on A, own (the seed's), chance |A|/K, promoted
    (mass that options of SFT's lower half gained since SFT), tv (mass moved since SFT); answered of
    asked prompts, by every stage, and the median mass of the stage that answers least. Tasks that
    are not measurable are left out."""
    rows = []
    for parent in parents:
        readouts = read_ladders([parent], rungs=["base", *STAGES], tasks=PHASE_TASKS)
        seeds = store.measured(parent, quantile=quantile).seeds
        for task in seeds:
            every = compared(readouts, task, "base", *STAGES)
            if every.count.measurable:
                place = {
                    "family": family(parent),
                    "parent": parent,
                    "task": task,
                    "answered": every.count.answered,
                    "asked": every.count.asked,
                    "median": every.count.median,
                }
                rows += [place | row for row in _of_task(every, seeds[task], quantile)]
    return pd.DataFrame(rows)


def _of_task(every: Compared, narrator: str, quantile: float) -> list[dict]:
    rows, even = [], np.ones(len(every.prompts))
    laws = {stage: every.evidence(stage) for stage in ("base", *STAGES)}
    if narrator not in every.units.astype(str):
        return rows
    seed = claims.seed_of(laws["base"], narrator, quantile=quantile)
    for stage in STAGES:
        rows.append({"stage": stage, "probmass": float(claims.kept_mass(laws[stage], seed)(even)),
                     "own": seed.ceiling, "chance": float(seed.mask.mean()),
                     "promoted": claims.promoted(laws["sft"], laws[stage]).value,
                     "tv": float(ph.tv(laws["sft"].law.mean(0), laws[stage].law.mean(0)))})
    return rows


def answered_told(settled: pd.DataFrame) -> str:
    """What these numbers rest on, ladder by ladder, as a MyST list."""
    said = []
    for parent, mine in settled.groupby("parent", sort=False):
        tasks = mine.drop_duplicates("task")
        count = Count(tasks["answered"].sum(), tasks["asked"].sum(), tasks["median"].median())
        said.append(
            f"{parent}: on {len(tasks)} of {len(PHASE_TASKS)} tasks, {count.said} by every stage."
        )
    return show.listed(said)


def summary(settled: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """Family -> what -> mean over tasks, interval over its training runs."""
    found: dict[str, dict[str, Estimate]] = {}
    for name, mine in settled.groupby("family", sort=False):
        means = mine.groupby(["parent", "stage"])[["probmass", "own", "chance", "promoted", "tv"]].mean()
        of = lambda stage, what, means=means: over_parents(means.xs(stage, level="stage")[what], 0, 1)  # noqa: E731
        found[name] = {"the seed's own mass on its options": of("sft", "own"), "chance level": of("sft", "chance")}
        found[name] |= {f"mass on the seed's options, {stage.upper()}": of(stage, "probmass") for stage in STAGES}
        found[name] |= {f"promoted from SFT's lower half, {stage.upper()}": of(stage, "promoted") for stage in STAGES[1:]}
        found[name] |= {f"moved since SFT, {stage.upper()}": of(stage, "tv") for stage in STAGES[1:]}
    return found


def verdicts(settled: pd.DataFrame) -> dict[str, list[Verdict]]:
    """Family -> same-options and little-promoted after RLVR, means over tasks, judged over its training runs."""
    last = settled[settled["stage"] == STAGES[-1]].assign(kept=lambda frame: frame["probmass"] / frame["own"])
    found = {}
    for name, mine in last.groupby("family", sort=False):
        means = mine.groupby("parent")[["kept", "promoted"]].mean()
        found[name] = [judge_over("same-options", means["kept"]), judge_over("little-promoted", means["promoted"])]
    return found


def plot_settled(settled: pd.DataFrame) -> Figure:
    """Above, mass on the seed's options; below, mass promoted from SFT's lower half. Every mark is a training run."""
    families, tasks = list(settled["family"].unique()), list(settled["task"].unique())
    fig, axes = panels(2, len(families), 9.6, 2.6, sharex=True, sharey="row")
    for column, (name, mine) in zip(axes.T, settled.groupby("family", sort=False), strict=True):
        for shift, (stage, part) in zip((-0.22, 0.0, 0.22), mine.groupby("stage", sort=False), strict=True):
            place = part["task"].map(tasks.index) + shift
            for ax, what in zip(column, ("probmass", "promoted"), strict=True):
                if what == "promoted" and stage == "sft":
                    continue
                ax.plot(place, part[what], MARKERS[stage], color=COLOURS[stage], ms=3.5, alpha=0.8, label=stage)
        levels = mine.groupby("task", sort=False)[["own", "chance"]].mean()
        for what, style, label in (("own", "-", "the seed's own"), ("chance", ":", "chance")):
            column[0].hlines(levels[what], np.arange(len(tasks)) - 0.4, np.arange(len(tasks)) + 0.4, color="#767c85", lw=1,
                             linestyle=style, label=label)
        column[0].set(title=name, ylim=(0, 1.02))
        column[1].set_ylim(0, None)
        column[1].set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
    axes[0, 0].set_ylabel("mass on the\nseed's options")
    axes[1, 0].set_ylabel("promoted from\nSFT's lower half")
    axes[0, -1].legend(loc="lower left", ncols=2)
    return fig
