"""The claims over training runs: each run judged over all tasks, and what its family says together.

A family is one recipe trained from several seeds; the training run is the unit. Settling by task
and run, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS
from ..measure import chain, claims
from ..measure import quantities as ph
from ..measure.claims import QUANTILE, Verdict
from ..measure.evidence import Count
from ..measure.inference import NOTHING, Estimate
from ..present import show
from ..present import verdicts as kept_verdicts
from ..present.views import Compared, compared, read_ladders
from .runs import family, judge_over, over_parents, where

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]  # run -> task -> verdicts, of a survey
CLAIMS = [claim for claims in chain.CLAIMS.values() for claim in claims]
STAGES = ("sft", "dpo", "rlvr")


def load_runs(found: Found) -> pd.DataFrame:
    """One row per run and claim over all tasks: verdict, number, interval over tasks.

    tasks: how many are judged alone; holds: on how many of these it holds.
    """
    rows = []
    for run, tasks in found.items():
        alone = [v for task, mine in tasks.items() if task != chain.POOLED for v in mine]
        whole = {v.claim: v for v in tasks.get(chain.POOLED, ())}
        for v in (whole[claim] for claim in CLAIMS if claim in whole):
            mine = [o.verdict for o in alone if o.claim == v.claim]
            number = (v.estimate.value, v.estimate.low, v.estimate.high)
            place = (family(run), run, v.claim, v.verdict)
            rows.append((*place, *number, len(mine), mine.count("holds")))
    names = ["family", "run", "claim", "verdict", "number", "low", "high", "tasks", "holds"]
    return pd.DataFrame(rows, columns=names)


def load_families(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and claim: verdicts of its runs, mean of their numbers; measured: how
    many have one.
    """
    rows = []
    for (name, claim), mine in runs.groupby(["family", "claim"], sort=False):
        numbers, verdicts = mine["number"].dropna(), mine["verdict"].tolist()
        over = over_parents(numbers) if len(numbers) > 1 else NOTHING
        number = numbers.mean(), over.low, over.high, len(numbers)
        rows.append((name, claim, len(mine), verdicts, *number))
    names = ["family", "claim", "runs", "verdicts", "number", "low", "high", "measured"]
    return pd.DataFrame(rows, columns=names)


def formatted(row) -> str:
    """One row of `load_families` in words: holds in 2 of 3 training runs, undecided in 1."""
    counts = {verdict: row.verdicts.count(verdict) for verdict in chain.VERDICTS}
    held = f"holds in {counts.pop('holds')} of {row.runs} training runs"
    return ", ".join([held, *(f"{v.replace('-', ' ')} in {n}" for v, n in counts.items() if n)])


def table(families: pd.DataFrame, runs: pd.DataFrame) -> str:
    """MyST: verdict run by run; number, interval over runs; tasks on which each run holds alone."""
    head = ["claim", "ladder", "verdict, run by run", "mean over runs", "holds on tasks alone"]
    lines = []
    for row in families.itertuples():
        mine = where(runs, family=row.family, claim=row.claim)
        each = zip(mine["holds"], mine["tasks"], strict=True)
        alone = ", ".join(f"{n} of {tasks}" if tasks else "–" for n, tasks in each)
        number = show.between(row.number, row.low, row.high)
        number += f" ({row.measured} of {row.runs})" if 0 < row.measured < row.runs else ""
        lines.append([row.claim, row.family, ", ".join(row.verdicts), number, alone])
    return show.table(head, lines)


# --- settling


def has_seed(parent: str, quantile: float = QUANTILE) -> bool:
    """Whether one-seed holds on a run: else settling is not reached."""
    pooled = kept_verdicts.measured(parent, quantile=quantile).verdicts.get(chain.POOLED, ())
    return any(v.claim == "one-seed" and v.verdict == "holds" for v in pooled)


def load_settled(parents: Sequence[str], quantile: float = QUANTILE) -> pd.DataFrame:
    """One row per parent that has a seed, measurable task and stage.

    probmass on the seed's options A, own (the seed's mass there), chance |A|/K, promoted (mass that
    options of SFT's lower half gained since SFT), tv (mass moved since SFT); answered of asked
    prompts, by every stage, and the median mass of the stage that answers least.
    """
    rows = []
    for parent in (parent for parent in parents if has_seed(parent, quantile)):
        readouts = read_ladders([parent], checkpoints=["base", *STAGES], tasks=PHASE_TASKS)
        for task, seed in kept_verdicts.measured(parent, quantile=quantile).seeds.items():
            every = compared(readouts, task, "base", *STAGES)
            if every.count.measurable:
                count = every.count
                place = {"family": family(parent), "parent": parent, "task": task}
                place |= {"answered": count.answered, "asked": count.asked, "median": count.median}
                rows += [place | row for row in _of_task(every, seed, quantile)]
    return pd.DataFrame(rows)


def _of_task(every: Compared, persona: str, quantile: float) -> list[dict]:
    if persona not in every.clusters.astype(str):
        return []
    even, sft = np.ones(len(every.prompts)), every.evidence("sft")
    seed = claims.seed_of(every.evidence("base"), persona, quantile=quantile)
    rows = []
    for stage in STAGES:
        given = every.evidence(stage)
        row = {"stage": stage, "probmass": float(claims.kept_mass(given, seed)(even))}
        row |= {"own": seed.ceiling, "chance": float(seed.mask.mean())}
        row |= {"promoted": claims.promoted(sft, given).value}
        means = sft.distribution.mean(0), given.distribution.mean(0)
        rows.append(row | {"tv": float(ph.tv(*means))})
    return rows


def answered_text(settled: pd.DataFrame, parents: Sequence[str]) -> str:
    """What these numbers rest on, ladder by ladder, and who is not in them, as a MyST list."""
    left = [parent for parent in parents if parent not in set(settled["parent"])]
    lines = [f"{parent}: not in these numbers, for one-seed does not hold" for parent in left]
    for parent, mine in settled.groupby("parent", sort=False):
        tasks = mine.drop_duplicates("task")
        count = Count(tasks["answered"].sum(), tasks["asked"].sum(), tasks["median"].median())
        on = f"{parent}: on {len(tasks)} of {len(PHASE_TASKS)} tasks"
        lines.append(f"{on}, {count.said} by every stage.")
    return show.listed(lines)


def summary(settled: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """Family -> what -> mean over tasks, interval over its training runs."""
    wanted = {
        "the seed's own mass on its options": ("sft", "own"),
        "chance level": ("sft", "chance"),
    }
    for what, value, stages in (
        ("mass on the seed's options", "probmass", STAGES),
        ("promoted from SFT's lower half", "promoted", STAGES[1:]),
        ("moved since SFT", "tv", STAGES[1:]),
    ):
        wanted |= {f"{what}, {stage.upper()}": (stage, value) for stage in stages}
    found = {}
    for name, mine in settled.groupby("family", sort=False):
        means = mine.groupby(["stage", "parent"])[["own", "chance", "probmass", "promoted", "tv"]]
        means = means.mean()
        found[name] = {
            what: over_parents(means.loc[stage][value], 0, 1)
            for what, (stage, value) in wanted.items()
        }
    return found


def verdicts(settled: pd.DataFrame) -> dict[str, list[Verdict]]:
    """Family -> same-options and little-promoted after RLVR, means over tasks, over its runs."""
    last = where(settled, stage=STAGES[-1])
    last = last.assign(kept=last["probmass"] / last["own"])
    found = {}
    for name, mine in last.groupby("family", sort=False):
        means = mine.groupby("parent")[["kept", "promoted"]].mean()
        pairs = (("same-options", "kept"), ("little-promoted", "promoted"))
        found[name] = [judge_over(claim, means[value]) for claim, value in pairs]
    return found
