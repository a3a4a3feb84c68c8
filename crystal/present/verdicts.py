"""The claims on every task of a ladder of the store, adjusted for their number, and on a seed taken from another ladder."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..ask.ladders import Ladder
from ..ask.prompts import NARRATORS
from ..ask.tasks import TASKS
from ..keep.store import answers
from ..lab import world
from ..measure import inference as inf
from ..measure.adjusting import adjusted
from ..measure.claims import QUANTILE, liquid, nucleation, seed_in_base, seed_named, settling
from ..measure.judging import Verdict
from ..measure.phases import Array


def seeds(readouts: pd.DataFrame) -> dict[str, Array]:
    """Task -> split seed, for every task of one ladder's read-outs; the rivals of any one of them are the others."""
    pairs = {task: [answers(readouts, rung, task) for rung in ("base", "sft")] for task in readouts["task"].unique()}
    return {task: inf.split_seed(base, sft).seed for task, (base, sft) in pairs.items()}


def of_task(readouts: pd.DataFrame, ladder: Ladder, task: str, *, phases: Sequence[str] = ("liquid", "nucleation", "settling"),
            final: str = "rlvr", quantile: float = QUANTILE, seed: int = 0, permutations: int = 999) -> list[Verdict]:
    """The verdicts of one ladder on one task, not adjusted for others. readouts: of that ladder, all tasks, for the rivals."""
    base, sft = (answers(readouts, rung, task) for rung in ("base", "sft"))
    how, found = {"seed": seed, "permutations": permutations}, []
    if "liquid" in phases:
        found += liquid(base, **how)
    if "nucleation" in phases:
        found += nucleation(base, sft, [law for name, law in seeds(readouts).items() if name != task], **how)
        if ladder.seed:
            laws = {name: world.law(name, TASKS[task]) for name in world.LAWS}
            holder = [world.temperament_of(n) for n in range(len(NARRATORS))]
            found.append(seed_named(base, sft, laws, holder, ladder.seed, **how))
    if "settling" in phases:
        found += settling(base, sft, answers(readouts, final, task), quantile=quantile, **how)
    return found


def survey(readouts: pd.DataFrame, ladder: Ladder, **how) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder, every claim adjusted over the tasks by Holm's method; `how` as in `of_task`."""
    raw = {task: of_task(readouts, ladder, task, **how) for task in readouts["task"].unique()}
    return adjusted(raw)


def seed_shared(readouts: pd.DataFrame, other: pd.DataFrame, task: str, *, seed: int = 0, permutations: int = 999) -> Verdict:
    """The seed chosen in the base of `other`, scored on the SFT of `readouts`: both hold all tasks of one ladder.

    Rivals are the uniform law and the seeds that the other base gives to other tasks.
    """
    pairs = {name: (answers(other, "base", name), answers(readouts, "sft", name)) for name in readouts["task"].unique()}
    foreign = [inf.split_seed(*pair).seed for name, pair in pairs.items() if name != task]
    return seed_in_base(*pairs[task], foreign, claim="seed-shared", seed=seed, permutations=permutations)


def sharing(readouts: pd.DataFrame, other: pd.DataFrame, **how) -> dict[str, list[Verdict]]:
    """Task -> [seed-shared], adjusted over tasks; `how` as in `seed_shared`."""
    return adjusted({task: [seed_shared(readouts, other, task, **how)] for task in readouts["task"].unique()})
