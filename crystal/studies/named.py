"""Does the seed say who demonstrated? On organisms the demonstrator is known: the seed's narrator holds that law, or another.

The seed is the base prompt nearest to SFT's law on one half of the narrators, in chat form, asked by the probe (one prompt a
narrator); each half of the narrators names one, so that a task gives two answers. Chance: the share of narrators who hold a law
that is the demonstrator's in that task.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import CHAT, PROBE
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import experiments, world
from ..measure import inference as inf
from ..measure.inference import Estimate
from ..measure.phases import Array, tv
from . import branches

CHOSEN, NONE = ("salient", "averse", "first", "last", "middle"), ("own", "everyone", "independent")
HOLDER = [world.temperament_of(prompt.narrator) for prompt in PROBE]
HALF = np.array([prompt.half for prompt in PROBE])


def holds(task: str, law: str) -> Array:
    """(20,) which probe narrators hold `law` in this task, or one that is the same there (`branches.SAME`)."""
    laws = {name: world.law(name, TASKS[task]) for name in world.LAWS}
    same = {name for name, other in laws.items() if tv(other, laws[law]) <= branches.SAME}
    return np.array([name in same for name in HOLDER])


def hits(base: Array, sft: Array, mine: Array) -> float:
    """Share of the two folds whose seed is a prompt of `mine`. base, sft: (20, options)."""
    return float(np.mean([mine[inf.split_seed(base, sft, chosen=chosen).index] for chosen, _ in inf.folds(HALF)]))


def load_named() -> pd.DataFrame:
    """One row per parent, run and task of the seed-control experiment: the five demonstrators in turn, and two controls.

    Columns parent, run, intended, task, held_out, named (share of two), chance. Of a control in which every narrator, or all
    five laws, demonstrate, the intended law is the parents' own: it should be named no more often than by chance.
    """
    runs = [name for name in (*CHOSEN, *NONE) if name in {run.name for run in experiments.load_experiment("seed-control").runs}]
    ladder, done, rows, bases = load_ladder("seed-control"), experiments.load_records("seed-control"), [], {}
    ends = [rung for rung in ladder.rungs
            if rung.run in runs and rung.name.endswith("/sft") and f"{rung.parent}/{rung.run}" in done]
    frame = store.load_readouts("seed-control", rungs=[rung.name for rung in ends], forms=[CHAT])
    for rung in ends:
        if rung.parent not in bases:
            bases[rung.parent] = branches.origin_of(rung.parent), load_ladder(rung.parent)
        base, parent = bases[rung.parent]
        sft = branches.in_chat(frame[frame["rung"] == rung.name], rung.name)
        intended = rung.run if rung.run in CHOSEN else parent.seed
        for task in PHASE_TASKS:
            mine = holds(task, intended)
            rows.append({"parent": rung.parent, "run": rung.run, "intended": intended, "task": task,
                         "held_out": task not in parent.demonstrated, "named": hits(base[task], sft[task], mine),
                         "chance": float(mine.mean())})
    return pd.DataFrame(rows)


def rate(named: pd.DataFrame, column: str = "named") -> Estimate:
    """Mean over tasks and runs, interval over parents."""
    return branches.over_parents(named.groupby("parent")[column].mean(), 0, 1)
