"""The claims on every task of a ladder of the store, adjusted for their number, and on a seed taken from another ladder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from ..ask.ladders import Ladder
from ..ask.prompts import NARRATORS, PROMPTS
from ..ask.tasks import TASKS
from ..lab import world
from ..measure.adjusting import adjusted
from ..measure.answered import no_verdicts
from ..measure.claims import QUANTILE, liquid, nucleation, seed_in_base, seed_named, settling
from ..measure.judging import Verdict
from ..measure.phases import Array
from .answering import Compared, compared, of_tables, unconditional

PHASES = {"liquid": ("many-laws",), "nucleation": ("collapse", "seed-in-base"),
          "settling": ("same-options", "little-promoted", "smaller-move")}


def seeds(readouts: pd.DataFrame) -> dict[str, Array]:
    """Task -> split seed, for every measurable task of one ladder's read-outs; the rivals of any
    one are the others.
    """
    pairs = {task: compared(readouts, task, "base", "sft") for task in readouts["task"].unique()}
    return {task: pair.split().seed for task, pair in pairs.items() if pair.count.measurable}


def of_task(readouts: pd.DataFrame, ladder: Ladder, task: str, *, phases: Sequence[str] = ("liquid", "nucleation", "settling"),
            final: str = "rlvr", quantile: float = QUANTILE, seed: int = 0, permutations: int = 999) -> list[Verdict]:
    """The verdicts of one ladder on one task, not adjusted for others. readouts: of that ladder,
    all tasks, for the rivals.

    Each on the prompts that all checkpoints it compares answer; of too few of them it is that the
    task is not measurable.
    """
    how, found = {"seed": seed, "permutations": permutations}, []
    if "liquid" in phases:
        alone = compared(readouts, task, "base")
        found += of_enough(alone, PHASES["liquid"], lambda: liquid(alone.evidence("base"), **how))
    if "nucleation" in phases:
        pair = compared(readouts, task, "base", "sft")
        claims = [*PHASES["nucleation"], *(["seed-named"] if ladder.seed else [])]
        found += of_enough(pair, claims, lambda: _nucleation(readouts, ladder, task, pair, how))
    if "settling" in phases:
        three = compared(readouts, task, "base", "sft", final)
        found += of_enough(three, PHASES["settling"], lambda: settling(
            *map(three.evidence, ("base", "sft", final)), quantile=quantile, **how))
    return found


def of_enough(
    on: Compared, claims: Sequence[str], judged: Callable[[], list[Verdict]]
) -> list[Verdict]:
    """What `judged` gives, where enough prompts are answered; else that these claims are not
    measurable.
    """
    return judged() if on.count.measurable else no_verdicts(claims, on.count)


def _nucleation(
    readouts: pd.DataFrame, ladder: Ladder, task: str, pair: Compared, how: dict
) -> list[Verdict]:
    base, sft = pair.evidence("base"), pair.evidence("sft")
    others = [law for name, law in seeds(readouts).items() if name != task]
    found = nucleation(base, sft, others, **how)
    if ladder.seed and len(pair.prompts) == len(PROMPTS):
        laws = {name: world.law(name, TASKS[task]) for name in world.LAWS}
        holder = [world.temperament_of(n) for n in range(len(NARRATORS))]
        found.append(seed_named(base.law, sft.law, laws, holder, ladder.seed, **how))
    return found


def survey(readouts: pd.DataFrame, ladder: Ladder, **how) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder, every claim adjusted over the tasks by Holm's method; `how` as in `of_task`."""
    raw = {task: of_task(readouts, ladder, task, **how) for task in readouts["task"].unique()}
    return adjusted(raw)


def seed_shared(readouts: pd.DataFrame, other: pd.DataFrame, task: str, *, seed: int = 0, permutations: int = 999) -> Verdict:
    """The seed chosen in the base of `other`, scored on the SFT of `readouts`: both hold all tasks of one ladder.

    Rivals are the uniform law and the seeds that the other base gives to other tasks.
    """
    pairs = {
        name: of_tables(
            {
                "base": unconditional(other, "base", name),
                "sft": unconditional(readouts, "sft", name),
            }
        )
        for name in readouts["task"].unique()
    }
    foreign = [
        pair.split().seed for name, pair in pairs.items() if name != task and pair.count.measurable
    ]
    mine = pairs[task]
    return of_enough(
        mine,
        ["seed-shared"],
        lambda: [
            seed_in_base(
                mine.evidence("base"),
                mine.evidence("sft"),
                foreign,
                claim="seed-shared",
                seed=seed,
                permutations=permutations,
            )
        ],
    )[0]


def sharing(readouts: pd.DataFrame, other: pd.DataFrame, **how) -> dict[str, list[Verdict]]:
    """Task -> [seed-shared], adjusted over tasks; `how` as in `seed_shared`."""
    return adjusted({task: [seed_shared(readouts, other, task, **how)] for task in readouts["task"].unique()})
