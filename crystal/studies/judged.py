"""The claims over training runs: each run judged over all tasks, and what its family says together.

A family is one recipe trained from several seeds; the training run is the unit. Settling by task
and run, too. And the joint test, asked of runs registered for it, who demonstrated: one, a mixture
of two, or none; the base goes on raw text, SFT answers in chat form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..ask.prompts import CHAT, COMPLETION, PROBE
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import recipes, world
from ..measure import chain, claims, inference, joint
from ..measure.claims import QUANTILE, Verdict
from ..measure.evidence import Count
from ..measure.inference import NOTHING, Estimate
from ..measure.quantities import tv
from ..present import show, views
from ..present import verdicts as kept_verdicts
from ..present.views import compared, read_ladders
from . import runs
from .runs import family, judge_over, over_parents, where

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]  # run -> task -> verdicts, of a survey
STAGES = ("sft", "dpo", "rlvr")

JOINT = "joint-test"
ONE, TWO, NONE = "one demonstrator", "a mixture", "no demonstrator"
SCATTERED = "a persona's answers, dealt"
# dealt to other questions: whose answers. The first two turned out to demonstrate it all the same
DEALT = {"shuffled": "salient", "shuffled-unstyled": "salient", "shuffled-permuted": "permuted"}
NOBODY = ("everyone", "own", "permuted", "no-choice", "shuffled-permuted")
JOINT_RUNS = (
    dict.fromkeys(world.TEMPERAMENTS, ONE)
    | {"mixed-60-40": TWO}
    | dict.fromkeys(NOBODY, NONE)
    | dict.fromkeys(("shuffled", "shuffled-unstyled"), SCATTERED)
)
LAST = "fourth"
SINCE = re.compile(f"-(again|other|third|{LAST})$")  # trained after the test was last changed
MAIN_PART = DEALT | {"mixed-60-40": "salient"}  # whose distribution most of the answers show


def load_runs(found: Found) -> pd.DataFrame:
    """One row per run and claim over all tasks: verdict, number, interval over tasks.

    tasks: how many are judged alone; holds: on how many of these it holds.
    """
    every = kept_verdicts.load_verdicts(found).drop(columns="number")
    every = every.rename(columns={"ladder": "run", "value": "number"})
    alone = every[every["task"] != chain.POOLED].groupby(["run", "claim"])["verdict"]
    counts = alone.agg(tasks="size", holds=lambda mine: (mine == "holds").sum()).reset_index()
    whole = where(every, task=chain.POOLED).merge(counts, "left").fillna({"tasks": 0, "holds": 0})
    whole = whole.astype({"tasks": int, "holds": int}).assign(family=whole["run"].map(family))
    columns = ["family", "run", "claim", "verdict", "number", "low", "high", "tasks", "holds"]
    return whole[columns]


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
    options of SFT's lower half gained since SFT), tv (mass moved since SFT); prompts answered by
    every stage, and the median mass of the one that answers least.
    """
    rows = []
    for parent in (parent for parent in parents if has_seed(parent, quantile)):
        readouts = read_ladders([parent], checkpoints=["base", *STAGES], tasks=PHASE_TASKS)
        for task, persona in kept_verdicts.measured(parent, quantile=quantile).seeds.items():
            every = compared(readouts, task, "base", *STAGES)
            count = every.count
            if not count.measurable or persona not in every.clusters.astype(str):
                continue
            sft, seed = (
                every.evidence("sft"),
                claims.seed_of(every.evidence("base"), persona, quantile=quantile),
            )
            place = {"family": family(parent), "parent": parent, "task": task}
            place |= {"answered": count.answered, "asked": count.asked, "median": count.median}
            for stage in STAGES:
                given, even = every.evidence(stage), np.ones(len(every.prompts))
                row = {"stage": stage, "probmass": float(claims.kept_mass(given, seed)(even))}
                row |= {"own": seed.ceiling, "chance": float(seed.mask.mean())}
                row |= {"promoted": claims.promoted(sft, given).value}
                moved = tv(sft.distribution.mean(0), given.distribution.mean(0))
                rows.append(place | row | {"tv": float(moved)})
    return pd.DataFrame(rows)


def answered_text(settled: pd.DataFrame, parents: Sequence[str]) -> str:
    """What these numbers rest on, ladder by ladder, and who is not in them, as a MyST list."""
    left = [parent for parent in parents if parent not in set(settled["parent"])]
    lines = [f"{parent}: not in these numbers, for one-seed does not hold" for parent in left]
    for parent, mine in settled.drop_duplicates(["parent", "task"]).groupby("parent", sort=False):
        count = Count(mine["answered"].sum(), mine["asked"].sum(), mine["median"].median())
        on = f"{parent}: on {len(mine)} of {len(PHASE_TASKS)} tasks"
        lines.append(f"{on}, {count.said} by every stage.")
    return show.listed(lines)


def summary(settled: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """Family -> what -> mean over tasks, interval over its training runs."""
    wanted = {
        "the seed's own mass on its options": ("own", "sft"),
        "chance level": ("chance", "sft"),
    }
    wanted |= {f"mass on the seed's options, {s.upper()}": ("probmass", s) for s in STAGES}
    for what, value in (("promoted from SFT's lower half", "promoted"), ("moved since SFT", "tv")):
        wanted |= {f"{what}, {stage.upper()}": (value, stage) for stage in STAGES[1:]}
    values = ["own", "chance", "probmass", "promoted", "tv"]
    means = settled.groupby(["family", "stage", "parent"])[values].mean()
    return {
        name: {
            what: over_parents(means.loc[name, stage][value], 0, 1)
            for what, (value, stage) in wanted.items()
        }
        for name in settled["family"].unique()
    }


def verdicts(settled: pd.DataFrame) -> dict[str, list[Verdict]]:
    """Family -> same-options and little-promoted after RLVR, means over tasks, over its runs."""
    last = where(settled, stage=STAGES[-1])
    last = last.assign(kept=last["probmass"] / last["own"])
    means = last.groupby(["family", "parent"], sort=False)[["kept", "promoted"]].mean()
    pairs = (("same-options", "kept"), ("little-promoted", "promoted"))
    return {
        name: [judge_over(claim, means.loc[name][value]) for claim, value in pairs]
        for name in last["family"].unique()
    }


# --- the joint test, where it is known who demonstrated


def load_named(permutations: int = 999) -> pd.DataFrame:
    """One row per run and parent that were read: what the claims one-seed and unmixed say.

    sort: ONE, TWO, NONE or SCATTERED. since: which of SINCE it is, or empty; run is without it.
    fresh: whether it is one. unmixed: empty where one-seed does not hold. named: the share of tasks
    whose seed is a persona who holds the demonstrator's distribution; nan if nobody demonstrated.
    """
    last = [(SINCE.sub("", c.run), c) for c in runs.recorded_checkpoints(JOINT) if c.stage == "sft"]
    last = [(run, c) for run, c in last if run in JOINT_RUNS]
    if not last:
        return pd.DataFrame()
    which = {"tasks": PHASE_TASKS, "forms": [CHAT], "checkpoints": [c.name for _, c in last]}
    frames, rows = runs.by_checkpoint(JOINT, **which), []
    which = {"tasks": PHASE_TASKS, "forms": [COMPLETION], "checkpoints": ["base"]}
    bases = {parent: store.load_readouts(parent, **which) for parent in {c.parent for _, c in last}}
    for run, c in sorted(last, key=lambda one: list(JOINT_RUNS).index(one[0])):
        since = c.run.removeprefix(run).removeprefix("-")
        place = {"run": run, "parent": c.parent, "sort": JOINT_RUNS[run], "since": since}
        found = _judged(bases[c.parent], frames[c.name], MAIN_PART.get(run, run), permutations)
        rows.append(place | {"fresh": bool(since)} | found)
    return pd.DataFrame(rows)


def _judged(base: pd.DataFrame, frame: pd.DataFrame, demonstrated: str, permutations: int) -> dict:
    pairs, checkpoint = {}, frame["checkpoint"].iloc[0]
    for task in PHASE_TASKS:
        tables = {
            "base": views.unconditional(base, "base", task, COMPLETION, prompts=PROBE),
            "sft": views.unconditional(frame, checkpoint, task, CHAT, prompts=PROBE),
        }
        both = views.of_tables(tables, PROBE)
        if both.count.measurable:
            pairs[task] = both.evidence("base"), both.evidence("sft")
    found = joint.moves(pairs, joint.kinds({task: TASKS[task].options for task in pairs}))
    if found is None:  # too few kinds of tasks are answered
        numbers = dict.fromkeys(("p", "progress", "low", "high", "share", "named"), np.nan)
        return numbers | {"one-seed": "not-testable", "unmixed": ""}
    one, unmixed = claims.one_seed(found, permutations=permutations)
    seeds = joint.account(found).seeds.values()
    named = np.mean([world.temperament_of(int(seed)) == demonstrated for seed in seeds])
    return {
        "p": one.null.p,
        "progress": one.estimate.value,
        "low": one.estimate.low,
        "high": one.estimate.high,
        "one-seed": one.verdict,
        "share": unmixed.estimate.value,
        "unmixed": unmixed.verdict if one.verdict == "holds" else "",
        "named": float(named) if demonstrated in world.TEMPERAMENTS else np.nan,
    }


def alarms(named: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Who counts as nobody -> of fresh runs, in how many one-seed holds, and how many could be
    asked.

    Registered in data/registered: the first two in 2026-11-30-nobody.md, the others, of the runs
    before, in 2026-11-30-style.md.
    """
    asked = named[named["fresh"] & (named["one-seed"] != "not-testable")]
    asked = asked[asked["sort"].isin([NONE, SCATTERED])]
    last, by_definition = asked["since"] == LAST, asked["run"].isin(NOBODY)
    counted = {
        "the runs trained last": asked[last],
        "all runs that show no persona's distribution": asked[by_definition],
        "before, with dealt answers of a persona": asked[~last],
        "before, without shuffled": asked[~last & (asked["run"] != "shuffled")],
    }
    held = {who: int((mine["one-seed"] == "holds").sum()) for who, mine in counted.items()}
    return {who: (held[who], len(mine)) for who, mine in counted.items() if len(mine)}


def dealt(distribution: str, tasks: Sequence[str], held: Sequence[str]) -> dict[str, float]:
    """Task -> total variation of a distribution's answers in all tasks, dealt to other questions,
    as far as they are options of the task, from the nearest of the distributions `held`; exact.
    """
    options = {task: pd.Index(TASKS[task].options) for task in tasks}
    given = [pd.Series(world.distribution(distribution, TASKS[t]), options[t]) for t in tasks]
    pool, found = pd.concat(given).groupby(level=0).sum(), {}
    for task in tasks:
        p = pool[options[task]].to_numpy()
        far = [tv(p / p.sum(), world.distribution(who, TASKS[task])) for who in held]
        found[task] = float(min(far))
    return found


def show_alarms(named: pd.DataFrame) -> str:
    """In how many runs without a demonstrator one-seed holds, and whether dealt answers show a
    persona's distribution: as sentences, and as claims.
    """
    sentences = []
    for who, (held, of) in alarms(named).items():
        found = Estimate(held / of, *inference.share(held, of))
        sentences.append(f"false alarms, {who}: {held} of {of}, {show.interval(found)}")
        runs.record(f"alarms-{show.slug(who)}", found, sentences[-1], ladder=JOINT)
    for run, distribution in DEALT.items():
        if len(mine := where(named, run=run, fresh=True)):
            sentences += _show_dealt(run, distribution, mine)
    return show.listed(sentences)


def _show_dealt(run: str, distribution: str, mine: pd.DataFrame) -> list[str]:
    out, held = (int((mine["one-seed"] == said).sum()) for said in ("not-testable", "holds"))
    sentence = f"{run}: one-seed holds in {held} of {len(mine)} runs; {out} answer too few kinds "
    sentence += "of tasks to be asked"
    if (best := mine["named"].max()) >= 0:
        sentence += f"; the demonstrator's distribution is named on up to {best:.0%} of the tasks"
    runs.record(f"named-{run}", out, sentence, ladder=JOINT)
    own = distribution in world.TEMPERAMENTS
    tasks = recipes.load_recipe("nano-llama").demonstrated
    far = dealt(distribution, tasks, [distribution] if own else world.TEMPERAMENTS)
    near = ", ".join(f"{task} {apart:.2f}" for task, apart in far.items())
    whose = "the demonstrator's distribution" if own else "the nearest persona's"
    exact = f"{run}: total variation of dealt answers that are options of a task from {whose}, "
    exact += f"exactly: {near}"
    runs.record(f"dealt-{run}", round(float(np.median([*far.values()])), 9), exact, ladder=JOINT)
    return [sentence, exact]
