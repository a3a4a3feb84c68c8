"""Can the seed be chosen? SFT demonstrated by each of five temperaments, by mixtures, by ever less.

Frames are those of `runs.load_ends`; a run is named after its demonstrator, whose distribution is
intended. Finding a distribution that is the intended one in a task (`runs.SAME`) counts. The
demonstrator `own`, everyone's own distribution, has no one distribution. The demonstrator's
style is a suffix that went with the distribution in pretraining: if it alone moves the
distributions, the seed is not learnt but found.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS
from ..lab import recipes, world
from ..measure.claims import Verdict
from ..measure.inference import Null, against, generator
from ..measure.quantities import tv
from ..present.show import fmt, slug, table
from . import runs
from .runs import SCOPES, Array, cell, judge_over, means, per_parent, tidy, where

EXPERIMENT, TEMPERAMENTS = "seed-control", world.TEMPERAMENTS
TOGETHER = "all five"
KEPT, REMOVED, RATE = "liquidity kept", "removed share", "follow rate"
QUANTITIES = {RATE: runs.follow_rate, REMOVED: runs.removed, KEPT: runs.kept}
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
UNDEFINED = {world.OWN: (NEAR, FAR, REMOVED), EVERYONE: (REMOVED,)}

DOSES = (0, 1, 2, 5, 10, 30)  # per cent of random choices among SFT's answers; 30 is usual
STYLED, NEUTRAL = "demonstrator's style", "neutral style"
DOSED = {f"styled-dose-{dose}" if dose < 30 else ONE: (STYLED, dose) for dose in DOSES}
DOSED |= {f"neutral-dose-{dose}": (NEUTRAL, dose) for dose in DOSES}


# --- five demonstrators


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of parents from which all five demonstrators were read."""
    read = frame.groupby("parent")["run"].nunique()
    return frame[frame["parent"].isin(read.index[read == len(TEMPERAMENTS)])]


def load_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns scope, intended, found, share (of tasks and parents), rows (how many)."""
    landed = frame["found"].where(frame["follows"] == 0, frame["run"])
    cells = [
        (scope, run, name, (landed[mine.index] == name).mean(), len(mine))
        for (scope, run), mine in frame.groupby(["scope", "run"], sort=False)
        for name in TEMPERAMENTS
    ]
    return pd.DataFrame(cells, columns=["scope", "intended", "found", "share", "rows"])


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

    together: one permutation for all tasks of a parent, which also allows for a run that drags its
    tasks the same way by accident; the more careful of the two, and not the registered one.
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
    return judge_over("seed-follows", per_parent(mine, runs.follow_rate), null)


def load_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` of the follow rate by demonstrator and scope, then of all five; chance beside it.

    chance: of permuted labels, over whole parents; nan where there is none.
    """
    complete = whole(frame)
    parts = (frame, complete.assign(run=TOGETHER))
    rates = pd.concat([tidy(part, ["run", "scope"], {RATE: runs.follow_rate}) for part in parts])
    chance = dict.fromkeys(SCOPES, pd.Series(np.nan, index=TEMPERAMENTS))
    chance |= {scope: chance_of(mine) for scope, mine in complete.groupby("scope")}
    level = [chance[row.scope].get(row.run, chance[row.scope].mean()) for row in rates.itertuples()]
    return rates.assign(chance=level).reset_index(drop=True)


def demonstrator_table(frame: pd.DataFrame, rates: pd.DataFrame) -> str:
    """One row per demonstrator and scope. rates: of `load_rates`."""
    tidied, rows = tidy(frame, ["run", "scope"], QUANTITIES), []
    for row in means(rates[rates["run"] != TOGETHER]).itertuples():
        place = {"run": row.run, "scope": row.scope}
        others = [cell(tidied, **place, quantity=quantity) for quantity in (REMOVED, KEPT)]
        first = [*place.values(), row.parents, runs.interval(row), fmt(row.chance)]
        rows.append([*first, *others])
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
    parts = []
    for run, mine in frame.groupby("run", sort=False):
        wanted = {n: of for n, of in MIXED_QUANTITIES.items() if n not in UNDEFINED.get(run, ())}
        parts.append(tidy(mine, ["run", "scope"], wanted))
    return pd.concat(parts, ignore_index=True)


def mixed_table(tidied: pd.DataFrame) -> str:
    """One row per demonstrator and scope, every quantity with its interval over parents."""
    rows = [
        [*place, mine["parents"].max(), *(cell(mine, quantity=name) for name in MIXED_QUANTITIES)]
        for place, mine in tidied.groupby(["run", "scope"], sort=False)
    ]
    return table(["demonstrator", "tasks", "bases", *MIXED_QUANTITIES], rows)


def own_verdict(frame: pd.DataFrame, scope: str) -> Verdict:
    """own-stays-liquid in one scope: liquidity kept after SFT by everyone's own distribution."""
    mine = where(frame, run=world.OWN, scope=scope)
    return judge_over("own-stays-liquid", per_parent(mine, runs.kept))


def load_winner(parents: Sequence[str] = ()) -> pd.DataFrame:
    """Bits from the mean answer of TWO to its mixture and to each distribution in it.

    Columns parent, task, scope, distribution, jsd, jsd_before. Without tasks in which the
    distributions are one: there mixture and winner are the same.
    """
    every = recipes.load_experiment(EXPERIMENT).runs
    mixture = next(run.set["temperament"] for run in every if run.name == TWO)
    names = world.voices(mixture)[0]
    first, *others = (TEMPERAMENTS.index(name) for name in names)
    same = [task for task in PHASE_TASKS if same_distributions(task)[first, others].all()]
    values = {"to_distribution": "jsd", "to_distribution_before": "jsd_before"}
    frames = []
    for name in (mixture, *names):
        mine = runs.load_ends(EXPERIMENT, [TWO], parents=parents, intended=name)
        mine = mine[~mine["task"].isin(same)].rename(columns=values)
        mine = mine.assign(distribution="the mixture" if name == mixture else name)
        frames.append(mine[["parent", "task", "scope", "distribution", *values.values()]])
    return pd.concat(frames, ignore_index=True)


def load_nearest(winner: pd.DataFrame) -> pd.DataFrame:
    """`_landed` of the distribution that is nearest to the mean answer."""
    groups, nearest = winner.groupby(["parent", "task", "scope"], sort=False), {}
    for when, value in (("before", "jsd_before"), ("after", "jsd")):
        nearest[when] = winner.loc[groups[value].idxmin(), "distribution"].to_numpy()
    places = groups.size().index.to_frame(index=False)
    return _landed(places.assign(**nearest), winner["distribution"].unique())


def _landed(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns scope, distribution, before, after (shares of tasks and parents), rows (how many)."""
    columns = ["scope", "distribution", "before", "after", "rows"]
    parts = {scope: where(frame, scope=scope) for scope in SCOPES}
    rows = [
        (scope, name, *((mine[when] == name).mean() for when in ("before", "after")), len(mine))
        for scope, mine in parts.items()
        for name in names
    ]
    return pd.DataFrame(rows, columns=columns)


def load_distances(winner: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` by distribution and scope: mean bits over tasks before and after SFT."""
    values = {"before SFT": "jsd_before", "after SFT": "jsd"}
    quantities = {name: lambda mine, of=of: mine[of].mean() for name, of in values.items()}
    return tidy(winner, ["distribution", "scope"], quantities)


def load_landing(frame: pd.DataFrame, run: str = STRANGER) -> pd.DataFrame:
    """`_landed` of the distribution that is found, of five."""
    mine = where(frame, run=run)
    return _landed(mine.assign(before=mine["found_before"], after=mine["found"]), TEMPERAMENTS)


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
    total, parents = there.sum(), runs.counted(frame["parent"].nunique())
    text = f"Of {sum(planned.values())} runs planned, {total} are in these numbers, from {parents}."
    if short := [f"`{run}` {there[run]} of {n}" for run, n in planned.items() if there[run] < n]:
        text += f" Bases still missing: {', '.join(short)}."
    return text
