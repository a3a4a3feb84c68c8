"""Worlds in which a seed cannot travel, answers dealt to other questions; does the joint test see?

independent: a persona holds another distribution in every task. solo: there is one persona.
shuffled: the answers of the demonstration belong to other questions. shared: the parent's own base
and SFT. One parent, so intervals run over tasks. The joint test is asked, of runs registered for
it, who demonstrated: one, a mixture of two, or none; the base goes on raw text, SFT answers in chat
form.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from ..ask.prompts import CHAT, COMPLETION, FORMS, PROBE, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import recipes, world
from ..measure import claims, inference, joint
from ..measure.claims import Verdict, judge
from ..measure.inference import Estimate
from ..measure.quantities import jsd_bits, tv
from ..present import show, views
from ..present.show import between, fmt, listed, table
from . import runs
from .runs import SCOPES, Array, where

EXPERIMENT, SHARED = "controls", "shared"
WORLD = {SHARED: SHARED, "independent": "independent", "solo": "solo", "shuffled": SHARED}
INDEPENDENT = {"run": "independent", "scope": "held-out"}

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


def cast(world_: str) -> tuple[Prompt, ...]:
    """The probe prompts whose personas live in a world; others are strangers to its base."""
    return tuple(p for p in PROBE if world_ != "solo" or p.persona == world.SOLO)


def truth(world_: str, task: str) -> Array:
    """Ground truth of a world's cast in a task, (personas, options)."""
    held = [world.temperament_of(prompt.persona, task, world_) for prompt in cast(world_)]
    return np.stack([world.distribution(name, TASKS[task]) for name in held])


def load_truth(parent: str) -> pd.DataFrame:
    """Mean bits from a base's answers to its personas' own: run, world, form, task, jsd."""
    done, rows = recipes.load_records(EXPERIMENT), []
    own = [run for run in ("independent", "solo") if f"{parent}/{run}" in done]
    bases = {SHARED: (parent, "base")}
    bases |= {run: (EXPERIMENT, f"{parent}/{run}/base") for run in own}
    for run, (ladder, base) in bases.items():
        frame = store.load_readouts(ladder, tasks=PHASE_TASKS, checkpoints=[base])
        for form, task in product(FORMS, PHASE_TASKS):
            p = views.answers(frame, base, task, form, prompts=cast(WORLD[run]))
            far = float(jsd_bits(p, truth(WORLD[run], task)).mean())
            rows.append((run, WORLD[run], form, task, far))
    return pd.DataFrame(rows, columns=["run", "world", "form", "task", "jsd"])


def load_steps(parent: str) -> pd.DataFrame:
    """`runs.walk` of the controls that were read; the parent's own base and SFT as "shared"."""
    own = runs.along([parent])
    own = own[own["stage"].isin(["base", "sft"])].assign(run=SHARED)
    done = recipes.load_records(EXPERIMENT)
    there = [run for run in ("shuffled", "independent", "solo") if f"{parent}/{run}" in done]
    both = pd.concat([own, *([runs.walk(EXPERIMENT, there)] if there else [])], ignore_index=True)
    return both[both["parent"] == parent].reset_index(drop=True)


def load_paths(steps: pd.DataFrame) -> pd.DataFrame:
    """Columns run, scope, step, quantity, value: liquidity and removed share by SFT step; means
    over the tasks that all steps answer.
    """
    parts = []
    for (run, held_out), mine in steps.groupby(["run", "held_out"], sort=False):
        mine = mine.groupby("task").filter(lambda task: task["to_distribution"].notna().all())
        means = mine.groupby("step")[["liquidity", "to_distribution"]].mean()
        removed = 1 - means["to_distribution"] / means["to_distribution"].loc[0]
        for quantity, path in (("liquidity, bits", means["liquidity"]), ("removed share", removed)):
            place = {"run": run, "scope": SCOPES[int(held_out)], "quantity": quantity}
            parts.append(path.rename("value").reset_index().assign(**place))
    return pd.concat(parts, ignore_index=True)


def removed_over_tasks(frame: pd.DataFrame) -> Estimate:
    """Removed share of the mean over tasks, interval over these. frame: of `runs.ends`, one run;
    tasks that SFT no longer answers are left out.
    """
    frame = frame.dropna(subset=["to_distribution"])
    after, before = frame["to_distribution"].to_numpy(), frame["to_distribution_before"].to_numpy()
    weights = inference.leave_one_out(np.arange(len(frame)))
    return inference.estimate(lambda w: 1 - (w @ after) / (w @ before), weights)


def verdict(ends: pd.DataFrame) -> Verdict:
    """seed-needs-a-shared-distribution: removed share of the independent world's held-out tasks,
    interval over these.
    """
    claim, mine = "seed-needs-a-shared-distribution", where(ends, **INDEPENDENT)
    if mine.empty:
        return runs.judge_over(claim, pd.Series(dtype=float))
    found = judge(claim, removed_over_tasks(mine))
    over = f"of one base, so the interval is over its {len(mine)} held-out tasks"
    if len(shared := where(ends, run=SHARED, scope="held-out")):
        over += f"; in the shared world {runs.interval(removed_over_tasks(shared))}"
    return dataclasses.replace(found, reason=f"{found.reason}; {over}")


def run_table(ends: pd.DataFrame) -> str:
    """One row per run and scope: before and after SFT, means over tasks that are answered after."""
    head = ["world or demonstration", "tasks", "liquidity of the base, bits", "after SFT, bits"]
    head += ["invalid-answer mass, base", "after SFT", "removed share"]
    head += ["follow the demonstrator, base", "after SFT"]
    rows, means = [], ["liquidity_before", "liquidity", "invalid_before", "invalid"]
    for run, scope in product([run for run in WORLD if run in set(ends["run"])], SCOPES):
        mine = where(ends, run=run, scope=scope).dropna(subset=["to_distribution"])
        gone = runs.interval(removed_over_tasks(mine))
        follow = (f"{n:.0f} of {len(mine)}" for n in mine[["follows_before", "follows"]].sum())
        rows.append([run, scope, *map(fmt, mine[means].mean()), gone, *follow])
    return table(head, rows)


# --- the joint test, where it is known who demonstrated


def load_named(permutations: int = 999) -> pd.DataFrame:
    """One row per run and parent that were read: what the claims one-seed and unmixed say.

    sort: ONE, TWO, NONE or SCATTERED. since: which of SINCE it is, or empty; run is without it.
    fresh: whether it is one. unmixed: the verdict, where one-seed holds, else empty. named: of the
    tasks, the share whose seed is an answer to a persona who holds the demonstrator's distribution;
    nan if nobody demonstrated.
    """
    checkpoints = [c for c in runs.recorded_checkpoints(JOINT) if c.name.endswith("/sft")]
    last = [(SINCE.sub("", c.run), c) for c in checkpoints]
    last = [(run, c) for run, c in last if run in JOINT_RUNS]
    if not last:
        return pd.DataFrame(columns=["run", "parent", "sort", "since", "fresh"])
    read = partial(store.load_readouts, tasks=PHASE_TASKS)
    frame = read(JOINT, forms=[CHAT], checkpoints=[c.name for _, c in last])
    parts, bases = dict(tuple(frame.groupby("checkpoint"))), {}
    for parent in {c.parent for _, c in last}:
        bases[parent] = read(parent, forms=[COMPLETION], checkpoints=["base"])
    rows = []
    for run, c in sorted(last, key=lambda one: list(JOINT_RUNS).index(one[0])):
        since = c.run.removeprefix(run).removeprefix("-")
        place = {"run": run, "parent": c.parent, "sort": JOINT_RUNS[run]}
        place |= {"since": since, "fresh": bool(since)}
        demonstrated = MAIN_PART.get(run, run)
        rows.append(place | _judged(bases[c.parent], parts[c.name], demonstrated, permutations))
    return pd.DataFrame(rows)


def alarms(named: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Who counts as nobody -> of the fresh runs with nobody, in how many one-seed holds, and all
    that could be asked.

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
    """Task -> total variation between the answers of a distribution in all tasks, dealt to other
    questions, as far as they are options of the task, and the nearest of the distributions `held`.
    Exact; 0: the dealt answers demonstrate one of these.
    """
    pool: Counter[str] = Counter()
    for name in tasks:
        p = world.distribution(distribution, TASKS[name])
        pool.update(dict(zip(TASKS[name].options, p, strict=True)))
    among = {name: np.array([pool[option] for option in TASKS[name].options]) for name in tasks}
    return {
        name: min(float(tv(q / q.sum(), world.distribution(who, TASKS[name]))) for who in held)
        for name, q in among.items()
    }


def show_alarms(named: pd.DataFrame) -> str:
    """Of how many runs without a demonstrator one-seed holds, and whether dealt answers show a
    persona's distribution: as sentences, and as claims.
    """
    sentences = []
    for who, (held, of) in alarms(named).items():
        low, high = inference.share(held, of)
        sentences.append(f"false alarms, {who}: {held} of {of}, {between(held / of, low, high)}")
        found = inference.Estimate(held / of, low, high)
        runs.record(f"alarms-{show.slug(who)}", found, sentences[-1], ladder=JOINT)
    for run, distribution in DEALT.items():
        if len(mine := where(named, run=run, fresh=True)):
            sentences += _show_dealt(run, distribution, mine)
    return listed(sentences)


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
