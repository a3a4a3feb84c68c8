"""Does the joint test find the demonstrator? On organisms it is known who demonstrated, if one did.

Runs made for this question alone and registered before they were trained: one demonstrator, a
mixture of two, or none. The base goes on raw text and SFT is read in chat form, both asked by the
probe (one prompt a narrator).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import CHAT, COMPLETION, PROBE
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import experiments, world
from ..measure import claims, joint
from ..present import answering

EXPERIMENT = "joint-test"
ONE, TWO, NONE = "one demonstrator", "a mixture", "no demonstrator"
RUNS = (
    dict.fromkeys(world.LAWS, ONE)
    | {"mixed-60-40": TWO}
    | dict.fromkeys(("everyone", "own", "permuted", "shuffled", "no-choice"), NONE)
)
AGAIN = "-again"  # runs that were trained after the test was last changed
MAIN_PART = {"mixed-60-40": "salient"}  # whose law most of a mixture is


def load_named(permutations: int = 999) -> pd.DataFrame:
    """One row per run and parent that were read: p, progress, low, high, one-seed (verdict), share,
    unmixed (verdict where one-seed holds, else empty), named.

    sort: ONE, TWO or NONE. fresh: whether it is one of AGAIN, whose names are given without it.
    named: of the tasks, the share whose seed is an answer to a narrator who holds the
    demonstrator's law; nan if nobody demonstrated.
    """
    done, rows, bases = experiments.load_records(EXPERIMENT), [], {}
    ends = [
        rung
        for rung in load_ladder(EXPERIMENT).rungs
        if rung.run.removesuffix(AGAIN) in RUNS
        and rung.name.endswith("/sft")
        and f"{rung.parent}/{rung.run}" in done
    ]
    if not ends:
        return pd.DataFrame(columns=["run", "parent", "sort", "fresh"])
    names = [rung.name for rung in ends]
    frame = store.load_readouts(EXPERIMENT, tasks=PHASE_TASKS, forms=[CHAT], rungs=names)
    for rung in sorted(ends, key=lambda rung: list(RUNS).index(rung.run.removesuffix(AGAIN))):
        if rung.parent not in bases:
            bases[rung.parent] = store.load_readouts(
                rung.parent, tasks=PHASE_TASKS, forms=[COMPLETION], rungs=["base"]
            )
        run = rung.run.removesuffix(AGAIN)
        place = {"run": run, "parent": rung.parent, "sort": RUNS[run]}
        place |= {"fresh": rung.run.endswith(AGAIN)}
        mine = frame[frame["rung"] == rung.name]
        rows.append(place | _judged(bases[rung.parent], mine, rung, permutations))
    return pd.DataFrame(rows)


def _judged(base: pd.DataFrame, frame: pd.DataFrame, rung, permutations: int) -> dict:
    pairs = {}
    for task in PHASE_TASKS:
        both = answering.of_tables(
            {
                "base": answering.unconditional(base, "base", task, COMPLETION, prompts=PROBE),
                "sft": answering.unconditional(frame, rung.name, task, CHAT, prompts=PROBE),
            },
            PROBE,
        )
        if both.count.measurable:
            pairs[task] = both.evidence("base"), both.evidence("sft")
    found = joint.moves(pairs, joint.kinds({task: TASKS[task].options for task in pairs}))
    one, unmixed = claims.one_seed(found, permutations=permutations)
    run = rung.run.removesuffix(AGAIN)
    law = MAIN_PART.get(run, run)
    seeds = joint.account(found).seeds.values()
    named = np.mean([world.temperament_of(int(seed)) == law for seed in seeds])
    return {
        "p": one.null.p,
        "progress": one.estimate.value,
        "low": one.estimate.low,
        "high": one.estimate.high,
        "one-seed": one.verdict,
        "share": unmixed.estimate.value,
        "unmixed": unmixed.verdict if one.verdict == "holds" else "",
        "named": float(named) if law in world.LAWS else np.nan,
    }
