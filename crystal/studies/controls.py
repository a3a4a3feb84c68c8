"""Worlds in which a seed cannot travel, and demonstrations that mean nothing; one parent, so intervals run over tasks.

independent: a narrator holds another law in every task. solo: there is one narrator only. shuffled: the answers of the
demonstration belong to other questions. Beside them the shared world: the parent's own base and SFT.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.prompts import FORMS, PROBE, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import experiments, world
from ..measure import inference
from ..measure.inference import Estimate
from ..measure.judging import Verdict, judge
from ..measure.phases import jsd_bits
from ..present.answering import answers
from ..present.figures import panels
from . import branches, ends
from .ends import SCOPES
from .seed_control import in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray
EXPERIMENT, SHARED = "controls", "shared"
WORLD = {SHARED: "shared", "shuffled": "shared", "independent": "independent", "solo": "solo"}  # of each run
LOOKS = {SHARED: ("#0072B2", "o"), "independent": ("#D55E00", "s"), "solo": ("#009E73", "^"), "shuffled": ("#CC79A7", "D")}


# --- does the base know its world? -----------------------------------------------------------------------------------


def cast(world_: str) -> tuple[Prompt, ...]:
    """The probe prompts whose narrators live in a world: to the base of another they are strangers, with no law to know."""
    return tuple(prompt for prompt in PROBE if world_ != "solo" or prompt.narrator == world.SOLO)


def truth(world_: str, task: str) -> Array:
    """Ground truth of a world's cast in a task, (narrators, options)."""
    held = [world.temperament_of(prompt.narrator, task, world_) for prompt in cast(world_)]
    return np.stack([world.law(name, TASKS[task]) for name in held])


def load_truth(parent: str) -> pd.DataFrame:
    """Columns run, world, form, task, jsd: mean bits from a base's answers to its narrators' laws, on the probe, both forms."""
    done, rows = experiments.load_records(EXPERIMENT), []
    bases = {SHARED: (parent, "base")} | {run: (EXPERIMENT, f"{parent}/{run}/base") for run in ("independent", "solo")
                                          if f"{parent}/{run}" in done}
    for run, (ladder, base) in bases.items():
        frame = store.load_readouts(ladder, tasks=PHASE_TASKS, rungs=[base])
        rows += [
            {
                "run": run,
                "world": WORLD[run],
                "form": form,
                "task": task,
                "jsd": float(
                    jsd_bits(
                        answers(frame, base, task, form, prompts=cast(WORLD[run])),
                        truth(WORLD[run], task),
                    ).mean()
                ),
            }
            for form in FORMS
            for task in PHASE_TASKS
        ]
    return pd.DataFrame(rows)


# --- along SFT -------------------------------------------------------------------------------------------------------


def load_steps(parent: str) -> pd.DataFrame:
    """`branches.walk` of the controls that were read, and the parent's own base and SFT as the run "shared"."""
    own = branches.along([parent])
    own = own[own["stage"].isin(["base", "sft"])].assign(run=SHARED)
    recorded = [run for run in WORLD if f"{parent}/{run}" in experiments.load_records(EXPERIMENT)]
    walked = [branches.walk(EXPERIMENT, recorded)] if recorded else []
    both = pd.concat([own, *walked], ignore_index=True)
    return both[both["parent"] == parent].reset_index(drop=True)


def load_paths(steps: pd.DataFrame) -> pd.DataFrame:
    """Columns run, scope, step, quantity, value: liquidity, bits, and removed share, of means over tasks, by SFT step."""
    rows = []
    for (run, held_out), mine in steps.groupby(["run", "held_out"], sort=False):
        means = mine.groupby("step")[["liquidity", "to_law"]].mean()
        values = {"liquidity, bits": means["liquidity"], "removed share": 1 - means["to_law"] / means["to_law"].loc[0]}
        rows += [{"run": run, "scope": SCOPES[int(held_out)], "step": step, "quantity": quantity, "value": value}
                 for quantity, path in values.items() for step, value in path.items()]
    return pd.DataFrame(rows)


def plot_paths(paths: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, one line per world or demonstration over SFT steps; 0 is the base in chat form."""
    quantities = list(dict.fromkeys(paths["quantity"]))
    fig, axes = panels(len(quantities), len(SCOPES), 7.2, 2.6, sharex=True, sharey="row")
    for row, quantity in zip(axes, quantities, strict=True):
        for ax, scope in zip(row, SCOPES, strict=True):
            chosen = in_scope(paths[paths["quantity"] == quantity], scope)
            for run in [run for run in LOOKS if run in set(chosen["run"])]:
                mine = chosen[chosen["run"] == run]
                ax.plot(mine["step"], mine["value"], color=LOOKS[run][0], marker=LOOKS[run][1], label=run)
            ax.axhline(0, color="#767c85", lw=0.8)
            ax.set_xscale("symlog", linthresh=1)
            steps = sorted(paths["step"].unique())
            ax.set_xticks(steps, [str(step) if step else "base" for step in steps])
            ax.minorticks_off()
        row[0].set_ylabel(quantity)
    for ax, scope in zip(axes[0], SCOPES, strict=True):
        ax.set_title(f"{scope} tasks")
    for ax in axes[-1]:
        ax.set_xlabel("SFT steps")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LOOKS))
    return fig


# --- does the law travel? --------------------------------------------------------------------------------------------


def removed_over_tasks(frame: pd.DataFrame) -> Estimate:
    """Removed share of the mean over tasks of one run, with an interval over them. frame: of `ends.ends`, one row per task."""
    after, before = frame["to_law"].to_numpy(), frame["to_law_before"].to_numpy()
    return inference.estimate(lambda w: 1 - (w @ after) / (w @ before), inference.leave_one_out(np.arange(len(frame))))


def verdict(ends_: pd.DataFrame) -> Verdict:
    """seed-needs-a-shared-law: removed share of the held-out tasks of the independent world; interval over those tasks."""
    mine = in_scope(ends_[ends_["run"] == "independent"], "held-out")
    if mine.empty:
        return ends.judge("seed-needs-a-shared-law", pd.Series(dtype=float))
    found = judge("seed-needs-a-shared-law", removed_over_tasks(mine))
    over = f"of one parent, so the interval is over its {len(mine)} held-out tasks"
    return dataclasses.replace(found, reason=f"{found.reason}; {over}")


def nearness(ends_: pd.DataFrame) -> str:
    """How many held-out tasks of the independent world have the demonstrator's law as the nearest, before and after, in words."""
    mine = in_scope(ends_[ends_["run"] == "independent"], "held-out")
    if mine.empty:
        return "The independent world was not read yet."
    before, after = (f"{mine[when].sum():.0f}" for when in ("follows_before", "follows"))
    return (f"In the independent world the demonstrator's law is the nearest of the five in {before} of {len(mine)} held-out "
            f"tasks before SFT and in {after} after. Where the mean answer lies between all five laws a small move makes one of "
            "them the nearest: the follow rate says which way, the removed share how far.")


def run_table(ends_: pd.DataFrame) -> str:
    """One row per run and scope: liquidity (bits) and off-support mass before and after, removed share, tasks that follow."""
    rows = []
    for run in [run for run in LOOKS if run in set(ends_["run"])]:
        for scope in SCOPES:
            mine = in_scope(ends_[ends_["run"] == run], scope)
            mean = mine[["liquidity_before", "liquidity", "off_support_before", "off_support"]].mean()
            rows.append([run, scope, *map(ends.fmt, mean), ends.interval(removed_over_tasks(mine)),
                         *(f"{mine[when].sum():.0f} of {len(mine)}" for when in ("follows_before", "follows"))])
    return ends.table(["world or demonstration", "tasks", "liquidity of the base, bits", "after SFT, bits", "off support, base",
                       "after SFT", "removed share", "follow the demonstrator, base", "after SFT"], rows)
