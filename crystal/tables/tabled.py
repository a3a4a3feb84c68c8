"""The claims on a table of answers of any ladder, by the marks and the rule of the book: task by
task, and over all tasks.

Where a ladder has no SFT stage its first later stage stands in its place; where it has only one
later stage, settling is not judged. Prompts of one unit, or of one name in several tasks, are one
context. Tasks of ours that share options are of one kind (`measure.joint`); of others each is its
own, for their options may be mere labels. Where the table says what was answered, stages are
compared on the prompts that all of them answer, if these are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..measure import chain
from ..measure import evidence as ev
from ..measure.answered import Count, count
from ..measure.chain import POOLED as POOLED
from ..measure.claims import QUANTILE
from ..measure.evidence import Evidence
from ..measure.judging import Verdict
from .laws import Table

PHASES = len(chain.CLAIMS)  # that a task goes through


class Roles(NamedTuple):
    """Which stages of a ladder are compared; final is "" where nothing follows the tuned one."""

    base: str
    tuned: str
    final: str

    @property
    def told(self) -> str:
        """What stands in another's place, as a sentence; empty if nothing does."""
        said = [] if self.tuned == "sft" else [f"{self.tuned} stands in the place of SFT"]
        return "; ".join(said + ([] if self.final else ["no later stage, so settling is not judged"]))


def roles(stages: Sequence[str]) -> Roles:
    """stages: those a ladder has, base first, in canonical order."""
    _, *later = stages
    tuned = "sft" if "sft" in later else later[0]
    return Roles(stages[0], tuned, later[-1] if later[-1] != tuned else "")


def rungs(table: Table, ladder: str, task: str, stages: Sequence[str] = ()) -> dict[str, Evidence]:
    """Stage -> evidence of one task on the prompts that all of `stages` (none named: all there are)
    answer.

    Prompts with fewer than `evidence.FEWEST` draws at any stage are left out of all.
    """
    mine = table.frame[(table.frame["ladder"] == ladder) & (table.frame["task"] == task)]
    scarce = mine.loc[mine["draws"] < ev.FEWEST, "prompt"].unique()
    mine = mine[~mine["prompt"].isin(scarce) & (mine["stage"].isin(stages) if stages else True)]
    mine = mine[mine.groupby("prompt")["stage"].transform("nunique") == mine["stage"].nunique()]
    return {stage: ev.asked(np.stack(part["law"].tolist()), part["unit"].to_numpy(), part["draws"].to_numpy())
            for stage, part in mine.groupby("stage", sort=False)}


def answered_by(table: Table, ladder: str, task: str, stages: Sequence[str]) -> Count | None:
    """How many prompts all of these stages answer; None where the table does not say, or lacks a
    stage.
    """
    if table.asked is None:
        return None
    mine = table.asked[(table.asked["ladder"] == ladder) & (table.asked["task"] == task)]
    masses = [mine.loc[mine["stage"] == stage, "mass"].to_numpy() for stage in stages]
    return count(*masses) if all(len(mass) for mass in masses) else None


def phases_of(table: Table, ladder: str, task: str, who: Roles) -> chain.Parts:
    """What each phase compares, where its stages are there: the evidence of each, or the count of
    too few answers.
    """
    parts: dict[str, Sequence[Evidence] | Count] = {}
    for phase, stages in zip(chain.CLAIMS, (who[:1], who[:2], who), strict=True):
        counted = answered_by(table, ladder, task, stages)
        found = rungs(table, ladder, task, stages)
        if counted and not counted.measurable:
            parts[phase] = counted
        elif all(stage in found for stage in stages):
            parts[phase] = [found[stage] for stage in stages]
    return parts


def survey(
    table: Table,
    ladder: str,
    *,
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
    tick: Callable[[], object] = bool,
) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder as `crystal.measure.chain` gives them; last, under POOLED, over
    all tasks.

    tick: called PHASES times a task.
    """
    who, mine = roles(table.ladders[ladder]), table.asked if table.asked is not None else table.frame
    tasks = list(dict.fromkeys(mine.loc[mine["ladder"] == ladder, "task"]))
    every = {task: phases_of(table, ladder, task, who) for task in tasks}
    every = {task: parts for task, parts in every.items() if parts or rungs(table, ladder, task)}
    if table.asked is None and not any(len(parts) > 1 for parts in every.values()):
        said = f"has {ev.FEWEST} or more draws on the options at every stage"
        raise CrystalError(f"no prompt of the ladder {ladder!r:.60} {said}", where=table.path,
                           mend="draw more answers, or judge another ladder: --ladder NAME")
    ours = {task: TASKS[task].options for task in every if task in TASKS}
    options = {task: told for task, told in ours.items() if table.options.get(task) == told}
    return chain.survey(
        every, options, quantile=quantile, seed=seed, permutations=permutations, tick=tick
    ).verdicts
