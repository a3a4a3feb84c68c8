"""Can the seed be chosen? SFT demonstrated by each of five temperaments, by mixtures, by ever less.

Frames are those of `runs.load_ends`; a run is named after its demonstrator, whose distribution is
intended. Finding one that is the same in a task (`runs.SAME`) counts. The demonstrator `own`
answers as everyone's own. A demonstrator's style is a suffix that went with the distribution in
pretraining: if it alone moves the distributions, the seed is not learnt but found.

And worlds in which a seed cannot travel, from one base, so that intervals run over tasks.
independent: a persona holds another distribution in every task. solo: there is one persona.
shuffled: the answers of the demonstration belong to other questions. shared: the base's own SFT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import pandas as pd

from ..ask.prompts import FORMS, PROBE, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import recipes, world
from ..measure import inference
from ..measure.claims import Verdict, judge
from ..measure.inference import Estimate, Null, against, generator
from ..measure.quantities import jsd_bits, tv
from ..present import views
from ..present.show import fmt, slug, table
from . import runs
from .runs import SCOPES, Array, judge_over, means, per_parent, tidy, where

EXPERIMENT, TEMPERAMENTS = "seed-control", world.TEMPERAMENTS
TOGETHER = "all five"
KEPT, REMOVED, RATE = "liquidity kept", "removed share", "follow rate"
QUANTITIES = {RATE: lambda mine: mine["follows"].mean(), REMOVED: runs.removed, KEPT: runs.kept}
ORDERS = np.array(list(permutations(range(len(TEMPERAMENTS)))))  # (120, 5), the first moves nothing

ONE, TWO, EVERYONE, STRANGER = "salient", "mixed-60-40", "everyone", "permuted"
MIXED = (ONE, TWO, EVERYONE, world.OWN, STRANGER)
NEAR, FAR = "distance before, bits", "distance after, bits"
MIXED_QUANTITIES = {
    KEPT: runs.kept,
    NEAR: lambda mine: mine["to_distribution_before"].mean(),
    FAR: lambda mine: mine["to_distribution"].mean(),
    REMOVED: runs.removed,
}
# the base's mean is everyone's distribution, and everyone's own is no single one
UNDEFINED = {(world.OWN, NEAR), (world.OWN, FAR), (world.OWN, REMOVED), (EVERYONE, REMOVED)}

DOSES = (0, 1, 2, 5, 10, 30)  # per cent of random choices among SFT's answers; 30 is usual
STYLED, NEUTRAL = "demonstrator's style", "neutral style"
DOSED = {f"styled-dose-{dose}" if dose < 30 else ONE: (STYLED, dose) for dose in DOSES}
DOSED |= {f"neutral-dose-{dose}": (NEUTRAL, dose) for dose in DOSES}

CONTROLS, SHARED = "controls", "shared"
WORLD = {SHARED: SHARED, "independent": "independent", "solo": "solo", "shuffled": SHARED}


# --- five demonstrators


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of parents from which all five demonstrators were read."""
    read = frame.groupby("parent")["run"].nunique()
    return frame[frame["parent"].isin(read.index[read == len(TEMPERAMENTS)])]


def load_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns scope, intended, found, share (of tasks and parents), rows (how many)."""
    landed = frame.assign(share=frame["found"].where(frame["follows"] == 0, frame["run"]))
    found = _landed(landed, ["scope", "run"], TEMPERAMENTS, ["share"])
    return found.rename(columns={"run": "intended", "distribution": "found"})


def _landed(
    frame: pd.DataFrame, by: Sequence[str], names: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """By key and distribution, in which share of the rows each of the columns names it."""
    rows = [
        dict(zip(by, key, strict=True))
        | {"distribution": name, **(mine[columns] == name).mean(), "rows": len(mine)}
        for key, mine in frame.groupby(by, sort=False)
        for name in names
    ]
    return pd.DataFrame(rows)


def same_distributions(task: str) -> Array:
    """(5, 5) bool: which of the five distributions are one in this task."""
    p = runs.distributions(task)
    return tv(p[:, None], p[None]) <= runs.SAME


def hits(frame: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """Blocks (parent, task) and (blocks, 5, 5): would what run i found count as following label j?

    frame: of `whole` parents.
    """
    found = frame.pivot(index=["parent", "task"], columns="run", values="found")[list(TEMPERAMENTS)]
    named = found.map(TEMPERAMENTS.index).to_numpy()
    same = np.stack([same_distributions(task) for task in found.index.get_level_values("task")])
    return found.index.to_frame(index=False), np.take_along_axis(same, named[:, :, None], axis=1)


def permuted_null(
    frame: pd.DataFrame, *, n: int = 999, seed: int = 0, together: bool = False
) -> Null:
    """The follow rate with labels permuted among demonstrators of one parent and task, n times.

    together: all tasks of a parent alike, which allows for a run that drags its tasks the same way
    by accident; more careful, and not the registered one.
    """
    blocks, counted = hits(frame)
    rates = counted[:, np.arange(len(TEMPERAMENTS)), ORDERS].mean(-1)  # (blocks, 120)
    cluster = pd.factorize(blocks["parent"])[0] if together else np.arange(len(blocks))
    orders = generator(seed, "labels").integers(len(ORDERS), size=(n, cluster.max() + 1))
    draws = rates[np.arange(len(blocks)), orders[:, cluster]].mean(1)
    return against("labels permuted among demonstrators", rates[:, 0].mean(), draws)


def chance_of(frame: pd.DataFrame) -> pd.Series:
    """By demonstrator, the follow rate of permuted labels."""
    return pd.Series(hits(frame)[1].mean((0, 1)), index=TEMPERAMENTS)


def verdict(frame: pd.DataFrame, *, n: int = 999, seed: int = 0) -> Verdict:
    """seed-follows: the follow rate of held-out tasks, over `whole` parents."""
    mine = where(whole(frame), scope="held-out")
    null = permuted_null(mine, n=n, seed=seed) if len(mine) else None
    return judge_over("seed-follows", per_parent(mine, QUANTITIES[RATE]), null)


def load_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` of the follow rate by demonstrator and scope, then of all five.

    chance: of permuted labels, over whole parents; nan where there is none.
    """
    complete = whole(frame)
    parts = (frame, complete.assign(run=TOGETHER))
    rates = pd.concat([tidy(part, ["run", "scope"], {RATE: QUANTITIES[RATE]}) for part in parts])
    chance = dict.fromkeys(SCOPES, pd.Series(np.nan, index=TEMPERAMENTS))
    chance |= {scope: chance_of(mine) for scope, mine in complete.groupby("scope")}
    level = [chance[row.scope].get(row.run, chance[row.scope].mean()) for row in rates.itertuples()]
    return rates.assign(chance=level).reset_index(drop=True)


def demonstrator_table(frame: pd.DataFrame, rates: pd.DataFrame) -> str:
    """One row per demonstrator and scope. rates: of `load_rates`."""
    chance, rows = means(rates).set_index(["run", "scope"])["chance"], []
    for run, scope, n, rate, *others in runs.lines(tidy(frame, ["run", "scope"], QUANTITIES)):
        rows.append([run, scope, n, rate, fmt(chance[run, scope]), *others])
    return table(["demonstrator", "tasks", "bases", RATE, "by chance", REMOVED, KEPT], rows)


def load_tasks(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns task, scope, demonstrator, share (of parents whose task followed), parents."""
    groups = frame.groupby(["task", "scope", "run"], sort=False)["follows"]
    found = groups.agg(share="mean", parents="size").reset_index()
    found = found.rename(columns={"run": "demonstrator"})
    return runs.ordered(found, scope=SCOPES, task=PHASE_TASKS, demonstrator=TEMPERAMENTS)


# --- demonstrators that are no single persona


def load_mixed(frame: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` by run and scope of what is defined for the run."""
    tidied = tidy(frame, ["run", "scope"], MIXED_QUANTITIES)
    places = zip(tidied["run"], tidied["quantity"], strict=True)
    return tidied[[place not in UNDEFINED for place in places]].reset_index(drop=True)


def mixed_table(tidied: pd.DataFrame) -> str:
    """One row per demonstrator and scope, every quantity with its interval over parents."""
    head = ["demonstrator", "tasks", "bases", *MIXED_QUANTITIES]
    return table(head, runs.lines(tidied))


def own_verdict(frame: pd.DataFrame, scope: str) -> Verdict:
    """own-stays-liquid in one scope: liquidity kept after SFT by everyone's own distribution."""
    mine = where(frame, run=world.OWN, scope=scope)
    return judge_over("own-stays-liquid", per_parent(mine, runs.kept))


def load_winner(parents: Sequence[str] = ()) -> pd.DataFrame:
    """`runs.load_ends` of TWO, as if its mixture and each distribution in it were intended.

    Without tasks in which the distributions are one: there mixture and winner are the same.
    """
    every = recipes.load_experiment(EXPERIMENT).runs
    mixture = next(run.set["temperament"] for run in every if run.name == TWO)
    names = world.voices(mixture)[0]
    first, *others = (TEMPERAMENTS.index(name) for name in names)
    same = [task for task in PHASE_TASKS if same_distributions(task)[first, others].all()]
    frames = []
    for name in (mixture, *names):
        mine = runs.load_ends(EXPERIMENT, [TWO], parents=parents, intended=name)
        mine = mine.assign(distribution="the mixture" if name == mixture else name)
        frames.append(mine[~mine["task"].isin(same)])
    return pd.concat(frames, ignore_index=True)


def load_nearest(winner: pd.DataFrame) -> pd.DataFrame:
    """In which share of tasks and parents which distribution is nearest, before and after SFT."""
    places, values = ["scope", "parent", "task"], ["to_distribution_before", "to_distribution"]
    wide = winner.pivot(index=places, columns="distribution", values=values)
    before, after = (wide[value].idxmin(axis=1) for value in values)
    nearest = pd.DataFrame({"before": before, "after": after}).reset_index()
    return _landed(nearest, ["scope"], winner["distribution"].unique(), ["before", "after"])


def load_distances(winner: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` by distribution and scope: mean bits over tasks before and after SFT."""
    quantities = {"before SFT": MIXED_QUANTITIES[NEAR], "after SFT": MIXED_QUANTITIES[FAR]}
    return tidy(winner, ["distribution", "scope"], quantities)


def load_landing(frame: pd.DataFrame, run: str = STRANGER) -> pd.DataFrame:
    """The same as `load_nearest` of one run, of the five distributions."""
    mine = where(frame, run=run)
    mine = mine.assign(before=mine["found_before"], after=mine["found"])
    return _landed(mine, ["scope"], TEMPERAMENTS, ["before", "after"])


def share_table(shares: pd.DataFrame, of: str) -> str:
    """A frame with before and after as a MyST table, in per cent of its rows."""
    percent = lambda share: f"{100 * share:.0f} %" if np.isfinite(share) else "–"  # noqa: E731
    rows = [
        [row.scope, row.distribution, row.rows, percent(row.before), percent(row.after)]
        for row in shares.itertuples()
    ]
    return table(["tasks", of, "tasks and bases", "before SFT", "after SFT"], rows)


# --- how few random choices does a seed need?


def dosed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of DOSED with style and dose; only parents that got any dose but the usual."""
    mine = frame[frame["run"].isin(DOSED)]
    mine = mine[mine["parent"].isin(mine.loc[mine["run"] != ONE, "parent"])]
    style, dose = ([DOSED[run][at] for run in mine["run"]] for at in (0, 1))
    return mine.assign(style=style, dose=dose)


def load_doses(frame: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` by style, dose and scope: removed share and liquidity kept; sorted by dose."""
    quantities = {REMOVED: runs.removed, KEPT: runs.kept}
    tidied = tidy(dosed(frame), ["style", "dose", "scope"], quantities)
    return tidied.sort_values(["style", "dose"], kind="stable", ignore_index=True)


def removed_at(frame: pd.DataFrame, style: str, dose: int) -> pd.Series:
    """By parent, the removed share of all tasks together at one dose."""
    return per_parent(where(dosed(frame), style=style, dose=dose), runs.removed)


def dose_verdict(frame: pd.DataFrame) -> Verdict:
    """style-nucleates: the removed share of all tasks at dose 0, in the demonstrator's style."""
    return judge_over("style-nucleates", removed_at(frame, STYLED, 0))


# --- worlds without a shared distribution


def cast(world_: str) -> tuple[Prompt, ...]:
    """The probe prompts whose personas live in a world; others are strangers to its base."""
    return tuple(p for p in PROBE if world_ != "solo" or p.persona == world.SOLO)


def load_truth(parent: str) -> pd.DataFrame:
    """Mean bits from a base's answers to its personas' own: run, world, form, task, jsd."""
    bases, rows = {SHARED: (parent, "base")}, []
    for run in _controls(parent, "independent", "solo"):
        bases[run] = CONTROLS, f"{parent}/{run}/base"
    for run, (ladder, base) in bases.items():
        frame = store.load_readouts(ladder, tasks=PHASE_TASKS, checkpoints=[base])
        kind, prompts = WORLD[run], cast(WORLD[run])
        for form, task in product(FORMS, PHASE_TASKS):
            p = views.answers(frame, base, task, form, prompts=prompts)
            held = [world.temperament_of(prompt.persona, task, kind) for prompt in prompts]
            own = np.stack([world.distribution(name, TASKS[task]) for name in held])
            rows.append((run, kind, form, task, float(jsd_bits(p, own).mean())))
    return pd.DataFrame(rows, columns=["run", "world", "form", "task", "jsd"])


def _controls(parent: str, *names: str) -> list[str]:
    """Those of the runs that were recorded."""
    done = recipes.load_records(CONTROLS)
    return [run for run in names if f"{parent}/{run}" in done]


def load_worlds(parent: str) -> pd.DataFrame:
    """`runs.walk` of the controls that were read; the parent's own base and SFT as "shared"."""
    own = runs.along([parent])
    parts = [own[own["stage"].isin(["base", "sft"])].assign(run=SHARED)]
    if there := _controls(parent, "shuffled", "independent", "solo"):
        parts.append(runs.walk(CONTROLS, there, parents=[parent]))
    return pd.concat(parts, ignore_index=True)


def load_world_paths(steps: pd.DataFrame) -> pd.DataFrame:
    """Columns run, scope, step, quantity, value: liquidity and removed share by SFT step; means
    over the tasks that all steps answer.
    """
    parts = []
    for (run, held_out), mine in steps.groupby(["run", "held_out"], sort=False):
        mine = mine.groupby("task").filter(lambda task: task["to_distribution"].notna().all())
        means = mine.groupby("step")[["liquidity", "to_distribution"]].mean()
        removed = 1 - means["to_distribution"] / means["to_distribution"].loc[0]
        for quantity, path in (("liquidity, bits", means["liquidity"]), (REMOVED, removed)):
            place = {"run": run, "scope": SCOPES[int(held_out)], "quantity": quantity}
            parts.append(path.rename("value").reset_index().assign(**place))
    return pd.concat(parts, ignore_index=True)


def removed_over_tasks(frame: pd.DataFrame) -> Estimate:
    """`runs.removed` of one run's ends, interval over tasks; those that SFT no longer answers are
    left out.
    """
    frame = frame.dropna(subset=["to_distribution"])
    after, before = frame["to_distribution"].to_numpy(), frame["to_distribution_before"].to_numpy()
    weights = inference.leave_one_out(np.arange(len(frame)))
    return inference.estimate(lambda w: 1 - (w @ after) / (w @ before), weights)


def world_verdict(ends: pd.DataFrame) -> Verdict:
    """seed-needs-a-shared-distribution: removed share of the independent world's held-out tasks,
    interval over these.
    """
    claim = "seed-needs-a-shared-distribution"
    mine, shared = (where(ends, run=run, scope="held-out") for run in ("independent", SHARED))
    if mine.empty:
        return judge_over(claim, pd.Series(dtype=float))
    found = judge(claim, removed_over_tasks(mine))
    over = f"of one base, so the interval is over its {len(mine)} held-out tasks"
    if len(shared):
        over += f"; in the shared world {runs.interval(removed_over_tasks(shared))}"
    return dataclasses.replace(found, reason=f"{found.reason}; {over}")


def world_table(ends: pd.DataFrame) -> str:
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


# --- in words


def record(tidied: pd.DataFrame, *by: str) -> None:
    """Record every mean of `tidy` as measured: <quantity>-<by...>, with its scope as ladder."""
    for row in means(tidied).itertuples():
        name = slug(" ".join([row.quantity, *(str(getattr(row, column)) for column in by)]))
        sentence = f"{row.quantity}: {runs.interval(row)}, over {runs.counted(row.parents)}"
        runs.record(name, row, sentence, ladder=slug(row.scope))


def recorded(frame: pd.DataFrame) -> str:
    """Which of the planned runs stand in a frame of `runs.load_ends`, as a sentence."""
    experiment = recipes.load_experiment(EXPERIMENT)
    planned = {run.name: len(run.parents or experiment.parents) for run in experiment.runs}
    there = frame.groupby("run")["parent"].nunique().reindex(list(planned), fill_value=0)
    parents = runs.counted(frame["parent"].nunique())
    text = f"Of {sum(planned.values())} runs planned, {there.sum()} are in these numbers, "
    text += f"from {parents}."
    short = [f"`{run}` {there[run]} of {n}" for run, n in planned.items() if there[run] < n]
    return f"{text} Bases still missing: {', '.join(short)}." if short else text
